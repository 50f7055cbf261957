//! Where the cards of a recovered VM are plugged in, and the names of their taps: pure.

use farshore_blocks::Digest;
use farshore_provider::{NetworkAttachment, RecoveryId, RecoveryRequest};

/// More cards than a PC has slots for; two digits in a tap's name.
pub(crate) const NIC_LIMIT: usize = 28;

/// An interface's name ends with a zero byte in 16 bytes (linux/if.h, `IFNAMSIZ`).
const INTERFACE_NAME_LIMIT: usize = 15;

/// Where the cards are plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the namespace of a bubble.
    Bubble { namespace: String },
    /// On a bridge in our own namespace.
    Bridge { bridge: String },
}

/// The network that one VM wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) place: Place,
    pub(crate) taps: Vec<String>,
}

impl Place {
    /// The place of an attachment.
    pub(crate) fn of(attachment: &NetworkAttachment) -> Self {
        match attachment {
            NetworkAttachment::Bubble { name } => Self::Bubble {
                namespace: format!("fs-{name}"),
            },
            NetworkAttachment::Bridge { bridge } => Self::Bridge {
                bridge: bridge.clone(),
            },
        }
    }

    /// The namespace, if it is not our own.
    pub(crate) fn namespace(&self) -> Option<&str> {
        match self {
            Self::Bubble { namespace } => Some(namespace),
            Self::Bridge { .. } => None,
        }
    }
}

impl Wanted {
    /// What the request wants, below the directory `root`.
    pub(crate) fn by(request: &RecoveryRequest, root: &str) -> Self {
        let prefix = tap_prefix(root, &request.id);
        let taps = (0..request.machine.nics.len()).map(|index| format!("{prefix}{index}"));
        Self {
            place: Place::of(&request.network),
            taps: taps.collect(),
        }
    }
}

/// What the names of a VM's taps begin with. The directory is in it too, so that two replicators on one host differ.
pub(crate) fn tap_prefix(root: &str, id: &RecoveryId) -> String {
    let digest = Digest::of(format!("{root}/{id}").as_bytes()).to_string();
    format!("fs{}n", digest.get(..10).unwrap_or_default())
}

/// Whether the system takes it, and `ip` takes it for nothing else.
pub(crate) fn is_interface_name(text: &str) -> bool {
    (1..=INTERFACE_NAME_LIMIT).contains(&text.len())
        && !text.starts_with(['-', '.'])
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_names_fit_and_differ_by_vm_and_by_directory() {
        let (one, two) = (RecoveryId::new("one").unwrap(), RecoveryId::new("two").unwrap());
        let names = [
            tap_prefix("/a", &one),
            tap_prefix("/a", &two),
            tap_prefix("/b", &one),
        ];
        assert!(names[0] != names[1] && names[0] != names[2]);
        for name in names {
            assert!(is_interface_name(&format!("{name}{}", NIC_LIMIT - 1)), "{name}");
        }
    }

    #[test]
    fn what_the_system_would_not_take_is_no_interface_name() {
        for name in ["", "-j", ".", "a b", "a/b", "sixteen-letters-"] {
            assert!(!is_interface_name(name), "{name:?}");
        }
        assert!(is_interface_name("br-lan.7"));
    }
}
