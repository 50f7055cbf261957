//! The smallest words of Farshore, that every other part may use: positions and extents, identities,
//! sequences and epochs, digests, and the frame in which changed bytes travel and rest.
//!
//! Nothing here does I/O except [`files`] (replacing a small file durably) and [`clock`].

mod block_hash;
pub mod clock;
mod digest;
mod epoch;
mod extent;
pub mod files;
mod frame;
mod identity;
mod size;

pub use block_hash::{BlockHash, HASHED_BLOCK, whole_blocks};
pub use digest::{ChangeDigest, ChangeHasher, Digest, point_digest};
pub use epoch::{Epoch, HolderNonce};
pub use extent::{ByteCount, ByteOffset, Extent};
pub use frame::{Encoding, Frame, FrameError, MAX_FRAME_BYTES};
pub use identity::{ChainId, Incarnation, ParseIdentityError, Sequence, VolumeIndex};
pub use size::{SizeRefused, format_size, parse_size};
