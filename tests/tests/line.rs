//! The line between two sites that scenarios use does to the kernel's TCP what it is told to.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::set_tcp_congestion;

use farshore_tests::{
    eventually,
    namespace::{Namespace, inside},
    wan::{End, Wan, WanOptions, Way},
};

const SOON: Duration = Duration::from_secs(30);
const ROUND_TRIP: Duration = Duration::from_millis(40);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 92, 0, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 92, 0, 2);
const MB: u64 = 1_000_000;

static LINES: AtomicU32 = AtomicU32::new(0);

/// A line and what it joins.
struct Line {
    wan: Wan,
    first: Namespace,
    second: Namespace,
}

impl Line {
    fn new(options: &WanOptions) -> Self {
        let number = LINES.fetch_add(1, Ordering::Relaxed);
        let namespace = |end| Namespace::create(&format!("fsl{}x{number}{end}", std::process::id()));
        let (first, second) = (namespace("a"), namespace("b"));
        let end = |namespace: &'_ Namespace, address| (namespace.name().to_owned(), address);
        let (a, b) = (end(&first, FIRST), end(&second, SECOND));
        let ends = [&a, &b].map(|(namespace, address)| End {
            namespace,
            address: *address,
        });
        let wan = Wan::join("wan", ends[0], ends[1], options);
        Self { wan, first, second }
    }

    /// Bytes a second that so many connections carry together, each sending without a pause for so long after a second of beginning.
    fn rate_of(&self, connections: usize, lasting: Duration) -> u64 {
        let listener = inside(self.second.name(), || TcpListener::bind((SECOND, 0)).unwrap());
        let to = listener.local_addr().unwrap();
        let until = Instant::now() + Duration::from_secs(1) + lasting;
        thread::scope(|scope| {
            for _ in 0..connections {
                scope.spawn(|| inside(self.first.name(), || send_until(to, until)));
                let (mut stream, _) = listener.accept().unwrap();
                scope.spawn(move || std::io::copy(&mut stream, &mut std::io::sink()).unwrap());
            }
            thread::sleep(Duration::from_secs(1));
            let before = self.wan.counts(Way::There).bytes;
            thread::sleep(lasting);
            let carried = self.wan.counts(Way::There).bytes - before;
            carried * 1000 / u64::try_from(lasting.as_millis()).unwrap()
        })
    }

    /// Sends these bytes from the first end to the second, and gives what arrives and how long that took from the
    /// connection on.
    fn transfer(&self, bytes: &[u8]) -> (Vec<u8>, Duration) {
        let listener = inside(self.second.name(), || TcpListener::bind((SECOND, 0)).unwrap());
        let to = listener.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| inside(self.first.name(), || send(to, bytes)));
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let began = Instant::now();
            let mut arrived = Vec::new();
            stream.read_to_end(&mut arrived).unwrap();
            (arrived, began.elapsed())
        })
    }
}

fn send(to: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect_timeout(&to, SOON).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream.write_all(bytes).unwrap();
}

fn send_until(to: SocketAddr, until: Instant) {
    let mut stream = TcpStream::connect_timeout(&to, SOON).unwrap();
    // What most kernels have by default.
    set_tcp_congestion(&stream, "cubic").unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    let buffer = vec![7; 256 * 1024];
    while Instant::now() < until {
        stream.write_all(&buffer).unwrap();
    }
}

/// Bytes of which no two pages are alike.
fn content(bytes: u64) -> Vec<u8> {
    let words = bytes.div_ceil(8);
    let words = (0..words).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23));
    let mut content: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    content.truncate(usize::try_from(bytes).unwrap());
    content
}

#[test]
fn a_round_trip_takes_no_less_than_it_is_told() {
    let line = Line::new(&WanOptions::even(ROUND_TRIP, 100 * MB));
    let socket = |namespace: &Namespace, address| {
        let socket = inside(namespace.name(), || UdpSocket::bind((address, 0)).unwrap());
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    };
    let (asks, answers) = (socket(&line.first, FIRST), socket(&line.second, SECOND));
    let to = answers.local_addr().unwrap();
    let mut buffer = [0; 8];
    for number in 0..20_u64 {
        let began = Instant::now();
        asks.send_to(&number.to_le_bytes(), to).unwrap();
        let (_, from) = answers.recv_from(&mut buffer).unwrap();
        answers.send_to(&buffer, from).unwrap();
        asks.recv_from(&mut buffer).unwrap();
        assert!(began.elapsed() >= ROUND_TRIP, "{:?}", began.elapsed());
        assert_eq!(u64::from_le_bytes(buffer), number);
    }
}

#[test]
fn a_transfer_is_no_faster_than_the_rate_and_what_the_queue_has_no_room_for_is_lost() {
    let mut options = WanOptions::even(ROUND_TRIP, 2 * MB);
    options.there.queue_bytes = 20_000;
    let line = Line::new(&options);
    let sent = content(4 * MB);
    let (arrived, took) = line.transfer(&sent);
    assert!(arrived == sent);
    // The first packet may have left before the connection was accepted.
    assert!(took >= Duration::from_millis(1900), "{took:?}");
    let counts = line.wan.counts(Way::There);
    assert!(counts.overflowed > 0 && counts.lost == 0, "{counts:?}");
    assert!(counts.bytes >= 4 * MB, "{counts:?}");
}

#[test]
fn data_arrives_whole_though_packets_are_lost() {
    let line = Line::new(&WanOptions::even(Duration::from_millis(10), 20 * MB).losing(10_000));
    let sent = content(8 * MB);
    let (arrived, _) = line.transfer(&sent);
    assert!(arrived == sent);
    let counts = line.wan.counts(Way::There);
    assert!(counts.lost > 10, "{counts:?}");
    assert!(counts.bytes >= 8 * MB, "{counts:?}");
}

#[test]
fn a_cut_stops_everything_and_what_it_stopped_goes_on_when_it_is_healed() {
    let line = Line::new(&WanOptions::even(ROUND_TRIP, 4 * MB));
    let sent = content(8 * MB);
    thread::scope(|scope| {
        let transfer = scope.spawn(|| line.transfer(&sent).0);
        let arrived = |way| line.wan.counts(way).packets;
        eventually(SOON, "the transfer is under way", || {
            (arrived(Way::There) > 500).then_some(())
        });
        line.wan.cut();
        let then = (arrived(Way::There), arrived(Way::Back));
        let before = line.wan.counts(Way::There).cut;
        eventually(SOON, "it is tried again", || {
            (line.wan.counts(Way::There).cut > before + 1).then_some(())
        });
        assert_eq!((arrived(Way::There), arrived(Way::Back)), then);
        assert!(!transfer.is_finished());
        line.wan.heal();
        assert!(transfer.join().unwrap() == sent);
    });
}

#[test]
fn several_connections_carry_more_than_one_where_packets_are_lost() {
    let line = Line::new(&WanOptions::even(ROUND_TRIP, 25 * MB).losing(1000));
    let [one, four] = [1, 4].map(|connections| line.rate_of(connections, Duration::from_secs(4)));
    println!("{one} bytes a second by one connection, {four} by four");
    assert!(four > 2 * one, "{one} {four}");
}
