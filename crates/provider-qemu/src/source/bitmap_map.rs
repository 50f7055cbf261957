//! Reading what bitmaps know where no client may read their disk: QEMU exports a scratch node that is as long, with the
//! disk's bitmaps beside it. Nobody but us uses that node then, so that clients of it may vanish.

use farshore_blocks::{ByteCount, ByteOffset, Extent, VolumeIndex};
use farshore_nbd::{Client, StatusDescriptor};
use farshore_provider::SourceError;
use farshore_qmp::Command;
use serde_json::json;
use uuid::Uuid;

use super::{
    acting::delete_exports,
    export::{BITMAP_CONTEXT_PREFIX, DIRTY, SECRET_DIGITS},
    hypervisor::Hypervisor,
    naming::{NodeRole, export_id},
    scratch::ScratchDirectory,
};

/// A bitmap and the node that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BitmapOf {
    pub(crate) node: String,
    pub(crate) name: String,
}

/// The bitmaps of one volume that are to be read; their names differ.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) index: VolumeIndex,
    pub(crate) size: ByteCount,
    pub(crate) bitmaps: Vec<BitmapOf>,
}

/// Of each volume, of each of its bitmaps, the extents that are dirty: ascending, and none touches the next.
pub(crate) async fn read(
    hypervisor: &Hypervisor,
    scratch: &ScratchDirectory,
    mappings: &[Mapping],
) -> Result<Vec<Vec<Vec<Extent>>>, SourceError> {
    if mappings.is_empty() {
        return Ok(Vec::new());
    }
    let mut secret = Uuid::new_v4().simple().to_string();
    secret.truncate(SECRET_DIGITS);
    let name = |mapping: &Mapping| format!("{secret}-{}", mapping.index);
    let add = |mapping: &Mapping| {
        let bitmaps = mapping.bitmaps.iter();
        let bitmaps: Vec<_> = bitmaps
            .map(|bitmap| json!({"node": bitmap.node, "name": bitmap.name}))
            .collect();
        let arguments = json!({
            "type": "nbd",
            "id": export_id(mapping.index),
            "node-name": NodeRole::Scratch.node(mapping.index),
            "name": name(mapping),
            "bitmaps": bitmaps,
        });
        Command::new("block-export-add", arguments)
    };
    let commands: Vec<_> = mappings.iter().map(add).collect();
    hypervisor.run_all(&commands).await?;
    let mut maps = Vec::with_capacity(mappings.len());
    for mapping in mappings {
        let map = read_one(scratch, &name(mapping), mapping).await;
        maps.push(map.map_err(|error| {
            hypervisor.unfit(format!(
                "the changes of volume {} cannot be read: {error}",
                mapping.index
            ))
        })?);
    }
    let ids: Vec<_> = mappings.iter().map(|mapping| export_id(mapping.index)).collect();
    delete_exports(hypervisor, &ids).await?;
    Ok(maps)
}

async fn read_one(
    scratch: &ScratchDirectory,
    export: &str,
    mapping: &Mapping,
) -> Result<Vec<Vec<Extent>>, farshore_nbd::ClientError> {
    let context = |bitmap: &BitmapOf| format!("{BITMAP_CONTEXT_PREFIX}{}", bitmap.name);
    let contexts: Vec<_> = mapping.bitmaps.iter().map(context).collect();
    let asked: Vec<_> = contexts.iter().map(String::as_str).collect();
    let client = Client::connect_unix(&scratch.nbd_socket(), export, &asked).await?;
    let mut maps = Vec::with_capacity(contexts.len());
    for context in asked {
        maps.push(dirty(&client.block_status(context, 0, mapping.size.0).await?));
    }
    client.disconnect().await;
    Ok(maps)
}

fn dirty(status: &[StatusDescriptor]) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = ByteOffset(0);
    for run in status {
        if run.flags & DIRTY != 0 {
            push(&mut extents, at, ByteCount(run.length));
        }
        at = ByteOffset(at.0.saturating_add(run.length));
    }
    extents
}

/// Appends an extent, or lengthens the last one if they touch.
fn push(extents: &mut Vec<Extent>, start: ByteOffset, length: ByteCount) {
    let last = extents.last().copied().filter(|last| last.end() == start);
    let whole = last.map_or((start, length), |last| {
        (last.start(), ByteCount(last.length().0.saturating_add(length.0)))
    });
    if last.is_some() {
        extents.pop();
    }
    extents.extend(Extent::new(whole.0, whole.1));
}

/// Where both are dirty.
pub(crate) fn both(one: &[Extent], other: &[Extent]) -> Vec<Extent> {
    let mut common = Vec::new();
    let (mut ones, mut others) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (ones.peek(), others.peek()) {
        common.extend(a.intersection(**b));
        if a.end() <= b.end() {
            ones.next();
        } else {
            others.next();
        }
    }
    common
}

/// The units of this size that the extents lie in, or touch.
pub(crate) fn whole_units(extents: &[Extent], unit: u64, size: ByteCount) -> Vec<Extent> {
    let mut units: Vec<Extent> = Vec::new();
    for extent in extents {
        let start = extent.start().0 - extent.start().0 % unit;
        let end = extent.end().0.div_ceil(unit).saturating_mul(unit).min(size.0);
        let start = units.last().map_or(start, |last| start.max(last.end().0));
        push(
            &mut units,
            ByteOffset(start),
            ByteCount(end.saturating_sub(start)),
        );
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(of: &[(u64, u64)]) -> Vec<Extent> {
        let extent =
            |(start, end): &(u64, u64)| Extent::new(ByteOffset(*start), ByteCount(end - start)).unwrap();
        of.iter().map(extent).collect()
    }

    #[test]
    fn runs_that_touch_are_one_extent() {
        let run = |length, flags| StatusDescriptor { length, flags };
        let found = dirty(&[run(5, 0), run(5, 1), run(5, 1), run(5, 2), run(5, 3)]);
        assert_eq!(found, extents(&[(5, 15), (20, 25)]));
    }

    #[test]
    fn what_is_dirty_in_both_is_common_and_nothing_else() {
        for (one, other, expected) in [
            (&[(0, 10)][..], &[(0, 10)][..], &[(0, 10)][..]),
            (&[(0, 10), (20, 30)], &[(5, 25)], &[(5, 10), (20, 25)]),
            (&[(0, 10)], &[(10, 20)], &[]),
            (&[], &[(0, 20)], &[]),
            (
                &[(0, 100)],
                &[(1, 2), (3, 4), (99, 120)],
                &[(1, 2), (3, 4), (99, 100)],
            ),
        ] {
            let (one, other) = (extents(one), extents(other));
            assert_eq!(both(&one, &other), extents(expected));
            assert_eq!(both(&other, &one), extents(expected));
        }
    }

    #[test]
    fn units_hold_all_that_touches_them_once() {
        for (of, size, expected) in [
            (&[(1, 2)][..], 1000, &[(0, 64)][..]),
            (&[(0, 64)], 1000, &[(0, 64)]),
            (
                &[(1, 2), (3, 65), (66, 70), (300, 301)],
                1000,
                &[(0, 128), (256, 320)],
            ),
            (&[(63, 65), (100, 200)], 1000, &[(0, 256)]),
            (&[(990, 1000)], 1000, &[(960, 1000)]),
        ] {
            assert_eq!(whole_units(&extents(of), 64, ByteCount(size)), extents(expected));
        }
    }
}
