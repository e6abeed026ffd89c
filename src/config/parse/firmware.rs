//! What runs on this device, and what comes after it: metadata, slots, the installer, trials.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::error::Problem;
use crate::config::reader::Reader;
use crate::config::table::setting;
use crate::config::{
    FwupSettings, MetadataSettings, MetadataSource, SlotOptions, TrialSettings, Validate, values,
};

/// Where U-Boot's tools look for their configuration.
const FW_ENV_CONFIG: &str = "/etc/fw_env.config";

pub(super) fn fwup(r: &mut Reader) -> FwupSettings {
    let task = |text: &str| match text.starts_with('-') {
        true => Err(Problem::new(
            "is an option, not a task",
            "use a name such as upgrade",
        )),
        false => Ok(text.to_owned()),
    };
    FwupSettings {
        installer: r
            .parsed(setting!("NERVES_HUB_INSTALLER"), values::installer)
            .unwrap_or_default(),
        path: r.path(setting!("NERVES_HUB_FWUP_PATH")).unwrap_or_default(),
        devpath: r.path(setting!("NERVES_HUB_FWUP_DEVPATH")),
        task: r
            .parsed(setting!("NERVES_HUB_FWUP_TASK"), task)
            .unwrap_or_default(),
        env: r.each(setting!("NERVES_HUB_FWUP_ENV"), values::pair),
        extra_options: r.list(setting!("NERVES_HUB_FWUP_EXTRA_OPTIONS")),
        public_keys: r.each(setting!("NERVES_HUB_FWUP_PUBLIC_KEYS"), values::public_key),
        request_public_keys: r.flag(setting!("NERVES_HUB_REQUEST_FWUP_PUBLIC_KEYS")) == Some(true),
        stall_timeout: r.duration(setting!("NERVES_HUB_FWUP_STALL_TIMEOUT")),
    }
}

pub(super) fn trial(r: &mut Reader) -> TrialSettings {
    TrialSettings {
        validate: r
            .parsed(setting!("NERVES_HUB_VALIDATE"), validate)
            .unwrap_or(Validate::Manual),
        timeout: r.duration(setting!("NERVES_HUB_TRIAL_TIMEOUT")),
        reboots: r.integer(setting!("NERVES_HUB_TRIAL_REBOOTS")),
    }
}

fn validate(text: &str) -> Result<Validate, Problem> {
    match (text, text.split_once(':')) {
        ("manual", _) => Ok(Validate::Manual),
        ("on-join", _) => Ok(Validate::OnJoin),
        (_, Some(("command", command))) if !command.trim().is_empty() => {
            Ok(Validate::Command(command.trim().to_owned()))
        }
        _ => Err(Problem::new(
            "is not a way to validate firmware",
            "use manual, on-join or command:COMMAND",
        )),
    }
}

pub(super) fn metadata(r: &mut Reader) -> MetadataSettings {
    let row = setting!("NERVES_HUB_FIRMWARE_METADATA");
    let explicit = r.given(row).is_some();
    let source = r
        .parsed(row, metadata_source)
        .unwrap_or(MetadataSource::Env);
    let mut overrides = BTreeMap::new();
    for (key, row) in [
        ("uuid", setting!("NERVES_HUB_FIRMWARE_UUID")),
        ("version", setting!("NERVES_HUB_FIRMWARE_VERSION")),
        ("product", setting!("NERVES_HUB_FIRMWARE_PRODUCT")),
        ("platform", setting!("NERVES_HUB_FIRMWARE_PLATFORM")),
        ("architecture", setting!("NERVES_HUB_FIRMWARE_ARCHITECTURE")),
        ("author", setting!("NERVES_HUB_FIRMWARE_AUTHOR")),
        ("description", setting!("NERVES_HUB_FIRMWARE_DESCRIPTION")),
        (
            "vcs_identifier",
            setting!("NERVES_HUB_FIRMWARE_VCS_IDENTIFIER"),
        ),
        ("misc", setting!("NERVES_HUB_FIRMWARE_MISC")),
    ] {
        overrides.extend(r.text(row).map(|text| (key.to_owned(), text)));
    }
    for (key, row) in [
        ("validated", setting!("NERVES_HUB_FIRMWARE_VALIDATED")),
        (
            "auto_revert_detected",
            setting!("NERVES_HUB_FIRMWARE_AUTO_REVERT_DETECTED"),
        ),
    ] {
        let digit = |on: bool| if on { "1" } else { "0" }.to_owned();
        overrides.extend(r.flag(row).map(|on| (key.to_owned(), digit(on))));
    }
    MetadataSettings {
        source,
        explicit,
        overrides,
    }
}

fn metadata_source(text: &str) -> Result<MetadataSource, Problem> {
    let (form, rest) = text.split_once(':').unwrap_or((text, ""));
    let has_colon = text.contains(':');
    match (form, has_colon, rest.trim()) {
        ("uboot", false, _) => Ok(MetadataSource::Uboot {
            config: PathBuf::from(FW_ENV_CONFIG),
        }),
        ("env", false, _) => Ok(MetadataSource::Env),
        ("uboot" | "file" | "command", _, "") => Err(Problem::new(
            "names nothing after its kind",
            "write uboot, uboot:PATH, file:PATH, command:COMMAND or env",
        )),
        ("uboot", true, path) => Ok(MetadataSource::Uboot {
            config: PathBuf::from(path),
        }),
        ("file", true, path) => Ok(MetadataSource::File(PathBuf::from(path))),
        ("command", true, command) => Ok(MetadataSource::Command(command.to_owned())),
        _ => Err(Problem::new(
            "is not a source of metadata",
            "use uboot, uboot:PATH, file:PATH, command:COMMAND or env",
        )),
    }
}

pub(super) fn slots(r: &mut Reader) -> SlotOptions {
    SlotOptions {
        ops_fw: r.path(setting!("NERVES_HUB_OPS_FW")).unwrap_or_default(),
        roots: r.each(setting!("NERVES_HUB_SLOT_ROOTS"), values::pair),
        booted: r.text(setting!("NERVES_HUB_BOOTED_SLOT")),
        correct_stale: r.choice(setting!("NERVES_HUB_STALE_SLOT")) == "correct",
    }
}
