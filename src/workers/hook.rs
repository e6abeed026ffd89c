//! Thread `hook`: one run of one hook.

use crossbeam_channel::Sender;

use crate::core::effect::HookOrder;
use crate::core::event::{Event, RunId};
use crate::system::hook::Site;

/// Runs the hook to its end; how that was is its only event.
///
/// # Errors
/// None; failures are in the event.
pub fn run(id: RunId, order: &HookOrder, site: &Site, inbox: &Sender<Event>) -> Result<(), String> {
    let end = site.run(order.hook, &format!("{}\n", order.input));
    // The dispatcher is gone only when the process leaves.
    let _ = inbox.send(Event::HookEnded(id, end));
    Ok(())
}
