//! What a source does with the cycle it has in hand once a target has welcomed it: an unknown outcome is answered by
//! what the target holds, never guessed.

use farshore_blocks::{Digest, Sequence};

/// The newest sealed point of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PointHead {
    /// Its place.
    pub sequence: Sequence,
    /// Its digest.
    pub digest: Digest,
}

/// The cycle that a target holds unsealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldCycle {
    /// Its number.
    pub cycle: u64,
    /// The last message that is durable.
    pub durable_through: u64,
}

impl HeldCycle {
    /// Whether messages are missing that the target acknowledged when it held `acknowledged`: nobody can send them
    /// again.
    #[must_use]
    pub fn lacks(&self, acknowledged: &Self) -> bool {
        self.cycle == acknowledged.cycle && self.durable_through < acknowledged.durable_through
    }
}

/// What a target says of a chain in its welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetHead {
    /// The newest point, if any is sealed.
    pub newest: Option<PointHead>,
    /// The open cycle, if one is.
    pub open: Option<HeldCycle>,
}

/// The cycle that a source has in hand, with its capture alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingCycle {
    /// Its number.
    pub cycle: u64,
    /// What it is built on.
    pub base: Option<PointHead>,
    /// The last message that was acknowledged: what came before it can no longer be sent again.
    pub acknowledged_through: u64,
    /// The digest that its seal was sent with, once it was.
    pub seal_sent: Option<Digest>,
}

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumePlan {
    /// Go on after this message.
    Resume {
        /// The last message that the target holds.
        after_message: u64,
    },
    /// The target holds nothing of it and still stands at its base: begin it again from the first message.
    BeginAgain,
    /// Its seal had arrived: it is the newest point.
    WasSealed(PointHead),
    /// It can no longer become a point there; its changes must be captured again.
    Lost,
}

/// Decides by what both sides hold.
#[must_use]
pub fn plan_resume(pending: &PendingCycle, target: &TargetHead) -> ResumePlan {
    if let (Some(sealed), Some(newest)) = (pending.seal_sent, target.newest)
        && newest.digest == sealed
    {
        return ResumePlan::WasSealed(newest);
    }
    if target.newest != pending.base {
        return ResumePlan::Lost;
    }
    let acknowledged = HeldCycle {
        cycle: pending.cycle,
        durable_through: pending.acknowledged_through,
    };
    match target.open {
        Some(open) if open.cycle == pending.cycle && !open.lacks(&acknowledged) => ResumePlan::Resume {
            after_message: open.durable_through,
        },
        Some(_) => ResumePlan::Lost,
        None if pending.acknowledged_through == 0 => ResumePlan::BeginAgain,
        None => ResumePlan::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(sequence: u64, fill: u8) -> PointHead {
        PointHead {
            sequence: Sequence(sequence),
            digest: Digest::from_bytes([fill; 32]),
        }
    }

    fn pending(seal_sent: Option<u8>) -> PendingCycle {
        PendingCycle {
            cycle: 5,
            base: Some(point(3, 3)),
            acknowledged_through: 0,
            seal_sent: seal_sent.map(|fill| Digest::from_bytes([fill; 32])),
        }
    }

    #[test]
    fn acknowledged_messages_that_the_target_no_longer_holds_cannot_be_sent_again() {
        let ours = PendingCycle {
            acknowledged_through: 2,
            ..pending(None)
        };
        let target = TargetHead {
            newest: ours.base,
            open: None,
        };
        assert_eq!(plan_resume(&ours, &target), ResumePlan::Lost);
    }

    #[test]
    fn a_target_that_went_back_behind_its_acknowledgement_has_lost_the_cycle() {
        let ours = PendingCycle {
            acknowledged_through: 3,
            ..pending(None)
        };
        for (durable_through, expected) in [
            (2, ResumePlan::Lost),
            (3, ResumePlan::Resume { after_message: 3 }),
            (4, ResumePlan::Resume { after_message: 4 }),
        ] {
            let target = TargetHead {
                newest: ours.base,
                open: Some(HeldCycle {
                    cycle: ours.cycle,
                    durable_through,
                }),
            };
            assert_eq!(plan_resume(&ours, &target), expected, "through {durable_through}");
        }
    }

    #[test]
    fn only_less_of_the_same_cycle_is_a_loss() {
        let held = |cycle, durable_through| HeldCycle {
            cycle,
            durable_through,
        };
        assert!(held(5, 2).lacks(&held(5, 3)));
        assert!(!held(5, 3).lacks(&held(5, 3)));
        assert!(!held(6, 0).lacks(&held(5, 3)));
    }

    #[test]
    fn every_pair_of_what_both_hold_has_its_plan() {
        let open = |cycle| {
            Some(HeldCycle {
                cycle,
                durable_through: 8,
            })
        };
        let cases = [
            (
                pending(None),
                Some(point(3, 3)),
                open(5),
                ResumePlan::Resume { after_message: 8 },
            ),
            (pending(None), Some(point(3, 3)), None, ResumePlan::BeginAgain),
            (pending(None), Some(point(3, 3)), open(6), ResumePlan::Lost),
            (pending(None), Some(point(4, 4)), None, ResumePlan::Lost),
            (pending(None), None, None, ResumePlan::Lost),
            (
                pending(Some(4)),
                Some(point(4, 4)),
                None,
                ResumePlan::WasSealed(point(4, 4)),
            ),
            (
                pending(Some(4)),
                Some(point(3, 3)),
                open(5),
                ResumePlan::Resume { after_message: 8 },
            ),
            (pending(Some(4)), Some(point(4, 9)), None, ResumePlan::Lost),
        ];
        for (ours, newest, open, expected) in cases {
            assert_eq!(
                plan_resume(&ours, &TargetHead { newest, open }),
                expected,
                "{ours:?} {newest:?}"
            );
        }
    }
}
