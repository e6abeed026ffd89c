//! Thread `hook`: one run of one hook.

use crate::core::effect::HookOrder;
use crate::core::event::{Event, RunId};
use crate::system::channel::Sender;
use crate::system::hook::{Call, Site};

/// Runs the hook to its end; how that was is its only event.
///
/// # Errors
/// None; failures are in the event.
pub fn run(id: RunId, order: &HookOrder, site: &Site, inbox: &Sender<Event>) -> Result<(), String> {
    let input = format!("{}\n", order.input);
    let end = site.run(&Call {
        input: &input,
        ..Call::new(order.hook)
    });
    // The dispatcher is gone only when the process leaves.
    let _ = inbox.send(Event::HookEnded(id, end));
    Ok(())
}
