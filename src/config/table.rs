//! The one table of settings.
//!
//! Owns every variable's name, syntax, default and meaning. The parser finds names only
//! through [`row`], and `--help`, `settings` and the README print these rows, so they
//! cannot drift apart. Must not read the environment.

use std::time::Duration;

/// One variable.
#[derive(Debug)]
pub struct Setting {
    /// The whole name, an interface: never renamed.
    pub name: &'static str,
    /// Heading it is listed under.
    pub section: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// The default as shown, which is the default as parsed; empty: none.
    pub default: &'static str,
    /// Its value is never shown.
    pub secret: bool,
    /// `NAME_FILE` may name a file that holds the value instead.
    pub file: bool,
    /// One or two sentences.
    pub meaning: &'static str,
}

/// Syntax and range of a value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Anything, shown as this word.
    Text(&'static str),
    Path,
    /// Run through `/bin/sh -c`.
    Command,
    Boolean,
    /// Within min ..= max.
    Duration(Duration, Duration),
    /// Within min ..= max.
    Integer(u64, u64),
    /// Bytes within min ..= max, with K, M or G if wanted.
    Size(u64, u64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Words between commas or spaces, each shown as this word.
    List(&'static str),
}

impl Kind {
    /// The value's syntax in one word, for help texts.
    pub fn syntax(&self) -> String {
        match self {
            Self::Text(word) => (*word).to_owned(),
            Self::Path => "PATH".to_owned(),
            Self::Command => "COMMAND".to_owned(),
            Self::Boolean => "1|0".to_owned(),
            Self::Duration(..) => "DURATION".to_owned(),
            Self::Integer(..) => "NUMBER".to_owned(),
            Self::Size(..) => "BYTES".to_owned(),
            Self::Choice(words) => words.join("|"),
            Self::List(word) => format!("{word},…"),
        }
    }
}

impl Setting {
    /// `NAME_FILE`, when there is one.
    pub fn file_name(&self) -> Option<String> {
        self.file.then(|| format!("{}_FILE", self.name))
    }
}

/// The row of a name. Called in `const` context (see `setting!`), where a name that is
/// not in the table stops the build.
pub const fn row(name: &str) -> &'static Setting {
    let mut index = 0;
    while index < SETTINGS.len() {
        if same(SETTINGS[index].name, name) {
            return &SETTINGS[index];
        }
        index += 1;
    }
    panic!("this name is not in the table of settings")
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// The row of a name, looked up by the compiler.
macro_rules! setting {
    ($name:literal) => {
        const { $crate::config::table::row($name) }
    };
}
pub(crate) use setting;

/// How a value may be given: openly, also as `_FILE`, as a secret (also as `_FILE`), or as
/// a secret in a variable of other programs, which know no `_FILE`.
#[derive(Clone, Copy)]
enum Form {
    Plain,
    OrFile,
    Secret,
    ForeignSecret,
}
use Form::{ForeignSecret, OrFile, Plain, Secret};
use Kind::{Boolean, Choice, Command, Integer, List, Path, Size, Text};

const fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}
const fn s(value: u64) -> Duration {
    Duration::from_secs(value)
}
const HOUR: Duration = s(3_600);
const DAY: Duration = s(86_400);
/// Range of the deadlines of a connection attempt.
const DEADLINE: Kind = Kind::Duration(ms(10), s(600));

macro_rules! settings {
    ($($section:literal { $($name:ident $form:ident $kind:expr, $default:literal, $meaning:literal;)* })*) => {
        /// Every setting, in the order it is shown.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            name: stringify!($name),
            section: $section,
            kind: $kind,
            default: $default,
            secret: matches!($form, Form::Secret | Form::ForeignSecret),
            file: matches!($form, Form::OrFile | Form::Secret),
            meaning: $meaning,
        },)*)*];
    };
}

settings! {
    "Hub" {
        NERVES_HUB_HOST Plain Text("HOST"), "",
            "The hub: a name, name:port, [IPv6]:port or a wss:// URL. Needed unless NERVES_HUB_CONNECT is off.";
        NERVES_HUB_ALLOW_INSECURE Plain Boolean, "0",
            "Allows ws:// and http:// firmware URLs, which anyone on the path can read and change. For development.";
        NERVES_HUB_CONNECT Plain Boolean, "1",
            "Off: loads everything and stays offline.";
        NERVES_HUB_WAIT_FOR_NETWORK Plain Boolean, "1",
            "Before the first attempt, waits until a TCP connection to the hub succeeds.";
    }
    "Identity and credentials" {
        NERVES_HUB_IDENTIFIER OrFile Text("TEXT"), "",
            "The device's identifier, 1 to 255 bytes. Else nerves_serial_number, boardid or the device tree's serial number is taken, never an invented one.";
        NERVES_HUB_IDENTIFIER_COMMAND Plain Command, "",
            "A command whose first line of output is the identifier.";
        NERVES_HUB_PRODUCT_KEY OrFile Text("KEY"), "",
            "Product key (nhp_…). The device is created on the hub at first sight.";
        NERVES_HUB_PRODUCT_SECRET Secret Text("SECRET"), "",
            "Secret of the product key.";
        NERVES_HUB_SHARED_KEY OrFile Text("KEY"), "",
            "Device key, used instead of the product key.";
        NERVES_HUB_SHARED_SECRET Secret Text("SECRET"), "",
            "Secret of the device key.";
        NERVES_HUB_CERT_FILE Plain Path, "",
            "Client certificate chain, PEM. Read again on SIGHUP.";
        NERVES_HUB_KEY_FILE Plain Path, "",
            "Private key of the certificate, PEM (EC, RSA or Ed25519).";
    }
    "TLS and proxy" {
        NERVES_HUB_CA_FILE Plain Path, "",
            "CA certificates to trust, PEM.";
        NERVES_HUB_CA_MODE Plain Choice(&["add", "only"]), "add",
            "add: NERVES_HUB_CA_FILE as well as the built-in roots; only: instead of them.";
        NERVES_HUB_SNI Plain Text("NAME"), "",
            "Name sent to the hub and expected in its certificate instead of the host.";
        NERVES_HUB_PROXY Secret Text("URL"), "",
            "HTTP proxy for the socket and downloads, http://[user:password@]host:port, spoken to with CONNECT; none: direct even when https_proxy is set.";
        https_proxy ForeignSecret Text("URL"), "",
            "The proxy when NERVES_HUB_PROXY is not set; HTTPS_PROXY works too.";
        no_proxy Plain List("HOST"), "",
            "Hosts reached without the proxy: names with their subdomains, .suffixes, addresses or *; NO_PROXY works too.";
    }
    "Link" {
        NERVES_HUB_HEARTBEAT_INTERVAL Plain Kind::Duration(ms(100), s(170)), "30s",
            "Between heartbeats, 100ms to 170s: the hub drops a socket that is silent for 180s. One that is not answered before the next drops the link; while other messages come in, before the third one after it.";
        NERVES_HUB_REJOIN_AFTER Plain Kind::Duration(ms(10), HOUR), "5s",
            "Wait before a channel that failed or closed is joined again.";
        NERVES_HUB_RECONNECT_MIN Plain Kind::Duration(ms(10), HOUR), "1s",
            "Wait after the first failed connection; doubles with each further one.";
        NERVES_HUB_RECONNECT_MAX Plain Kind::Duration(ms(10), DAY), "60s",
            "Longest wait between connections, before jitter.";
        NERVES_HUB_RECONNECT_JITTER Plain Integer(0, 100), "50",
            "Most random extra wait, per cent.";
        NERVES_HUB_SERIALIZER Plain Choice(&["json", "msgpack"]), "json",
            "Frame format on the socket.";
        NERVES_HUB_COMPRESS Plain Boolean, "0",
            "Accepted, without effect but a warning: no release of the WebSocket library has permessage-deflate, so frames go uncompressed.";
        NERVES_HUB_DNS_TIMEOUT Plain DEADLINE, "10s",
            "Deadline for looking up a host name.";
        NERVES_HUB_CONNECT_TIMEOUT Plain DEADLINE, "10s",
            "Deadline for the TCP connection.";
        NERVES_HUB_TLS_TIMEOUT Plain DEADLINE, "10s",
            "Deadline for the TLS handshake.";
        NERVES_HUB_UPGRADE_TIMEOUT Plain DEADLINE, "10s",
            "Deadline for the answer to the WebSocket upgrade.";
        NERVES_HUB_JOIN_TIMEOUT Plain DEADLINE, "10s",
            "Deadline for the reply to joining a channel.";
    }
    "Updates" {
        NERVES_HUB_INSTALLER Plain Text("fwup|command:PATH"), "fwup",
            "What applies updates: fwup, or a program of yours, run as PATH begin, finish, abort or confirm (etc/doc/installers.md). Such a program must check signatures itself.";
        NERVES_HUB_FWUP_PATH Plain Path, "fwup",
            "The fwup program; a bare name is looked up in PATH.";
        NERVES_HUB_FWUP_DEVPATH Plain Path, "",
            "Device or file that fwup writes to. Else the firmware metadata's nerves_fw_devpath; never guessed.";
        NERVES_HUB_FWUP_TASK Plain Text("TASK"), "upgrade",
            "Task that fwup runs.";
        NERVES_HUB_FWUP_ENV Secret List("KEY=VALUE"), "",
            "Environment variables for fwup or the installer program.";
        NERVES_HUB_FWUP_EXTRA_OPTIONS OrFile List("OPTION"), "",
            "Further options for fwup.";
        NERVES_HUB_FWUP_PUBLIC_KEYS OrFile List("KEY"), "",
            "Public keys that firmware must be signed with, base64 of 32 bytes each. None: the hub is asked for them.";
        NERVES_HUB_REQUEST_FWUP_PUBLIC_KEYS Plain Boolean, "0",
            "Asks the hub for public keys on each connect even when some are configured; its answer replaces them.";
        NERVES_HUB_PERSIST_PUBLIC_KEYS Plain Boolean, "0",
            "Keeps public keys that the hub was asked for in NERVES_HUB_DATA_PATH/public-keys.json, so that they are there from the next start on. They are trusted until the hub sends others: a key withdrawn at the hub stays good until the device has connected again, and whoever can write that file decides what is installed.";
        NERVES_HUB_FWUP_STALL_TIMEOUT Plain Kind::Duration(ms(10), DAY), "5m",
            "fwup or the installer program is killed, and the update failed, when it neither reads nor answers for this long.";
        NERVES_HUB_UPDATER Plain Choice(&["streaming", "caching", "parts"]), "streaming",
            "How firmware reaches fwup. streaming: directly, nothing is kept. caching: by way of one file, checked before fwup starts, resumed after a restart. parts: by way of 1 MiB parts, each checked on arrival.";
        NERVES_HUB_CACHE_DIR Plain Path, "",
            "Folder that caching and parts keep firmware in. Else NERVES_HUB_DATA_PATH/cache.";
        NERVES_HUB_CACHE_MAX Plain Size(1, 1 << 50), "2G",
            "Largest firmware kept there; a larger one is refused.";
        NERVES_HUB_MAX_PART_ATTEMPTS Plain Integer(1, 1000), "3",
            "parts: the update fails when one part was wrong so many times.";
        NERVES_HUB_MAX_CONCURRENT_PARTS Plain Integer(1, 16), "1",
            "parts: how many requests there are at once.";
        NERVES_HUB_DOWNLOAD_RATE_LIMIT Plain Size(0, 1 << 50), "0",
            "Bytes per second that a download takes at most, over all its requests; 0: no limit.";
        NERVES_HUB_FRESH_OFFER_TIMEOUT Plain Kind::Duration(ms(10), HOUR), "20s",
            "When a firmware URL is refused (expired), the device channel is joined anew for a fresh offer, which may take so long to come.";
        NERVES_HUB_MAX_DISCONNECTS Plain Integer(0, 1_000_000), "10",
            "A download is given up after this many attempts in a row without a new byte.";
        NERVES_HUB_IDLE_TIMEOUT Plain Kind::Duration(ms(10), HOUR), "60s",
            "A download attempt ends after this much silence.";
        NERVES_HUB_MAX_TIMEOUT Plain Kind::Duration(ms(10), s(30 * 86_400)), "24h",
            "Deadline for a whole download, pauses included.";
        NERVES_HUB_TIME_BETWEEN_RETRIES Plain Kind::Duration(ms(10), DAY), "15s",
            "Wait before a download is resumed.";
        NERVES_HUB_WORST_CASE_DOWNLOAD_SPEED Plain Integer(1, 1_000_000_000_000), "30000",
            "Bits per second. A download attempt may take as long as the rest needs at this speed, at least 5 minutes.";
        NERVES_HUB_VALIDATE Plain Text("manual|on-join|command:COMMAND"), "manual",
            "Who marks new firmware valid. manual: something else on the device; on-join: the agent, once the hub has taken its join; command: the agent, once this command, run every 10s for at most 60s, exits with 0.";
        NERVES_HUB_TRIAL_TIMEOUT Plain Kind::Duration(ms(0), s(30 * 86_400)), "0",
            "Firmware that is not marked valid this long after the agent's start is rebooted, so that the bootloader goes back to the old one. 0: never.";
        NERVES_HUB_TRIAL_REBOOTS Plain Integer(0, 1000), "3",
            "Most such reboots of the same firmware: a bootloader that does not go back must not make a device that restarts for ever.";
    }
    "Policy" {
        NERVES_HUB_UPDATE_POLICY Plain Choice(&["ask", "apply", "ignore", "schedule"]), "ask",
            "What is done about an update that the hub offers. ask: the hook update-available says, else NERVES_HUB_ON_NO_DECISION; apply: it is installed at once; ignore: never; schedule: as ask, but only within NERVES_HUB_UPDATE_WINDOW.";
        NERVES_HUB_UPDATE_WINDOW Plain Text("DAYS HH:MM-HH:MM,…"), "",
            "When updates may begin, in local time, such as Mon-Fri 01:00-05:00, Sat,Sun 22:00-06:00. Outside, an offer is put off until the next one opens. Ends before it begins: on the next day.";
        NERVES_HUB_ON_NO_DECISION Plain Choice(&["apply", "ignore", "reschedule"]), "apply",
            "What is done about an update when there is no hook, or none that answers. reschedule: put off for an hour.";
        NERVES_HUB_SAME_FIRMWARE Plain Choice(&["ignore", "apply"]), "ignore",
            "What is done about an offer of the very firmware that is running; apply: it is decided upon as any other.";
        NERVES_HUB_DOWNGRADE Plain Choice(&["allow", "ignore"]), "allow",
            "What is done about an offer of a version lower than the running one's, as semantic versioning orders them. Versions that are none are never lower.";
        NERVES_HUB_REBOOT_MAX_DEFER Plain Kind::Duration(ms(0), s(7 * 86_400)), "1h",
            "How long the hook reboot-request may put off a reboot, all in all. 0: it is not asked.";
    }
    "Hooks" {
        NERVES_HUB_HOOKS_DIR Plain Path, "/etc/nerveshub-agent/hooks",
            "Folder of hooks: executables that are run, or asked, when something happens (etc/doc/hooks.md). Looked for anew each time.";
        NERVES_HUB_HOOK_TIMEOUT Plain Kind::Duration(ms(10), s(600)), "10s",
            "A hook is killed, with all that it started, when it takes longer; then it counts as silent.";
        NERVES_HUB_HOOK_CONFIGURE Plain Path, "",
            "Prints settings at the start, as NERVES_HUB_X=value lines; the environment goes before them. A path, or none to switch it off.";
        NERVES_HUB_HOOK_UPDATE_AVAILABLE Plain Path, "",
            "Decides about an update: apply, ignore or reschedule.";
        NERVES_HUB_HOOK_UPDATE_PROGRESS Plain Path, "",
            "Told how far an update is.";
        NERVES_HUB_HOOK_UPDATE_COMPLETED Plain Path, "",
            "Told that an update is installed.";
        NERVES_HUB_HOOK_UPDATE_FAILED Plain Path, "",
            "Told that an update has failed.";
        NERVES_HUB_HOOK_REBOOT_REQUEST Plain Path, "",
            "Decides about a reboot: reboot or defer.";
        NERVES_HUB_HOOK_ARCHIVE_AVAILABLE Plain Path, "",
            "Decides about an archive: download, ignore or reschedule.";
        NERVES_HUB_HOOK_ARCHIVE_READY Plain Path, "",
            "Told where a verified archive is.";
        NERVES_HUB_HOOK_CONNECTED Plain Path, "",
            "Told that the hub is reached.";
        NERVES_HUB_HOOK_DISCONNECTED Plain Path, "",
            "Told that the hub is not reached any more.";
        NERVES_HUB_HOOK_RECONNECT_BACKOFF Plain Path, "",
            "Prints the waits between connections.";
        NERVES_HUB_HOOK_IDENTIFY Plain Path, "",
            "Makes itself seen or heard.";
        NERVES_HUB_HOOK_FIRMWARE_VALIDATED Plain Path, "",
            "Exits with 0 when the running firmware is marked valid, with 1 when not.";
        NERVES_HUB_HOOK_FIRMWARE_AUTO_REVERT_DETECTED Plain Path, "",
            "Exits with 0 when the other slot's firmware was rolled back, with 1 when not.";
    }
    "Archives" {
        NERVES_HUB_ARCHIVES Plain Choice(&["ignore", "ask", "download"]), "ignore",
            "What happens to archives, files the hub hands to devices beside firmware. ask: the hook archive-available says, and without its answer they are ignored. download: each is fetched, its signature verified with fwup, and kept as UUID.fw until another one takes its place; one that was handled is not fetched again. An update always goes first.";
        NERVES_HUB_ARCHIVE_DIR Plain Path, "",
            "Folder for archives. Else NERVES_HUB_DATA_PATH/archives.";
        NERVES_HUB_ARCHIVE_MAX Plain Size(1, 1 << 50), "2G",
            "Largest archive; a larger one is refused.";
        NERVES_HUB_ARCHIVE_READY_COMMAND Plain Command, "",
            "Run, instead of the hook archive-ready, when an archive was verified and is in place, at least once for each; 5 minutes at most. In its environment: NERVES_HUB_ARCHIVE_PATH, _UUID, _VERSION, _PLATFORM, _ARCHITECTURE and _DESCRIPTION. Begun again after a power cut, up to three times; a failure is only logged.";
        NERVES_HUB_ARCHIVE_PUBLIC_KEYS OrFile List("KEY"), "",
            "Public keys that archives must be signed with, base64 of 32 bytes each. None: those the hub sends for archives, else the firmware's. Without any key an archive is refused.";
        NERVES_HUB_REQUEST_ARCHIVE_PUBLIC_KEYS Plain Boolean, "0",
            "Asks the hub for archive public keys on each connect even when some are configured; its answer replaces them.";
    }
    "Firmware metadata" {
        NERVES_HUB_FIRMWARE_METADATA Plain Text("SOURCE"), "uboot",
            "Where the running firmware is described: uboot (or uboot:CONFIG, default /etc/fw_env.config), file:PATH or command:COMMAND with key=value lines, or env (only the variables below).";
        NERVES_HUB_FIRMWARE_UUID Plain Text("UUID"), "",
            "Overrides nerves_fw_uuid.";
        NERVES_HUB_FIRMWARE_VERSION Plain Text("VERSION"), "",
            "Overrides nerves_fw_version.";
        NERVES_HUB_FIRMWARE_PRODUCT Plain Text("TEXT"), "",
            "Overrides nerves_fw_product.";
        NERVES_HUB_FIRMWARE_PLATFORM Plain Text("TEXT"), "",
            "Overrides nerves_fw_platform.";
        NERVES_HUB_FIRMWARE_ARCHITECTURE Plain Text("TEXT"), "",
            "Overrides nerves_fw_architecture.";
        NERVES_HUB_FIRMWARE_AUTHOR Plain Text("TEXT"), "",
            "Overrides nerves_fw_author.";
        NERVES_HUB_FIRMWARE_DESCRIPTION Plain Text("TEXT"), "",
            "Overrides nerves_fw_description.";
        NERVES_HUB_FIRMWARE_VCS_IDENTIFIER Plain Text("TEXT"), "",
            "Overrides nerves_fw_vcs_identifier.";
        NERVES_HUB_FIRMWARE_MISC Plain Text("TEXT"), "",
            "Overrides nerves_fw_misc.";
        NERVES_HUB_FIRMWARE_VALIDATED Plain Boolean, "",
            "Overrides whether the running firmware counts as validated.";
        NERVES_HUB_FIRMWARE_AUTO_REVERT_DETECTED Plain Boolean, "",
            "Overrides whether the other slot's firmware was tried and rolled back.";
    }
    "Slots" {
        NERVES_HUB_OPS_FW Plain Path, "/usr/share/fwup/ops.fw",
            "Archive whose tasks validate, revert, prevent-revert and factory-reset are run with fwup; revert.fw beside it is known, too. Without it these are done in the U-Boot environment, where that is possible.";
        NERVES_HUB_SLOT_ROOTS Plain List("SLOT=DEVICE"), "",
            "Root device of each slot, such as a=/dev/mmcblk0p2,b=PARTUUID=01234567-03: tells which slot is running when the kernel command line has no fw_slot.";
        NERVES_HUB_BOOTED_SLOT Plain Text("SLOT"), "",
            "Overrides which slot is running, else from the kernel command line (fw_slot) or NERVES_HUB_SLOT_ROOTS.";
        NERVES_HUB_STALE_SLOT Plain Choice(&["refuse", "correct"]), "refuse",
            "When another slot is running than the U-Boot environment records as active. refuse: no update, which would overwrite the running slot; correct: the record is corrected at the start, but not while firmware that the agent has installed waits for its reboot.";
    }
    "Shells" {
        NERVES_HUB_CONSOLE Plain Boolean, "0",
            "Lets people at the hub open a console on this device: a terminal with a shell, with all the rights of NERVES_HUB_SHELL_USER, to which files can be sent.";
        NERVES_HUB_LOCAL_SHELL Plain Boolean, "0",
            "The same by way of the hub's local_shell extension.";
        NERVES_HUB_CONSOLE_COMMAND Plain Command, "",
            "What runs in the terminal of either. A path alone is started as a login shell. Else SHELL, or /bin/sh; with NERVES_HUB_SHELL_USER, that user's shell.";
        NERVES_HUB_CONSOLE_TIMEOUT Plain Kind::Duration(ms(0), DAY), "300s",
            "A shell without a key pressed for so long is ended; the next key starts another. 0: never.";
        NERVES_HUB_SHELL_USER Plain Text("USER"), "",
            "User that shells run as, with all of that user's groups. Else the agent's own, which is mostly root.";
    }
    "Extensions" {
        NERVES_HUB_EXTENSIONS Plain List("NAME"), "health",
            "Extensions that are enabled; the hub decides which of them it attaches. local_shell needs NERVES_HUB_LOCAL_SHELL only. none: not one.";
        NERVES_HUB_EXTENSIONS_DIR Plain Path, "/etc/nerveshub-agent/extensions",
            "Folder of the integrator's own extensions: each executable in it is one, see etc/doc/extensions.md.";
        NERVES_HUB_EXTENSION_TIMEOUT Plain Kind::Duration(ms(100), HOUR), "30s",
            "How long an extension may work upon one thing it was told before it counts as hanging and is detached.";
        NERVES_HUB_HEALTH_METRICS Plain List("cpu|memory|disk|network"), "cpu,memory,disk",
            "Sets of metrics in the health report, in this order (etc/doc/health.md). none: only the integrator's own.";
        NERVES_HUB_HEALTH_DISKS Plain List("PATH"), "/",
            "Where the file systems are whose use is reported: the first under the plain names, each other with its path behind them. Where / alone is given and is read-only or has no blocks: that of NERVES_HUB_DATA_PATH.";
        NERVES_HUB_HEALTH_DISK_ALARM Plain Integer(0, 100), "90",
            "Per cent at which one of them raises the alarm DiskAlmostFull; cleared 2 below. 0: never.";
        NERVES_HUB_HEALTH_DISK_IGNORE Plain List("PATH|read-only"), "read-only",
            "Those that raise no alarm; read-only: all that cannot be written to. none: each may.";
        NERVES_HUB_HEALTH_THERMAL_ZONE Plain Text("ZONE"), "",
            "Name or type of the thermal zone whose temperature is reported, such as thermal_zone0 or cpu-thermal. Else the hottest.";
        NERVES_HUB_HEALTH_DIR Plain Path, "",
            "Folder in which the device's other programs leave metrics, metadata, checks and alarms as NAME.env files; executables in it are run for theirs at each report. Must belong to root or the agent's user, and not be writable by everybody.";
        NERVES_HUB_HEALTH_PROBE Plain Text("HOST:PORT"), "",
            "An interface counts as connected to the internet when a TCP connection to this succeeds over it. Else when it has a default route.";
        NERVES_HUB_GEO Plain Text("geoip|fixed:LAT,LON[,ACC]|command:CMD|gpsd:HOST[:PORT]"), "geoip",
            "geo: where the device is. geoip: where NERVES_HUB_GEO_URL says its internet address is; fixed: degrees and metres; command: prints {latitude, longitude, accuracy?, source?} as JSON; gpsd: its next fix.";
        NERVES_HUB_GEO_URL Plain Text("URL"), "https://whenwhere.nerves-project.org/",
            "geo: the geoip service, which speaks whenwhere's protocol (etc/doc/geo.md).";
        NERVES_HUB_GEO_CACHE Plain Kind::Duration(ms(0), s(30 * 86_400)), "24h",
            "geo: how long its answer is good for. 0: it is asked each time the hub asks.";
        NERVES_HUB_NETWORK_IDENTITY Plain Text("PROVIDER,…"), "",
            "network_identity: what is asked for the device's identities: tailscale, netbird, wireguard:INTERFACE, iroh:COMMAND, command:COMMAND (etc/doc/network-identity.md). Without any there are those set at the control socket.";
        NERVES_HUB_NETWORK_IDENTITY_INTERVAL Plain Kind::Duration(ms(0), DAY), "5m",
            "network_identity: between looks at what has changed; only that is sent. 0: none but when the hub asks.";
        NERVES_HUB_LOGGING_SOURCES Plain List("SOURCE"), "agent",
            "Where the log lines come from that the extension logging sends: agent, syslog, kmsg, journald, and, as the last, command:CMD (etc/doc/logging.md).";
        NERVES_HUB_LOGGING_LEVEL Plain Text("LEVEL"), "info",
            "The least severe lines that are sent: error, warning, notice, info or debug.";
        NERVES_HUB_LOGGING_SYSLOG_FILE Plain Path, "/var/log/messages",
            "File that the source syslog follows.";
        NERVES_HUB_LOGGING_BUFFER Plain Integer(1, 100_000), "1000",
            "Lines held while they cannot be sent, of 256 KiB at most. Then the oldest give way, and a line says how many.";
    }
    "Operator" {
        NERVES_HUB_SCRIPTS Plain Boolean, "1",
            "Runs the hub's support scripts. Off: each is answered with an error that says so.";
        NERVES_HUB_SCRIPT_INTERPRETER Plain Path, "/bin/sh",
            "Program that runs a support script that does not name its own in a #! line.";
        NERVES_HUB_UPLOAD_DIR Plain Path, "",
            "Folder for files sent from the hub's console. Else NERVES_HUB_DATA_PATH/uploads. Must not be a symbolic link.";
        NERVES_HUB_UPLOAD_MAX Plain Size(0, 1 << 50), "64M",
            "Largest file taken; 0: none is.";
        NERVES_HUB_IDENTIFY_COMMAND Plain Command, "",
            "Run when the hub asks the device to show itself; killed after 30 s. In place of NERVES_HUB_IDENTIFY_LED.";
        NERVES_HUB_IDENTIFY_LED Plain Text("none|auto|NAME"), "none",
            "LED that blinks for 10 s when the hub asks the device to show itself: one of /sys/class/leds; auto: one whose name says that it is for this (identify, status, …), if there is one.";
    }
    "Agent" {
        NERVES_HUB_DATA_PATH Plain Path, "/var/lib/nerveshub-agent",
            "Folder for the agent's persistent state. Each agent needs its own: a second one waits 15 s for the first to leave, then exits with 75.";
        NERVES_HUB_REBOOT_COMMAND Plain Command, "reboot",
            "Run after an update, when the hub asks for a reboot and when NERVES_HUB_TRIAL_TIMEOUT is over.";
        NERVES_HUB_REBOOT_TIMEOUT Plain Kind::Duration(ms(100), HOUR), "60s",
            "How long the reboot command has until the machine is down. Then, or when it fails, the reboot is forced.";
        NERVES_HUB_REBOOT_FORCE Plain Boolean, "1",
            "Forces a reboot that its command does not bring about: reboot(2), without stopping services, after flushing disks. Off: only the command is run again.";
        NERVES_HUB_REBOOT_DURING_UPDATE Plain Boolean, "0",
            "Reboots on the hub's request even while firmware is being written, which then has to start over. Off: the request is refused.";
        NERVES_HUB_SHUTDOWN_TIMEOUT Plain Kind::Duration(ms(0), s(600)), "10s",
            "How long SIGTERM waits for the installer once it has all bytes of an update, and for a reboot command that is running.";
        NERVES_HUB_CONTROL_SOCKET Plain Text("PATH|off"), "/run/nerveshub-agent.sock",
            "Unix socket for programs on the device and for commands such as status. Each agent on a machine needs its own. off: none.";
        NERVES_HUB_CONTROL_MODE Plain Text("OCTAL"), "0660",
            "Permissions of the control socket: who may write to it may do everything it offers.";
        NERVES_HUB_CONTROL_GROUP Plain Text("GROUP"), "",
            "Group of the control socket, by name or number. Else the agent's.";
        NERVES_HUB_ALARM_DIR Plain Path, "",
            "Folder in which each file is an alarm: its name, and its first line as the description. Watched while the agent runs. Made when it is missing.";
        NERVES_HUB_PID_FILE Plain Path, "",
            "File that the agent writes its process id to, and removes when it leaves.";
        NERVES_HUB_LOG_TARGET Plain Choice(&["stderr", "syslog", "kmsg"]), "stderr",
            "Where the log goes: standard error (without times, with priorities, where systemd's journal reads it), /dev/log or /dev/kmsg.";
        NERVES_HUB_LOG Plain Text("FILTER"), "info",
            "A level (off, error, warn, info, debug, trace) or TARGET=LEVEL,…";
        RUST_LOG Plain Text("FILTER"), "",
            "The filter when NERVES_HUB_LOG is not set.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_a_file_form_is_not_another_setting() {
        let mut names = BTreeSet::new();
        for setting in SETTINGS {
            assert!(names.insert(setting.name.to_owned()), "{}", setting.name);
            if let Some(name) = setting.file_name() {
                assert!(names.insert(name.clone()), "{name}");
            }
        }
    }

    #[test]
    fn every_meaning_is_a_sentence() {
        for setting in SETTINGS {
            assert!(setting.meaning.len() > 15, "{}", setting.name);
            assert!(setting.meaning.ends_with(['.', '…']), "{}", setting.name);
        }
    }
}
