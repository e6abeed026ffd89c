//! The dispatcher: THE loop. Receives an event, lets the core decide, performs the
//! effects. Never blocks on anything but its inbox.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::config::{Config, Credentials, LinkSettings, Serializer};
use crate::core::effect::{Attempt, Effect, InstallOrder};
use crate::core::endpoint::Endpoint;
use crate::core::event::{ConnId, Event, JobId, SocketEvent, Worker};
use crate::core::{Core, Setup};
use crate::system::dial::Dialer;
use crate::system::http::Cancel;
use crate::system::metadata::{self, Firmware, KeyValues};
use crate::system::tls::{self, ClientCertificate};
use crate::system::waker::Waker;
use crate::system::{command, identity, interface};
use crate::update::feed;
use crate::update::streaming::Means;
use crate::workers::heartbeat::{self, Beat};
use crate::workers::socket::{self, Login};
use crate::workers::spawn::Crew;
use crate::workers::{download, fwup, signals};

/// Events waiting for the dispatcher; workers wait when it is full.
const INBOX: usize = 256;
/// How long leaving waits for workers that hold something worth ending well.
const LEAVE: Duration = Duration::from_secs(3);
/// `fwup --version` answers within this, or there is no usable fwup.
const FWUP_VERSION_DEADLINE: Duration = Duration::from_secs(5);
/// A reboot command that takes longer counts as failed.
const REBOOT_COMMAND_DEADLINE: Duration = Duration::from_secs(60);
const COMMAND_OUTPUT: usize = 64 * 1024;

/// What keeps the agent from starting.
#[derive(Debug)]
pub enum StartError {
    /// Exit code 78.
    Config(String),
    /// Exit code 71.
    System(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) | Self::System(text) => f.write_str(text),
        }
    }
}

/// Runs until told to stop.
///
/// # Errors
/// What keeps it from starting; afterwards nothing does.
pub fn run(config: Config) -> Result<(), StartError> {
    let signals =
        signals::install().map_err(|error| StartError::System(format!("signals: {error}")))?;
    let values =
        metadata::load(&config.metadata).map_err(|error| StartError::Config(error.to_string()))?;
    let firmware = values.firmware(&config.metadata.overrides);
    let identifier = identity::identifier(&config.identifier, &values)
        .map_err(|error| StartError::Config(error.to_string()))?;
    let access = Access::new(&config, &values, &identifier)?;
    let core = Core::new(
        setup(&config, &firmware, identifier, &access),
        Instant::now(),
    );
    let mut agent = Agent::new(config, core, access)?;
    let inbox = agent.crew.inbox();
    agent.spawn("signals", Worker::Signals, move || {
        signals::run(signals, &inbox)
    });
    agent.read_fwup_version();
    agent.serve();
    Ok(())
}

fn setup(config: &Config, firmware: &Firmware, identifier: String, access: &Access) -> Setup {
    let signs = matches!(access.context.login, Login::SharedSecret { .. });
    let host = config.host.as_ref().filter(|_| config.connect);
    Setup {
        identifier,
        endpoint: host.map(|host| Endpoint {
            secure: host.secure,
            host: host.host.clone(),
            port: host.port,
            path: socket_path(signs, &config.link).to_owned(),
        }),
        link: config.link.clone(),
        signs,
        allow_insecure: config.allow_insecure,
        firmware: firmware.keys.clone(),
        firmware_uuid: firmware.uuid.clone(),
        firmware_validated: firmware.validated,
        auto_revert_detected: firmware.auto_revert_detected,
        devpath: config
            .fwup
            .devpath
            .clone()
            .or_else(|| firmware.devpath.clone()),
        public_keys: config.fwup.public_keys.clone(),
        request_public_keys: config.fwup.request_public_keys,
        shutdown_timeout: config.shutdown_timeout,
        // The standard library keys its hasher with the system's random source.
        seed: RandomState::new().build_hasher().finish(),
    }
}

/// PROTOCOL §1.
fn socket_path(shared_secret: bool, link: &LinkSettings) -> &'static str {
    match (shared_secret, link.serializer) {
        (true, Serializer::Json) => "/device-socket/websocket?vsn=2.0.0",
        (true, Serializer::Msgpack) => "/device-socket/websocket?vsn=3.0.0",
        (false, Serializer::Json) => "/socket/websocket?vsn=2.0.0",
        (false, Serializer::Msgpack) => "/socket/websocket?vsn=3.0.0",
    }
}

/// How the hub and download servers are reached; kept across connections so that TLS
/// sessions resume.
struct Access {
    credentials: Option<Credentials>,
    identifier: String,
    context: Arc<socket::Context>,
    download: Arc<Dialer>,
}

impl Access {
    fn new(config: &Config, values: &KeyValues, identifier: &str) -> Result<Self, StartError> {
        let credentials = config.credentials.clone().or_else(|| values.credentials());
        if credentials.is_none() && config.connect {
            let text = "no credentials: set NERVES_HUB_PRODUCT_KEY and NERVES_HUB_PRODUCT_SECRET, \
                        NERVES_HUB_SHARED_KEY and NERVES_HUB_SHARED_SECRET, or NERVES_HUB_CERT_FILE and \
                        NERVES_HUB_KEY_FILE, or provision them in the firmware's key-value store";
            return Err(StartError::Config(text.to_owned()));
        }
        let context = context(config, credentials.as_ref(), identifier)
            .map_err(|error| StartError::Config(error.to_string()))?;
        let download = Dialer {
            // Never offers the device's certificate to a file server.
            tls: tls::client_config(&config.tls, None)
                .map_err(|error| StartError::Config(error.to_string()))?,
            server_name: None,
            ..(*context.dialer).clone()
        };
        Ok(Self {
            credentials,
            identifier: identifier.to_owned(),
            context: Arc::new(context),
            download: Arc::new(download),
        })
    }

    /// SIGHUP: a set of files that is broken leaves the old one in use.
    fn reload(&mut self, config: &Config) {
        match context(config, self.credentials.as_ref(), &self.identifier) {
            Ok(context) => self.context = Arc::new(context),
            Err(error) => log::error!("{error}; keeping the credentials in use"),
        }
    }
}

fn context(
    config: &Config,
    credentials: Option<&Credentials>,
    identifier: &str,
) -> Result<socket::Context, tls::TlsSetupError> {
    let (login, certificate) = match credentials {
        Some(Credentials::SharedSecret { key, secret }) => {
            let (key, secret) = (key.clone(), secret.clone());
            (
                Login::SharedSecret {
                    key,
                    secret,
                    identifier: identifier.to_owned(),
                },
                None,
            )
        }
        Some(Credentials::CertificateFiles { cert, key }) => {
            (Login::Certificate, Some(tls::read_client(cert, key)?))
        }
        Some(Credentials::CertificatePem { cert, key }) => {
            let origin = "nerves_hub_cert and nerves_hub_key".to_owned();
            (
                Login::Certificate,
                Some(ClientCertificate {
                    chain: cert.clone(),
                    key: key.clone(),
                    origin,
                }),
            )
        }
        None => (Login::Certificate, None),
    };
    let dialer = Dialer {
        tls: tls::client_config(&config.tls, certificate.as_ref())?,
        proxy: config.proxy.clone(),
        timeouts: config.link.timeouts,
        server_name: config.tls.server_name.clone(),
    };
    Ok(socket::Context {
        dialer: Arc::new(dialer),
        login,
        serializer: config.link.serializer,
    })
}

/// The live connection's thread.
struct SocketHandle {
    conn: ConnId,
    commands: Sender<socket::Command>,
    waker: Waker,
}

struct Agent {
    config: Config,
    core: Core,
    access: Access,
    crew: Crew,
    inbox: Receiver<Event>,
    /// Facts the dispatcher found out itself while performing.
    own: VecDeque<Event>,
    socket: Option<SocketHandle>,
    heartbeat: Sender<Beat>,
    install: Option<(JobId, Cancel)>,
    leaving: bool,
}

impl Agent {
    fn new(config: Config, core: Core, access: Access) -> Result<Self, StartError> {
        let (sender, inbox) = bounded(INBOX);
        let (heartbeat, _) = bounded(0);
        let mut agent = Self {
            config,
            core,
            access,
            crew: Crew::new(sender),
            inbox,
            own: VecDeque::new(),
            socket: None,
            heartbeat,
            install: None,
            leaving: false,
        };
        agent.start_heartbeat_worker();
        Ok(agent)
    }

    /// The loop.
    fn serve(&mut self) {
        self.own.push_back(Event::Started);
        while !self.leaving {
            let event = match self.own.pop_front() {
                Some(event) => Ok(event),
                None => self.receive(),
            };
            let effects = match event {
                Ok(event) => {
                    if let Event::WorkerExited(worker, result) = &event {
                        self.crew.release(*worker, result);
                    }
                    self.core.handle(Instant::now(), event)
                }
                Err(RecvTimeoutError::Timeout) => self.core.on_time(Instant::now()),
                // Invariant: the crew holds a sender for as long as we live.
                Err(RecvTimeoutError::Disconnected) => break,
            };
            for effect in effects {
                self.perform(effect);
            }
        }
        self.crew.join_all(&self.inbox, LEAVE);
    }

    fn receive(&self) -> Result<Event, RecvTimeoutError> {
        match self.core.next_deadline() {
            Some(deadline) if deadline <= Instant::now() => {
                // Timers do not starve behind a busy inbox.
                Err(RecvTimeoutError::Timeout)
            }
            Some(deadline) => self.inbox.recv_deadline(deadline),
            None => self
                .inbox
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Connect(conn, attempt) => self.connect(conn, attempt),
            Effect::Disconnect(conn) => self.disconnect(conn),
            Effect::Push(conn, push) => self.push(conn, push),
            Effect::StartHeartbeat(conn) => self.beat(Some(conn)),
            Effect::StopHeartbeat => self.beat(None),
            Effect::FindInterface(conn, address) => self.one_shot("interface", move || {
                Event::InterfaceFound(conn, interface::holding(address))
            }),
            Effect::ReadValidation => self.read_validation(),
            Effect::StartInstall(job, order) => self.start_install(job, *order),
            Effect::CancelInstall(job) => self.cancel_install(job),
            Effect::Reboot => self.reboot(),
            Effect::ReloadCredentials => self.access.reload(&self.config),
            Effect::Exit => self.leaving = true,
        }
    }

    /// Starts a worker; that none can be started is an event like its end.
    fn spawn(
        &mut self,
        name: &'static str,
        worker: Worker,
        work: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) {
        if let Err(error) = self.crew.spawn(name, worker, work) {
            let reason = format!("no thread for {name}: {error}");
            self.own.push_back(Event::WorkerExited(worker, Err(reason)));
        }
    }

    /// A short job on a thread of its own that answers with one event.
    fn one_shot(&mut self, name: &'static str, job: impl FnOnce() -> Event + Send + 'static) {
        let inbox = self.crew.inbox();
        self.spawn(name, Worker::OneShot(name), move || {
            inbox.send(job()).map_err(|_| "no dispatcher".to_owned())
        });
    }

    fn connect(&mut self, conn: ConnId, attempt: Attempt) {
        let (commands, queue) = bounded(socket::QUEUE);
        let waker = match Waker::new() {
            Ok(waker) => waker,
            Err(error) => {
                let lost = Err(format!("no descriptor for the socket thread: {error}"));
                return self
                    .own
                    .push_back(Event::WorkerExited(Worker::Socket(conn), lost));
            }
        };
        self.socket = Some(SocketHandle {
            conn,
            commands,
            waker: waker.clone(),
        });
        let (context, inbox) = (self.access.context.clone(), self.crew.inbox());
        self.spawn("socket", Worker::Socket(conn), move || {
            socket::run(conn, &attempt, &context, &queue, &waker, &inbox)
        });
    }

    fn disconnect(&mut self, conn: ConnId) {
        if self
            .socket
            .as_ref()
            .is_some_and(|socket| socket.conn == conn)
            && let Some(SocketHandle {
                commands, waker, ..
            }) = self.socket.take()
        {
            drop(commands);
            waker.wake();
        }
    }

    fn push(&mut self, conn: ConnId, push: crate::wire::Push) {
        let Some(socket) = self.socket.as_ref().filter(|socket| socket.conn == conn) else {
            return;
        };
        match socket.commands.try_send(socket::Command::Send(push)) {
            Ok(()) => socket.waker.wake(),
            // The thread has ended; why is in the inbox.
            Err(error) if error.is_disconnected() => {}
            Err(_) => {
                self.disconnect(conn);
                let reason = "the hub takes no data".to_owned();
                self.own
                    .push_back(Event::Socket(conn, SocketEvent::Closed(reason)));
            }
        }
    }

    fn start_heartbeat_worker(&mut self) {
        let (orders, receiver) = bounded(8);
        self.heartbeat = orders;
        let (interval, inbox) = (self.config.link.heartbeat_interval, self.crew.inbox());
        self.spawn("heartbeat", Worker::Heartbeat, move || {
            heartbeat::run(interval, &receiver, &inbox)
        });
    }

    fn beat(&mut self, beat: Beat) {
        if self.heartbeat.try_send(beat).is_err() {
            self.start_heartbeat_worker();
            // A fresh worker has room for its first order.
            let _ = self.heartbeat.try_send(beat);
        }
    }

    fn read_fwup_version(&mut self) {
        let path = self.config.fwup.path.clone();
        self.one_shot("fwup-version", move || {
            let mut program = Command::new(&path);
            program.arg("--version");
            command::without_secrets(&mut program);
            let output = command::capture(&mut program, FWUP_VERSION_DEADLINE, COMMAND_OUTPUT);
            let version = match output {
                Ok(output) if output.status.success() => {
                    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
                }
                Ok(output) => {
                    log::error!("{} --version: {}", path.display(), output.status);
                    None
                }
                Err(error) => {
                    log::error!("{error}");
                    None
                }
            };
            Event::FwupVersionRead(version.filter(|version| !version.is_empty()))
        });
    }

    fn read_validation(&mut self) {
        let settings = self.config.metadata.clone();
        self.one_shot("validation", move || {
            let read = metadata::load(&settings)
                .map(|values| values.firmware(&settings.overrides).validated);
            Event::ValidationRead(read.unwrap_or_else(|error| {
                log::warn!("whether the firmware is valid cannot be read: {error}");
                false
            }))
        });
    }

    fn start_install(&mut self, job: JobId, order: InstallOrder) {
        let cancel = match Cancel::new() {
            Ok(cancel) => cancel,
            Err(error) => {
                let lost = Err(format!("no descriptor for the update: {error}"));
                return self
                    .own
                    .push_back(Event::WorkerExited(Worker::Fwup(job), lost));
            }
        };
        self.install = Some((job, cancel.clone()));
        let (chunks, firmware) = feed::channel();
        let (offer, inbox, stop) = (order.offer.clone(), self.crew.inbox(), cancel.clone());
        let (dialer, settings) = (self.access.download.clone(), self.config.download);
        let allow_insecure = self.config.allow_insecure;
        self.spawn("download", Worker::Download(job), move || {
            let tell = |event| {
                // The dispatcher is gone only when the process leaves.
                let _ = inbox.send(Event::Install(job, event));
            };
            let means = Means {
                settings,
                dialer,
                allow_insecure,
                cancel: &stop,
                feed: &chunks,
                tell: &tell,
            };
            download::run(job, &offer, &means, &inbox)
        });
        let (settings, inbox) = (self.config.fwup.clone(), self.crew.inbox());
        self.spawn("fwup", Worker::Fwup(job), move || {
            fwup::run(job, &settings, &order, firmware, &cancel, &inbox)
        });
    }

    fn cancel_install(&mut self, job: JobId) {
        if let Some((_, cancel)) = self.install.take_if(|(current, _)| *current == job) {
            cancel.cancel();
        }
    }

    fn reboot(&mut self) {
        let text = self.config.reboot_command.clone();
        self.one_shot("reboot", move || {
            log::info!("flushing disks, then rebooting: {text}");
            nix::unistd::sync();
            let output = command::capture(
                &mut command::shell(&text),
                REBOOT_COMMAND_DEADLINE,
                COMMAND_OUTPUT,
            );
            Event::RebootCommandEnded(match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    Err(format!(
                        "NERVES_HUB_REBOOT_COMMAND: {text:?}: {}: {}",
                        output.status,
                        said.trim()
                    ))
                }
                Err(error) => Err(format!("NERVES_HUB_REBOOT_COMMAND: {text:?}: {error}")),
            })
        });
    }
}
