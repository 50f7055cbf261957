//! The steps of an unplanned failover. The source need not be reachable: nothing is asked of it.

use farshore_proto::v1::{self, command, command_result::Outcome, start_recovery::Network};

use super::{Achieved, LONG, Place, SHORT, Trouble, epoch_from_wire, started_from_wire, unexpected};
use crate::{
    jobs::{Engine, bookkeeping::Facts},
    records::{Recovery, VmRecord},
};

impl Engine {
    pub(super) async fn fence_source(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        let (vm, recovery) = self.recovery(place)?;
        let site = self.declared(place.job)?.target().site.to_string();
        let body = command::Body::Fence(v1::Fence {
            chain: vm.chain.as_bytes().to_vec().into(),
            holder: recovery.holder.as_bytes().to_vec().into(),
        });
        let outcome = self.command_vault(place, "fence", (&site, body), SHORT).await?;
        let Outcome::FenceRaised(raised) = outcome else {
            return Err(unexpected(&outcome));
        };
        let epoch = epoch_from_wire(raised.epoch.as_ref())?;
        Ok(Achieved::found(
            Facts::Fenced(epoch),
            format!("epoch {}", epoch.number),
        ))
    }

    pub(super) async fn start_recovered_vm(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        let (vm, recovery) = self.recovery(place)?;
        let declared = self.declared(place.job)?;
        let point = recovery
            .point
            .ok_or_else(|| Trouble::give_up("no point was chosen"))?;
        let network = match self.bridge(&declared)? {
            Some(bridge) => Network::Bridge(bridge),
            None => Network::Bubble(recovery.id.clone()),
        };
        let body = command::Body::StartRecovery(v1::StartRecovery {
            recovery_id: recovery.id,
            chain: vm.chain.as_bytes().to_vec().into(),
            sequence: point.0,
            network: Some(network),
        });
        let site = declared.target().site.as_str();
        let outcome = self
            .command_vault(place, "start-recovery", (site, body), LONG)
            .await?;
        let Outcome::RecoveryStarted(started) = outcome else {
            return Err(unexpected(&outcome));
        };
        let started = started_from_wire(&started);
        let detail = format!("running after {:?}", started.order_to_running);
        Ok(Achieved::found(Facts::Started(started), detail))
    }

    fn recovery(&self, place: Place<'_>) -> Result<(VmRecord, Recovery), Trouble> {
        let vm = self.vm(place.job)?;
        let recovery = vm
            .recovery
            .clone()
            .filter(|recovery| recovery.job == place.job.id)
            .ok_or_else(|| Trouble::give_up("a later failover of this VM took its place"))?;
        Ok((vm, recovery))
    }
}
