//! Streams what is shown of something: at once, then after every change, until it has ended, is gone, nobody
//! listens or this process stops.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::control::Control;

/// How many messages may wait for a slow listener; later looks replace earlier ones, so few suffice.
const UNSENT_MESSAGES: usize = 4;
/// The shortest time between two messages: people cannot read faster, and reports may come in bursts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// After this time things are looked at again also without a change: ages grow by themselves.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a look has found.
pub(super) enum Seen<T> {
    /// It may change.
    Changing(T),
    /// It will not change any more.
    Final(T),
}

/// A stream of what `look` sees.
pub(super) type Watching<T> = ReceiverStream<Result<T, Status>>;

/// Watches until the end.
pub(super) fn watch<T>(
    control: &Control,
    look: impl Fn(&Control) -> Result<Seen<T>, Status> + Send + 'static,
) -> Watching<T>
where
    T: Clone + PartialEq + Send + Sync + 'static,
{
    let (sender, receiver) = mpsc::channel(UNSENT_MESSAGES);
    let control_of_task = control.clone();
    control.watchers.spawn(async move {
        let stop = control_of_task.stop.clone();
        tokio::select! {
            () = follow(&control_of_task, look, &sender) => {}
            () = stop.cancelled() => {}
            () = sender.closed() => {}
        }
    });
    ReceiverStream::new(receiver)
}

async fn follow<T: Clone + PartialEq>(
    control: &Control,
    look: impl Fn(&Control) -> Result<Seen<T>, Status>,
    sender: &mpsc::Sender<Result<T, Status>>,
) {
    let mut revisions = control.store.revisions();
    let mut views = control.replicators.reports();
    let mut shown = None;
    loop {
        revisions.borrow_and_update();
        views.borrow_and_update();
        let (seen, is_final) = match look(control) {
            Ok(Seen::Changing(seen)) => (seen, false),
            Ok(Seen::Final(seen)) => (seen, true),
            Err(status) => {
                // A listener that is gone needs no reason.
                let _ = sender.send(Err(status)).await;
                return;
            }
        };
        if shown.as_ref() != Some(&seen) {
            shown = Some(seen.clone());
            if sender.send(Ok(seen)).await.is_err() {
                return;
            }
        }
        if is_final {
            return;
        }
        tokio::time::sleep(SHORTEST_PAUSE).await;
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return },
            changed = views.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LONGEST_PAUSE) => {}
        }
    }
}
