//! Every configuration error and the rules between variables.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::table::SETTINGS;
use crate::config::{Credentials, IdentifierSource, MetadataSource, UpdatePolicy, Validate};

fn vars(pairs: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    pairs.into_iter()
}

/// Offline, so that only the variables under test matter.
fn offline(pairs: &[(&str, &str)]) -> Result<(Config, Vec<String>), ConfigErrors> {
    parse(vars(pairs).chain(vars(&[("NERVES_HUB_CONNECT", "0")])))
}

fn good(pairs: &[(&str, &str)]) -> Config {
    offline(pairs).unwrap_or_else(|e| panic!("{e}")).0
}

fn messages(pairs: &[(&str, &str)]) -> Vec<String> {
    match offline(pairs) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.iter().map(ToString::to_string).collect(),
    }
}

const SHORT_KEY: &str = "AAAA";

/// (variable, value, exact message)
const SINGLE: &[(&str, &str, &str)] = &[
    (
        "NERVES_HUB_VALIDATE",
        "command:",
        r#"NERVES_HUB_VALIDATE: "command:" is not a way to validate firmware; use manual, on-join or command:COMMAND"#,
    ),
    (
        "NERVES_HUB_REBOOT_TIMEOUT",
        "50ms",
        r#"NERVES_HUB_REBOOT_TIMEOUT: "50ms" is out of range; use 100ms to 1h"#,
    ),
    (
        "NERVES_HUB_TRIAL_REBOOTS",
        "1001",
        r#"NERVES_HUB_TRIAL_REBOOTS: "1001" is out of range; use a whole number from 0 to 1000"#,
    ),
    (
        "NERVES_HUB_HOST",
        "htp://x",
        r#"NERVES_HUB_HOST: "htp://x" has scheme htp; use wss:// or a bare host name"#,
    ),
    (
        "NERVES_HUB_HOST",
        "https://hub",
        r#"NERVES_HUB_HOST: "https://hub" has scheme https; use wss:// or a bare host name"#,
    ),
    (
        "NERVES_HUB_HOST",
        "ws://localhost:4000",
        r#"NERVES_HUB_HOST: "ws://localhost:4000" is plain text, which anyone on the path can read and change; use wss://, or set NERVES_HUB_ALLOW_INSECURE=1 for development"#,
    ),
    (
        "NERVES_HUB_HOST",
        "ws://127.0.0.1",
        r#"NERVES_HUB_HOST: "ws://127.0.0.1" is plain text, which anyone on the path can read and change; use wss://, or set NERVES_HUB_ALLOW_INSECURE=1 for development"#,
    ),
    (
        "NERVES_HUB_HOST",
        "wss://hub/socket",
        r#"NERVES_HUB_HOST: "wss://hub/socket" has a path; leave it out: the agent adds its own"#,
    ),
    (
        "NERVES_HUB_HOST",
        "hub?a=1",
        r#"NERVES_HUB_HOST: "hub?a=1" has a query; leave it out: the agent adds its own"#,
    ),
    (
        "NERVES_HUB_HOST",
        "wss://me:hunter2@hub",
        r#"NERVES_HUB_HOST: "wss://…@hub" has a user name or password in it; credentials go into NERVES_HUB_PRODUCT_KEY and NERVES_HUB_PRODUCT_SECRET"#,
    ),
    (
        "NERVES_HUB_HOST",
        "hub:0",
        r#"NERVES_HUB_HOST: "hub:0" has port "0"; use 1 to 65535"#,
    ),
    (
        "NERVES_HUB_HOST",
        "hub:99999",
        r#"NERVES_HUB_HOST: "hub:99999" has port "99999"; use 1 to 65535"#,
    ),
    (
        "NERVES_HUB_HOST",
        "hub:",
        r#"NERVES_HUB_HOST: "hub:" has port ""; use 1 to 65535"#,
    ),
    (
        "NERVES_HUB_HOST",
        "fe80::1",
        r#"NERVES_HUB_HOST: "fe80::1" is an IPv6 address without brackets; write [fe80::1] or [fe80::1]:PORT"#,
    ),
    (
        "NERVES_HUB_HOST",
        "[fe80::1",
        r#"NERVES_HUB_HOST: "[fe80::1" has a [ without a ]; use a host name, name:port, [IPv6]:port or wss://name:port"#,
    ),
    (
        "NERVES_HUB_HOST",
        "[hub]",
        r#"NERVES_HUB_HOST: "[hub]" has no IPv6 address in its brackets; use a host name, name:port, [IPv6]:port or wss://name:port"#,
    ),
    (
        "NERVES_HUB_HOST",
        "[::1]443",
        r#"NERVES_HUB_HOST: "[::1]443" has text after its ]; use a host name, name:port, [IPv6]:port or wss://name:port"#,
    ),
    (
        "NERVES_HUB_HOST",
        "wss://",
        r#"NERVES_HUB_HOST: "wss://" has no host name; use a host name, name:port, [IPv6]:port or wss://name:port"#,
    ),
    (
        "NERVES_HUB_HOST",
        "my hub",
        r#"NERVES_HUB_HOST: "my hub" has bad host name "my hub"; use a host name, name:port, [IPv6]:port or wss://name:port"#,
    ),
    (
        "NERVES_HUB_HOST",
        "10.0.0.256",
        r#"NERVES_HUB_HOST: "10.0.0.256" has bad host name "10.0.0.256"; use a host name, name:port, [IPv6]:port or wss://name:port"#,
    ),
    (
        "NERVES_HUB_HOST",
        "höb",
        r#"NERVES_HUB_HOST: "höb" has a host name that is not ASCII; write it in its xn--… form"#,
    ),
    (
        "NERVES_HUB_ALLOW_INSECURE",
        "maybe",
        r#"NERVES_HUB_ALLOW_INSECURE: "maybe" is not a boolean; use 1/0, true/false, yes/no or on/off"#,
    ),
    (
        "NERVES_HUB_IDENTIFIER",
        "a\u{7}b",
        r#"NERVES_HUB_IDENTIFIER: "a\u{7}b" has a control character in it; use 1 to 255 bytes of plain text on one line"#,
    ),
    (
        "NERVES_HUB_PRODUCT_KEY",
        "nhp_a b",
        r#"NERVES_HUB_PRODUCT_KEY: "nhp_a b" has a space or an unprintable character in it; copy the one line the hub shows"#,
    ),
    (
        "NERVES_HUB_CA_MODE",
        "replace",
        r#"NERVES_HUB_CA_MODE: "replace" is not known; use add or only"#,
    ),
    (
        "NERVES_HUB_CA_MODE",
        "only",
        r#"NERVES_HUB_CA_MODE: "only" leaves nothing to trust without NERVES_HUB_CA_FILE; name the CA file, or use add"#,
    ),
    (
        "NERVES_HUB_SNI",
        "https://hub",
        r#"NERVES_HUB_SNI: "https://hub" is not a host name; use a bare host name or IP address"#,
    ),
    (
        "NERVES_HUB_PROXY",
        "socks5://me:hunter2@p:1080",
        r#"NERVES_HUB_PROXY: "socks5://…@p:1080" has scheme socks5, and only HTTP proxies are spoken; use http://host:port or http://user:password@host:port"#,
    ),
    (
        "NERVES_HUB_PROXY",
        "http://proxy",
        r#"NERVES_HUB_PROXY: "http://proxy" has no port; use http://host:port or http://user:password@host:port"#,
    ),
    (
        "NERVES_HUB_PROXY",
        "http://proxy:1/x",
        r#"NERVES_HUB_PROXY: "http://proxy:1/x" has a path; use http://host:port or http://user:password@host:port"#,
    ),
    (
        "NERVES_HUB_PROXY",
        "http://u:%zz@proxy:1",
        r#"NERVES_HUB_PROXY: "http://…@proxy:1" has a bad % in its user name or password; write special characters as % and two hex digits"#,
    ),
    (
        "NERVES_HUB_PROXY",
        "http://u:%0d@proxy:1",
        r#"NERVES_HUB_PROXY: "http://…@proxy:1" has a control character in its user name or password; use http://host:port or http://user:password@host:port"#,
    ),
    (
        "https_proxy",
        "socks5://p:1080",
        r#"https_proxy: "socks5://p:1080" has scheme socks5, and only HTTP proxies are spoken; use http://host:port or http://user:password@host:port"#,
    ),
    (
        "NERVES_HUB_HEARTBEAT_INTERVAL",
        "soon",
        r#"NERVES_HUB_HEARTBEAT_INTERVAL: "soon" is not a duration; write a whole number with ms, s, m, h or d, such as 30s"#,
    ),
    (
        "NERVES_HUB_HEARTBEAT_INTERVAL",
        "3m",
        r#"NERVES_HUB_HEARTBEAT_INTERVAL: "3m" is out of range; use 100ms to 170s"#,
    ),
    (
        "NERVES_HUB_HEARTBEAT_INTERVAL",
        "99ms",
        r#"NERVES_HUB_HEARTBEAT_INTERVAL: "99ms" is out of range; use 100ms to 170s"#,
    ),
    (
        "NERVES_HUB_RECONNECT_MIN",
        "90s",
        r#"NERVES_HUB_RECONNECT_MIN: "90s" is more than NERVES_HUB_RECONNECT_MAX (1m); lower it, or raise NERVES_HUB_RECONNECT_MAX"#,
    ),
    (
        "NERVES_HUB_RECONNECT_JITTER",
        "101",
        r#"NERVES_HUB_RECONNECT_JITTER: "101" is out of range; use a whole number from 0 to 100"#,
    ),
    (
        "NERVES_HUB_RECONNECT_JITTER",
        "half",
        r#"NERVES_HUB_RECONNECT_JITTER: "half" is not a whole number; use a whole number from 0 to 100"#,
    ),
    (
        "NERVES_HUB_SERIALIZER",
        "xml",
        r#"NERVES_HUB_SERIALIZER: "xml" is not known; use json or msgpack"#,
    ),
    (
        "NERVES_HUB_FWUP_TASK",
        "--task",
        r#"NERVES_HUB_FWUP_TASK: "--task" is an option, not a task; use a name such as upgrade"#,
    ),
    (
        "NERVES_HUB_FWUP_ENV",
        "A=1 SECRET",
        "NERVES_HUB_FWUP_ENV: the value (number 2) is not KEY=VALUE; write KEY=VALUE words between commas or spaces",
    ),
    (
        "NERVES_HUB_FWUP_PUBLIC_KEYS",
        "!",
        r#"NERVES_HUB_FWUP_PUBLIC_KEYS: "!" (number 1) is not base64 of 32 bytes; use the text in the .pub file that fwup -g wrote"#,
    ),
    (
        "NERVES_HUB_FWUP_PUBLIC_KEYS",
        SHORT_KEY,
        r#"NERVES_HUB_FWUP_PUBLIC_KEYS: "AAAA" (number 1) is base64 of 3 bytes, not of 32; use the text in the .pub file that fwup -g wrote"#,
    ),
    (
        "NERVES_HUB_WORST_CASE_DOWNLOAD_SPEED",
        "0",
        r#"NERVES_HUB_WORST_CASE_DOWNLOAD_SPEED: "0" is out of range; use a whole number from 1 to 1000000000000"#,
    ),
    (
        "NERVES_HUB_FIRMWARE_METADATA",
        "yaml",
        r#"NERVES_HUB_FIRMWARE_METADATA: "yaml" is not a source of metadata; use uboot, uboot:PATH, file:PATH, command:COMMAND or env"#,
    ),
    (
        "NERVES_HUB_FIRMWARE_METADATA",
        "file:",
        r#"NERVES_HUB_FIRMWARE_METADATA: "file:" names nothing after its kind; write uboot, uboot:PATH, file:PATH, command:COMMAND or env"#,
    ),
    (
        "NERVES_HUB_LOG",
        "inof",
        r#"NERVES_HUB_LOG: "inof" has no log level in "inof"; use off, error, warn, info, debug or trace, or TARGET=LEVEL"#,
    ),
    (
        "NERVES_HUB_PRODUCT_SECRET_FILE",
        "/nonexistent/secret",
        r#"NERVES_HUB_PRODUCT_SECRET_FILE: cannot use "/nonexistent/secret": No such file or directory (os error 2); name a readable file with the value in it"#,
    ),
];

#[test]
fn every_bad_value_has_its_message() {
    for (name, value, message) in SINGLE {
        // The missing half of a pair is a second finding.
        assert!(
            messages(&[(name, value)]).contains(&(*message).to_owned()),
            "wanted {message}\ngot {:?}",
            messages(&[(name, value)])
        );
    }
}

#[test]
fn every_kind_of_row_refuses_nonsense() {
    use crate::config::table::Kind;
    for setting in SETTINGS {
        let bad = match setting.kind {
            Kind::Duration(..) | Kind::Integer(..) | Kind::Boolean | Kind::Choice(_) => "-1x",
            _ => continue,
        };
        // The switch of `offline` itself comes last and would win.
        if setting.name == "NERVES_HUB_CONNECT" {
            continue;
        }
        let found = messages(&[(setting.name, bad)]);
        assert_eq!(found.len(), 1, "{}: {found:?}", setting.name);
        assert!(found[0].starts_with(&format!("{}: \"-1x\" ", setting.name)));
    }
}

/// Two variables and the exact message.
type Pairs = &'static [(&'static str, &'static str)];
const RELATIONS: &[(Pairs, &str)] = &[
    (
        &[
            ("NERVES_HUB_IDENTIFIER", "a"),
            ("NERVES_HUB_IDENTIFIER_COMMAND", "b"),
        ],
        "NERVES_HUB_IDENTIFIER and NERVES_HUB_IDENTIFIER_COMMAND are both set; keep one of them",
    ),
    (
        &[
            ("NERVES_HUB_IDENTIFIER", "a"),
            ("NERVES_HUB_IDENTIFIER_FILE", "/x"),
        ],
        "NERVES_HUB_IDENTIFIER and NERVES_HUB_IDENTIFIER_FILE are both set; keep one of them",
    ),
    (
        &[("NERVES_HUB_PRODUCT_KEY", "nhp_x")],
        "NERVES_HUB_PRODUCT_SECRET is not set, but NERVES_HUB_PRODUCT_KEY is; set both or neither",
    ),
    (
        &[("NERVES_HUB_PRODUCT_SECRET", "x")],
        "NERVES_HUB_PRODUCT_KEY is not set, but NERVES_HUB_PRODUCT_SECRET is; set both or neither",
    ),
    (
        &[("NERVES_HUB_SHARED_KEY", "x")],
        "NERVES_HUB_SHARED_SECRET is not set, but NERVES_HUB_SHARED_KEY is; set both or neither",
    ),
    (
        &[("NERVES_HUB_SHARED_SECRET", "x")],
        "NERVES_HUB_SHARED_KEY is not set, but NERVES_HUB_SHARED_SECRET is; set both or neither",
    ),
    (
        &[("NERVES_HUB_CERT_FILE", "/c")],
        "NERVES_HUB_KEY_FILE is not set, but NERVES_HUB_CERT_FILE is; set both or neither",
    ),
    (
        &[("NERVES_HUB_KEY_FILE", "/k")],
        "NERVES_HUB_CERT_FILE is not set, but NERVES_HUB_KEY_FILE is; set both or neither",
    ),
    (
        &[
            ("NERVES_HUB_CERT_FILE", "/c"),
            ("NERVES_HUB_KEY_FILE", "/k"),
            ("NERVES_HUB_PRODUCT_KEY", "nhp_x"),
            ("NERVES_HUB_PRODUCT_SECRET", "s"),
        ],
        "NERVES_HUB_CERT_FILE and NERVES_HUB_PRODUCT_KEY are both set; keep either the certificate or the shared secret",
    ),
    (
        &[
            ("NERVES_HUB_CERT_FILE", "/c"),
            ("NERVES_HUB_KEY_FILE", "/k"),
            ("NERVES_HUB_SHARED_KEY", "x"),
            ("NERVES_HUB_SHARED_SECRET", "s"),
        ],
        "NERVES_HUB_CERT_FILE and NERVES_HUB_SHARED_KEY are both set; keep either the certificate or the shared secret",
    ),
    (
        &[
            ("NERVES_HUB_PRODUCT_SECRET", "hunter 2"),
            ("NERVES_HUB_PRODUCT_KEY", "nhp_x"),
        ],
        "NERVES_HUB_PRODUCT_SECRET: the value has a space or an unprintable character in it; copy the one line the hub shows",
    ),
    (
        &[
            ("NERVES_HUB_UPDATER", "caching"),
            ("NERVES_HUB_ARCHIVES", "download"),
            ("NERVES_HUB_DATA_PATH", "/d"),
            ("NERVES_HUB_CACHE_DIR", "/d/archives/"),
        ],
        r#"NERVES_HUB_CACHE_DIR: "/d/archives/" is the archives' folder, too; name another one"#,
    ),
    (
        &[
            ("NERVES_HUB_UPDATER", "parts"),
            ("NERVES_HUB_ARCHIVES", "download"),
            ("NERVES_HUB_DATA_PATH", "/d"),
            ("NERVES_HUB_ARCHIVE_DIR", "/d/cache"),
        ],
        r#"NERVES_HUB_ARCHIVE_DIR: "/d/cache" is the folder of firmware, too; name another one"#,
    ),
];

#[test]
fn every_bad_combination_has_its_message() {
    for (pairs, message) in RELATIONS {
        assert_eq!(messages(pairs), [*message]);
    }
}

#[test]
fn one_folder_will_do_where_only_one_of_both_uses_it() {
    let folders = [
        ("NERVES_HUB_CACHE_DIR", "/d"),
        ("NERVES_HUB_ARCHIVE_DIR", "/d"),
    ];
    for other in [
        ("NERVES_HUB_UPDATER", "caching"),
        ("NERVES_HUB_ARCHIVES", "download"),
    ] {
        assert_eq!(messages(&[folders[0], folders[1], other]), [""; 0]);
    }
}

#[test]
fn a_missing_host_is_an_error_only_when_connecting() {
    let errors = parse(vars(&[])).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "NERVES_HUB_HOST is not set, but the agent is to connect; set it to the hub's name, or \
         set NERVES_HUB_CONNECT=0 to stay offline"
    );
    assert_eq!(good(&[]).host, None);
}

#[test]
fn bytes_that_are_not_utf8_are_an_error_only_in_our_variables() {
    let broken = OsString::from_vec(vec![b'a', 0xff]);
    let mut env: Vec<_> = vars(&[("NERVES_HUB_HOST", "hub")]).collect();
    env.push(("LS_COLORS".into(), broken.clone()));
    assert!(parse(env.clone().into_iter()).is_ok());
    env.push(("NERVES_HUB_FWUP_TASK".into(), broken));
    assert_eq!(
        parse(env.into_iter()).unwrap_err().to_string(),
        "NERVES_HUB_FWUP_TASK: the value is not UTF-8; write it as plain text"
    );
}

#[test]
fn problems_are_reported_together_and_secrets_are_not() {
    let errors = parse(vars(&[
        ("NERVES_HUB_HOST", "htp://x"),
        ("NERVES_HUB_PRODUCT_SECRET", "hunter 2"),
        ("NERVES_HUB_PROXY", "ftp://me:hunter2@p:1"),
        ("NERVES_HUB_FWUP_ENV", "hunter2"),
        ("NERVES_HUB_JOIN_TIMEOUT", "x"),
        ("NERVES_HUB_CONNECT", "x"),
    ]))
    .unwrap_err();
    assert_eq!(errors.0.len(), 7, "{errors}");
    let text = format!("{errors}{errors:?}");
    assert!(!text.contains("hunter"), "{text}");
}

#[test]
fn a_private_key_among_the_public_ones_is_not_shown() {
    use base64::Engine as _;
    let private = base64::engine::general_purpose::STANDARD.encode([9u8; 64]);
    assert_eq!(
        messages(&[("NERVES_HUB_FWUP_PUBLIC_KEYS", &private)]),
        [
            "NERVES_HUB_FWUP_PUBLIC_KEYS: the value (number 1) is base64 of 64 bytes, the size of a \
          private key; use the text in the .pub file that fwup -g wrote"
        ]
    );
}

#[test]
fn files_stand_in_for_values() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let secret = file("secret", "s3cret\n");
    let config = good(&[
        ("NERVES_HUB_PRODUCT_KEY", "nhp_k"),
        ("NERVES_HUB_PRODUCT_SECRET_FILE", &secret),
    ]);
    let expected = Credentials::SharedSecret {
        key: "nhp_k".to_owned(),
        secret: crate::config::Secret::new("s3cret"),
    };
    assert_eq!(config.credentials, Some(expected));
    for (text, problem) in [
        ("\n", "it is empty"),
        (&*"x".repeat(70_000), "it is larger than 64 KiB"),
    ] {
        let path = file("bad", text);
        assert_eq!(
            messages(&[("NERVES_HUB_IDENTIFIER_FILE", &path)]),
            [format!(
                "NERVES_HUB_IDENTIFIER_FILE: cannot use {path:?}: {problem}; name a readable file with the value in it"
            )]
        );
    }
    let long = "x".repeat(256);
    let path = file("long", &long);
    assert_eq!(
        messages(&[("NERVES_HUB_IDENTIFIER_FILE", &path)]),
        [format!(
            "NERVES_HUB_IDENTIFIER_FILE: \"{}…\" is longer than 255 bytes; use 1 to 255 bytes of plain text on one line",
            "x".repeat(80)
        )]
    );
}

#[test]
fn device_credentials_win_over_the_products() {
    let config = good(&[
        ("NERVES_HUB_PRODUCT_KEY", "nhp_k"),
        ("NERVES_HUB_PRODUCT_SECRET", "p"),
        ("NERVES_HUB_SHARED_KEY", "dev"),
        ("NERVES_HUB_SHARED_SECRET", "d"),
    ]);
    assert!(matches!(
        config.credentials,
        Some(Credentials::SharedSecret { key, .. }) if key == "dev"
    ));
}

#[test]
fn unknown_names_get_the_nearest_and_compression_its_reason() {
    let (_, warnings) = offline(&[
        ("NERVES_HUB_HSOT", "x"),
        ("NERVES_HUB_COMPRESS", "yes"),
        ("OTHER", "x"),
    ])
    .unwrap();
    assert_eq!(
        warnings,
        [
            "NERVES_HUB_COMPRESS has no effect: no release of the WebSocket library has \
             permessage-deflate, so frames go uncompressed",
            "NERVES_HUB_HSOT is not a setting and has no effect; the nearest name is NERVES_HUB_HOST",
        ]
    );
}

#[test]
fn proxies_come_from_the_agents_or_the_systems_variables() {
    let host = |pairs: &[(&str, &str)]| good(pairs).proxy.map(|proxy| proxy.host);
    assert_eq!(host(&[]), None);
    assert_eq!(host(&[("HTTPS_PROXY", "http://b:1")]).as_deref(), Some("b"));
    let both = [("https_proxy", "http://a:1"), ("HTTPS_PROXY", "http://b:1")];
    assert_eq!(host(&both).as_deref(), Some("a"));
    let own = [
        ("https_proxy", "socks5://a:1"),
        ("NERVES_HUB_PROXY", "none"),
    ];
    assert_eq!(host(&own), None);
    let config = good(&[
        ("NERVES_HUB_PROXY", "http://c:3128"),
        ("NO_PROXY", "localhost,.lan"),
    ]);
    assert_eq!(config.proxy.unwrap().no_proxy, ["localhost", ".lan"]);
}

#[test]
fn log_filters_fall_back_to_rust_log() {
    assert_eq!(good(&[]).log_filter, "info");
    assert_eq!(good(&[("RUST_LOG", "rustls")]).log_filter, "rustls");
    let both = [("RUST_LOG", "trace"), ("NERVES_HUB_LOG", "warn")];
    assert_eq!(good(&both).log_filter, "warn");
}

#[test]
fn metadata_sources_and_overrides() {
    let settings = |pairs: &[(&str, &str)]| good(pairs).metadata;
    let default = settings(&[]);
    assert!(!default.explicit);
    let config = |path: &str| MetadataSource::Uboot {
        config: path.into(),
    };
    assert_eq!(default.source, config("/etc/fw_env.config"));
    for (text, source) in [
        ("uboot", config("/etc/fw_env.config")),
        ("uboot:/x", config("/x")),
        ("file:/x", MetadataSource::File("/x".into())),
        (
            "command:cat /x:y",
            MetadataSource::Command("cat /x:y".to_owned()),
        ),
        ("env", MetadataSource::Env),
    ] {
        let given = settings(&[("NERVES_HUB_FIRMWARE_METADATA", text)]);
        assert!(given.explicit);
        assert_eq!(given.source, source);
    }
    let given = settings(&[
        ("NERVES_HUB_FIRMWARE_UUID", "u"),
        ("NERVES_HUB_FIRMWARE_VALIDATED", "no"),
    ]);
    assert_eq!(given.overrides["uuid"], "u");
    assert_eq!(given.overrides["validated"], "0");
}

#[test]
fn empty_means_unset() {
    let config = good(&[
        ("NERVES_HUB_JOIN_TIMEOUT", ""),
        ("NERVES_HUB_PRODUCT_KEY", ""),
    ]);
    assert_eq!(config.link.timeouts.join, Duration::from_secs(10));
    assert_eq!(config.credentials, None);
}

#[test]
fn every_row_is_read() {
    let mut reader = Reader::new(vars(&[]));
    config(&mut reader);
    let unread: Vec<_> = SETTINGS
        .iter()
        .map(|setting| setting.name)
        .filter(|name| !reader.read.contains(name))
        .collect();
    assert_eq!(unread, [""; 0]);
}

#[test]
fn defaults_shown_are_defaults_parsed() {
    let shown: Vec<_> = SETTINGS
        .iter()
        .filter(|setting| !setting.default.is_empty() && setting.name != "NERVES_HUB_CONNECT")
        .map(|setting| (setting.name, setting.default))
        .collect();
    let (mut given, implied) = (good(&shown), good(&[]));
    assert!(std::mem::replace(&mut given.metadata.explicit, false));
    assert_eq!(format!("{given:?}"), format!("{implied:?}"));
}

#[test]
fn defaults() {
    let (config, warnings) = parse(vars(&[("NERVES_HUB_HOST", "hub")])).unwrap();
    let s = Duration::from_secs;
    assert!(warnings.is_empty());
    assert!(config.connect && config.link.wait_for_network && !config.allow_insecure);
    assert_eq!(config.link.heartbeat_interval, s(30));
    assert_eq!(config.link.rejoin_after, s(5));
    assert_eq!(config.link.reconnect_min, s(1));
    assert_eq!(config.link.reconnect_max, s(60));
    assert_eq!(config.link.reconnect_jitter, 50);
    assert_eq!(config.link.serializer, Serializer::Json);
    assert_eq!(config.link.timeouts.upgrade, s(10));
    assert_eq!(config.identifier, IdentifierSource::Discover);
    assert_eq!(config.fwup.path, Path::new("fwup"));
    assert_eq!(config.fwup.devpath, None);
    assert_eq!(config.fwup.task, "upgrade");
    assert_eq!(config.fwup.stall_timeout, s(300));
    assert!(config.fwup.public_keys.is_empty() && !config.fwup.request_public_keys);
    assert_eq!(config.download.max_disconnects, 10);
    assert_eq!(config.download.idle_timeout, s(60));
    assert_eq!(config.download.max_timeout, s(86_400));
    assert_eq!(config.download.time_between_retries, s(15));
    assert_eq!(config.download.worst_case_speed, 30_000);
    assert_eq!(config.data_path, Path::new("/var/lib/nerveshub-agent"));
    assert_eq!(config.reboot_command, "reboot");
    assert_eq!(config.reboot_timeout, Duration::from_secs(60));
    assert!(config.reboot_force);
    assert_eq!(config.trial.validate, Validate::Manual);
    assert_eq!(config.trial.timeout, Duration::ZERO);
    assert_eq!(config.trial.reboots, 3);
    assert_eq!(config.shutdown_timeout, s(10));
}

#[test]
fn ways_to_validate() {
    let validate = |text| good(&[("NERVES_HUB_VALIDATE", text)]).trial.validate;
    assert_eq!(validate("on-join"), Validate::OnJoin);
    let command = Validate::Command("test -e /run/ok: or:not".to_owned());
    assert_eq!(validate("command: test -e /run/ok: or:not"), command);
}

#[test]
fn windows_and_the_policy_that_minds_them_come_together() {
    let window = ("NERVES_HUB_UPDATE_WINDOW", "Mon-Fri 01:00-05:00");
    let schedule = ("NERVES_HUB_UPDATE_POLICY", "schedule");
    let policy = good(&[window, schedule]).policy;
    assert_eq!(policy.update, UpdatePolicy::Schedule);
    assert_eq!(policy.windows.len(), 1);
    assert_eq!(
        messages(&[schedule]),
        [
            "NERVES_HUB_UPDATE_WINDOW is not set, but NERVES_HUB_UPDATE_POLICY is schedule; set it to the times at which updates may be installed"
        ]
    );
    assert_eq!(
        messages(&[window]),
        [
            r#"NERVES_HUB_UPDATE_WINDOW: "Mon-Fri 01:00-05:00" has no effect; set NERVES_HUB_UPDATE_POLICY=schedule as well"#
        ]
    );
    let nonsense = ("NERVES_HUB_UPDATE_WINDOW", "at night");
    assert_eq!(messages(&[nonsense, schedule]).len(), 1);
}

#[test]
fn hooks_are_in_their_folder_or_where_a_setting_says_or_off() {
    use crate::config::Hook;
    let hooks = good(&[
        ("NERVES_HUB_HOOKS_DIR", "/hooks"),
        ("NERVES_HUB_HOOK_IDENTIFY", "none"),
        ("NERVES_HUB_HOOK_CONNECTED", "/bin/true"),
    ])
    .hooks;
    assert_eq!(hooks.path(Hook::Identify), None);
    assert_eq!(
        hooks.path(Hook::Connected),
        Some(("/bin/true".into(), true))
    );
    for hook in Hook::ALL {
        let (name, setting) = (hook.name(), hook.name().to_uppercase().replace('-', "_"));
        let setting = format!("NERVES_HUB_HOOK_{setting}");
        assert!(SETTINGS.iter().any(|row| row.name == setting), "{setting}");
        assert!(include_str!("../../../etc/doc/hooks.md").contains(&format!("| `{name}` |")));
    }
}

#[test]
fn a_watchdog_that_watches_another_process_is_not_ours() {
    let watchdog = |pid: &str| {
        let variables = [("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", pid)];
        good(&variables).service.watchdog
    };
    let own = std::process::id().to_string();
    assert_eq!(watchdog(&own), Some(Duration::from_secs(3)));
    assert_eq!(watchdog(""), Some(Duration::from_secs(3)));
    assert_eq!(watchdog("1"), None);
    assert_eq!(good(&[("WATCHDOG_USEC", "0")]).service.watchdog, None);
}
