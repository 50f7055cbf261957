//! Decides what deleting a declaration does: a site, policy or group goes at once, a VM's protection is removed by a
//! job.

use farshore_blocks::clock::WallTime;
use farshore_domain::{
    allowed_operations::Operation,
    declaration::{DeclarationKey, Kind, check_delete},
    job::{Job, JobId, JobKind},
    protection,
};

use super::{Fresh, Refusal, apply::subject, test::check_allowed};
use crate::records::{self, EventRecord, Severity, VmRecord, Work};

/// Deletes a declaration, or plans the job that does.
///
/// # Errors
/// When there is none, it is in use, or its state does not allow it.
pub fn delete(
    work: &mut Work<'_>,
    key: &DeclarationKey,
    fresh: &Fresh,
    now: WallTime,
) -> Result<Option<JobId>, Refusal> {
    let existing = records::all_declared(work)?;
    check_delete(&existing, key).map_err(|refusal| Refusal::Declarations(vec![(key.clone(), refusal)]))?;
    match key.kind {
        Kind::ProtectedVm => disable(work, key.name.as_str(), fresh, now).map(Some),
        Kind::Site | Kind::ReplicationPolicy | Kind::ConsistencyGroup => {
            records::undeclare(work, key.kind, key.name.as_str())?;
            let message = format!("{key} was deleted");
            let event = EventRecord::new(Severity::Information, "deleted", message, &subject(key), now);
            work.tell(&event)?;
            Ok(None)
        }
    }
}

/// Stops what still enables the VM and plans the job that disables it.
fn disable(work: &mut Work<'_>, name: &str, fresh: &Fresh, now: WallTime) -> Result<JobId, Refusal> {
    let mut vm = work.get::<VmRecord>(name)?.ok_or_else(|| Refusal::NotFound {
        what: "protected VM",
        name: name.to_owned(),
    })?;
    check_allowed(&vm, Operation::Disable)?;
    if let Some(mut enabling) = work.get::<Job>(&vm.latest_job.0)?
        && enabling.request_cancellation("the VM was deleted").is_ok()
    {
        work.put(&enabling)?;
    }
    vm.protect(protection::Event::Disable)?;
    vm.latest_job = fresh.job.clone();
    let job = Job::plan(fresh.job.clone(), JobKind::DisableProtection, name, None, now);
    work.put(&job)?;
    work.put(&vm)?;
    Ok(job.id)
}
