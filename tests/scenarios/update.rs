//! Updates that succeed: what the hub sees, what lands on the device, and the reboot.

use crate::rig::{self, Device, RUNNING_UUID, demo, installers};

#[test]
fn an_offer_becomes_an_image_a_report_and_a_reboot() {
    for installer in installers() {
        let hub = rig::hub().start();
        let mut device = Device::new(&hub);
        device.use_installer(&installer);
        let agent = device.start();
        let join = hub.expect_join("device");
        assert_eq!(join.params["nerves_fw_uuid"], RUNNING_UUID);
        assert_eq!(
            join.params["currently_downloading_uuid"],
            serde_json::Value::Null
        );
        hub.offer(&demo(&hub));
        hub.expect_status("received");
        hub.expect_status("started");
        hub.expect_push("device", "fwup_progress", |progress| {
            progress["value"] == 100
        });
        hub.expect_status("completed");
        agent.wait_log("reboot command accepted");
        assert_eq!(device.reboots(), 1, "{}", installer.name);
        device.assert_image_of("demo-2.0.0.fw");
        assert_eq!(agent.children(), Vec::<String>::new());
    }
}
