//! A recovered VM and what its removal left behind, as shown.

use farshore_proto::v1;
use serde::Serialize;

use super::{seconds, state};

/// A VM that runs, or ran, from a recovery point.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RecoveredView {
    pub(crate) recovery_id: String,
    pub(crate) condition: String,
    pub(crate) point: u64,
    pub(crate) pid: u32,
    pub(crate) monitor: String,
    /// `null`: it is on a bridge of the site.
    pub(crate) namespace: Option<String>,
    pub(crate) order_to_running_seconds: Option<f64>,
    /// Empty: isolated.
    pub(crate) ways_out: Vec<String>,
}

/// Something that should be gone and is not.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LeakView {
    pub(crate) kind: String,
    pub(crate) name: String,
}

impl From<v1::RecoveredVm> for RecoveredView {
    fn from(vm: v1::RecoveredVm) -> Self {
        Self {
            condition: state("RECOVERED_VM_CONDITION_", vm.condition().as_str_name()),
            recovery_id: vm.recovery_id,
            point: vm.point,
            pid: vm.pid,
            monitor: vm.monitor,
            namespace: Some(vm.namespace).filter(|namespace| !namespace.is_empty()),
            order_to_running_seconds: seconds(vm.order_to_running),
            ways_out: vm.ways_out,
        }
    }
}

impl From<v1::Leak> for LeakView {
    fn from(leak: v1::Leak) -> Self {
        Self {
            kind: leak.kind,
            name: leak.name,
        }
    }
}
