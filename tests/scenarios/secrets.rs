//! What must stay secret: in no log line at any level, no argument and no report.

use devhub::Hub;
use devhub::store::{Fault, When};

use crate::rig::{self, Agent, Device, demo, standin};

/// A device that logs everything and whose fwup leaves its arguments and environment.
fn talkative(hub: &Hub, log: &str) -> Device {
    let mut device = Device::new(hub);
    device.set("LOG", log);
    let script = device.path("fwup.sh");
    let text = format!(
        "#!/bin/sh\necho \"$@\" >> {0}\nenv >> {0}\nexec {1} \"$@\"\n",
        device.path("seen").display(),
        standin().path.display()
    );
    std::fs::write(&script, text).expect("script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("mode");
    device.set("FWUP_PATH", &script.display().to_string());
    device
}

/// A 401, a join, a crash, a failed update and a good one: everything that handles secrets.
fn exercise(hub: &Hub, device: &Device) -> Agent {
    hub.refuse_next(401, &[]);
    let agent = device.start();
    hub.expect_join("device");
    let firmware = demo(hub);
    hub.store()
        .fault(&firmware.path(), When::Nth(1), Fault::Status(404));
    hub.offer(&firmware);
    hub.expect_status("failed");
    // The answer to this one confirms the report; until then the update is in hand.
    hub.expect_heartbeat();
    hub.store().fault(
        &firmware.path(),
        When::Nth(2),
        Fault::Redirect(302, format!("{}?signature=secret-again", firmware.url)),
    );
    hub.offer(&firmware);
    hub.expect_status("completed");
    agent.wait_log("reboot command accepted");
    agent
}

/// Everything that must not show: secrets, signatures of upgrades, queries of URLs.
fn secrets(hub: &Hub) -> Vec<String> {
    let mut secrets = vec![
        rig::PRODUCT_SECRET.to_owned(),
        "signature=".to_owned(),
        "secret-again".to_owned(),
    ];
    for upgrade in hub.upgrades() {
        secrets.extend(upgrade.header("x-nh-signature").map(str::to_owned));
    }
    assert_eq!(secrets.len(), 3 + 2);
    let requests = hub.store().requests();
    assert!(
        requests
            .iter()
            .any(|request| request.query.contains("secret-"))
    );
    secrets.extend(requests.into_iter().map(|request| request.query));
    secrets
}

fn assert_absent(secrets: &[String], place: &str, text: &str) {
    assert!(!text.is_empty(), "{place} is empty");
    for secret in secrets {
        assert!(
            !text.contains(secret.as_str()),
            "{secret} in {place}:\n{text}"
        );
    }
}

#[test]
fn secrets_are_in_no_log_argument_or_report() {
    for serializer in ["json", "msgpack"] {
        let hub = rig::hub().start();
        let mut device = talkative(&hub, "trace");
        device.set("SERIALIZER", serializer);
        let agent = exercise(&hub, &device);
        let secrets = secrets(&hub);
        let log = agent.log();
        assert!(log.contains(" TRACE "), "{log}");
        assert_absent(&secrets, "log", &log);
        let transcript = hub.transcript();
        let said: String = transcript
            .entries
            .iter()
            .filter(|entry| entry.dir == devhub::Dir::Device)
            .map(ToString::to_string)
            .collect();
        assert_absent(&secrets, "frames", &said);
        let seen = std::fs::read_to_string(device.path("seen")).expect("seen by fwup");
        assert!(seen.contains("--apply") && seen.contains("PATH="), "{seen}");
        assert_absent(&secrets, "fwup's arguments and environment", &seen);
        let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", agent.pid()));
        assert_absent(&secrets, "arguments", &arguments.expect("cmdline"));
    }
}

#[test]
fn no_filter_makes_libraries_talk() {
    let hub = rig::hub().tls(devhub::Tls::Server).start();
    let filter = "trace,ureq=trace,ureq_proto=trace,rustls=trace,tungstenite=trace";
    let device = talkative(&hub, filter);
    let agent = exercise(&hub, &device);
    assert_absent(&secrets(&hub), "log", &agent.log());
}

#[test]
fn a_status_line_has_no_secret() {
    let hub = rig::hub().start();
    let device = talkative(&hub, "trace");
    let agent = exercise(&hub, &device);
    agent.signal(nix::sys::signal::Signal::SIGUSR1);
    agent.wait_log("status: identifier=");
    let line = agent.logged("status: identifier=").join("\n");
    assert_absent(&secrets(&hub), "status", &line);
}
