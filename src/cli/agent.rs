//! `nerveshub-agent run`, `check` and `settings`: the agent itself and what it is told.

use super::{Answer, Call, Command, check, say, settings};
use crate::agent::{self, StartError};
use crate::system::thread::contain_panics;
use crate::{config, exit, logging};

pub(super) const COMMANDS: [Command; 3] = [
    Command {
        name: "run",
        summary: "Run the agent in the foreground (the default)",
        help: "\
Usage: nerveshub-agent run

Runs until told to stop (SIGTERM). SIGHUP: reads certificates, keys and secrets
in files again and reconnects; SIGUSR1: logs a status line.

Example:
  NERVES_HUB_HOST=hub.example.com NERVES_HUB_PRODUCT_KEY=nhp_… \\
  NERVES_HUB_PRODUCT_SECRET_FILE=/etc/nerveshub/secret nerveshub-agent run
",
        run: |call| match call.options {
            [] => run(call),
            _ => call.refuse(),
        },
    },
    Command {
        name: "check",
        summary: "Check settings, files, keys, fwup and metadata",
        help: "\
Usage: nerveshub-agent check

Checks settings, files, keys, fwup, firmware metadata and write access. Opens
nothing for writing. Exits with 78 when something is wrong.

Example, with the agent's settings:
  set -a; . /etc/default/nerveshub-agent; nerveshub-agent check
",
        run: |call| match call.options {
            [] => {
                call.configure_aloud();
                let (table, code) = check::run(std::mem::take(&mut call.env).into_iter());
                say(&table);
                Answer::silent(code)
            }
            _ => call.refuse(),
        },
    },
    Command {
        name: "settings",
        summary: "List every setting with its default (--markdown for a table)",
        help: "\
Usage: nerveshub-agent settings [--markdown]

Lists every setting with its default and meaning.

  --markdown  As the tables in the README

Example:
  nerveshub-agent settings | grep RECONNECT
",
        run: |call| match call.options {
            [] => Answer::new(exit::OK, settings::plain()),
            ["--markdown"] => Answer::new(exit::OK, settings::markdown()),
            _ => call.refuse(),
        },
    },
];

/// Name, version, target and what was built in.
pub fn version() -> String {
    format!(
        "nerveshub-agent {} ({}, TLS by rustls with ring, JSON and MessagePack, \
         updates by streaming, caching and parts)\n",
        env!("CARGO_PKG_VERSION"),
        env!("BUILD_TARGET")
    )
}

fn run(call: &mut Call) -> Answer {
    let said = call.configure();
    let environment = std::mem::take(&mut call.env);
    let (config, warnings) = match config::parse(environment.clone().into_iter()) {
        Ok(parsed) => parsed,
        Err(errors) => {
            for line in said {
                eprintln!("{line}");
            }
            eprintln!("{errors}");
            return Answer::silent(exit::CONFIG);
        }
    };
    #[cfg(feature = "ext-logging")]
    crate::extensions::logging::own::listen(&config.extensions);
    logging::start(&config.log_filter, config.service.log);
    contain_panics();
    info!("{}", version().trim_end());
    for line in said.into_iter().chain(warnings) {
        warn!("{line}");
    }
    // Variables stay what they were at the start; the files they name are read again.
    let reread = move || config::parse(environment.clone().into_iter());
    let (text, code) = match agent::run(config, Box::new(reread)) {
        Ok(()) => return Answer::silent(exit::OK),
        Err(StartError::Config(text)) => (text, exit::CONFIG),
        Err(StartError::System(text)) => (text, exit::OS_ERROR),
        Err(StartError::Busy(text)) => (text, exit::TRY_AGAIN),
    };
    error!("{text}");
    Answer::silent(code)
}
