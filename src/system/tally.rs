//! How often firmware that nobody marked valid was rebooted: one small file, kept across
//! power cuts, about one firmware at a time.

use std::io;
use std::path::{Path, PathBuf};

use super::durable;

/// A uuid and a number fit many times over.
const CAP: usize = 1024;

pub fn path(data_path: &Path) -> PathBuf {
    data_path.join("trial-reboots")
}

/// The count of the firmware on trial; none at all (`None`), or another one's, is removed.
///
/// # Errors
/// The system's, or what is in the file is no count. That is not taken for zero: each start
/// would begin anew.
pub fn recall(path: &Path, on_trial: Option<&str>) -> io::Result<u64> {
    let Some(uuid) = on_trial else {
        // A read-only disk refuses even to remove what is not there.
        return match path.exists() {
            true => durable::remove(path).map(|()| 0),
            false => Ok(0),
        };
    };
    let Some(bytes) = durable::read(path, CAP)? else {
        return Ok(0);
    };
    let text = String::from_utf8_lossy(&bytes);
    let (counted, number) = text
        .trim_end()
        .rsplit_once(' ')
        .and_then(|(uuid, number)| Some((uuid, number.parse().ok()?)))
        .ok_or_else(|| io::Error::other("not \"UUID NUMBER\"; remove it"))?;
    match counted == uuid {
        true => Ok(number),
        false => durable::remove(path).map(|()| 0),
    }
}

/// # Errors
/// The system's; the old count is then still there.
pub fn write(path: &Path, uuid: &str, number: u64) -> io::Result<()> {
    durable::write(path, format!("{uuid} {number}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_kept_for_one_firmware_and_only_while_it_is_on_trial() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder.path().join("data"));
        assert_eq!(recall(&path, Some("one")).unwrap(), 0);
        write(&path, "one", 2).unwrap();
        assert_eq!(recall(&path, Some("one")).unwrap(), 2);
        assert_eq!(recall(&path, Some("two")).unwrap(), 0);
        assert!(!path.exists());
        write(&path, "two", 1).unwrap();
        assert_eq!(recall(&path, None).unwrap(), 0);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_count_is_not_zero() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path());
        for text in ["", "one", "one -1", "one x"] {
            durable::write(&path, text.as_bytes()).unwrap();
            assert!(recall(&path, Some("one")).is_err(), "{text:?}");
        }
        assert_eq!(recall(&path, None).unwrap(), 0);
    }
}
