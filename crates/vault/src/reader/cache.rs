//! A bounded cache that several threads share: what was used since the hand came by last stays.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hash, RandomState},
    sync::{Mutex, PoisonError},
};

/// How many threads can use the cache without waiting for one another, about.
const SHARDS: usize = 16;

/// Values of bounded weight in all.
#[derive(Debug)]
pub(super) struct Cache<Key, Value> {
    shards: Vec<Mutex<Shard<Key, Value>>>,
    hasher: RandomState,
    shard_weight: usize,
}

#[derive(Debug)]
struct Shard<Key, Value> {
    held: HashMap<Key, Slot<Value>>,
    /// In the order in which they will be looked at: one that was used is passed over once (the CLOCK policy).
    order: VecDeque<Key>,
    weight: usize,
}

#[derive(Debug)]
struct Slot<Value> {
    value: Value,
    weight: usize,
    used: bool,
}

impl<Key: Hash + Eq + Copy, Value: Clone> Cache<Key, Value> {
    /// A cache that holds values up to `weight` in all.
    pub(super) fn new(weight: usize) -> Self {
        let shard = || {
            Mutex::new(Shard {
                held: HashMap::new(),
                order: VecDeque::new(),
                weight: 0,
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            shard_weight: weight / SHARDS,
        }
    }

    /// The value under `key`, fetched with its weight if it is not held. Two that ask at once may both fetch.
    pub(super) fn get_or_fetch<E>(
        &self,
        key: Key,
        fetch: impl FnOnce() -> Result<(Value, usize), E>,
    ) -> Result<Value, E> {
        let shard = usize::try_from(self.hasher.hash_one(key)).unwrap_or(0) % SHARDS;
        let Some(shard) = self.shards.get(shard) else {
            return Ok(fetch()?.0);
        };
        if let Some(slot) = lock(shard).held.get_mut(&key) {
            slot.used = true;
            return Ok(slot.value.clone());
        }
        let (value, weight) = fetch()?;
        if weight <= self.shard_weight {
            let mut shard = lock(shard);
            shard.make_room(self.shard_weight.saturating_sub(weight));
            let used = false;
            let slot = Slot {
                value: value.clone(),
                weight,
                used,
            };
            match shard.held.insert(key, slot) {
                Some(replaced) => shard.weight = shard.weight.saturating_sub(replaced.weight),
                None => shard.order.push_back(key),
            }
            shard.weight = shard.weight.saturating_add(weight);
        }
        Ok(value)
    }
}

impl<Key: Hash + Eq + Copy, Value> Shard<Key, Value> {
    fn make_room(&mut self, limit: usize) {
        while self.weight > limit {
            let Some(key) = self.order.pop_front() else { return };
            match self.held.get_mut(&key) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    self.order.push_back(key);
                }
                Some(_) | None => {
                    let weight = self.held.remove(&key).map_or(0, |slot| slot.weight);
                    self.weight = self.weight.saturating_sub(weight);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_fetched_again() {
        let cache = Cache::new(SHARDS * 4);
        let mut fetches = 0;
        let mut get = |key: u32| {
            let fetched = cache.get_or_fetch(key, || {
                fetches += 1;
                Ok::<_, ()>((key * 10, 1))
            });
            assert_eq!(fetched, Ok(key * 10));
            fetches
        };
        assert_eq!((get(1), get(1)), (1, 1));
        for key in 100..1000 {
            get(key);
            get(1);
        }
        // Key 1 was used all the while; of the others few are left.
        assert_eq!(get(1), get(1));
        let before = get(1);
        for key in 100..1000 {
            get(key);
        }
        assert!(get(1) - before > 800);
    }

    #[test]
    fn a_value_that_is_too_heavy_is_not_kept() {
        let cache = Cache::new(SHARDS * 4);
        for _ in 0..2 {
            let fetched = cache.get_or_fetch(1, || Ok::<_, ()>((7, 5)));
            assert_eq!(fetched, Ok(7));
        }
        assert!(cache.shards.iter().all(|shard| lock(shard).held.is_empty()));
    }
}
