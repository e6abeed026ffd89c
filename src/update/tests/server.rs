//! A file server in a thread: one request per connection, and a mood for each of the first
//! requests. Afterwards it does everything right.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const TAG: &str = "\"the-file\"";

/// What one answer is like. The bytes are the file's, always.
#[derive(Clone, Debug)]
pub enum Mood {
    Good,
    /// The connection ends before this byte of the file.
    Cut(usize),
    /// 200 and everything, whatever was asked for.
    Whole,
    WholeThenCut(usize),
    /// Where the request has a range; 500 where a client could not know better than to
    /// give up.
    Status(u16),
    /// The range begins so much later, as its Content-Range says.
    Shifted(usize),
    /// As if the file had changed; ranges of the other file are not given.
    OtherTag(u8),
    /// The same, and they are.
    OtherTagAllTheSame(u8),
    Untagged,
    Garbage,
    /// Nothing is answered.
    Silent,
    /// As [`Mood::Whole`], a few bytes at a time.
    Trickle,
    /// Another tag each time, and a cut so many bytes on.
    NewTag {
        nth: usize,
        honours: bool,
        cut: usize,
    },
}

struct Shared {
    moods: Mutex<VecDeque<Mood>>,
    numbers: Mutex<Vec<u32>>,
    stopping: AtomicBool,
}

pub struct Server {
    pub file: Arc<Vec<u8>>,
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(file: Arc<Vec<u8>>, moods: Vec<Mood>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
        let address = listener.local_addr().expect("address");
        let shared = Arc::new(Shared {
            moods: Mutex::new(moods.into()),
            numbers: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let (served, serving) = (file.clone(), shared.clone());
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if serving.stopping.load(Ordering::SeqCst) {
                    return;
                }
                // A client that has enough goes away.
                let _ = serve(connection, &served, &serving);
            }
        });
        Self {
            file,
            address,
            shared,
            thread: Some(thread),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/file", self.address)
    }

    /// `X-Retry-Number` of every request so far.
    pub fn retry_numbers(&self) -> Vec<u32> {
        self.shared.numbers.lock().expect("numbers").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Default)]
struct Asked {
    /// First byte, and the one behind the last.
    range: Option<(usize, Option<usize>)>,
    if_range: Option<String>,
    number: u32,
}

fn read_request(stream: &TcpStream) -> io::Result<Asked> {
    let mut asked = Asked::default();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.is_empty() {
            return Ok(asked);
        }
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => asked.range = parse_range(value),
            "if-range" => asked.if_range = Some(value.to_owned()),
            "x-retry-number" => asked.number = value.parse().expect("a number"),
            _ => {}
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn parse_range(text: &str) -> Option<(usize, Option<usize>)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let end = match last {
        "" => None,
        last => Some(last.parse::<usize>().ok()? + 1),
    };
    Some((first.parse().ok()?, end))
}

fn serve(mut stream: TcpStream, file: &[u8], shared: &Shared) -> io::Result<()> {
    let asked = read_request(&stream)?;
    shared.numbers.lock().expect("numbers").push(asked.number);
    let next = shared.moods.lock().expect("moods").pop_front();
    let mood = next.unwrap_or(Mood::Good);
    match mood {
        Mood::Silent => {
            // Until the client goes away.
            return io::copy(&mut stream, &mut io::sink()).map(|_| ());
        }
        Mood::Garbage => return stream.write_all(b"220 this is mail\r\n"),
        Mood::Status(status) => {
            let status = match (status, asked.range) {
                (404 | 416, Some(_)) => status,
                // What the hub is asked about.
                (403, _) => status,
                (404 | 416, None) => 500,
                (status, _) => status,
            };
            return write!(stream, "HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n");
        }
        _ => {}
    }
    let tag = match &mood {
        Mood::OtherTag(tag) | Mood::OtherTagAllTheSame(tag) => Some(format!("\"{tag}\"")),
        Mood::NewTag { nth, .. } => Some(format!("\"new-{nth}\"")),
        Mood::Untagged => None,
        _ => Some(TAG.to_owned()),
    };
    let guarded = !matches!(
        mood,
        Mood::OtherTagAllTheSame(_) | Mood::NewTag { honours: false, .. }
    );
    let is_other = guarded && asked.if_range.is_some() && asked.if_range != tag;
    let whole = is_other || matches!(mood, Mood::Whole | Mood::WholeThenCut(_) | Mood::Trickle);
    let range = asked.range.filter(|_| !whole);
    let (mut first, end) = range.map_or((0, file.len()), |(first, end)| {
        (first, end.unwrap_or(file.len()).min(file.len()))
    });
    if first >= end {
        return write!(stream, "HTTP/1.1 416 No\r\ncontent-length: 0\r\n\r\n");
    }
    if let (Mood::Shifted(by), Some(_)) = (&mood, range) {
        first = (first + by).min(end - 1);
    }
    let mut head = match range {
        None => "HTTP/1.1 200 OK\r\n".to_owned(),
        Some(_) => format!(
            "HTTP/1.1 206 Partial\r\ncontent-range: bytes {first}-{}/{}\r\n",
            end - 1,
            file.len()
        ),
    };
    if let Some(tag) = tag {
        head += &format!("etag: {tag}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", end - first);
    stream.write_all(head.as_bytes())?;
    let until = match mood {
        Mood::Cut(at) | Mood::WholeThenCut(at) => at.clamp(first, end),
        Mood::NewTag { cut, .. } => (first + cut).min(end),
        _ => end,
    };
    if matches!(mood, Mood::Trickle) {
        for bytes in file.chunks(100) {
            std::thread::sleep(Duration::from_millis(2));
            stream.write_all(bytes)?;
        }
        return Ok(());
    }
    stream.write_all(&file[first..until])
}
