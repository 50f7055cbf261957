//! The QEMU provider: capture by dirty bitmaps and the copy-before-write filter, and recovered VMs.

mod compute;
mod source;

pub use compute::{AcceleratorChoice, HostTools, OpenComputeError, QemuCompute, QemuComputeConfig};
pub use source::{QemuCapture, QemuSource, QemuSourceConfig};
