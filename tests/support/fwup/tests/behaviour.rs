//! What the recordings do not cover: other inputs, other options, constant memory, built archives.

mod common;

use std::path::Path;

use common::{Outcome, data, framed, framed_open, public_key, read, sha256, standin, temp};
use fwup_standin::archive::{Builder, Compression, Content, read_private_key};

fn apply(archive: &[u8], extra: &[&str]) -> (Outcome, u64) {
    let dir = temp();
    let args = ["--apply", "-U", "-d", "o.img", "-t", "upgrade", "--framing"];
    let outcome = standin(dir.path(), &[&args, extra].concat(), archive);
    let size = std::fs::metadata(dir.path().join("o.img")).map_or(0, |meta| meta.len());
    (outcome, size)
}

fn error_of(archive: &[u8]) -> String {
    let (outcome, _) = apply(archive, &[]);
    assert_eq!(outcome.status, Some(1));
    assert_eq!(outcome.stderr, "\n");
    outcome.said().pop().expect("an error")
}

#[test]
fn broken_inputs_are_told_apart() {
    let small = read("small-2.0.1.fw");
    let data_header = 534;
    let descriptor = 66_155;
    let cut = |at: usize| framed(&small[..at]);
    let expect = |input: &[u8], text: &str| assert_eq!(error_of(input), format!("ER {text}"));
    expect(b"", "Error reading stdin");
    expect(&[0; 4], "Unrecognized archive format");
    expect(&framed(b"garbage"), "Unrecognized archive format");
    expect(&cut(40), "Truncated ZIP file header");
    expect(&cut(90), "Unexpected meta.conf.ed25519 size: 0");
    expect(
        &cut(150),
        "Expecting more than meta.conf.ed25519 in archive",
    );
    expect(&cut(300), "Unexpected meta.conf size: 0");
    expect(&cut(560), "Resource rootfs.img not found in archive");
    expect(&cut(1000), "ZIP decompression failed (-5)");
    expect(&cut(descriptor), "Truncated ZIP end-of-file record");
    expect(&framed_open(&small[..1000]), "Truncated ZIP file body");
    let without_meta = framed(&small[data_header..]);
    expect(
        &without_meta,
        "Expecting meta.conf to be at the beginning of (null)",
    );
    let mut flipped = small.clone();
    flipped[descriptor + 4] ^= 0xff;
    expect(
        &framed(&flipped),
        "ZIP bad CRC: 0x44125b4e should be 0x44125bb1",
    );
}

#[test]
fn garbage_between_entries_is_skipped() {
    let small = read("small-2.0.1.fw");
    let with = [&small[..534], &b"garbage".repeat(50), &small[534..]].concat();
    let (outcome, size) = apply(&framed(&with), &["--public-key", &public_key()]);
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    assert_eq!(size, 131_072);
}

#[test]
fn frames_of_any_size_do() {
    let small = read("small-2.0.1.fw");
    let mut input = Vec::new();
    for byte in &small {
        input.extend_from_slice(&[0, 0, 0, 1, *byte]);
    }
    input.extend_from_slice(&[0; 4]);
    assert_eq!(apply(&input, &[]).0.status, Some(0));
    let mut one = (small.len() as u32).to_be_bytes().to_vec();
    one.extend_from_slice(&small);
    one.extend_from_slice(&[0; 4]);
    assert_eq!(apply(&one, &[]).0.status, Some(0));
}

#[test]
fn any_of_several_keys_will_do() {
    let small = framed(&read("small-2.0.1.fw"));
    let other = data("other-key.pub");
    let other = other.to_str().expect("text");
    let key = public_key();
    let both = ["-p", other, "--public-key", &key];
    assert_eq!(apply(&small, &both).0.status, Some(0));
    let (wrong, size) = apply(&small, &["-p", other]);
    assert_eq!(wrong.status, Some(1));
    assert_eq!(size, 0);
}

#[test]
fn options_change_what_is_said() {
    let small = framed(&read("small-2.0.1.fw"));
    let (quiet, _) = apply(&small, &["-q"]);
    assert_eq!(quiet.said().len(), quiet.frames().len());
    let (shaken, _) = apply(&small, &["--exit-handshake"]);
    assert!(shaken.stdout.ends_with(&[0x1a, 0]));
    let (ranged, _) = apply(&small, &["--progress-low", "10", "--progress-high", "20"]);
    let frames = ranged.frames();
    assert_eq!(frames[0].1, 10);
    assert_eq!(frames[frames.len() - 2].1, 20);
    let (limited, size) = apply(&small, &["--max-size", "10"]);
    assert_eq!((limited.status, size), (Some(0), 5120));
    let (trimmed, _) = apply(&small, &["--enable-trim"]);
    assert_eq!(
        trimmed.said()[0],
        "WN ignoring --enable-trim since operating on a regular file"
    );
}

#[test]
fn mistaken_options_end_with_the_usage() {
    let dir = temp();
    let outcome = standin(dir.path(), &["--bogus"], b"");
    assert_eq!(outcome.status, Some(1));
    assert!(
        outcome
            .stderr
            .ends_with(": unrecognized option '--bogus'\n")
    );
    assert!(!outcome.stdout.is_empty());
    let version = standin(dir.path(), &["--version"], b"");
    assert_eq!(version.stdout, b"1.16.0\n");
    assert_eq!(standin(dir.path(), &["--help"], b"").status, Some(0));
    let stray = standin(dir.path(), &["-a", "stray"], b"");
    assert_eq!(stray.stdout, b"fwup: unexpected parameter: stray\n");
}

fn build(path: &Path, builder: &Builder) -> fwup_standin::archive::Summary {
    builder.write_to(path).expect("built")
}

#[test]
fn built_archives_apply_and_are_what_the_summary_says() {
    let key = read_private_key(data("signing-key.priv")).expect("the key");
    let dir = temp();
    let path = dir.path().join("built.fw");
    for compression in [Compression::Stored, Compression::Deflate(6)] {
        let content = Content::Compressible {
            seed: 3,
            len: 3_333_333,
        };
        let builder = Builder::new("3.0.0")
            .resource(content)
            .compression(compression)
            .sign_with(&key);
        let summary = build(&path, &builder);
        let bytes = std::fs::read(&path).expect("the archive");
        assert_eq!(summary.size, bytes.len() as u64);
        assert_eq!(summary.sha256_hex_upper, sha256(&bytes));
        let parts: Vec<String> = bytes.chunks(1 << 20).map(sha256).collect();
        assert_eq!(summary.partials, parts);
        let (outcome, _) = apply(&framed(&bytes), &["--public-key", &public_key()]);
        assert_eq!(outcome.status, Some(0), "{outcome:?}");
        let args = ["-V", "--public-key", &public_key(), "-i", "built.fw"];
        let verified = standin(dir.path(), &args, b"");
        assert_eq!(verified.stdout, b"Valid archive with a good signature\n");
        let uuid = ["-m", "--metadata-key", "meta-uuid", "-i", "built.fw"];
        let shown = standin(dir.path(), &uuid, b"").stdout;
        assert_eq!(shown, format!("{}\n", summary.uuid).into_bytes());
    }
}

#[test]
fn a_task_with_an_environment_changes_only_that() {
    let dir = temp();
    let conf = "uboot-environment \"env\" {\nblock-offset=16\nblock-count=16\n}\n\
        task \"init\" {\non-init {\nfunlist={2,uboot_clearenv,env,4,uboot_setenv,env,a,b}\n}\n}\n\
        task \"validate.a\" {\nreqlist={4,\"require-uboot-variable\",env,valid,1}\n}\n\
        task \"validate.b\" {\non-init {\nfunlist={4,uboot_setenv,env,valid,1,3,uboot_unsetenv,\
        env,a}\n}\n}\n";
    build(
        &dir.path().join("ops.fw"),
        &Builder::new("1.0.0").extra_conf(conf),
    );
    std::fs::write(dir.path().join("dev"), vec![9; 40_000]).expect("written");
    for task in ["init", "validate", "validate"] {
        let args = ["-a", "-i", "ops.fw", "-t", task, "-d", "dev", "-q"];
        let outcome = standin(dir.path(), &args, b"");
        assert_eq!(outcome.status, Some(0), "{outcome:?}");
    }
    let dev = std::fs::read(dir.path().join("dev")).expect("the device");
    assert_eq!(&dev[8196..8206], b"valid=1\0\0\xff");
    assert!(
        dev[..8192]
            .iter()
            .chain(&dev[16_384..40_000])
            .all(|byte| *byte == 9)
    );
}

#[test]
fn functions_that_are_missing_are_named() {
    let conf = "task \"fat\" {\non-init {\nfunlist={3,fat_mkfs,0,100}\n}\n}\n";
    let dir = temp();
    build(
        &dir.path().join("fat.fw"),
        &Builder::new("1.0.0").extra_conf(conf),
    );
    let args = ["-a", "-q", "-i", "fat.fw", "-t", "fat", "-d", "o.img"];
    let outcome = standin(dir.path(), &args, b"");
    assert_eq!(outcome.status, Some(1));
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert_eq!(text, "fwup: fwup-standin does not implement fat_mkfs\n");
}

#[test]
fn memory_does_not_grow_with_the_archive() {
    let dir = temp();
    let content = Content::Random {
        seed: 5,
        len: 48 << 20,
    };
    build(
        &dir.path().join("big.fw"),
        &Builder::new("1.0.0").resource(content),
    );
    // 40 MiB of address space would not do for an archive that is held in memory.
    let command = format!(
        "ulimit -v 40960; exec '{}' -a -q -d o.img -t upgrade < big.fw",
        common::STANDIN
    );
    let outcome = common::run(Path::new("/bin/sh"), dir.path(), &["-c", &command], b"");
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
}
