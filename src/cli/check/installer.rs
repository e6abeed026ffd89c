//! What applies updates: fwup or the integrator's program, its keys, where it writes.
//!
//! Must not run the integrator's program: it has no verb that changes nothing.

use std::ffi::OsStr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use super::{Report, find_program};
use crate::config::{Config, Installer};
use crate::system::command;
use crate::system::metadata::Firmware;

/// Deadline of `fwup --version`.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most bytes of its answer.
const CAP: usize = 4096;

pub(super) fn examine(report: &mut Report, config: &Config, firmware: &Firmware, path: &OsStr) {
    match &config.fwup.installer {
        Installer::Fwup => {
            check_fwup(report, config, path);
            check_devpath(report, config, firmware);
        }
        Installer::Command(program) => check_program(report, program, path),
    }
}

/// Keys and the device path are its own business.
fn check_program(report: &mut Report, program: &Path, path: &OsStr) {
    match find_program(program, path) {
        Some(found) => report.ok(
            "installer",
            format!("{}; checking signatures is its job", found.display()),
        ),
        None => {
            let what = match program.exists() {
                true => "is not an executable file",
                false => "does not exist",
            };
            let text = format!(
                "{} {what}; correct NERVES_HUB_INSTALLER or chmod +x the program",
                program.display()
            );
            report.error("installer", text);
        }
    }
}

fn check_fwup(report: &mut Report, config: &Config, path: &OsStr) {
    match fwup_version(&config.fwup.path, path) {
        Ok(text) => report.ok("fwup", text),
        Err(text) => report.error("fwup", text),
    }
    let keys = match config.fwup.public_keys.len() {
        0 => "none configured: the hub is asked for them".to_owned(),
        1 => "1 configured".to_owned(),
        count => format!("{count} configured"),
    };
    report.ok("public keys", keys);
}

fn fwup_version(program: &Path, path: &OsStr) -> Result<String, String> {
    let found = find_program(program, path).ok_or_else(|| {
        format!(
            "there is no program {}; install fwup or set NERVES_HUB_FWUP_PATH",
            program.display()
        )
    })?;
    let output = command::capture(Command::new(&found).arg("--version"), DEADLINE, CAP)
        .map_err(|error| error.to_string())?;
    let version = String::from_utf8_lossy(&output.stdout);
    match version.lines().next().map(str::trim) {
        Some(version) if output.status.success() && !version.is_empty() => {
            Ok(format!("{}, version {version}", found.display()))
        }
        _ => Err(format!(
            "{} --version failed ({}); is it fwup?",
            found.display(),
            output.status
        )),
    }
}

fn check_devpath(report: &mut Report, config: &Config, firmware: &Firmware) {
    let Some(path) = config.fwup.devpath.as_ref().or(firmware.devpath.as_ref()) else {
        return report.error(
            "device path",
            "none; set NERVES_HUB_FWUP_DEVPATH, or nerves_fw_devpath in the metadata",
        );
    };
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(error) => report.error("device path", format!("{shown}: {error}")),
        Ok(about) if !about.file_type().is_block_device() && !about.is_file() => report.error(
            "device path",
            format!("{shown} is neither a block device nor a file"),
        ),
        Ok(_) if access(path, AccessFlags::W_OK).is_err() => report.error(
            "device path",
            format!("{shown} may not be written by this user"),
        ),
        Ok(_) => report.ok("device path", format!("{shown} is writable")),
    }
}
