//! A chain's volumes, in the records that name them.

use farshore_blocks::ByteCount;

use super::Decoded;
use crate::{
    format::{
        FormatError,
        fields::{Encoder, Fields},
    },
    records::{ChainDescription, MOST_VOLUMES, VolumeDescription},
};

pub(super) fn put_description(body: &mut Encoder, description: &ChainDescription) {
    body.byte_string(description.vm.as_bytes());
    put_volumes(body, &description.volumes);
}

pub(super) fn description(fields: &mut Fields<'_>) -> Decoded<ChainDescription> {
    Ok(ChainDescription {
        vm: fields.text()?.to_owned(),
        volumes: volumes(fields)?,
    })
}

pub(super) fn put_volumes(body: &mut Encoder, volumes: &[VolumeDescription]) {
    body.list(volumes.iter(), |body, volume| {
        body.u64(volume.size.0).byte_string(volume.name.as_bytes());
    });
}

pub(super) fn volumes(fields: &mut Fields<'_>) -> Decoded<Vec<VolumeDescription>> {
    let volumes = fields.list(12, |fields| {
        Ok(VolumeDescription {
            size: ByteCount(fields.u64()?),
            name: fields.text()?.to_owned(),
        })
    })?;
    if (1..=MOST_VOLUMES).contains(&volumes.len()) {
        Ok(volumes)
    } else {
        Err(FormatError::Bounds {
            field: "number of volumes",
        })
    }
}
