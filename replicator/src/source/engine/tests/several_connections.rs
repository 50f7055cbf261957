//! A way on which each connection carries little: changes travel on several, and every point stays true whatever becomes of them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::sleep_until,
};

use super::*;

const LARGE: usize = 11 * 1024 * 1024;
/// Of each connection.
const BYTES_PER_SECOND: u64 = 2_000_000;
/// One way.
const DELAY: Duration = Duration::from_millis(10);
const PIECE_BYTES: usize = 16 * 1024;
/// A connection that carried this much carried changes.
const MUCH: u64 = 300_000;

/// A relay with a delay, whose connections carry so many bytes a second each, and break after so many.
struct LongWay {
    address: String,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Connections that carried much and are open.
    busy: AtomicUsize,
    most_busy: AtomicUsize,
    cuts: AtomicU64,
}

impl LongWay {
    fn start(destination: &str, bytes_per_second: u64, budget: u64) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // What waits in it must not hide that the way is slow.
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(16).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let counts = Arc::new(Counts::default());
        let (counting, destination) = (Arc::clone(&counts), destination.to_owned());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&destination).await.unwrap();
                let counts = Arc::clone(&counting);
                tokio::spawn(async move {
                    near.set_nodelay(true).unwrap();
                    far.set_nodelay(true).unwrap();
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    let (carried, back) = (AtomicU64::new(0), AtomicU64::new(0));
                    tokio::select! {
                        () = carry((near_read, far_write), bytes_per_second, (&carried, budget, &counts)) => {}
                        () = carry((far_read, near_write), u64::MAX, (&back, u64::MAX, &counts)) => {}
                    }
                    if carried.load(Ordering::Relaxed) >= MUCH {
                        counts.busy.fetch_sub(1, Ordering::Relaxed);
                    }
                    if carried.load(Ordering::Relaxed) >= budget {
                        counts.cuts.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { address, counts }
    }

    fn most_busy(&self) -> usize {
        self.counts.most_busy.load(Ordering::Relaxed)
    }
}

async fn carry(
    (mut read, mut write): (OwnedReadHalf, OwnedWriteHalf),
    bytes_per_second: u64,
    (carried, budget, counts): (&AtomicU64, u64, &Counts),
) {
    // As much as is on its way in a round trip at that rate, and no less than a piece.
    let (send, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(4);
    let reading = async {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let Ok(count @ 1..) = read.read(&mut piece).await else {
                return;
            };
            piece.truncate(count);
            if send.send((Instant::now() + DELAY, piece)).await.is_err() {
                return;
            }
            let takes = 1_000_000 * u64::try_from(count).unwrap() / bytes_per_second;
            tokio::time::sleep(Duration::from_micros(takes)).await;
        }
    };
    let writing = async {
        while let Some((at, piece)) = under_way.recv().await {
            sleep_until(at).await;
            if write.write_all(&piece).await.is_err() {
                return;
            }
            let more = u64::try_from(piece.len()).unwrap();
            let before = carried.fetch_add(more, Ordering::Relaxed);
            if before < MUCH && before + more >= MUCH && bytes_per_second != u64::MAX {
                let busy = counts.busy.fetch_add(1, Ordering::Relaxed) + 1;
                counts.most_busy.fetch_max(busy, Ordering::Relaxed);
            }
            if before + more >= budget {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

fn long_way(way: &LongWay, target: &Target) -> Assignment {
    let mut assignment = assignment(&way.address, target.prepare_of(LARGE));
    for volume in &mut assignment.volumes {
        volume.size = ByteCount(LARGE as u64);
    }
    assignment
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_connection_carries_little_several_do_and_every_point_is_true() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let way = LongWay::start(&target.endpoint, BYTES_PER_SECOND, u64::MAX);
    let vm = MemoryVm::new(LARGE);
    vm.fill_with_noise();
    let mut running = Running::start(&vm, long_way(&way, &target));
    running.point(1).await;
    running.stop().await;
    assert!(way.most_busy() >= 2, "changes travelled on {}", way.most_busy());
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_costs_a_resumption_and_no_truth() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let way = LongWay::start(&target.endpoint, BYTES_PER_SECOND, 6_000_000);
    let vm = MemoryVm::new(LARGE);
    vm.fill_with_noise();
    let mut running = Running::start(&vm, long_way(&way, &target));
    running.point(1).await;
    running.stop().await;
    let cuts = way.counts.cuts.load(Ordering::Relaxed);
    assert!(
        cuts >= 1 && way.most_busy() >= 2,
        "{cuts} cuts, {} busy",
        way.most_busy()
    );
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_to_have_one_connection_has_one() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path()).await;
    let way = LongWay::start(&target.endpoint, 4 * BYTES_PER_SECOND, u64::MAX);
    let vm = MemoryVm::new(LARGE);
    vm.fill_with_noise();
    let single = Assignment {
        link: Some(crate::source::LinkLimit {
            to: "west".to_owned(),
            bandwidth: None,
            hours: Vec::new(),
            connections: Some(1),
        }),
        ..long_way(&way, &target)
    };
    let mut running = Running::start(&vm, single);
    running.point(1).await;
    running.stop().await;
    assert_eq!(way.most_busy(), 1);
    assert_every_point_is_true(&target, &vm);
    target.stop().await;
}
