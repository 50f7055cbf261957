//! What a recovered VM does now.

use farshore_provider::{ComputeError, RecoveryId, VmCondition};

use super::{
    Site,
    control::{Control, ControlError},
    process,
    start::io_failed,
};

/// Looks; changes nothing, except that it keeps the console's log within its bound.
pub(crate) async fn probe(site: &Site, id: &RecoveryId) -> Result<VmCondition, ComputeError> {
    let files = site.files(id);
    let failed = |action: &str| io_failed(id, action);
    if files.request().map_err(failed("reading the request"))?.is_none() {
        return Ok(VmCondition::Absent);
    }
    let Some(hypervisor) = process::find(&files).map_err(failed("looking for its process"))? else {
        let launched = files.launch().map_err(failed("reading the last launch"))?;
        return Ok(match launched {
            Some(_) => VmCondition::Ended,
            None => VmCondition::Prepared,
        });
    };
    files
        .bound_console()
        .map_err(failed("bounding the console's log"))?;
    let state = async { Control::connect(&files, &hypervisor).await?.run_state().await };
    match state.await {
        Ok(state) => Ok(state.condition()),
        Err(ControlError::Ended) => Ok(VmCondition::Ended),
        Err(error) => Err(error.of(id)),
    }
}
