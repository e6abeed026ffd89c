//! Programs that know as whom the device is known: what they are asked, and what is taken
//! from their answers. A program gets none of the agent's secrets, and nothing of its
//! standard output gets into a log: it may be a key.

use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::identity::{checked, identity, listed};
use crate::config::ExtensionSettings;
use crate::config::extensions::{Program, Provider};
use crate::system::command::{self, CommandError};

/// For one program.
const DEADLINE: Duration = Duration::from_secs(10);
/// netbird tells of every peer.
const OUTPUT: usize = 512 * 1024;
/// How many identities of one command are taken.
const MAX_LISTED: usize = 16;
/// Length of a WireGuard key.
const KEY_BYTES: usize = 32;

/// Asks all of them, and remembers what was wrong with whom.
pub(super) struct Asker {
    providers: Vec<(Provider, Option<String>)>,
    /// For all together.
    patience: Duration,
    /// Where programs are looked for instead of `PATH`.
    #[cfg(test)]
    pub path: Option<std::path::PathBuf>,
}

/// One program's share.
struct Run<'a> {
    ends: Instant,
    is_over: &'a dyn Fn() -> bool,
    #[cfg(test)]
    path: Option<&'a std::path::Path>,
}

type Found = Result<Vec<Value>, String>;

impl Asker {
    pub(super) fn new(settings: &ExtensionSettings) -> Self {
        let providers = settings.identity.providers.iter();
        Self {
            providers: providers.map(|provider| (provider.clone(), None)).collect(),
            // The hub may ask during a look at what has changed: both together must not
            // look like hanging.
            patience: settings.timeout / 3,
            #[cfg(test)]
            path: None,
        }
    }

    /// What each says now. One that fails costs the others nothing: of the time, each has
    /// an equal share of what is left.
    pub(super) fn ask(&mut self, is_over: &dyn Fn() -> bool) -> Vec<Value> {
        let ends = Instant::now() + self.patience;
        let mut shares = self.providers.len() as u32;
        let mut all = Vec::new();
        for (provider, problem) in &mut self.providers {
            let now = Instant::now();
            let left = ends.saturating_duration_since(now);
            let run = Run {
                ends: now + DEADLINE.min(left / shares),
                is_over,
                #[cfg(test)]
                path: self.path.as_deref(),
            };
            shares -= 1;
            if is_over() {
                break;
            }
            let now = match run.ask(provider) {
                Ok(found) => {
                    all.extend(found);
                    None
                }
                Err(error) => Some(error),
            };
            if !is_over() {
                tell(provider, problem.as_deref(), now.as_deref());
                *problem = now;
            }
        }
        all
    }
}

/// Each problem once, until it changes.
fn tell(provider: &Provider, before: Option<&str>, now: Option<&str>) {
    if before == now {
        return;
    }
    let name = match provider {
        Provider::Tailscale => "tailscale",
        Provider::Netbird => "netbird",
        Provider::Wireguard { interface } => interface,
        Provider::Iroh(_) => "iroh",
        Provider::Command(_) => "command",
    };
    match now {
        Some(problem) => warn!("network_identity: {name}: {problem}"),
        None => info!("network_identity: {name} answers again"),
    }
}

impl Run<'_> {
    fn ask(&self, provider: &Provider) -> Found {
        match provider {
            Provider::Tailscale => self.tailscale(),
            Provider::Netbird => self.netbird(),
            Provider::Wireguard { interface } => self.wireguard(interface),
            Provider::Iroh(program) => self.iroh(program),
            Provider::Command(program) => match self.said(program)? {
                Value::Array(list) => listed(&list[..list.len().min(MAX_LISTED)]),
                Value::Null => Ok(Vec::new()),
                one => checked(&one).map(|one| vec![one]),
            },
        }
    }

    fn tailscale(&self) -> Found {
        let status = self.json("tailscale", &["status", "--json", "--peers=false"])?;
        let state = &status["BackendState"];
        let own = &status["Self"];
        let key = own["PublicKey"].as_str().unwrap_or_default();
        // Before a login it is all zeros.
        let digits = key.strip_prefix("nodekey:").unwrap_or(key);
        if digits.bytes().all(|digit| digit == b'0') {
            return Ok(none("tailscale", state));
        }
        let mut details = Map::new();
        for (name, value) in [
            ("id", &own["ID"]),
            ("hostname", &own["HostName"]),
            ("ips", &own["TailscaleIPs"]),
            ("relay", &own["Relay"]),
            ("state", state),
        ] {
            put(&mut details, name, value);
        }
        let dns = own["DNSName"].as_str().unwrap_or_default();
        put(&mut details, "dns_name", &dns.trim_end_matches('.').into());
        one("tailscale", key, None, &details)
    }

    fn netbird(&self) -> Found {
        let status = self.json("netbird", &["status", "--json"])?;
        let state = &status["daemonStatus"];
        let key = status["publicKey"].as_str().unwrap_or_default();
        if key.is_empty() {
            return Ok(none("netbird", state));
        }
        let mut details = Map::new();
        for (name, value) in [
            ("fqdn", &status["fqdn"]),
            ("ip", &status["netbirdIp"]),
            ("management", &status["management"]["url"]),
            ("state", state),
        ] {
            put(&mut details, name, value);
        }
        one("netbird", key, None, &details)
    }

    /// Never `dump` or `showconf`: they print the private key.
    fn wireguard(&self, interface: &str) -> Found {
        let show = |what| self.output("wg", &["show", interface, what]);
        let key = show("public-key")?;
        if key == "(none)" {
            return Ok(none("wireguard", &interface.into()));
        }
        let bytes = STANDARD.decode(&key);
        if !bytes.is_ok_and(|bytes| bytes.len() == KEY_BYTES) {
            return Err("wg printed something that is no key".to_owned());
        }
        let mut details = Map::new();
        details.insert("interface".to_owned(), interface.into());
        let port = show("listen-port").ok().and_then(|port| port.parse().ok());
        if let Some(port) = port.filter(|port: &u16| *port != 0) {
            details.insert("listen_port".to_owned(), port.into());
        }
        one("wireguard", &key, Some(interface), &details)
    }

    /// Either the id alone, or an object with it and what else there is to say.
    fn iroh(&self, program: &Program) -> Found {
        match self.said(program)? {
            Value::String(id) => one("iroh", &id, None, &Map::new()),
            Value::Object(said) => {
                let names = ["id", "endpoint_id", "node_id"];
                let id = names.iter().find_map(|name| said.get(*name)?.as_str());
                let id = id.ok_or("there is no id in what it printed")?;
                let instance = said.get("instance").and_then(Value::as_str);
                let mut details = Map::new();
                for (name, value) in &said {
                    if name != "instance" && !names.contains(&name.as_str()) {
                        put(&mut details, name, value);
                    }
                }
                one("iroh", id, instance, &details)
            }
            Value::Null => Ok(Vec::new()),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                Err("what it printed is neither an id nor an object".to_owned())
            }
        }
    }

    /// The part of a program's output that is meant. A single word need not be JSON.
    fn said(&self, program: &Program) -> Result<Value, String> {
        let mut shell = command::shell(&program.command);
        let text = self.captured(&mut shell)?;
        if text.is_empty() || text == "null" {
            return Ok(Value::Null);
        }
        let is_word = text.bytes().all(|b| b.is_ascii_alphanumeric());
        if is_word && program.pointer.is_empty() {
            return Ok(text.into());
        }
        let said = json(&text)?;
        part(&said, &program.pointer)
            .cloned()
            .ok_or_else(|| format!("there is nothing at {} in what it printed", program.pointer))
    }

    fn json(&self, program: &str, arguments: &[&str]) -> Result<Value, String> {
        json(&self.output(program, arguments)?)
    }

    fn output(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let mut run = Command::new(program);
        run.args(arguments);
        command::without_secrets(&mut run);
        self.captured(&mut run)
    }

    fn captured(&self, run: &mut Command) -> Result<String, String> {
        #[cfg(test)]
        if let Some(path) = self.path {
            run.env("PATH", format!("{}:/usr/bin:/bin", path.display()));
        }
        let left = self.ends.saturating_duration_since(Instant::now());
        let output =
            command::capture_until(run, left, OUTPUT, self.is_over).map_err(
                |error| match error {
                    // How long that was differs each time, and it is no other problem.
                    CommandError::Deadline { program, .. } => {
                        format!("{program} took too long and was killed")
                    }
                    CommandError::Start { .. }
                    | CommandError::TooLong { .. }
                    | CommandError::Stopped { .. }
                    | CommandError::Io { .. } => error.to_string(),
                },
            )?;
        command::verdict(&output)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// As `Value::pointer` does, which brings in a whole text search.
fn part<'a>(mut said: &'a Value, pointer: &str) -> Option<&'a Value> {
    for word in pointer.split('/').skip(1) {
        let (mut name, mut escaped) = (String::new(), false);
        for c in word.chars() {
            match (escaped, c) {
                (false, '~') => escaped = true,
                (true, '0') => name.push('~'),
                (true, '1') => name.push('/'),
                (_, c) => name.push(c),
            }
            escaped &= c == '~';
        }
        said = match said {
            Value::Array(list) => list.get(name.parse::<usize>().ok()?)?,
            other => other.get(name.as_str())?,
        };
    }
    Some(said)
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_slice(text.as_bytes()).map_err(|error| format!("it printed no JSON: {error}"))
}

fn one(
    service: &str,
    identifier: &str,
    instance: Option<&str>,
    details: &Map<String, Value>,
) -> Found {
    Ok(vec![identity(service, identifier, instance, details)?])
}

/// The device is not in that network, which is no error.
fn none(service: &str, state: &Value) -> Vec<Value> {
    debug!("network_identity: {service} has no identity ({state})");
    Vec::new()
}

fn put(details: &mut Map<String, Value>, name: &str, value: &Value) {
    if !value.is_null() && value.as_str() != Some("") {
        details.insert(name.to_owned(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_that_hangs_has_the_same_problem_each_time() {
        let mut settings = ExtensionSettings {
            timeout: Duration::from_millis(300),
            ..ExtensionSettings::default()
        };
        let (command, pointer) = ("sleep 1000".to_owned(), String::new());
        settings.identity.providers = vec![Provider::Command(Program { command, pointer })];
        let mut asker = Asker::new(&settings);
        assert_eq!(asker.ask(&|| false), [] as [Value; 0]);
        let problem = asker.providers[0].1.as_deref();
        assert_eq!(problem, Some("/bin/sh took too long and was killed"));
    }

    #[test]
    fn pointers_are_those_of_the_standard() {
        let said = json!({"a": [{"b": 1}, 2], "": {"": 3}, "x/y": 4, "m~n": 5, "~1": 6, "0": 7});
        for pointer in [
            "", "/a", "/a/0", "/a/0/b", "/a/1", "/", "//", "/x~1y", "/m~0n", "/~01", "/0", "/a/2",
            "/b", "/a/b", "/a/0/b/c", "/a/-", "/a/-1",
        ] {
            assert_eq!(part(&said, pointer), said.pointer(pointer), "{pointer:?}");
        }
    }
}
