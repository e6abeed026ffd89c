//! `nerveshub-agent check`: is everything there that the agent needs?
//!
//! Owns the list of findings; those about the installer are in `installer`, those about
//! folders in `folders`, about hooks and what people at the hub have run in `hands`. Opens nothing for writing, contacts nobody; runs only what
//! the agent itself would run to learn about the device (fwup's version, the identifier
//! and metadata commands).

mod folders;
mod hands;
mod installer;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::config::{Config, ControlSettings, Credentials, HubAddress, Secret, TlsSettings, parse};
use crate::system::metadata::{self, Firmware, KeyValues};
use crate::system::slots::{self, SlotSettings};
use crate::system::tls::{self, ClientCertificate};
use crate::system::{identity, time};

/// Exit code for errors: EX_CONFIG of sysexits.h.
pub const EX_CONFIG: u8 = 78;
/// Where programs are looked for when there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The table of findings and the exit code: 0, or 78 when there is an error.
pub fn run(env: impl Iterator<Item = (OsString, OsString)>) -> (String, u8) {
    let env: Vec<_> = env.collect();
    let path = env
        .iter()
        .rfind(|(name, _)| name == "PATH")
        .map_or_else(|| DEFAULT_PATH.into(), |(_, path)| path.clone());
    let mut report = Report::default();
    match parse(env.into_iter()) {
        Ok((config, warnings)) => {
            for warning in warnings {
                report.warn("configuration", warning);
            }
            examine(&mut report, &config, &path);
        }
        Err(errors) => {
            for error in errors.0 {
                report.error("configuration", error.to_string());
            }
            report.warn("the rest", "not checked: correct the configuration first");
        }
    }
    report.finish()
}

fn examine(report: &mut Report, config: &Config, path: &OsStr) {
    check_host(report, config.host.as_ref(), config.connect);
    check_clock(report, time::unix_now());
    let values = check_metadata(report, config);
    let booted = slots::booted(&SlotSettings::new(config));
    let firmware = values.firmware(&config.metadata.overrides, booted.as_deref());
    check_firmware(report, &firmware);
    if let Some((active, booted)) = slots::disagreement(&values, booted.as_deref()) {
        let text = format!(
            "{booted} is running and {active} is recorded as active: right only between an update \
             and its reboot"
        );
        report.warn("slot", text);
    }
    match identity::identifier(&config.identifier, &values) {
        Ok(identifier) => report.ok("identifier", identifier),
        Err(error) => report.error("identifier", error.to_string()),
    }
    check_credentials(report, config, &values);
    check_ca(report, &config.tls);
    installer::examine(report, config, &firmware, path);
    folders::examine(report, config);
    check_control(report, config.control.as_ref());
    hands::examine(report, config, path);
    let reboot = ("reboot", "NERVES_HUB_REBOOT_COMMAND");
    check_command(report, Level::Error, reboot, &config.reboot_command, path);
}

fn check_host(report: &mut Report, host: Option<&HubAddress>, connect: bool) {
    match host {
        _ if !connect => report.warn("hub", "NERVES_HUB_CONNECT is off: the agent stays offline"),
        Some(host) if host.secure => report.ok("hub", format!("{}:{}", host.host, host.port)),
        Some(host) => report.warn(
            "hub",
            format!("{}:{} in plain text: for development", host.host, host.port),
        ),
        None => report.error("hub", "NERVES_HUB_HOST is not set"),
    }
}

fn check_clock(report: &mut Report, now: u64) {
    let shown = time::iso8601(now);
    if now >= time::build_epoch() {
        report.ok("clock", shown);
    } else {
        let built = time::iso8601(time::build_epoch());
        report.warn(
            "clock",
            format!("{shown} is before this program was built ({built}); set the clock"),
        );
    }
}

fn check_metadata(report: &mut Report, config: &Config) -> KeyValues {
    match metadata::load_with_warning(&config.metadata) {
        Ok((values, None)) => {
            report.ok("metadata", config.metadata.source.to_string());
            values
        }
        Ok((values, Some(warning))) => {
            report.warn("metadata", warning);
            values
        }
        Err(error) => {
            report.error("metadata", error.to_string());
            KeyValues::default()
        }
    }
}

fn check_firmware(report: &mut Report, firmware: &Firmware) {
    let Some(uuid) = &firmware.uuid else {
        report.warn(
            "firmware",
            "no uuid, so the hub never offers an update; set nerves_fw_uuid in the metadata or \
             NERVES_HUB_FIRMWARE_UUID",
        );
        return;
    };
    let mut text = format!("uuid {uuid}");
    for name in ["product", "version"] {
        let _ = write!(text, ", {name} {}", firmware.get(name).unwrap_or("unknown"));
    }
    let _ = write!(
        text,
        ", slot {}",
        firmware.slot.as_deref().unwrap_or("none")
    );
    let not = if firmware.validated { "" } else { "not " };
    let _ = write!(text, ", {not}validated");
    if firmware.auto_revert_detected {
        text.push_str(", rolled back from the other slot");
    }
    report.ok("firmware", text);
}

fn check_credentials(report: &mut Report, config: &Config, values: &KeyValues) {
    let found = match &config.credentials {
        Some(credentials) => Some(credentials.clone()),
        None => values.credentials(),
    };
    match found {
        Some(Credentials::SharedSecret { key, .. }) => {
            let begin: String = key.chars().take(8).collect();
            report.ok("credentials", format!("shared secret of key {begin}…"));
        }
        Some(Credentials::CertificateFiles { cert, key }) => {
            check_key_mode(report, &key);
            match tls::read_client(&cert, &key) {
                Ok(client) => check_certificate(report, &client),
                Err(error) => report.error("credentials", error.to_string()),
            }
        }
        Some(Credentials::CertificatePem { cert, key }) => check_certificate(
            report,
            &ClientCertificate {
                chain: cert,
                key: Secret::new(key.expose()),
                origin: "nerves_hub_cert and nerves_hub_key".to_owned(),
            },
        ),
        None => {
            let text = "none; set NERVES_HUB_PRODUCT_KEY and NERVES_HUB_PRODUCT_SECRET, or \
                        NERVES_HUB_CERT_FILE and NERVES_HUB_KEY_FILE";
            report.add(
                if config.connect {
                    Level::Error
                } else {
                    Level::Warn
                },
                "credentials",
                text,
            );
        }
    }
}

fn check_key_mode(report: &mut Report, key: &Path) {
    let mode = std::fs::metadata(key).map_or(0, |about| about.permissions().mode());
    if mode & 0o077 != 0 {
        let text = format!(
            "{} can be read by others (mode {:03o}); chmod 600 it",
            key.display(),
            mode & 0o777
        );
        report.warn("credentials", text);
    }
}

/// Chain and key parse, and belong together.
fn check_certificate(report: &mut Report, client: &ClientCertificate) {
    let trust = TlsSettings {
        ca_file: None,
        ca_only: false,
        server_name: None,
    };
    match tls::client_config(&trust, Some(client)) {
        Ok(_) => report.ok("credentials", format!("certificate, {}", client.origin)),
        Err(error) => report.error("credentials", error.to_string()),
    }
}

fn check_ca(report: &mut Report, settings: &TlsSettings) {
    let Some(path) = &settings.ca_file else {
        return report.ok("trust", "built-in roots");
    };
    let instead = if settings.ca_only {
        "instead of"
    } else {
        "added to"
    };
    match tls::client_config(settings, None) {
        Ok(_) => report.ok(
            "trust",
            format!("{} {instead} the built-in roots", path.display()),
        ),
        Err(error) => report.error("trust", error.to_string()),
    }
}

/// The file that would be run: the path itself, or a bare name's first match in PATH.
fn find_program(program: &Path, path: &OsStr) -> Option<PathBuf> {
    let runnable = |file: &Path| file.is_file() && access(file, AccessFlags::X_OK).is_ok();
    if program.components().count() > 1 || program.is_absolute() {
        return runnable(program).then(|| program.to_owned());
    }
    std::env::split_paths(path)
        .map(|folder| folder.join(program))
        .find(|file| runnable(file))
}

/// The agent does its work without; commands such as status do not.
fn check_control(report: &mut Report, settings: Option<&ControlSettings>) {
    let subject = "control socket";
    let Some(settings) = settings else {
        return report.ok(subject, "none, as NERVES_HUB_CONTROL_SOCKET says");
    };
    let (path, usable) = (&settings.path, AccessFlags::W_OK | AccessFlags::X_OK);
    match path.parent().map(|folder| access(folder, usable)) {
        Some(Ok(())) => report.ok(subject, path.display().to_string()),
        _ => report.warn(
            subject,
            format!(
                "{} cannot be made here by this user; change its folder or NERVES_HUB_CONTROL_SOCKET",
                path.display()
            ),
        ),
    }
}

/// A command for the shell, of this subject and setting; `level` is for a program that is not
/// there.
fn check_command(
    report: &mut Report,
    level: Level,
    (subject, setting): (&'static str, &str),
    text: &str,
    path: &OsStr,
) {
    // Leading VAR=value words and `exec` are the shell's.
    let first = text
        .split_whitespace()
        .find(|word| !word.contains('=') && *word != "exec")
        .unwrap_or_default();
    let syntax = |c: char| "\"'`$(){}[];|&<>!\\".contains(c);
    if first.is_empty() || first.contains(syntax) {
        return report.warn(subject, format!("cannot tell which program {text:?} runs"));
    }
    match find_program(Path::new(first), path) {
        Some(found) => report.ok(subject, format!("{text:?} runs {}", found.display())),
        None => report.add(
            level,
            subject,
            format!("there is no program {first}; set {setting}"),
        ),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Error,
}

#[derive(Default)]
struct Report(Vec<(Level, &'static str, String)>);

impl Report {
    fn add(&mut self, level: Level, subject: &'static str, finding: impl Into<String>) {
        self.0.push((level, subject, finding.into()));
    }

    fn ok(&mut self, subject: &'static str, finding: impl Into<String>) {
        self.add(Level::Ok, subject, finding);
    }

    fn warn(&mut self, subject: &'static str, finding: impl Into<String>) {
        self.add(Level::Warn, subject, finding);
    }

    fn error(&mut self, subject: &'static str, finding: impl Into<String>) {
        self.add(Level::Error, subject, finding);
    }

    fn finish(self) -> (String, u8) {
        let width = self.0.iter().map(|row| row.1.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (level, subject, finding) in &self.0 {
            let level = match level {
                Level::Ok => "ok",
                Level::Warn => "warn",
                Level::Error => "error",
            };
            let _ = writeln!(text, "{level:5}  {subject:width$}  {finding}");
        }
        let count = |level| self.0.iter().filter(|row| row.0 == level).count();
        let (errors, warnings) = (count(Level::Error), count(Level::Warn));
        let _ = writeln!(text, "\n{errors} error(s), {warnings} warning(s)");
        (text, if errors == 0 { 0 } else { EX_CONFIG })
    }
}

#[cfg(test)]
mod tests;
