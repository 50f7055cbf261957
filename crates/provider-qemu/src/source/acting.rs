//! Does what a plan says, one action after another, and stops at the first that fails. Whatever was done until then
//! is seen by the next listing.

use std::time::Duration;

use farshore_provider::SourceError;
use farshore_qmp::{Command, Event};
use serde_json::{Value, json};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, timeout_at},
};

use super::{
    answers::Identified,
    hypervisor::Hypervisor,
    listing::BitmapsSurvive,
    recovery::{Action, BitmapChange, BitmapStep, Resizing},
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
    let events = hypervisor.events();
    hypervisor.run_all(&[command(action)]).await?;
    match action {
        Action::CancelJob { id } => await_gone(hypervisor, events, "query-jobs", id).await,
        Action::DeleteExport { id } => await_gone(hypervisor, events, "query-block-exports", id).await,
        Action::DeleteNode { .. }
        | Action::Switch(_)
        | Action::AddWrapper { .. }
        | Action::SetDrive { .. }
        | Action::Bitmaps(_) => Ok(()),
    }
}

/// The command that does it. Switched wrappers are switched in one instant: QEMU drains them together before it
/// changes any. Bitmaps are changed all or none.
pub(crate) fn command(action: &Action) -> Command {
    let (name, arguments) = match action {
        Action::CancelJob { id } => ("job-cancel", json!({"id": id})),
        Action::DeleteExport { id } => ("block-export-del", json!({"id": id, "mode": "hard"})),
        Action::DeleteNode { node } => ("blockdev-del", json!({"node-name": node})),
        Action::Switch(switchings) => {
            let options: Vec<_> = switchings
                .iter()
                .map(|switching| wrapper_options(&switching.wrapper, &switching.file, switching.resizing))
                .collect();
            ("blockdev-reopen", json!({"options": options}))
        }
        Action::AddWrapper { wrapper, data } => {
            ("blockdev-add", wrapper_options(wrapper, data, Resizing::Allowed))
        }
        Action::SetDrive { device, node } => (
            "qom-set",
            json!({"path": device, "property": "drive", "value": node}),
        ),
        Action::Bitmaps(steps) => {
            let actions: Vec<_> = steps.iter().map(transaction_action).collect();
            ("transaction", json!({"actions": actions}))
        }
    };
    Command::new(name, arguments)
}

/// A reopen resets what it does not name, so that both commands must name the same. `discard`: without it the wrapper
/// would swallow the guest's discards, whatever the data node does with them.
fn wrapper_options(wrapper: &str, file: &str, resizing: Resizing) -> Value {
    let mut options = json!({"driver": "raw", "node-name": wrapper, "file": file, "discard": "unmap"});
    if let (Resizing::Refused { size }, Some(fields)) = (resizing, options.as_object_mut()) {
        fields.insert("size".to_owned(), size.0.into());
    }
    options
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

/// Deletes all these exports at once. Nobody reads from them any more, so that they go as soon as they are told to.
pub(crate) async fn delete_exports(hypervisor: &Hypervisor, ids: &[String]) -> Result<(), SourceError> {
    let mut events = hypervisor.events();
    let delete = |id: &String| command(&Action::DeleteExport { id: id.clone() });
    let commands: Vec<_> = ids.iter().map(delete).collect();
    hypervisor.run_all(&commands).await?;
    let deadline = Instant::now() + GOING_TIMEOUT;
    let mut there: Vec<_> = ids.iter().map(String::as_str).collect();
    while let Some(id) = there.first() {
        match timeout_at(deadline, events.recv()).await {
            Ok(Ok(event)) if event.name == "BLOCK_EXPORT_DELETED" => {
                let gone = event.data.get("id").and_then(Value::as_str);
                there.retain(|id| Some(*id) != gone);
            }
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return await_gone(hypervisor, events, "query-block-exports", id).await,
        }
    }
    Ok(())
}

/// Waits until `id` is not among what `query` lists: an export or job goes only after its requests in flight, and its
/// bitmaps and nodes are in use until then. Each event is a reason to look again.
pub(crate) async fn await_gone(
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
