//! Who is writing which chain in this process. A source that dials again takes the seat of its own dead stream.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use farshore_blocks::ChainId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// One seat per chain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seats {
    chains: Arc<Mutex<BTreeMap<ChainId, Chair>>>,
}

#[derive(Debug, Clone)]
struct Chair {
    free: Arc<Semaphore>,
    occupant: CancellationToken,
}

/// The right to write a chain; it ends with the value.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Says that a successor wants the seat.
    pub(crate) leave: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Seats {
    /// Asks whoever sits there to leave, and waits for it; the caller sets the limit.
    pub(crate) async fn take(&self, chain: ChainId) -> Option<Seat> {
        let leave = CancellationToken::new();
        let (free, predecessor) = self.claim(chain, leave.clone());
        predecessor.cancel();
        let permit = free.acquire_owned().await.ok()?;
        Some(Seat {
            leave,
            _permit: permit,
        })
    }

    fn claim(&self, chain: ChainId, leave: CancellationToken) -> (Arc<Semaphore>, CancellationToken) {
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let chair = chains.entry(chain).or_insert_with(|| Chair {
            free: Arc::new(Semaphore::new(1)),
            occupant: CancellationToken::new(),
        });
        let predecessor = std::mem::replace(&mut chair.occupant, leave);
        (Arc::clone(&chair.free), predecessor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_successor_gets_the_seat_once_its_predecessor_has_left() {
        let seats = Seats::default();
        let chain = ChainId::from_bytes([1; 16]);
        let first = seats.take(chain).await.unwrap();
        let successor = tokio::spawn({
            let seats = seats.clone();
            async move { seats.take(chain).await }
        });
        first.leave.cancelled().await;
        assert!(!successor.is_finished());
        drop(first);
        assert!(!successor.await.unwrap().unwrap().leave.is_cancelled());
    }
}
