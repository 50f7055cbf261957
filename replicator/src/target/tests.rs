//! A target against sources that are wrong, old, fenced or hostile: each gets a reason, and nothing of theirs lands.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes fails the test"
)]

mod comparing;
mod fencing;
mod seeds;

use std::time::Duration;

use farshore_blocks::{ByteCount, ChangeHasher, Encoding, Frame, Sequence, VolumeIndex};
use farshore_proto::v1::{
    RefusalReason, replication_client::ReplicationClient, source_message, target_message,
};
use farshore_vault::VolumeDescription;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::*;
use crate::convert;
use farshore_proto::v1;

const CHAIN: ChainId = ChainId::from_bytes([3; 16]);
const HOLDER: HolderNonce = HolderNonce::from_bytes([1; 16]);
const VOLUME_BYTES: u64 = 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(20);

fn open(directory: &Path, vault: impl FnOnce(&Path) -> Result<Vault, VaultError>) -> Targets {
    Targets::open(vault(&directory.join("vault")).unwrap(), &directory.join("state")).unwrap()
}

fn volumes() -> Vec<VolumeDescription> {
    vec![VolumeDescription {
        name: "root".to_owned(),
        size: ByteCount(VOLUME_BYTES),
    }]
}

struct Site {
    targets: Targets,
    endpoint: String,
    epoch: Epoch,
    _stop: tokio_util::sync::DropGuard,
    directory: TempDir,
}

impl Site {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let targets = open(directory.path(), Vault::create);
        let description = ChainDescription {
            vm: "vm".to_owned(),
            volumes: volumes(),
        };
        let epoch = targets.prepare(CHAIN, &description, HOLDER).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(crate::listening::serve_at(
            listener,
            targets.clone(),
            stop.clone(),
        ));
        Self {
            targets,
            endpoint,
            epoch,
            _stop: stop.drop_guard(),
            directory,
        }
    }

    fn hello(&self) -> v1::Hello {
        v1::Hello {
            protocol_version: 1,
            chain: CHAIN.as_bytes().to_vec().into(),
            epoch: Some(convert::epoch_out(self.epoch)),
            vm: "vm".to_owned(),
            volumes: Vec::new(),
            sent_at: Some(convert::time_out(WallTime::now())),
            software_version: "test".to_owned(),
            oldest_protocol_version: 0,
        }
    }

    async fn dial(&self) -> Peer {
        let channel = tonic::transport::Endpoint::from_shared(self.endpoint.clone())
            .unwrap()
            .connect()
            .await
            .unwrap();
        let (outgoing, receiver) = mpsc::channel(16);
        let mut client = ReplicationClient::new(channel);
        let incoming = client
            .replicate(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        Peer { outgoing, incoming }
    }

    /// A peer that is welcomed and in a base cycle.
    async fn dial_into_cycle(&self) -> Peer {
        let mut peer = self.dial().await;
        peer.say(source_message::Body::Hello(self.hello())).await;
        assert!(matches!(peer.hear().await, target_message::Body::Welcome(_)));
        peer.say(begin()).await;
        assert!(matches!(peer.hear().await, target_message::Body::Begun(_)));
        peer
    }

    fn has_no_point(&self) -> bool {
        self.targets.reader().points(CHAIN).unwrap().is_empty()
    }
}

struct Peer {
    outgoing: mpsc::Sender<v1::SourceMessage>,
    incoming: Streaming<v1::TargetMessage>,
}

impl Peer {
    async fn say(&self, body: source_message::Body) {
        self.outgoing
            .send(v1::SourceMessage { body: Some(body) })
            .await
            .unwrap();
    }

    async fn next(&mut self) -> Result<Option<v1::TargetMessage>, Status> {
        tokio::time::timeout(LIMIT, self.incoming.message())
            .await
            .expect("an answer in time")
    }

    async fn hear(&mut self) -> target_message::Body {
        self.next().await.unwrap().expect("an answer").body.unwrap()
    }

    /// The refusal that ends the stream; acknowledgements before it are passed over.
    async fn refusal(&mut self) -> v1::Refused {
        loop {
            match self.hear().await {
                target_message::Body::Refused(refused) => {
                    assert!(
                        self.next().await.unwrap().is_none(),
                        "the stream ends after a refusal"
                    );
                    return refused;
                }
                target_message::Body::Acknowledged(_) => {}
                other => panic!("no refusal but {other:?}"),
            }
        }
    }
}

fn begin() -> source_message::Body {
    source_message::Body::Begin(v1::BeginCycle {
        cycle: 5,
        kind: v1::CycleKind::Base.into(),
        base: None,
        volumes: Vec::new(),
    })
}

fn frame(offset: u64) -> Frame {
    Frame::from_raw(
        VolumeIndex(0),
        farshore_blocks::ByteOffset(offset),
        vec![9; 4096].into(),
    )
    .unwrap()
}

fn changes(message: u64, frames: Vec<v1::Frame>) -> source_message::Body {
    source_message::Body::Changes(v1::Changes {
        cycle: 5,
        message,
        frames,
        watermarks: Vec::new(),
    })
}

fn seal(frames: &[Frame]) -> v1::Seal {
    let mut hasher = ChangeHasher::default();
    for frame in frames {
        let extent = frame.extent();
        hasher.update(
            frame.volume(),
            extent.start(),
            extent.length(),
            &frame.raw_digest(),
        );
    }
    v1::Seal {
        cycle: 5,
        sequence: 1,
        messages: 1,
        parent_digest: vec![0; 32].into(),
        changes: vec![convert::change_out(hasher.digest())],
        captured_at: Some(convert::time_out(WallTime::now())),
        clock_offset_nanoseconds: 0,
        clock_uncertainty_nanoseconds: 0,
        kind: v1::PointKind::CrashConsistent.into(),
        machine: Vec::from("{}").into(),
    }
}

async fn refusal_of(site: &Site, body: source_message::Body) -> RefusalReason {
    let mut peer = site.dial_into_cycle().await;
    peer.say(body).await;
    let refused = peer.refusal().await;
    assert!(!refused.message.is_empty());
    assert!(site.has_no_point());
    refused.reason()
}

#[tokio::test]
async fn a_frame_with_a_wrong_crc_is_refused() {
    let site = Site::start().await;
    let mut wrong = convert::frame_out(&frame(0));
    wrong.crc32 ^= 1;
    assert_eq!(
        refusal_of(&site, changes(1, vec![wrong])).await,
        RefusalReason::BadFrame
    );
}

#[tokio::test]
async fn frames_that_cannot_be_are_refused() {
    let site = Site::start().await;
    let sound = convert::frame_out(&frame(0));
    let outside = convert::frame_out(&frame(VOLUME_BYTES));
    let unknown_encoding = v1::Frame {
        encoding: 77,
        ..sound.clone()
    };
    let other_volume = v1::Frame {
        volume: 1,
        ..sound.clone()
    };
    let short = v1::Frame {
        payload: vec![9; 100].into(),
        ..sound
    };
    for (wrong, reason) in [
        (outside, RefusalReason::BadFrame),
        (unknown_encoding, RefusalReason::Malformed),
        (other_volume, RefusalReason::BadFrame),
        (short, RefusalReason::BadFrame),
    ] {
        assert_eq!(
            refusal_of(&site, changes(1, vec![wrong.clone()])).await,
            reason,
            "{wrong:?}"
        );
    }
}

#[tokio::test]
async fn a_gap_and_another_cycle_are_refused() {
    let site = Site::start().await;
    let sound = convert::frame_out(&frame(0));
    assert_eq!(
        refusal_of(&site, changes(2, vec![sound])).await,
        RefusalReason::Gap
    );
    let other = source_message::Body::Abandon(v1::Abandon { cycle: 6 });
    assert_eq!(refusal_of(&site, other).await, RefusalReason::WrongCycle);
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_stream_and_nothing_lands() {
    let site = Site::start().await;
    let mut peer = site.dial_into_cycle().await;
    let large = Frame::from_raw(
        VolumeIndex(0),
        farshore_blocks::ByteOffset(0),
        vec![9; farshore_blocks::MAX_FRAME_BYTES as usize].into(),
    )
    .unwrap();
    let frames = vec![convert::frame_out(&large); 100];
    peer.say(changes(1, frames)).await;
    // Answers that were on their way may come first; no acknowledgement does.
    while let Ok(Some(message)) = peer.next().await {
        assert!(!matches!(
            message.body,
            Some(target_message::Body::Acknowledged(_))
        ));
    }
    let mut again = site.dial_into_cycle().await;
    again.say(source_message::Body::Seal(seal(&[large]))).await;
    assert_eq!(again.refusal().await.reason(), RefusalReason::Gap);
    assert!(site.has_no_point());
}

#[tokio::test]
async fn compressed_frames_are_checked_and_few_bytes_cannot_become_many() {
    let site = Site::start().await;
    let text = Frame::from_raw(
        VolumeIndex(0),
        farshore_blocks::ByteOffset(0),
        vec![9; farshore_blocks::MAX_FRAME_BYTES as usize].into(),
    )
    .unwrap();
    let sound = convert::frame_out(&text.clone().compressed(3));
    let wrong_crc = v1::Frame {
        crc32: sound.crc32 ^ 1,
        ..sound.clone()
    };
    let too_long = v1::Frame {
        length_bytes: sound.length_bytes - 1,
        ..sound.clone()
    };
    for wrong in [wrong_crc, too_long] {
        let reason = refusal_of(&site, changes(1, vec![wrong])).await;
        assert_eq!(reason, RefusalReason::BadFrame);
    }
    let many = vec![sound.clone(); 65];
    let reason = refusal_of(&site, changes(1, many)).await;
    assert_eq!(reason, RefusalReason::Malformed);
    let mut peer = site.dial_into_cycle().await;
    peer.say(changes(1, vec![sound])).await;
    assert!(matches!(peer.hear().await, target_message::Body::Acknowledged(_)));
    peer.say(source_message::Body::Seal(seal(&[text]))).await;
    assert!(matches!(peer.hear().await, target_message::Body::Sealed(_)));
}

#[tokio::test]
async fn a_wrong_hello_is_refused_with_its_reason() {
    let site = Site::start().await;
    let sound = site.hello();
    let mut other_holder = sound.clone();
    other_holder.epoch = Some(convert::epoch_out(Epoch {
        number: site.epoch.number,
        holder: HolderNonce::from_bytes([2; 16]),
    }));
    let newer = Epoch {
        number: site.epoch.number + 1,
        ..site.epoch
    };
    for (hello, reason) in [
        (
            v1::Hello {
                chain: vec![9; 16].into(),
                ..sound.clone()
            },
            RefusalReason::UnknownChain,
        ),
        (
            v1::Hello {
                chain: vec![9; 3].into(),
                ..sound.clone()
            },
            RefusalReason::Malformed,
        ),
        (
            v1::Hello {
                epoch: None,
                ..sound.clone()
            },
            RefusalReason::Malformed,
        ),
        (
            v1::Hello {
                epoch: Some(convert::epoch_out(newer)),
                ..sound.clone()
            },
            RefusalReason::Fenced,
        ),
        (other_holder, RefusalReason::Fenced),
    ] {
        let mut peer = site.dial().await;
        peer.say(source_message::Body::Hello(hello)).await;
        assert_eq!(peer.refusal().await.reason(), reason);
    }
    let mut silent = site.dial().await;
    silent.say(begin()).await;
    assert_eq!(silent.refusal().await.reason(), RefusalReason::Malformed);
}

#[tokio::test]
async fn a_source_with_no_version_in_common_is_told_which_are_spoken() {
    let site = Site::start().await;
    for (oldest_protocol_version, protocol_version) in [(0, 2), (2, 9), (0, 0)] {
        let hello = v1::Hello {
            protocol_version,
            oldest_protocol_version,
            ..site.hello()
        };
        let mut peer = site.dial().await;
        peer.say(source_message::Body::Hello(hello)).await;
        let refused = peer.refusal().await;
        assert_eq!(refused.reason(), RefusalReason::Version);
        assert!(
            refused.message.ends_with("accepted here: version 1"),
            "{}",
            refused.message
        );
    }
}

#[tokio::test]
async fn a_newer_source_that_still_speaks_this_version_is_welcomed_in_it() {
    let site = Site::start().await;
    let newer = v1::Hello {
        protocol_version: 7,
        oldest_protocol_version: 1,
        ..site.hello()
    };
    let mut peer = site.dial().await;
    peer.say(source_message::Body::Hello(newer)).await;
    match peer.hear().await {
        target_message::Body::Welcome(welcome) => assert_eq!(welcome.protocol_version, 1),
        other => panic!("no welcome but {other:?}"),
    }
}

#[tokio::test]
async fn a_fence_in_the_middle_of_a_stream_refuses_its_next_frame() {
    let site = Site::start().await;
    let mut peer = site.dial_into_cycle().await;
    peer.say(changes(1, vec![convert::frame_out(&frame(0))])).await;
    assert!(matches!(peer.hear().await, target_message::Body::Acknowledged(_)));
    let epoch = site
        .targets
        .fence(CHAIN, HolderNonce::from_bytes([8; 16]))
        .unwrap();
    peer.say(changes(2, vec![convert::frame_out(&frame(4096))])).await;
    let refused = peer.refusal().await;
    assert_eq!(refused.reason(), RefusalReason::Fenced);
    assert_eq!(refused.current_epoch, Some(convert::epoch_out(epoch)));
    assert_eq!(site.targets.standings()[0].1.refused_fenced, 1);
}

#[tokio::test]
async fn a_seal_that_lies_is_refused_and_a_true_one_makes_the_point() {
    let site = Site::start().await;
    let frames = [frame(0)];
    let sound = seal(&frames);
    for (lie, reason) in [
        (
            v1::Seal {
                messages: 2,
                ..sound.clone()
            },
            RefusalReason::Gap,
        ),
        (
            v1::Seal {
                sequence: 2,
                ..sound.clone()
            },
            RefusalReason::WrongBase,
        ),
        (
            v1::Seal {
                parent_digest: vec![1; 32].into(),
                ..sound.clone()
            },
            RefusalReason::WrongBase,
        ),
        (
            v1::Seal {
                changes: Vec::new(),
                ..sound.clone()
            },
            RefusalReason::Malformed,
        ),
        (seal(&[frame(4096)]), RefusalReason::WrongDigest),
    ] {
        let mut peer = site.dial_into_cycle().await;
        peer.say(changes(1, vec![convert::frame_out(&frames[0])])).await;
        peer.say(source_message::Body::Seal(lie)).await;
        assert_eq!(peer.refusal().await.reason(), reason);
        assert!(site.has_no_point());
    }
    let mut peer = site.dial_into_cycle().await;
    peer.say(changes(1, vec![convert::frame_out(&frames[0])])).await;
    peer.say(source_message::Body::Seal(sound)).await;
    let sealed = loop {
        match peer.hear().await {
            target_message::Body::Acknowledged(_) => {}
            target_message::Body::Sealed(sealed) => break sealed,
            other => panic!("not sealed but {other:?}"),
        }
    };
    assert_eq!(sealed.point.unwrap().sequence, 1);
    let points = site.targets.reader().points(CHAIN).unwrap();
    assert_eq!(points.last().map(|point| point.sequence), Some(Sequence(1)));
    assert_eq!(frames[0].encoding(), Encoding::Raw);
}

#[test]
fn a_time_of_the_source_is_never_taken_for_newer_than_it_is() {
    let ahead = earliest_here(WallTime(1_000), 300, Duration::from_nanos(20));
    assert_eq!(ahead, WallTime(680));
    let behind = earliest_here(WallTime(1_000), -300, Duration::from_nanos(20));
    assert_eq!(behind, WallTime(1_280));
}

#[tokio::test]
async fn what_a_target_is_told_of_retention_holds_after_a_restart() {
    let site = Site::start().await;
    let policy = RetentionPolicy {
        daily: 3,
        limit: Some(ByteCount(1 << 30)),
        ..RetentionPolicy::default()
    };
    assert_eq!(site.targets.retention(CHAIN), None);
    site.targets
        .set_retention(CHAIN, RetentionPolicy::default())
        .unwrap();
    site.targets.set_retention(CHAIN, policy.clone()).unwrap();
    assert_eq!(site.targets.retention(CHAIN), Some(policy.clone()));
    let unknown = site
        .targets
        .set_retention(ChainId::from_bytes([9; 16]), policy.clone());
    assert!(
        matches!(unknown, Err(TargetsError::Vault(VaultError::UnknownChain(_)))),
        "{unknown:?}"
    );

    // Only what is on disk counts: another vault with the same chain, and the same state directory.
    let other = site.directory.path().join("other");
    let vault = Vault::create(&other).unwrap();
    vault
        .create_chain(
            CHAIN,
            &ChainDescription {
                vm: "vm".to_owned(),
                volumes: volumes(),
            },
        )
        .unwrap();
    let targets = Targets::open(vault, &site.directory.path().join("state")).unwrap();
    assert_eq!(targets.retention(CHAIN), Some(policy));
}
