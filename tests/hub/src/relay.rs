//! A TCP relay that does to connections what networks do: it understands nothing of what it
//! carries, and damages it, cuts it off, resets it, or takes it to somebody else.

use crate::net::{Listener, reset_on_close};
use crate::store::When;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

/// What is done to a connection; places are counted in bytes from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// This byte arrives as another one.
    Flip(u64),
    /// The end (FIN) before this byte, at no place that means anything.
    Cut(u64),
    /// A reset before this byte.
    Reset(u64),
    /// Another server answers.
    Divert(SocketAddr),
}

#[derive(Default)]
struct State {
    harms: Vec<(When, Harm)>,
    connections: u32,
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
}

/// A running relay; takes no more connections when dropped.
pub struct Relay {
    shared: Arc<Shared>,
    listener: Listener,
}

impl Relay {
    /// Relays to `target`.
    pub fn start(target: SocketAddr) -> Relay {
        let shared = Arc::new(Shared {
            target,
            state: Mutex::default(),
        });
        let serving = shared.clone();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::start("relay-accept", any, move |client| {
            let shared = serving.clone();
            // Counted here: the order of connections is the order they were taken in.
            let harm = shared.next_harm();
            let thread = thread::Builder::new().name("relay-conn".into());
            // What breaks is closed on both sides; there is nothing to report.
            let _ = thread.spawn(move || shared.serve(client, harm));
        });
        Relay {
            shared,
            listener: listener.expect("relay listens"),
        }
    }

    pub fn port(&self) -> u16 {
        self.listener.address.port()
    }

    /// Adds a harm to connections, which are counted from 1; the first that meets one counts.
    pub fn harm(&self, when: When, harm: Harm) {
        self.shared.lock().harms.push((when, harm));
    }

    /// Connections so far.
    pub fn connections(&self) -> u32 {
        self.shared.lock().connections
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn next_harm(&self) -> Option<Harm> {
        let mut state = self.lock();
        state.connections += 1;
        let nth = state.connections;
        let mut harms = state.harms.iter();
        harms
            .find(|(when, _)| when.meets(nth))
            .map(|(_, harm)| *harm)
    }

    fn serve(&self, mut client: TcpStream, harm: Option<Harm>) -> io::Result<()> {
        let mut server = TcpStream::connect(match harm {
            Some(Harm::Divert(elsewhere)) => elsewhere,
            Some(Harm::Flip(_) | Harm::Cut(_) | Harm::Reset(_)) | None => self.target,
        })?;
        server.set_nodelay(true)?;
        let back = carry_back(client.try_clone()?, server.try_clone()?)?;
        carry(&mut server, &mut client, harm);
        if matches!(harm, Some(Harm::Reset(_))) {
            // It is sent when the last descriptor goes, and must not come after an end.
            reset_on_close(&client);
            let _ = client.shutdown(Shutdown::Read);
        } else {
            let _ = client.shutdown(Shutdown::Write);
        }
        let _ = back.join();
        Ok(())
    }
}

fn carry_back(mut client: TcpStream, mut server: TcpStream) -> io::Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name("relay-back".into());
    thread.spawn(move || {
        // Either side may go away at any time.
        let _ = io::copy(&mut client, &mut server);
        let _ = server.shutdown(Shutdown::Both);
    })
}

/// Carries what the server sends until somebody, or the harm, ends it.
fn carry(server: &mut TcpStream, client: &mut TcpStream, harm: Option<Harm>) {
    let mut buffer = vec![0; 16 * 1024];
    let mut at = 0;
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        let piece = at..at + count as u64;
        let mut bytes = &mut buffer[..count];
        let mut is_last = false;
        match harm {
            Some(Harm::Flip(place)) if piece.contains(&place) => {
                bytes[(place - at) as usize] ^= 0xff;
            }
            Some(Harm::Cut(place) | Harm::Reset(place)) if piece.contains(&place) => {
                bytes = &mut bytes[..(place - at) as usize];
                is_last = true;
            }
            Some(Harm::Flip(_) | Harm::Cut(_) | Harm::Reset(_) | Harm::Divert(_)) | None => {}
        }
        if client.write_all(bytes).is_err() || is_last {
            return;
        }
        at = piece.end;
    }
}
