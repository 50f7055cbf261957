//! The thread that carries packets, at the times that the channels say.

use std::{
    io,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Instant,
};

use rustix::{process::setpriority_process, thread::gettid};
use tokio::{runtime::Runtime, sync::oneshot, time::sleep_until};
use tokio_tun::Tun;

use super::{Channel, locked};

/// The longest IP packet.
const PACKET_BYTES_MAXIMUM: usize = 65535;
/// Few enough that nothing that has arrived waits for a sender that never pauses.
const PACKETS_AT_ONCE: usize = 64;
/// A line does not wait for the processes at its ends: among those that want a processor it comes before them.
const NICENESS: i32 = -15;

/// Carries packets until it is dropped.
#[derive(Debug)]
pub(super) struct Forwarder {
    /// Dropping it ends the thread.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One way of a line, and the devices at its ends.
pub(super) struct OneWay {
    channel: Arc<Mutex<Channel>>,
    from: Arc<Tun>,
    to: Arc<Tun>,
}

/// The runtime of a forwarder: one thread has both ways, so that they take no more than one processor.
pub(super) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

impl Forwarder {
    pub(super) fn start(runtime: Runtime, ways: [OneWay; 2]) -> Self {
        let (end, ended) = oneshot::channel();
        let carry = move || {
            // Of this thread alone. Who may not have it has a slower line when processors are short.
            let _ = setpriority_process(Some(gettid()), NICENESS);
            runtime.block_on(async {
                let [there, back] = &ways;
                tokio::select! {
                    _ = ended => {}
                    // A device goes when its namespace does; then the line carries nothing any more.
                    _ = async { tokio::join!(there.carry(), back.carry()) } => {}
                }
            });
            // While its runtime is there, as a device takes leave of it.
            drop(ways);
        };
        let thread = std::thread::Builder::new().name("wan".to_owned());
        Self {
            end: Some(end),
            thread: Some(thread.spawn(carry).unwrap()),
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // Its panic has been told where it happened.
            let _ = thread.join();
        }
    }
}

impl OneWay {
    pub(super) fn new(channel: &Arc<Mutex<Channel>>, from: &Arc<Tun>, to: &Arc<Tun>) -> Self {
        Self {
            channel: Arc::clone(channel),
            from: Arc::clone(from),
            to: Arc::clone(to),
        }
    }

    async fn carry(&self) -> io::Result<()> {
        let mut buffer = vec![0; PACKET_BYTES_MAXIMUM];
        loop {
            let next = locked(&self.channel).next_arrival();
            tokio::select! {
                read = self.from.recv(&mut buffer) => {
                    self.offer(&buffer[..read?]);
                    self.offer_more(&mut buffer)?;
                }
                () = sleep_until(next.unwrap_or_else(Instant::now).into()), if next.is_some() => {}
            }
            self.deliver();
        }
    }

    fn offer(&self, packet: &[u8]) {
        locked(&self.channel).offer(packet, Instant::now());
    }

    /// Offers what waits in the device.
    fn offer_more(&self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..PACKETS_AT_ONCE {
            match self.from.try_recv(buffer) {
                Ok(length) => self.offer(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn deliver(&self) {
        let now = Instant::now();
        loop {
            let arrived = locked(&self.channel).arrived(now);
            let Some(packet) = arrived else { return };
            // A device that is down, or has no room, loses it, as at the end of any line.
            let _ = self.to.try_send(&packet);
        }
    }
}
