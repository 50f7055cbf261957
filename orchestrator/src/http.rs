//! The control plane's HTTP: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever restarts or balances.

use std::{fmt, io, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the pages show, asked anew for each request. The answers must come at once.
#[derive(Clone)]
pub struct Pages {
    metrics: Arc<dyn Fn() -> Result<String, prometheus::Error> + Send + Sync>,
    health: Arc<dyn Fn() -> Condition + Send + Sync>,
    readiness: Arc<dyn Fn() -> Condition + Send + Sync>,
}

/// Whether something is as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It is.
    Good,
    /// It is not, and this is why.
    Bad(String),
}

impl Pages {
    /// Pages of these answers: the metrics' text; whether this process should live on; whether it can be used.
    pub fn new(
        metrics: impl Fn() -> Result<String, prometheus::Error> + Send + Sync + 'static,
        health: impl Fn() -> Condition + Send + Sync + 'static,
        readiness: impl Fn() -> Condition + Send + Sync + 'static,
    ) -> Self {
        Self {
            metrics: Arc::new(metrics),
            health: Arc::new(health),
            readiness: Arc::new(readiness),
        }
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pages").finish_non_exhaustive()
    }
}

/// Serves until it is stopped, then answers what was asked already.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, pages: Pages, stop: CancellationToken) -> io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(pages);
    axum::serve(listener, routes)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn metrics(State(pages): State<Pages>) -> Response {
    match (pages.metrics)() {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

async fn health(State(pages): State<Pages>) -> Response {
    (pages.health)().into_response()
}

async fn readiness(State(pages): State<Pages>) -> Response {
    (pages.readiness)().into_response()
}

impl IntoResponse for Condition {
    fn into_response(self) -> Response {
        match self {
            Self::Good => "ok\n".into_response(),
            Self::Bad(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LONG, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answer
    }

    #[tokio::test]
    async fn the_three_pages_answer_and_the_server_stops_when_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pages = Pages::new(
            || Ok("x 1\n".to_owned()),
            || Condition::Good,
            || Condition::Bad("the store is not open yet".to_owned()),
        );
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, pages, stop.clone()));
        let scraped = get(address, "/metrics").await;
        assert!(scraped.starts_with("HTTP/1.1 200 OK\r\n"), "{scraped}");
        assert!(
            scraped.contains("content-type: text/plain; version=0.0.4\r\n"),
            "{scraped}"
        );
        assert!(scraped.ends_with("\r\n\r\nx 1\n"), "{scraped}");
        assert!(get(address, "/healthz").await.ends_with("\r\n\r\nok\n"));
        let unready = get(address, "/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503 "), "{unready}");
        assert!(
            unready.ends_with("\r\n\r\nthe store is not open yet\n"),
            "{unready}"
        );
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404 "));
        stop.cancel();
        timeout(LONG, server).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn metrics_that_cannot_be_written_are_an_error_and_not_an_empty_page() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let broken = || Err(prometheus::Error::Msg("no".to_owned()));
        let pages = Pages::new(broken, || Condition::Good, || Condition::Good);
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, pages, stop.clone()));
        assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 500 "));
        stop.cancel();
        timeout(LONG, server).await.unwrap().unwrap().unwrap();
    }
}
