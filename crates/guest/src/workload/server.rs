//! The guest's HTTP: `GET /status` says how it is, `GET /probe?to=ADDRESS:PORT` says whom it reaches.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use super::progress::Progress;
use crate::{
    probe,
    status::{BootVerdict, Status},
};

const PORT: u16 = 80;

/// Requests served at once: a probe takes seconds, and the status must not wait for it.
const SERVERS: usize = 4;

const PATIENCE: Duration = Duration::from_secs(2);

/// The longest request that is read.
const REQUEST_BYTES: usize = 2048;

struct Service {
    hostname: String,
    boot_verdict: BootVerdict,
    progress: Arc<Progress>,
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Status,
    Probe(SocketAddr),
    Unknown,
}

/// Listens on every address, present or to come.
pub(super) fn listen() -> io::Result<TcpListener> {
    TcpListener::bind(("0.0.0.0", PORT))
}

/// Starts to serve; ends with the process.
pub(super) fn start(listener: TcpListener, hostname: &str, verdict: &BootVerdict, progress: &Arc<Progress>) {
    let listener = Arc::new(listener);
    let service = Arc::new(Service {
        hostname: hostname.to_owned(),
        boot_verdict: verdict.clone(),
        progress: Arc::clone(progress),
    });
    for _ in 0..SERVERS {
        let (listener, service) = (Arc::clone(&listener), Arc::clone(&service));
        thread::spawn(move || {
            loop {
                // A client that went away is its own affair.
                let _ = listener.accept().and_then(|(stream, _)| service.serve(stream));
            }
        });
    }
}

impl Service {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let (status, body) = match Request::parse(&read_head(&mut stream)?) {
            Request::Status => ("200 OK", serde_json::to_string(&self.status())?),
            Request::Probe(to) => (
                "200 OK",
                serde_json::to_string(&probe::exchange(to, "/status", probe::GUEST_PATIENCE))?,
            ),
            Request::Unknown => (
                "404 Not Found",
                "GET /status and GET /probe?to=ADDRESS:PORT are understood\n".to_owned(),
            ),
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.0 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())
    }

    fn status(&self) -> Status {
        let snapshot = self.progress.snapshot();
        Status {
            hostname: self.hostname.clone(),
            boot_verdict: self.boot_verdict.clone(),
            last_a: snapshot.acknowledged.region_a,
            last_b: snapshot.acknowledged.region_b,
            last_ext4: snapshot.acknowledged.journal,
            io_errors: snapshot.io_errors,
            longest_write_ms: u64::try_from(snapshot.longest_write.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Request {
    fn parse(head: &str) -> Self {
        let mut words = head.lines().next().unwrap_or_default().split_whitespace();
        let (Some("GET"), Some(path)) = (words.next(), words.next()) else {
            return Self::Unknown;
        };
        match (path, path.strip_prefix("/probe?to=").map(str::parse)) {
            ("/status", _) => Self::Status,
            (_, Some(Ok(to))) => Self::Probe(to),
            _ => Self::Unknown,
        }
    }
}

/// Everything up to the empty line: a connection closed over unread bytes would take the answer with it.
fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut piece = [0; 512];
    while head.len() < REQUEST_BYTES && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            break;
        }
        head.extend(piece.iter().take(count));
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_understood_or_refused() {
        let to = "10.0.0.1:80".parse().unwrap();
        let cases = [
            ("GET /status HTTP/1.1\r\nHost: a\r\n\r\n", Request::Status),
            ("GET /probe?to=10.0.0.1:80 HTTP/1.0\r\n\r\n", Request::Probe(to)),
            ("GET /probe?to=everyone HTTP/1.0\r\n\r\n", Request::Unknown),
            ("POST /status HTTP/1.0\r\n\r\n", Request::Unknown),
            ("", Request::Unknown),
        ];
        for (head, expected) in cases {
            assert_eq!(Request::parse(head), expected, "{head}");
        }
    }
}
