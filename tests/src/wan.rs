//! A line between two network namespaces with a round trip, a rate, loss and cuts: what a kernel's netem would do, done
//! to IP packets in user space, so that the kernel's own TCP at both ends meets them.
//!
//! Each namespace has a TUN device; what is read from one is given to a [`Channel`], which says when it arrives, and
//! then written into the other. Arrivals are a millisecond late at most, and never early.

pub mod channel;
mod forwarder;

use std::{
    net::Ipv4Addr,
    num::NonZeroU64,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::runtime::Handle;
use tokio_tun::Tun;

use channel::{Channel, Conditions, Counts};
use forwarder::{Forwarder, OneWay};

use crate::namespace::{inside, ip};

/// What most lines carry.
const MTU: i32 = 1500;
const PREFIX: u8 = 24;
/// Long enough that packets wait in the channel's queue and not in the device's, as that one's loss is counted nowhere.
const DEVICE_QUEUE_PACKETS: &str = "10000";

/// What a line is like at the beginning, either way.
#[derive(Debug, Clone)]
pub struct WanOptions {
    /// The way from the first end to the second.
    pub there: Conditions,
    /// The way from the second end to the first.
    pub back: Conditions,
    /// Decides which packets are lost by chance.
    pub seed: u64,
}

impl WanOptions {
    /// The same either way, without loss, with a queue as long as a round trip.
    ///
    /// # Panics
    /// When the rate is zero.
    #[must_use]
    pub fn even(round_trip: Duration, bytes_per_second: u64) -> Self {
        /// Without a round trip to measure it by, a queue still has to hold a few packets.
        const QUEUE_BYTES_MINIMUM: u64 = 256 * 1024;
        let product = u128::from(bytes_per_second) * round_trip.as_micros() / 1_000_000;
        let way = Conditions {
            delay: round_trip / 2,
            bytes_per_second: NonZeroU64::new(bytes_per_second).unwrap(),
            queue_bytes: u64::try_from(product).unwrap().max(QUEUE_BYTES_MINIMUM),
            lost_per_million: 0,
        };
        Self {
            there: way,
            back: way,
            seed: 1,
        }
    }

    /// The same with as many packets of a million lost by chance, either way.
    #[must_use]
    pub fn losing(mut self, lost_per_million: u32) -> Self {
        self.there.lost_per_million = lost_per_million;
        self.back.lost_per_million = lost_per_million;
        self
    }
}

/// A way of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the first end to the second.
    There,
    /// From the second end to the first.
    Back,
}

/// An end of the line.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// The namespace that it is in.
    pub namespace: &'a str,
    /// Its address in a network of 256 that the other end is in, too.
    pub address: Ipv4Addr,
}

/// The line. It goes with the value.
#[derive(Debug)]
pub struct Wan {
    there: Arc<Mutex<Channel>>,
    back: Arc<Mutex<Channel>>,
    _forwarder: Forwarder,
}

impl Wan {
    /// Joins two ends by devices called `interface`.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn join(interface: &str, first: End<'_>, second: End<'_>, options: &WanOptions) -> Self {
        let now = Instant::now();
        let channel = |conditions, seed| Arc::new(Mutex::new(Channel::new(conditions, seed, now)));
        let there = channel(options.there, options.seed);
        let back = channel(options.back, !options.seed);
        let runtime = forwarder::runtime();
        let [near, far] = [first, second].map(|end| Arc::new(device(interface, end, runtime.handle())));
        let ways = [OneWay::new(&there, &near, &far), OneWay::new(&back, &far, &near)];
        Self {
            there,
            back,
            _forwarder: Forwarder::start(runtime, ways),
        }
    }

    /// From now on a way of it is like this.
    pub fn set(&self, way: Way, conditions: Conditions) {
        self.channel(way).set(conditions);
    }

    /// What a way of it is like.
    #[must_use]
    pub fn conditions(&self, way: Way) -> Conditions {
        self.channel(way).conditions()
    }

    /// Nothing passes this way until it is healed; what is on its way is lost.
    pub fn cut_way(&self, way: Way) {
        self.channel(way).cut();
    }

    /// Nothing passes either way until it is healed.
    pub fn cut(&self) {
        self.cut_way(Way::There);
        self.cut_way(Way::Back);
    }

    /// Everything passes again, both ways.
    pub fn heal(&self) {
        self.channel(Way::There).heal();
        self.channel(Way::Back).heal();
    }

    /// What has passed this way since the beginning.
    #[must_use]
    pub fn counts(&self, way: Way) -> Counts {
        self.channel(way).counts()
    }

    fn channel(&self, way: Way) -> MutexGuard<'_, Channel> {
        locked(match way {
            Way::There => &self.there,
            Way::Back => &self.back,
        })
    }
}

/// Makes a device at this end, usable within the runtime.
fn device(interface: &str, end: End<'_>, runtime: &Handle) -> Tun {
    // A device belongs to the namespace of the thread that makes it; whoever holds it may be in any.
    let device = inside(end.namespace, || {
        let _entered = runtime.enter();
        let built = Tun::builder().name(interface).mtu(MTU).build();
        built.unwrap().remove(0)
    });
    let ip = |arguments: &[&str]| ip(&[&["-n", end.namespace], arguments].concat());
    ip(&[
        "addr",
        "add",
        &format!("{}/{PREFIX}", end.address),
        "dev",
        interface,
    ]);
    ip(&["link", "set", interface, "txqueuelen", DEVICE_QUEUE_PACKETS, "up"]);
    device
}

fn locked(channel: &Mutex<Channel>) -> MutexGuard<'_, Channel> {
    channel.lock().unwrap_or_else(PoisonError::into_inner)
}
