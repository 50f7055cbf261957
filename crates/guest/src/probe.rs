//! One HTTP exchange with a guest, which counts what really came back.
//!
//! A connection that opens proves nothing: some networks answer for every address. Only bytes received do.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The patience of a guest that probes another.
pub const GUEST_PATIENCE: Duration = Duration::from_secs(2);

/// The longest answer that is read.
const ANSWER_BYTES: u64 = 64 * 1024;

/// What an exchange brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// True if a connection opened, which by itself proves nothing.
    pub connected: bool,
    /// How many bytes of an answer were received.
    pub received: u64,
    /// The body of the answer if there was one, and otherwise what went wrong.
    pub text: String,
}

/// Asks `to` for `path`; waits at most `patience` for a connection, and as long for each piece of the answer.
///
/// A guest that is asked to probe needs three times [`GUEST_PATIENCE`] itself before it can say that nobody answered.
#[must_use]
pub fn exchange(to: SocketAddr, path: &str, patience: Duration) -> Exchange {
    let mut stream = match TcpStream::connect_timeout(&to, patience) {
        Ok(stream) => stream,
        Err(error) => return nothing_received(false, &error),
    };
    let mut answer = Vec::new();
    let asked = ask(&mut stream, path, patience, &mut answer);
    match asked {
        Err(error) if answer.is_empty() => nothing_received(true, &error),
        Ok(()) | Err(_) => Exchange {
            connected: true,
            received: u64::try_from(answer.len()).unwrap_or(u64::MAX),
            text: body(&String::from_utf8_lossy(&answer)).to_owned(),
        },
    }
}

fn ask(stream: &mut TcpStream, path: &str, patience: Duration, answer: &mut Vec<u8>) -> io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    stream.take(ANSWER_BYTES).read_to_end(answer)?;
    Ok(())
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or(answer, |(_, body)| body)
}

fn nothing_received(connected: bool, error: &io::Error) -> Exchange {
    Exchange {
        connected,
        received: 0,
        text: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 64];
            let _ = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn the_body_and_the_count_of_bytes_come_back() {
        let exchange = exchange(answering("HTTP/1.0 200 OK\r\n\r\n{}"), "/status", GUEST_PATIENCE);
        assert_eq!(
            (exchange.connected, exchange.received, exchange.text.as_str()),
            (true, 21, "{}")
        );
    }

    #[test]
    fn a_connection_that_says_nothing_received_nothing() {
        let exchange = exchange(answering(""), "/status", GUEST_PATIENCE);
        assert_eq!((exchange.connected, exchange.received), (true, 0));
    }
}
