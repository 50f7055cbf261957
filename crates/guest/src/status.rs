//! What the guest says of itself: once at boot on the witness, and on `GET /status` at any time.

use serde::{Deserialize, Serialize};

use crate::judge::{Judgement, Order};

/// What the guest found on its disks before it wrote anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootVerdict {
    /// The highest record of region A; 0 if there was none.
    pub region_a_last: u64,
    /// The highest record of region B.
    pub region_b_last: u64,
    /// The highest record of the journal on the file system.
    pub ext4_last: u64,
    /// Slots and journal records that hold no whole record.
    pub torn: u64,
    /// Slots and journal records that hold nothing, or the wrong record.
    pub gaps: u64,
    /// True if the two regions are of one instant.
    pub order_ok: bool,
    /// True if the file system was found without any fault after its journal's replay.
    pub ext4_clean: bool,
    /// What was wrong, for a person; empty if nothing was.
    pub faults: Vec<String>,
}

impl BootVerdict {
    /// True if the disks were an exact instant of an honest guest.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.torn == 0 && self.gaps == 0 && self.order_ok && self.ext4_clean && self.faults.is_empty()
    }

    /// The part of the verdict that the regions give.
    pub(crate) fn of_regions(judgement: &Judgement) -> Self {
        let exact = judgement.is_exact_instant();
        Self {
            region_a_last: judgement.region_a.last,
            region_b_last: judgement.region_b.last,
            ext4_last: 0,
            torn: judgement.region_a.torn + judgement.region_b.torn,
            gaps: judgement.region_a.gaps + judgement.region_b.gaps,
            order_ok: judgement.order == Order::Kept,
            ext4_clean: false,
            faults: if exact {
                Vec::new()
            } else {
                vec![judgement.describe()]
            },
        }
    }
}

/// The answer to `GET /status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The guest's name.
    pub hostname: String,
    /// What it found when it booted.
    pub boot_verdict: BootVerdict,
    /// The newest record that is complete in region A.
    pub last_a: u64,
    /// The newest record that is complete in region B.
    pub last_b: u64,
    /// The newest record that is complete in the journal.
    pub last_ext4: u64,
    /// Input and output errors that the workload saw since boot.
    pub io_errors: u64,
    /// The longest that one write took since boot, a write that has not ended yet included.
    pub longest_write_ms: u64,
}
