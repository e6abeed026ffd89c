//! The command line: one table of commands, each a thin front of something else. None
//! touches the network.

pub mod agent;
pub mod apply;
pub mod check;
pub mod client;
pub mod daemon;
pub mod health;
pub mod log;
pub mod send_file;
pub mod settings;
pub mod slots;
pub mod status;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;

use crate::exit;
use crate::system::configure;

/// One command.
pub struct Command {
    pub name: &'static str,
    /// For the list in `--help`.
    pub summary: &'static str,
    /// Usage, what it does, options, examples.
    pub help: &'static str,
    pub run: fn(&mut Call) -> Answer,
}

/// All of them, by heading.
const COMMANDS: [(&str, &[Command]); 3] = [
    ("Commands", &agent::COMMANDS),
    ("Commands to the running agent", &daemon::COMMANDS),
    ("Firmware slots", &slots::COMMANDS),
];

/// How a command was called.
pub struct Call<'a> {
    pub name: &'a str,
    pub options: &'a [&'a str],
    pub help: &'static str,
    pub env: Vec<(OsString, OsString)>,
}

/// What to print, to standard output when the code is 0, and the exit code.
#[derive(Debug)]
pub struct Answer {
    pub text: String,
    pub code: u8,
}

impl Answer {
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Self { text, code }
    }

    /// All has been said.
    pub fn silent(code: u8) -> Self {
        Self::new(code, "")
    }
}

impl Call<'_> {
    /// The environment with what the hook `configure` adds to it, and what is to be said
    /// about that. Takes as long as the hook does.
    pub fn configure(&mut self) -> Vec<String> {
        let given = std::mem::take(&mut self.env);
        let (environment, said) = configure::environment(given.into_iter());
        self.env = environment;
        said
    }

    /// The same, for a command that has no log.
    pub fn configure_aloud(&mut self) {
        for line in self.configure() {
            eprintln!("nerveshub-agent: {line}");
        }
    }

    /// The command line makes no sense.
    pub fn refuse(&self) -> Answer {
        let given = self.options.join(" ");
        let text = match given.is_empty() {
            true => "needs more".to_owned(),
            false => format!("cannot take {given:?}"),
        };
        let text = format!("{text}; see nerveshub-agent --help\n\n{}", self.help);
        Answer::new(exit::USAGE, text)
    }
}

/// Prints now. False when nobody reads any more (`| head`), which is no reason to complain.
fn say(text: &str) -> bool {
    let mut out = std::io::stdout();
    let written = out.write_all(text.as_bytes());
    written.and_then(|()| out.flush()).is_ok()
}

const USAGE: &str = "\
Usage: nerveshub-agent [COMMAND]

Keeps this device connected to its NervesHub server and its firmware up to date.
Configured by environment variables; see `nerveshub-agent settings`.
";

const NOTES: &str = "
Options:
  -h, --help     Print this help; after a command, that command's
  -V, --version  Print version and build

Example:
  NERVES_HUB_HOST=hub.example.com NERVES_HUB_PRODUCT_KEY=nhp_… \\
  NERVES_HUB_PRODUCT_SECRET_FILE=/etc/nerveshub/secret nerveshub-agent

Exit codes: 0 stopped as told or done, 1 no (connected), 64 bad command line, 66
no such file, 69 not possible on this device or no agent running, 70 internal
fault, 71 the system refused a resource or a reboot, 74 failed at writing, 75
not now, 77 no permission, 78 bad configuration.
";

fn usage() -> String {
    let mut text = USAGE.to_owned();
    for (heading, commands) in COMMANDS {
        let _ = writeln!(text, "\n{heading}:");
        for command in commands {
            let _ = writeln!(text, "  {:15} {}", command.name, command.summary);
        }
    }
    text + NOTES
}

/// Runs the command line and prints what it answers; the exit code.
pub fn run(arguments: &[&str], env: Vec<(OsString, OsString)>) -> u8 {
    let name = arguments.first().copied().unwrap_or("run");
    let options = arguments.get(1..).unwrap_or_default();
    let mut commands = COMMANDS.into_iter().flat_map(|(_, commands)| commands);
    let found = commands.find(|command| command.name == name);
    let answer = match (found, name, options) {
        (_, "-h" | "--help" | "help", []) => {
            Answer::new(exit::OK, format!("{}\n{}", usage(), settings::help()))
        }
        (_, "-V" | "--version", []) => Answer::new(exit::OK, agent::version()),
        (Some(command), _, ["-h" | "--help"]) => Answer::new(exit::OK, command.help),
        (Some(command), ..) => (command.run)(&mut Call {
            name,
            options,
            help: command.help,
            env,
        }),
        (None, ..) => {
            let given = arguments.join(" ");
            let text = format!("no such command: {given:?}; see nerveshub-agent --help");
            Answer::new(exit::USAGE, text)
        }
    };
    match (answer.code, answer.text.as_str()) {
        (_, "") => {}
        (exit::OK, text) => drop(say(text)),
        (_, text) if found.is_some() => eprint!("nerveshub-agent {name}: {text}"),
        (_, text) => eprint!("nerveshub-agent: {text}"),
    }
    answer.code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_help_with_an_example_and_a_place_in_the_list() {
        let list = usage();
        for command in COMMANDS.into_iter().flat_map(|(_, commands)| commands) {
            let usage = format!("Usage: nerveshub-agent {}", command.name);
            assert!(command.help.starts_with(&usage), "{}", command.name);
            assert!(command.help.contains("\nExample"), "{}", command.name);
            assert!(list.contains(&format!("\n  {:15} ", command.name)));
            for line in command.help.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
        for line in list.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
