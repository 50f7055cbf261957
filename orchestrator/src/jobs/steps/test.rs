//! The steps of a test failover and of its cleanup.

use farshore_proto::v1::{self, command, command_result::Outcome, start_recovery::Network};

use super::{Achieved, LONG, Place, Trouble, started_from_wire, unexpected};
use crate::{
    jobs::{Engine, bookkeeping::Facts},
    records::{LeakRecord, Leftovers},
};

impl Engine {
    pub(super) async fn start_test_vm(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        let test = self.test(place.job)?;
        let point = test
            .point
            .ok_or_else(|| Trouble::give_up("no point was chosen"))?;
        let body = command::Body::StartRecovery(v1::StartRecovery {
            recovery_id: test.name.clone(),
            chain: test.chain.as_bytes().to_vec().into(),
            sequence: point.0,
            network: Some(Network::Bubble(test.name.clone())),
        });
        let outcome = self
            .command_vault(place, "start-recovery", (&test.site, body), LONG)
            .await?;
        let Outcome::RecoveryStarted(started) = outcome else {
            return Err(unexpected(&outcome));
        };
        let started = started_from_wire(&started);
        let detail = format!("running after {:?}", started.order_to_running);
        Ok(Achieved::found(Facts::Started(started), detail))
    }

    pub(super) fn check_isolation(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        let test = self.test(place.job)?;
        let started = test
            .started
            .ok_or_else(|| Trouble::give_up("the test VM was not started"))?;
        if started.ways_out.is_empty() {
            return Ok(Achieved::nothing_to_keep("no way out"));
        }
        let ways = started.ways_out.join(", ");
        Err(Trouble::give_up(format!("the bubble has ways out: {ways}")))
    }

    pub(super) async fn remove_test_vm(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        let leaks = self.discard_recovery(place, "discard-recovery").await?;
        let detail = match leaks.len() {
            0 => "removed".to_owned(),
            count => format!("removed, {count} things were left behind"),
        };
        Ok(Achieved::found(Facts::Leaks(leaks), detail))
    }

    pub(super) fn check_leaks(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        let test = self.test(place.job)?;
        let leaks: Vec<String> = test
            .leaks
            .iter()
            .map(|leak| format!("{} {}", leak.kind, leak.name))
            .collect();
        match (leaks.is_empty(), test.leftovers) {
            (true, _) => Ok(Achieved::nothing_to_keep("nothing was left behind")),
            (false, Leftovers::Record) => Ok(Achieved::nothing_to_keep(format!(
                "left behind, and accepted: {}",
                leaks.join(", ")
            ))),
            (false, Leftovers::Refuse) => Err(Trouble::give_up(format!("left behind: {}", leaks.join(", ")))),
        }
    }

    /// Removes the recovered VM of the job's test; one that is not there counts as removed.
    pub(super) async fn discard_recovery(
        &self,
        place: Place<'_>,
        part: &str,
    ) -> Result<Vec<LeakRecord>, Trouble> {
        let test = self.test(place.job)?;
        let body = command::Body::DiscardRecovery(v1::DiscardRecovery {
            recovery_id: test.name.clone(),
        });
        let outcome = self.command_vault(place, part, (&test.site, body), LONG).await?;
        let Outcome::RecoveryDiscarded(discarded) = outcome else {
            return Err(unexpected(&outcome));
        };
        let leaks = discarded.leaks.into_iter();
        Ok(leaks
            .map(|leak| LeakRecord {
                kind: leak.kind,
                name: leak.name,
            })
            .collect())
    }
}
