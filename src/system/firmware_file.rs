//! A firmware file that somebody has put onto this device: what it is, in an offer's terms.
//!
//! Owns what is asked of the file before anything is done with it. Blocks: not for the
//! dispatcher thread. Must not change the file, nor decide whether it is installed.

use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::OFlag;

use super::command;
use crate::config::Secret;
use crate::core::effect::FileStamp;
use crate::wire::{Offer, device};

/// The description stands at a file's beginning, so this is for a medium that hangs.
const DEADLINE: Duration = Duration::from_secs(30);
const OUTPUT: usize = 64 * 1024;
/// Of a file that only an installer of the integrator's understands.
const NO_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// The file as an offer without a URL. `fwup` reads its description and checks that this is
/// signed with one of the keys; without `fwup` there is nothing but its size.
///
/// # Errors
/// It cannot be read, is no firmware, or not signed so; the text names the file.
pub fn describe(
    path: &Path,
    fwup: Option<&Path>,
    keys: &[String],
) -> Result<(Box<Offer>, FileStamp), String> {
    let stamp = look_at(path).map_err(|problem| format!("{}: {problem}", path.display()))?;
    let about = match fwup {
        Some(fwup) => metadata(path, fwup, keys)?,
        None => format!("meta-uuid={NO_UUID}"),
    };
    match offer(&about, stamp.size) {
        Some(offer) => Ok((Box::new(offer), stamp)),
        None => Err(format!("{}: has no usable uuid", path.display())),
    }
}

/// From what `fwup -m` prints.
fn offer(about: &str, size: u64) -> Option<Offer> {
    let value = |name: &str| value(about, name).unwrap_or_default().to_owned();
    let uuid = value("meta-uuid");
    device::is_uuid(&uuid).then(|| Offer {
        uuid,
        version: value("meta-version"),
        product: value("meta-product"),
        url: Secret::new(""),
        size: Some(size),
        checksum: None,
        partials: Vec::new(),
    })
}

/// What tells whether it is still the file that was looked at, and as it was then.
///
/// # Errors
/// The system's.
pub fn stamp(path: &Path) -> io::Result<FileStamp> {
    std::fs::metadata(path).map(|about| stamp_of(&about))
}

fn stamp_of(about: &Metadata) -> FileStamp {
    FileStamp {
        device: about.dev(),
        inode: about.ino(),
        size: about.len(),
        modified: (about.mtime(), about.mtime_nsec()),
        changed: (about.ctime(), about.ctime_nsec()),
    }
}

fn look_at(path: &Path) -> Result<FileStamp, String> {
    // A pipe of that name would be waited for.
    let flags = OFlag::O_NONBLOCK.bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let about = opened.and_then(|file| file.metadata());
    let about = about.map_err(|error| error.to_string())?;
    match about.is_file() {
        true if about.len() == 0 => Err("is empty".to_owned()),
        true => Ok(stamp_of(&about)),
        false => Err("is not a regular file; copy the firmware into one".to_owned()),
    }
}

fn metadata(path: &Path, fwup: &Path, keys: &[String]) -> Result<String, String> {
    let mut program = Command::new(fwup);
    command::without_secrets(&mut program);
    program.arg("-m");
    for key in keys {
        program.args(["--public-key", key]);
    }
    program.arg("-i").arg(path);
    let output = command::capture(&mut program, DEADLINE, OUTPUT);
    let output = output.map_err(|error| error.to_string())?;
    // Without frames it complains on standard output.
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match command::verdict(&output) {
        Ok(()) => Ok(said),
        Err(how) => Err(format!("{}: {how}{}", path.display(), said.trim())),
    }
}

/// Of a line `name=value` or `name="value"`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    Some(value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_with_and_without_quotes() {
        let text = "meta-product=demo\nmeta-uuid=\"a-1\"\nmeta-version=\"\"\n";
        assert_eq!(value(text, "meta-product"), Some("demo"));
        assert_eq!(value(text, "meta-uuid"), Some("a-1"));
        assert_eq!(value(text, "meta-version"), Some(""));
        assert_eq!(value(text, "meta-"), None);
    }

    #[test]
    fn what_is_no_file_is_neither_run_into_nor_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("empty"), "").unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, part) in [
            ("none", "No such file"),
            ("empty", "is empty"),
            ("pipe", "not a regular file"),
            ("", "not a regular file"),
        ] {
            let problem = describe(&path(name), None, &[]).unwrap_err();
            assert!(problem.contains(part), "{problem}");
            assert!(problem.starts_with(&*path(name).to_string_lossy()));
        }
        std::fs::write(path("bundle"), "RAUC").unwrap();
        let (offer, found) = describe(&path("bundle"), None, &[]).unwrap();
        assert_eq!((offer.size, offer.uuid.as_str()), (Some(4), NO_UUID));
        assert_eq!(stamp(&path("bundle")).unwrap(), found);
        std::fs::write(path("other"), "RAUC").unwrap();
        std::fs::rename(path("other"), path("bundle")).unwrap();
        assert_ne!(stamp(&path("bundle")).unwrap(), found);
    }

    #[test]
    fn without_a_usable_uuid_it_is_no_firmware() {
        let good = offer("meta-uuid=\"a-1\"\nmeta-product=demo\n", 7).unwrap();
        assert_eq!((good.uuid.as_str(), good.version.as_str()), ("a-1", ""));
        assert_eq!((good.product.as_str(), good.size), ("demo", Some(7)));
        for text in ["", "meta-uuid=", "meta-uuid=../../x", "fwup: no"] {
            assert_eq!(offer(text, 7), None, "{text}");
        }
    }
}
