//! A source of captures without a hypervisor: raw image files and block devices of machines that do not run, or whose
//! disks are snapshots.
//!
//! Nothing tracks their changes, so that a capture is of all bytes, and who ships it compares them with what the target
//! holds. Nothing can take an instant of them either: a capture is one if nobody wrote while it was read, which is checked
//! before it is sealed, by what the file system or the kernel counts.

mod disk;
mod note;
mod source;

pub use disk::DiskError;
pub use source::{RawCapture, RawSource, RawSourceConfig};
