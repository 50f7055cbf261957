//! What a line does to packets that go one way: it decides when each arrives, or that it never does. No clock and no
//! device is in it.
//!
//! ```text
//! offered ──▶ cut? lost? queue full? ──▶ [ queue: waits for its turn ] ──rate──▶ [ on its way ] ──delay──▶ arrives
//! ```
//!
//! Packets never overtake one another. What is on its way when the line is cut is lost.

use std::{
    collections::VecDeque,
    num::NonZeroU64,
    time::{Duration, Instant},
};

const NANOSECONDS: u128 = 1_000_000_000;
const MILLION: u64 = 1_000_000;

/// What one way of a line is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// From the end of a packet's sending to its arrival.
    pub delay: Duration,
    /// How fast packets are sent.
    pub bytes_per_second: NonZeroU64,
    /// How much may wait for its turn; a packet that would make it more is lost, as a router does it.
    pub queue_bytes: u64,
    /// How many packets of a million are lost by chance.
    pub lost_per_million: u32,
}

/// What became of a packet that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It will arrive, unless the line is cut before.
    Sent,
    /// It was lost by chance.
    Lost,
    /// The queue had no room for it.
    Overflowed,
    /// The line was cut.
    Cut,
}

/// What has passed since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Packets that arrived.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// Packets that were lost by chance.
    pub lost: u64,
    /// Packets for which the queue had no room.
    pub overflowed: u64,
    /// Packets that the cut line lost.
    pub cut: u64,
}

/// Whether a line carries anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Cut,
}

/// One way of a line.
#[derive(Debug)]
pub struct Channel {
    conditions: Conditions,
    state: State,
    /// When all that waits has been sent.
    sent_by: Instant,
    on_the_way: VecDeque<(Instant, Vec<u8>)>,
    chance: Chance,
    counts: Counts,
}

impl Channel {
    /// A whole line that carries nothing yet; `seed` decides which packets are lost by chance.
    #[must_use]
    pub fn new(conditions: Conditions, seed: u64, now: Instant) -> Self {
        Self {
            conditions,
            state: State::Whole,
            sent_by: now,
            on_the_way: VecDeque::new(),
            chance: Chance(seed),
            counts: Counts::default(),
        }
    }

    /// From now on it is like this. What is on its way already arrives as before.
    pub fn set(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// What it is like.
    #[must_use]
    pub fn conditions(&self) -> Conditions {
        self.conditions
    }

    /// Nothing passes until [`Self::heal`]; what is on its way is lost.
    pub fn cut(&mut self) {
        self.state = State::Cut;
        self.counts.cut += u64::try_from(self.on_the_way.len()).unwrap_or(u64::MAX);
        self.on_the_way.clear();
    }

    /// Packets pass again.
    pub fn heal(&mut self) {
        self.state = State::Whole;
    }

    /// What has passed since the beginning.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes a packet to be carried.
    pub fn offer(&mut self, packet: &[u8], now: Instant) -> Fate {
        let fate = self.fate(packet, now);
        match fate {
            Fate::Sent => self.send(packet, now),
            Fate::Lost => self.counts.lost += 1,
            Fate::Overflowed => self.counts.overflowed += 1,
            Fate::Cut => self.counts.cut += 1,
        }
        fate
    }

    /// The next packet that has arrived by now.
    pub fn arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_arrival()? > now {
            return None;
        }
        let (_, packet) = self.on_the_way.pop_front()?;
        self.counts.packets += 1;
        self.counts.bytes += length(&packet);
        Some(packet)
    }

    /// When the next packet arrives, if one is on its way.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Instant> {
        self.on_the_way.front().map(|(at, _)| *at)
    }

    fn fate(&mut self, packet: &[u8], now: Instant) -> Fate {
        if self.state == State::Cut {
            return Fate::Cut;
        }
        if self.chance.per_million() < u64::from(self.conditions.lost_per_million) {
            return Fate::Lost;
        }
        // A packet that need not wait is not in the queue.
        let waiting = self.waiting_bytes(now);
        if waiting > 0 && waiting + length(packet) > self.conditions.queue_bytes {
            return Fate::Overflowed;
        }
        Fate::Sent
    }

    fn waiting_bytes(&self, now: Instant) -> u64 {
        let wait = self.sent_by.saturating_duration_since(now).as_nanos();
        let bytes = wait * u128::from(self.conditions.bytes_per_second.get()) / NANOSECONDS;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn send(&mut self, packet: &[u8], now: Instant) {
        let takes =
            u128::from(length(packet)) * NANOSECONDS / u128::from(self.conditions.bytes_per_second.get());
        let takes = Duration::from_nanos(u64::try_from(takes).unwrap_or(u64::MAX));
        self.sent_by = self.sent_by.max(now) + takes;
        let arrives = self.sent_by + self.conditions.delay;
        // A delay that became shorter lets none overtake.
        let last = self.on_the_way.back().map_or(arrives, |(at, _)| *at);
        self.on_the_way.push_back((arrives.max(last), packet.to_vec()));
    }
}

/// The `SplitMix64` generator (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn per_million(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % MILLION
    }
}

fn length(packet: &[u8]) -> u64 {
    u64::try_from(packet.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
