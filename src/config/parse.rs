//! The environment to a [`Config`].
//!
//! Owns which variable fills which field and the rules between variables. Reads nothing
//! but the given map and the files its `_FILE` variables name; finds every name through
//! the table. Reports every problem together.

mod access;
mod firmware;
mod shells;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::Path;

use super::error::{ConfigError, ConfigErrors, Problem};
use super::reader::Reader;
use super::table::setting;
use super::values::{self, show_duration};
use super::{
    ArchivePolicy, ArchiveSettings, CacheSettings, Config, ControlSettings, DownloadSettings,
    ExtensionSettings, HubAddress, LinkSettings, LinkTimeouts, Serializer, Strategy, address,
    extensions, hooks, operator, policy, service,
};

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
        identifier: access::identifier(r),
        credentials: access::credentials(r),
        tls: access::tls(r),
        link: link(r),
        proxy: access::proxy(r),
        fwup: firmware::fwup(r),
        download: download(r),
        cache,
        archives,
        persist_public_keys: r.flag(setting!("NERVES_HUB_PERSIST_PUBLIC_KEYS")) == Some(true),
        fresh_offer_timeout: r.duration(setting!("NERVES_HUB_FRESH_OFFER_TIMEOUT")),
        metadata: firmware::metadata(r),
        slots: firmware::slots(r),
        shells: shells::shells(r),
        operator: operator::read(r, &data_path),
        data_path,
        reboot_command: r
            .text(setting!("NERVES_HUB_REBOOT_COMMAND"))
            .unwrap_or_default(),
        reboot_timeout: r.duration(setting!("NERVES_HUB_REBOOT_TIMEOUT")),
        reboot_force: r.flag(setting!("NERVES_HUB_REBOOT_FORCE")) != Some(false),
        trial: firmware::trial(r),
        control: control(r),
        policy: policy::read(r),
        hooks: hooks::read(r),
        service: service::read(r),
        extensions: extensions::read(r),
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
    let both = cache.strategy != Strategy::Streaming && archives.policy != ArchivePolicy::Ignore;
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

/// Only the extensions' settings, for a health report without an agent.
///
/// # Errors
/// What is wrong with those.
pub fn extension_settings(
    env: Vec<(OsString, OsString)>,
) -> Result<ExtensionSettings, ConfigErrors> {
    let mut reader = Reader::new(env.into_iter());
    let settings = extensions::read(&mut reader);
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

fn log_filter(r: &mut Reader) -> String {
    let own = setting!("NERVES_HUB_LOG");
    let other = r.text(setting!("RUST_LOG"));
    let filter = r.parsed(own, values::log_filter).unwrap_or_default();
    match other {
        Some(other) if r.given(own).is_none() => other,
        _ => filter,
    }
}
