//! What limits a flow of messages to the target: the link with what is behind it, or the disks and processors that feed it.
//!
//! The link's rate shows only while the link is what limits. While it is not, what passes is a lower bound, and the
//! rate that was known before is raised little by little, so that a link that became faster is found out.

use std::time::Duration;

use farshore_blocks::ByteCount;

/// How long the sender's waiting is added up before it is judged: longer than buffers on the way hide that they fill.
const SPELL: Duration = Duration::from_millis(250);
/// What a flow that ended lasted at least, beyond round trips, for its rate to say something.
const SHORTEST_SPELL: Duration = Duration::from_millis(100);
/// By how much what limits is taken to be wider than what has passed, while nothing was seen of its limit.
const PROBING: f64 = 1.25;
/// Less of a link's known rate than this says nothing of what the link could carry. Compressed bytes are fewer than those that
/// would be sent otherwise, and must be enough.
const MUCH: f64 = 0.5;

/// A way with a round trip like this leads far out of the building. Two busy machines beside one another may seem to be apart for a
/// while, and tests that count what travels all the more.
pub(crate) const LONG_ROUND_TRIP: Duration = Duration::from_millis(if cfg!(test) { 1000 } else { 30 });

/// Watches the sender of one stream.
#[derive(Debug)]
pub(crate) struct Flow {
    round_trip: Duration,
    spell: Spell,
    link: Option<f64>,
    feed: Option<f64>,
}

/// What was seen since the last judgement.
#[derive(Debug, Default)]
struct Spell {
    for_link: Duration,
    for_frames: Duration,
    delivered: u64,
    raw: u64,
}

impl Flow {
    /// Nothing is known of the link but its round trip.
    pub(crate) fn new(round_trip: Duration) -> Self {
        Self {
            round_trip,
            spell: Spell::default(),
            link: None,
            feed: None,
        }
    }

    /// The sender waited for the link, the target, or a limit of the rate.
    pub(crate) fn waited_for_link(&mut self, waited: Duration) {
        self.spell.for_link += waited;
        self.judge_if_long();
    }

    /// The sender waited for something to send.
    pub(crate) fn waited_for_frames(&mut self, waited: Duration) {
        self.spell.for_frames += waited;
        self.judge_if_long();
    }

    /// So many bytes of the disks went on their way.
    pub(crate) fn shipped(&mut self, raw: ByteCount) {
        self.spell.raw = self.spell.raw.saturating_add(raw.0);
    }

    /// So many bytes of payload were acknowledged.
    pub(crate) fn delivered(&mut self, payload: ByteCount) {
        self.spell.delivered = self.spell.delivered.saturating_add(payload.0);
    }

    /// Everything was acknowledged, and for now nothing more is sent.
    pub(crate) fn drained(&mut self) {
        let lasted = self.spell.lasted();
        if lasted >= SHORTEST_SPELL + 2 * self.round_trip {
            self.judge(lasted.saturating_sub(self.round_trip));
        }
        self.spell = Spell::default();
    }

    /// How many bytes of payload a second the link carries; `None` while it has never been what limits.
    pub(crate) fn link(&self) -> Option<f64> {
        self.link
    }

    /// How many bytes of the disks a second there are to be sent; `None` while that is not what limits.
    pub(crate) fn feed(&self) -> Option<f64> {
        self.feed
    }

    /// Whether the way is long, and what limits on it has not been seen yet.
    pub(crate) fn is_long_and_unknown(&self) -> bool {
        self.round_trip >= LONG_ROUND_TRIP && self.link.is_none() && self.feed.is_none()
    }

    fn judge_if_long(&mut self) {
        let lasted = self.spell.lasted();
        if lasted >= SPELL + 2 * self.round_trip {
            self.judge(lasted);
            self.spell = Spell::default();
        }
    }

    fn judge(&mut self, lasted: Duration) {
        let carried = rate(self.spell.delivered, lasted);
        if self.spell.for_link >= self.spell.for_frames {
            self.feed = None;
            self.link = Some(self.link.map_or(carried, |known| f64::midpoint(known, carried)));
            return;
        }
        self.feed = Some(rate(self.spell.raw, lasted) * PROBING);
        self.link = self.link.map(|known| match carried >= known * MUCH {
            true => carried.max(known) * PROBING,
            false => known,
        });
    }
}

impl Spell {
    fn lasted(&self) -> Duration {
        self.for_link + self.for_frames
    }
}

/// Bytes a second.
#[expect(clippy::cast_precision_loss, reason = "a rate: 53 bits are enough")]
pub(crate) fn rate(bytes: u64, within: Duration) -> f64 {
    bytes as f64 / within.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(40);
    const TENTH: Duration = Duration::from_millis(100);
    const MB: ByteCount = ByteCount(1_000_000);

    /// Ten seconds in which a link of `per_tenth` MB in each tenth of a second makes the sender wait.
    fn limited(flow: &mut Flow, per_tenth: u64) {
        for _ in 0..100 {
            flow.shipped(ByteCount(2 * per_tenth * MB.0));
            flow.delivered(ByteCount(per_tenth * MB.0));
            flow.waited_for_link(TENTH);
        }
    }

    fn near(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found / expected - 1.0).abs() < 0.05)
    }

    #[test]
    fn a_link_that_makes_the_sender_wait_has_the_rate_at_which_it_takes() {
        let mut flow = Flow::new(ROUND_TRIP);
        assert_eq!(flow.link(), None);
        limited(&mut flow, 3);
        assert!(near(flow.link(), 3e7), "{flow:?}");
        limited(&mut flow, 1);
        assert!(near(flow.link(), 1e7) && flow.feed().is_none(), "{flow:?}");
    }

    #[test]
    fn a_link_for_which_nobody_waits_has_no_known_rate() {
        let mut flow = Flow::new(ROUND_TRIP);
        for _ in 0..100 {
            flow.shipped(MB);
            flow.delivered(MB);
            flow.waited_for_frames(TENTH);
        }
        assert_eq!(flow.link(), None);
        assert!(near(flow.feed(), 1e7 * PROBING), "{flow:?}");
    }

    #[test]
    fn a_link_that_became_faster_is_found_out() {
        let mut flow = Flow::new(ROUND_TRIP);
        limited(&mut flow, 1);
        for _ in 0..100 {
            flow.shipped(ByteCount(10 * MB.0));
            flow.delivered(ByteCount(5 * MB.0));
            flow.waited_for_frames(TENTH);
        }
        assert!(flow.link().unwrap() > 5e7, "{flow:?}");
    }

    #[test]
    fn a_source_with_little_to_send_says_nothing_of_the_link() {
        let mut flow = Flow::new(ROUND_TRIP);
        limited(&mut flow, 1);
        for _ in 0..100 {
            flow.delivered(ByteCount(MB.0 / 3));
            flow.waited_for_frames(TENTH);
        }
        assert!(near(flow.link(), 1e7), "{flow:?}");
    }

    #[test]
    fn a_short_cycle_shows_the_latency_and_no_rate() {
        let mut flow = Flow::new(ROUND_TRIP);
        for _ in 0..100 {
            flow.delivered(MB);
            flow.waited_for_link(TENTH);
            flow.drained();
        }
        assert_eq!(flow.link(), None);
        // One that lasts long enough does.
        flow.delivered(ByteCount(4 * MB.0));
        flow.waited_for_link(2 * TENTH + ROUND_TRIP);
        flow.drained();
        assert!(near(flow.link(), 2e7), "{flow:?}");
    }
}
