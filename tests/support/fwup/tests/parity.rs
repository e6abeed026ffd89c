//! Runs the stand-in and a real `fwup`, when there is one on `PATH`, on the same commands.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};

use common::{Outcome, STANDIN, data, framed, framed_open, public_key, read, run, temp};
use fwup_standin::archive::{Builder, Compression, Content, read_private_key};

fn real_fwup() -> Option<PathBuf> {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .map(|dir| dir.join("fwup"))
            .find(|file| file.is_file())
    });
    if found.is_none() {
        // Straight to stderr: the test harness would swallow a plain print.
        let _ = writeln!(std::io::stderr(), "SKIPPED: fwup not on PATH");
    }
    found
}

/// What a run leaves: how it ended and the image it wrote.
#[derive(Debug, PartialEq)]
struct Left {
    outcome: Outcome,
    image: Option<Vec<u8>>,
}

fn run_one(
    program: &Path,
    args: &[&str],
    input: &[u8],
    files: &[PathBuf],
    old: Option<&[u8]>,
) -> Left {
    let dir = temp();
    for file in files {
        let name = file.file_name().expect("a file name");
        std::fs::copy(file, dir.path().join(name)).expect("copied");
    }
    let image = dir.path().join("o.img");
    if let Some(old) = old {
        std::fs::write(&image, old).expect("written");
    }
    let mut outcome = run(program, dir.path(), args, input);
    // getopt begins its messages with the program's name.
    let name = program.to_str().expect("text");
    outcome.stderr = outcome.stderr.replace(name, "fwup");
    if outcome.stdout.len() > 2000
        || outcome.stdout.starts_with(b"fwup") && outcome.stdout.len() > 500
    {
        let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
        if text.contains("Usage:") {
            outcome.stdout = b"usage".to_vec();
        }
    }
    Left {
        outcome,
        image: std::fs::read(image).ok(),
    }
}

/// The words of nicknames are fwup's own; everything else must be equal.
fn without_nickname(mut run: Left) -> Left {
    let lines = run.outcome.stdout.split_inclusive(|byte| *byte == b'\n');
    let kept = lines.filter(|line| !line.starts_with(b"meta-nickname="));
    run.outcome.stdout = kept.collect::<Vec<_>>().concat();
    run
}

/// Both sides of one comparison.
struct Pair {
    real: PathBuf,
    files: Vec<PathBuf>,
}

impl Pair {
    fn new() -> Option<Pair> {
        let names = [
            "small-2.0.1.fw",
            "demo-2.0.0.fw",
            "unsigned-2.0.3.fw",
            "signing-key.pub",
            "other-key.pub",
        ];
        Some(Pair {
            real: real_fwup()?,
            files: names.iter().map(|name| data(name)).collect(),
        })
    }

    fn same(&self, label: &str, args: &[&str], input: &[u8]) -> Outcome {
        self.same_on(label, args, input, None)
    }

    fn same_on(&self, label: &str, args: &[&str], input: &[u8], old: Option<&[u8]>) -> Outcome {
        let real = without_nickname(run_one(&self.real, args, input, &self.files, old));
        let mine = without_nickname(run_one(Path::new(STANDIN), args, input, &self.files, old));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            mine == real,
            "{label} {args:?}\nreal: {:?} {:?} {:?}\nmine: {:?} {:?} {:?}\nimages equal: {}",
            real.outcome.status,
            text(&real.outcome.stdout),
            real.outcome.stderr,
            mine.outcome.status,
            text(&mine.outcome.stdout),
            mine.outcome.stderr,
            real.image == mine.image,
        );
        mine.outcome
    }
}

const APPLY: [&str; 6] = ["-a", "-U", "-d", "o.img", "-t", "upgrade"];

fn with<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    [&APPLY[..], extra].concat()
}

const LINES: &[&[&str]] = &[
    &[],
    &["--version"],
    &["--help"],
    &["--bogus"],
    &["-X"],
    &["-d"],
    &["--task"],
    &["--apply=3"],
    &["--p"],
    &["-q", "-n"],
    &["-a"],
    &["-a", "stray"],
    &["one", "two"],
    &["-V"],
    &["-d", "o.img"],
    &["--public-key", "abc"],
    &["-p", "missing"],
    &["-F", "-p", "missing"],
    &["-m", "-i", "small-2.0.1.fw"],
    &["-m", "-i", "missing.fw"],
    &["-m", "-ismall-2.0.1.fw", "--metadata-key=meta-uuid"],
    &["-m", "-i", "small-2.0.1.fw", "--metadata-key", "nope"],
    &["-l", "-i", "demo-2.0.0.fw", "-p", "other-key.pub"],
    &[
        "-l",
        "--public-key-file",
        "signing-key.pub",
        "-ismall-2.0.1.fw",
    ],
    &["-l", "-i", "unsigned-2.0.3.fw", "-p", "signing-key.pub"],
    &["-V", "-i", "small-2.0.1.fw"],
    &["-V", "-i", "small-2.0.1.fw", "-p", "signing-key.pub"],
    &["-V", "-i", "unsigned-2.0.3.fw"],
    &["-V", "-i", "signing-key.pub"],
    &["-m", "-i", "small-2.0.1.fw", "--exit-handshake"],
    &["small-2.0.1.fw", "-d", "o.img", "-q"],
    &["small-2.0.1.fw", "-d", "o.img", "-q", "-t", "upgrade"],
];

#[test]
fn options_and_metadata() {
    let Some(pair) = Pair::new() else { return };
    let key = public_key();
    pair.same(
        "a key",
        &["-l", "-i", "demo-2.0.0.fw", "--public-key", &key],
        b"",
    );
    for args in LINES {
        pair.same("options", args, b"");
    }
}

#[test]
fn applying_in_every_mode() {
    let Some(pair) = Pair::new() else { return };
    let demo = read("demo-2.0.0.fw");
    for mode in ["-n", "-q"] {
        pair.same("file", &with(&[mode, "-i", "demo-2.0.0.fw"]), b"");
    }
    for extra in [
        &["-F"][..],
        &["-F", "-q"],
        &["-F", "--enable-trim"],
        &["-F", "--progress-low", "5", "--progress-high", "50"],
        &["-F", "--exit-handshake"],
        &["-F", "-p", "other-key.pub", "-p", "signing-key.pub"],
        &["-F", "-p", "other-key.pub"],
    ] {
        pair.same("framed", &with(extra), &framed(&demo));
    }
    // The real one finds out in the background, at a progress that varies.
    let limited = with(&["-F", "--max-size", "300"]);
    let ends = [&pair.real, Path::new(STANDIN)]
        .map(|program| run_one(program, &limited, &framed(&demo), &[], None))
        .map(|left| (left.outcome.status, left.outcome.said(), left.image));
    assert_eq!(ends[0], ends[1]);
    let old = vec![5; 3_500_000];
    pair.same_on("over", &with(&["-F"]), &framed(&demo), Some(&old));
    pair.same_on("over", &with(&["-F"]), &framed(&demo), Some(&old[..700]));
    for device in ["/dev/null", "/dev/missing-device", "/dev/full", "/proc"] {
        let args = ["-a", "-U", "-F", "-t", "upgrade", "-d", device];
        pair.same("device", &args, &framed(&demo));
    }
}

#[test]
fn truncations() {
    let Some(pair) = Pair::new() else { return };
    let small = read("small-2.0.1.fw");
    let near_end = (66_140..small.len()).step_by(5);
    for cut in (0..700).step_by(23).chain(near_end).chain([40_000]) {
        let label = format!("cut at {cut}");
        pair.same(&label, &with(&["-F"]), &framed(&small[..cut]));
        pair.same(&label, &with(&["-F"]), &framed_open(&small[..cut]));
        pair.same(&label, &["-l", "-F"], &framed(&small[..cut]));
    }
    let demo = read("demo-2.0.0.fw");
    for cut in [2_000_000, 3_000_000] {
        pair.same("long", &with(&["-F"]), &framed(&demo[..cut]));
    }
}

#[test]
fn flipped_bytes() {
    let Some(pair) = Pair::new() else { return };
    let small = read("small-2.0.1.fw");
    let places = (0..620).step_by(7).chain((66_100..66_430).step_by(9));
    for place in places.chain([30_000]) {
        let mut bytes = small.clone();
        bytes[place] ^= 0xff;
        let label = format!("flipped at {place}");
        pair.same(&label, &with(&["-F"]), &framed(&bytes));
    }
}

const TASKS: &str = "uboot-environment \"e\" {\nblock-offset=16\nblock-count=16\n\
        block-offset-redund=32\n}\n\
        task \"ops.a\" {\nreqlist={4,\"require-uboot-variable\",e,valid,1}\n\
        on-init {\nfunlist={2,info,valid}\n}\n}\n\
        task \"ops.b\" {\non-init {\nfunlist={2,uboot_clearenv,e,4,uboot_setenv,e,valid,1,\
        4,uboot_setenv,e,id,\"${FWUP_META_UUID}\",4,raw_memset,300,3,7}\n}\n}\n\
        task \"bad\" {\non-init {\nfunlist={4,raw_memset,0,1,7,2,error,no}\n}\n\
        on-error {\nfunlist={2,info,\"cleaning up\",4,raw_memset,9,1,1}\n}\n}\n\
        task \"shell\" {\non-init {\nfunlist={2,execute,true}\n}\n}\n";

#[test]
fn built_archives() {
    let Some(pair) = Pair::new() else { return };
    let key = read_private_key(data("signing-key.priv")).expect("the key");
    let dir = temp();
    let path = dir.path().join("built.fw");
    for (level, len) in [(None, 5_000_001), (Some(1), 5_000_000), (Some(9), 0)] {
        let compression = level.map_or(Compression::Stored, Compression::Deflate);
        let builder = Builder::new("4.0.0-rc.1")
            .product("a \"quoted\" \\ product")
            .misc("x")
            .vcs_identifier("abc123")
            .resource(Content::Compressible { seed: 7, len })
            .compression(compression)
            .extra_conf(TASKS)
            .sign_with(&key);
        builder.write_to(&path).expect("built");
        let bytes = std::fs::read(&path).expect("the archive");
        pair.same(
            "apply",
            &with(&["-F", "-p", "signing-key.pub"]),
            &framed(&bytes),
        );
        pair.same("apply", &with(&["-q"]), &bytes);
        pair.same("metadata", &["-m"], &bytes);
        pair.same("tasks", &["-l"], &bytes);
        let place = path.to_str().expect("text");
        let verify = pair.same("verify", &["-V", "-i", place, "-p", "signing-key.pub"], b"");
        assert_eq!(verify.status, Some(0));
        let old = vec![3; 200_001];
        for task in ["ops", "bad", "shell", "upgrade-fails", "zork", "upgrade"] {
            let args = ["-a", "-F", "-t", task, "-d", "o.img"];
            pair.same_on(task, &args, &framed(&bytes), Some(&old));
        }
    }
}
