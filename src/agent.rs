//! The dispatcher: THE loop. Receives an event, lets the core decide, performs the
//! effects. Never blocks on anything but its inbox.

mod access;
mod archives;
mod control;
mod errands;
mod extensions;
mod hooks;
mod install;
mod left;
mod operator;
mod service;
mod shells;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::config::{Config, ConfigErrors};
use crate::core::Core;
use crate::core::effect::{Attempt, Effect};
use crate::core::event::{ConnId, Errand, Event, SocketEvent, Worker};
use crate::system::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use crate::system::hook::Site;
use crate::system::notify::Notifier;
use crate::system::slots::{self, Guard, SlotSettings};
use crate::system::waker::Waker;
use crate::system::{footprint, identity, interface, lock, metadata, time};
use crate::update::cache;
use crate::update::journal::Journal;
use crate::workers::heartbeat::{self, Beat};
use crate::workers::spawn::Crew;
use crate::workers::{signals, socket};
use access::Access;
use extensions::Extensions;
use operator::Hands;

/// Events waiting for the dispatcher; workers wait when it is full.
const INBOX: usize = 256;
/// How long leaving waits for workers that hold something worth ending well.
const LEAVE: Duration = Duration::from_secs(3);
/// How long a start waits for another agent to leave the data folder.
const SUCCESSION: Duration = Duration::from_secs(15);

/// What keeps the agent from starting.
#[derive(Debug)]
pub enum StartError {
    /// Exit code 78.
    Config(String),
    /// Exit code 71.
    System(String),
    /// Exit code 75.
    Busy(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) | Self::System(text) | Self::Busy(text) => f.write_str(text),
        }
    }
}

/// Reads the settings once more, and the files they name with them.
pub type Reread = Box<dyn Fn() -> Result<(Config, Vec<String>), ConfigErrors>>;

/// Runs until told to stop.
///
/// # Errors
/// What keeps it from starting; afterwards nothing does.
pub fn run(mut config: Config, reread: Reread) -> Result<(), StartError> {
    // Before signals are taken over, so that they end the wait; let go of last.
    let _lock = lock::take(&config.data_path, SUCCESSION).map_err(StartError::Busy)?;
    let signals =
        signals::install().map_err(|error| StartError::System(format!("signals: {error}")))?;
    let journal = Journal::new(&config.data_path);
    let owed = left::judge(&journal, &mut config);
    let (values, unread) = metadata::load_with_warning(&config.metadata)
        .map_err(|error| StartError::Config(error.to_string()))?;
    if let Some(warning) = &unread {
        warn!("{warning}");
    }
    let (values, running) = slots::reconcile(&SlotSettings::new(&config), values);
    let mut firmware = values.firmware(&config.metadata.overrides, running.slot.as_deref());
    let identifier = identity::identifier(&config.identifier, &values)
        .map_err(|error| StartError::Config(error.to_string()))?;
    let access = Access::new(&config, &values, &identifier)?;
    let hooks = hooks::site(&config, &identifier, &firmware);
    hooks::correct(&mut firmware, &config, &hooks);
    if let Some(uuid) = &firmware.uuid {
        cache::forget(&config.cache, uuid);
    }
    let mut setup = access::setup(&config, &firmware, running.stale, identifier, &access);
    let journal = journal.after(owed.as_ref());
    setup.installed = owed.map(left::promise);
    setup.running_slot = running.slot.clone().or_else(|| firmware.slot.clone());
    setup.trial_reboots = access::trial_reboots(&config, &firmware, unread.is_none());
    let hands = Hands::new(&config, &setup, &hooks);
    let identifier = setup.identifier.clone();
    let (extensions, enabled) = Extensions::new(&config, &identifier, &access.download);
    setup.extensions = enabled;
    let core = Core::new(setup, Instant::now());
    let slot = running.slot.or(firmware.slot);
    let journal = journal.in_slot(slot.clone());
    let guard = Guard::new(SlotSettings::new(&config), slot, &values);
    let mut agent = Agent::new(config, core, access, journal, guard)?;
    (agent.hands, agent.hooks, agent.reread) = (hands, hooks, Some(reread));
    agent.extensions = extensions;
    let inbox = agent.crew.inbox();
    agent.spawn("signals", Worker::Signals, move || {
        signals::run(signals, &inbox)
    });
    agent.start_control(identifier);
    agent.watch_alarm_files();
    agent.read_fwup_version();
    agent.write_pid_file();
    agent.serve();
    agent.remove_pid_file();
    Ok(())
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
    journal: Journal,
    guard: Guard,
    crew: Crew,
    inbox: Receiver<Event>,
    /// Facts the dispatcher found out itself while performing.
    own: VecDeque<Event>,
    socket: Option<SocketHandle>,
    heartbeat: Sender<Beat>,
    install: Option<install::Running>,
    archive: Option<archives::Running>,
    shells: Vec<shells::Handle>,
    hands: Hands,
    control: Option<control::Running>,
    hooks: Site,
    extensions: Extensions,
    notifier: Notifier,
    reread: Option<Reread>,
    leaving: bool,
}

impl Agent {
    fn new(
        config: Config,
        core: Core,
        access: Access,
        journal: Journal,
        guard: Guard,
    ) -> Result<Self, StartError> {
        let (sender, inbox) = bounded(INBOX);
        let (heartbeat, _) = bounded(0);
        let notifier = Notifier::new(&config.service);
        let mut agent = Self {
            config,
            core,
            access,
            journal,
            guard,
            crew: Crew::new(sender),
            inbox,
            own: VecDeque::new(),
            socket: None,
            heartbeat,
            install: None,
            archive: None,
            shells: Vec::new(),
            hands: Hands::default(),
            control: None,
            hooks: Site::default(),
            extensions: Extensions::default(),
            notifier,
            reread: None,
            leaving: false,
        };
        agent.start_heartbeat_worker();
        Ok(agent)
    }

    /// The loop.
    fn serve(&mut self) {
        self.own.push_back(Event::Started);
        self.notifier.tell("READY=1");
        while !self.leaving {
            let event = match self.own.pop_front() {
                Some(event) => Ok(event),
                None => self.receive(),
            };
            if self.core.awaits_clock() && time::is_plausible() {
                self.own.push_back(Event::ClockSet);
            }
            let effects = match event {
                Ok(event) => {
                    if let Event::WorkerExited(worker, result) = &event {
                        self.crew.release(*worker, result);
                        if let Worker::Shell(id) = worker {
                            self.forget_shell(*id);
                        }
                        self.forget_hand(*worker);
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
            self.show_life();
        }
        self.notifier.tell("STOPPING=1");
        self.hooks.stop();
        self.end_shells();
        self.end_extensions();
        self.hands.stop();
        self.close_control();
        self.crew.join_all(&self.inbox, LEAVE);
    }

    fn receive(&self) -> Result<Event, RecvTimeoutError> {
        let (next, sign) = (self.core.next_deadline(), self.notifier.next());
        match next.into_iter().chain(sign).min() {
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
            Effect::FindInterface(conn, address) => self.errand(Errand::Interface, move || {
                Event::InterfaceFound(conn, interface::holding(address))
            }),
            Effect::ReadValidation => self.read_validation(),
            Effect::CheckFirmware(text) => self.check_firmware(text),
            Effect::MarkValid => self.mark_valid(),
            Effect::CountTrialReboot { uuid, number } => self.count_trial_reboot(uuid, number),
            Effect::ForgetTrialReboots => self.forget_trial_reboots(),
            Effect::StartInstall(job, order) => self.start_install(job, *order),
            Effect::CancelInstall(job) => self.cancel_install(job),
            Effect::RenewUrl(job, url) => self.renew_url(job, url),
            Effect::ReadFirmware { path, public_keys } => self.read_firmware(path, public_keys),
            Effect::StartArchive(job, order) => self.start_archive(job, *order),
            Effect::CancelArchive(job) => self.cancel_archive(job),
            Effect::KeepKeys(keys) => self.keep_keys(keys),
            Effect::Shell(id, order) => self.shell(id, order),
            Effect::Extension(id, order) => self.extension(id, order),
            Effect::RunScript(id, order) => self.run_script(id, *order),
            Effect::Upload(step) => self.upload(step),
            Effect::EndUploads => self.end_uploads(),
            Effect::Identify => self.identify(),
            Effect::RunHook(id, order) => self.run_hook(id, *order),
            Effect::FindWindow { hub_time } => self.find_window(hub_time),
            Effect::StartSending(id, path) => self.start_sending(id, path),
            Effect::SendMore(id) => self.send_more(id),
            Effect::CancelSending(id) => self.cancel_sending(id),
            Effect::Reboot => self.reboot(),
            Effect::ForceReboot => self.force_reboot(),
            Effect::Settle => footprint::release_code(),
            Effect::Tell(client, said) => self.tell(client, said),
            Effect::ReloadCredentials => self.reload(),
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
            self.on_no_thread(name, worker, &error);
        }
    }

    fn on_no_thread(&mut self, name: &str, worker: Worker, error: &std::io::Error) {
        let reason = format!("no thread for {name}: {error}");
        self.own.push_back(Event::WorkerExited(worker, Err(reason)));
    }

    /// A short job on a thread of its own that answers with one event.
    fn errand(&mut self, errand: Errand, job: impl FnOnce() -> Event + Send + 'static) {
        self.send_on(errand, Box::new(job));
    }

    /// Boxed, so that it is compiled once and not for every errand.
    fn send_on(&mut self, errand: Errand, job: Box<dyn FnOnce() -> Event + Send>) {
        let inbox = self.crew.inbox();
        self.spawn(errand.name(), Worker::Errand(errand), move || {
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
        match socket
            .commands
            .try_send(socket::Command::Send(Box::new(push)))
        {
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
}
