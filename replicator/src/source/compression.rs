//! Whether frames are compressed before they travel, and how thoroughly: so that most of the disks' bytes a second come
//! through the narrowest of reading, compressing and the link.
//!
//! Compressing may take one processor. While the link has not been seen to be what limits, nothing is compressed, not even to
//! try, unless the way is long: until something is known of such a one it is taken to be narrow. While what travels cannot be
//! compressed, a frame of each message is tried.

use std::time::Duration;

use farshore_blocks::ByteCount;

use super::flow::{Flow, rate};

/// A level of Zstandard, and what it does to frames of 64 KiB of program text on one processor.
#[derive(Debug, Clone, Copy)]
struct Level {
    level: i32,
    bytes_per_second: f64,
    /// The payload's part of the raw bytes.
    kept: f64,
}

const FASTEST: Level = Level {
    level: -5,
    bytes_per_second: 1.5e9,
    kept: 0.60,
};
/// Faster than what most long ways carry.
const FAST: Level = Level {
    level: 1,
    bytes_per_second: 0.8e9,
    kept: 0.44,
};
/// From fast to thorough. What is beyond them saves less than a hundredth more and costs several times as much. What they
/// do elsewhere is taken to be to this as it is at the level that is in use.
const LEVELS: [Level; 5] = [
    FASTEST,
    Level {
        level: -1,
        bytes_per_second: 1.05e9,
        kept: 0.50,
    },
    FAST,
    Level {
        level: 3,
        bytes_per_second: 0.48e9,
        kept: 0.42,
    },
    Level {
        level: 6,
        bytes_per_second: 0.19e9,
        kept: 0.40,
    },
];
/// By how much something costlier must be better.
const WORTH_IT: f64 = 1.03;
/// What the newest observation counts.
const NEWEST: f64 = 0.25;

/// What is done with the frames of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// They travel as they are.
    None,
    /// One is compressed at this level, to see whether all should be.
    Sample(i32),
    /// All are compressed at this level, where that pays.
    All(i32),
}

/// Frames on which a level was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trial {
    pub(crate) level: i32,
    pub(crate) raw: ByteCount,
    pub(crate) payload: ByteCount,
    pub(crate) took: Duration,
}

/// Decides for one stream.
#[derive(Debug)]
pub(crate) struct Compression {
    /// How often program text's shrinkage is applied to what travels now: 0 cannot be compressed.
    content: f64,
    /// This machine's speed now as a part of what levels are listed with.
    speed: f64,
    chosen: Option<Level>,
}

impl Compression {
    /// Nothing is known of what will travel.
    pub(crate) fn new() -> Self {
        Self {
            content: 0.0,
            speed: 1.0,
            chosen: None,
        }
    }

    /// What is to be done with the next message.
    pub(crate) fn effort(&mut self, flow: &Flow) -> Effort {
        let Some(link) = flow.link() else {
            self.chosen = None;
            return match flow.is_long_and_unknown() {
                true => Effort::All(FAST.level),
                false => Effort::None,
            };
        };
        let feed = flow.feed().unwrap_or(f64::INFINITY);
        self.chosen = self.best(link, feed);
        match self.chosen {
            Some(level) => Effort::All(level.level),
            None => Effort::Sample(FASTEST.level),
        }
    }

    /// Takes in what came of an effort.
    pub(crate) fn tried(&mut self, trial: Trial) {
        let listed = LEVELS.iter().find(|listed| listed.level == trial.level);
        let Some(level) = listed.filter(|_| trial.raw.0 > 0) else {
            return;
        };
        let kept = rate(trial.payload.0, Duration::from_secs(1)) / rate(trial.raw.0, Duration::from_secs(1));
        let content = kept.clamp(0.001, 1.0).ln() / level.kept.ln();
        let speed = rate(trial.raw.0, trial.took) / level.bytes_per_second;
        self.content += (content - self.content) * NEWEST;
        self.speed += (speed - self.speed) * NEWEST;
    }

    fn best(&self, link: f64, feed: f64) -> Option<Level> {
        let mut best = (None, link.min(feed));
        for level in LEVELS {
            let carried = link / level.kept.powf(self.content);
            let shipped = carried.min(level.bytes_per_second * self.speed).min(feed);
            if shipped > best.1 * WORTH_IT {
                best = (Some(level), shipped);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::flow::LONG_ROUND_TRIP;

    const MIB: ByteCount = ByteCount(1 << 20);

    /// A source whose disks, processor and link are what they are said to be, for so many messages.
    struct World {
        link: f64,
        feed: f64,
        /// As a multiple of what levels are listed with.
        processor: f64,
        /// The power of program text's shrinkage.
        content: f64,
    }

    impl World {
        /// Gives what was done with the last message, and how many of the others were compressed.
        fn ship(&self, flow: &mut Flow, compression: &mut Compression, messages: u32) -> (Effort, u32) {
            let mut last = Effort::None;
            let mut compressed = 0;
            for _ in 0..messages {
                last = compression.effort(flow);
                let (tried, level) = match last {
                    Effort::None => (0, FASTEST),
                    Effort::Sample(level) => (MIB.0 / 16, listed(level)),
                    Effort::All(level) => (MIB.0, listed(level)),
                };
                let kept = level.kept.powf(self.content);
                let took = seconds(tried, level.bytes_per_second * self.processor);
                if tried > 0 {
                    compression.tried(Trial {
                        level: level.level,
                        raw: ByteCount(tried),
                        payload: scaled(tried, kept),
                        took,
                    });
                }
                let payload = if tried == MIB.0 {
                    compressed += 1;
                    scaled(MIB.0, kept)
                } else {
                    MIB
                };
                let on_link = seconds(payload.0, self.link);
                let feeding = seconds(MIB.0, self.feed).max(took);
                flow.shipped(MIB);
                flow.delivered(payload);
                if on_link > feeding {
                    flow.waited_for_link(on_link);
                } else {
                    flow.waited_for_frames(feeding);
                }
            }
            (last, compressed)
        }
    }

    fn listed(level: i32) -> Level {
        *LEVELS.iter().find(|listed| listed.level == level).unwrap()
    }

    fn seconds(bytes: u64, bytes_per_second: f64) -> Duration {
        Duration::from_secs_f64(rate(bytes, Duration::from_secs(1)) / bytes_per_second)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a small number"
    )]
    fn scaled(bytes: u64, by: f64) -> ByteCount {
        ByteCount((rate(bytes, Duration::from_secs(1)) * by) as u64)
    }

    fn start() -> (Flow, Compression) {
        (Flow::new(Duration::from_millis(1)), Compression::new())
    }

    const TEXT: f64 = 1.0;
    const NOISE: f64 = 0.0;

    #[test]
    fn a_link_that_nobody_waits_for_costs_nothing() {
        let (mut flow, mut compression) = start();
        let world = World {
            link: 5e9,
            feed: 1e9,
            processor: 1.0,
            content: TEXT,
        };
        assert_eq!(world.ship(&mut flow, &mut compression, 2000), (Effort::None, 0));
    }

    #[test]
    fn a_long_way_is_taken_to_be_narrow_until_it_is_known() {
        let long = || Flow::new(LONG_ROUND_TRIP);
        let world = |link| World {
            link,
            feed: 1e9,
            processor: 1.0,
            content: TEXT,
        };
        let (mut flow, mut compression) = (long(), Compression::new());
        let (last, compressed) = world(25e6).ship(&mut flow, &mut compression, 400);
        assert_eq!((last, compressed), (Effort::All(6), 400));
        let (mut flow, mut compression) = (long(), Compression::new());
        let (last, compressed) = world(5e9).ship(&mut flow, &mut compression, 20_000);
        assert!(last == Effort::None && compressed < 4000, "{compressed}");
    }

    #[test]
    fn a_slow_link_is_worth_a_thorough_level_and_a_faster_one_a_fast_level() {
        for (link, processor, expected) in [
            (25e6, 1.0, 6),
            (25e6, 0.2, 3),
            (150e6, 1.0, 3),
            (300e6, 1.0, 1),
            (450e6, 1.0, -1),
            (800e6, 1.0, -5),
        ] {
            let (mut flow, mut compression) = start();
            let world = World {
                link,
                feed: 3e9,
                processor,
                content: TEXT,
            };
            let (last, _) = world.ship(&mut flow, &mut compression, 4000);
            assert_eq!(last, Effort::All(expected), "{link} {processor}");
        }
    }

    #[test]
    fn what_cannot_be_compressed_is_only_sampled() {
        let (mut flow, mut compression) = start();
        let world = World {
            link: 25e6,
            feed: 3e9,
            processor: 4.0,
            content: NOISE,
        };
        let (last, compressed) = world.ship(&mut flow, &mut compression, 4000);
        assert_eq!((last, compressed), (Effort::Sample(-5), 0));
    }

    #[test]
    fn it_follows_what_travels() {
        let (mut flow, mut compression) = start();
        let world = |content| World {
            link: 25e6,
            feed: 3e9,
            processor: 1.0,
            content,
        };
        let (_, compressed) = world(TEXT).ship(&mut flow, &mut compression, 400);
        assert!(compressed > 380, "{compressed}");
        let (last, compressed) = world(NOISE).ship(&mut flow, &mut compression, 400);
        assert!(
            matches!(last, Effort::Sample(_)) && compressed < 30,
            "{compressed}"
        );
        let (last, compressed) = world(TEXT).ship(&mut flow, &mut compression, 400);
        assert!(matches!(last, Effort::All(_)) && compressed > 380, "{compressed}");
    }

    #[test]
    fn a_link_that_became_fast_ends_it() {
        let (mut flow, mut compression) = start();
        let world = |link| World {
            link,
            feed: 1e9,
            processor: 0.5,
            content: TEXT,
        };
        world(25e6).ship(&mut flow, &mut compression, 400);
        let (last, _) = world(5e9).ship(&mut flow, &mut compression, 20_000);
        assert_eq!(last, Effort::Sample(-5));
    }

    #[test]
    fn a_source_with_little_to_send_does_not_compress_it() {
        let (mut flow, mut compression) = start();
        let world = |feed| World {
            link: 25e6,
            feed,
            processor: 1.0,
            content: TEXT,
        };
        world(3e9).ship(&mut flow, &mut compression, 400);
        let (last, _) = world(5e6).ship(&mut flow, &mut compression, 400);
        assert_eq!(last, Effort::Sample(-5));
    }
}
