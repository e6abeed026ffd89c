//! A running hub: its address, its settings at run time, and commands to the devices
//! connected to it. Expectations are in `expect`.

use crate::accept;
use crate::books::Book;
use crate::builder::{Builder, Tls};
use crate::certs::Ca;
use crate::conn::Command;
use crate::firmware::Firmware;
use crate::gate::{Gate, Refusal};
use crate::net::Listener;
use crate::state::{Behaviour, Shared, State, Upgrade};
use crate::store::Store;
use crate::tls::{TlsOptions, server_config};
use crate::transcript::Transcript;
use rustls::ServerConfig;
use serde_json::Value;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long stopping waits for connections to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A join the hub has seen.
#[derive(Debug, Clone)]
pub struct Join {
    pub conn: u64,
    pub identifier: String,
    pub join_ref: Option<String>,
    pub params: Value,
    /// Path of the upgrade request.
    pub via: String,
    /// Headers of the upgrade request, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// A running development hub. Dropping it cuts every connection.
pub struct Hub {
    pub(crate) shared: Arc<Shared>,
    pub(crate) deadline: Duration,
    options: TlsOptions,
    config: Option<Arc<ServerConfig>>,
    address: SocketAddr,
    ca: Ca,
    store: Store,
    listener: Mutex<Option<Listener>>,
}

impl Hub {
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn launch(
        shared: Shared,
        options: TlsOptions,
        listen: SocketAddr,
        ca: Ca,
        store: Store,
        deadline: Duration,
    ) -> std::io::Result<Hub> {
        let mut hub = Hub {
            shared: Arc::new(shared),
            deadline,
            config: server_config(&options),
            options,
            address: listen,
            ca,
            store,
            listener: Mutex::new(None),
        };
        let listener = hub.listen(listen)?;
        hub.address = listener.address;
        hub.listener = Mutex::new(Some(listener));
        Ok(hub)
    }

    fn listen(&self, address: SocketAddr) -> std::io::Result<Listener> {
        let (shared, config) = (self.shared.clone(), self.config.clone());
        Listener::start("hub-accept", address, move |tcp| {
            let (shared, config) = (shared.clone(), config.clone());
            shared.change(|state| state.threads += 1);
            let done = Done(shared.clone());
            let thread = thread::Builder::new().name("hub-conn".into());
            // Without a thread the connection is simply closed.
            let _ = thread.spawn(move || {
                let done = done;
                accept::serve(&done.0, config, tcp);
            });
        })
    }

    /// `ws://127.0.0.1:PORT` or `wss://localhost:PORT`, without a path.
    pub fn url(&self) -> String {
        match self.options.mode {
            Tls::Plain => format!("ws://{}", self.address),
            _ => format!("wss://localhost:{}", self.address.port()),
        }
    }

    /// `localhost:PORT`.
    pub fn host_port(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The CA of the hub's own certificate.
    pub fn ca_pem(&self) -> &str {
        self.ca.cert_pem()
    }

    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// The firmware store, which keeps serving while the hub is stopped.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Base URL of the firmware store, without a final slash.
    pub fn http_url(&self) -> String {
        self.store.url()
    }

    /// Puts a `.fw` file into the store, under `/firmware/UUID.fw`.
    pub fn firmware(&self, file: impl AsRef<Path>) -> Firmware {
        Firmware::from_file(file.as_ref(), &self.store)
            .unwrap_or_else(|error| panic!("firmware {}: {error}", file.as_ref().display()))
    }

    /// Offers the firmware to every device that joins with another one, or nothing any more.
    pub fn deploy(&self, firmware: Option<&Firmware>) {
        let payload = firmware.map(Firmware::payload);
        self.behaviour(|behaviour| behaviour.deployment = payload);
    }

    /// Decides about connections from now on.
    pub fn set_gate(&self, gate: Gate) {
        self.shared
            .change(|state| (state.gate, state.gate_fn) = (gate, None));
    }

    /// Decides about each upgrade request from now on.
    pub fn set_gate_fn(&self, decide: impl Fn(&Upgrade) -> Gate + Send + 'static) {
        self.shared
            .change(|state| state.gate_fn = Some(Box::new(decide)));
    }

    /// Decides about the next connection only; may be called several times.
    pub fn gate_next(&self, gate: Gate) {
        self.shared.change(|state| state.gate_queue.push_back(gate));
    }

    /// Refuses the next upgrade request.
    pub fn refuse_next(&self, status: u16, headers: &[(&str, &str)]) {
        let refusal = Refusal::status(status);
        let add = |refusal: Refusal, (name, value): &(&str, &str)| refusal.header(name, value);
        self.gate_next(Gate::Refuse(headers.iter().fold(refusal, add)));
    }

    /// Changes what the server does by itself.
    pub fn behaviour(&self, change: impl FnOnce(&mut Behaviour)) {
        self.shared.change(|state| change(&mut state.behaviour));
    }

    pub fn answer_heartbeats(&self, answer: bool) {
        self.behaviour(|behaviour| behaviour.answer_heartbeats = answer);
    }

    /// The server's clock from now on: this machine's plus `seconds`.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.shared.change(|state| state.clock_offset = seconds);
    }

    pub fn transcript(&self) -> Transcript {
        self.shared.lock().transcript.clone()
    }

    /// Every upgrade request so far, refused ones too.
    pub fn upgrades(&self) -> Vec<Upgrade> {
        self.shared.lock().upgrades.clone()
    }

    /// How many upgrade requests were let in.
    pub fn connections(&self) -> usize {
        self.shared
            .lock()
            .upgrades
            .iter()
            .filter(|upgrade| upgrade.status == 101)
            .count()
    }

    /// How many TCP connections were accepted, probes included.
    pub fn tcp_connections(&self) -> u64 {
        self.shared.lock().tcp_connections
    }

    /// How many device links are open now.
    pub fn online(&self) -> usize {
        self.shared.lock().links.len()
    }

    /// What the server knows about a device.
    pub fn book(&self, identifier: &str) -> Option<Book> {
        self.shared.lock().books.get(identifier).cloned()
    }

    pub fn books(&self) -> Vec<Book> {
        self.shared.lock().books.values().cloned().collect()
    }

    /// Stops gracefully: every device is closed with 1012, then the port is free.
    pub fn stop(&self) {
        self.halt(|state| {
            state
                .links
                .values()
                .for_each(|link| link.command(Command::Close(1012, String::new())));
        });
    }

    /// Stops like a killed process: every connection is reset.
    pub fn kill(&self) {
        self.halt(|state| {
            state
                .links
                .values()
                .for_each(|link| link.command(Command::Drop { reset: true }));
        });
    }

    /// Starts again on the same port, with the same books and transcript.
    pub fn restart(&self) {
        self.shared.change(|state| state.stopping = false);
        // A process that is just being started may still hold the old listener, up to its exec.
        let deadline = Instant::now() + self.deadline;
        let listener = loop {
            match self.listen(self.address) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "the port is not ours: {error}"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        *self.listener.lock().expect("listener lock") = Some(listener);
        self.shared.note(0, "hub restarted");
    }

    fn halt(&self, end: impl Fn(&State)) {
        let listener = self
            .listener
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take();
        if listener.is_none() {
            return;
        }
        drop(listener);
        self.shared.note(0, "hub stopped");
        self.shared.change(|state| {
            state.stopping = true;
            end(state);
            for tcp in state.pending.values() {
                let _ = tcp.shutdown(Shutdown::Both);
            }
        });
        self.shared.wait(Some(STOP_TIMEOUT), |state| {
            (state.threads == 0).then_some(())
        });
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Counts a connection's thread down however it ends.
struct Done(Arc<Shared>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.change(|state| state.threads -= 1);
    }
}
