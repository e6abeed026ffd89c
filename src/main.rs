//! Command line to configuration, logging and exit code; nothing else.

use std::process::ExitCode;

use nerveshub_agent::agent::{self, StartError};
use nerveshub_agent::cli;
use nerveshub_agent::system::configure::{self, Environment};
use nerveshub_agent::system::thread::contain_panics;
use nerveshub_agent::{config, exit, logging};

const USAGE: &str = "\
Usage: nerveshub-agent [COMMAND]

Keeps this device connected to its NervesHub server and its firmware up to date.
Configured by environment variables; see `nerveshub-agent settings`.

Commands:
  run        Run the agent in the foreground (the default)
  check      Check settings, files, keys, fwup and metadata; touches nothing
  settings   List every setting with its default (--markdown for a table)

  validate        Mark the running firmware as good
  revert          Go back to the other slot's firmware
  prevent-revert  Make going back impossible
  factory-reset   Erase this device's data
  slots           Show what is in each slot (--json for programs)

Options:
  -h, --help     Print this help
  -V, --version  Print version and build

Example:
  NERVES_HUB_HOST=hub.example.com NERVES_HUB_PRODUCT_KEY=nhp_… \\
  NERVES_HUB_PRODUCT_SECRET_FILE=/etc/nerveshub/secret nerveshub-agent

Exit codes: 0 stopped as told or done, 64 bad command line, 69 not possible on
this device, 70 internal fault, 71 the system refused a resource or a reboot,
74 failed at writing, 78 bad configuration.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let code = match arguments[..] {
        [] | ["run"] => run(),
        ["check"] => {
            let (table, code) = cli::check::run(environment().into_iter());
            say(&table);
            code
        }
        [command, ref options @ ..] if cli::slots::knows(command) => {
            let answer = cli::slots::run(command, options, environment().into_iter());
            match answer.code {
                exit::OK => say(&answer.text),
                _ => eprint!("nerveshub-agent {command}: {}", answer.text),
            }
            answer.code
        }
        ["settings"] => print(&cli::settings::plain()),
        ["settings", "--markdown"] => print(&cli::settings::markdown()),
        ["-h" | "--help" | "help"] => print(&format!("{USAGE}\n{}", cli::settings::help())),
        ["-V" | "--version"] => print(&version()),
        [command @ ("run" | "check" | "settings"), "-h" | "--help"] => {
            print(&format!("nerveshub-agent {command}\n\n{USAGE}"))
        }
        _ => {
            eprintln!(
                "nerveshub-agent: no such command: {:?}; see nerveshub-agent --help",
                arguments.join(" ")
            );
            exit::USAGE
        }
    };
    ExitCode::from(code)
}

fn version() -> String {
    format!(
        "nerveshub-agent {} ({}, TLS by rustls with ring)\n",
        env!("CARGO_PKG_VERSION"),
        env!("BUILD_TARGET")
    )
}

/// The environment, and what the hook `configure` adds to it.
fn environment() -> Environment {
    let (environment, said) = configure::environment(std::env::vars_os());
    for line in said {
        eprintln!("nerveshub-agent: {line}");
    }
    environment
}

fn run() -> u8 {
    let (environment, said) = configure::environment(std::env::vars_os());
    let (config, warnings) = match config::parse(environment.clone().into_iter()) {
        Ok(parsed) => parsed,
        Err(errors) => {
            for line in said {
                eprintln!("{line}");
            }
            eprintln!("{errors}");
            return exit::CONFIG;
        }
    };
    logging::start(&config.log_filter, config.service.log);
    contain_panics();
    log::info!("{}", version().trim_end());
    for line in said.into_iter().chain(warnings) {
        log::warn!("{line}");
    }
    // Variables stay what they were at the start; the files they name are read again.
    let reread = move || config::parse(environment.clone().into_iter());
    match agent::run(config, Box::new(reread)) {
        Ok(()) => exit::OK,
        Err(StartError::Config(text)) => {
            log::error!("{text}");
            exit::CONFIG
        }
        Err(StartError::System(text)) => {
            log::error!("{text}");
            exit::OS_ERROR
        }
    }
}

fn print(text: &str) -> u8 {
    say(text);
    exit::OK
}

/// A reader that closed the pipe early (`| head`) is no reason to complain.
fn say(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
