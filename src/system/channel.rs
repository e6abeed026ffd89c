//! The channels between threads: crossbeam's, with each message in a box. Its code is
//! compiled for every kind of message, 2 to 3 KiB each; this way there is but one kind.
//! Must not add anything to what crossbeam's do.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvError, SendError, select};
pub use crossbeam_channel::{RecvTimeoutError, SendTimeoutError, TryRecvError, TrySendError};

type Parcel = Box<dyn Any + Send>;

pub struct Sender<T> {
    parcels: crossbeam_channel::Sender<Parcel>,
    kind: PhantomData<fn(T)>,
}

pub struct Receiver<T> {
    parcels: crossbeam_channel::Receiver<Parcel>,
    kind: PhantomData<fn() -> T>,
}

/// Room for `depth` messages.
pub fn bounded<T>(depth: usize) -> (Sender<T>, Receiver<T>) {
    ends(crossbeam_channel::bounded(depth))
}

/// For those that bound what waits by something else than its number.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    ends(crossbeam_channel::unbounded())
}

fn ends<T>(
    (sender, receiver): (
        crossbeam_channel::Sender<Parcel>,
        crossbeam_channel::Receiver<Parcel>,
    ),
) -> (Sender<T>, Receiver<T>) {
    let (into, from) = (PhantomData, PhantomData);
    (
        Sender {
            parcels: sender,
            kind: into,
        },
        Receiver {
            parcels: receiver,
            kind: from,
        },
    )
}

fn unpack<T: 'static>(parcel: Parcel) -> T {
    match parcel.downcast() {
        Ok(message) => *message,
        // Invariant: both ends are of one kind from the start.
        Err(_) => unreachable!("a message of another channel"),
    }
}

impl<T: Send + 'static> Sender<T> {
    /// # Errors
    /// The other end is gone.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        let sent = self.parcels.send(Box::new(message));
        sent.map_err(|error| SendError(unpack(error.0)))
    }

    /// # Errors
    /// There is no room now, or the other end is gone.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let sent = self.parcels.try_send(Box::new(message));
        sent.map_err(|error| match error {
            TrySendError::Full(parcel) => TrySendError::Full(unpack(parcel)),
            TrySendError::Disconnected(parcel) => TrySendError::Disconnected(unpack(parcel)),
        })
    }

    /// # Errors
    /// There was no room for so long, or the other end is gone.
    pub fn send_timeout(&self, message: T, limit: Duration) -> Result<(), SendTimeoutError<T>> {
        let sent = self.parcels.send_timeout(Box::new(message), limit);
        sent.map_err(|error| match error {
            SendTimeoutError::Timeout(parcel) => SendTimeoutError::Timeout(unpack(parcel)),
            SendTimeoutError::Disconnected(parcel) => {
                SendTimeoutError::Disconnected(unpack(parcel))
            }
        })
    }

    /// How many messages the other end has not taken yet.
    pub fn waiting(&self) -> usize {
        self.parcels.len()
    }
}

impl<T: 'static> Receiver<T> {
    /// What is there now.
    #[cfg(test)]
    pub fn try_iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.try_recv().ok())
    }

    /// # Errors
    /// All senders are gone.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.parcels.recv().map(unpack)
    }

    /// # Errors
    /// There is no message now, or all senders are gone.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.parcels.try_recv().map(unpack)
    }

    /// # Errors
    /// There was no message for so long, or all senders are gone.
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        self.parcels.recv_timeout(limit).map(unpack)
    }

    /// # Errors
    /// There was no message until then, or all senders are gone.
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.parcels.recv_deadline(deadline).map(unpack)
    }

    /// How many messages wait to be taken.
    pub fn waiting(&self) -> usize {
        self.parcels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }
}

/// Which of two channels had something to say first; `None` is its end.
pub enum Either<A, B> {
    First(Option<A>),
    Second(Option<B>),
}

/// Waits for both.
pub fn either<A: 'static, B: 'static>(first: &Receiver<A>, second: &Receiver<B>) -> Either<A, B> {
    select! {
        recv(first.parcels) -> parcel => Either::First(parcel.ok().map(unpack)),
        recv(second.parcels) -> parcel => Either::Second(parcel.ok().map(unpack)),
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            parcels: self.parcels.clone(),
            kind: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_go_comes_back() {
        let (sender, receiver) = bounded(1);
        sender.send("first".to_owned()).expect("room");
        let full = sender.try_send("second".to_owned());
        assert_eq!(full, Err(TrySendError::Full("second".to_owned())));
        let late = sender.send_timeout("third".to_owned(), Duration::ZERO);
        assert_eq!(late, Err(SendTimeoutError::Timeout("third".to_owned())));
        assert_eq!(receiver.recv(), Ok("first".to_owned()));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        drop(receiver);
        let gone = sender.send("fourth".to_owned());
        assert_eq!(gone, Err(SendError("fourth".to_owned())));
    }

    #[test]
    fn of_two_channels_the_one_with_news_is_heard() {
        let (numbers, first) = bounded(1);
        let (_texts, second) = bounded::<String>(1);
        numbers.send(7).expect("room");
        assert!(matches!(either(&first, &second), Either::First(Some(7))));
        drop(numbers);
        assert!(matches!(either(&first, &second), Either::First(None)));
        assert!(matches!(either(&second, &first), Either::Second(None)));
    }
}
