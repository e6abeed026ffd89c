//! `nerveshub-agent log`: lines to the hub's log, from the command line or standard input.

use std::io::{BufRead, Read};

use super::client::{Client, PATIENCE};
use super::{Answer, Call, Command};
use crate::exit;
use crate::wire::json::json;

/// Longest line sent in one piece: more would be cut.
const LINE_MAX: u64 = 8 * 1024;

pub(super) const COMMAND: Command = Command {
    name: "log",
    summary: "Send lines to the hub's log",
    help: "\
Usage: nerveshub-agent log [--level LEVEL] TEXT…
       nerveshub-agent log [--level LEVEL] -

Sends a line to the hub, or with - each line of standard input, when the
extension logging is enabled. LEVEL is error, warning, notice, info (the
default) or debug. Lines wait in the agent while the hub is away.

Examples:
  nerveshub-agent log --level warning 'door left open'
  my-app 2>&1 | nerveshub-agent log -
",
    run,
};

fn run(call: &mut Call) -> Answer {
    let (level, text) = match call.options {
        ["--level", level, text @ ..] => (*level, text),
        text => ("info", text),
    };
    let sent = match text {
        [] => return call.refuse(),
        ["-"] => send(call, level, &mut std::io::stdin().lock()),
        [option, ..] if option.starts_with("--") => return call.refuse(),
        words => send(call, level, &mut words.join(" ").as_bytes()),
    };
    match sent {
        Ok(()) => Answer::silent(exit::OK),
        Err(answer) => answer,
    }
}

fn send(call: &Call, level: &str, lines: &mut dyn BufRead) -> Result<(), Answer> {
    let mut client = Client::connect(&call.env)?;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = Read::take(&mut *lines, LINE_MAX).read_until(b'\n', &mut line);
        let length =
            read.map_err(|error| Answer::new(exit::NO_INPUT, format!("standard input: {error}")))?;
        if length == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() {
            let params = json!({"level": level, "message": text});
            client.ask("log", params, PATIENCE)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};
    use std::os::unix::net::UnixListener;

    use serde_json::{Value, json};

    use super::*;
    use crate::wire::control::hello;

    /// What an agent is asked by a command with these options.
    fn asked(options: &[&str], lines: Option<&[u8]>) -> Vec<Value> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).expect("socket");
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.write_all(hello("a", "d").as_bytes()).expect("said");
            let mut asked = Vec::new();
            for line in BufReader::new(stream.try_clone().expect("twin")).lines() {
                let request: Value = serde_json::from_str(&line.expect("line")).expect("JSON");
                let answer = json!({"id": request["id"], "result": {"queued": true}});
                writeln!(stream, "{answer}").expect("answered");
                asked.push(request);
            }
            asked
        });
        let env = [("NERVES_HUB_CONTROL_SOCKET".into(), path.into_os_string())];
        let mut call = Call {
            name: "log",
            options,
            help: COMMAND.help,
            env: env.to_vec(),
        };
        match lines {
            Some(mut lines) => send(&call, "error", &mut lines).expect("sent"),
            None => assert_eq!(run(&mut call).code, exit::OK),
        }
        agent.join().expect("no panic")
    }

    fn params(asked: &[Value]) -> Vec<&Value> {
        assert!(asked.iter().all(|request| request["method"] == "log"));
        asked.iter().map(|request| &request["params"]).collect()
    }

    #[test]
    fn words_are_a_line_and_each_line_of_input_is_one() {
        let one = asked(&["door", "open"], None);
        assert_eq!(
            params(&one),
            [&json!({"level": "info", "message": "door open"})]
        );
        let two = asked(&["--level", "warning", "x"], None);
        assert_eq!(params(&two), [&json!({"level": "warning", "message": "x"})]);
        let several = asked(&[], Some(b"one\r\n\ntw\xff\nend"));
        let messages: Vec<_> = params(&several).iter().map(|p| &p["message"]).collect();
        assert_eq!(messages, ["one", "tw\u{fffd}", "end"]);
        assert_eq!(several[0]["params"]["level"], "error");
        let long = asked(&[], Some(&[b'x'; 10_000]));
        assert_eq!(long.len(), 2);
    }

    #[test]
    fn nothing_to_say_is_refused() {
        for options in [
            &[][..],
            &["--level"],
            &["--level", "info"],
            &["--loud", "x"],
        ] {
            let mut call = Call {
                name: "log",
                options,
                help: COMMAND.help,
                env: vec![],
            };
            assert_eq!(run(&mut call).code, exit::USAGE, "{options:?}");
        }
    }
}
