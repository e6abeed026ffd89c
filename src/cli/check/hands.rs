//! What the agent runs for the integrator and for people at the hub: hooks, support scripts,
//! shells, identify.
//!
//! Must not run any of it. Nothing here keeps an agent from starting.

use std::ffi::OsStr;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::{Level, Report, check_command, find_program};
use crate::config::{Config, Hook, HookSettings, IdentifySettings, Led, ShellSettings};
use crate::system::hook::is_anyones;
use crate::workers::{identify, shell};

pub(super) fn examine(report: &mut Report, config: &Config, path: &OsStr) {
    check_hooks(report, &config.hooks);
    let scripts = &config.operator.scripts;
    if scripts.enabled && find_program(&scripts.interpreter, path).is_none() {
        let text = format!(
            "there is no program {}: support scripts without a #! line fail; set \
             NERVES_HUB_SCRIPT_INTERPRETER",
            scripts.interpreter.display()
        );
        report.warn("scripts", text);
    }
    check_shells(report, &config.shells);
    check_identify(report, &config.operator.identify, path);
}

fn check_hooks(report: &mut Report, settings: &HookSettings) {
    let mut any = false;
    for hook in Hook::ALL {
        let Some((path, is_expected)) = settings.path(hook) else {
            continue;
        };
        if !is_expected && path.symlink_metadata().is_err() {
            continue;
        }
        any = true;
        let (name, shown) = (hook.name(), path.display());
        match hook_problem(&path) {
            None => report.ok("hook", format!("{name}: {shown}")),
            Some(problem) => report.warn("hook", format!("{name}: {shown} {problem}")),
        }
    }
    for name in strangers(&settings.folder) {
        let text = format!("{name} is no hook's name; see etc/doc/hooks.md");
        report.warn("hook", text);
    }
    if !any {
        report.ok("hooks", format!("none in {}", settings.folder.display()));
    }
}

/// Why it would count as silent.
fn hook_problem(path: &Path) -> Option<&'static str> {
    if !path.exists() {
        Some("does not exist")
    } else if !path.is_file() || access(path, AccessFlags::X_OK).is_err() {
        Some("is not an executable file: chmod +x it")
    } else if is_anyones(path) {
        Some("can be written by everybody and is not run: chmod o-w it")
    } else {
        None
    }
}

/// Files that may be hooks whose names are spelt wrong. Samples and backups have endings.
fn strangers(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_strange = |name: &String| {
        let is_hook = Hook::ALL.iter().any(|hook| hook.name() == name);
        !is_hook && !name.contains(['.', '~'])
    };
    names.filter(is_strange).take(10).collect()
}

fn check_shells(report: &mut Report, settings: &ShellSettings) {
    if !settings.policy.console && !settings.policy.local {
        return;
    }
    match shell::user(settings) {
        Ok(name) => report.ok("shells", format!("run as {name}")),
        Err(problem) => report.warn("shells", format!("none can be opened: {problem}")),
    }
}

fn check_identify(report: &mut Report, settings: &IdentifySettings, path: &OsStr) {
    if let Some(text) = &settings.command {
        let setting = "NERVES_HUB_IDENTIFY_COMMAND";
        return check_command(report, Level::Warn, ("identify", setting), text, path);
    }
    if let Led::Named(name) = &settings.led {
        // An absolute name stays what it is.
        let led = Path::new(identify::LEDS).join(name);
        match led.is_dir() {
            true => report.ok("identify", format!("{} blinks", led.display())),
            false => report.warn(
                "identify",
                format!(
                    "there is no LED {}; set NERVES_HUB_IDENTIFY_LED",
                    led.display()
                ),
            ),
        }
    }
}
