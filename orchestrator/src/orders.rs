//! What users may order, decided over the records: each order is one transaction that is made as a whole or
//! refused with the reason. Jobs do the rest.

mod apply;
mod delete;
mod failover;
mod idempotency;
mod job_change;
mod refusal;
mod test;

use farshore_blocks::{ChainId, HolderNonce};
use farshore_domain::job::JobId;
use uuid::Uuid;

pub use apply::{Applying, apply};
pub use delete::delete;
pub use failover::start_unplanned;
pub use idempotency::{Idempotency, answered, once};
pub use job_change::{cancel, retry};
pub use refusal::Refusal;
pub use test::{clean_up, start_test};

/// Fresh identities for an order, made before it is decided, so that deciding it again makes the same.
#[derive(Debug, Clone)]
pub struct Fresh {
    /// For a job.
    pub job: JobId,
    /// For a chain.
    pub chain: ChainId,
    /// For who holds it.
    pub holder: HolderNonce,
}

impl Fresh {
    /// From the system's randomness; the job sorts after all that were made before.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn make() -> Result<Self, Refusal> {
        let refused = |source| Refusal::NoRandomness { source };
        Ok(Self {
            job: JobId(Uuid::now_v7().to_string()),
            chain: ChainId::random().map_err(refused)?,
            holder: HolderNonce::random().map_err(refused)?,
        })
    }
}
