//! One connection to the hub: attempts, back-off, redirects, heartbeats, staleness.

use std::net::IpAddr;
use std::time::Duration;

use super::backoff::Backoff;
use super::effect::{Attempt, Effect};
use super::endpoint::Endpoint;
use super::event::{ConnId, ConnectFailure, SocketEvent};
use super::timers::Timer;
use super::{Core, Setup};
use crate::auth::server_clock::ServerClock;
use crate::wire::{Inbound, Outbound, Push};

/// Redirects followed in a row (PROTOCOL §1).
const MAX_REDIRECTS: u8 = 2;
/// While a file or a paste comes in, the answer to a heartbeat stands behind all of it: so
/// many times it is waited for once more.
const BEHIND_OTHERS: u8 = 2;
/// The hub hears a goodbye before it sees the next connection, which it would take for a twin;
/// a socket thread that has not ended by then does not hold it up.
const PARTING: Duration = Duration::from_secs(1);
/// Pause between attempts while the network has never been seen.
const NETWORK_PROBE_PAUSE: Duration = Duration::from_secs(3);

/// The link's state.
pub struct Link {
    pub(super) phase: Phase,
    last_conn: u64,
    backoff: Backoff,
    /// Where the next attempt goes: the configured hub, or a redirect's target.
    target: Option<Endpoint>,
    redirects: u8,
    /// A redirect of this row left TLS: what comes after it may be anyone's word.
    left_tls: bool,
    network_seen: bool,
    clock: Option<ServerClock>,
    /// Its end is waited for with the next attempt.
    parting: Option<ConnId>,
    pub(super) last_error: Option<String>,
}

/// How far the current connection is.
pub(super) enum Phase {
    Down,
    Connecting(ConnId),
    Open(Session),
}

/// An open socket.
pub(super) struct Session {
    pub conn: ConnId,
    last_ref: u64,
    /// The first heartbeat that is not answered yet.
    heartbeat: Option<u64>,
    /// Something else came since a heartbeat was last due, …
    heard: bool,
    /// … and that many times it was why the answer was waited for.
    patience: u8,
    pub local: Option<IpAddr>,
    pub interface: Option<String>,
}

impl Link {
    pub(super) fn new(setup: &Setup) -> Self {
        Self {
            phase: Phase::Down,
            last_conn: 0,
            backoff: Backoff::new(&setup.link, setup.seed),
            target: setup.endpoint.clone(),
            redirects: 0,
            left_tls: false,
            network_seen: !setup.link.wait_for_network,
            clock: None,
            parting: None,
            last_error: None,
        }
    }

    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.phase {
            Phase::Open(session) => Some(session),
            Phase::Down | Phase::Connecting(_) => None,
        }
    }

    fn conn(&self) -> Option<ConnId> {
        match &self.phase {
            Phase::Down => None,
            Phase::Connecting(conn) => Some(*conn),
            Phase::Open(session) => Some(session.conn),
        }
    }

    /// Other delays than the settings'; none: theirs again.
    pub(super) fn set_delays(&mut self, delays: Vec<Duration>) {
        self.backoff.set_delays(delays);
    }

    /// Called when the device channel is joined: the hub is well.
    pub(super) fn proved(&mut self) {
        self.backoff.reset();
        self.last_error = None;
    }
}

impl Core {
    pub(super) fn connect(&mut self) {
        let Some(endpoint) = self.link.target.clone().filter(|_| !self.leaving) else {
            return;
        };
        self.timers.cancel(Timer::Reconnect);
        self.link.parting = None;
        self.link.last_conn += 1;
        let conn = ConnId(self.link.last_conn);
        let configured = self.setup.endpoint.as_ref().is_some_and(|hub| hub.secure);
        debug!("connecting to {endpoint}");
        let attempt = Attempt {
            signing_time: self.link.clock.map(|clock| clock.signing_time(self.now)),
            send_credentials: !configured || !self.link.left_tls,
            probing: !self.link.network_seen,
            endpoint,
        };
        self.link.phase = Phase::Connecting(conn);
        self.effect(Effect::Connect(conn, attempt));
    }

    /// The one place where events of old connections are dropped.
    pub(super) fn on_socket(&mut self, conn: ConnId, event: SocketEvent) {
        if self.link.conn() != Some(conn) {
            return;
        }
        match event {
            SocketEvent::Opened { local, interface } => self.on_opened(conn, local, interface),
            SocketEvent::Received(inbound) => self.on_received(inbound),
            SocketEvent::ConnectFailed(failure) => self.on_connect_failed(failure),
            SocketEvent::Sent(reference) => self.on_sent(reference),
            SocketEvent::Closed(reason) => self.on_closed(conn, &reason),
        }
    }

    fn on_opened(&mut self, conn: ConnId, local: Option<IpAddr>, interface: Option<String>) {
        self.link.network_seen = true;
        self.link.redirects = 0;
        let session = Session {
            conn,
            last_ref: 0,
            heartbeat: None,
            heard: false,
            patience: 0,
            local,
            interface,
        };
        self.link.phase = Phase::Open(session);
        self.effect(Effect::StartHeartbeat(conn));
        self.join_device();
    }

    fn on_received(&mut self, inbound: Inbound) {
        if let Some(session) = self.link.session() {
            session.heard = true;
        }
        match inbound {
            Inbound::Reply(reply) => {
                let answered = |session: &&mut Session| session.heartbeat == Some(reply.reference);
                if let Some(session) = self.link.session().filter(answered) {
                    session.heartbeat = None;
                }
                self.on_hub_answered(reply.reference);
                self.on_reply(reply);
            }
            Inbound::ChannelError {
                topic,
                join_ref,
                reason,
            } => {
                self.on_channel_error(topic, join_ref, &reason);
            }
            Inbound::ChannelClosed { topic, join_ref } => self.on_channel_closed(topic, join_ref),
            Inbound::Device(event) => self.on_device_event(event),
            Inbound::Console { join_ref, event } => self.on_console_event(join_ref, event),
            Inbound::Extensions { join_ref, event } => self.on_extensions_event(join_ref, event),
            Inbound::DetachOrdered { reference } => self.on_detach_ordered(reference),
            Inbound::Unknown { topic, event } => {
                debug!("ignoring unknown event {event:?} on topic {topic:?}");
            }
        }
    }

    fn on_connect_failed(&mut self, failure: ConnectFailure) {
        self.link.phase = Phase::Down;
        // Everything but a failure of the network itself is proof of one.
        self.link.network_seen |= !matches!(failure, ConnectFailure::Network(_));
        match failure {
            ConnectFailure::Redirected(location) => self.on_redirected(&location),
            ConnectFailure::Network(reason) if !self.link.network_seen => {
                info!("waiting for the network: {reason}");
                self.link.last_error = Some(reason);
                self.set_timer(Timer::Reconnect, NETWORK_PROBE_PAUSE);
            }
            ConnectFailure::Network(reason) | ConnectFailure::Protocol(reason) => {
                self.reconnect_later(&reason);
            }
            ConnectFailure::Refused {
                status,
                reason,
                date,
            } => self.on_refused(status, reason.as_deref(), date),
        }
    }

    fn on_refused(&mut self, status: u16, reason: Option<&str>, date: Option<u64>) {
        let said = reason.map_or(String::new(), |reason| format!(" ({reason})"));
        let meaning = match status {
            401 | 403 => "the hub refused this device's credentials or its clock",
            503 => "the hub is briefly away; the credentials are fine",
            _ => "the hub refused the upgrade",
        };
        if let Some(seconds) = date.filter(|_| self.setup.signs && matches!(status, 401 | 403)) {
            info!("signing the next attempts with the hub's time");
            self.link.clock = Some(ServerClock::learn(self.now, seconds));
        }
        self.reconnect_later(&format!("{meaning}: HTTP {status}{said}"));
    }

    fn on_redirected(&mut self, location: &str) {
        let Some(from) = self.link.target.clone() else {
            return;
        };
        self.link.redirects += 1;
        if self.link.redirects > MAX_REDIRECTS {
            return self.reconnect_later(&format!(
                "{from} redirected more than {MAX_REDIRECTS} times"
            ));
        }
        match from.redirected(location) {
            Ok(target) if !target.secure && from.secure && !self.setup.allow_insecure => self
                .reconnect_later(&format!(
                    "{from} redirected to plain text {target}; refused (NERVES_HUB_ALLOW_INSECURE is not set)"
                )),
            Ok(target) => {
                info!("{from} redirected to {target}");
                self.link.left_tls |= !target.secure;
                self.link.target = Some(target);
                self.connect();
            }
            Err(reason) => self.reconnect_later(&format!("{from} redirected: {reason}")),
        }
    }

    /// The hub's time, unix seconds, if it had to tell it.
    pub(super) fn hub_time(&self) -> Option<u64> {
        self.link.clock.map(|clock| clock.signing_time(self.now))
    }

    /// The next attempt goes to the configured hub.
    fn forget_redirects(&mut self) {
        self.link.redirects = 0;
        self.link.left_tls = false;
        self.link.target = self.setup.endpoint.clone();
    }

    /// Starts over with the configured hub after a delay.
    fn reconnect_later(&mut self, reason: &str) {
        self.forget_redirects();
        self.link.last_error = Some(reason.to_owned());
        if self.leaving {
            return;
        }
        let delay = self.link.backoff.next_delay();
        warn!("{reason}; next attempt in {:.1} s", delay.as_secs_f64());
        self.set_timer(Timer::Reconnect, delay);
    }

    pub(super) fn on_closed(&mut self, conn: ConnId, reason: &str) {
        if self.link.conn() == Some(conn) {
            self.drop_session(false);
            self.reconnect_later(&format!("connection lost: {reason}"));
        }
    }

    /// Gives the socket up from our side and plans the next attempt.
    /// Nothing was heard for a while then, so what was said of late may have reached nobody.
    pub(super) fn drop_link(&mut self, reason: &str) {
        self.end_connection(true);
        self.reconnect_later(reason);
    }

    pub(super) fn disconnect(&mut self) {
        self.end_connection(false);
    }

    fn end_connection(&mut self, in_silence: bool) {
        if let Some(conn) = self.link.conn() {
            self.effect(Effect::Disconnect(conn));
            self.drop_session(in_silence);
        }
    }

    fn drop_session(&mut self, in_silence: bool) {
        self.link.phase = Phase::Down;
        self.effect(Effect::StopHeartbeat);
        self.timers.cancel(Timer::Interface);
        self.unconfirm_report();
        self.on_channels_lost();
        self.recall_output(in_silence);
    }

    pub(super) fn on_reload(&mut self) {
        if self.leaving {
            // The connection is for what is still to be told.
            return info!("SIGHUP while leaving: nothing is read again");
        }
        info!("SIGHUP: reading credentials again and reconnecting");
        self.effect(Effect::ReloadCredentials);
        self.reconnect_now();
    }

    /// Takes leave of the hub, if it is connected, and connects anew without a delay.
    pub(super) fn reconnect_now(&mut self) {
        let open = self.link.session().map(|session| session.conn);
        let parting = open.or(self.link.parting);
        self.disconnect();
        self.link.backoff.reset();
        self.forget_redirects();
        match parting {
            Some(conn) => {
                self.link.parting = Some(conn);
                self.set_timer(Timer::Reconnect, PARTING);
            }
            None => self.connect(),
        }
    }

    /// The socket's thread has ended, however it did.
    pub(super) fn on_socket_gone(&mut self, conn: ConnId) {
        if self.link.parting == Some(conn) {
            self.connect();
        }
    }

    pub(super) fn on_heartbeat_due(&mut self, conn: ConnId) {
        if self.link.conn() != Some(conn) {
            return;
        }
        let Some(session) = self.link.session() else {
            return;
        };
        let (unanswered, heard) = (session.heartbeat, std::mem::take(&mut session.heard));
        session.patience = match unanswered {
            Some(_) => session.patience + 1,
            None => 0,
        };
        if unanswered.is_some() && (!heard || session.patience > BEHIND_OTHERS) {
            return self.drop_link("the hub did not answer a heartbeat");
        }
        let reference = self.push(None, Outbound::Heartbeat);
        if let Some(session) = self.link.session() {
            session.heartbeat = unanswered.or(reference);
        }
    }

    pub(super) fn restart_heartbeat(&mut self) {
        if let Some(conn) = self.link.session().map(|session| session.conn) {
            self.effect(Effect::StartHeartbeat(conn));
        }
    }

    /// Sends on the open socket; the reference comes back, `None` while there is none.
    pub(super) fn push(&mut self, join_ref: Option<u64>, body: Outbound) -> Option<u64> {
        let session = self.link.session()?;
        session.last_ref += 1;
        let (conn, reference) = (session.conn, session.last_ref);
        let join_ref = match body {
            Outbound::Join(..) => Some(reference),
            Outbound::Heartbeat
            | Outbound::Device(_)
            | Outbound::Console(_)
            | Outbound::Extension(_) => join_ref,
        };
        self.effect(Effect::Push(
            conn,
            Push {
                join_ref,
                reference,
                body,
            },
        ));
        Some(reference)
    }
}

#[cfg(test)]
impl Core {
    /// The connection ordered last.
    pub(super) fn link_conn_for_tests(&self) -> u64 {
        self.link.last_conn
    }
}
