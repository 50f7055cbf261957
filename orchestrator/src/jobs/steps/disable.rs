//! The steps that take protection away.

use farshore_domain::declaration::Inbound;
use farshore_proto::v1::{self, command, command_result::Outcome};

use super::{Achieved, Place, SHORT, Trouble, unexpected};
use crate::{
    jobs::Engine,
    records::{self, VmRecord},
};

impl Engine {
    pub(super) async fn remove_mobility(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        self.remove_source(place, "remove-source").await?;
        let vm = self.vm(place.job)?;
        let about_seeds = self.forget_seeds(place, &vm).await?;
        Ok(Achieved::nothing_to_keep(format!(
            "the chain {} stays in the vault{about_seeds}",
            vm.chain
        )))
    }

    /// Has the target forget the older copies of a chain that never got a point, and the source that it dials. A target that is away
    /// holds nothing up: what it keeps of them is a note that nobody uses any more, and a source that it does not know refuses it.
    async fn forget_seeds(&self, place: Place<'_>, vm: &VmRecord) -> Result<&'static str, Trouble> {
        let declared = self.declared(place.job)?;
        let target = records::declared_site(&*self.store, &declared.target().site)?;
        let target_dials = target.is_some_and(|site| site.inbound() == Inbound::Closed);
        if vm.tenure.is_none() || (declared.target().seed.is_empty() && !target_dials) {
            return Ok("");
        }
        let body = command::Body::ForgetSeeds(v1::ForgetSeeds {
            chain: vm.chain.as_bytes().to_vec().into(),
        });
        let site = declared.target().site.as_str();
        match self
            .command_vault(place, "forget-seeds", (site, body), SHORT)
            .await
        {
            Ok(Outcome::SeedsForgotten(_)) => Ok(""),
            Ok(other) => Err(unexpected(&other)),
            Err(Trouble::TryAgain { reason, .. } | Trouble::GiveUp { reason, .. }) => {
                tracing::warn!(
                    vm = vm.name,
                    reason,
                    "the target does not forget the seeds or the source of a VM"
                );
                Ok("; the target still has a note of its seeds or its source")
            }
            Err(error @ Trouble::Store(_)) => Err(error),
        }
    }

    /// Has the source forget its assignment; one that it does not have counts as forgotten.
    pub(super) async fn remove_source(&self, place: Place<'_>, part: &str) -> Result<(), Trouble> {
        let declared = self.declared(place.job)?;
        let vm = self.vm(place.job)?;
        if vm.tenure.is_none() {
            // The source is given its assignment only after a grant was written down.
            return Ok(());
        }
        let body = command::Body::RemoveSource(v1::RemoveSource {
            chain: vm.chain.as_bytes().to_vec().into(),
        });
        let outcome = self.command_source(place, part, &declared, body).await?;
        let Outcome::SourceRemoved(_) = outcome else {
            return Err(unexpected(&outcome));
        };
        Ok(())
    }
}
