//! Serves one store connection: reads the request, sends the reply, carries out the faults
//! that concern the sending.

use super::reply::{Body, Reply, reply};
use super::{Fault, File, Request, Shared};
use crate::http;
use crate::net::{Stream, reset_on_close};
use rustls::ServerConfig;
use std::io::{self, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

const PIECE: u64 = 16 * 1024;
/// A slow answer sends so many pieces a second, or more smaller ones.
const SLOW_STEPS: u64 = 10;
/// Longer than any test waits.
const FOREVER: Duration = Duration::from_secs(3600);

/// Runs in a thread of its own.
pub fn serve(shared: &Arc<Shared>, config: Option<Arc<ServerConfig>>, tcp: TcpStream) {
    let Ok(copy) = tcp.try_clone() else { return };
    let key = shared.change(|state| {
        let key = state.sockets.last_key_value().map_or(0, |(key, _)| key + 1);
        state.sockets.insert(key, copy);
        key
    });
    // A client that goes away in the middle is what many tests are about.
    let _ = answer(shared, config, tcp);
    shared.change(|state| state.sockets.remove(&key));
}

struct Answer<'a> {
    shared: &'a Shared,
    stream: Stream,
    /// Place in the log.
    index: usize,
    faults: Vec<Fault>,
    chunked: bool,
    /// Releases up to this one are not meant for this answer.
    releases: u64,
}

fn answer(shared: &Shared, config: Option<Arc<ServerConfig>>, tcp: TcpStream) -> io::Result<()> {
    let mut stream = Stream::accept(tcp, config)?;
    let Some((head, _)) = http::read_request(&mut stream)? else {
        return Ok(());
    };
    let (index, file, faults, releases) = log(shared, &head);
    let reply = reply(&head, file.as_ref(), &faults);
    let chunked = faults.contains(&Fault::Chunked) && matches!(reply.body, Body::File(_));
    let mut answer = Answer {
        shared,
        stream,
        index,
        faults,
        chunked,
        releases,
    };
    let result = answer.send(&head, reply, file);
    shared.change(|state| state.requests[index].done = true);
    result
}

fn log(shared: &Shared, head: &http::Request) -> (usize, Option<File>, Vec<Fault>, u64) {
    let t = shared.started.elapsed();
    shared.change(|state| {
        let earlier = state
            .requests
            .iter()
            .filter(|request| request.path == head.path)
            .count();
        let nth = earlier as u32 + 1;
        state.requests.push(Request {
            t,
            method: head.method.clone(),
            path: head.path.clone(),
            query: head.query.clone(),
            headers: head.headers.clone(),
            nth,
            status: 0,
            sent: 0,
            done: false,
        });
        let planned = state.faults.get(&head.path).map_or(&[][..], Vec::as_slice);
        let faults = planned.iter().filter(|(when, _)| when.meets(nth));
        let faults = faults.map(|(_, fault)| fault.clone()).collect();
        (
            state.requests.len() - 1,
            state.files.get(&head.path).cloned(),
            faults,
            state.releases,
        )
    })
}

impl Answer<'_> {
    fn send(&mut self, head: &http::Request, reply: Reply, file: Option<File>) -> io::Result<()> {
        if self.faults.contains(&Fault::HangBeforeHeaders) {
            self.stall()?;
        }
        if let Some(Fault::Garbage(bytes)) = self
            .faults
            .iter()
            .find(|fault| matches!(fault, Fault::Garbage(_)))
        {
            self.stream.write_all(bytes)?;
            return self.finish();
        }
        let mut text = http::status_line(reply.status);
        for (name, value) in &reply.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("connection: close\r\n\r\n");
        // First the log: the client may act on the answer before the next line runs.
        self.shared
            .change(|state| state.requests[self.index].status = reply.status);
        self.stream.write_all(text.as_bytes())?;
        self.stream.flush()?;
        match reply.body {
            _ if head.method == "HEAD" => {}
            Body::Text(body) => self.stream.write_all(body.as_bytes())?,
            Body::File(range) => {
                let file = file.expect("a file body needs a file");
                if !self.send_file(&file.data, range)? {
                    return Ok(());
                }
            }
        }
        self.finish()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.stream.flush()?;
        self.stream.notify_close();
        Ok(())
    }

    /// `false`: the connection has to end here, without a goodbye.
    fn send_file(&mut self, data: &[u8], range: Range<u64>) -> io::Result<bool> {
        let mut at = range.start;
        let mut stalled = false;
        loop {
            let (stop, fault) = self.next_stop(&range, stalled);
            at = self.send_until(data, at, stop.clamp(at, range.end))?;
            match fault {
                None => break,
                Some(Fault::StallAt(_) | Fault::StallAfter(_)) => {
                    self.stall()?;
                    stalled = true;
                }
                Some(Fault::ResetAfter(_)) => {
                    reset_on_close(self.stream.tcp());
                    return Ok(false);
                }
                Some(_) => return Ok(false),
            }
        }
        let extra = self.faults.iter().find_map(|fault| match fault {
            Fault::Extra(bytes) => Some(bytes.clone()),
            _ => None,
        });
        if let Some(extra) = extra {
            self.stream.write_all(&extra)?;
        }
        if self.chunked {
            self.stream.write_all(b"0\r\n\r\n")?;
        }
        Ok(true)
    }

    /// Where sending has to be interrupted, and why; otherwise the end.
    fn next_stop(&self, range: &Range<u64>, stalled: bool) -> (u64, Option<Fault>) {
        let stops = self.faults.iter().filter_map(|fault| {
            let at = match fault {
                Fault::CutAt(at) => *at,
                Fault::StallAt(at) if !stalled => *at,
                Fault::StallAfter(count) if !stalled => range.start + count,
                Fault::CutAfter(count) | Fault::ResetAfter(count) => range.start + count,
                _ => return None,
            };
            (at < range.end).then(|| (at, Some(fault.clone())))
        });
        stops.min_by_key(|(at, _)| *at).unwrap_or((range.end, None))
    }

    fn send_until(&mut self, data: &[u8], mut at: u64, end: u64) -> io::Result<u64> {
        let rate = self.faults.iter().find_map(|fault| match fault {
            Fault::Slow(rate) => Some((*rate).max(1)),
            _ => None,
        });
        let piece = rate.map_or(PIECE, |rate| rate.div_ceil(SLOW_STEPS).min(PIECE));
        while at < end {
            let next = (at + piece).min(end);
            let mut bytes = data[at as usize..next as usize].to_vec();
            for fault in &self.faults {
                if let Fault::WrongByteAt(place) = fault
                    && (at..next).contains(place)
                {
                    bytes[(place - at) as usize] ^= 0xff;
                }
            }
            self.write_piece(&bytes)?;
            if let Some(rate) = rate {
                self.pause(Duration::from_micros((next - at) * 1_000_000 / rate))?;
            }
            at = next;
        }
        Ok(at)
    }

    /// Logged first, as the head is.
    fn write_piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.shared
            .change(|state| state.requests[self.index].sent += bytes.len() as u64);
        if self.chunked {
            self.stream
                .write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        }
        self.stream.write_all(bytes)?;
        if self.chunked {
            self.stream.write_all(b"\r\n")?;
        }
        self.stream.flush()
    }

    /// Waits until released; an error when the store stops. A release that comes while the
    /// answer is on its way here counts.
    fn stall(&mut self) -> io::Result<()> {
        let before = self.releases;
        let released = self.shared.wait(FOREVER, |state| {
            (state.stopping || state.releases > before).then_some(state.releases)
        });
        self.releases = released.unwrap_or(before);
        self.alive()
    }

    fn pause(&self, time: Duration) -> io::Result<()> {
        self.shared.wait(time, |state| state.stopping.then_some(()));
        self.alive()
    }

    fn alive(&self) -> io::Result<()> {
        match self.shared.lock().stopping {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}
