//! Threads whose panic is a message, although release builds cannot unwind.
//!
//! Release builds carry no unwind tables (a fifth of the binary), so a panic cannot be
//! caught. Instead the panic hook tells the thread's owner and then never returns: the
//! thread stays parked with what it holds, and everything else goes on. Only a panic of a
//! thread not started here, the dispatcher above all, ends the process with code 70, for
//! init to start it again.

use std::cell::RefCell;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::thread::{Builder, JoinHandle};

/// Virtual size only; pages are used as the stack grows.
const STACK: usize = 512 * 1024;

type LastWords = Box<dyn FnOnce(String) + Send>;

thread_local! {
    /// What this thread's owner wants to hear if it panics.
    static LAST_WORDS: RefCell<Option<LastWords>> = const { RefCell::new(None) };
}

/// Makes the panic of a thread started here a message. Call once, before any.
pub fn contain_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let last_words = LAST_WORDS.try_with(|words| words.try_borrow_mut().ok()?.take());
        if let Ok(Some(last_words)) = last_words {
            last_words(describe(panic));
            loop {
                std::thread::park();
            }
        }
        // Not the logger: it may be what panicked.
        let _ = writeln!(std::io::stderr(), "nerveshub-agent: {}", describe(panic));
        std::process::exit(i32::from(crate::exit::SOFTWARE));
    }));
}

fn describe(panic: &PanicHookInfo) -> String {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let place = panic
        .location()
        .map_or(String::new(), |place| format!(" at {place}"));
    format!("panicked{place}: {}", text.unwrap_or("no message"))
}

/// Starts a thread called `name` (≤ 15 bytes, as `ps -T` shows); `last_words` hears of its
/// panic. After one, joining the thread would take for ever.
///
/// # Errors
/// The system has no thread left.
pub fn spawn(
    name: &'static str,
    last_words: impl FnOnce(String) + Send + 'static,
    work: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    start(name, Box::new(last_words), Box::new(work))
}

/// Boxed, for what the standard library does to start a thread is 2 KiB for every kind.
fn start(
    name: &'static str,
    last_words: LastWords,
    work: Box<dyn FnOnce() + Send>,
) -> std::io::Result<JoinHandle<()>> {
    debug_assert!(name.len() <= 15, "{name}");
    Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(move || {
            LAST_WORDS.set(Some(last_words));
            work();
            LAST_WORDS.set(None);
        })
}

/// Does `work` on every item at the same time: the first one here, each other on a thread
/// called `name`. Waits for all; the results are in the items' order. A panic of such a
/// thread ends the process, as the dispatcher's does: its work could not be taken over.
pub fn each<T: Send, R: Send>(
    name: &'static str,
    items: &mut [T],
    work: impl Fn(&mut T) -> R + Sync,
) -> Vec<R> {
    let Some((first, others)) = items.split_first_mut() else {
        return Vec::new();
    };
    let mut results: Vec<Option<R>> = others.iter().map(|_| None).collect();
    let work = &work;
    let first = std::thread::scope(|scope| {
        for (item, result) in others.iter_mut().zip(&mut results) {
            let job = move || *result = Some(work(item));
            let builder = Builder::new().name(name.to_owned()).stack_size(STACK);
            if let Err(error) = builder.spawn_scoped(scope, job) {
                warn!("no thread for {name}: {error}");
            }
        }
        work(first)
    });
    std::iter::once(first)
        .chain(results.into_iter().flatten())
        .collect()
}
