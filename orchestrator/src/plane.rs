//! The running control plane: opens its state, runs its parts, and ends them together.
//!
//! Crash story: everything that matters is in the store, so ending the parts in any order, or not at all,
//! changes no outcome; the order below only saves clients an error.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, SystemClock},
    control::Control,
    fleet::{Fleet, FleetOptions},
    http::{self, Condition, Pages},
    jobs::Engine,
    metrics::Metrics,
    reconcile::Reconciler,
    replicators::Replicators,
    server::{ServeError, serve},
    store::{EmbeddedStore, Store, StoreError},
    telemetry,
};

/// How long connections may take to end; then they are cut.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the control plane ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The pages cannot be served.
    #[error("the HTTP server failed")]
    Http(#[source] std::io::Error),
    /// The metrics cannot be built, which is a defect.
    #[error("the metrics cannot be built")]
    Metrics(#[from] prometheus::Error),
    /// A part panicked.
    #[error("a part of the control plane panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// A control plane whose state is open and whose parts do not run yet.
pub struct Plane {
    control: Control,
    fleet: Fleet,
    metrics: Metrics,
}

/// Where it is spoken to.
pub struct Listeners {
    /// By users and replicators.
    pub grpc: TcpListener,
    /// By whoever scrapes and probes.
    pub http: TcpListener,
}

impl Plane {
    /// Opens the state in this directory, or makes it.
    ///
    /// # Errors
    /// When the state cannot be used.
    pub fn open(state_directory: &Path, stop: CancellationToken) -> Result<Self, PlaneError> {
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(state_directory)?);
        let fleet = Fleet::new(FleetOptions::default());
        let replicators: Arc<dyn Replicators> = Arc::new(fleet.clone());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Ok(Self {
            control: Control::new(store, replicators, clock, stop),
            fleet,
            metrics: Metrics::new()?,
        })
    }

    /// What its answers are made of.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Runs all parts until it is stopped or one of them fails; then ends them all.
    ///
    /// # Errors
    /// What made it end by itself.
    pub async fn run(self, listeners: Listeners) -> Result<(), PlaneError> {
        let Self {
            control,
            fleet,
            metrics,
        } = self;
        let stop = control.stop.clone();
        let mut parts: JoinSet<Result<(), PlaneError>> = JoinSet::new();
        let engine = Engine::new(&control, metrics.clone());
        let reconciler = Reconciler::new(&control);
        let (engine_stop, reconciler_stop) = (stop.child_token(), stop.child_token());
        parts.spawn(async move { Ok(engine.run(engine_stop).await?) });
        parts.spawn(async move { Ok(reconciler.run(reconciler_stop).await?) });
        let (server_control, server_fleet, server_stop) = (control.clone(), fleet.clone(), stop.clone());
        parts.spawn(
            async move { Ok(serve(listeners.grpc, server_control, &server_fleet, server_stop).await?) },
        );
        let (pages, http_stop) = (pages(&control, metrics), stop.clone());
        parts.spawn(async move {
            http::serve(listeners.http, pages, http_stop)
                .await
                .map_err(PlaneError::Http)
        });
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = parts.join_next() => flatten(ended),
        };
        stop.cancel();
        let drained = timeout(DRAIN, async {
            control.watchers.close();
            fleet.close().await;
            control.watchers.wait().await;
            let mut result = Ok(());
            while let Some(part) = parts.join_next().await {
                result = result.and(flatten(Some(part)));
            }
            result
        })
        .await;
        match drained {
            Ok(result) => ended.and(result),
            Err(_) => {
                tracing::warn!("connections did not end within {DRAIN:?} and are cut");
                parts.shutdown().await;
                ended
            }
        }
    }
}

fn pages(control: &Control, metrics: Metrics) -> Pages {
    let control = control.clone();
    let scraped = move || {
        let now = telemetry::snapshot(&control).map_err(|error| prometheus::Error::Msg(error.to_string()))?;
        metrics.update(&now)?;
        metrics.render()
    };
    // The state was opened before anything is served, and a part that fails ends the process.
    Pages::new(scraped, || Condition::Good, || Condition::Good)
}

fn flatten(ended: Option<Result<Result<(), PlaneError>, tokio::task::JoinError>>) -> Result<(), PlaneError> {
    match ended {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(PlaneError::Panicked(error)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
