//! A run of the index, behind the summary that names it.

use std::{path::Path, sync::Arc};

use farshore_blocks::{Sequence, VolumeIndex};

use super::{field, scratch::Scratch, segment::identity_in};
use crate::{
    edit::codec,
    entry::{Entry, Order},
    format::fields::Fields,
    tree::{NodeCache, Run},
};

/// A summary of 73 bytes and the file: it is checked, walked through, and looked into by key.
pub fn run(bytes: &[u8]) {
    let mut fields = Fields::new(bytes);
    let Ok(summary) = codec::run(&mut fields) else {
        return;
    };
    let file = bytes.get(73..).unwrap_or_default();
    let scratch = Scratch::new();
    let path = scratch.path().join("run");
    scratch.put(Path::new("run"), file);
    let cache = Arc::new(NodeCache::new(1 << 20));
    let Ok(run) = Run::open(&path, identity_in(file), &summary, cache) else {
        return;
    };
    if let Ok(attachment) = run.attachment() {
        assert!(attachment.len() <= file.len(), "an attachment lies in its file");
    }
    let sound = run.check().is_ok();
    let walked: Result<Vec<Entry>, _> = run.entries().collect();
    if sound {
        let entries = walked.as_ref().expect("what was checked can be read");
        let mut order = Order::default();
        assert!(
            entries.iter().all(|entry| order.follows(entry)),
            "entries are in order"
        );
        for entry in entries.iter().take(200) {
            look_up(&run, entry);
        }
    }
    let anywhere = u64::from_le_bytes(field(bytes, 0));
    for (volume, chunk) in [(0, 0), (1, anywhere), (u32::MAX, u64::MAX)] {
        if let Ok(cursor) = run.seek(VolumeIndex(volume), chunk, Sequence(u64::MAX)) {
            let _ = cursor.take(1000).filter(Result::is_ok).count();
        }
    }
}

fn look_up(run: &Run, entry: &Entry) {
    let found = run
        .seek(entry.volume, entry.chunk(), entry.sequence)
        .expect("what was checked can be read");
    let mut found = found.map(|found| found.expect("what was checked can be read"));
    assert!(
        found
            .by_ref()
            .take_while(|found| found.version() == entry.version())
            .any(|found| found == *entry),
        "an entry is found by its key"
    );
}
