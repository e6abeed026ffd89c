//! The environment to a [`Config`].
//!
//! Owns which variable fills which field and the rules between variables. Reads nothing
//! but the given map and the files its `_FILE` variables name; finds every name through
//! the table. Reports every problem together.

mod shells;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, ConfigErrors, Problem};
use super::reader::Reader;
use super::table::{Setting, setting};
use super::values::{self, show_duration};
use super::{
    ArchivePolicy, ArchiveSettings, CacheSettings, Config, ControlSettings, Credentials,
    DownloadSettings, FwupSettings, HubAddress, IdentifierSource, LinkSettings, LinkTimeouts,
    MetadataSettings, MetadataSource, Proxy, Serializer, SlotOptions, Strategy, TlsSettings,
    TrialSettings, Validate, address, hooks, operator, policy, service,
};

/// Where U-Boot's tools look for their configuration.
const FW_ENV_CONFIG: &str = "/etc/fw_env.config";

/// The configuration and warnings worth logging, or every problem found.
///
/// Later entries of `env` win over earlier ones of the same name.
pub fn parse(
    env: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(Config, Vec<String>), ConfigErrors> {
    let mut reader = Reader::new(env);
    let config = config(&mut reader);
    reader.warn_unknown();
    if reader.errors.is_empty() {
        Ok((config, reader.warnings))
    } else {
        Err(ConfigErrors(reader.errors))
    }
}

fn config(r: &mut Reader) -> Config {
    let allow_insecure = r.flag(setting!("NERVES_HUB_ALLOW_INSECURE")) == Some(true);
    let connect = r.flag(setting!("NERVES_HUB_CONNECT")) != Some(false);
    let data_path = r.path(setting!("NERVES_HUB_DATA_PATH")).unwrap_or_default();
    let (cache, archives) = (cache(r, &data_path), archives(r, &data_path));
    keep_apart(r, &cache, &archives);
    Config {
        host: host(r, connect, allow_insecure),
        connect,
        identifier: identifier(r),
        credentials: credentials(r),
        tls: tls(r),
        link: link(r),
        proxy: proxy(r),
        fwup: fwup(r),
        download: download(r),
        cache,
        archives,
        persist_public_keys: r.flag(setting!("NERVES_HUB_PERSIST_PUBLIC_KEYS")) == Some(true),
        fresh_offer_timeout: r.duration(setting!("NERVES_HUB_FRESH_OFFER_TIMEOUT")),
        metadata: metadata(r),
        slots: slots(r),
        shells: shells::shells(r),
        operator: operator::read(r, &data_path),
        data_path,
        reboot_command: r
            .text(setting!("NERVES_HUB_REBOOT_COMMAND"))
            .unwrap_or_default(),
        reboot_timeout: r.duration(setting!("NERVES_HUB_REBOOT_TIMEOUT")),
        reboot_force: r.flag(setting!("NERVES_HUB_REBOOT_FORCE")) != Some(false),
        trial: trial(r),
        control: control(r),
        policy: policy::read(r),
        hooks: hooks::read(r),
        service: service::read(r),
        shutdown_timeout: r.duration(setting!("NERVES_HUB_SHUTDOWN_TIMEOUT")),
        log_filter: log_filter(r),
        allow_insecure,
    }
}

fn host(r: &mut Reader, connect: bool, allow_insecure: bool) -> Option<HubAddress> {
    let row = setting!("NERVES_HUB_HOST");
    if connect && r.given(row).is_none() {
        r.errors.push(ConfigError::Missing {
            name: row.name.to_owned(),
            why: "the agent is to connect".to_owned(),
            fix: "set it to the hub's name, or set NERVES_HUB_CONNECT=0 to stay offline".to_owned(),
        });
    }
    r.parsed(row, |text| address::hub(text, allow_insecure))
}

fn identifier(r: &mut Reader) -> IdentifierSource {
    let fixed = setting!("NERVES_HUB_IDENTIFIER");
    let command = setting!("NERVES_HUB_IDENTIFIER_COMMAND");
    conflict(r, fixed, command, "keep one of them");
    let fixed = r.parsed(fixed, values::identifier);
    let command = r.text(command);
    match (fixed, command) {
        (Some(text), _) => IdentifierSource::Fixed(text),
        (None, Some(command)) => IdentifierSource::Command(command),
        (None, None) => IdentifierSource::Discover,
    }
}

/// Adds an error when both are given.
fn conflict(r: &mut Reader, first: &Setting, second: &Setting, fix: &str) {
    if let (Some(first), Some(second)) = (r.given(first), r.given(second)) {
        r.errors.push(ConfigError::Conflict {
            first,
            second,
            fix: fix.to_owned(),
        });
    }
}

/// Adds an error when one of a pair is given without the other.
fn pair(r: &mut Reader, a: &Setting, b: &Setting) {
    for (given, missing) in [(a, b), (b, a)] {
        if let (Some(given), None) = (r.given(given), r.given(missing)) {
            r.errors.push(ConfigError::Missing {
                name: missing.name.to_owned(),
                why: format!("{given} is"),
                fix: "set both or neither".to_owned(),
            });
        }
    }
}

/// A certificate, a device's shared secret or a product's, in this order; a certificate
/// next to a shared secret is an error.
fn credentials(r: &mut Reader) -> Option<Credentials> {
    let cert = setting!("NERVES_HUB_CERT_FILE");
    let shared = setting!("NERVES_HUB_SHARED_KEY");
    let product = setting!("NERVES_HUB_PRODUCT_KEY");
    let fix = "keep either the certificate or the shared secret";
    let files = certificate_files(r, cert, setting!("NERVES_HUB_KEY_FILE"));
    let device = shared_secret(r, shared, setting!("NERVES_HUB_SHARED_SECRET"));
    let of_product = shared_secret(r, product, setting!("NERVES_HUB_PRODUCT_SECRET"));
    conflict(r, cert, shared, fix);
    conflict(r, cert, product, fix);
    files.or(device).or(of_product)
}

fn certificate_files(
    r: &mut Reader,
    cert: &'static Setting,
    key: &'static Setting,
) -> Option<Credentials> {
    pair(r, cert, key);
    let cert = r.path(cert);
    let key = r.path(key);
    cert.zip(key)
        .map(|(cert, key)| Credentials::CertificateFiles { cert, key })
}

fn shared_secret(
    r: &mut Reader,
    key: &'static Setting,
    secret: &'static Setting,
) -> Option<Credentials> {
    pair(r, key, secret);
    let key = r.parsed(key, values::header_text);
    let secret = r.header_secret(secret);
    key.zip(secret)
        .map(|(key, secret)| Credentials::SharedSecret { key, secret })
}

fn tls(r: &mut Reader) -> TlsSettings {
    let ca_file = r.path(setting!("NERVES_HUB_CA_FILE"));
    let mode = setting!("NERVES_HUB_CA_MODE");
    let ca_only = r.choice(mode) == "only";
    if ca_only && r.given(setting!("NERVES_HUB_CA_FILE")).is_none() {
        let problem = "leaves nothing to trust without NERVES_HUB_CA_FILE";
        r.refuse(mode, Problem::new(problem, "name the CA file, or use add"));
    }
    TlsSettings {
        ca_file,
        ca_only,
        server_name: r.parsed(setting!("NERVES_HUB_SNI"), address::server_name),
    }
}

fn proxy(r: &mut Reader) -> Option<Proxy> {
    let system = setting!("https_proxy");
    let direct_hosts = setting!("no_proxy");
    r.adopt_capitals(system);
    r.adopt_capitals(direct_hosts);
    let no_proxy = r.list(direct_hosts);
    let parse = |text: &str| match text {
        "none" => Ok(None),
        _ => address::proxy(text, no_proxy.clone()).map(Some),
    };
    let row = setting!("NERVES_HUB_PROXY");
    let own = r.parsed(row, parse);
    if r.given(row).is_some() {
        return own.flatten();
    }
    r.parsed(system, parse).flatten()
}

fn link(r: &mut Reader) -> LinkSettings {
    let (min, max) = (
        setting!("NERVES_HUB_RECONNECT_MIN"),
        setting!("NERVES_HUB_RECONNECT_MAX"),
    );
    let (reconnect_min, reconnect_max) = (r.duration(min), r.duration(max));
    if reconnect_min > reconnect_max && !reconnect_max.is_zero() {
        let what = format!(
            "is more than {} ({})",
            max.name,
            show_duration(reconnect_max)
        );
        r.refuse(
            min,
            Problem::new(what, format!("lower it, or raise {}", max.name)),
        );
    }
    if r.flag(setting!("NERVES_HUB_COMPRESS")) == Some(true) {
        r.warnings.push(
            "NERVES_HUB_COMPRESS has no effect: no release of the WebSocket library has \
             permessage-deflate, so frames go uncompressed"
                .to_owned(),
        );
    }
    LinkSettings {
        wait_for_network: r.flag(setting!("NERVES_HUB_WAIT_FOR_NETWORK")) != Some(false),
        heartbeat_interval: r.duration(setting!("NERVES_HUB_HEARTBEAT_INTERVAL")),
        rejoin_after: r.duration(setting!("NERVES_HUB_REJOIN_AFTER")),
        reconnect_min,
        reconnect_max,
        // At most 100 by the row's range.
        reconnect_jitter: r.integer(setting!("NERVES_HUB_RECONNECT_JITTER")) as u8,
        serializer: match r.choice(setting!("NERVES_HUB_SERIALIZER")) {
            "msgpack" => Serializer::Msgpack,
            _ => Serializer::Json,
        },
        timeouts: LinkTimeouts {
            dns: r.duration(setting!("NERVES_HUB_DNS_TIMEOUT")),
            connect: r.duration(setting!("NERVES_HUB_CONNECT_TIMEOUT")),
            tls: r.duration(setting!("NERVES_HUB_TLS_TIMEOUT")),
            upgrade: r.duration(setting!("NERVES_HUB_UPGRADE_TIMEOUT")),
            join: r.duration(setting!("NERVES_HUB_JOIN_TIMEOUT")),
        },
    }
}

fn fwup(r: &mut Reader) -> FwupSettings {
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

fn download(r: &mut Reader) -> DownloadSettings {
    DownloadSettings {
        // At most a million by the row's range.
        max_disconnects: r.integer(setting!("NERVES_HUB_MAX_DISCONNECTS")) as u32,
        idle_timeout: r.duration(setting!("NERVES_HUB_IDLE_TIMEOUT")),
        max_timeout: r.duration(setting!("NERVES_HUB_MAX_TIMEOUT")),
        time_between_retries: r.duration(setting!("NERVES_HUB_TIME_BETWEEN_RETRIES")),
        worst_case_speed: r.integer(setting!("NERVES_HUB_WORST_CASE_DOWNLOAD_SPEED")),
        rate_limit: r.size(setting!("NERVES_HUB_DOWNLOAD_RATE_LIMIT")),
    }
}

fn cache(r: &mut Reader, data_path: &Path) -> CacheSettings {
    let folder = r.path(setting!("NERVES_HUB_CACHE_DIR"));
    CacheSettings {
        strategy: match r.choice(setting!("NERVES_HUB_UPDATER")) {
            "caching" => Strategy::Caching,
            "parts" => Strategy::Parts,
            _ => Strategy::Streaming,
        },
        folder: folder.unwrap_or_else(|| data_path.join("cache")),
        max: r.size(setting!("NERVES_HUB_CACHE_MAX")),
        // Both at most a thousand by their rows' ranges.
        part_attempts: r.integer(setting!("NERVES_HUB_MAX_PART_ATTEMPTS")) as u32,
        concurrent_parts: r.integer(setting!("NERVES_HUB_MAX_CONCURRENT_PARTS")) as usize,
    }
}

/// Each tidies its own folder, and both use some of the same names.
fn keep_apart(r: &mut Reader, cache: &CacheSettings, archives: &ArchiveSettings) {
    let both = cache.strategy != Strategy::Streaming && archives.policy == ArchivePolicy::Download;
    if !both || cache.folder != archives.folder {
        return;
    }
    // Their defaults differ, so one is given.
    let cache = setting!("NERVES_HUB_CACHE_DIR");
    let (given, what) = match r.given(cache) {
        Some(_) => (cache, "is the archives' folder, too"),
        None => (
            setting!("NERVES_HUB_ARCHIVE_DIR"),
            "is the folder of firmware, too",
        ),
    };
    r.refuse(given, Problem::new(what, "name another one"));
}

fn trial(r: &mut Reader) -> TrialSettings {
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

/// Only the control socket's settings, for programs that talk to the agent: whatever else
/// is wrong is no concern of theirs.
///
/// # Errors
/// What is wrong with those.
pub fn control_socket(
    env: Vec<(OsString, OsString)>,
) -> Result<Option<ControlSettings>, ConfigErrors> {
    let mut reader = Reader::new(env.into_iter());
    let settings = control(&mut reader);
    match reader.errors.is_empty() {
        true => Ok(settings),
        false => Err(ConfigErrors(reader.errors)),
    }
}

fn control(r: &mut Reader) -> Option<ControlSettings> {
    let path = r.path(setting!("NERVES_HUB_CONTROL_SOCKET"));
    let mode = r.parsed(setting!("NERVES_HUB_CONTROL_MODE"), values::mode);
    let group = r.text(setting!("NERVES_HUB_CONTROL_GROUP"));
    Some(ControlSettings {
        path: path.filter(|path| path != Path::new("off"))?,
        mode: mode.unwrap_or_default(),
        group,
    })
}

fn archives(r: &mut Reader, data_path: &Path) -> ArchiveSettings {
    let folder = r.path(setting!("NERVES_HUB_ARCHIVE_DIR"));
    let keys = setting!("NERVES_HUB_ARCHIVE_PUBLIC_KEYS");
    let request = setting!("NERVES_HUB_REQUEST_ARCHIVE_PUBLIC_KEYS");
    ArchiveSettings {
        policy: match r.choice(setting!("NERVES_HUB_ARCHIVES")) {
            "download" => ArchivePolicy::Download,
            "ask" => ArchivePolicy::Ask,
            _ => ArchivePolicy::Ignore,
        },
        folder: folder.unwrap_or_else(|| data_path.join("archives")),
        max: r.size(setting!("NERVES_HUB_ARCHIVE_MAX")),
        ready_command: r.text(setting!("NERVES_HUB_ARCHIVE_READY_COMMAND")),
        public_keys: r.each(keys, values::public_key),
        request_public_keys: r.flag(request) == Some(true),
    }
}

fn metadata(r: &mut Reader) -> MetadataSettings {
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

fn slots(r: &mut Reader) -> SlotOptions {
    SlotOptions {
        ops_fw: r.path(setting!("NERVES_HUB_OPS_FW")).unwrap_or_default(),
        roots: r.each(setting!("NERVES_HUB_SLOT_ROOTS"), values::pair),
        booted: r.text(setting!("NERVES_HUB_BOOTED_SLOT")),
        correct_stale: r.choice(setting!("NERVES_HUB_STALE_SLOT")) == "correct",
    }
}

fn log_filter(r: &mut Reader) -> String {
    let own = setting!("NERVES_HUB_LOG");
    let other = r.text(setting!("RUST_LOG"));
    let filter = r.parsed(own, values::log_filter).unwrap_or_default();
    match other {
        Some(other) if r.given(own).is_none() => other,
        _ => filter,
    }
}
