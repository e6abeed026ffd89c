//! Firmware meta-data against the values the real tools give.

use devhub::{Firmware, store::Store, zip};
use serde_json::Value;
use std::path::PathBuf;

#[test]
fn firmware_files_are_read_as_the_real_tool_reads_them() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/fw");
    let known: Value =
        serde_json::from_slice(&std::fs::read(folder.join("fw.json")).unwrap()).unwrap();
    let store = Store::builder().start();
    let mut read = 0;
    for (name, expected) in known.as_object().unwrap() {
        // Some archives are listed without being kept.
        let Ok(data) = std::fs::read(folder.join(name)) else {
            continue;
        };
        read += 1;
        let meta = zip::firmware_meta(&data).unwrap();
        assert_eq!(expected["meta"]["uuid"], meta.uuid.as_str());
        for key in [
            "product",
            "version",
            "platform",
            "architecture",
            "author",
            "description",
        ] {
            assert_eq!(expected["meta"][key], meta.values[key].as_str());
        }
        let payload = Firmware::from_bytes(meta, data, &store).payload();
        assert_eq!(payload["size"], expected["size"]);
        assert_eq!(payload["checksum"], expected["sha256"]);
        assert_eq!(payload["partials_checksums"], expected["partials"]);
    }
    assert!(read >= 3);
}

#[test]
fn a_file_that_is_no_firmware_is_named_so() {
    let error = zip::firmware_meta(b"hello").unwrap_err();
    assert!(error.contains("is it a .fw file"), "{error}");
}
