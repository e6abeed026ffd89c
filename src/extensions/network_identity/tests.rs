//! Every provider, by programs of the same names, and what is made of what they say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{KIND, NetworkIdentity, Plan};
use crate::config::ExtensionSettings;
use crate::config::extensions::{IdentitySettings, Program, Provider};
use crate::extensions::Site;
use crate::extensions::testing::{Running, kept, site};

const SECOND: Duration = Duration::from_secs(1);
const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const NONE: [Value; 0] = [];

/// Programs instead of the real ones.
struct Programs(tempfile::TempDir);

impl Programs {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("folder"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Written by another process: while one of ours has it open for writing, be it for a
    /// moment as another test's child, it cannot be run.
    fn add(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        let write = r#"printf '%s\n' "$1" > "$2.new"; chmod 755 "$2.new"; mv "$2.new" "$2""#;
        let status = Command::new("/bin/sh")
            .args(["-c", write, "sh", &format!("#!/bin/sh\n{text}")])
            .arg(path)
            .status();
        assert!(status.expect("a shell").success());
    }

    /// A program that prints a file, which is easier to change.
    fn prints(&self, name: &str, said: &Value) {
        let new = self.0.path().join("new");
        fs::write(&new, said.to_string()).expect("said");
        fs::rename(new, self.0.path().join("said")).expect("said");
        let (folder, run) = (self.0.path().display(), "echo run >>");
        self.add(name, &format!("{run} {folder}/runs; cat {folder}/said"));
    }

    fn runs(&self) -> usize {
        let runs = fs::read_to_string(self.0.path().join("runs"));
        runs.map_or(0, |runs| runs.lines().count())
    }
}

fn place(providers: Vec<Provider>, interval: Duration) -> Arc<Site> {
    site(ExtensionSettings {
        timeout: Duration::from_secs(30),
        identity: IdentitySettings {
            providers,
            interval,
        },
        ..ExtensionSettings::default()
    })
}

fn start(site: &Arc<Site>, path: &Path) -> Running {
    let mut extension = NetworkIdentity::new(site);
    extension.asker.path = Some(path.to_owned());
    let running = Running::run(Box::new(extension));
    running.attach();
    running
}

/// What is reported when the hub asks.
fn asked(providers: Vec<Provider>, programs: &Programs) -> Value {
    let running = start(&place(providers, Duration::ZERO), &programs.path());
    let report = request(&running);
    assert_eq!(running.rest(), NONE);
    running.end();
    report
}

fn request(running: &Running) -> Value {
    running.hear("request");
    running.pushed("report")["identities"].take()
}

fn program(command: &str, pointer: &str) -> Program {
    Program {
        command: command.into(),
        pointer: pointer.into(),
    }
}

fn wireguard() -> Provider {
    Provider::Wireguard {
        interface: "wg0".into(),
    }
}

#[test]
fn nothing_is_known_without_providers() {
    assert_eq!(asked(vec![], &Programs::new()), json!([]));
}

#[test]
fn tailscale_tells_its_key_and_names_but_not_its_peers() {
    let programs = Programs::new();
    let said = json!({
        "BackendState": "Running", "AuthURL": "",
        "Self": {
            "ID": "nAbc", "PublicKey": "nodekey:ab12", "HostName": "dev", "OS": "linux",
            "DNSName": "dev.tail1.ts.net.", "TailscaleIPs": ["100.64.0.7", "fd7a::7"],
            "Relay": "fra", "Online": true,
        },
        "Peer": {"nodekey:ff": {"HostName": "other"}},
    });
    programs.add(
        "tailscale",
        &format!("[ \"$*\" = 'status --json --peers=false' ] && echo '{said}'"),
    );
    let expected = json!([{
        "service": "tailscale", "identifier": "nodekey:ab12",
        "details": {
            "id": "nAbc", "hostname": "dev", "dns_name": "dev.tail1.ts.net",
            "ips": ["100.64.0.7", "fd7a::7"], "relay": "fra", "state": "Running",
        },
    }]);
    assert_eq!(asked(vec![Provider::Tailscale], &programs), expected);
    let logged_out = json!({
        "BackendState": "NeedsLogin",
        "Self": {"ID": "", "PublicKey": format!("nodekey:{}", "0".repeat(64))},
    });
    programs.prints("tailscale", &logged_out);
    assert_eq!(asked(vec![Provider::Tailscale], &programs), json!([]));
}

#[test]
fn netbird_tells_its_key_and_address() {
    let programs = Programs::new();
    let said = json!({
        "peers": {"total": 1, "details": [{"fqdn": "other"}]}, "daemonStatus": "Connected",
        "management": {"url": "https://api.netbird.io:443", "connected": true, "error": ""},
        "netbirdIp": "100.91.24.1/16", "publicKey": KEY, "fqdn": "dev.netbird.cloud",
    });
    programs.prints("netbird", &said);
    let expected = json!([{
        "service": "netbird", "identifier": KEY,
        "details": {
            "fqdn": "dev.netbird.cloud", "ip": "100.91.24.1/16",
            "management": "https://api.netbird.io:443", "state": "Connected",
        },
    }]);
    assert_eq!(asked(vec![Provider::Netbird], &programs), expected);
    programs.prints(
        "netbird",
        &json!({"daemonStatus": "NeedsLogin", "publicKey": ""}),
    );
    assert_eq!(asked(vec![Provider::Netbird], &programs), json!([]));
}

/// As the real one: whoever asks for more gets the private key.
fn wg(programs: &Programs) {
    programs.add(
        "wg",
        &format!(
            "case \"$*\" in\n\
             'show wg0 public-key') echo {KEY};;\n\
             'show wg0 listen-port') echo 51820;;\n\
             *) echo '{PRIVATE} {KEY} 51820 off';;\n\
             esac"
        ),
    );
}

#[test]
fn wireguard_tells_the_public_key_only() {
    let programs = Programs::new();
    wg(&programs);
    let expected = json!([{
        "service": "wireguard", "identifier": KEY, "instance": "wg0",
        "details": {"interface": "wg0", "listen_port": 51820},
    }]);
    assert_eq!(asked(vec![wireguard()], &programs), expected);
    // A command that gives it away is not believed.
    let dump = Provider::Command(program("wg show wg0 dump", ""));
    let both = asked(vec![dump, wireguard()], &programs);
    assert_eq!(both, expected);
    assert!(!both.to_string().contains(PRIVATE));
    for (text, key) in [("echo '(none)'", "none"), ("echo what", "no key")] {
        programs.add("wg", text);
        assert_eq!(asked(vec![wireguard()], &programs), json!([]), "{key}");
    }
}

#[test]
fn an_iroh_endpoint_is_an_id_or_an_object_with_it() {
    let id = "c8924b6c9b7a8528b1365ebec4b2e43b6edebef684f8521f12b8caaf6e1b2302";
    let iroh = |said: &str, pointer: &str| {
        let command = format!("echo '{said}'");
        let provider = Provider::Iroh(program(&command, pointer));
        asked(vec![provider], &Programs::new())
    };
    let plain = json!([{"service": "iroh", "identifier": id, "details": {}}]);
    assert_eq!(iroh(id, ""), plain);
    assert_eq!(iroh(&format!("\"{id}\""), ""), plain);
    let nested = json!({"nodes": [{"id": id}]}).to_string();
    assert_eq!(iroh(&nested, "/nodes/0/id"), plain);
    assert_eq!(iroh(&nested, "/nodes/0"), plain);
    let whole = json!({
        "endpoint_id": id, "instance": "console", "ticket": "endpointabc",
        "secret_key": PRIVATE, "relay": {"url": "https://r", "auth_token": PRIVATE},
    });
    let expected = json!([{
        "service": "iroh", "identifier": id, "instance": "console",
        "details": {"ticket": "endpointabc", "relay": {"url": "https://r"}},
    }]);
    assert_eq!(iroh(&whole.to_string(), ""), expected);
    for none in ["", "null", "{}", "[1]", "a b"] {
        assert_eq!(iroh(none, ""), json!([]), "{none}");
    }
    assert_eq!(iroh(&nested, "/nodes/1"), json!([]));
}

#[test]
fn commands_print_one_identity_or_several() {
    let command = |said: &Value, pointer: &str| {
        let command = format!("echo '{said}'");
        let provider = Provider::Command(program(&command, pointer));
        asked(vec![provider], &Programs::new())
    };
    let one = json!({"service": "netbird", "identifier": KEY, "details": {"a": 1}});
    assert_eq!(command(&one, ""), json!([one]));
    let odd = json!({
        "service": "netbird", "identifier": KEY, "instance": "", "other": 1,
        "details": {"a": 1, "Preshared-Key": PRIVATE},
    });
    assert_eq!(
        command(
            &json!({"all": [odd, {
                "service": "iroh", "identifier": "x", "instance": "app", "details": null,
            }]}),
            "/all"
        ),
        json!([one, {
            "service": "iroh", "identifier": "x", "instance": "app", "details": {},
        }])
    );
    for bad in [
        json!({"service": "netbird"}),
        json!({"service": "", "identifier": "x"}),
        json!({"service": 1, "identifier": "x"}),
        json!({"service": "s", "identifier": "x".repeat(256)}),
        json!({"service": "s", "identifier": "x", "instance": 1}),
        json!({"service": "s", "identifier": "x", "details": []}),
        json!([one, "x"]),
        json!(7),
    ] {
        assert_eq!(command(&bad, ""), json!([]), "{bad}");
    }
}

#[test]
fn one_that_fails_or_hangs_costs_the_others_nothing() {
    let programs = Programs::new();
    programs.add("tailscale", "echo 'it is not running' >&2; exit 1");
    programs.add("netbird", "sleep 1000");
    wg(&programs);
    let mut settings = ExtensionSettings {
        timeout: 3 * SECOND,
        ..ExtensionSettings::default()
    };
    settings.identity.providers = vec![
        Provider::Tailscale,
        Provider::Iroh(program("kill -9 $$", "")),
        Provider::Netbird,
        Provider::Command(program("head -c 1000000 /dev/zero", "")),
        wireguard(),
    ];
    let begin = Instant::now();
    let running = start(&site(settings), &programs.path());
    let report = request(&running);
    assert_eq!(report[0]["identifier"], KEY);
    assert_eq!(report.as_array().map(Vec::len), Some(1));
    // A third of what it has before it counts as hanging.
    assert!(begin.elapsed() < 3 * SECOND, "{:?}", begin.elapsed());
}

#[test]
fn a_look_and_a_request_behind_it_are_over_before_it_counts_as_hanging() {
    let programs = Programs::new();
    let key = format!("[ $3 = public-key ] && sleep 1.5 && echo {KEY} || sleep 1000");
    programs.add("wg", &key);
    let mut settings = ExtensionSettings {
        timeout: 6 * SECOND,
        ..ExtensionSettings::default()
    };
    settings.identity.providers = vec![wireguard()];
    let running = start(&site(settings), &programs.path());
    let begin = Instant::now();
    assert_eq!(request(&running)[0]["identifier"], KEY);
    // A third of what it has, for both of its runs together.
    assert!(begin.elapsed() < 3 * SECOND, "{:?}", begin.elapsed());
}

#[test]
fn of_two_for_the_same_the_first_counts() {
    let provider = |id: &str, instance: Value| {
        let said = json!({"service": "iroh", "identifier": id, "instance": instance});
        Provider::Command(program(&format!("echo '{said}'"), ""))
    };
    let report = asked(
        vec![
            provider("a", Value::Null),
            provider("b", json!("default")),
            provider("c", json!("app")),
        ],
        &Programs::new(),
    );
    let ids: Vec<_> = report.as_array().expect("a list").iter().collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(
        (&ids[0]["identifier"], &ids[1]["identifier"]),
        (&json!("a"), &json!("c"))
    );
}

#[test]
fn only_changes_are_sent_between_requests() {
    let programs = Programs::new();
    let netbird = |ip: &str| json!({"publicKey": KEY, "netbirdIp": ip});
    programs.prints("netbird", &netbird("10.0.0.1"));
    wg(&programs);
    let site = place(vec![Provider::Netbird, wireguard()], SECOND / 50);
    let running = start(&site, &programs.path());
    // Unasked, for the hub may be one that does not ask.
    let first = running.pushed("report")["identities"].take();
    assert_eq!(first.as_array().map(Vec::len), Some(2));
    let wait_for_runs = |more: usize| {
        let (begin, wanted) = (Instant::now(), programs.runs() + more);
        while programs.runs() < wanted {
            assert!(begin.elapsed() < 20 * SECOND, "no look at what has changed");
            std::thread::yield_now();
        }
    };
    wait_for_runs(3);
    assert_eq!(running.rest(), NONE);
    // Asked, all is told again.
    assert_eq!(request(&running), first);
    programs.prints("netbird", &netbird("10.0.0.2"));
    let changed = running.pushed("report")["identities"].take();
    assert_eq!(changed.as_array().map(Vec::len), Some(1));
    assert_eq!(changed[0]["details"]["ip"], "10.0.0.2");
    // Nobody looks while the hub is away.
    running.away();
    assert_eq!(running.rest(), NONE);
    let runs = programs.runs();
    programs.prints("netbird", &netbird("10.0.0.3"));
    assert_eq!(running.rest(), NONE);
    assert_eq!(programs.runs(), runs);
    running.attach();
    let changed = running.pushed("report")["identities"].take();
    assert_eq!(changed[0]["details"]["ip"], "10.0.0.3");
}

#[test]
fn looks_are_an_interval_apart_and_only_while_the_hub_is_there() {
    let now = Instant::now();
    let minute = 60 * SECOND;
    let mut plan = Plan {
        interval: 5 * minute,
        due: None,
        is_attached: false,
    };
    plan.on_looked(now);
    assert_eq!(plan.due, None);
    plan.on_attached(now + minute);
    assert_eq!(plan.due, Some(now + 6 * minute));
    // The hub asked.
    plan.on_looked(now + 2 * minute);
    assert_eq!(plan.due, Some(now + 7 * minute));
    plan.on_away();
    assert_eq!(plan.due, None);
    plan.on_looked(now + 3 * minute);
    assert_eq!(plan.due, None);
    plan.interval = Duration::ZERO;
    plan.on_attached(now);
    assert_eq!(plan.due, None);
}

#[test]
fn more_than_the_hub_takes_at_once_go_in_several_reports() {
    let said: Vec<Value> = (0..13)
        .map(|index| json!({"service": "iroh", "identifier": "x", "instance": index.to_string()}))
        .collect();
    let command = format!("echo '{}'", json!(said));
    let site = place(
        vec![Provider::Command(program(&command, ""))],
        Duration::ZERO,
    );
    let running = start(&site, Path::new("/nonexistent"));
    assert_eq!(request(&running).as_array().map(Vec::len), Some(10));
    let rest = running.pushed("report");
    assert_eq!(rest["identities"].as_array().map(Vec::len), Some(3));
}

#[test]
fn the_integrators_own_are_set_and_outlive_a_detach() {
    let site = place(vec![wireguard()], Duration::ZERO);
    let programs = Programs::new();
    wg(&programs);
    let own = json!({"service": "wireguard", "identifier": "mine", "instance": "wg0"});
    let set = |running: &Running, list: &Value| running.ask("set", json!({"identities": list}));
    let told = |identity: &Value, details: Value| {
        let mut identity = identity.clone();
        identity["details"] = details;
        json!({"identities": [identity]})
    };
    let running = start(&site, &programs.path());
    assert_eq!(request(&running)[0]["identifier"], KEY);
    let (pushes, answer) = set(&running, &json!([own]));
    assert_eq!(answer, Ok(json!({"set": 1})));
    assert_eq!(pushes, [told(&own, json!({}))]);
    // Again the same: nothing to tell.
    assert_eq!(
        set(&running, &json!([own])),
        (vec![], Ok(json!({"set": 1})))
    );
    let mut more = own.clone();
    more["details"] = json!({"a": 1, "token": PRIVATE});
    let (pushes, _) = set(&running, &json!([more]));
    assert_eq!(pushes, [told(&own, json!({"a": 1}))]);
    assert_eq!(running.rest(), NONE);
    running.end();
    assert!(
        !kept(&site)["network_identity"]
            .to_string()
            .contains(PRIVATE)
    );
    let running = start(&site, &programs.path());
    assert_eq!(request(&running), told(&own, json!({"a": 1}))["identities"]);
    let (pushes, answer) = set(&running, &json!([]));
    assert_eq!((pushes, answer), (vec![], Ok(json!({"set": 0}))));
    assert_eq!(request(&running)[0]["identifier"], KEY);
}

#[test]
fn what_is_set_while_the_hub_is_away_is_told_when_it_asks() {
    let site = place(vec![], Duration::ZERO);
    let running = Running::start(&KIND, &site);
    let own = json!({"service": "iroh", "identifier": "x", "details": {}});
    let (pushes, answer) = running.ask("set", json!({"identities": [own]}));
    assert_eq!((pushes, answer), (vec![], Ok(json!({"set": 1}))));
    running.attach();
    assert_eq!(request(&running), json!([own]));
}

#[test]
fn what_cannot_be_set_changes_nothing() {
    let site = place(vec![], Duration::ZERO);
    let running = start(&site, Path::new("/nonexistent"));
    let good = json!({"service": "iroh", "identifier": "x", "details": {}});
    let many = |count: usize| {
        let list: Vec<Value> = (0..count).map(|_| good.clone()).collect();
        json!({"identities": list})
    };
    assert_eq!(running.ask("set", many(16)).1, Ok(json!({"set": 16})));
    for (params, wanted) in [
        (many(17), "identities has 17 entries, at most 16 are taken"),
        (json!({}), "identities must be a list"),
        (json!({"identities": {}}), "identities must be a list"),
        (
            json!({"identities": [good, {"service": "iroh"}]}),
            "identities[1]: identifier must be one line of 1 to 255 bytes",
        ),
        (
            json!({"identities": [{"service": "a\nb", "identifier": "x"}]}),
            "identities[0]: service must be one line of 1 to 255 bytes",
        ),
        (
            json!({"identities": [{"service": "s", "identifier": 7}]}),
            "identities[0]: identifier must be a text",
        ),
        (
            json!({"identities": ["x"]}),
            "identities[0]: service must be",
        ),
    ] {
        let (pushes, answer) = running.ask("set", params.clone());
        assert_eq!(pushes, NONE, "{params}");
        let error = answer.expect_err("taken");
        assert!(error.starts_with(wanted), "{params}: {error}");
    }
    let held = kept(&site)["network_identity"].as_array().map(Vec::len);
    assert_eq!(held, Some(16));
}
