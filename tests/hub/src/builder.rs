//! How a hub is set up before it starts.

use crate::auth::Credentials;
use crate::certs::{Ca, Identity};
use crate::hub::Hub;
use crate::state::{Behaviour, Shared};
use crate::store;
use crate::tls::TlsOptions;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// How a listener is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tls {
    #[default]
    Plain,
    /// TLS 1.2 and 1.3.
    Server,
    /// TLS 1.2 only, like many servers that end mTLS.
    Only12,
    Only13,
}

/// How the firmware store is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Store {
    /// Like the hub itself, with the same certificate.
    #[default]
    Same,
    Plain,
}

/// Collects settings; [`Builder::start`] starts the hub.
pub struct Builder {
    pub(crate) listen: SocketAddr,
    pub(crate) store_listen: SocketAddr,
    pub(crate) tls: Tls,
    pub(crate) store: Store,
    pub(crate) store_host: Option<String>,
    pub(crate) ca: Option<Ca>,
    pub(crate) identity: Option<Identity>,
    pub(crate) client_ca: Option<String>,
    pub(crate) reject_in_handshake: bool,
    pub(crate) alpn: Vec<String>,
    pub(crate) credentials: Credentials,
    pub(crate) behaviour: Behaviour,
    pub(crate) deadline: Duration,
    pub(crate) clock_offset: i64,
    pub(crate) echo: bool,
}

impl Default for Builder {
    fn default() -> Builder {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Builder {
            listen: any,
            store_listen: any,
            tls: Tls::Plain,
            store: Store::Same,
            store_host: None,
            ca: None,
            identity: None,
            client_ca: None,
            reject_in_handshake: false,
            alpn: vec!["http/1.1".into()],
            credentials: Credentials::default(),
            behaviour: Behaviour::default(),
            deadline: Duration::from_secs(10),
            clock_offset: 0,
            echo: false,
        }
    }
}

impl Builder {
    /// Where the device socket listens; port 0 (the default) takes a free one.
    pub fn listen(mut self, address: SocketAddr) -> Builder {
        self.listen = address;
        self
    }

    /// Where the firmware store listens.
    pub fn store_listen(mut self, address: SocketAddr) -> Builder {
        self.store_listen = address;
        self
    }

    pub fn tls(mut self, tls: Tls) -> Builder {
        self.tls = tls;
        self
    }

    pub fn plain(self) -> Builder {
        self.tls(Tls::Plain)
    }

    /// Serves firmware without TLS whatever the hub does.
    pub fn plain_store(mut self) -> Builder {
        self.store = Store::Plain;
        self
    }

    /// Host name in the store's URLs instead of the listener's address.
    pub fn store_host(mut self, host: &str) -> Builder {
        self.store_host = Some(host.into());
        self
    }

    /// The CA of the hub's own certificate; a fresh one otherwise.
    pub fn ca(mut self, ca: Ca) -> Builder {
        self.ca = Some(ca);
        self
    }

    /// The hub's own certificate, for instance one that is expired.
    pub fn identity(mut self, identity: Identity) -> Builder {
        self.identity = Some(identity);
        self
    }

    /// Asks for client certificates of that CA (and lets their common names in).
    pub fn mtls(self, ca: &Ca) -> Builder {
        self.mtls_pem(ca.cert_pem())
    }

    /// As [`Builder::mtls`], from PEM text.
    pub fn mtls_pem(mut self, pem: &str) -> Builder {
        self.client_ca = Some(pem.into());
        self
    }

    /// Fails the TLS handshake on a bad client certificate instead of answering 401.
    pub fn mtls_reject_in_handshake(mut self) -> Builder {
        self.reject_in_handshake = true;
        self
    }

    /// Protocols offered in TLS; none switches ALPN off.
    pub fn alpn(mut self, protocols: &[&str]) -> Builder {
        self.alpn = protocols.iter().map(|name| name.to_string()).collect();
        self
    }

    /// A product key (`nhp_…`) and its secret: any identifier may connect.
    pub fn product(mut self, key: &str, secret: &str) -> Builder {
        self.credentials.products.push((key.into(), secret.into()));
        self
    }

    /// A device key, its secret and the device it is for.
    pub fn device_key(mut self, key: &str, secret: &str, identifier: &str) -> Builder {
        self.credentials
            .devices
            .push((key.into(), secret.into(), identifier.into()));
        self
    }

    /// Public keys sent to devices that ask for them.
    pub fn public_keys(mut self, fwup: &[&str], archive: &[&str]) -> Builder {
        self.behaviour.fwup_keys = fwup.iter().map(|key| key.to_string()).collect();
        self.behaviour.archive_keys = archive.iter().map(|key| key.to_string()).collect();
        self
    }

    /// Payload of `extensions:get`, or `None` for a server that never sends it.
    pub fn advertise(mut self, payload: Option<Value>) -> Builder {
        self.behaviour.advertise = payload;
        self
    }

    /// Extensions devices may attach; by default the five known ones.
    pub fn extensions(mut self, names: &[&str]) -> Builder {
        self.behaviour.extensions = names.iter().map(|name| name.to_string()).collect();
        self
    }

    /// Sends each extension its first request when it is attached, as the real server does.
    pub fn drive_extensions(mut self) -> Builder {
        self.behaviour.drive_extensions = true;
        self
    }

    /// Silence after which a device is closed with 1002; 180 s by default.
    pub fn idle_timeout(mut self, timeout: Duration) -> Builder {
        self.behaviour.idle_timeout = timeout;
        self
    }

    /// Anything else about the server's behaviour.
    pub fn behaviour(mut self, change: impl FnOnce(&mut Behaviour)) -> Builder {
        change(&mut self.behaviour);
        self
    }

    /// How long `expect_…` waits; 10 s by default.
    pub fn deadline(mut self, deadline: Duration) -> Builder {
        self.deadline = deadline;
        self
    }

    /// The server's clock is ahead of this machine's by that many seconds.
    pub fn clock_offset(mut self, seconds: i64) -> Builder {
        self.clock_offset = seconds;
        self
    }

    /// Prints the transcript as it grows.
    pub fn echo(mut self) -> Builder {
        self.echo = true;
        self
    }

    /// Starts the hub; panics when it cannot listen.
    pub fn start(self) -> Hub {
        self.try_start()
            .unwrap_or_else(|error| panic!("hub does not start: {error}"))
    }

    /// Starts the hub.
    pub fn try_start(self) -> std::io::Result<Hub> {
        let ca = self.ca.unwrap_or_else(|| Ca::new("devhub CA"));
        let identity = self.identity.unwrap_or_else(|| ca.server());
        let client_ca = self.client_ca.map(|pem| crate::certs::read_cert(&pem));
        let options = TlsOptions {
            mode: self.tls,
            alpn: self.alpn,
            identity: identity.clone(),
            client_ca: client_ca.clone(),
            reject_in_handshake: self.reject_in_handshake,
        };
        let shared = Shared::new(self.credentials, client_ca, self.behaviour, self.echo);
        shared.lock().clock_offset = self.clock_offset;
        let mut store = store::Builder::default().listen(self.store_listen);
        if self.store == Store::Same {
            store = store.tls(self.tls, identity);
        }
        if let Some(host) = self.store_host {
            store = store.host(&host);
        }
        Hub::launch(
            shared,
            options,
            self.listen,
            ca,
            store.try_start()?,
            self.deadline,
        )
    }
}
