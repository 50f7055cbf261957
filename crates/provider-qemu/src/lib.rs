//! The QEMU provider: capture by dirty bitmaps and the copy-before-write filter, and recovered VMs.

mod compute;
mod freezer;
mod source;
mod watchdog;

pub use compute::{AcceleratorChoice, HostTools, OpenComputeError, QemuCompute, QemuComputeConfig};
pub use freezer::{GuestAgentConfig, main as freezer_main};
pub use source::{QemuCapture, QemuSource, QemuSourceConfig};
pub use watchdog::{WatchdogConfig, main as watchdog_main};
