//! Generated images of both layouts, compared with `fw_printenv` where it is installed.

use std::process::Command;

use super::*;

const SIZE: usize = 0x1000;

fn image(flag: Option<u8>, pairs: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in pairs {
        data.extend_from_slice(key.as_bytes());
        data.push(b'=');
        data.extend_from_slice(value);
        data.push(0);
    }
    data.resize(SIZE - CRC_LEN - usize::from(flag.is_some()), 0);
    let mut image = crc32(&data).to_ne_bytes().to_vec();
    image.extend(flag);
    image.extend(data);
    image
}

struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// Copies at 0x400 and 0x3000 of one file.
    fn new(copies: &[Vec<u8>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = vec![0xa5; 0x8000];
        for (copy, offset) in copies.iter().zip([0x400, 0x3000]) {
            disk[offset..offset + copy.len()].copy_from_slice(copy);
        }
        std::fs::write(folder.path().join("disk"), disk).unwrap();
        let device = folder.path().join("disk").display().to_string();
        let mut config = format!("# device offset size\n\n{device} 0x400 0x1000 # first\n");
        if copies.len() > 1 {
            config += &format!("{device}\t12288  0x1000 0x1000 1\n");
        }
        std::fs::write(folder.path().join("fw_env.config"), config).unwrap();
        Self { folder }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("fw_env.config")
    }

    fn write_config(&self, text: &str) {
        let device = self.folder.path().join("disk").display().to_string();
        std::fs::write(self.config(), text.replace("DISK", &device)).unwrap();
    }

    fn open(&self) -> Result<UbootEnv, UbootEnvError> {
        UbootEnv::open(&self.config())
    }

    fn value(&self, key: &str) -> String {
        self.open().unwrap().values()[key].clone()
    }

    /// What U-Boot's own tool reads; `None` (loudly) where it is not installed.
    fn reference(&self) -> Option<BTreeMap<String, String>> {
        let output = Command::new("fw_printenv")
            .arg("-c")
            .arg(self.config())
            .output();
        let Ok(output) = output else {
            eprintln!(
                "SKIPPED: comparison with fw_printenv, which is not installed (libubootenv-tool)"
            );
            return None;
        };
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Some(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    fn assert_like_reference(&self) {
        if let Some(reference) = self.reference() {
            assert_eq!(self.open().unwrap().values(), reference);
        }
    }
}

#[test]
fn crc32_is_the_usual_one() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(crc32(b""), 0);
}

#[test]
fn one_copy() {
    let disk = Disk::new(&[image(None, &[("a", b"1"), ("empty", b""), ("x", b"a=b c")])]);
    let values = disk.open().unwrap().values();
    assert_eq!(values["a"], "1");
    assert_eq!(values["empty"], "");
    assert_eq!(values["x"], "a=b c");
    disk.assert_like_reference();
}

#[test]
fn the_newer_of_two_copies_counts() {
    for (first, second, winner) in [
        (1, 2, "second"),
        (2, 1, "first"),
        (255, 0, "second"),
        (0, 255, "first"),
        (254, 255, "second"),
        (0, 1, "second"),
        (7, 7, "first"),
    ] {
        let disk = Disk::new(&[
            image(Some(first), &[("who", b"first")]),
            image(Some(second), &[("who", b"second")]),
        ]);
        assert_eq!(disk.value("who"), winner, "{first} {second}");
        disk.assert_like_reference();
    }
}

#[test]
fn nor_flags_are_active_or_obsolete() {
    for (first, second, winner) in [
        (1, 0, 0),
        (0, 1, 1),
        (1, 1, 0),
        (0, 0, 0),
        (255, 0, 0),
        (0, 255, 1),
        (255, 255, 0),
        (1, 255, 1),
    ] {
        assert_eq!(
            newer(first, second, FlagScheme::Boolean),
            winner,
            "{first} {second}"
        );
    }
}

#[test]
fn a_bad_copy_gives_way_to_the_other() {
    let good = image(Some(1), &[("who", b"good")]);
    let mut bad = image(Some(9), &[("who", b"bad")]);
    bad[100] ^= 1;
    for copies in [[good.clone(), bad.clone()], [bad, good]] {
        let disk = Disk::new(&copies);
        assert_eq!(disk.value("who"), "good");
        disk.assert_like_reference();
    }
}

#[test]
fn two_bad_copies_are_an_error_with_both_checksums() {
    let mut copies = [image(Some(1), &[]), image(Some(2), &[])];
    copies[0][..4].copy_from_slice(&0x1234_u32.to_ne_bytes());
    copies[1][..4].copy_from_slice(&0x5678_u32.to_ne_bytes());
    let disk = Disk::new(&copies);
    let right = crc32(&[0; SIZE - 5]);
    let device = disk.folder.path().join("disk").display().to_string();
    assert_eq!(
        disk.open().unwrap_err().to_string(),
        format!(
            "no valid U-Boot environment: {device} at 0x400 has CRC 0x00001234 where {right:#010x} \
             is right; {device} at 0x3000 has CRC 0x00005678 where {right:#010x} is right; check \
             fw_env.config, or let U-Boot save its environment once"
        )
    );
}

#[test]
fn a_missing_or_short_device_is_named() {
    let disk = Disk::new(&[image(None, &[])]);
    disk.write_config("/no/such/disk 0 0x1000\nDISK 0x7fff 0x1000\n");
    let text = disk.open().unwrap_err().to_string();
    assert!(
        text.contains("/no/such/disk at 0x0 cannot be read (No such file"),
        "{text}"
    );
    assert!(
        text.contains("disk at 0x7fff cannot be read (failed to fill whole buffer)"),
        "{text}"
    );
}

#[test]
fn sizes_without_0x_and_offsets_from_the_end() {
    let disk = Disk::new(&[image(None, &[("a", b"1")])]);
    for config in [
        "DISK 0x400 1000",
        "DISK 1024 4096",
        "DISK -0x7c00 0x1000",
        "DISK -31744 4096 # decimal",
    ] {
        disk.write_config(config);
        assert_eq!(disk.value("a"), "1", "{config}");
    }
    disk.write_config("DISK 0x400 1000\n");
    disk.assert_like_reference();
}

#[test]
fn bad_configurations_name_the_line() {
    for (text, line, problem) in [
        ("", 0, "it names no environment"),
        ("# only\n\n", 0, "it names no environment"),
        ("/dev/x 0x0", 1, "it needs a device, an offset and a size"),
        ("\n/dev/x zero 0x1000", 2, "\"zero\" is not an offset"),
        ("/dev/x 0 many", 1, "\"many\" is not a number"),
        (
            "/dev/x 0 0x200000",
            1,
            "size 0x200000 is not within 0x10 and 0x100000",
        ),
        (
            "/dev/x 0 0x8",
            1,
            "size 0x8 is not within 0x10 and 0x100000",
        ),
        (
            "/dev/x 0 0x1000\n/dev/x 1 0x2000",
            0,
            "its two copies differ in size",
        ),
        (
            "a 0 0x100\nb 0 0x100\nc 0 0x100",
            0,
            "it names more than two copies",
        ),
    ] {
        assert_eq!(
            EnvConfig::parse(text),
            Err((line, problem.to_owned())),
            "{text:?}"
        );
    }
    let config = EnvConfig::parse("/dev/mtd1 0x0 0x4000 0x4000 2\n").unwrap();
    assert_eq!(config.copies[0].sector_size, Some(0x4000));
    assert_eq!(config.copies[0].sectors, Some(2));
}

#[test]
fn odd_entries_are_survived() {
    let disk = Disk::new(&[image(None, &[("a", b"caf\xe9")])]);
    assert_eq!(disk.value("a"), "caf\u{fffd}");
    let data = b"novalue\0=nokey\0k=v\0\0hidden=1\0";
    let found: Vec<_> = variables(data).collect();
    assert_eq!(found, [(&b"k"[..], &b"v"[..])]);
    // Full to the last byte, without the closing empty entry.
    assert_eq!(variables(b"k=v").count(), 1);
}

#[test]
fn what_fw_setenv_writes_is_read() {
    let disk = Disk::new(&[
        image(Some(255), &[("a", b"1")]),
        image(Some(254), &[("a", b"0")]),
    ]);
    for round in 0..4 {
        let value = format!("round {round}");
        let status = Command::new("fw_setenv")
            .args(["-c".as_ref(), disk.config().as_os_str()])
            .args(["a", &value])
            .status();
        let Ok(status) = status else {
            eprintln!("SKIPPED: fw_setenv is not installed (libubootenv-tool)");
            return;
        };
        assert!(status.success());
        assert_eq!(disk.value("a"), value);
    }
}
