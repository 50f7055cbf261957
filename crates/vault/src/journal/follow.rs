//! A reader's view of the journal: what was read stays, and only what came since is read again.

use std::fs::File;

use farshore_blocks::Incarnation;
use rustix::fs::{FlockOperation, flock};

use super::replay::{Copies, Presence, Replayed, generations, newest_generation, replay};
use crate::{damage::FileError, layout::VaultLayout, state::VaultState};

/// How often a journal is looked for again because the one that was found went away.
const ATTEMPTS: u32 = 16;

/// The state of a vault that others may be writing.
#[derive(Debug)]
pub(crate) struct Follower {
    layout: VaultLayout,
    vault: Incarnation,
    generation: u64,
    replayed: Replayed,
}

impl Follower {
    pub(crate) fn open(layout: &VaultLayout, vault: Incarnation) -> Result<Self, FileError> {
        let mut attempt = 0;
        loop {
            match newest_generation(layout, vault, presence(layout)) {
                Ok((generation, _, replayed)) => {
                    return Ok(Self {
                        layout: layout.clone(),
                        vault,
                        generation,
                        replayed,
                    });
                }
                // A new journal may have taken its place in the meantime.
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes in what happened since.
    pub(crate) fn refresh(&mut self) -> Result<&VaultState, FileError> {
        let mut attempt = 0;
        loop {
            match self.catch_up() {
                Ok(()) => return Ok(&self.replayed.state),
                // A new journal may have taken the place of this one in the meantime: begin anew.
                Err(_) if attempt < ATTEMPTS => {
                    attempt += 1;
                    self.generation = 0;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn catch_up(&mut self) -> Result<(), FileError> {
        let presence = presence(&self.layout);
        if generations(&self.layout)?.last() != Some(&self.generation) {
            let (generation, _, replayed) = newest_generation(&self.layout, self.vault, presence)?;
            self.generation = generation;
            self.replayed = replayed;
            return Ok(());
        }
        let copies = Copies::read(&self.layout, self.generation, self.replayed.bytes)?;
        if !copies.primary.is_empty() || !copies.mirror.is_empty() {
            let done = std::mem::replace(&mut self.replayed, Replayed::nothing());
            let place = (&self.layout, self.vault, self.generation);
            self.replayed = replay(done, &copies, place, presence)?;
        }
        Ok(())
    }

    /// What was read last.
    #[cfg(test)]
    pub(crate) fn state(&self) -> &VaultState {
        &self.replayed.state
    }

    /// The records that one of the copies has wrong.
    pub(crate) fn mended(&self) -> &[(super::Copy, u64)] {
        &self.replayed.mended
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }
}

/// Beside a living writer only what it confirmed is there.
fn presence(layout: &VaultLayout) -> Presence {
    let Ok(lock) = File::open(layout.lock()) else {
        return Presence::Written;
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Presence::Confirmed,
        Ok(()) | Err(_) => Presence::Written,
    }
}
