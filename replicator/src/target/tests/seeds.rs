//! What a target takes from a seed, and what it does not.

use std::fs;

use farshore_blocks::{BlockHash, Digest};

use super::*;

const BLOCK: u64 = 65536;

/// A site whose chain has a seed of two blocks and a bit.
async fn site_with_a_seed() -> Site {
    let site = Site::start().await;
    fs::write(seed_of(&site), seed_bytes()).unwrap();
    keep(&site);
    site
}

fn seed_of(site: &Site) -> std::path::PathBuf {
    site.directory.path().join("old.raw")
}

fn keep(site: &Site) {
    let seeds = ChainSeeds {
        volumes: [("root".to_owned(), seed_of(site))].into(),
    };
    site.targets.keep_seeds(CHAIN, &seeds).unwrap();
}

fn seed_bytes() -> Vec<u8> {
    let bytes = (0..2 * BLOCK + 100).map(|at| u8::try_from(at % 251).unwrap());
    bytes.collect()
}

/// Of what the seed has there.
fn whole(offset: u64, length: usize) -> Frame {
    let at = usize::try_from(offset).unwrap();
    let raw = seed_bytes()[at..at + length].to_vec();
    Frame::from_raw(VolumeIndex(0), farshore_blocks::ByteOffset(offset), raw.into()).unwrap()
}

fn seeded(frame: &Frame) -> v1::Frame {
    convert::frame_of_change(&farshore_transfer::Change::Seeded(frame.clone()))
}

async fn welcome(site: &Site) -> v1::Welcome {
    let mut peer = site.dial().await;
    peer.say(source_message::Body::Hello(site.hello())).await;
    match peer.hear().await {
        target_message::Body::Welcome(welcome) => welcome,
        other => panic!("no welcome but {other:?}"),
    }
}

#[tokio::test]
async fn what_the_seed_has_becomes_part_of_the_point_and_then_it_is_forgotten() {
    let site = site_with_a_seed().await;
    let told = welcome(&site).await.seeds;
    assert_eq!(
        told,
        [v1::Seed {
            volume: 0,
            size_bytes: 2 * BLOCK + 100
        }]
    );
    let frames = [whole(BLOCK, 65536), frame(8 * BLOCK)];
    let mut peer = site.dial_into_cycle().await;
    peer.say(changes(
        1,
        vec![seeded(&frames[0]), convert::frame_out(&frames[1])],
    ))
    .await;
    peer.say(source_message::Body::Seal(seal(&frames))).await;
    while !matches!(peer.hear().await, target_message::Body::Sealed(_)) {}
    let point = site.targets.reader().open_point(CHAIN, Sequence(1)).unwrap();
    let mut read = vec![0; 65536];
    point
        .read_at(VolumeIndex(0), farshore_blocks::ByteOffset(BLOCK), &mut read)
        .unwrap();
    assert!(read == whole(BLOCK, 65536).raw()[..]);

    assert_eq!(welcome(&site).await.seeds, []);
    // Told once more, as a command that is repeated: the chain has a point.
    keep(&site);
    assert_eq!(welcome(&site).await.seeds, []);
    assert!(
        !site
            .directory
            .path()
            .join(format!("state/seeds/{CHAIN}.json"))
            .exists()
    );
}

#[tokio::test]
async fn a_seed_that_has_other_bytes_is_told_with_its_place_and_what_came_before_stays() {
    let site = site_with_a_seed().await;
    let mut other = seeded(&whole(0, 4096));
    other.payload = Digest::of(b"other bytes").as_bytes().to_vec().into();
    let behind = v1::Frame {
        offset_bytes: 2 * BLOCK,
        ..seeded(&whole(0, 4096))
    };
    for wrong in [other, behind] {
        let mut peer = site.dial_into_cycle().await;
        peer.say(changes(1, vec![seeded(&whole(0, 4096))])).await;
        peer.say(changes(2, vec![wrong.clone()])).await;
        let refused = peer.refusal().await;
        assert_eq!(refused.reason(), RefusalReason::SeedDiffers, "{wrong:?}");
        let at = format!("{:#x}+4096", wrong.offset_bytes);
        assert!(
            refused.message.contains("old.raw") && refused.message.contains(&at),
            "{}",
            refused.message
        );
        let open = welcome(&site).await.open.unwrap();
        assert_eq!(open.durable_through_message, 1);
        assert!(site.has_no_point());
    }
}

#[tokio::test]
async fn a_seed_frame_that_cannot_be_is_refused() {
    let site = site_with_a_seed().await;
    let sound = seeded(&whole(0, 65536));
    let wrong_crc = v1::Frame {
        crc32: sound.crc32 ^ 1,
        ..sound.clone()
    };
    let other_volume = v1::Frame {
        volume: 1,
        ..sound.clone()
    };
    let with_bytes = v1::Frame {
        payload: vec![1; 64].into(),
        ..sound.clone()
    };
    let too_long = v1::Frame {
        length_bytes: 65537,
        ..sound.clone()
    };
    let empty = v1::Frame {
        length_bytes: 0,
        ..sound.clone()
    };
    for wrong in [wrong_crc, other_volume, with_bytes, too_long, empty] {
        assert_eq!(
            refusal_of(&site, changes(1, vec![wrong.clone()])).await,
            RefusalReason::BadFrame,
            "{wrong:?}"
        );
    }
    // Each is a hundred bytes on the wire and would be 64 KiB here.
    assert_eq!(
        refusal_of(&site, changes(1, vec![sound; 65])).await,
        RefusalReason::Malformed
    );
}

#[tokio::test]
async fn a_seed_frame_without_a_seed_is_refused() {
    let site = Site::start().await;
    assert_eq!(welcome(&site).await.seeds, []);
    let frame = seeded(&whole(0, 4096));
    assert_eq!(
        refusal_of(&site, changes(1, vec![frame])).await,
        RefusalReason::BadFrame
    );
}

#[tokio::test]
async fn a_source_is_told_what_the_seed_hashes_to_and_no_more_than_it_has() {
    let site = site_with_a_seed().await;
    let question = v1::CompareRequest {
        point: 0,
        hashed_from: v1::HashedFrom::Seed.into(),
        ..comparing::question(&site)
    };
    let told = comparing::ask(&site, question.clone()).await.unwrap();
    let mut expected = vec![BlockHash::Unreadable; 16];
    expected[0] = BlockHash::of(whole(0, 65536).raw());
    expected[1] = BlockHash::of(whole(BLOCK, 65536).raw());
    assert_eq!(told, expected);
    site.targets.forget_seeds(CHAIN).unwrap();
    let refused = comparing::ask(&site, question).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
}

#[tokio::test]
async fn a_seed_that_cannot_be_opened_is_as_none() {
    let site = site_with_a_seed().await;
    fs::remove_file(seed_of(&site)).unwrap();
    assert_eq!(welcome(&site).await.seeds, []);
}
