//! One stream between the two, in order both ways, until it is cut.

use std::collections::VecDeque;

use farshore_blocks::{ChangeDigest, Digest};
use farshore_transfer::{Message, Phase, PointHead, TargetHead};

use super::chance::Chance;

pub(crate) enum ToTarget {
    Hello,
    Begin {
        cycle: u64,
        base: Option<PointHead>,
    },
    Changes {
        cycle: u64,
        message: Message,
    },
    Seal {
        cycle: u64,
        messages: u64,
        parent: Digest,
        changes: Vec<ChangeDigest>,
    },
    Abandon {
        cycle: u64,
    },
}

pub(crate) enum ToSource {
    Welcome(TargetHead),
    Begun { durable_through: u64 },
    Acknowledged { cycle: u64, durable_through: u64 },
    Sealed(PointHead),
    Abandoned,
    Refused(&'static str),
}

pub(crate) struct Session {
    pub(crate) to_target: VecDeque<ToTarget>,
    pub(crate) to_source: VecDeque<ToSource>,
    /// Where the target sees the stream.
    pub(crate) phase: Phase,
}

impl Session {
    pub(crate) fn open() -> Self {
        Self {
            to_target: VecDeque::from([ToTarget::Hello]),
            to_source: VecDeque::new(),
            phase: Phase::AwaitingHello,
        }
    }

    /// Now and then the next message comes twice, or after the one behind it.
    pub(crate) fn is_disturbed(&mut self, chance: &mut Chance) {
        match chance.below(60) {
            0 if self.to_target.len() > 1 => self.to_target.swap(0, 1),
            1 => {
                if let Some(ToTarget::Changes { cycle, message }) = self.to_target.front() {
                    let (cycle, message) = (*cycle, message.clone());
                    self.to_target.push_front(ToTarget::Changes { cycle, message });
                }
            }
            _ => {}
        }
    }
}
