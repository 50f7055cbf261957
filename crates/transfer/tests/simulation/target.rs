//! A target with the vault's rules: messages in order and without gaps, acknowledged once durable, sealed if everything fits.

use std::collections::BTreeMap;

use farshore_blocks::{ChangeHasher, Digest, Frame, Sequence, point_digest};
use farshore_transfer::{Change, HeldCycle, Message, PointHead, Received, TargetHead, admit};

use super::{
    chance::Chance,
    source::Source,
    wire::{Session, ToSource, ToTarget},
};

/// By block.
pub(crate) type Disk = BTreeMap<u64, u8>;

#[derive(Default)]
pub(crate) struct Target {
    points: Vec<(PointHead, Disk)>,
    open: Option<Open>,
}

struct Open {
    cycle: u64,
    base: Option<PointHead>,
    messages: Vec<Message>,
    durable_through: u64,
}

impl Open {
    fn last(&self) -> u64 {
        self.messages.last().map_or(0, |message| message.number)
    }
}

impl Target {
    pub(crate) fn points(&self) -> usize {
        self.points.len()
    }

    pub(crate) fn holds(&self, point: PointHead) -> bool {
        self.points.iter().any(|(head, _)| *head == point)
    }

    fn newest(&self) -> Option<PointHead> {
        self.points.last().map(|(head, _)| *head)
    }

    /// What was not durable is gone.
    pub(crate) fn restarts(&mut self) {
        if let Some(open) = &mut self.open {
            let durable = open.durable_through;
            open.messages.retain(|message| message.number <= durable);
        }
    }

    /// An older copy of the open cycle's segment is put in its place: less is durable than was acknowledged.
    pub(crate) fn is_put_back(&mut self, chance: &mut Chance) {
        if let Some(open) = &mut self.open {
            open.durable_through = chance.below(open.durable_through + 1);
        }
        self.restarts();
    }

    /// Takes the next message in, or syncs.
    pub(crate) fn acts(&mut self, session: &mut Session, source: &Source, chance: &mut Chance) {
        let Some(message) = session.to_target.pop_front() else {
            self.sync(session);
            return;
        };
        let received = match &message {
            ToTarget::Hello => Received::Hello,
            ToTarget::Begin { cycle, .. } => Received::Begin(*cycle),
            ToTarget::Changes { cycle, .. } => Received::Changes(*cycle),
            ToTarget::Seal { cycle, .. } => Received::Seal(*cycle),
            ToTarget::Abandon { cycle } => Received::Abandon(*cycle),
        };
        let answer = match admit(session.phase, received) {
            Ok(phase) => {
                session.phase = phase;
                self.take(message, source)
            }
            Err(_) => Err("order"),
        };
        match answer {
            Ok(answer) => session.to_source.extend(answer),
            Err(why) => session.to_source.push_back(ToSource::Refused(why)),
        }
        if chance.below(3) == 0 {
            self.sync(session);
        }
    }

    fn sync(&mut self, session: &mut Session) {
        if let Some(open) = &mut self.open
            && open.durable_through < open.last()
        {
            open.durable_through = open.last();
            session.to_source.push_back(ToSource::Acknowledged {
                cycle: open.cycle,
                durable_through: open.durable_through,
            });
        }
    }

    fn take(&mut self, message: ToTarget, source: &Source) -> Result<Option<ToSource>, &'static str> {
        match message {
            ToTarget::Hello => Ok(Some(ToSource::Welcome(TargetHead {
                newest: self.newest(),
                open: self.open.as_ref().map(|open| HeldCycle {
                    cycle: open.cycle,
                    durable_through: open.durable_through,
                }),
            }))),
            ToTarget::Begin { cycle, base } => self.begin(cycle, base),
            ToTarget::Changes { cycle, message } => self.append(cycle, message),
            ToTarget::Seal {
                cycle,
                messages,
                parent,
                changes,
            } => {
                let open = self.open.take_if(|open| open.cycle == cycle).ok_or("no cycle")?;
                let digest = point_digest(&parent, b"machine", &changes);
                match self.sealed(&open, (messages, parent, &changes)) {
                    Ok(disk) => {
                        let sequence = open.base.map_or(Sequence(0), |base| base.sequence).next();
                        let head = PointHead { sequence, digest };
                        source.assert_captured(cycle, &disk);
                        self.points.push((head, disk));
                        Ok(Some(ToSource::Sealed(head)))
                    }
                    Err(why) => {
                        self.open = Some(open);
                        Err(why)
                    }
                }
            }
            ToTarget::Abandon { cycle } => {
                self.open = self.open.take().filter(|open| open.cycle != cycle);
                Ok(Some(ToSource::Abandoned))
            }
        }
    }

    fn begin(&mut self, cycle: u64, base: Option<PointHead>) -> Result<Option<ToSource>, &'static str> {
        if base != self.newest() {
            return Err("wrong base");
        }
        match &self.open {
            Some(open) if open.cycle != cycle => return Err("cycle open"),
            Some(_) => {}
            None => {
                self.open = Some(Open {
                    cycle,
                    base,
                    messages: Vec::new(),
                    durable_through: 0,
                });
            }
        }
        let durable_through = self.open.as_ref().map_or(0, |open| open.durable_through);
        // What a cut stream left unsynced is sent again.
        self.restarts();
        Ok(Some(ToSource::Begun { durable_through }))
    }

    fn append(&mut self, cycle: u64, message: Message) -> Result<Option<ToSource>, &'static str> {
        let open = self.open.as_mut().filter(|open| open.cycle == cycle);
        let open = open.ok_or("no cycle")?;
        if message.number > open.last() + 1 {
            return Err("gap");
        }
        if message.number > open.last() {
            open.messages.push(message);
        }
        Ok(None)
    }

    /// The disk of the point, if all of the cycle is there and is what the seal says.
    fn sealed(
        &self,
        open: &Open,
        (messages, parent, changes): (u64, Digest, &[farshore_blocks::ChangeDigest]),
    ) -> Result<Disk, &'static str> {
        if open.base != self.newest() || parent != open.base.map_or(Digest::default(), |base| base.digest) {
            return Err("wrong base");
        }
        if open.last() != messages {
            return Err("gap");
        }
        let mut hasher = ChangeHasher::default();
        let mut disk = self
            .points
            .last()
            .map(|(_, disk)| disk.clone())
            .unwrap_or_default();
        let held = open.messages.iter().flat_map(|message| &message.changes);
        for frame in held.map(Change::frame) {
            let extent = frame.extent();
            hasher.update(
                frame.volume(),
                extent.start(),
                extent.length(),
                &frame.raw_digest(),
            );
            put(&mut disk, frame);
        }
        if changes != [hasher.digest()] {
            return Err("digest");
        }
        Ok(disk)
    }
}

/// Writes a frame of one block.
fn put(disk: &mut Disk, frame: &Frame) {
    let _ = disk.insert(frame.extent().start().0, frame.raw()[0]);
}
