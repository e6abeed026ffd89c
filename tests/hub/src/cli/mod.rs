//! The command line: which command, its help, and the arguments all of them share.

mod console;
mod escape;
mod operator;
mod remote;
mod serve;
mod state_dir;

use lexopt::prelude::*;

const HELP: &str = "\
hub - a development hub for NervesHub device agents

Usage: hub COMMAND [OPTIONS]

Run a hub:
  serve                       run a hub in the foreground and log what devices do
  cert NAME                   make a client certificate (for serve --mtls)

Drive a running hub:
  devices [DEVICE]            list devices, or show one
  firmware                    list the firmware a hub can offer
  offer DEVICE FILE.fw        offer an update
  deploy FILE.fw | --none     offer to every device that joins with other firmware
  reboot DEVICE               ask for a reboot
  identify DEVICE             ask the device to show itself
  script DEVICE FILE|TEXT     run a support script and print what it printed
  upload DEVICE FILE          send a file to the device's console
  push DEVICE TOPIC EVENT [JSON]
                              push anything
  console DEVICE [--local-shell]
                              put this terminal on the device's console or local
                              shell; leave with Ctrl-], or ~. on a line of its own
  crash DEVICE TOPIC          let the server's side of a channel crash
  close DEVICE [CODE]         close the connection (1000)
  transcript [--follow]       show every frame and event so far

  --control ADDR              where the hub's control port is [127.0.0.1:4001]

hub COMMAND --help tells more. Nothing here is safe for production.";

const SERVE_HELP: &str = "\
Usage: hub serve [OPTIONS]

  --listen ADDR               device socket [127.0.0.1:4000]
  --firmware-listen ADDR      firmware downloads [127.0.0.1:4002]
  --control ADDR              JSON control port [127.0.0.1:4001]
  --host NAME                 name devices reach this machine by; goes into the
                              certificate and the firmware URLs
  --tls                       TLS, with a CA made in --state
  --tls12                     the same, TLS 1.2 only
  --mtls                      also accept client certificates of a CA in --state
  --mtls-ca FILE              also accept client certificates of this CA (PEM)
  --state DIR                 keeps CAs and certificates [.hub]
  --product-key KEY           product key, nhp_... [nhp_development]
  --product-secret SECRET     its secret [development-secret]
  --device-key KEY:SECRET:ID  key of a single device; may be repeated
  --firmware DIR              folder of .fw files on offer
  --uuid FILE=UUID            uuid for a file that does not tell its own
  --offer FILE.fw             offer to every device that runs other firmware
  --public-key KEY            firmware and archive key sent to devices that ask;
                              may be repeated
  --no-extensions             never ask for extensions
  --idle-timeout SECONDS      silence after which a device is closed [180]
  --clock-offset SECONDS      the server's clock is ahead by that much [0]

Prints the settings an agent needs, then one line per frame and event.";

const CERT_HELP: &str = "\
Usage: hub cert NAME [--state DIR]

Makes DIR/NAME.crt and DIR/NAME.key, a client certificate for the device NAME, signed by
the CA that `hub serve --mtls --state DIR` accepts. DIR is .hub unless given.";

/// Reads the command line and carries it out.
pub fn run() -> Result<(), String> {
    let mut parser = lexopt::Parser::from_env();
    let command = match parser.next().map_err(text)? {
        Some(Value(command)) => command.string().map_err(text)?,
        Some(Short('h') | Long("help")) | None => return say(HELP),
        Some(other) => return Err(unexpected(other)),
    };
    match command.as_str() {
        "help" => say(HELP),
        "serve" => serve::run(parser),
        "cert" => state_dir::cert(parser),
        other => remote::run(other, parser),
    }
}

/// Prints help.
fn say(help: &str) -> Result<(), String> {
    println!("{help}");
    Ok(())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn unexpected(argument: lexopt::Arg) -> String {
    format!("{}; see hub --help", argument.unexpected())
}
