//! The scrub finds damage wherever it is, and says which points it hits and which it does not.

use std::{fs, sync::Arc};

use super::*;
use crate::{
    Vault,
    scripted::{CHAIN, Source, scratch, tiny, write},
    storage::LocalStorage,
};

struct Fixture {
    directory: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let directory = scratch();
    let mut source = Source::new(&[65_536, 4096]);
    let vault = Vault::create_on(
        &directory.path().join("vault"),
        Arc::new(LocalStorage),
        tiny(20_000),
    )
    .unwrap();
    let (mut writer, epoch) = source.enroll(&vault);
    for (nonce, byte) in (1..=6).zip(1u8..) {
        // Every point writes its own block, and all of them the first one.
        let blocks = [vec![write(0, nonce * 4096, 1, 4096), write(0, 0, byte, 4096)]];
        source.replicate(&mut writer, epoch, nonce, &blocks);
    }
    Fixture { directory }
}

impl Fixture {
    fn scrub(&self) -> Scrub {
        Scrub::new(
            VaultReader::open(&self.directory.path().join("vault")).unwrap(),
            CHAIN,
        )
        .unwrap()
    }

    fn whole_pass(&self, piece: u64) -> (Vec<Damage>, u64) {
        let mut scrub = self.scrub();
        let (mut damage, mut bytes) = (Vec::new(), 0);
        for _ in 0..1000 {
            let done = scrub.go_on(ByteCount(piece)).unwrap();
            damage.extend(done.damage);
            bytes += done.bytes.0;
            if done.pass == Pass::Over {
                return (damage, bytes);
            }
        }
        panic!("a pass does not end");
    }

    fn segment(&self, number: u32) -> std::path::PathBuf {
        let scrub = self.scrub();
        scrub.layout.segment(SegmentName::ingested(number))
    }
}

#[test]
fn a_pass_reads_everything_once_whatever_its_pieces() {
    let at = fixture();
    let (damage, bytes) = at.whole_pass(u64::MAX);
    assert!(damage.is_empty());
    assert!(bytes > 6 * 12_288, "{bytes}");
    for piece in [1, 5000, 50_000] {
        let (damage, read) = at.whole_pass(piece);
        assert!(damage.is_empty());
        assert_eq!(read, bytes, "in pieces of {piece}");
    }
}

#[test]
fn damage_is_traced_to_the_points_that_show_it() {
    let at = fixture();
    let path = at.segment(1);
    let whole = fs::read(&path).unwrap();
    // The first group: its header, then the block of its own, then the block that every point writes.
    for (position, hit) in [(8192 + 7, vec![1, 2, 3, 4, 5, 6]), (12_288 + 7, vec![1])] {
        let mut damaged = whole.clone();
        damaged[position] ^= 1;
        fs::write(&path, damaged).unwrap();
        let (damage, _) = at.whole_pass(10_000);
        let points: Vec<_> = damage.iter().map(|damage| damage.points.clone()).collect();
        let expected: Vec<_> = hit.into_iter().map(Sequence).collect();
        assert_eq!(points, [expected]);
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_lost_segment_and_a_damaged_run_are_found() {
    let at = fixture();
    let path = at.segment(2);
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let (damage, _) = at.whole_pass(10_000);
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert!(damage[0].place.is_some());
    fs::write(&path, whole).unwrap();
    let run = at.scrub().layout.run(1);
    let mut bytes = fs::read(&run).unwrap();
    bytes[5000] ^= 1;
    fs::write(&run, bytes).unwrap();
    let (damage, _) = at.whole_pass(10_000);
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert!(damage[0].points.contains(&Sequence(6)));
}
