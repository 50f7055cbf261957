//! What runs the guest's instructions: KVM where it answers, emulation elsewhere.
//!
//! A broken `/dev/kvm` can hang whoever opens it, so hard that no signal ends it. Therefore a child opens it, for a
//! limited time, once in the life of this process; a child that hangs is left behind.

use std::{path::Path, process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{process::Command, sync::OnceCell, time::timeout};

/// Opening a working `/dev/kvm` takes microseconds.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

const DEVICE: &str = "/dev/kvm";

/// What the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AcceleratorChoice {
    /// KVM if this host can, emulation otherwise.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Emulation, even where KVM could be used.
    Tcg,
}

/// What a launch asks QEMU for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// KVM or nothing.
    Kvm,
    /// KVM, and emulation if QEMU cannot use it in spite of the probe.
    KvmOrTcg,
    /// Emulation.
    Tcg,
}

impl Accelerator {
    /// The values of `-accel`, in order of preference.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        const KVM: &str = "kvm";
        const TCG: &str = "tcg,thread=multi";
        match self {
            Self::Kvm => &[KVM],
            Self::KvmOrTcg => &[KVM, TCG],
            Self::Tcg => &[TCG],
        }
    }
}

/// Decides what is used here.
pub(crate) async fn choose(choice: AcceleratorChoice) -> Accelerator {
    static ANSWER: OnceCell<bool> = OnceCell::const_new();
    match choice {
        AcceleratorChoice::Kvm => Accelerator::Kvm,
        AcceleratorChoice::Tcg => Accelerator::Tcg,
        AcceleratorChoice::Auto => {
            let opens = *ANSWER.get_or_init(|| opens_within(DEVICE, PROBE_LIMIT)).await;
            if opens {
                Accelerator::KvmOrTcg
            } else {
                Accelerator::Tcg
            }
        }
    }
}

/// Whether `device` can be opened for reading and writing within `limit`.
async fn opens_within(device: &str, limit: Duration) -> bool {
    if !Path::new(device).exists() {
        return false;
    }
    let mut opener = Command::new("/bin/sh");
    opener.args(["-c", r#"exec 3<>"$1""#, "sh", device]);
    let opens = succeeds_within(opener, limit).await;
    if !opens {
        tracing::info!(device, "no hardware acceleration: guests are emulated");
    }
    opens
}

/// Whether the child ends well in time. One that does not is killed, and not waited for: it may be unable to die.
async fn succeeds_within(mut command: Command, limit: Duration) -> bool {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    match child {
        Ok(mut child) => matches!(timeout(limit, child.wait()).await, Ok(Ok(status)) if status.success()),
        Err(_not_run) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_device_that_opens_is_used() {
        assert!(opens_within("/dev/null", PROBE_LIMIT).await);
    }

    #[tokio::test]
    async fn a_missing_device_is_not_used() {
        assert!(!opens_within("/dev/no-such-device", PROBE_LIMIT).await);
    }

    #[tokio::test]
    async fn a_child_that_hangs_is_given_up() {
        let mut hanging = Command::new("/bin/sleep");
        hanging.arg("600");
        assert!(!succeeds_within(hanging, Duration::from_millis(50)).await);
    }

    #[tokio::test]
    async fn a_configured_accelerator_is_not_second_guessed() {
        assert_eq!(
            choose(AcceleratorChoice::Tcg).await.arguments(),
            ["tcg,thread=multi"]
        );
        assert_eq!(choose(AcceleratorChoice::Kvm).await.arguments(), ["kvm"]);
    }
}
