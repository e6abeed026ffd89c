//! Thread `heartbeat`: says when a heartbeat is due on the open connection, and sleeps
//! for good while there is none.

use std::time::{Duration, Instant};

use crate::core::event::{ConnId, Event};
use crate::system::channel::{Receiver, RecvTimeoutError, Sender};

/// The connection to beat for; `None` to rest.
pub type Beat = Option<ConnId>;

/// Runs until the orders' sender is dropped.
///
/// # Errors
/// None; the signature is that of every worker.
pub fn run(
    interval: Duration,
    orders: &Receiver<Beat>,
    inbox: &Sender<Event>,
) -> Result<(), String> {
    let mut beating: Option<(ConnId, Instant)> = None;
    loop {
        let order = match beating {
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((_, due)) => orders.recv_deadline(due),
        };
        match (order, beating) {
            (Ok(conn), _) => beating = conn.map(|conn| (conn, Instant::now() + interval)),
            (Err(RecvTimeoutError::Timeout), Some((conn, due))) => {
                if inbox.send(Event::HeartbeatDue(conn)).is_err() {
                    return Ok(());
                }
                // After a suspend the missed beats are not caught up.
                let next = (due + interval).max(Instant::now() + interval / 2);
                beating = Some((conn, next));
            }
            (Err(_), _) => return Ok(()),
        }
    }
}
