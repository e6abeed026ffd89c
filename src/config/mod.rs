//! The typed configuration: what the environment said, parsed once.
//!
//! Owns the types and their documentation. The table of settings that feeds the parser,
//! `--help`, `settings` and the README is in [`table`]; the parser in [`mod@parse`]. Nothing
//! past this module reads the environment.

pub mod address;
pub mod error;
pub mod extensions;
pub mod hooks;
pub mod operator;
pub mod parse;
pub mod policy;
mod reader;
pub mod secret;
pub mod service;
pub mod table;
pub mod values;
pub mod window;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use error::{ConfigError, ConfigErrors};
pub use extensions::ExtensionSettings;
pub use hooks::{Hook, HookSettings};
pub use operator::{IdentifySettings, Led, OperatorSettings, ScriptSettings, UploadSettings};
pub use parse::{control_socket, extension_settings, parse};
pub use policy::{NoDecision, PolicySettings, UpdatePolicy};
pub use secret::Secret;
pub use service::{LogTarget, ServiceSettings};

/// Everything the agent needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the hub is; `None` only when `connect` is false.
    pub host: Option<HubAddress>,
    /// `NERVES_HUB_CONNECT`: false loads everything and stays offline.
    pub connect: bool,
    /// Where the device's identifier comes from when no setting names it.
    pub identifier: IdentifierSource,
    /// Explicit credentials; `None` means: look in the firmware key-value store.
    pub credentials: Option<Credentials>,
    pub tls: TlsSettings,
    pub link: LinkSettings,
    pub proxy: Option<Proxy>,
    pub fwup: FwupSettings,
    pub download: DownloadSettings,
    pub cache: CacheSettings,
    pub archives: ArchiveSettings,
    /// Public keys from the hub are kept for the next start.
    pub persist_public_keys: bool,
    /// How long a fresh offer for a refused URL may take.
    pub fresh_offer_timeout: Duration,
    pub metadata: MetadataSettings,
    pub slots: SlotOptions,
    pub shells: ShellSettings,
    /// Persistent state of the agent (`NERVES_HUB_DATA_PATH`).
    pub data_path: PathBuf,
    /// Run through `/bin/sh -c` after a successful update or on the hub's request.
    pub reboot_command: String,
    /// From the command's start to the machine being down.
    pub reboot_timeout: Duration,
    /// `reboot(2)` may be used when the command does not reboot.
    pub reboot_force: bool,
    /// What the hub's users may do on the device.
    pub operator: OperatorSettings,
    pub trial: TrialSettings,
    /// `None`: no control socket.
    pub control: Option<ControlSettings>,
    pub policy: PolicySettings,
    pub hooks: HookSettings,
    pub service: ServiceSettings,
    pub extensions: ExtensionSettings,
    /// How long `SIGTERM` waits for fwup when all bytes of an update have been handed over.
    pub shutdown_timeout: Duration,
    /// env_logger filter.
    pub log_filter: String,
    /// Plain text allowed (`ws://`, `http://` firmware from other machines).
    pub allow_insecure: bool,
}

/// Scheme, host and port of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubAddress {
    /// `wss` when true, `ws` when false.
    pub secure: bool,
    /// Host name or IP literal, IPv6 without brackets.
    pub host: String,
    pub port: u16,
}

/// Where the device's identifier comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentifierSource {
    /// `NERVES_HUB_IDENTIFIER` or its `_FILE`.
    Fixed(String),
    /// `NERVES_HUB_IDENTIFIER_COMMAND`, run through `/bin/sh -c`; first line of its output.
    Command(String),
    /// `nerves_serial_number`, else `boardid`, else the device tree's serial number.
    Discover,
}

/// How the device proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Key and secret of a device or (`nhp_…`) of a product.
    SharedSecret { key: String, secret: Secret },
    /// Client certificate chain and private key, PEM files (read again on SIGHUP).
    CertificateFiles { cert: PathBuf, key: PathBuf },
    /// Client certificate chain and private key, PEM text (from the key-value store).
    CertificatePem { cert: String, key: Secret },
}

/// Whom to trust and which name to expect.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    pub ca_file: Option<PathBuf>,
    /// `NERVES_HUB_CA_MODE=only`: `ca_file` instead of the built-in roots.
    pub ca_only: bool,
    /// Name sent as SNI and expected in the certificate instead of the host.
    pub server_name: Option<String>,
}

/// The socket's behaviour.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    pub wait_for_network: bool,
    /// Between heartbeats, 100 ms ..= 170 s (the server drops a silent socket after 180 s).
    pub heartbeat_interval: Duration,
    /// Wait before a channel that errored or closed is joined again.
    pub rejoin_after: Duration,
    pub reconnect_min: Duration,
    pub reconnect_max: Duration,
    /// Per cent of random extra delay, 0 ..= 100.
    pub reconnect_jitter: u8,
    pub serializer: Serializer,
    pub timeouts: LinkTimeouts,
}

/// One deadline for each thing a connection attempt waits for.
#[derive(Clone, Copy, Debug)]
pub struct LinkTimeouts {
    pub dns: Duration,
    pub connect: Duration,
    pub tls: Duration,
    pub upgrade: Duration,
    pub join: Duration,
}

/// Frame format on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serializer {
    /// `vsn=2.0.0`, text frames.
    Json,
    /// `vsn=3.0.0`, binary frames.
    Msgpack,
}

/// HTTP proxy spoken to with CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// `user:password`, sent as Basic authentication.
    pub userinfo: Option<Secret>,
    /// Hosts reached directly: names, `.suffix`es, IP literals or `*`.
    pub no_proxy: Vec<String>,
}

/// What applies firmware.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Installer {
    #[default]
    Fwup,
    /// The integrator's program, which speaks the protocol of etc/doc/installers.md.
    Command(PathBuf),
}

impl Installer {
    /// Its name for the hub and for messages: `fwup`, or the program's without its ending.
    pub fn tool(&self) -> String {
        match self {
            Self::Fwup => "fwup".to_owned(),
            Self::Command(path) => {
                let stem = path.file_stem().unwrap_or(path.as_os_str());
                stem.to_string_lossy().into_owned()
            }
        }
    }
}

/// How firmware is applied.
#[derive(Clone, Debug)]
pub struct FwupSettings {
    pub installer: Installer,
    pub path: PathBuf,
    /// Explicit device path; `None` means the metadata's `nerves_fw_devpath`.
    pub devpath: Option<PathBuf>,
    pub task: String,
    pub env: Vec<(String, String)>,
    pub extra_options: Vec<String>,
    /// Base64 Ed25519 public keys, as fwup takes them.
    pub public_keys: Vec<String>,
    /// Ask the hub for keys on each connect, even when some are configured.
    pub request_public_keys: bool,
    /// The installer is killed when it neither reads nor answers for this long.
    pub stall_timeout: Duration,
}

/// When a download is retried and when it is given up.
#[derive(Clone, Copy, Debug)]
pub struct DownloadSettings {
    /// Attempts in a row that brought no new byte.
    pub max_disconnects: u32,
    /// Silence on the connection.
    pub idle_timeout: Duration,
    /// The whole download, pauses included.
    pub max_timeout: Duration,
    pub time_between_retries: Duration,
    /// Bits per second; an attempt gets `remaining·8/speed`, at least 5 minutes.
    pub worst_case_speed: u64,
    /// Bytes per second, 0 for no limit.
    pub rate_limit: u64,
}

/// How firmware travels from the hub to the installer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Straight into the installer, nothing on disk.
    #[default]
    Streaming,
    /// Into one file, proven as a whole, then into the installer.
    Caching,
    /// Into parts, each proven on arrival, then into the installer.
    Parts,
}

/// Where and how firmware is kept before it is installed.
#[derive(Clone, Debug, Default)]
pub struct CacheSettings {
    pub strategy: Strategy,
    pub folder: PathBuf,
    /// Most bytes of one firmware.
    pub max: u64,
    /// How often a part may be wrong.
    pub part_attempts: u32,
    /// How many requests for parts there are at once.
    pub concurrent_parts: usize,
}

/// What becomes of firmware that is not marked valid.
#[derive(Clone, Debug)]
pub struct TrialSettings {
    pub validate: Validate,
    /// Since the agent's start; zero: for ever.
    pub timeout: Duration,
    /// Most reboots of the same firmware that `timeout` leads to.
    pub reboots: u64,
}

/// Who marks the running firmware valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Validate {
    /// Something else on the device.
    Manual,
    /// The agent, after its first join.
    OnJoin,
    /// The agent, once this exits with 0; run through `/bin/sh -c`.
    Command(String),
}

/// The Unix socket by which programs on the device talk to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSettings {
    pub path: PathBuf,
    /// Permission bits: who may connect may do everything.
    pub mode: u32,
    /// Name or number; `None`: the agent's.
    pub group: Option<String>,
}

/// What happens to archives, the files the hub hands to devices beside firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchivePolicy {
    #[default]
    Ignore,
    /// The decider and the hook say; nobody: ignored.
    Ask,
    /// Each one is downloaded, verified and kept.
    Download,
}

/// Which archives are taken, and where to.
#[derive(Clone, Debug, Default)]
pub struct ArchiveSettings {
    pub policy: ArchivePolicy,
    pub folder: PathBuf,
    /// Most bytes of one archive.
    pub max: u64,
    /// Run through `/bin/sh -c` after an archive was verified.
    pub ready_command: Option<String>,
    /// As [`FwupSettings::public_keys`], for archives; none: the firmware's.
    pub public_keys: Vec<String>,
    /// Ask the hub for them on each connect, even when some are configured.
    pub request_public_keys: bool,
}

/// Where the running firmware's description comes from.
#[derive(Clone, Debug)]
pub struct MetadataSettings {
    pub source: MetadataSource,
    /// Set by `NERVES_HUB_FIRMWARE_METADATA`: then it must be readable.
    pub explicit: bool,
    /// `NERVES_HUB_FIRMWARE_*`: key without prefix (`uuid`, `version` …) to value.
    pub overrides: BTreeMap<String, String>,
}

/// What is known of the slots beside the metadata.
#[derive(Clone, Debug, Default)]
pub struct SlotOptions {
    /// `ops.fw`, which need not exist.
    pub ops_fw: PathBuf,
    /// Slot and its root device: a path, `PARTUUID=…` or the like.
    pub roots: Vec<(String, String)>,
    /// The running slot, when it is told.
    pub booted: Option<String>,
    /// A record that names another slot than the running one is corrected.
    pub correct_stale: bool,
}

/// What people at the hub may open on this device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShellPolicy {
    pub console: bool,
    /// The `local_shell` extension.
    pub local: bool,
    /// Without a key pressed; zero: for ever.
    pub timeout: Duration,
}

/// Shells, and how they are started.
#[derive(Clone, Debug, Default)]
pub struct ShellSettings {
    pub policy: ShellPolicy,
    /// A path, or a text for `/bin/sh -c`; `None`: a login shell.
    pub command: Option<String>,
    pub user: Option<String>,
    /// What a shell takes over of the agent's environment: where programs are, which shell,
    /// language and time zone. Nothing else of it reaches one.
    pub environment: Vec<(String, OsString)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataSource {
    /// The U-Boot environment named by this `fw_env.config`.
    Uboot { config: PathBuf },
    /// `key=value` lines.
    File(PathBuf),
    /// A command that prints `key=value` lines, run through `/bin/sh -c`.
    Command(String),
    /// Only the `NERVES_HUB_FIRMWARE_*` variables.
    Env,
}

impl fmt::Display for MetadataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uboot { config } => write!(f, "U-Boot environment by {}", config.display()),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Command(text) => write!(f, "command {text:?}"),
            Self::Env => f.write_str("NERVES_HUB_FIRMWARE_… variables"),
        }
    }
}
