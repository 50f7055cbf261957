//! On how many connections a session's changes travel: one, and more only while that carries more.
//!
//! A connection carries no more than its window in a round trip, and less where packets are lost; several together carry more,
//! unless the link itself is full, or processors or disks are what limits. That is tried, not reckoned: one more is opened
//! while the sender waits for the connections, and closed again if no more comes through.

use std::time::Duration;

use farshore_blocks::ByteCount;
use tokio::time::Instant;

use super::flow::rate;

/// How many are opened at most, where nothing else is said.
pub(crate) const MOST: usize = 4;
/// Nearer than this, one connection carries all that processors can make.
const FAR: Duration = Duration::from_millis(5);
/// How long is measured at least, beside a few round trips.
const MEASURED: Duration = Duration::from_millis(750);
const ROUND_TRIPS: u32 = 8;
/// How long a new connection takes until it is as fast as it will be, in measurements.
const SETTLING: u32 = 2;
/// By how much one more must carry more.
const WORTH_IT: f64 = 1.12;
/// How long nothing is tried after something did not help; twice as long each time.
const FIRST_REST: Duration = Duration::from_secs(20);
const LONGEST_REST: Duration = Duration::from_secs(640);

/// Decides for one session.
#[derive(Debug)]
pub(crate) struct Width {
    most: usize,
    round_trip: Duration,
    open: usize,
    trial: Trial,
    rest: Duration,
    spell: Spell,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Keep,
    /// One more connection is to be opened.
    Widen,
    /// The one that was opened last is not used any more.
    Narrow,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Trial {
    /// Nothing is tried before this, if anything is said.
    Resting(Option<Instant>),
    /// A connection is being opened; before, so much came through.
    Opening { before: f64 },
    /// It is open, and not measured before it had so many measurements to settle.
    Measuring { before: f64, settling: u32 },
}

/// What was seen since the last measurement.
#[derive(Debug)]
struct Spell {
    began: Instant,
    for_connections: Duration,
    delivered: u64,
}

impl Width {
    /// One connection is open to a target so far away.
    pub(crate) fn new(most: usize, round_trip: Duration, now: Instant) -> Self {
        Self {
            most,
            round_trip,
            open: 1,
            trial: Trial::Resting(None),
            rest: FIRST_REST,
            spell: Spell::since(now),
        }
    }

    /// All but one were lost with the session.
    pub(crate) fn lost(&mut self, now: Instant) {
        self.open = 1;
        self.trial = Trial::Resting(None);
        self.spell = Spell::since(now);
    }

    /// So many may be open from now on.
    pub(crate) fn at_most(&mut self, most: usize) {
        self.most = most;
    }

    /// The sender waited for a connection that takes more, or for room in the window; not for a limit of the rate.
    pub(crate) fn waited(&mut self, waited: Duration) {
        self.spell.for_connections += waited;
    }

    /// So many bytes of payload were acknowledged.
    pub(crate) fn delivered(&mut self, payload: ByteCount) {
        self.spell.delivered = self.spell.delivered.saturating_add(payload.0);
    }

    /// For now nothing more is sent: what comes is another flow.
    pub(crate) fn paused(&mut self, now: Instant) {
        self.spell = Spell::since(now);
    }

    /// The connection that was to be opened is.
    pub(crate) fn widened(&mut self, now: Instant) {
        if let Trial::Opening { before } = self.trial {
            self.open = self.open.saturating_add(1);
            self.trial = Trial::Measuring {
                before,
                settling: SETTLING,
            };
        }
        self.spell = Spell::since(now);
    }

    /// It could not be opened.
    pub(crate) fn refused(&mut self, now: Instant) {
        self.rest(now);
    }

    /// What is to be done now.
    pub(crate) fn step(&mut self, now: Instant) -> Step {
        let lasted = now.saturating_duration_since(self.spell.began);
        if lasted < MEASURED.max(self.round_trip * ROUND_TRIPS) {
            return Step::Keep;
        }
        let carried = rate(self.spell.delivered, lasted);
        let limits = self.spell.for_connections * 2 >= lasted;
        self.spell = Spell::since(now);
        if self.open > self.most {
            self.open = self.open.saturating_sub(1);
            return Step::Narrow;
        }
        match self.trial {
            Trial::Opening { .. } => Step::Keep,
            Trial::Resting(until) => {
                let may = until.is_none_or(|until| now >= until) && self.round_trip >= FAR;
                if !(may && limits && carried > 0.0 && self.open < self.most) {
                    return Step::Keep;
                }
                self.trial = Trial::Opening { before: carried };
                Step::Widen
            }
            Trial::Measuring { before, settling: 0 } => {
                if carried >= before * WORTH_IT {
                    self.rest = FIRST_REST;
                    self.trial = Trial::Resting(None);
                    return Step::Keep;
                }
                self.open = self.open.saturating_sub(1);
                self.rest(now);
                Step::Narrow
            }
            Trial::Measuring { before, settling } => {
                self.trial = Trial::Measuring {
                    before,
                    settling: settling.saturating_sub(1),
                };
                Step::Keep
            }
        }
    }

    fn rest(&mut self, now: Instant) {
        self.trial = Trial::Resting(Some(now + self.rest));
        self.rest = (self.rest * 2).min(LONGEST_REST);
    }
}

impl Spell {
    fn since(began: Instant) -> Self {
        Self {
            began,
            for_connections: Duration::ZERO,
            delivered: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: Duration = Duration::from_millis(100);
    const FAR_AWAY: Duration = Duration::from_millis(100);

    /// A link of which one connection carries so much, and all together no more than that, in MB a second.
    struct World {
        connection: u64,
        link: u64,
        /// The part of the time in which the sender waits for connections, in percent.
        waiting: u32,
    }

    /// How many are open after so many tenths of a second, and how often one was opened.
    fn after(width: &mut Width, world: &World, now: &mut Instant, tenths: u32) -> (usize, u32) {
        let mut opened = 0;
        for _ in 0..tenths {
            *now += TENTH;
            let carried = (world.connection * width.open as u64).min(world.link);
            width.delivered(ByteCount(carried * 100_000));
            width.waited(TENTH * world.waiting / 100);
            if width.step(*now) == Step::Widen {
                opened += 1;
                width.widened(*now);
            }
        }
        (width.open, opened)
    }

    fn start(round_trip: Duration) -> (Width, Instant) {
        let now = Instant::now();
        (Width::new(MOST, round_trip, now), now)
    }

    #[test]
    fn connections_are_opened_while_each_carries_more_and_no_more_than_that() {
        for (connection, link, expected) in [(18, 500, 4), (18, 36, 2), (18, 50, 3)] {
            let (mut width, mut now) = start(FAR_AWAY);
            let world = World {
                connection,
                link,
                waiting: 90,
            };
            let (open, _) = after(&mut width, &world, &mut now, 200);
            assert_eq!(open, expected, "{connection} {link}");
        }
    }

    #[test]
    fn where_one_fills_the_link_another_is_tried_ever_more_seldom() {
        let (mut width, mut now) = start(FAR_AWAY);
        let world = World {
            connection: 25,
            link: 25,
            waiting: 90,
        };
        let (open, opened) = after(&mut width, &world, &mut now, 6000);
        assert!(open == 1 && (3..8).contains(&opened), "{open} {opened}");
    }

    #[test]
    fn what_is_near_or_limited_by_something_else_has_one() {
        let world = |waiting| World {
            connection: 18,
            link: 500,
            waiting,
        };
        let (mut near, mut now) = start(Duration::from_millis(1));
        assert_eq!(after(&mut near, &world(90), &mut now, 500), (1, 0));
        let (mut limited, mut now) = start(FAR_AWAY);
        assert_eq!(after(&mut limited, &world(20), &mut now, 500), (1, 0));
    }

    #[test]
    fn a_lower_limit_closes_what_is_too_much() {
        let (mut width, mut now) = start(FAR_AWAY);
        let world = World {
            connection: 18,
            link: 500,
            waiting: 90,
        };
        after(&mut width, &world, &mut now, 200);
        width.at_most(2);
        assert_eq!(after(&mut width, &world, &mut now, 50).0, 2);
        width.at_most(1);
        assert_eq!(after(&mut width, &world, &mut now, 200).0, 1);
    }
}
