//! Does what a plan says, one action after another, and stops at the first that fails. Whatever was done until then
//! is seen by the next listing.

use std::time::Duration;

use farshore_provider::SourceError;
use farshore_qmp::Event;
use serde_json::{Value, json};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, timeout_at},
};

use super::{
    answers::Identified,
    hypervisor::Hypervisor,
    listing::BitmapsSurvive,
    recovery::{Action, BitmapChange, BitmapStep, Switching},
};

/// How fine bitmaps are: what a guest's file system writes at once.
const BITMAP_GRANULARITY_BYTES: u32 = 4096;

/// How long an export or job may take to go after it was told to: it finishes its requests in flight.
const GOING_TIMEOUT: Duration = Duration::from_secs(10);

/// Does all of them.
pub(crate) async fn act(hypervisor: &Hypervisor, actions: &[Action]) -> Result<(), SourceError> {
    for action in actions {
        act_once(hypervisor, action).await?;
    }
    Ok(())
}

async fn act_once(hypervisor: &Hypervisor, action: &Action) -> Result<(), SourceError> {
    match action {
        Action::CancelJob { id } => {
            let events = hypervisor.events();
            hypervisor.run("job-cancel", json!({"id": id})).await?;
            await_gone(hypervisor, events, "query-jobs", id).await
        }
        Action::DeleteExport { id } => {
            let events = hypervisor.events();
            hypervisor
                .run("block-export-del", json!({"id": id, "mode": "hard"}))
                .await?;
            await_gone(hypervisor, events, "query-block-exports", id).await
        }
        Action::DeleteNode { node } => {
            hypervisor
                .run_draining("blockdev-del", json!({"node-name": node}))
                .await
        }
        Action::Switch(switchings) => switch(hypervisor, switchings).await,
        Action::AddWrapper { wrapper, data } => {
            hypervisor
                .run("blockdev-add", wrapper_options(wrapper, data))
                .await
        }
        Action::SetDrive { device, node } => {
            let arguments = json!({"path": device, "property": "drive", "value": node});
            hypervisor.run_draining("qom-set", arguments).await
        }
        Action::Bitmaps(steps) => bitmaps(hypervisor, steps).await,
    }
}

/// Switches all these wrappers in one instant: QEMU drains them together before it changes any.
pub(crate) async fn switch(hypervisor: &Hypervisor, switchings: &[Switching]) -> Result<(), SourceError> {
    let options: Vec<_> = switchings
        .iter()
        .map(|switching| wrapper_options(&switching.wrapper, &switching.file))
        .collect();
    hypervisor
        .run_draining("blockdev-reopen", json!({"options": options}))
        .await
}

/// A reopen resets what it does not name, so that both commands must name the same. `discard`: without it the wrapper
/// would swallow the guest's discards, whatever the data node does with them.
fn wrapper_options(wrapper: &str, file: &str) -> Value {
    json!({"driver": "raw", "node-name": wrapper, "file": file, "discard": "unmap"})
}

/// Changes bitmaps, all or none.
pub(crate) async fn bitmaps(hypervisor: &Hypervisor, steps: &[BitmapStep]) -> Result<(), SourceError> {
    let actions: Vec<_> = steps.iter().map(transaction_action).collect();
    hypervisor
        .run_draining("transaction", json!({"actions": actions}))
        .await
}

fn transaction_action(step: &BitmapStep) -> Value {
    let BitmapStep { node, name, change } = step;
    let one = json!({"node": node, "name": name});
    let (kind, data) = match change {
        BitmapChange::Add(survive) => (
            "block-dirty-bitmap-add",
            json!({
                "node": node,
                "name": name,
                "granularity": BITMAP_GRANULARITY_BYTES,
                "persistent": *survive == BitmapsSurvive::Yes,
            }),
        ),
        BitmapChange::Enable => ("block-dirty-bitmap-enable", one),
        BitmapChange::Disable => ("block-dirty-bitmap-disable", one),
        BitmapChange::Merge { from } => (
            "block-dirty-bitmap-merge",
            json!({"node": node, "target": name, "bitmaps": [from]}),
        ),
        BitmapChange::Remove => ("block-dirty-bitmap-remove", one),
    };
    json!({"type": kind, "data": data})
}

/// Waits until `id` is not among what `query` lists: an export or job goes only after its requests in flight, and its
/// bitmaps and nodes are in use until then. Each event is a reason to look again.
async fn await_gone(
    hypervisor: &Hypervisor,
    mut events: Receiver<Event>,
    query: &str,
    id: &str,
) -> Result<(), SourceError> {
    let deadline = Instant::now() + GOING_TIMEOUT;
    loop {
        let there: Vec<Identified> = hypervisor.query(query, Value::Null).await?;
        if there.iter().all(|one| one.id != id) {
            return Ok(());
        }
        match timeout_at(deadline, events.recv()).await {
            Ok(Ok(_) | Err(RecvError::Lagged(_))) => {}
            Ok(Err(RecvError::Closed)) | Err(_) => {
                return Err(hypervisor.unfit(format!("`{id}` did not go within {GOING_TIMEOUT:?}")));
            }
        }
    }
}
