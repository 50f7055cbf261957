//! What is learnt of a stream while it ships, shared by those who make frames ready and the one who sends them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use farshore_blocks::ByteCount;

use super::{
    compression::{Compression, Effort, Trial},
    flow::Flow,
};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tuning {
    learnt: Arc<Mutex<Learnt>>,
}

#[derive(Debug)]
struct Learnt {
    flow: Flow,
    compression: Compression,
}

impl Tuning {
    /// For a stream with this round trip, of which nothing else is known.
    pub(crate) fn new(round_trip: Duration) -> Self {
        Self {
            learnt: Arc::new(Mutex::new(Learnt {
                flow: Flow::new(round_trip),
                compression: Compression::new(),
            })),
        }
    }

    /// What is to be done with the next message's frames.
    pub(crate) fn effort(&self) -> Effort {
        let mut learnt = self.learnt();
        let Learnt { flow, compression } = &mut *learnt;
        compression.effort(flow)
    }

    /// What came of an effort.
    pub(crate) fn tried(&self, trial: Trial) {
        self.learnt().compression.tried(trial);
    }

    /// A message of so many bytes of the disks went on its way, after this long a wait for it and for the link.
    pub(crate) fn shipped(&self, raw: ByteCount, (for_frames, for_link): (Duration, Duration)) {
        let flow = &mut self.learnt().flow;
        flow.shipped(raw);
        flow.waited_for_frames(for_frames);
        flow.waited_for_link(for_link);
    }

    /// So many bytes of payload were acknowledged.
    pub(crate) fn delivered(&self, payload: ByteCount) {
        self.learnt().flow.delivered(payload);
    }

    /// The last acknowledgement came after this long a wait.
    pub(crate) fn drained(&self, waited: Duration) {
        let flow = &mut self.learnt().flow;
        flow.waited_for_link(waited);
        flow.drained();
    }

    fn learnt(&self) -> MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
