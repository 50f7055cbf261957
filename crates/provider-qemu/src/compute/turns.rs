//! Operations on one recovered VM take turns; those on different VMs run side by side.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use farshore_provider::RecoveryId;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Who is at work on which VM, in this process.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    waiting: Mutex<BTreeMap<RecoveryId, Weak<Turn<()>>>>,
}

impl Turns {
    /// Waits until nobody else changes this VM; the turn ends when the guard is dropped.
    pub(crate) async fn take(&self, id: &RecoveryId) -> OwnedMutexGuard<()> {
        let turn = self.turn_of(id);
        turn.lock_owned().await
    }

    fn turn_of(&self, id: &RecoveryId) -> Arc<Turn<()>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = waiting.get(id).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Turn::new(()));
        waiting.insert(id.clone(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_vm_waits() {
        let turns = Turns::default();
        let (one, two) = (RecoveryId::new("one").unwrap(), RecoveryId::new("two").unwrap());
        let first = turns.take(&one).await;
        drop(turns.take(&two).await);
        assert!(turns.turn_of(&one).try_lock().is_err());
        drop(first);
        drop(turns.take(&one).await);
        drop(turns.take(&two).await);
        assert!(turns.waiting.lock().unwrap().len() <= 2);
    }
}
