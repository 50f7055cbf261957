//! What a target tells of its points, to whom.

use farshore_blocks::BlockHash;
use tonic::Code;

use super::*;

const BLOCK: u64 = 65536;

/// A site with a point whose second block has one written page.
async fn site_with_a_point() -> Site {
    let site = Site::start().await;
    let mut peer = site.dial_into_cycle().await;
    let written = frame(BLOCK + 4096);
    peer.say(changes(1, vec![convert::frame_out(&written)])).await;
    peer.say(source_message::Body::Seal(seal(&[written]))).await;
    while !matches!(peer.hear().await, target_message::Body::Sealed(_)) {}
    site
}

pub(super) fn question(site: &Site) -> v1::CompareRequest {
    v1::CompareRequest {
        chain: CHAIN.as_bytes().to_vec().into(),
        epoch: Some(convert::epoch_out(site.epoch)),
        point: 1,
        volume: 0,
        first_block: 0,
        blocks: u64::MAX,
        hashed_from: v1::HashedFrom::Index.into(),
    }
}

pub(super) async fn ask(site: &Site, request: v1::CompareRequest) -> Result<Vec<BlockHash>, Status> {
    let mut client = ReplicationClient::connect(site.endpoint.clone()).await.unwrap();
    let mut incoming = client.compare(request).await?.into_inner();
    let mut hashes = Vec::new();
    while let Some(message) = incoming.message().await? {
        let (told, rest) = message.hashes.as_chunks::<{ BlockHash::LENGTH }>();
        assert!(rest.is_empty());
        hashes.extend(told.iter().copied().map(BlockHash::from_bytes));
    }
    Ok(hashes)
}

#[tokio::test]
async fn a_source_is_told_what_every_block_hashes_to() {
    let site = site_with_a_point().await;
    let mut block = vec![0; 65536];
    block[4096..8192].fill(9);
    let mut expected = vec![BlockHash::Zero; 16];
    expected[1] = BlockHash::of(&block);
    for from in [v1::HashedFrom::Index, v1::HashedFrom::Data] {
        let request = v1::CompareRequest {
            hashed_from: from.into(),
            ..question(&site)
        };
        assert_eq!(ask(&site, request.clone()).await.unwrap(), expected);
        let part = v1::CompareRequest {
            first_block: 1,
            blocks: 3,
            ..request
        };
        assert_eq!(ask(&site, part).await.unwrap(), expected[1..4]);
    }
    let behind = v1::CompareRequest {
        first_block: 16,
        ..question(&site)
    };
    assert_eq!(ask(&site, behind).await.unwrap(), []);
}

#[tokio::test]
async fn whoever_does_not_hold_the_epoch_is_told_nothing() {
    let site = site_with_a_point().await;
    let sound = question(&site);
    let _ = site
        .targets
        .fence(CHAIN, HolderNonce::from_bytes([9; 16]))
        .unwrap();
    let refused = ask(&site, sound).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("epoch"), "{refused}");
}

#[tokio::test]
async fn questions_that_cannot_be_answered_are_refused() {
    let site = site_with_a_point().await;
    let sound = question(&site);
    let unspecified = v1::HashedFrom::Unspecified.into();
    for (wrong, code) in [
        (
            v1::CompareRequest {
                chain: vec![1].into(),
                ..sound.clone()
            },
            Code::InvalidArgument,
        ),
        (
            v1::CompareRequest {
                hashed_from: unspecified,
                ..sound.clone()
            },
            Code::InvalidArgument,
        ),
        (
            v1::CompareRequest {
                epoch: None,
                ..sound.clone()
            },
            Code::InvalidArgument,
        ),
        (
            v1::CompareRequest {
                chain: vec![4; 16].into(),
                ..sound.clone()
            },
            Code::FailedPrecondition,
        ),
        (
            v1::CompareRequest {
                point: 2,
                ..sound.clone()
            },
            Code::FailedPrecondition,
        ),
        (
            v1::CompareRequest {
                volume: 1,
                ..sound.clone()
            },
            Code::OutOfRange,
        ),
    ] {
        let refused = ask(&site, wrong.clone()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{wrong:?}: {refused}");
        assert!(!refused.message().is_empty());
    }
}
