//! Telling the target which volumes the point of a cycle is to have: disks grow while they are shipped.

use farshore_provider::CapturedVolume;

use super::{Delivery, DeliveryError};
use crate::source::volumes::ChainVolumes;

impl Delivery<'_> {
    /// What is shipped from now on is of this capture: the target hears by how much disks grew, before their bytes come.
    /// Everything that was sent must be durable.
    pub(crate) async fn tell_volumes(&mut self, captured: &[CapturedVolume]) -> Result<(), DeliveryError> {
        let told = self.lane.volumes.told(captured);
        if told != self.volumes {
            self.volumes = told;
            if let Err(error) = self.say_begin().await {
                self.mend(error).await?;
            }
        }
        Ok(())
    }

    /// The chain's volumes, as the newest point has them.
    pub(crate) fn chain_volumes(&mut self) -> &mut ChainVolumes {
        &mut self.lane.volumes
    }
}
