//! Grants what is asked for through the vault's directory: the fence of last resort, when the orchestrator is gone.

use std::time::Duration;

use farshore_blocks::clock::WallTime;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Targets;
use crate::{
    fence_request::{FenceRequest, Taken},
    source::chain,
};

/// How often the directory is looked at. Whoever waits for the fence waits this much longer.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Answers requests until `stop` is cancelled.
pub(crate) async fn answer(targets: Targets, stop: CancellationToken) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let looking = targets.clone();
        let looked = tokio::task::spawn_blocking(move || answer_waiting(&looking)).await;
        let trouble = match looked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(error) => Some(error.to_string()),
        };
        // The same trouble comes again with every look.
        if let Some(error) = trouble.as_ref().filter(|_| trouble != told) {
            tracing::error!(error, "requests to fence cannot be answered");
        }
        told = trouble;
    }
}

fn answer_waiting(targets: &Targets) -> std::io::Result<()> {
    for request in FenceRequest::waiting(targets.vault().path())? {
        let (chain_id, holder) = (request.chain(), request.holder());
        match request.take(WallTime::now())? {
            Taken::Due => {}
            Taken::Expired => {
                tracing::warn!(chain = %chain_id, %holder, "a request to fence came too late and is void");
                continue;
            }
            Taken::Withdrawn => continue,
        }
        match targets.fence(chain_id, holder) {
            Ok(epoch) => tracing::warn!(
                chain = %chain_id,
                %epoch,
                "fenced by a request in the vault's directory: the chain's source is refused from now on"
            ),
            Err(error) => {
                let why = chain(&error);
                tracing::error!(chain = %chain_id, %holder, error = why, "a request to fence is refused");
                request.refuse(&why)?;
            }
        }
    }
    Ok(())
}
