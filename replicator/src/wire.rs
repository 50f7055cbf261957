//! How gRPC streams are tuned. The defaults of HTTP/2 give a tenth of what a link can carry, and leave a channel
//! wedged after a partition heals; hence windows of 16 MiB and keepalive pings every second, also while idle.

use std::time::Duration;

use tonic::transport::{Endpoint, Server};

/// A message carries about 1 MiB of data; anything larger than this is refused.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
const STREAM_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 2 * STREAM_WINDOW_BYTES;
/// With HTTP/2's 16 KiB a message of 1 MiB is received in 64 pieces. With a whole message in a piece tonic first takes it into a buffer, then learns from
/// it how long the message is, and moves it to one that is twice as long.
const FRAME_BYTES: u32 = 128 * 1024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(3);

/// The client's side.
pub(crate) fn client_endpoint(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_LIMIT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

/// The server's side.
pub(crate) fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_LIMIT))
        .tcp_nodelay(true)
}
