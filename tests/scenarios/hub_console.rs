//! `hub console`: a person's terminal on a device's shell, from end to end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use devhub::Hub;
use devhub::catalog::Catalog;
use devhub::control::Control;
use nix::libc;
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use crate::rig::{self, IDENTIFIER, PATIENCE, within};
use crate::terminal::{PROMPT, Way, device};

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, Winsize);

fn hub_command() -> Command {
    let agent = Path::new(env!("CARGO_BIN_EXE_nerveshub-agent"));
    let hub = agent.with_file_name("hub");
    assert!(hub.exists(), "run cargo build --workspace --bins first");
    Command::new(hub)
}

/// A hub with its control port.
fn controlled() -> (Arc<Hub>, Control) {
    let hub = Arc::new(rig::hub().start());
    let catalog = Catalog::new(None, Default::default());
    let control = Control::start(hub.clone(), catalog, ([127, 0, 0, 1], 0).into());
    (hub, control.expect("control port"))
}

/// `hub console` on a terminal of its own.
struct Desk {
    child: Child,
    keyboard: File,
    slave: OwnedFd,
    screen: Receiver<Vec<u8>>,
    shown: String,
}

impl Desk {
    fn sit_down(control: &Control, options: &[&str]) -> Self {
        let size = window(24, 80);
        let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("pty");
        let end = || Stdio::from(slave.try_clone().expect("slave"));
        let mut command = hub_command();
        command
            .args(["console", IDENTIFIER, "--control"])
            .arg(control.address().to_string())
            .args(options)
            .stdin(end())
            .stdout(end())
            .stderr(end());
        let own_terminal = || {
            nix::unistd::setsid()?;
            // SAFETY: descriptor 0 is the terminal.
            match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: only system calls that are async-signal-safe.
        unsafe { command.pre_exec(own_terminal) };
        let child = command.spawn().expect("hub console");
        let keyboard = File::from(master);
        let mut screen = keyboard.try_clone().expect("master");
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            keyboard,
            slave,
            screen: receiver,
            shown: String::new(),
        }
    }

    fn keys(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("keys");
    }

    /// Waits until `text` is shown after what was expected before.
    fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("no {text:?} in {:?}", self.shown),
            }
        }
    }

    /// Line by line with echo, as a shell leaves it.
    fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("modes");
        let cooked = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
        modes.local_flags.contains(cooked)
    }

    fn wait(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let ended = within(PATIENCE, move || {
            use nix::sys::wait::{Id, WaitPidFlag, waitid};
            waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).is_ok()
        });
        assert!(ended, "hub console did not end");
        self.child.wait().expect("status")
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn window(rows: u16, cols: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

#[test]
fn a_person_works_on_a_device_as_if_in_front_of_it() {
    for (way, options) in [
        (Way::Console, &[][..]),
        (Way::LocalShell, &["--local-shell"]),
    ] {
        let (hub, control) = controlled();
        let device = device(&hub, &Way::BOTH);
        let agent = device.start();
        hub.expect_push("extensions", "local_shell:attached", |_| true);
        let mut desk = Desk::sit_down(&control, options);
        desk.expect("leave with Ctrl-]");
        desk.expect(PROMPT);
        assert!(!desk.is_cooked());
        desk.keys("stty size\r");
        desk.expect("24 80");
        desk.expect(PROMPT);
        let size = window(40, 120);
        // SAFETY: the descriptor is open and the structure outlives the call.
        unsafe { set_window_size(desk.keyboard.as_raw_fd(), &raw const size) }.expect("size");
        hub.expect_upgrades(1);
        agent.wait_log(&format!("{}: opened by the hub", shell_name(way)));
        desk.keys("while [ \"$(stty size)\" != '40 120' ]; do sleep 0.05; done; echo ca''me\r");
        desk.expect("came");
        desk.expect(PROMPT);
        // Ctrl-C goes to the device and not to this command.
        desk.keys("sleep 1000\r");
        desk.expect("sleep 1000");
        desk.keys("\u{3}");
        desk.expect(PROMPT);
        desk.keys("echo é~€\r");
        desk.expect("\r\né~€\r\n");
        desk.expect(PROMPT);
        desk.keys("~.");
        desk.expect(&format!("[left {IDENTIFIER}]"));
        assert!(desk.wait().success());
        assert!(desk.is_cooked());
        // Whoever comes later sees what was shown, and the shell is the same.
        let mut desk = Desk::sit_down(&control, options);
        desk.expect("é~€");
        desk.keys("\u{1d}");
        assert!(desk.wait().success());
    }
}

fn shell_name(way: Way) -> &'static str {
    match way {
        Way::Console => "console",
        Way::LocalShell => "local-shell",
    }
}

#[test]
fn the_terminal_is_restored_whatever_ends_the_command() {
    let (hub, control) = controlled();
    let device = device(&hub, &[Way::Console]);
    let _agent = device.start();
    hub.expect_join("console");
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let mut desk = Desk::sit_down(&control, &[]);
        desk.expect(PROMPT);
        assert!(!desk.is_cooked());
        let pid = Pid::from_raw(desk.child.id().cast_signed());
        kill(pid, signal).expect("signal");
        desk.wait();
        assert!(desk.is_cooked(), "{signal}");
    }
    // The hub goes away.
    let mut desk = Desk::sit_down(&control, &[]);
    desk.expect(PROMPT);
    hub.kill();
    desk.expect("has gone; waiting]");
    hub.restart();
    desk.expect("is back]");
    desk.keys("~.");
    desk.wait();
    assert!(desk.is_cooked());
}

#[test]
fn a_device_without_a_console_is_explained() {
    let (hub, control) = controlled();
    let device = device(&hub, &[]);
    let _agent = device.start();
    hub.expect_join("device");
    for (options, word) in [
        (&[][..], "NERVES_HUB_CONSOLE=1"),
        (&["--local-shell"], "NERVES_HUB_LOCAL_SHELL=1"),
    ] {
        let output = hub_command()
            .args(["console", IDENTIFIER, "--control"])
            .arg(control.address().to_string())
            .args(options)
            .output()
            .expect("hub console");
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn commands_can_be_piped_in() {
    let (hub, control) = controlled();
    let device = device(&hub, &[Way::Console]);
    let _agent = device.start();
    hub.expect_join("console");
    let mut child = hub_command()
        .args(["console", IDENTIFIER, "--control"])
        .arg(control.address().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("hub console");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(b"echo pi''ped\n").expect("keys");
    drop(stdin);
    let output = child.wait_with_output().expect("output");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("piped\r\n"));
}
