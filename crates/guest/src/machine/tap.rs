//! The tap interface between the virtual machine and a bridge, in the host's network or in a namespace of it.

use std::ffi::OsStr;

use crate::host_tool::{HostTool, ToolError};

/// The kernel's limit for the name of an interface.
const INTERFACE_NAME_BYTES: usize = 15;

/// Where a virtual machine is plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    /// The name of the tap, made at start and removed at the end.
    pub interface: String,
    /// The bridge, which must exist.
    pub bridge: String,
    /// The network namespace (a name in `/run/netns`) that both are in; none is the host's own.
    pub namespace: Option<String>,
    /// The address of the guest's network card, as `52:54:00:…`.
    pub mac_address: String,
}

/// A tap could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The name cannot be an interface's.
    #[error("`{interface}` cannot be an interface's name: 1 to 15 letters, digits and hyphens are accepted")]
    BadName {
        /// The name.
        interface: String,
    },
    /// `ip` is missing or failed.
    #[error("cannot {action} the tap `{interface}`")]
    Ip {
        /// What was tried.
        action: &'static str,
        /// On which tap.
        interface: String,
        /// Why it failed.
        #[source]
        source: ToolError,
    },
}

impl Tap {
    /// Makes the tap, on its bridge; one of that name that is left over is used.
    pub(super) fn create(&self) -> Result<(), TapError> {
        let length = self.interface.len();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if length == 0 || length > INTERFACE_NAME_BYTES || !self.interface.bytes().all(allowed) {
            return Err(TapError::BadName {
                interface: self.interface.clone(),
            });
        }
        if !self.exists() {
            self.ip("make", &["tuntap", "add", "dev", &self.interface, "mode", "tap"])?;
        }
        let up = [
            "link",
            "set",
            "dev",
            &self.interface,
            "master",
            &self.bridge,
            "up",
        ];
        self.ip("plug in", &up).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = self.remove();
        })
    }

    /// Removes it; one that is gone already is fine.
    pub(super) fn remove(&self) -> Result<(), TapError> {
        if !self.exists() {
            return Ok(());
        }
        self.ip("remove", &["link", "delete", "dev", &self.interface])
    }

    fn exists(&self) -> bool {
        self.ip("find", &["link", "show", "dev", &self.interface]).is_ok()
    }

    fn ip(&self, action: &'static str, arguments: &[&str]) -> Result<(), TapError> {
        let namespace: Vec<&OsStr> = self
            .namespace
            .iter()
            .flat_map(|name| [OsStr::new("-netns"), OsStr::new(name)])
            .collect();
        let run = || HostTool::Ip.run(HostTool::Ip.command()?.args(namespace).args(arguments));
        run().map(drop).map_err(|source| TapError::Ip {
            action,
            interface: self.interface.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_kernel_would_refuse_is_refused_first() {
        for interface in ["", "a-name-of-sixteen", "a/b", "a b"] {
            let tap = Tap {
                interface: interface.into(),
                bridge: "br0".into(),
                namespace: None,
                mac_address: "52:54:00:00:00:01".into(),
            };
            assert!(
                matches!(tap.create(), Err(TapError::BadName { .. })),
                "{interface}"
            );
        }
    }
}
