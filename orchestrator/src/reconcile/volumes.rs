//! Decides when the volumes of a VM's newest recovery point are news: a disk grew, came or went.

use farshore_blocks::{ByteCount, clock::WallTime};
use farshore_domain::declaration::ProtectedVm;

use crate::{
    fleet::FleetView,
    records::{EventRecord, Severity, VmRecord, VolumeRecord},
    replicators::source_status,
};

/// What is to be written down and told.
pub(super) struct News {
    /// As the newest point has them.
    pub(super) volumes: Vec<VolumeRecord>,
    what: Vec<String>,
}

/// What the source reports, if it is not what is known. A source that does not know yet says nothing.
pub(super) fn news(view: &FleetView, declared: &ProtectedVm, vm: &VmRecord) -> Option<News> {
    let (_, status) = source_status(view, declared.source().site.as_str(), vm.chain)?;
    let reported = status.volumes.iter().map(|volume| VolumeRecord {
        name: volume.name.clone(),
        size_bytes: volume.size_bytes,
    });
    let volumes: Vec<_> = reported.collect();
    if volumes.is_empty() || volumes == vm.volumes {
        return None;
    }
    let what = changes(&vm.volumes, &volumes);
    Some(News { volumes, what })
}

impl News {
    /// As the log has it.
    pub(super) fn event(&self, subject: &str, now: WallTime) -> EventRecord {
        let message = format!("from the newest recovery point on, {}", self.what.join(", "));
        EventRecord::new(Severity::Information, "volumes-changed", message, subject, now)
    }
}

fn changes(before: &[VolumeRecord], now: &[VolumeRecord]) -> Vec<String> {
    let named =
        |volumes: &[VolumeRecord], name: &str| volumes.iter().find(|volume| volume.name == name).cloned();
    let mut changes = Vec::new();
    for volume in now {
        let size = ByteCount(volume.size_bytes);
        match named(before, &volume.name) {
            None => changes.push(format!("volume `{}` of {size} is there", volume.name)),
            Some(known) if known.size_bytes != volume.size_bytes => changes.push(format!(
                "volume `{}` has {size} instead of {}",
                volume.name,
                ByteCount(known.size_bytes)
            )),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|volume| named(now, &volume.name).is_none());
    changes.extend(gone.map(|volume| format!("volume `{}` is gone", volume.name)));
    if changes.is_empty() {
        changes.push("the volumes are in another order".to_owned());
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes(volumes: &[(&str, u64)]) -> Vec<VolumeRecord> {
        volumes
            .iter()
            .map(|(name, size)| VolumeRecord {
                name: (*name).to_owned(),
                size_bytes: *size,
            })
            .collect()
    }

    #[test]
    fn what_changed_is_told_by_name_and_size() {
        let before = volumes(&[("root", 1024), ("data", 2048), ("old", 512)]);
        let now = volumes(&[("root", 1024), ("data", 4096), ("new", 512)]);
        let told = changes(&before, &now);
        assert_eq!(told.len(), 3, "{told:?}");
        for (told, words) in
            told.iter()
                .zip([["data", "instead of"], ["new", "is there"], ["old", "is gone"]])
        {
            assert!(words.iter().all(|word| told.contains(word)), "{told}");
        }
    }
}
