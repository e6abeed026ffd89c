//! The command: what the options ask for, in their order, and how it ends.

use std::io::Read;

use base64::Engine;

use crate::VERSION;
use crate::apply::{self, Request};
use crate::failure::{Failure, Result, fail, os_text};
use crate::input::Input;
use crate::meta::{self, PublicKey};
use crate::options::{Item, split};
use crate::output::{Kind, Mode, Reporter, raw};
use crate::verify;

const MOST_KEYS: usize = 10;
const USAGE: &str = "\
fwup-standin behaves as fwup does when it applies firmware updates, for tests and demos.

Usage: fwup-standin [OPTION]...

  -a, --apply              Apply the firmware update (needs -t and -d)
  -d <file>                The device or image file to write
  -i <input.fw>            The firmware update (stdin when absent or -)
  -t, --task <task>        The task to apply: the first whose name begins so
  -p, --public-key-file <file>, --public-key <key>
                           A key the update may be signed with (repeatable)
  -F, --framing            Length-prefixed frames on stdin and stdout
  -n                       Numeric progress
  -q, --quiet              No progress
  --progress-low <n>, --progress-high <n>
                           The range progress is shown in
  --exit-handshake         Send Ctrl+Z and the status at the end, wait for stdin to close
  -U, --no-unmount, -u, --unmount, -E, --eject, --no-eject, -y, -v, --enable-trim,
  --minimize-writes, --no-minimize-writes
                           Accepted; the stand-in neither mounts nor trims
  --verify-writes, --no-verify-writes
                           Read back what was written
  --max-size <blocks>      The end of the destination
  --unsafe                 Allow execute and path_write
  --reboot-param-path <path>
                           Where reboot_param writes
  -l, --list               List the tasks
  -m, --metadata           Print the metadata
  --metadata-key <key>     Print one key of it only
  -V, --verify             Check a firmware update (needs -i)
  --version                Print the version
  -h, --help               Print this
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Apply,
    List,
    Metadata,
    Verify,
    Unsupported(&'static str),
}

/// What the options have said so far.
#[derive(Debug)]
struct State {
    action: Option<Action>,
    request: Request,
    reporter: Reporter,
    quiet: bool,
    numeric: bool,
    handshake: bool,
    /// Nothing but an archive to apply, and how, has been named.
    easy: bool,
    has_task: bool,
    has_device: bool,
    metadata_key: Option<String>,
    low: i64,
    high: i64,
}

/// How a run ends before its work: with a status, or with a failure to report.
enum Stop {
    Status(i32),
    Failure(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failure(failure)
    }
}

/// Runs the command with its whole command line; gives back the exit status.
pub fn run(args: Vec<String>) -> i32 {
    let program = args.first().cloned().unwrap_or_default();
    let args = args.get(1..).unwrap_or_default();
    let mut state = State {
        action: None,
        request: Request::default(),
        reporter: Reporter::default(),
        quiet: false,
        numeric: false,
        handshake: false,
        easy: true,
        has_task: false,
        has_device: false,
        metadata_key: None,
        low: 0,
        high: 100,
    };
    let outcome = if args.is_empty() {
        Err(usage(1))
    } else {
        parse(&mut state, &program, args).and_then(|()| act(&mut state))
    };
    let status = match outcome {
        Ok(()) => 0,
        Err(Stop::Status(status)) => status,
        Err(Stop::Failure(failure)) => {
            state.reporter.error(&failure.0);
            1
        }
    };
    if state.handshake {
        raw(&[0x1a, status as u8]);
        let mut sink = std::io::sink();
        // The other side closes when it has seen the status; an error means it is gone already.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut sink);
    }
    status
}

fn usage(status: i32) -> Stop {
    raw(USAGE.as_bytes());
    Stop::Status(status)
}

fn parse(state: &mut State, program: &str, args: &[String]) -> std::result::Result<(), Stop> {
    let (items, mut rest) = split(args);
    for item in items {
        match item {
            Item::Option(name, value) => {
                option(state, &name, value.unwrap_or_default())?;
            }
            Item::Bad(text) => {
                eprintln!("{program}: {text}");
                return Err(usage(1));
            }
        }
    }
    if state.quiet && state.numeric {
        fail("pick either -n or -q, but not both")?;
    }
    if state.easy && rest.len() == 1 {
        state.action = Some(Action::Apply);
        state.request.input = rest.pop();
        if !state.has_task {
            state.has_task = true;
            state.request.task = "complete".to_string();
        }
    }
    if let Some(first) = rest.first() {
        fail(format!("unexpected parameter: {first}"))?;
    }
    if state.request.input.as_deref() == Some("-") {
        state.request.input = None;
    }
    Ok(())
}

fn option(state: &mut State, name: &str, value: String) -> std::result::Result<(), Stop> {
    let request = &mut state.request;
    match name {
        "d" => (state.has_device, request.device) = (true, value),
        "t" => (state.has_task, request.task) = (true, value),
        "n" => state.numeric = true,
        "q" => state.quiet = true,
        "h" => return Err(usage(0)),
        "version" => {
            raw(format!("{VERSION}\n").as_bytes());
            return Err(Stop::Status(0));
        }
        // What is written, and when, does not depend on these here.
        "u" | "U" | "E" | "y" | "v" | "no-eject" | "minimize-writes" | "no-minimize-writes"
        | "sparse-check-size" => {}
        digit if digit.len() == 1 && digit.as_bytes()[0].is_ascii_digit() => {}
        "unsafe" => request.allow_unsafe = true,
        "enable-trim" => request.trim = true,
        "exit-handshake" => state.handshake = true,
        "verify-writes" => request.verify_writes = Some(true),
        "no-verify-writes" => request.verify_writes = Some(false),
        "max-size" => request.max_size = crate::conf::parse_number(&value).unwrap_or(0),
        "metadata-key" => state.metadata_key = Some(value),
        "progress-low" => state.low = value.parse().unwrap_or(0),
        "progress-high" => state.high = value.parse().unwrap_or(0),
        "reboot-param-path" => request.reboot_param_path = Some(value),
        "public-key" => return Ok(add_key(state, || parse_key(&value))?),
        "D" => return Err(Stop::Status(0)),
        "Z" => return Err(usage(1)),
        "z" => return Err(no_cards()),
        other => return action_option(state, other, value),
    }
    Ok(())
}

/// Options after which a bare archive name is no longer enough.
fn action_option(state: &mut State, name: &str, value: String) -> std::result::Result<(), Stop> {
    state.easy = false;
    let framing = state.reporter.framing;
    match name {
        "a" => state.action = Some(Action::Apply),
        "l" => state.action = Some(Action::List),
        "m" => state.action = Some(Action::Metadata),
        "V" => state.action = Some(Action::Verify),
        "c" => state.action = Some(Action::Unsupported("--create")),
        "g" => state.action = Some(Action::Unsupported("--gen-keys")),
        "S" => state.action = Some(Action::Unsupported("--sign")),
        "sparse-check" => state.action = Some(Action::Unsupported("--sparse-check")),
        "F" => state.reporter.framing = true,
        "i" => state.request.input = Some(value),
        "p" => return Ok(add_key(state, || load_key(&value, framing))?),
        // -f, -o, -s and --private-key only matter to what the stand-in does not do.
        _ => {}
    }
    Ok(())
}

fn add_key(state: &mut State, load: impl FnOnce() -> Result<PublicKey>) -> Result<()> {
    if state.request.keys.len() >= MOST_KEYS {
        state.reporter.info(&format!(
            "Ignoring public key since only {MOST_KEYS} supported"
        ));
        return Ok(());
    }
    state.request.keys.push(load()?);
    Ok(())
}

fn parse_key(text: &str) -> Result<PublicKey> {
    match decode_key(text.as_bytes()) {
        Some(key) => Ok(key),
        None => fail("Error decoding public key"),
    }
}

fn load_key(path: &str, framing: bool) -> Result<PublicKey> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) => {
            let text = format!("Error opening public key file '{path}'");
            // The reason is for people only: frames go without.
            return fail(match framing {
                true => text,
                false => format!("{text}: {}", os_text(&error)),
            });
        }
    };
    let mut bytes = Vec::new();
    let read = file.by_ref().take(44).read_to_end(&mut bytes);
    match read.ok().and_then(|_| decode_key(&bytes)) {
        Some(key) => Ok(key),
        None => fail(format!(
            "Error reading or decoding public key from file '{path}'"
        )),
    }
}

/// 32 raw bytes, or base64 of them with or without padding.
fn decode_key(bytes: &[u8]) -> Option<PublicKey> {
    if let Ok(raw) = bytes.try_into() {
        return Some(raw);
    }
    let text = std::str::from_utf8(bytes.get(..43)?).ok()?;
    let decoded = base64::engine::general_purpose::STANDARD_NO_PAD.decode(text);
    decoded.ok()?.try_into().ok()
}

fn no_cards() -> Stop {
    Stop::Failure(Failure(
        "No memory cards found. Try reinserting the card.".to_string(),
    ))
}

fn act(state: &mut State) -> std::result::Result<(), Stop> {
    let path = state.request.input.as_deref();
    let label = path.unwrap_or("(null)");
    let (keys, framing) = (&state.request.keys, state.reporter.framing);
    match state.action {
        None => fail("specify one of -a, -c, -l, -m, -S, -V, or -z")?,
        Some(Action::Apply) => return apply_task(state),
        Some(Action::List) => {
            let conf = meta::open_for_metadata(Input::open(path, framing)?, label, keys)?;
            meta::print_tasks(&conf, &state.reporter);
        }
        Some(Action::Metadata) => {
            let conf = meta::open_for_metadata(Input::open(path, framing)?, label, keys)?;
            meta::print_metadata(&conf, state.metadata_key.as_deref(), &state.reporter);
        }
        Some(Action::Verify) => verify::verify(path, keys, &state.reporter)?,
        Some(Action::Unsupported(name)) => {
            fail(format!("fwup-standin does not implement {name}"))?;
        }
    }
    Ok(())
}

fn apply_task(state: &mut State) -> std::result::Result<(), Stop> {
    if !state.has_task {
        fail("specify a task (-t)")?;
    }
    if !state.has_device {
        return Err(no_cards());
    }
    let reporter = &mut state.reporter;
    reporter.mode = match (state.quiet, reporter.framing, state.numeric) {
        (true, _, _) => Mode::Off,
        (false, true, _) => Mode::Framing,
        (false, false, true) => Mode::Numeric,
        (false, false, false) => Mode::Normal,
    };
    reporter.start(state.low, state.high);
    let destination = apply::open_destination(&state.request, reporter)?;
    if let Err(failure) = apply::apply(&state.request, destination, reporter) {
        if !state.quiet {
            eprintln!();
        }
        return Err(failure.into());
    }
    reporter.output(Kind::Success, 0, "");
    Ok(())
}
