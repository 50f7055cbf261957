//! A source: a disk with exact tracking that outlives its process, and the crate's own decisions about what to send.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use farshore_blocks::{ByteCount, ByteOffset, Digest, Frame, VolumeIndex, point_digest};
use farshore_transfer::{Outbound, PendingCycle, PointHead, ResumePlan, TargetHead, plan_resume};

use super::{
    BLOCKS,
    chance::Chance,
    target::Disk,
    wire::{Session, ToSource, ToTarget},
};

const WINDOW: ByteCount = ByteCount(700);

#[derive(Default)]
pub(crate) struct Source {
    disk: Disk,
    /// What changed since the newest point that is known to be sealed; kept by the hypervisor across our crashes.
    dirty: BTreeSet<u64>,
    /// The disk at the instant of each cycle, for the judge.
    instants: BTreeMap<u64, Disk>,
    cycles: u64,
    pending: Option<Pending>,
    waits_for: Wait,
    /// Points that it takes for sealed.
    pub(crate) believed: Vec<PointHead>,
    pub(crate) refused: Vec<&'static str>,
    /// How many cycles went on after a cut.
    pub(crate) resumed: u64,
}

/// A cycle in hand.
struct Pending {
    base: Option<PointHead>,
    /// What was taken out of tracking for it.
    taken: BTreeSet<u64>,
    unsent: VecDeque<(u64, u8)>,
    outbound: Outbound,
    seal_sent: Option<Digest>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Wait {
    #[default]
    Welcome,
    Begun,
    Abandoned,
    /// For room in the window, or for nothing.
    Nothing,
    Sealed,
}

impl Source {
    pub(crate) fn guest_writes(&mut self, chance: &mut Chance) {
        let block = chance.below(BLOCKS);
        let fill = u8::try_from(chance.below(250)).unwrap() + 1;
        let _ = self.disk.insert(block, fill);
        let _ = self.dirty.insert(block);
    }

    /// The process dies: the hypervisor merges what the capture had taken.
    pub(crate) fn restarts(&mut self) {
        self.give_up();
    }

    fn give_up(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.dirty.extend(pending.taken);
        }
    }

    /// Whether this is what was captured.
    pub(crate) fn assert_captured(&self, cycle: u64, disk: &Disk) {
        assert_eq!(disk, &self.instants[&cycle], "cycle {cycle}");
    }

    /// Hears what was answered, or does the next thing.
    pub(crate) fn acts(&mut self, session: &mut Option<Session>, chance: &mut Chance) {
        let Some(open) = session else {
            *session = Some(Session::open());
            self.waits_for = Wait::Welcome;
            return;
        };
        let heard = open.to_source.pop_front();
        let goes_on = match heard {
            Some(answer) => self.hears(answer, open, chance),
            None => self.sends(open, chance),
        };
        if goes_on == GoesOn::No {
            *session = None;
        }
    }

    fn hears(&mut self, answer: ToSource, session: &mut Session, chance: &mut Chance) -> GoesOn {
        match (answer, self.waits_for) {
            (ToSource::Welcome(head), Wait::Welcome) => self.welcomed(&head, session, chance),
            (ToSource::Begun { durable_through }, Wait::Begun) => self.begun(durable_through, session),
            (ToSource::Abandoned, Wait::Abandoned) => {
                self.waits_for = Wait::Nothing;
                GoesOn::Yes
            }
            (ToSource::Sealed(point), Wait::Sealed) => {
                let pending = self.pending.take().unwrap();
                assert_eq!(Some(point.digest), pending.seal_sent);
                self.believed.push(point);
                self.waits_for = Wait::Welcome;
                // A next cycle needs the new head, which a new stream tells.
                GoesOn::No
            }
            (
                ToSource::Acknowledged {
                    cycle,
                    durable_through,
                },
                _,
            ) => {
                let Some(pending) = &mut self.pending else {
                    return GoesOn::Yes;
                };
                if pending.outbound.cycle() == cycle && pending.outbound.acknowledge(durable_through).is_err()
                {
                    self.give_up();
                    return GoesOn::No;
                }
                GoesOn::Yes
            }
            (ToSource::Refused(why), _) => {
                assert_ne!(why, "digest", "what was sent is not what was said to be sent");
                self.refused.push(why);
                self.give_up();
                GoesOn::No
            }
            (
                ToSource::Welcome(_) | ToSource::Begun { .. } | ToSource::Abandoned | ToSource::Sealed(_),
                _,
            ) => panic!("an answer that nothing asked for"),
        }
    }

    fn welcomed(&mut self, head: &TargetHead, session: &mut Session, chance: &mut Chance) -> GoesOn {
        if let Some(pending) = &self.pending {
            let known = PendingCycle {
                cycle: pending.outbound.cycle(),
                base: pending.base,
                acknowledged_through: pending.outbound.durable_through(),
                seal_sent: pending.seal_sent,
            };
            match plan_resume(&known, head) {
                ResumePlan::Resume { .. } | ResumePlan::BeginAgain => {
                    self.resumed += 1;
                    self.says_begin(session);
                    return GoesOn::Yes;
                }
                // What was taken for it is in the point.
                ResumePlan::WasSealed(point) => {
                    self.believed.push(point);
                    self.pending = None;
                }
                ResumePlan::Lost => self.give_up(),
            }
        }
        if let Some(open) = head.open {
            session
                .to_target
                .push_back(ToTarget::Abandon { cycle: open.cycle });
            self.waits_for = Wait::Abandoned;
            return GoesOn::Yes;
        }
        self.waits_for = Wait::Nothing;
        self.captures(head.newest, chance);
        if self.pending.is_some() {
            self.says_begin(session);
        }
        GoesOn::Yes
    }

    fn captures(&mut self, base: Option<PointHead>, chance: &mut Chance) {
        self.cycles += 1 + chance.below(5);
        let taken = std::mem::take(&mut self.dirty);
        let unsent = taken.iter().map(|block| (*block, self.disk[block]));
        let _ = self.instants.insert(self.cycles, in_bytes(&self.disk));
        self.pending = Some(Pending {
            base,
            unsent: unsent.collect(),
            taken,
            outbound: Outbound::new(self.cycles, 1, WINDOW),
            seal_sent: None,
        });
    }

    fn says_begin(&mut self, session: &mut Session) {
        let pending = self.pending.as_ref().unwrap();
        session.to_target.push_back(ToTarget::Begin {
            cycle: pending.outbound.cycle(),
            base: pending.base,
        });
        self.waits_for = Wait::Begun;
    }

    fn begun(&mut self, durable_through: u64, session: &mut Session) -> GoesOn {
        self.waits_for = Wait::Nothing;
        let pending = self.pending.as_mut().unwrap();
        let cycle = pending.outbound.cycle();
        match pending.outbound.send_again(durable_through) {
            Ok(messages) => {
                let again = messages
                    .into_iter()
                    .map(|message| ToTarget::Changes { cycle, message });
                session.to_target.extend(again);
                GoesOn::Yes
            }
            Err(_) => {
                self.give_up();
                GoesOn::No
            }
        }
    }

    fn sends(&mut self, session: &mut Session, chance: &mut Chance) -> GoesOn {
        let Some(pending) = &mut self.pending else {
            // A new stream tells from where to begin.
            return if self.waits_for == Wait::Nothing {
                GoesOn::No
            } else {
                GoesOn::Yes
            };
        };
        if self.waits_for != Wait::Nothing {
            return GoesOn::Yes;
        }
        let cycle = pending.outbound.cycle();
        if !pending.unsent.is_empty() {
            if pending.outbound.has_room() {
                let count = usize::try_from(1 + chance.below(3)).unwrap();
                let count = count.min(pending.unsent.len());
                let frames = pending.unsent.drain(..count).map(frame).collect();
                let message = pending.outbound.push(frames, Vec::new());
                session.to_target.push_back(ToTarget::Changes { cycle, message });
            }
            return GoesOn::Yes;
        }
        if pending.outbound.is_drained() {
            let parent = pending.base.map_or(Digest::default(), |base| base.digest);
            let changes = pending.outbound.changes();
            pending.seal_sent = Some(point_digest(&parent, b"machine", &changes));
            session.to_target.push_back(ToTarget::Seal {
                cycle,
                messages: pending.outbound.messages(),
                parent,
                changes,
            });
            self.waits_for = Wait::Sealed;
        }
        GoesOn::Yes
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GoesOn {
    Yes,
    No,
}

const BLOCK_BYTES: u64 = 64;

fn frame((block, fill): (u64, u8)) -> Frame {
    let raw = vec![fill; usize::try_from(BLOCK_BYTES).unwrap()];
    Frame::from_raw(VolumeIndex(0), ByteOffset(block * BLOCK_BYTES), raw.into()).unwrap()
}

/// As the target keeps it.
fn in_bytes(disk: &Disk) -> Disk {
    disk.iter()
        .map(|(block, fill)| (block * BLOCK_BYTES, *fill))
        .collect()
}
