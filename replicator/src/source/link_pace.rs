//! The pace of a link that many VMs share: they take turns, a message each, so that one with much to send makes the others wait
//! for a message of its own and not for all of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use farshore_blocks::{ByteCount, clock::WallTime};
use tokio::{sync::Semaphore, time::Instant};

use super::{link_limit::LinkLimit, pace::Bucket};

/// The links of this replicator, by the sites that they lead to; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct LinkPaces {
    links: Arc<Mutex<BTreeMap<String, LinkPace>>>,
}

/// The pace of one link; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct LinkPace {
    /// Has one permit, which is given in the order in which it is asked for.
    turn: Arc<Semaphore>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    limit: LinkLimit,
    bucket: Bucket,
}

impl LinkPaces {
    /// The pace of this link, which goes by this limit from now on, for all who share it.
    pub(crate) fn by(&self, limit: &LinkLimit) -> LinkPace {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links
            .entry(limit.to.clone())
            .or_insert_with(|| LinkPace::new(limit.clone()));
        link.inner().limit = limit.clone();
        link.clone()
    }
}

impl LinkPace {
    fn new(limit: LinkLimit) -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
            inner: Arc::new(Mutex::new(Inner {
                limit,
                bucket: Bucket::full(Instant::now()),
            })),
        }
    }

    /// Waits until it is this message's turn and `bytes` more may be sent.
    pub(crate) async fn take(&self, bytes: ByteCount) {
        // It is never closed; were it, nobody would have to wait.
        let turn = self.turn.acquire().await;
        let wait_until = self.reserve(bytes, WallTime::now(), Instant::now());
        tokio::time::sleep_until(wait_until).await;
        drop(turn);
    }

    /// How many connections a VM's changes may travel on, if that is said.
    pub(crate) fn connections(&self) -> Option<usize> {
        let connections = self.inner().limit.connections?;
        usize::try_from(connections).ok()
    }

    fn reserve(&self, bytes: ByteCount, at: WallTime, now: Instant) -> Instant {
        let mut inner = self.inner();
        let rate = inner.limit.at(at);
        inner.bucket.reserve((bytes, rate), now)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limit(bytes_per_second: Option<u64>) -> LinkLimit {
        LinkLimit {
            to: "west".to_owned(),
            bandwidth: bytes_per_second.map(ByteCount),
            hours: Vec::new(),
            connections: None,
        }
    }

    const MESSAGE: ByteCount = ByteCount(10_000);

    #[tokio::test]
    async fn a_vm_with_much_to_send_gives_others_every_second_turn() {
        let pace = LinkPaces::default().by(&limit(Some(1_000_000)));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let sender = |name: &'static str, messages: usize| {
            let (pace, sent) = (pace.clone(), Arc::clone(&sent));
            async move {
                for _ in 0..messages {
                    pace.take(MESSAGE).await;
                    sent.lock().unwrap().push(name);
                }
            }
        };
        let began = Instant::now();
        tokio::join!(sender("much", 60), sender("little", 5), sender("little", 5));
        // All of 70 messages but what may come at once.
        assert!(
            began.elapsed() >= Duration::from_millis(400),
            "{:?}",
            began.elapsed()
        );
        let sent = sent.lock().unwrap();
        let last = sent.iter().rposition(|name| *name == "little").unwrap();
        assert!(last < 18, "{last}: {sent:?}");
    }

    #[test]
    fn two_vms_share_a_link_and_a_new_limit_holds_for_both() {
        let paces = LinkPaces::default();
        let now = Instant::now() + Duration::from_secs(1);
        let (first, second) = (paces.by(&limit(Some(10_000))), paces.by(&limit(Some(10_000))));
        let wait = |pace: &LinkPace| pace.reserve(MESSAGE, WallTime(0), now) - now;
        wait(&first);
        assert!(wait(&second) > Duration::from_millis(500));
        assert!(wait(&first) > Duration::from_millis(1500));
        paces.by(&limit(None));
        assert_eq!(wait(&first), Duration::ZERO);
        let elsewhere = LinkLimit {
            to: "north".to_owned(),
            ..limit(Some(10_000))
        };
        assert_eq!(wait(&paces.by(&elsewhere)), Duration::ZERO);
    }
}
