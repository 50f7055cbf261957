//! What a chain's volumes may become.

use farshore_blocks::Sequence;

use super::*;
use crate::{
    Vault, VaultReader,
    scripted::{CHAIN, OTHER_HOLDER, Source, scratch, write},
};

const SIZES: [usize; 2] = [8192, 4096];

fn volumes(described: &[(&str, u64)]) -> Vec<VolumeDescription> {
    described
        .iter()
        .map(|(name, size)| VolumeDescription {
            name: (*name).to_owned(),
            size: ByteCount(*size),
        })
        .collect()
}

fn sizes(volumes: &[VolumeDescription]) -> Vec<u64> {
    volumes.iter().map(|volume| volume.size.0).collect()
}

#[test]
fn every_point_keeps_the_volumes_of_its_instant() {
    let directory = scratch();
    let path = directory.path().join("vault");
    let vault = Vault::create(&path).unwrap();
    let mut source = Source::new(&SIZES);
    let (mut writer, epoch) = source.enroll(&vault);
    source.replicate(&mut writer, epoch, 1, &[vec![write(0, 0, 1, 8192)]]);
    source.grow(0, 4096);
    source.volumes.push(vec![0; 512]);
    source.tell_volumes(&mut writer, epoch);
    let reader = VaultReader::open(&path).unwrap();
    assert_eq!(sizes(&reader.description(CHAIN).unwrap().volumes), [8192, 4096]);
    assert_eq!(sizes(&writer.volumes_of_newest()), [8192, 4096]);
    source.replicate(
        &mut writer,
        epoch,
        2,
        &[vec![write(0, 8000, 2, 4288), write(2, 0, 3, 512)]],
    );
    source.volumes[1].clear();
    source.tell_volumes(&mut writer, epoch);
    source.replicate(&mut writer, epoch, 3, &[vec![write(2, 100, 4, 100)]]);
    source.assert_equal(&reader);
    for (point, expected) in [
        (1, &[8192, 4096][..]),
        (2, &[12288, 4096, 512]),
        (3, &[12288, 0, 512]),
    ] {
        let described = reader.description_at(CHAIN, Sequence(point)).unwrap();
        assert_eq!(sizes(&described.volumes), expected, "point {point}");
        let opened = reader.open_point(CHAIN, Sequence(point)).unwrap();
        assert_eq!(sizes(opened.volumes()), expected, "point {point}");
        assert_eq!(
            opened.volumes_there().count(),
            expected.iter().filter(|size| **size > 0).count()
        );
    }
    assert_eq!(
        sizes(&reader.description(CHAIN).unwrap().volumes),
        [12288, 0, 512]
    );
}

#[test]
fn a_change_that_would_take_bytes_or_places_away_is_refused_and_changes_nothing() {
    let directory = scratch();
    let vault = Vault::create(&directory.path().join("vault")).unwrap();
    let mut source = Source::new(&SIZES);
    let (mut writer, epoch) = source.enroll(&vault);
    source.replicate(&mut writer, epoch, 1, &[vec![write(0, 0, 1, 100)]]);
    let before = writer.volumes().to_vec();
    type Expected = fn(&VolumesRefused) -> bool;
    let cases: [(&[(&str, u64)], Expected); 6] = [
        (&[("disk0", 8191), ("disk1", 4096)], |error| {
            matches!(error, VolumesRefused::Shrinks { .. })
        }),
        (&[("disk0", 8192)], |error| {
            matches!(error, VolumesRefused::Count { .. })
        }),
        (&[("disk1", 8192), ("disk0", 4096)], |error| {
            matches!(error, VolumesRefused::OtherName { .. })
        }),
        (&[("disk0", 8192), ("disk1", 4096), ("disk1", 9)], |error| {
            matches!(error, VolumesRefused::Count { .. })
        }),
        (&[("disk0", 8192), ("disk1", 4096), ("", 9)], |error| {
            matches!(error, VolumesRefused::Count { .. })
        }),
        (&[("disk0", 0), ("disk1", 0)], |error| {
            matches!(error, VolumesRefused::Count { .. })
        }),
    ];
    for (given, expected) in cases {
        let error = writer.set_volumes(epoch, &volumes(given)).unwrap_err();
        assert!(expected(&error), "{given:?}: {error}");
        assert_eq!(writer.volumes(), before);
    }
    let gone = volumes(&[("disk0", 8192), ("disk1", 0)]);
    writer.set_volumes(epoch, &gone).unwrap();
    source.volumes[1].clear();
    source.replicate(&mut writer, epoch, 2, &[]);
    let back = volumes(&[("disk0", 8192), ("disk1", 4096)]);
    let refused = writer.set_volumes(epoch, &back).unwrap_err();
    assert!(
        matches!(refused, VolumesRefused::Gone(VolumeIndex(1))),
        "{refused}"
    );
    // Another of its name is another volume.
    let anew = volumes(&[("disk0", 8192), ("disk1", 0), ("disk1", 4096)]);
    writer.set_volumes(epoch, &anew).unwrap();
}

#[test]
fn what_was_said_of_a_point_that_never_came_binds_nobody_but_the_open_cycle() {
    let directory = scratch();
    let vault = Vault::create(&directory.path().join("vault")).unwrap();
    let mut source = Source::new(&SIZES);
    let (mut writer, epoch) = source.enroll(&vault);
    source.replicate(&mut writer, epoch, 1, &[vec![write(0, 0, 1, 100)]]);
    let larger = volumes(&[("disk0", 10_000), ("disk1", 4096), ("disk2", 5000)]);
    writer.set_volumes(epoch, &larger).unwrap();
    let cycle = source.cycle(epoch, 2, &[vec![write(0, 0, 2, 100)]]);
    writer.begin(&cycle.begin).unwrap();
    let smaller = volumes(&[("disk0", 9000), ("disk1", 4096), ("disk2", 5000)]);
    let refused = writer.set_volumes(epoch, &smaller).unwrap_err();
    assert!(matches!(refused, VolumesRefused::Shrinks { .. }), "{refused}");
    let without = volumes(&[("disk0", 10_000), ("disk1", 4096), ("disk2", 0)]);
    let refused = writer.set_volumes(epoch, &without).unwrap_err();
    assert!(
        matches!(refused, VolumesRefused::CycleOpen(VolumeIndex(2))),
        "{refused}"
    );
    writer.abandon(epoch, 2).unwrap();
    writer
        .set_volumes(epoch, &volumes(&[("disk0", 9000), ("disk1", 4096), ("disk2", 0)]))
        .unwrap();
}

#[test]
fn a_fenced_source_changes_no_volume() {
    let directory = scratch();
    let vault = Vault::create(&directory.path().join("vault")).unwrap();
    let source = Source::new(&SIZES);
    let (mut writer, epoch) = source.enroll(&vault);
    vault.grant_epoch(CHAIN, OTHER_HOLDER).unwrap();
    let larger = volumes(&[("disk0", 10_000), ("disk1", 4096)]);
    let refused = writer.set_volumes(epoch, &larger).unwrap_err();
    assert!(matches!(refused, VolumesRefused::WrongEpoch(_)), "{refused}");
    assert_eq!(sizes(writer.volumes()), [8192, 4096]);
}
