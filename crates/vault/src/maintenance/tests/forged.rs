//! Runs that are whole in themselves, and wrong: verification compares them with what they were made from.

use super::{promises::a_life, *};
use crate::{
    ProblemKind,
    edit::{ChainEdit, IndexChange},
    entry::Entry,
    storage::StorageError,
    tree::RunWriter,
};

/// Puts a run of other entries in the place of one, as a build that merges wrongly would.
fn forge(life: &Life, which: usize, change: impl FnOnce(&mut Vec<Entry>)) {
    let handle = life.vault().chain_handle(CHAIN).unwrap();
    let old = handle.state().runs[which];
    let nodes = Arc::new(NodeCache::new(1 << 20));
    let run = Run::open(&handle.layout.run(old.number), handle.identity, &old, nodes).unwrap();
    let mut entries: Vec<_> = run.entries().map(Result::unwrap).collect();
    change(&mut entries);
    entries.sort_by_key(Entry::key);
    let number = handle.fresh_run();
    let path = handle.layout.run(number);
    let mut writer = RunWriter::create(&handle.disk, &path, handle.identity, number).unwrap();
    entries.iter().for_each(|entry| writer.push(entry).unwrap());
    let added = vec![writer.finish(&run.attachment().unwrap()).unwrap()];
    let removed = vec![old.number];
    let change = IndexChange {
        added,
        removed,
        ..IndexChange::default()
    };
    let committed = handle.commit(vec![ChainEdit::Indexed(change)]);
    committed.map_err(StorageError::from).unwrap();
}

fn problems(life: &Life) -> Vec<crate::Problem> {
    let mut report = verify(&life.path(), |_| ()).unwrap();
    std::mem::take(&mut report.chains[0].problems)
}

#[test]
fn an_index_that_lost_an_entry_is_told_of() {
    let mut life = a_life();
    life.drop_points(|point| point.sequence.0.is_multiple_of(2));
    life.maintain();
    forge(&life, 0, |entries| {
        entries.remove(0);
    });
    let problems = problems(&life);
    let settled = |problem: &crate::Problem| matches!(problem.kind, ProblemKind::Settled { .. });
    assert!(problems.iter().any(settled), "{problems:?}");
}

type Forgery = fn(&mut Vec<Entry>);

#[test]
fn a_run_of_recent_points_that_was_made_wrong_is_told_of_by_point_volume_and_offset() {
    let forgeries: [(&str, Forgery); 6] = [
        ("an entry is missing", |entries| {
            entries.remove(3);
        }),
        ("an entry is too short", |entries| entries[3].length -= 1),
        ("an entry is of another point", |entries| {
            entries[3].sequence.0 -= 1
        }),
        ("an entry leads to an equal frame of another point", |entries| {
            let other = entries[4].place;
            let place = &mut entries[3].place;
            (place.segment, place.position) = (other.segment, other.position);
        }),
        ("an entry is where nothing was written", |entries| {
            let mut more = entries[3];
            (more.start, more.place.frame_start) = (190_000, 190_000);
            more.length = more.length.min(1000);
            entries.push(more);
        }),
        ("an entry shows that was written over", |entries| {
            let newest = entries[3].sequence;
            entries.retain(|entry| entry.sequence != newest || entry.volume != VolumeIndex(0));
        }),
    ];
    for (what, forgery) in forgeries {
        let life = a_life();
        assert!(problems(&life).is_empty());
        let mut hit = None;
        forge(&life, 2, |entries| {
            hit = Some(entries[3]);
            forgery(entries);
        });
        let found = problems(&life);
        let told = |problem: &crate::Problem| {
            matches!(problem.kind, ProblemKind::Index) && problem.volume.is_some() && problem.offset.is_some()
        };
        assert!(found.iter().any(told), "{what}: {hit:?} {found:?}");
    }
}
