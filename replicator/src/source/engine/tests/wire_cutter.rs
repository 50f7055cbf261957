//! A TCP relay that cuts each connection after a budget of bytes, so that cuts fall anywhere in the protocol.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub(super) struct WireCutter {
    address: String,
    cuts: Arc<AtomicU64>,
    destination: Arc<Mutex<String>>,
}

impl WireCutter {
    /// Relays to `destination`; the n-th connection lives for about `budget * (1 + n % 5)` bytes from the source.
    pub(super) async fn start(destination: &str, budget: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cuts = Arc::new(AtomicU64::new(0));
        let destination = Arc::new(Mutex::new(destination.to_owned()));
        let (counter, towards) = (Arc::clone(&cuts), Arc::clone(&destination));
        tokio::spawn(async move {
            let mut number = 0u64;
            while let Ok((near, _)) = listener.accept().await {
                number += 1;
                let budget = budget.saturating_mul(1 + number % 5);
                let (counter, towards) = (Arc::clone(&counter), towards.lock().unwrap().clone());
                tokio::spawn(async move {
                    if let Ok(far) = TcpStream::connect(towards).await {
                        relay(near, far, budget).await;
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self {
            address,
            cuts,
            destination,
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }

    pub(super) fn redirect(&self, destination: &str) {
        destination.clone_into(&mut self.destination.lock().unwrap());
    }
}

async fn relay(near: TcpStream, far: TcpStream, budget: u64) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let there = async {
        let mut left = budget;
        let mut buffer = vec![0; 16 * 1024];
        while left > 0 {
            let Ok(count @ 1..) = near_read.read(&mut buffer).await else {
                break;
            };
            let taken = count.min(usize::try_from(left).unwrap_or(usize::MAX));
            if far_write.write_all(&buffer[..taken]).await.is_err() {
                break;
            }
            left -= u64::try_from(taken).unwrap();
        }
    };
    let back = tokio::io::copy(&mut far_read, &mut near_write);
    tokio::select! {
        () = there => {}
        _ = back => {}
    }
}
