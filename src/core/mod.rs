//! The part that decides. Pure: no I/O, clock, threads, environment or random source;
//! `(events, time) -> effects`, tested in virtual time.
//!
//! * [`link`] keeps one connection to the hub alive.
//! * `channel` keeps channels joined on it; [`device`] is what is said on the first.
//! * [`keys`] has the public keys that the hub sends.
//! * [`archive`] takes the files that come beside firmware.
//! * [`update`] takes one offer from arrival to reboot; `renewal` gets it another URL.
//! * `decision` asks whoever decides; [`policy`] makes of it what becomes of an offer.
//! * `notice` tells hooks what happens.
//! * [`trial`] gets the running firmware marked valid, or rolled back.
//! * [`shell`] has the shells that people at the hub open, by way of the `console` channel or
//!   of the `local_shell` extension; [`extensions`] attaches and detaches; `outlet` is what
//!   shells print on its way to the hub.
//! * [`operator`] does what people at the hub's page ask for: scripts, files, identify.
//! * `sending` has the file that goes to the hub's console.
//! * [`control`] answers the clients of the control socket; [`alarms`] is what they and the
//!   agent itself want looked at.
//! * [`reboot`] sees to it that a reboot decided upon takes place.

pub mod alarms;
pub mod archive;
mod archive_choice;
pub mod backoff;
mod channel;
mod console;
pub mod control;
mod decision;
pub mod device;
pub mod effect;
pub mod endpoint;
pub mod event;
pub mod extensions;
pub mod keys;
pub mod link;
mod notice;
pub mod operator;
mod outlet;
pub mod policy;
pub mod reboot;
mod renewal;
mod sending;
pub mod shell;
pub mod status;
#[cfg(test)]
mod tests;
pub mod timers;
pub mod trial;
pub mod update;
mod version;
pub mod window;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::{ArchivePolicy, LinkSettings, PolicySettings, ShellPolicy, TrialSettings};
use alarms::{Alarm, Alarms};
use archive::Archives;
use channel::Channels;
use control::Control;
use decision::Decisions;
use device::Device;
use effect::{Effect, HubKeys};
use endpoint::Endpoint;
use event::{
    ArchiveEnd, Counted, Errand, Event, HookEnd, Opening, SendEvent, ShellEnd, ShellEvent, Signal,
    Worker,
};
use extensions::{Enabled, Extensions};
use keys::Ring;
use link::Link;
use notice::Notices;
use operator::{Operator, OperatorSetup};
use reboot::{Installed, Reboot};
use sending::Sending;
use shell::Shells;
use timers::{Timer, Timers};
use trial::Trial;
use update::Update;

/// Everything the core is told once.
#[derive(Clone, Debug)]
pub struct Setup {
    pub identifier: String,
    /// `None`: stay offline.
    pub endpoint: Option<Endpoint>,
    pub link: LinkSettings,
    /// The upgrade is signed with a shared secret, so the clock matters.
    pub signs: bool,
    pub allow_insecure: bool,
    /// `nerves_fw_*` keys of the join payload.
    pub firmware: BTreeMap<String, String>,
    pub firmware_uuid: Option<String>,
    pub firmware_validated: bool,
    pub auto_revert_detected: bool,
    pub trial: TrialSettings,
    pub policy: PolicySettings,
    /// How often the running firmware was rebooted unvalidated; `None`: cannot be read.
    pub trial_reboots: Option<u64>,
    pub reboot_timeout: Duration,
    pub reboot_force: bool,
    /// Why an update would overwrite the running slot.
    pub stale_slot: Option<String>,
    pub devpath: Option<PathBuf>,
    /// What applies updates, told to the hub: `fwup` or the integrator's program.
    pub update_tool: String,
    /// It is the integrator's, which checks signatures and knows where to write: neither
    /// public keys nor a device path are demanded.
    pub installer_verifies: bool,
    pub public_keys: Vec<String>,
    pub request_public_keys: bool,
    pub archives: ArchivePolicy,
    pub archive_keys: Vec<String>,
    pub request_archive_keys: bool,
    /// Archives that earlier runs handled.
    pub handled_archives: Vec<String>,
    /// Keys the hub sent in earlier runs; `None`: none are kept.
    pub kept_keys: Option<HubKeys>,
    pub shells: ShellPolicy,
    pub operator: OperatorSetup,
    pub extensions: Vec<Enabled>,
    /// How long an extension may work upon one thing.
    pub extension_timeout: Duration,
    pub shutdown_timeout: Duration,
    pub fresh_offer_timeout: Duration,
    /// The device's clock is before the agent was built.
    pub clock_unset: bool,
    /// The slot that runs, where that is known.
    pub running_slot: Option<String>,
    /// Firmware that was installed in this boot by an earlier run, and whose reboot is owed.
    pub installed: Option<Installed>,
    /// Differs between devices and starts.
    pub seed: u64,
}

/// All state of the agent. One owner: the dispatcher.
pub struct Core {
    setup: Setup,
    started: Instant,
    now: Instant,
    timers: Timers,
    effects: Vec<Effect>,
    link: Link,
    channels: Channels,
    device: Device,
    update: Update,
    trial: Trial,
    reboot: Reboot,
    archives: Archives,
    ring: Ring,
    shells: Shells,
    extensions: Extensions,
    operator: Operator,
    sending: Sending,
    control: Control,
    alarms: Alarms,
    decisions: Decisions,
    notices: Notices,
    /// SIGTERM came: no new connection, no new update.
    leaving: bool,
}

impl Core {
    pub fn new(setup: Setup, now: Instant) -> Self {
        Self {
            link: Link::new(&setup),
            channels: Channels::new(&setup),
            device: Device::new(&setup),
            update: Update::default(),
            trial: Trial::new(&setup),
            reboot: Reboot::default(),
            archives: Archives::new(&setup),
            ring: Ring::new(&setup),
            shells: Shells::new(),
            extensions: Extensions::new(&setup),
            operator: Operator::default(),
            sending: Sending::default(),
            control: Control::default(),
            alarms: Alarms::new(&setup),
            decisions: Decisions::default(),
            notices: Notices::default(),
            started: now,
            timers: Timers::default(),
            effects: Vec::new(),
            leaving: false,
            now,
            setup,
        }
    }

    /// When [`Core::on_time`] wants to be called, if no event comes before.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Takes one event; what must be done about it comes back in order.
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        self.now = now;
        match event {
            Event::Started => self.on_started(),
            Event::FwupVersionRead(version) => self.on_fwup_version_read(version),
            Event::HeartbeatDue(conn) => self.on_heartbeat_due(conn),
            Event::Socket(conn, event) => self.on_socket(conn, event),
            Event::InterfaceFound(conn, name) => self.on_interface_found(conn, name),
            Event::ValidationRead(validated) => self.on_validation_read(validated),
            Event::FirmwareChecked(result) => self.on_firmware_checked(result),
            Event::ValidMarked(result) => self.on_valid_marked(result),
            Event::TrialRebootCounted(counted) => self.on_trial_reboot_counted(counted),
            Event::Install(job, event) => self.on_install(job, event),
            Event::FirmwareRead(read) => self.on_firmware_read(read),
            Event::ArchiveEnded(job, end) => self.on_archive_ended(job, end),
            Event::KeysKept(result) => self.on_keys_kept(result),
            Event::Shell(id, event) => self.on_shell_event(id, event),
            Event::RebootCommandEnded(result) => self.on_reboot_command_ended(result),
            Event::ForcedRebootFailed(reason) => self.on_reboot_failed(&reason),
            Event::ScriptEnded(script, end) => self.on_script_ended(script, end),
            Event::UploadEnded(upload, result) => self.on_upload_ended(upload, result),
            Event::HookEnded(run, end) => self.on_hook_ended(run, end),
            Event::WindowFound(opening) => self.on_window_found(opening),
            Event::Signal(signal) => self.on_signal(signal),
            Event::Control(client, event) => self.on_control(client, event),
            Event::SendFile(id, event) => self.on_send_event(id, event),
            Event::Extension(id, event) => self.on_extension(id, event),
            Event::AlarmFile { name, description } => self.on_alarm_file(name, description),
            Event::KeysReread { firmware, archive } => self.on_keys_reread(firmware, archive),
            Event::ClockSet => self.on_clock_set(),
            Event::WorkerExited(worker, result) => self.on_worker_exited(worker, result),
        }
        self.tend();
        std::mem::take(&mut self.effects)
    }

    /// Fires the timers that are due.
    pub fn on_time(&mut self, now: Instant) -> Vec<Effect> {
        self.now = now;
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Reconnect => self.connect(),
                Timer::Rejoin(topic) => self.on_rejoin_due(topic),
                Timer::JoinReply(topic) => self.on_join_overdue(topic),
                Timer::ExtensionsUnasked => self.on_extensions_get(None),
                Timer::Extension(id) => self.on_extension_overdue(id),
                Timer::ShellIdle(kind) => self.on_shell_idle(kind),
                Timer::Interface => self.on_interface_timer(),
                Timer::FreshOffer => self.on_fresh_offer_overdue(),
                Timer::Validation => self.read_validation(),
                Timer::Keys => self.on_keys_settled(),
                // What waited for them is tended below.
                Timer::ArchiveKeys => {}
                Timer::Archive => self.on_archive_due(),
                Timer::Hold => self.on_hold_over(),
                Timer::ArchiveHold => self.on_archive_hold_over(),
                Timer::Decider => self.on_decider_overdue(),
                Timer::Notice => self.run_waiting(),
                Timer::RebootDeferred => self.on_reboot_deferred(),
                Timer::RebootAnyway => self.on_report_overdue(),
                Timer::RebootAnnounced => self.order_reboot(),
                Timer::RebootOverdue => self.on_reboot_overdue(),
                Timer::RebootRetry => self.on_reboot_retry(),
                Timer::Trial => self.on_trial_over(),
                Timer::Script => self.on_script_due(),
                Timer::Uploads => self.on_uploads_due(),
                Timer::Shutdown => self.on_shutdown_overdue(),
            }
        }
        self.tend();
        std::mem::take(&mut self.effects)
    }

    /// After every event: what follows from the state as it is now.
    fn tend(&mut self) {
        self.tend_archives();
        self.tend_connected();
        self.tend_console();
        self.tend_alarms();
    }

    fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn set_timer(&mut self, timer: Timer, after: Duration) {
        self.timers.set(timer, self.now + after);
    }

    fn on_started(&mut self) {
        if self.setup.auto_revert_detected {
            let alarm = Alarm::FirmwareReverted;
            warn!("alarm {}: {}", alarm.name(), alarm.description());
        }
        if let Some(installed) = self.setup.installed.take() {
            self.keep_promise(installed);
        }
        self.begin_trial();
        self.start_extensions();
        self.ask_for_delays();
        if self.setup.endpoint.is_none() {
            info!("NERVES_HUB_CONNECT is false: staying offline");
        }
        self.connect();
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Terminate => self.on_terminate(),
            Signal::Reload => self.on_reload(),
            Signal::Status => info!("{}", self.status()),
        }
    }

    fn on_terminate(&mut self) {
        if self.leaving {
            warn!("second termination signal: leaving at once");
            self.abandon_install();
            return self.exit();
        }
        self.leaving = true;
        self.timers.cancel(Timer::Reconnect);
        self.drop_question_about_update("leaving");
        if self.finish_or_cancel_update() || self.finish_reboot() {
            return;
        }
        info!("leaving");
        self.exit();
    }

    fn exit(&mut self) {
        self.disconnect();
        self.effect(Effect::Exit);
    }

    /// Workers end for many reasons; most have already told theirs in an event.
    fn on_worker_exited(&mut self, worker: Worker, result: Result<(), String>) {
        if let Err(reason) = &result {
            error!("worker {worker:?} ended: {reason}");
        }
        if let Worker::Socket(conn) = worker {
            self.on_socket_gone(conn);
        }
        match (worker, result) {
            (Worker::Socket(conn), Err(reason)) => self.on_closed(conn, &reason),
            (Worker::Heartbeat, Err(_)) => self.restart_heartbeat(),
            (Worker::Download(job), Err(reason)) => self.on_download_lost(job, &reason),
            (Worker::Installer(job), Err(reason)) => self.on_installer_lost(job, &reason),
            (Worker::Archive(job), Err(reason)) => {
                self.on_archive_ended(job, ArchiveEnd::Failed(reason))
            }
            (Worker::Shell(id), Err(reason)) => {
                self.on_shell_event(id, ShellEvent::Ended(ShellEnd::Lost(reason)))
            }
            (Worker::Script(script), Err(reason)) => self.on_script_lost(script, reason),
            (Worker::Uploads(_), Err(reason)) => self.on_uploads_lost(&reason),
            (Worker::Identify, _) => self.operator.is_identifying = false,
            (Worker::SendFile(id), Err(reason)) => {
                self.on_send_event(id, SendEvent::Ended(Err(reason)))
            }
            (Worker::Hook(run), Err(reason)) => self.on_hook_ended(run, HookEnd::Failed(reason)),
            (Worker::Errand(errand), Err(reason)) => self.on_errand_failed(errand, reason),
            (Worker::Control, _) => self.on_control_lost(),
            (Worker::Extension(id), result) => self.on_extension_ended(id, result),
            (Worker::Signals | Worker::AlarmFiles, Err(_)) | (_, Ok(())) => {}
        }
    }

    /// An errand without an answer (no thread left, a panic) is answered for.
    fn on_errand_failed(&mut self, errand: Errand, reason: String) {
        match errand {
            Errand::FwupVersion => self.on_fwup_version_read(None),
            Errand::Validation => self.on_validation_read(None),
            Errand::FirmwareCheck => self.on_firmware_checked(Err(reason)),
            Errand::MarkValid => self.on_valid_marked(Err(reason)),
            Errand::CountTrialReboot => self.on_trial_reboot_counted(Counted::Failed(reason)),
            Errand::ForceReboot => self.on_reboot_failed(&reason),
            Errand::Reboot => self.on_reboot_command_ended(Err(reason)),
            Errand::Keys => self.on_keys_kept(Err(reason)),
            Errand::FirmwareFile => self.on_firmware_read(Err(reason)),
            Errand::Window => self.on_window_found(Opening::Never),
            // The hub learns the interface with the next connection.
            // A count left over is dropped at the next start.
            Errand::Interface | Errand::ForgetTrialReboots => {}
        }
    }
}
