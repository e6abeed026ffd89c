//! Scripts as they really run.

use super::*;
use crate::system::channel::bounded;
use std::sync::Mutex;

const SECOND: Duration = Duration::from_secs(1);

/// Where one test's scripts run.
struct Bench {
    folder: tempfile::TempDir,
    site: Site,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = Site {
            interpreter: "/bin/sh".into(),
            folders: vec![folder.path().join("scripts")],
            environment: vec![("NERVES_HUB_DEVICE_IDENTIFIER", "device-1".to_owned())],
        };
        Self { folder, site }
    }

    fn run(&self, text: &str, limit: Duration) -> ScriptEnd {
        self.run_until(text, limit, &Cancel::new().unwrap())
    }

    fn run_until(&self, text: &str, limit: Duration, cancel: &Cancel) -> ScriptEnd {
        let text = text.to_owned();
        let (inbox, events) = bounded(1);
        let order = ScriptOrder { text, limit };
        run(ScriptId(1), &order, &self.site, cancel, &inbox).unwrap();
        let Ok(Event::ScriptEnded(ScriptId(1), end)) = events.try_recv() else {
            panic!("no answer");
        };
        assert_eq!(self.leftovers(), 0);
        end
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(&self.site.folders[0]).map_or(0, Iterator::count)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn exited(end: &ScriptEnd) -> (&str, i32) {
    match &end.how {
        ScriptHow::Exited(status) => (&end.output, *status),
        how => panic!("{how:?}: {}", end.output),
    }
}

/// Processes with this word in their arguments, zombies not included.
fn processes(word: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let with_word = entries.filter(|entry| {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(word)
    });
    with_word.count()
}

#[test]
fn both_outputs_come_in_order_with_the_status() {
    let bench = Bench::new();
    let end = bench.run("echo 1; echo 2 >&2; echo 3; exit 4", 10 * SECOND);
    assert_eq!(exited(&end), ("1\n2\n3\n", 4));
    let end = bench.run("kill -SEGV $$", 10 * SECOND);
    assert_eq!(end.how, ScriptHow::Killed(11));
}

#[test]
fn a_script_runs_by_its_own_interpreter_or_the_site_s() {
    let mut bench = Bench::new();
    let python = "#!/usr/bin/env python3\nimport sys\nprint(sys.argv[1:], 6 * 7)";
    assert_eq!(exited(&bench.run(python, 10 * SECOND)), ("[] 42\n", 0));
    let with_argument = "#!/bin/sh -e\nfalse\necho not here";
    assert_eq!(exited(&bench.run(with_argument, 10 * SECOND)), ("", 1));
    let from_a_form = "if true\r\nthen echo yes\r\nfi\r\n";
    assert_eq!(exited(&bench.run(from_a_form, 10 * SECOND)), ("yes\n", 0));
    bench.site.interpreter = "/bin/cat".into();
    assert_eq!(exited(&bench.run("itself", 10 * SECOND)), ("itself", 0));
    let end = bench.run("#!/no/such\n", 10 * SECOND);
    let ScriptHow::Failed(reason) = end.how else {
        panic!("{end:?}");
    };
    assert!(reason.contains("/no/such does not start"), "{reason}");
}

#[test]
fn a_script_finds_its_surroundings_and_no_secret() {
    let bench = Bench::new();
    let text = "cat; echo $NERVES_HUB_DEVICE_IDENTIFIER; pwd; ls -l /proc/self/fd | wc -l; \
                stat -c %a $0";
    let end = bench.run(text, 10 * SECOND);
    // Beside the standard ones, `ls` has the folder open.
    assert_eq!(exited(&end), ("device-1\n/\n5\n700\n", 0));
}

#[test]
fn at_the_deadline_everything_dies_and_what_was_printed_is_told() {
    let bench = Bench::new();
    let mark = format!("31{}", std::process::id());
    let text = format!(
        "trap '' TERM HUP INT; echo begun; sleep {mark}1 & (sleep {mark}2 &) ; \
         nohup sleep {mark}3 & while :; do sleep 1; done"
    );
    let begin = Instant::now();
    let end = bench.run(&text, SECOND);
    assert_eq!(end.how, ScriptHow::TimedOut);
    assert!(end.output.starts_with("begun"), "{}", end.output);
    assert!(begin.elapsed() < 3 * SECOND, "{:?}", begin.elapsed());
    assert_eq!(processes(&mark), 0);
}

#[test]
fn what_a_script_leaves_running_ends_with_it_unless_it_left_the_session() {
    let bench = Bench::new();
    let (mine, own) = (
        format!("32{}", std::process::id()),
        format!("33{}", std::process::id()),
    );
    let text = format!(
        "sleep {mine} & setsid sleep {own} > /dev/null 2>&1 & \
         until grep -qs {own} /proc/[0-9]*/cmdline; do :; done; echo done"
    );
    let begin = Instant::now();
    assert_eq!(exited(&bench.run(&text, 20 * SECOND)), ("done\n", 0));
    assert!(begin.elapsed() < 10 * SECOND);
    assert_eq!((processes(&mine), processes(&own)), (0, 1));
    let text = format!("pkill -x -f 'sleep {own}'");
    assert_eq!(exited(&bench.run(&text, 10 * SECOND)).1, 0);
}

#[test]
fn hundreds_of_processes_die_at_the_deadline() {
    let bench = Bench::new();
    // Each has left the group and puts another in its place all the time; bounded in number
    // and, should this fail, in time.
    let text = "#!/usr/bin/env python3\n\
         import os, signal, time\n\
         signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
         end = time.time() + 30\n\
         for n in range(120):\n\
         \x20   if os.fork() == 0:\n\
         \x20       os.setpgid(0, 0)\n\
         \x20       while time.time() < end:\n\
         \x20           time.sleep(0.2)\n\
         \x20           if os.fork() != 0: os._exit(0)\n\
         \x20       os._exit(0)\n\
         print('all there', flush=True)\n\
         time.sleep(60)";
    let begin = Instant::now();
    let end = bench.run(text, 5 * SECOND);
    assert_eq!(end.how, ScriptHow::TimedOut);
    assert_eq!(end.output, "all there\n");
    assert!(begin.elapsed() < 12 * SECOND, "{:?}", begin.elapsed());
    let script = bench.site.folders[0].join("script-");
    assert_eq!(processes(script.to_str().unwrap()), 0);
}

#[test]
fn a_flood_is_counted_and_cut_and_does_not_stop_the_script() {
    let bench = Bench::new();
    let end = bench.run(
        "head -c 1000000 /dev/zero | tr '\\0' x; exit 7",
        10 * SECOND,
    );
    let (output, status) = exited(&end);
    assert_eq!(status, 7);
    assert!(output.starts_with(&"x".repeat(OUTPUT_MAX)));
    assert!(
        output.ends_with("[output cut: 1000000 bytes were printed, the first 65536 are above]"),
        "{}",
        &output[OUTPUT_MAX..]
    );
    let end = bench.run("yes", SECOND / 2);
    assert_eq!(end.how, ScriptHow::TimedOut);
    assert!(end.output.len() < OUTPUT_MAX + 200);
}

#[test]
fn a_cancelled_script_ends_at_once() {
    let bench = Bench::new();
    let (cancel, begin) = (Cancel::new().unwrap(), Instant::now());
    let pid = bench.path("pid");
    let end = Mutex::new(None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let text = format!("echo $$ > {}; sleep 100", pid.display());
            *end.lock().unwrap() = Some(bench.run_until(&text, 60 * SECOND, &cancel));
        });
        while fs::read_to_string(&pid).unwrap_or_default().is_empty() {
            assert!(begin.elapsed() < 20 * SECOND);
            std::thread::yield_now();
        }
        cancel.cancel();
    });
    assert!(begin.elapsed() < 30 * SECOND);
    let end = end.into_inner().unwrap().unwrap();
    assert!(matches!(end.how, ScriptHow::Failed(_)), "{end:?}");
}

#[test]
fn folders_that_are_not_private_are_not_used_and_the_next_one_is() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let mut bench = Bench::new();
    let elsewhere = bench.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let link = bench.path("link");
    symlink(&elsewhere, &link).unwrap();
    let open = bench.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let file = bench.path("file");
    fs::write(&file, "").unwrap();
    let good = bench.path("good");
    bench.site.folders = vec![link, open.clone(), file.join("scripts")];
    let end = bench.run("echo", 10 * SECOND);
    let ScriptHow::Failed(reason) = &end.how else {
        panic!("{end:?}");
    };
    assert!(reason.contains("no place for the script"), "{reason}");
    bench.site.folders.push(good.clone());
    let end = bench.run("echo $0", 10 * SECOND);
    assert!(exited(&end).0.starts_with(good.to_str().unwrap()));
    for folder in [elsewhere, open] {
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    }
    let mode = fs::metadata(&good).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn what_an_earlier_run_left_is_removed() {
    let bench = Bench::new();
    bench.run("echo", 10 * SECOND);
    let left = bench.site.folders[0].join("script-1-1");
    fs::write(&left, "secret").unwrap();
    tidy(&bench.site);
    assert!(!left.exists());
}
