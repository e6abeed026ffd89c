//! The other end of the control socket, for the commands: connects, asks, and puts what can
//! go wrong into words and exit codes.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Answer;
use crate::wire::control::{PROTOCOL, line};
use crate::wire::json::json;
use crate::{config, exit};

/// The agent answers within this; where it takes longer, the command says so.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the running agent.
pub struct Client {
    stream: BufReader<UnixStream>,
    /// What came of a line so far.
    partial: Vec<u8>,
    last_id: u64,
}

impl Client {
    /// # Errors
    /// What to tell who called: no agent, no permission, another protocol.
    pub fn connect(env: &[(OsString, OsString)]) -> Result<Self, Answer> {
        let settings = config::control_socket(env.to_vec());
        let settings = settings.map_err(|errors| Answer::new(exit::CONFIG, errors.to_string()))?;
        let Some(settings) = settings else {
            let text = "NERVES_HUB_CONTROL_SOCKET is off: the agent cannot be asked";
            return Err(Answer::new(exit::UNAVAILABLE, text));
        };
        let path = settings.path;
        let stream = UnixStream::connect(&path).map_err(|error| absent(&path, &error))?;
        let mut client = Self {
            stream: BufReader::new(stream),
            partial: Vec::new(),
            last_id: 0,
        };
        client.expect_hello()?;
        Ok(client)
    }

    fn expect_hello(&mut self) -> Result<(), Answer> {
        let hello = self.receive(PATIENCE)?.ok_or_else(silent)?;
        if let Some(error) = hello.get("error") {
            return Err(refusal(error));
        }
        match hello["hello"]["protocol"].as_u64() {
            Some(PROTOCOL) => Ok(()),
            Some(other) => {
                let text = format!("the agent speaks protocol {other}, this command {PROTOCOL}");
                Err(Answer::new(exit::UNAVAILABLE, text))
            }
            None => {
                let text = "what listens at NERVES_HUB_CONTROL_SOCKET is not the agent";
                Err(Answer::new(exit::UNAVAILABLE, text))
            }
        }
    }

    /// Asks, and waits for the answer; events that come before it are skipped.
    ///
    /// # Errors
    /// The agent's refusal, or its silence.
    pub fn ask(
        &mut self,
        method: &str,
        params: Value,
        patience: Duration,
    ) -> Result<Value, Answer> {
        self.ask_watching(method, params, patience, &mut |_| {})
    }

    /// The same; `hear` gets what the agent says of its progress.
    ///
    /// # Errors
    /// See [`Client::ask`].
    pub fn ask_watching(
        &mut self,
        method: &str,
        params: Value,
        patience: Duration,
        hear: &mut dyn FnMut(&Value),
    ) -> Result<Value, Answer> {
        self.last_id += 1;
        let request = json!({"id": self.last_id, "method": method, "params": params});
        let stream = self.stream.get_mut();
        // One that has said why it does not listen is read all the same.
        let _ = stream.write_all(line(&request).as_bytes());
        loop {
            let mut said = self.receive(patience)?.ok_or_else(silent)?;
            if said.get("event").is_some() {
                continue;
            }
            if let Some(error) = said.get("error") {
                return Err(refusal(error));
            }
            if let Some(progress) = said.get("progress") {
                hear(progress);
                continue;
            }
            if said["id"] == self.last_id {
                return Ok(said["result"].take());
            }
        }
    }

    /// The next message; `None` when there is none for so long.
    ///
    /// # Errors
    /// The agent is gone, or says what is no message.
    pub fn receive(&mut self, patience: Duration) -> Result<Option<Value>, Answer> {
        let timed = self.stream.get_ref().set_read_timeout(Some(patience));
        let read = timed.and_then(|()| self.stream.read_until(b'\n', &mut self.partial));
        let gone = |text: String| Err(Answer::new(exit::UNAVAILABLE, text));
        match read {
            Ok(_) if self.partial.ends_with(b"\n") => {}
            Ok(_) => return gone("the agent has ended the connection".to_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return gone(format!("the agent has ended the connection: {error}")),
        }
        let line = std::mem::take(&mut self.partial);
        match serde_json::from_slice(&line) {
            Ok(message) => Ok(Some(message)),
            Err(error) => gone(format!("the agent's answer is not understood: {error}")),
        }
    }
}

fn absent(path: &Path, error: &std::io::Error) -> Answer {
    let path = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => Answer::new(
            exit::NO_PERMISSION,
            format!(
                "{path}: {error}; be root or in its group (see NERVES_HUB_CONTROL_GROUP and \
                 NERVES_HUB_CONTROL_MODE)"
            ),
        ),
        _ => Answer::new(
            exit::UNAVAILABLE,
            format!(
                "no agent is running here ({path}: {error})\nStart it with its service or \
                 with: nerveshub-agent run\nIf it runs, set NERVES_HUB_CONTROL_SOCKET as it is \
                 set for the agent."
            ),
        ),
    }
}

fn silent() -> Answer {
    Answer::new(exit::UNAVAILABLE, "the agent does not answer")
}

/// The codes are those of etc/doc/control.md.
fn refusal(error: &Value) -> Answer {
    let code = match error["code"].as_str() {
        Some("bad-params" | "bad-request") => exit::USAGE,
        Some("busy") => exit::TRY_AGAIN,
        Some("failed") => exit::IO_ERROR,
        _ => exit::UNAVAILABLE,
    };
    Answer::new(code, error["message"].as_str().unwrap_or("refused"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use serde_json::json;

    use super::*;
    use crate::wire::control::hello;

    /// Asks something that says these lines and ends; the exit code and text of a failure.
    fn ask(said: &str) -> Result<Value, (u8, String)> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).expect("socket");
        let said = said.to_owned();
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.write_all(said.as_bytes()).expect("said");
            stream.shutdown(std::net::Shutdown::Write).expect("half");
            // Until the client is gone, so that its words do not fail.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let env = [("NERVES_HUB_CONTROL_SOCKET".into(), path.into_os_string())];
        let answered =
            Client::connect(&env).and_then(|mut client| client.ask("status", json!({}), PATIENCE));
        agent.join().expect("no panic");
        answered.map_err(|answer| (answer.code, answer.text))
    }

    #[test]
    fn the_answer_is_found_among_what_else_is_said() {
        let said = hello("a", "d")
            + "{\"event\":\"identify\"}\n{\"id\":7,\"result\":0}\n{\"id\":1,\"result\":{\"a\":2}}\n";
        assert_eq!(ask(&said), Ok(json!({"a": 2})));
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        for (code, exit) in [
            ("bad-params", exit::USAGE),
            ("busy", exit::TRY_AGAIN),
            ("failed", exit::IO_ERROR),
            ("unavailable", exit::UNAVAILABLE),
            ("of-a-later-version", exit::UNAVAILABLE),
        ] {
            let error = format!("{{\"error\":{{\"code\":\"{code}\",\"message\":\"why\"}}}}\n");
            let expected = Err((exit, "why\n".to_owned()));
            assert_eq!(ask(&(hello("a", "d") + &error)), expected, "{code}");
            assert_eq!(ask(&error), expected, "{code} instead of a greeting");
        }
    }

    #[test]
    fn what_is_no_agent_is_told_from_one_that_left() {
        for (said, part) in [
            ("", "has ended the connection"),
            ("{\"hello\":", "has ended the connection"),
            ("SSH-2.0\n", "is not understood"),
            (
                "{\"hello\":{\"protocol\":2}}\n",
                "speaks protocol 2, this command 1",
            ),
            ("{}\n", "is not the agent"),
            ("[]\n", "is not the agent"),
        ] {
            let (code, text) = ask(said).expect_err(said);
            assert_eq!(code, exit::UNAVAILABLE);
            assert!(text.contains(part), "{said}: {text}");
        }
        let (code, text) = ask(&hello("a", "d")).expect_err("gone");
        assert_eq!(code, exit::UNAVAILABLE);
        assert!(text.contains("has ended the connection"), "{text}");
    }
}
