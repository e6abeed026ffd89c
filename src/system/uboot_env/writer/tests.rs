//! Edits against a model, against `fw_printenv` and `fw_setenv` where they are installed,
//! and against power cuts at every byte.

use std::os::unix::fs::FileExt as _;
use std::process::Command;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::system::uboot_env::{CopyState, newer, pick};

const SIZE: usize = 0x400;
const OFFSETS: [u64; 2] = [0x200, 0x1000];

type Model = BTreeMap<String, String>;

fn image(flag: Option<u8>, variables: &Model) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in variables {
        put(&mut data, &(key.clone(), Some(value.clone())));
    }
    data.resize(SIZE - CRC_LEN - usize::from(flag.is_some()), 0);
    let mut image = crc32(&data).to_ne_bytes().to_vec();
    image.extend(flag);
    image.extend(data);
    image
}

fn model(pairs: &[(&str, &str)]) -> Model {
    let pairs = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    pairs.collect()
}

fn set(key: &str, value: &str) -> Change {
    (key.to_owned(), Some(value.to_owned()))
}

fn unset(key: &str) -> Change {
    (key.to_owned(), None)
}

struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn new(copies: &[Vec<u8>]) -> Self {
        let disk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(disk.device(), vec![0xa5; 0x2000]).unwrap();
        let mut config = String::new();
        for (copy, offset) in copies.iter().zip(OFFSETS) {
            disk.poke(offset, copy);
            config += &format!("{} {offset:#x} {SIZE:#x}\n", disk.device().display());
        }
        std::fs::write(disk.config(), config).unwrap();
        disk
    }

    fn device(&self) -> std::path::PathBuf {
        self.folder.path().join("disk")
    }

    fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("fw_env.config")
    }

    fn poke(&self, offset: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.device()).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }

    fn values(&self) -> Model {
        UbootEnv::open(&self.config()).unwrap().values()
    }

    fn edit(&self, changes: &[Change]) -> Result<bool, WriteError> {
        Editor::open(&self.config())?.write(changes)
    }

    fn draft(&self, changes: &[Change]) -> Draft {
        let env = UbootEnv::open(&self.config()).unwrap();
        Draft::new(&env, changes).unwrap().unwrap()
    }

    /// The same edit by U-Boot's tool; false (loudly) where it is not installed.
    fn edit_by_tool(&self, changes: &[Change]) -> bool {
        let mut script = String::new();
        for (key, value) in changes {
            script += &format!("{key}={}\n", value.as_deref().unwrap_or_default());
        }
        let path = self.folder.path().join("script");
        std::fs::write(&path, script).unwrap();
        let status = Command::new("fw_setenv")
            .arg("-c")
            .arg(self.config())
            .arg("-s")
            .arg(path)
            .status();
        let Ok(status) = status else {
            eprintln!("SKIPPED: fw_setenv is not installed (libubootenv-tool)");
            return false;
        };
        assert!(status.success());
        true
    }

    /// What U-Boot's tool reads is what we read.
    fn assert_like_tool(&self) {
        let output = Command::new("fw_printenv")
            .arg("-c")
            .arg(self.config())
            .output();
        let Ok(output) = output else {
            eprintln!("SKIPPED: fw_printenv is not installed (libubootenv-tool)");
            return;
        };
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let theirs: Model = pairs.map(|(k, v)| (k.into(), v.into())).collect();
        assert_eq!(self.values(), theirs);
    }
}

fn apply(model: &mut Model, changes: &[Change]) {
    for (key, value) in changes {
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
}

fn key() -> impl Strategy<Value = String> {
    // Few names, so that edits often meet what is there.
    "([ab]\\.)?(nerves_)?fw_[a-d]"
}

fn value() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/]([a-zA-Z0-9/_.:= -]{0,20}[a-zA-Z0-9])?"
}

fn edits() -> impl Strategy<Value = Vec<(bool, Vec<Change>)>> {
    let changes = proptest::collection::btree_map(key(), proptest::option::of(value()), 1..5);
    let changes = changes.prop_map(|map| map.into_iter().collect());
    vec((any::<bool>(), changes), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn we_and_the_tools_agree_edit_by_edit(
        start in proptest::collection::btree_map(key(), value(), 1..8),
        flags in prop_oneof![any::<(u8, u8)>(), Just((255, 254)), Just((254, 255)), Just((255, 0))],
        redundant in any::<bool>(),
        corrupt in prop_oneof![Just(None), (0..2_usize, 5..SIZE).prop_map(Some)],
        edits in edits(),
    ) {
        let old = model(&[("who", "old")]);
        let disk = match redundant {
            false => Disk::new(&[image(None, &start)]),
            true => {
                let first_is_newer = newer(flags.0, flags.1, FlagScheme::Incremental) == 0;
                let (mut first, mut second) = (&start, &old);
                if !first_is_newer {
                    (first, second) = (second, first);
                }
                Disk::new(&[image(Some(flags.0), first), image(Some(flags.1), second)])
            }
        };
        if let (true, Some((copy, at))) = (redundant, corrupt) {
            disk.poke(OFFSETS[copy] + at as u64, &[0xff]);
        }
        let mut model = disk.values();
        for (by_tool, changes) in edits {
            if !(by_tool && disk.edit_by_tool(&changes)) {
                disk.edit(&changes).unwrap();
            }
            apply(&mut model, &changes);
            prop_assert_eq!(&disk.values(), &model);
            disk.assert_like_tool();
        }
    }
}

#[test]
fn flags_go_up_and_around_and_the_newest_copy_is_never_touched() {
    let disk = Disk::new(&[
        image(Some(254), &model(&[("a", "x")])),
        image(Some(253), &model(&[("a", "y")])),
    ]);
    for round in 0..5_u8 {
        let before = UbootEnv::open(&disk.config()).unwrap();
        assert!(disk.edit(&[set("a", &round.to_string())]).unwrap());
        let after = UbootEnv::open(&disk.config()).unwrap();
        assert_eq!(after.active, 1 - before.active);
        let flag = |env: &UbootEnv, copy: usize| env.copies[copy].flag;
        assert_eq!(flag(&after, after.active), Some(255_u8.wrapping_add(round)));
        assert_eq!(flag(&after, before.active), flag(&before, before.active));
        disk.assert_like_tool();
    }
}

#[test]
fn the_bad_copy_is_the_one_that_is_written() {
    for bad in [0, 1] {
        let good = model(&[("a", "1")]);
        let disk = Disk::new(&[image(Some(7), &good), image(Some(7), &good)]);
        disk.poke(OFFSETS[bad] + 9, &[0xff]);
        disk.edit(&[set("a", "2")]).unwrap();
        let env = UbootEnv::open(&disk.config()).unwrap();
        assert!(
            env.copies
                .iter()
                .all(|copy| *copy.state() == CopyState::Valid)
        );
        assert_eq!((env.active, env.values()["a"].as_str()), (bad, "2"));
    }
}

#[test]
fn a_power_cut_leaves_the_old_environment_or_the_new_one() {
    let (old, older) = (model(&[("a", "old"), ("b", "1")]), model(&[("a", "older")]));
    let new = model(&[("a", "new"), ("c", "3")]);
    let changes = [set("a", "new"), unset("b"), set("c", "3")];
    for (flags, broken) in [
        ((3, 2), false),
        ((255, 254), false),
        ((2, 3), true),
        ((0, 255), true),
    ] {
        let copies = [image(Some(flags.0), &old), image(Some(flags.1), &older)];
        let disk = Disk::new(&copies);
        let newest = UbootEnv::open(&disk.config()).unwrap().active;
        if broken {
            disk.poke(OFFSETS[1 - newest] + 50, &[0xff]);
        }
        let before = disk.values();
        let mut expected = before.clone();
        apply(&mut expected, &changes);
        let draft = disk.draft(&changes);
        assert_eq!(draft.target, 1 - newest);
        let mut seen_new = 0;
        for cut in 0..=SIZE {
            disk.poke(OFFSETS[draft.target], &draft.image[..cut]);
            let values = disk.values();
            seen_new += usize::from(values == expected);
            assert!(values == before || values == expected, "cut at {cut}");
        }
        assert!(seen_new > 0 && disk.values() == expected);
        assert!(expected.contains_key("c") && new["a"] == expected["a"]);
    }
}

/// NOR flash cannot be had here; its rules can: erased first, flag 1, then the other's 0.
#[test]
fn on_nor_a_power_cut_leaves_the_old_environment_or_the_new_one() {
    let copy = |image: &[u8]| {
        let location = Location {
            device: "/dev/mtd0".into(),
            offset: 0,
            size: SIZE,
            sector_size: None,
            sectors: None,
        };
        let mut copy = EnvCopy {
            location,
            flag: None,
            data: Vec::new(),
            state: CopyState::Valid,
        };
        copy.check(image, true);
        copy
    };
    let old = model(&[("a", "old")]);
    for flags in [
        [1, 0],
        [0, 1],
        [1, 255],
        [255, 0],
        [0, 0],
        [255, 255],
        [1, 1],
    ] {
        let mut images = flags.map(|flag| image(Some(flag), &old));
        let copies: Vec<_> = images.iter().map(|image| copy(image)).collect();
        let active = pick(&copies, FlagScheme::Boolean).unwrap();
        let env = UbootEnv {
            config: super::super::EnvConfig { copies: Vec::new() },
            copies,
            scheme: FlagScheme::Boolean,
            active,
        };
        let draft = Draft::new(&env, &[set("a", "new")]).unwrap().unwrap();
        assert!(draft.retire_other && draft.target != active);
        let value = |images: &[Vec<u8>; 2]| {
            let copies: Vec<_> = images.iter().map(|image| copy(image)).collect();
            let active = pick(&copies, FlagScheme::Boolean).expect("a readable copy");
            let data = String::from_utf8_lossy(&copies[active].data).into_owned();
            data.split('\0').next().unwrap().to_owned()
        };
        for cut in 0..=SIZE {
            images[draft.target] = vec![0xff; SIZE];
            images[draft.target][..cut].copy_from_slice(&draft.image[..cut]);
            assert!(["a=old", "a=new"].contains(&value(&images).as_str()));
        }
        images[active][CRC_LEN] = 0;
        assert_eq!(value(&images), "a=new", "{flags:?}");
    }
}

#[test]
fn order_and_strange_bytes_are_kept() {
    let data = b"z=1\0m=caf\xe9\0odd\0z=2\0a=3\0\0rest".to_vec();
    let data = [data, vec![7; 40]].concat();
    let new = edited(&data, &[set("z", "9"), set("n", "4"), unset("a")]);
    let new = new.unwrap().unwrap();
    assert_eq!(new.len(), data.len());
    assert!(new.starts_with(b"z=9\0m=caf\xe9\0odd\0n=4\0\0\0\0"));
    assert!(new.ends_with(&[0; 20]));
}

#[test]
fn what_is_already_so_is_not_written() {
    let disk = Disk::new(&[image(None, &model(&[("a", "1")]))]);
    let before = std::fs::read(disk.device()).unwrap();
    assert!(!disk.edit(&[set("a", "1"), unset("b")]).unwrap());
    assert_eq!(std::fs::read(disk.device()).unwrap(), before);
    assert!(disk.edit(&[unset("a")]).unwrap());
    assert_eq!(disk.values(), Model::new());
    assert!(!disk.edit(&[unset("a")]).unwrap());
}

#[test]
fn what_does_not_fit_or_is_no_variable_is_refused_and_nothing_written() {
    let disk = Disk::new(&[image(None, &model(&[("a", "1")]))]);
    let before = std::fs::read(disk.device()).unwrap();
    let room = SIZE - CRC_LEN;
    // "a=1" and "b=…", each with its zero byte, and the zero byte at the end.
    let most = room - 4 - 3 - 1;
    let text = disk.edit(&[set("b", &"x".repeat(most + 1))]).unwrap_err();
    assert_eq!(
        text.to_string(),
        format!(
            "the U-Boot environment needs {} bytes for its variables and has {room}; remove some \
             with fw_setenv",
            room + 1
        )
    );
    for (change, problem) in [
        (set("", "1"), "U-Boot variable \"\" has no name"),
        (set("a=b", "1"), "has = or a zero byte in its name"),
        (unset("a\0b"), "has = or a zero byte in its name"),
        (set("a", "1\0"), "has a zero byte in its value"),
    ] {
        let error = disk.edit(&[change]).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    assert_eq!(std::fs::read(disk.device()).unwrap(), before);
    assert!(disk.edit(&[set("b", &"x".repeat(most))]).unwrap());
    disk.assert_like_tool();
}

#[test]
fn what_cannot_be_written_safely_is_refused() {
    let both = image(Some(1), &model(&[("a", "1")]));
    let disk = Disk::new(&[both.clone(), both]);
    let device = disk.device().display().to_string();
    let config = format!("{device} 0x200 {SIZE:#x}\n{device} 0x200 {SIZE:#x}\n");
    std::fs::write(disk.config(), config).unwrap();
    let error = disk.edit(&[set("a", "2")]).unwrap_err();
    assert!(matches!(error, WriteError::Overlap { .. }), "{error}");
    let location = |device: &str| Location {
        device: device.into(),
        offset: 0,
        size: 16,
        sector_size: None,
        sectors: None,
    };
    let error = Medium::open_for_writing(&location("/dev/null"))
        .err()
        .unwrap();
    assert!(error.to_string().contains("UBI volume"), "{error}");
}

#[test]
fn a_lock_held_by_another_is_waited_for_but_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let patience = Duration::from_millis(60);
    let held = lock(&path, patience).unwrap();
    assert!(held.is_some());
    let error = lock(&path, patience).err().unwrap();
    assert!(matches!(error, WriteError::Locked { .. }), "{error}");
    drop(held);
    assert!(lock(&path, patience).unwrap().is_some());
    assert!(
        lock(&folder.path().join("no/lock"), patience)
            .unwrap()
            .is_none()
    );
}
