//! What a vault holds, as people read it: the chains, then their points.

use super::view::{ChainView, GapView, PointView, VaultView};
use crate::output::{format, table::table};

const CHAIN_HEADINGS: [&str; 6] = ["vm", "chain", "epoch", "points", "dropped", "stored"];
const POINT_HEADINGS: [&str; 7] = ["vm", "point", "captured at", "kind", "changed", "stored", "kept"];
const WIDE_POINT_HEADINGS: [&str; 2] = ["sealed at", "digest"];

/// Two tables; the wide form shows dropped points too, in their places.
pub(super) fn of(view: &VaultView, wide: bool) -> String {
    let mut parts = Vec::new();
    if view.is_a_copy {
        parts.push(
            "This vault is a copy, or was restored: a replicator that opens it gives it a new incarnation, and every \
             source compares its disks with it anew."
                .to_owned(),
        );
    }
    parts.push(table(
        &CHAIN_HEADINGS,
        view.chains.iter().map(chain_row).collect(),
    ));
    let rows: Vec<_> = view
        .chains
        .iter()
        .flat_map(|chain| point_rows(chain, wide))
        .collect();
    if !rows.is_empty() {
        let mut headings = POINT_HEADINGS.to_vec();
        if wide {
            headings.extend(WIDE_POINT_HEADINGS);
        }
        parts.push(table(&headings, rows));
    }
    parts.join("\n\n")
}

fn chain_row(chain: &ChainView) -> Vec<String> {
    let dropped: u64 = chain.gaps.iter().map(GapView::points).sum();
    let epoch = chain.epoch.map(|epoch| epoch.to_string());
    vec![
        chain.vm.clone(),
        chain.chain.clone(),
        epoch.unwrap_or_else(|| format::NOTHING.to_owned()),
        chain.points.len().to_string(),
        dropped.to_string(),
        format::size(chain.stored_bytes),
    ]
}

/// In the order of sequences.
fn point_rows(chain: &ChainView, wide: bool) -> Vec<Vec<String>> {
    let points = chain.points.iter();
    let mut rows: Vec<_> = points
        .map(|point| (point.sequence, point_row(&chain.vm, point, wide)))
        .collect();
    if wide {
        rows.extend(chain.gaps.iter().map(|gap| (gap.first, gap_row(&chain.vm, gap))));
    }
    rows.sort_by_key(|(sequence, _)| *sequence);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn point_row(vm: &str, point: &PointView, wide: bool) -> Vec<String> {
    let kept = match (&point.locked_until, point.pinned) {
        (Some(time), _) => format!("locked until {time}"),
        (None, true) => "pinned".to_owned(),
        (None, false) => format::NOTHING.to_owned(),
    };
    let mut row = vec![
        vm.to_owned(),
        point.sequence.to_string(),
        point.captured_at.clone(),
        point.kind.clone(),
        format::size(point.changed_bytes),
        format::size(point.stored_bytes),
        kept,
    ];
    if wide {
        row.extend([point.sealed_at.clone(), point.digest.clone()]);
    }
    row
}

fn gap_row(vm: &str, gap: &GapView) -> Vec<String> {
    let place = if gap.first == gap.last {
        gap.first.to_string()
    } else {
        format!("{}-{}", gap.first, gap.last)
    };
    let mut row = vec![
        vm.to_owned(),
        place,
        format::NOTHING.to_owned(),
        "dropped".to_owned(),
    ];
    row.resize(
        POINT_HEADINGS.len().saturating_add(WIDE_POINT_HEADINGS.len()),
        format::NOTHING.to_owned(),
    );
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::list::view::VolumeView;

    fn point(sequence: u64, pinned: bool, locked_until: Option<&str>) -> PointView {
        PointView {
            sequence,
            digest: "d1".to_owned(),
            captured_at: "2026-01-31T03:00:00.000Z".to_owned(),
            sealed_at: "2026-01-31T03:00:01.000Z".to_owned(),
            kind: "CrashConsistent".to_owned(),
            changed_bytes: 4096,
            stored_bytes: 8192,
            pinned,
            locked_until: locked_until.map(str::to_owned),
        }
    }

    fn vault() -> VaultView {
        let chain = ChainView {
            chain: "c1".to_owned(),
            vm: "db".to_owned(),
            epoch: Some(2),
            valid_through: None,
            volumes: vec![VolumeView {
                name: "root".to_owned(),
                size_bytes: 1 << 30,
            }],
            stored_bytes: 16384,
            points: vec![
                point(1, true, None),
                point(7, false, Some("2027-01-01T00:00:00.000Z")),
                point(9, false, None),
            ],
            gaps: vec![GapView { first: 2, last: 6 }, GapView { first: 8, last: 8 }],
        };
        VaultView {
            incarnation: "i1".to_owned(),
            is_a_copy: true,
            chains: vec![chain],
        }
    }

    #[test]
    fn people_see_chains_points_and_why_a_point_is_kept() {
        let text = of(&vault(), false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("This vault is a copy"), "{text}");
        let row = |number: usize| lines[number].split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(row(3), "db c1 2 3 6 16.0 KiB", "{text}");
        assert_eq!(
            row(6),
            "db 1 2026-01-31T03:00:00.000Z CrashConsistent 4.0 KiB 8.0 KiB pinned"
        );
        assert!(
            row(7).ends_with("locked until 2027-01-01T00:00:00.000Z"),
            "{text}"
        );
        assert!(row(8).ends_with("8.0 KiB -"), "{text}");
        assert_eq!(lines.len(), 9, "{text}");
    }

    #[test]
    fn the_wide_form_shows_dropped_points_where_they_were() {
        let text = of(&vault(), true);
        let rows: Vec<&str> = text.lines().skip(6).collect();
        let places: Vec<_> = rows
            .iter()
            .filter_map(|row| row.split_whitespace().nth(1))
            .collect();
        assert_eq!(places, ["1", "2-6", "7", "8", "9"], "{text}");
        assert!(rows[1].contains("dropped"), "{text}");
    }
}
