//! The source's side of one cycle: numbers messages, bounds what is unacknowledged, keeps it until it is durable at
//! the target, and knows what to send again after a cut.

use std::collections::VecDeque;

use farshore_blocks::{ByteCount, ByteOffset, ChangeDigest, ChangeHasher, Frame, VolumeIndex};

use crate::Change;

/// How far a scan of a volume has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// Which volume.
    pub volume: VolumeIndex,
    /// Everything before it was looked at and sent where needed.
    pub scanned_through: ByteOffset,
}

/// One message of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// From 1, without gaps.
    pub number: u64,
    /// The changes.
    pub changes: Vec<Change>,
    /// How far a scan has come with it; empty outside scans.
    pub watermarks: Vec<Watermark>,
}

/// The target acknowledged what cannot be: it lies, or talks of another cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message {acknowledged} is acknowledged where {sent} were sent and {known} was durable")]
pub struct AcknowledgementError {
    /// What it says is durable.
    pub acknowledged: u64,
    /// What was sent.
    pub sent: u64,
    /// What it said before.
    pub known: u64,
}

/// One cycle on its way out. Its memory is bounded by the window and one message.
#[derive(Debug)]
pub struct Outbound {
    cycle: u64,
    window: ByteCount,
    last_number: u64,
    durable_through: u64,
    unacknowledged: VecDeque<Message>,
    in_flight: u64,
    hashers: Vec<ChangeHasher>,
}

impl Outbound {
    /// A cycle of which nothing has been sent.
    #[must_use]
    pub fn new(cycle: u64, volumes: usize, window: ByteCount) -> Self {
        Self::resume(cycle, 0, &vec![ChangeDigest::default(); volumes], window)
    }

    /// A cycle that a predecessor began, as far as the target holds it.
    #[must_use]
    pub fn resume(cycle: u64, durable_through: u64, changes: &[ChangeDigest], window: ByteCount) -> Self {
        Self {
            cycle,
            window,
            last_number: durable_through,
            durable_through,
            unacknowledged: VecDeque::new(),
            in_flight: 0,
            hashers: changes.iter().copied().map(ChangeHasher::resume).collect(),
        }
    }

    /// The number that names this attempt.
    #[must_use]
    pub fn cycle(&self) -> u64 {
        self.cycle
    }

    /// From now on so much may be unacknowledged. If more is, nothing is sent until less is.
    pub fn set_window(&mut self, window: ByteCount) {
        self.window = window;
    }

    /// Whether another message may be sent before an acknowledgement comes.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.in_flight < self.window.0
    }

    /// Whether everything sent is durable at the target.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.unacknowledged.is_empty()
    }

    /// The last message that is durable at the target.
    #[must_use]
    pub fn durable_through(&self) -> u64 {
        self.durable_through
    }

    /// How many messages the cycle has so far.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.last_number
    }

    /// What was sent so far, volume by volume.
    #[must_use]
    pub fn changes(&self) -> Vec<ChangeDigest> {
        self.hashers.iter().map(ChangeHasher::digest).collect()
    }

    /// The cycle is of so many volumes now, if that is more than before.
    pub fn know_volumes(&mut self, volumes: usize) {
        let known = self.hashers.len();
        self.hashers.resize(known.max(volumes), ChangeHasher::default());
    }

    /// Takes the next message in; it is to be sent now. Frames of volumes that do not exist are not hashed, and
    /// the target refuses them.
    pub fn push<C: Into<Change>>(&mut self, changes: Vec<C>, watermarks: Vec<Watermark>) -> Message {
        let changes: Vec<Change> = changes.into_iter().map(C::into).collect();
        for frame in changes.iter().map(Change::frame) {
            if let Some(hasher) = self.hashers.get_mut(frame.volume().as_usize()) {
                let extent = frame.extent();
                hasher.update(
                    frame.volume(),
                    extent.start(),
                    extent.length(),
                    &frame.raw_digest(),
                );
            }
        }
        self.last_number = self.last_number.saturating_add(1);
        let message = Message {
            number: self.last_number,
            changes,
            watermarks,
        };
        self.in_flight = self.in_flight.saturating_add(weight(&message));
        self.unacknowledged.push_back(message.clone());
        message
    }

    /// Takes note that everything through message `through` is durable; gives how many bytes of payload became so.
    ///
    /// # Errors
    /// When that was never sent, or goes back behind what was acknowledged.
    pub fn acknowledge(&mut self, through: u64) -> Result<ByteCount, AcknowledgementError> {
        if through > self.last_number || through < self.durable_through {
            return Err(AcknowledgementError {
                acknowledged: through,
                sent: self.last_number,
                known: self.durable_through,
            });
        }
        let mut payload = 0_u64;
        while let Some(message) = self
            .unacknowledged
            .pop_front_if(|message| message.number <= through)
        {
            self.in_flight = self.in_flight.saturating_sub(weight(&message));
            let parts = message
                .changes
                .iter()
                .map(|change| length(change.payload_bytes()));
            payload = parts.fold(payload, u64::saturating_add);
        }
        self.durable_through = through;
        Ok(ByteCount(payload))
    }

    /// After a cut: what the target does not hold of what was sent, in order.
    ///
    /// # Errors
    /// As [`Self::acknowledge`].
    pub fn send_again(&mut self, target_holds: u64) -> Result<Vec<Message>, AcknowledgementError> {
        self.acknowledge(target_holds)?;
        Ok(self.unacknowledged.iter().cloned().collect())
    }

    /// A seed did not have what it was said to have: the bytes themselves travel of all that is not acknowledged. Gives those
    /// that would not have.
    pub fn send_what_was_seeded(&mut self) -> Vec<Frame> {
        let mut turned = Vec::new();
        for change in self
            .unacknowledged
            .iter_mut()
            .flat_map(|message| &mut message.changes)
        {
            if let Change::Seeded(frame) = change {
                turned.push(frame.clone());
                *change = Change::Sent(frame.clone());
            }
        }
        turned
    }
}

/// What a message counts against the window: the memory that its frames hold on to, be they sent or not, which is more than travels
/// of a compressed one, and something for each frame so that a flood of zero frames is bounded too.
fn weight(message: &Message) -> u64 {
    const PER_FRAME_BYTES: u64 = 64;
    let frames = message.changes.iter().map(Change::frame);
    frames.fold(PER_FRAME_BYTES, |sum, frame| {
        sum.saturating_add(length(frame.held_bytes()))
            .saturating_add(PER_FRAME_BYTES)
    })
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
