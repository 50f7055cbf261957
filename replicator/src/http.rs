//! The replicator's HTTP: `/metrics`, `/healthz` and `/readyz`.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Serves until it is stopped.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), std::io::Error> {
    let routes = Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(|| std::future::ready("ok\n")))
        .with_state(metrics);
    axum::serve(listener, routes)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn scrape(State(metrics): State<Metrics>) -> Result<impl IntoResponse, (StatusCode, String)> {
    match metrics.render() {
        Ok(text) => Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text)),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}
