//! What happens to a connection before it is a device link: let in, refused, redirected or
//! left hanging.

use crate::state::Upgrade;

/// The `Date` header of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DateHeader {
    /// The hub's clock, offset included.
    #[default]
    Server,
    None,
    Exact(String),
}

/// An answer other than 101.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    pub status: u16,
    pub date: DateHeader,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Refusal {
    pub fn status(status: u16) -> Refusal {
        Refusal {
            status,
            ..Refusal::default()
        }
    }

    /// Adds `nh-connection-error-reason`, and the reason as the body, as the server does.
    pub fn reason(mut self, reason: &str) -> Refusal {
        self.body = reason.into();
        self.header("nh-connection-error-reason", reason)
    }

    pub fn header(mut self, name: &str, value: &str) -> Refusal {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn date(mut self, date: DateHeader) -> Refusal {
        self.date = date;
        self
    }
}

/// What to do with a connection. The first three act before the request is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Gate {
    /// Accept TCP, never read.
    HangTcp,
    /// Read, never answer the TLS handshake (or, without TLS, the request).
    HangTls,
    /// Reset the TCP connection as soon as the client has sent something.
    Reset,
    /// Read the upgrade request, never answer.
    HangUpgrade,
    /// Close without an answer once the upgrade request has been read.
    CloseUpgrade,
    /// Answer the upgrade with these bytes and close.
    Garbage(Vec<u8>),
    Refuse(Refusal),
    Redirect {
        status: u16,
        location: String,
    },
    /// Check the credentials and let in.
    #[default]
    Accept,
    /// Let in without looking at credentials, under this identifier.
    AcceptAs(String),
}

impl Gate {
    /// A 503 as the platform sends it while it is away.
    pub fn unavailable() -> Gate {
        let reason = "the platform could not be reached to authenticate this device";
        Gate::Refuse(Refusal::status(503).reason(reason))
    }

    /// A 401 without a body, as for wrong credentials.
    pub fn unauthorized() -> Gate {
        Gate::Refuse(Refusal::status(401))
    }

    pub(crate) fn is_early(&self) -> bool {
        matches!(self, Gate::HangTcp | Gate::HangTls | Gate::Reset)
    }
}

/// Decides for each upgrade request.
pub type GateFn = Box<dyn Fn(&Upgrade) -> Gate + Send>;
