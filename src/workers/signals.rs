//! Thread `signals`: turns signals into events.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::core::event::{Event, Signal};
use crate::system::channel::Sender;

/// Takes the signals over; call before any other thread exists.
///
/// # Errors
/// The handlers cannot be installed.
pub fn install() -> std::io::Result<Signals> {
    Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])
}

/// Runs until the dispatcher is gone.
///
/// # Errors
/// None; the signature is that of every worker.
pub fn run(mut signals: Signals, inbox: &Sender<Event>) -> Result<(), String> {
    for number in signals.forever() {
        let signal = match number {
            SIGHUP => Signal::Reload,
            SIGUSR1 => Signal::Status,
            _ => Signal::Terminate,
        };
        if inbox.send(Event::Signal(signal)).is_err() {
            break;
        }
    }
    Ok(())
}
