//! A few of the things used last, so that neighbouring reads do not fetch the same thing again and again.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// Keeps at most `capacity` values, and lets go of the one that was not used for the longest time.
#[derive(Debug)]
pub(super) struct Recent<Key, Value> {
    capacity: usize,
    kept: Mutex<VecDeque<(Key, Value)>>,
}

impl<Key: PartialEq, Value: Clone> Recent<Key, Value> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            kept: Mutex::new(VecDeque::with_capacity(capacity)),
        }
    }

    /// The value under `key`, fetched if it is not kept. Two that ask at once may both fetch.
    pub(super) fn get_or_fetch<E>(
        &self,
        key: Key,
        fetch: impl FnOnce() -> Result<Value, E>,
    ) -> Result<Value, E> {
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let found = kept.iter().position(|(known, _)| *known == key);
            if let Some(entry) = found.and_then(|at| kept.remove(at)) {
                let value = entry.1.clone();
                kept.push_front(entry);
                return Ok(value);
            }
        }
        let value = fetch()?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(self.capacity.saturating_sub(1));
        kept.push_front((key, value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_kept_and_the_rest_fetched_again() {
        let recent = Recent::new(2);
        let mut fetched = Vec::new();
        for key in [1, 2, 1, 3, 1, 2] {
            let value = recent.get_or_fetch(key, || {
                fetched.push(key);
                Ok::<_, ()>(key * 10)
            });
            assert_eq!(value, Ok(key * 10));
        }
        assert_eq!(fetched, [1, 2, 3, 2]);
    }
}
