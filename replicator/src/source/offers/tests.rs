//! Offers that are kept, given, replaced and refused.

use farshore_blocks::HolderNonce;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const CHAIN: ChainId = ChainId::from_bytes([7; 16]);
const EPOCH: Epoch = Epoch {
    number: 3,
    holder: HolderNonce::from_bytes([1; 16]),
};
const SOON: Duration = Duration::from_secs(20);

/// Offers of [`CHAIN`], and where they are made.
struct Site {
    offers: Offers,
    listener: TcpListener,
}

impl Site {
    async fn open() -> Self {
        let offers = Offers::default();
        offers.expect(CHAIN, EPOCH);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { offers, listener }
    }

    /// A connection on which nothing has been said.
    async fn dial(&self) -> TcpStream {
        let dialled = TcpStream::connect(self.listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = self.listener.accept().await.unwrap();
        let offers = self.offers.clone();
        tokio::spawn(async move { offers.receive(accepted).await });
        dialled
    }

    async fn offer(&self, offer: &v1::Offer) -> TcpStream {
        let mut stream = self.dial().await;
        offering::say_magic(&mut stream).await.unwrap();
        offering::say(&mut stream, offer).await.unwrap();
        stream
    }

    async fn kept(&self) -> TcpStream {
        let mut stream = self.offer(&good()).await;
        assert!(matches!(hear(&mut stream).await, Some(Body::Kept(_))));
        stream
    }
}

fn good() -> v1::Offer {
    v1::Offer {
        version: VERSION,
        chain: CHAIN.as_bytes().to_vec().into(),
        epoch: Some(convert::epoch_out(EPOCH)),
        software_version: "test".to_owned(),
    }
}

async fn hear(stream: &mut TcpStream) -> Option<Body> {
    let answer: v1::OfferAnswer = offering::hear(stream).await.unwrap();
    answer.body
}

/// Whether the source closes it without another word than that it is kept.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    // A reset is an end, too.
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap();
    rest.is_empty()
}

#[tokio::test]
async fn what_is_offered_is_given_and_carries_both_ways() {
    let site = Site::open().await;
    let mut there = site.kept().await;
    let mut here = site.offers.take(CHAIN, SOON).await.unwrap();
    loop {
        match hear(&mut there).await {
            Some(Body::Kept(_)) => {}
            Some(Body::Taken(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    here.write_all(b"there").await.unwrap();
    there.write_all(b"here").await.unwrap();
    let mut heard = [0; 5];
    there.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"there");
    here.read_exact(&mut heard[..4]).await.unwrap();
    assert_eq!(&heard[..4], b"here");
}

#[tokio::test]
async fn whoever_waits_gets_what_is_offered_later() {
    let site = Site::open().await;
    let offers = site.offers.clone();
    let taken = tokio::spawn(async move { offers.take(CHAIN, SOON).await });
    tokio::task::yield_now().await;
    let _there = site.offer(&good()).await;
    taken.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stranger_is_refused_and_told_nothing_of_the_epoch() {
    let site = Site::open().await;
    let stranger = Epoch {
        holder: HolderNonce::from_bytes([2; 16]),
        ..EPOCH
    };
    let unknown = v1::Offer {
        chain: vec![8; 16].into(),
        ..good()
    };
    let cases = [
        (
            v1::Offer {
                epoch: Some(convert::epoch_out(stranger)),
                ..good()
            },
            RefusalReason::Fenced,
        ),
        (unknown, RefusalReason::UnknownChain),
        (v1::Offer { version: 2, ..good() }, RefusalReason::Version),
        (
            v1::Offer {
                epoch: None,
                ..good()
            },
            RefusalReason::Malformed,
        ),
        (
            v1::Offer {
                chain: vec![7; 15].into(),
                ..good()
            },
            RefusalReason::Malformed,
        ),
    ];
    for (offer, reason) in cases {
        let mut stream = site.offer(&offer).await;
        let Some(Body::Refused(refused)) = hear(&mut stream).await else {
            panic!("{offer:?} was not refused");
        };
        assert_eq!(refused.reason(), reason, "{offer:?}");
        assert!(
            !refused.message.contains(&EPOCH.holder.to_string()),
            "{}",
            refused.message
        );
        assert!(is_closed(&mut stream).await);
    }
    let none = site.offers.take(CHAIN, Duration::from_millis(50)).await;
    assert_eq!(none.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn whoever_does_not_keep_to_the_words_is_cut_off() {
    let site = Site::open().await;
    for said in [
        b"FSOX".as_slice(),
        b"FSOF\xff\xff\xff\xff",
        b"FSOF\0\0\0\x02\xff\xff",
    ] {
        let mut stream = site.dial().await;
        stream.write_all(said).await.unwrap();
        assert!(is_closed(&mut stream).await, "{said:?}");
    }
    let mut early = site.kept().await;
    early.write_all(b"x").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(SOON, early.read_to_end(&mut rest)).await.unwrap();
    let none = site.offers.take(CHAIN, Duration::from_millis(50)).await;
    assert_eq!(none.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn of_many_offers_the_newest_are_kept() {
    let site = Site::open().await;
    let mut oldest = site.kept().await;
    let _others = [site.kept().await, site.kept().await];
    assert!(is_closed(&mut oldest).await);
    for _ in 0..KEPT {
        site.offers.take(CHAIN, SOON).await.unwrap();
    }
    assert!(site.offers.take(CHAIN, Duration::from_millis(50)).await.is_err());
}

#[tokio::test]
async fn a_connection_that_died_is_not_given() {
    let site = Site::open().await;
    let live = site.kept().await;
    drop(site.kept().await);
    let noticed = async {
        while !site.offers.chains()[&CHAIN].kept[1].is_closed() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, noticed).await.unwrap();
    let given = site.offers.take(CHAIN, SOON).await.unwrap();
    assert_eq!(given.peer_addr().unwrap(), live.local_addr().unwrap());
}

#[tokio::test]
async fn nothing_is_kept_for_a_chain_that_was_forgotten_or_has_another_epoch() {
    let site = Site::open().await;
    let mut first = site.kept().await;
    site.offers.expect(CHAIN, Epoch { number: 4, ..EPOCH });
    assert!(is_closed(&mut first).await);
    let mut second = site.offer(&good()).await;
    assert!(matches!(hear(&mut second).await, Some(Body::Refused(_))));
    site.offers.forget(CHAIN);
    assert!(site.offers.take(CHAIN, SOON).await.is_err());
}
