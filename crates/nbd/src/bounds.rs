//! How much of one connection may be in flight: a number of requests and a number of bytes in memory.

use std::sync::Arc;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The unit in which memory is counted: permits have 32 bits.
const UNIT_BYTES: u32 = 4096;

/// The bounds of one connection.
pub(crate) struct Bounds {
    requests: Arc<Semaphore>,
    memory: Arc<Semaphore>,
}

/// One request's part of the bounds, given back when dropped.
pub(crate) struct Share {
    _request: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
}

impl Bounds {
    /// `memory_bytes` must be at least what the largest single request takes, or that one would wait for ever.
    pub(crate) fn new(requests: usize, memory_bytes: u32) -> Self {
        let units = usize::try_from(memory_bytes.div_ceil(UNIT_BYTES)).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            requests: Arc::new(Semaphore::new(requests)),
            memory: Arc::new(Semaphore::new(units)),
        }
    }

    /// Waits until a request of this size fits.
    pub(crate) async fn share(&self, memory_bytes: u32) -> Result<Share, AcquireError> {
        let units = memory_bytes.div_ceil(UNIT_BYTES);
        let request = Arc::clone(&self.requests).acquire_owned().await?;
        let memory = Arc::clone(&self.memory).acquire_many_owned(units).await?;
        Ok(Share {
            _request: request,
            _memory: memory,
        })
    }

    /// Whoever waits, or will, gets an error.
    pub(crate) fn close(&self) {
        self.requests.close();
        self.memory.close();
    }
}
