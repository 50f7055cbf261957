//! The wire and nothing else: generated messages and services of `farshore.v1`.

mod codec;

pub use codec::{MessageCodec, MessageEncoder};

/// Package `farshore.v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    unreachable_pub,
    reason = "generated code; the protocol files are its documentation"
)]
pub mod v1 {
    tonic::include_proto!("farshore.v1");

    /// The compiled protocol files, as the reflection service serves them.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("farshore.v1");
}
