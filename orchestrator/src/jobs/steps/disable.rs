//! The steps that take protection away.

use farshore_proto::v1::{self, command, command_result::Outcome};

use super::{Achieved, Place, SHORT, Trouble, unexpected};
use crate::jobs::Engine;

impl Engine {
    pub(super) async fn remove_mobility(&self, place: Place<'_>) -> Result<Achieved, Trouble> {
        self.remove_source(place, "remove-source").await?;
        let vm = self.vm(place.job)?;
        Ok(Achieved::nothing_to_keep(format!(
            "the chain {} stays in the vault",
            vm.chain
        )))
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
        let site = declared.source().site.as_str();
        let outcome = self.command(place, part, site, body, SHORT).await?;
        let Outcome::SourceRemoved(_) = outcome else {
            return Err(unexpected(&outcome));
        };
        Ok(())
    }
}
