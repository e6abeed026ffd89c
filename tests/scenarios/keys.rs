//! Public keys from the hub: asked for when none are configured, and never lost.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::rig::{self, Device, JOINED, demo, public_key};

fn other_key() -> String {
    let key = std::fs::read_to_string(rig::data("fw/other-key.pub")).expect("key");
    key.trim().to_owned()
}

#[test]
fn keys_are_asked_for_when_none_are_configured_and_kept() {
    let hub = rig::hub()
        .public_keys(&[&public_key()], &[&public_key()])
        .start();
    let mut device = Device::new(&hub);
    device.unset("FWUP_PUBLIC_KEYS");
    let agent = device.start();
    let params = hub.expect_join("device").params;
    assert_eq!(params["fwup_public_keys"], "on_connect");
    assert_eq!(params["archive_public_keys"], "on_connect");
    agent.wait_log("1 firmware public key(s) from the hub");
    // Lists without a usable key clear nothing, nor does a new connection.
    for list in [json!([]), json!(["x", 7]), json!("none"), json!(null)] {
        hub.push("device", "fwup_public_keys", json!({"keys": list}));
    }
    agent.wait_log_times("the hub sent no usable public key; keeping 1", 4);
    hub.behaviour(|behaviour| behaviour.fwup_keys.clear());
    hub.close(1000);
    hub.expect_join("device");
    hub.offer(&demo(&hub));
    hub.expect_status("completed");
    device.assert_image_of("demo-2.0.0.fw");
}

#[test]
fn a_new_list_replaces_the_old_one() {
    let hub = rig::hub().public_keys(&[&other_key()], &[]).start();
    let mut device = Device::new(&hub);
    device.unset("FWUP_PUBLIC_KEYS");
    let agent = device.start();
    agent.wait_log("1 firmware public key(s) from the hub");
    hub.push(
        "device",
        "fwup_public_keys",
        json!({"keys": [public_key()]}),
    );
    agent.wait_log_times("1 firmware public key(s) from the hub", 2);
    hub.offer(&demo(&hub));
    hub.expect_status("completed");
}

#[test]
fn keys_asked_for_replace_the_configured_ones() {
    let hub = rig::hub().public_keys(&[&public_key()], &[]).start();
    let mut device = Device::new(&hub);
    device.set("REQUEST_FWUP_PUBLIC_KEYS", "1");
    device.set("FWUP_PUBLIC_KEYS", &other_key());
    let agent = device.start();
    let params = hub.expect_join("device").params;
    assert_eq!(params["fwup_public_keys"], "on_connect");
    agent.wait_log("1 firmware public key(s) from the hub");
    hub.offer(&demo(&hub));
    hub.expect_status("completed");
    device.assert_image_of("demo-2.0.0.fw");
}

#[test]
fn keys_in_a_file_are_read_again_on_sighup() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    let path = device.path("keys");
    std::fs::write(&path, other_key()).expect("keys");
    device.unset("FWUP_PUBLIC_KEYS");
    device.set("FWUP_PUBLIC_KEYS_FILE", &path.display().to_string());
    let agent = device.start();
    agent.wait_log(JOINED);
    hub.offer(&demo(&hub));
    hub.expect_status("failed");
    // A file that is broken changes nothing.
    std::fs::write(&path, "garbage").expect("keys");
    agent.signal(Signal::SIGHUP);
    agent.wait_log("keeping the credentials in use");
    agent.wait_log_times(JOINED, 2);
    std::fs::write(&path, format!("{}\n{}\n", other_key(), public_key())).expect("keys");
    agent.signal(Signal::SIGHUP);
    agent.wait_log("public keys read again: 2 for firmware, 0 for archives");
    agent.wait_log_times(JOINED, 3);
    hub.offer(&demo(&hub));
    hub.expect_status("completed");
    device.assert_image_of("demo-2.0.0.fw");
    assert_eq!(agent.logged("public keys read again").len(), 1);
}

#[test]
fn keys_nobody_asked_for_are_not_trusted() {
    let hub = rig::hub().start();
    let mut device = Device::new(&hub);
    device.set("FWUP_PUBLIC_KEYS", &other_key());
    let agent = device.start();
    let params = hub.expect_join("device").params;
    assert_eq!(params.get("fwup_public_keys"), None);
    hub.push(
        "device",
        "fwup_public_keys",
        json!({"keys": [public_key()]}),
    );
    agent.wait_log("public keys from the hub ignored");
    hub.offer(&demo(&hub));
    hub.expect_status("failed");
    assert_eq!(device.reboots(), 0);
}
