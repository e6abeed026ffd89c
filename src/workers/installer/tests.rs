//! Feeds to scripts that stand in for fwup and for an integrator's program.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::config::{MetadataSource, Secret};
use crate::core::effect::FileStamp;
use crate::system::channel::unbounded;
use crate::system::kv::KeyValues;
use crate::system::slots::{Record, SlotSettings};
use crate::update::feed::{self, Filler};
use crate::update::journal::Stage;
use crate::wire::Offer;

const OK: &str = r"printf '\000\000\000\004OK\000\000'";
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Drives whatever the test is about; slot a runs.
struct Bench {
    folder: tempfile::TempDir,
    settings: FwupSettings,
    order: InstallOrder,
}

impl Bench {
    /// `text` takes fwup's place.
    fn fwup(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = script(folder.path(), text);
        Self {
            settings: FwupSettings {
                installer: Installer::Fwup,
                path,
                devpath: Some(folder.path().join("disk")),
                task: "upgrade".into(),
                env: Vec::new(),
                extra_options: Vec::new(),
                public_keys: Vec::new(),
                request_public_keys: false,
                stall_timeout: Duration::from_secs(20),
            },
            order: InstallOrder {
                file: None,
                stamp: FileStamp::default(),
                offer: Offer {
                    uuid: "uuid-1".into(),
                    version: "2.0.0".into(),
                    product: "demo".into(),
                    url: Secret::new("https://files/fw?sig=x"),
                    size: Some(8),
                    checksum: Some([0xAB; 32]),
                    partials: Vec::new(),
                },
                devpath: Some("/dev/of-the-start".into()),
                public_keys: vec![KEY.into()],
                identifier: "device".into(),
            },
            folder,
        }
    }

    /// `text` is an installer program, called `tool`.
    fn program(text: &str) -> Self {
        let mut bench = Self::fwup(&format!("echo $1 >> verbs\n{text}"));
        bench.settings.installer = Installer::Command(bench.settings.path.clone());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, proven: bool) -> Feed {
        let path = self.path("firmware");
        std::fs::write(&path, "firmware").unwrap();
        Feed::File { path, proven }
    }

    /// What was written to a file of the folder; empty: it is not there.
    fn read(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
        text.replace(&self.folder.path().display().to_string(), "/M")
    }

    /// The only sleep there is: files do not tell when they are written.
    fn wait_for(&self, name: &str, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.read(name) != text {
            assert!(Instant::now() < deadline, "{name} does not hold {text:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn journal(&self) -> Journal {
        Journal::new(&self.path("data"))
    }

    /// The description is in a file `metadata`, once there is one.
    fn guard(&self) -> Guard {
        let offline = ("NERVES_HUB_CONNECT".into(), "0".into());
        let (config, _) = crate::config::parse([offline].into_iter()).unwrap();
        let mut settings = SlotSettings::new(&config);
        settings.fwup = self.settings.clone();
        let file = self.path("metadata");
        settings.metadata.source = match file.exists() {
            true => MetadataSource::File(file),
            false => MetadataSource::Env,
        };
        let values = match settings.metadata.source {
            MetadataSource::File(_) => KeyValues::parse_lines("nerves_fw_active=a").unwrap(),
            _ => KeyValues::default(),
        };
        Guard::new(settings, Some("a".into()), &values)
    }

    fn record(&self, active: &str, uuid: &str) {
        let text = format!("nerves_fw_active={active}\n{active}.nerves_fw_uuid={uuid}\n");
        std::fs::write(self.path("metadata"), text).unwrap();
    }

    /// Runs the installer while `download` fills the feed; the outcome.
    fn run(&self, download: impl FnOnce(Filler) + Send) -> Result<(), String> {
        let (filler, drain) = feed::channel();
        self.run_with(drain, move |_| download(filler))
    }

    fn run_with(&self, drain: Drain, meanwhile: impl FnOnce(&Cancel) + Send) -> Result<(), String> {
        let (inbox, events) = unbounded();
        let cancel = Cancel::new().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| meanwhile(&cancel));
            run(
                JobId(1),
                self.order.clone(),
                drain,
                &cancel,
                &self.journal(),
                &self.guard(),
                &inbox,
            )
            .unwrap();
        });
        match events.try_iter().last() {
            Some(Event::Install(JobId(1), InstallEvent::Finished(result))) => result,
            other => panic!("{other:?}"),
        }
    }

    fn take(&self, piece: Feed) -> Result<(), String> {
        self.run(|filler| send(&filler, [piece]))
    }
}

fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("tool");
    let text = format!("#!/bin/sh\ncd {}\n{text}\n", folder.display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

fn send<const N: usize>(filler: &Filler, pieces: [Feed; N]) {
    let never = Cancel::new().unwrap();
    for piece in pieces {
        assert!(filler.send(piece, &never), "the installer is gone");
    }
}

fn full_chunk() -> Feed {
    let mut chunk = Chunk::default();
    chunk.read_from(&mut std::io::repeat(7), u64::MAX).unwrap();
    Feed::Chunk(chunk)
}

fn chunk(text: &str) -> Feed {
    let mut chunk = Chunk::default();
    chunk.read_from(&mut text.as_bytes(), u64::MAX).unwrap();
    Feed::Chunk(chunk)
}

const SEEN: &str = "echo \"$@\" >> seen; readlink /proc/self/fd/0 >> seen";

#[test]
fn a_proven_file_is_named_to_fwup() {
    let bench = Bench::fwup(&format!("{SEEN}; {OK}"));
    assert_eq!(bench.take(bench.file(true)), Ok(()));
    let seen = format!(
        "--framing --apply --no-unmount -i /M/firmware -d /M/disk --task upgrade \
         --public-key {KEY}\n/dev/null\n"
    );
    assert_eq!(bench.read("seen"), seen);
}

#[test]
fn a_file_that_nobody_proved_is_verified_first() {
    let bench = Bench::fwup(&format!("{SEEN}; {OK}"));
    assert_eq!(bench.take(bench.file(false)), Ok(()));
    let seen = bench.read("seen");
    let first = format!("--framing -V -i /M/firmware --public-key {KEY}\n");
    assert!(seen.starts_with(&first), "{seen}");
    assert_eq!(seen.matches("--apply").count(), 1, "{seen}");

    let bench = Bench::fwup(&format!(
        r"{SEEN}; printf '\000\000\000\007ER\000\000bad'; exit 1"
    ));
    let result = bench.take(bench.file(false));
    assert_eq!(result, Err("fwup error: bad".to_owned()));
    assert_eq!(bench.read("seen").matches("--apply").count(), 0);
}

#[test]
fn fwup_that_hangs_over_a_file_is_killed() {
    let mut bench = Bench::fwup("sleep 600");
    bench.settings.stall_timeout = Duration::from_millis(100);
    let result = bench.take(bench.file(true)).unwrap_err();
    assert_eq!(result, "fwup error: no sign of life for 0.1 s; killed");
}

#[test]
fn nothing_is_started_before_the_first_piece() {
    let bench = Bench::fwup(SEEN);
    type Download = fn(Filler);
    let cases: [(Download, &str); 4] = [
        (drop, "cancelled"),
        (|filler| send(&filler, [Feed::Restart]), "cancelled"),
        (|filler| send(&filler, [Feed::End]), "the firmware is empty"),
        (
            |filler| send(&filler, [Feed::Restart, Feed::End]),
            "the firmware is empty",
        ),
    ];
    for (download, reason) in cases {
        assert_eq!(bench.run(download), Err(format!("fwup error: {reason}")));
        assert_eq!(bench.read("seen"), "");
    }
}

#[test]
fn a_stream_that_starts_over_may_end_in_a_file() {
    let bench = Bench::fwup(&format!("{SEEN}; [ $4 = -i ] || cat > /dev/null; {OK}"));
    let file = bench.file(true);
    let result = bench.run(|filler| {
        send(&filler, [Feed::Restart, chunk("fi"), Feed::Restart, file]);
    });
    assert_eq!(result, Ok(()));
    assert!(bench.read("seen").contains(" -i /M/firmware "));
}

#[test]
fn fwup_is_never_left_to_choose_a_device() {
    let mut bench = Bench::fwup(SEEN);
    bench.settings.devpath = None;
    let result = bench.take(bench.file(true)).unwrap_err();
    assert!(result.starts_with("fwup error: no device"), "{result}");
    assert_eq!(bench.read("seen"), "");
}

#[test]
fn the_real_fwup_takes_a_file() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&path).map(|folder| folder.join("fwup"));
    let Some(fwup) = programs.find(|file| file.is_file()) else {
        eprintln!("SKIPPED: no fwup on PATH");
        return;
    };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fw");
    let key = |name: &str| {
        let text = std::fs::read_to_string(data.join(name)).unwrap();
        vec![text.trim().to_owned()]
    };
    let mut bench = Bench::fwup("");
    bench.settings.path = fwup;
    // An unproven file that is not good is removed.
    let path = bench.path("firmware");
    std::fs::copy(data.join("small-2.0.1.fw"), &path).unwrap();
    for proven in [true, false] {
        std::fs::write(bench.path("disk"), "").unwrap();
        bench.order.public_keys = key("signing-key.pub");
        let path = path.clone();
        assert_eq!(bench.take(Feed::File { path, proven }), Ok(()));
        assert!(std::fs::metadata(bench.path("disk")).unwrap().len() > 0);
    }
    bench.order.public_keys = key("other-key.pub");
    for proven in [true, false] {
        let path = path.clone();
        let result = bench.take(Feed::File { path, proven }).unwrap_err();
        assert!(result.contains("digital signature"), "{result}");
    }
    assert!(!path.exists());
}

#[test]
fn somebody_s_file_must_stay_what_it_was_when_it_was_judged() {
    let swap = "echo evil > other; mv other firmware";
    let fwup = |at: &str| {
        let text = format!(
            "for arg; do case $arg in -V|--apply) step=$arg;; esac; done\n\
             echo $step >> verbs\n[ $step != {at} ] || {{ {swap}; }}\n{OK}"
        );
        Bench::fwup(&text)
    };
    let program = |at: &str| Bench::program(&format!("[ $1 != {at} ] || {{ {swap}; }}"));
    for (mut bench, verbs, changed) in [
        (fwup("never"), "-V\n--apply\n", false),
        (fwup("-V"), "-V\n", true),
        (fwup("--apply"), "-V\n--apply\n", true),
        (program("never"), "begin\nfinish\n", false),
        (program("begin"), "begin\nabort\n", true),
    ] {
        let piece = bench.file(false);
        bench.order.file = Some(bench.path("firmware"));
        bench.order.stamp = firmware_file::stamp(&bench.path("firmware")).unwrap();
        let result = bench.take(piece);
        assert_eq!(bench.read("verbs"), verbs);
        match changed {
            true => assert!(
                result
                    .unwrap_err()
                    .ends_with("the file changed while it was installed"),
                "{verbs}"
            ),
            false => assert_eq!(result, Ok(())),
        }
        // Not even written to before anything is started.
        std::fs::remove_file(bench.path("verbs")).unwrap();
        let piece = bench.file(false);
        assert!(
            bench
                .take(piece)
                .unwrap_err()
                .ends_with("while it was installed")
        );
        assert_eq!(bench.read("verbs"), "");
    }
}

#[test]
fn a_program_gets_a_file_as_its_input_and_by_name() {
    let text = "[ $1 != begin ] || cat > got; echo $NERVES_HUB_FIRMWARE_FILE >> names";
    let bench = Bench::program(text);
    assert_eq!(bench.take(bench.file(true)), Ok(()));
    assert_eq!(bench.read("verbs"), "begin\nfinish\n");
    assert_eq!(bench.read("got"), "firmware");
    assert_eq!(bench.read("names"), "/M/firmware\n/M/firmware\n");
}

#[test]
fn a_program_may_leave_its_input_alone_when_there_is_a_file() {
    let bench = Bench::program("true");
    let path = bench.path("big");
    std::fs::write(&path, vec![7; 4 << 20]).unwrap();
    let proven = true;
    assert_eq!(bench.take(Feed::File { path, proven }), Ok(()));
    assert_eq!(bench.read("verbs"), "begin\nfinish\n");
}

#[test]
fn nothing_is_started_for_a_file_that_cannot_be_read() {
    let bench = Bench::program("cat > /dev/null");
    let (path, proven) = (bench.path("nowhere"), true);
    let reason = bench.take(Feed::File { path, proven }).unwrap_err();
    assert!(
        reason.starts_with("tool error: begin: cannot read "),
        "{reason}"
    );
    assert_eq!(bench.read("verbs"), "");
}

#[test]
fn a_program_that_starts_over_is_told_to_abort_first() {
    let bench = Bench::program("[ $1 != begin ] || cat > got");
    let result = bench.run(|filler| {
        send(&filler, [chunk("old")]);
        bench.wait_for("got", "old");
        send(&filler, [Feed::Restart, chunk("ne"), chunk("w"), Feed::End]);
    });
    assert_eq!(result, Ok(()));
    assert_eq!(bench.read("verbs"), "begin\nabort\nbegin\nfinish\n");
    assert_eq!(bench.read("got"), "new");
}

#[test]
fn a_program_that_counts_may_end_before_the_feed() {
    let bench = Bench::program("[ $1 != begin ] || head -c 8 > got");
    let result = bench.run(|filler| {
        send(&filler, [chunk("firmware")]);
        bench.wait_for("got", "firmware");
        send(&filler, [Feed::End]);
    });
    assert_eq!(result, Ok(()));
    assert_eq!(bench.read("verbs"), "begin\nfinish\n");
}

#[test]
fn the_input_of_a_download_that_is_given_up_does_not_end() {
    let text = "[ $1 != begin ] || { trap 'exit 0' TERM; cat > got; echo end > end; }";
    let bench = Bench::program(text);
    let result = bench.run(|filler| {
        send(&filler, [chunk("firm")]);
        bench.wait_for("got", "firm");
    });
    assert_eq!(result, Err("tool error: begin: cancelled".to_owned()));
    assert_eq!(bench.read("verbs"), "begin\nabort\n");
    assert_eq!(bench.read("end"), "");
}

#[test]
fn the_other_verbs_have_a_deadline_however_much_they_say() {
    let text =
        "case $1 in begin) cat > /dev/null ;; *) while :; do echo x; sleep 0.05; done ;; esac";
    let mut bench = Bench::program(text);
    bench.settings.stall_timeout = Duration::from_secs(1);
    let reason = bench.take(bench.file(true)).unwrap_err();
    assert_eq!(reason, "tool error: finish: not done after 1 s; killed");
    assert_eq!(bench.read("verbs"), "begin\nfinish\nabort\n");
}

/// A daemon outside the process's group that holds on to its pipes.
const DAEMON: &str = "exec 3<&0; setsid sleep 20 <&3 &";

#[test]
fn a_daemon_that_holds_the_pipes_holds_nobody_up() {
    let proven = true;
    // The verdict was said; or the input is not taken any more.
    for (text, expected) in [
        (format!("cat > /dev/null; {DAEMON} {OK}"), Ok(())),
        (
            format!("{DAEMON} exit 3"),
            Err("fwup error: exit status 3".to_owned()),
        ),
    ] {
        let begin = Instant::now();
        let result = Bench::fwup(&text).run(|filler| {
            for _ in 0..40 {
                if !filler.send(full_chunk(), &Cancel::new().unwrap()) {
                    return;
                }
            }
            send(&filler, [Feed::End]);
        });
        assert_eq!(result, expected, "{text}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{text}");
    }
    let bench = Bench::program(&format!("[ $1 != begin ] || {{ {DAEMON} }}; exit 0"));
    let path = bench.path("big");
    std::fs::write(&path, vec![7; 4 << 20]).unwrap();
    let begin = Instant::now();
    assert_eq!(bench.take(Feed::File { path, proven }), Ok(()));
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_daemon_does_not_outlast_the_patience_with_what_is_killed() {
    let mut bench = Bench::fwup(&format!("cat > /dev/null; {DAEMON} sleep 600"));
    bench.settings.stall_timeout = Duration::from_millis(100);
    let begin = Instant::now();
    let result = bench.run(|filler| send(&filler, [full_chunk(), Feed::End]));
    let reason = "fwup error: no sign of life for 0.1 s; killed";
    assert_eq!(result, Err(reason.to_owned()));
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_download_that_stands_still_for_ever_is_left_when_cancelled() {
    // As after a panic: its thread is parked with what it holds.
    let bench = Bench::fwup(SEEN);
    let (filler, drain) = feed::channel();
    let result = bench.run_with(drain, |cancel| cancel.cancel());
    assert_eq!(result, Err("fwup error: cancelled".to_owned()));
    drop(filler);
}

#[test]
fn success_counts_only_once_everything_was_fed_and_proven() {
    let ok = format!("head -c 1 > /dev/null; {OK}");
    let chunks = || [full_chunk(), full_chunk(), full_chunk()];
    // The download fails, or finds that what it fed is wrong, after fwup was content.
    let bench = Bench::fwup(&ok);
    let result = bench.run(|filler| send(&filler, chunks()));
    assert_eq!(result, Err("fwup error: cancelled".to_owned()));
    assert!(!bench.path("data/update").exists());
    let bench = Bench::fwup(&format!("{ok}; echo run >> runs"));
    let result = bench.run(|filler| {
        send(&filler, chunks());
        bench.wait_for("runs", "run\n");
        send(&filler, [Feed::Restart]);
        send(&filler, chunks());
        send(&filler, [Feed::End]);
    });
    assert_eq!(result, Ok(()));
    assert_eq!(bench.read("runs"), "run\nrun\n");
    // Nor does what can have been no more than looked at.
    let result = Bench::fwup(OK).run(|filler| {
        let never = Cancel::new().unwrap();
        while filler.send(full_chunk(), &never) {}
    });
    let reason = "fwup error: ended before it had read the whole firmware";
    assert_eq!(result, Err(reason.to_owned()));
}

#[test]
fn an_unproven_file_that_is_not_good_is_not_kept() {
    let bad = r"printf '\000\000\000\007ER\000\000bad'; exit 1";
    let verifies = |no: &str, yes: &str| format!("if [ $2 = -V ]; then {no}; else {yes}; fi");
    for (bench, proven, kept) in [
        (Bench::fwup(&verifies(bad, OK)), false, false),
        (Bench::fwup(&verifies(OK, bad)), false, true),
        (Bench::fwup(&verifies(OK, bad)), true, true),
        (Bench::program("[ $1 != begin ]"), false, false),
        (Bench::program("[ $1 != finish ]"), false, false),
        (Bench::program("[ $1 = abort ] || kill -9 $$"), false, true),
        (Bench::program("[ $1 != begin ]"), true, true),
    ] {
        let failed = bench.take(bench.file(proven)).unwrap_err();
        assert_eq!(bench.path("firmware").exists(), kept, "{proven} {failed}");
    }
    // What cannot even be asked has not said no.
    let mut bench = Bench::fwup("");
    bench.settings.path = "/no/such/fwup".into();
    bench.take(bench.file(false)).unwrap_err();
    assert!(bench.path("firmware").exists());
}

#[test]
fn the_running_slot_is_not_written_to_by_a_record_that_has_changed() {
    let bench = Bench::fwup(&format!("{SEEN}; {OK}"));
    bench.record("b", "other");
    let reason = bench.take(bench.file(true)).unwrap_err();
    assert!(
        reason.starts_with("the active slot is recorded as b but a is"),
        "{reason}"
    );
    assert_eq!(bench.read("seen"), "");
    assert_eq!(bench.journal().read(), None);
    // What an earlier installation has left is not forgotten for that.
    bench.journal().applying("uuid-0");
    bench.take(bench.file(true)).unwrap_err();
    assert!(bench.journal().read().is_some());
}

#[test]
fn what_an_installer_leaves_is_noted_until_it_is_right() {
    let switch = "printf 'nerves_fw_active=b\nb.nerves_fw_uuid=uuid-1\n' > metadata";
    let failure = r"printf '\000\000\000\007ER\000\000bad'; exit 1";
    for (script, left) in [
        (format!("{switch}; {failure}"), Some((Stage::Applying, "b"))),
        (failure.to_owned(), None),
        (format!("{switch}; {OK}"), Some((Stage::Installed, "b"))),
        (OK.to_owned(), Some((Stage::Installed, "a"))),
    ] {
        let bench = Bench::fwup(&script);
        bench.record("a", "uuid-0");
        let result = bench.take(bench.file(true));
        let entry = bench.journal().read();
        let stage = entry.as_ref().map(|entry| entry.stage);
        assert_eq!(stage, left.map(|(stage, _)| stage), "{script}");
        let is_installed = stage == Some(Stage::Installed);
        assert_eq!(result.is_ok(), is_installed);
        let record = is_installed.then(|| Record {
            active: left.map(|(_, slot)| slot.to_owned()),
            uuid: left.map(|(_, slot)| format!("uuid-{}", u8::from(slot == "b"))),
            reverted: false,
        });
        assert_eq!(entry.and_then(|entry| entry.record), record, "{script}");
    }
}
