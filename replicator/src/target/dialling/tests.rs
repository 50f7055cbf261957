//! What a source hears of a target that dials it, and for how long.

use farshore_blocks::HolderNonce;
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpListener, sync::mpsc};

use super::*;
use crate::listening;

const CHAIN: ChainId = ChainId::from_bytes([7; 16]);
const SOON: Duration = Duration::from_secs(20);

struct Site {
    dialling: Dialling,
    taken: mpsc::Receiver<io::Result<TcpStream>>,
    stop: CancellationToken,
}

fn open(directory: &TempDir) -> Site {
    let (served, taken) = listening::served();
    let stop = CancellationToken::new();
    let plaintext = Plaintext::LoopbackOnly;
    let dialling = Dialling::open(directory.path(), plaintext, served, stop.clone()).unwrap();
    Site {
        dialling,
        taken,
        stop,
    }
}

fn source(endpoint: &str) -> DialledSource {
    DialledSource {
        endpoint: endpoint.to_owned(),
        epoch: Epoch {
            number: 1,
            holder: HolderNonce::from_bytes([1; 16]),
        },
    }
}

/// A source that hears an offer and answers so.
async fn answer(listener: &TcpListener, body: Body) -> TcpStream {
    let (mut stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    offering::hear_magic(&mut stream).await.unwrap();
    let offer: v1::Offer = offering::hear(&mut stream).await.unwrap();
    assert_eq!(offer.chain.as_ref(), CHAIN.as_bytes());
    let answer = v1::OfferAnswer { body: Some(body) };
    offering::say(&mut stream, &answer).await.unwrap();
    stream
}

fn refusal() -> Body {
    Body::Refused(v1::Refused {
        reason: v1::RefusalReason::UnknownChain.into(),
        message: "not yet".to_owned(),
        current_epoch: None,
    })
}

#[tokio::test]
async fn a_source_is_dialled_until_it_takes_a_connection_and_then_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut site = open(&directory);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    site.dialling.dial(CHAIN, source(&endpoint)).unwrap();
    drop(answer(&listener, refusal()).await);
    drop(answer(&listener, Body::Kept(v1::OfferKept {})).await);
    for _ in 0..2 {
        let _there = answer(&listener, Body::Taken(v1::OfferTaken {})).await;
        timeout(SOON, site.taken.recv()).await.unwrap().unwrap().unwrap();
    }
    site.stop.cancel();
    timeout(SOON, site.dialling.ended()).await.unwrap();
}

#[tokio::test]
async fn what_is_to_be_dialled_outlives_the_process_and_ends_when_it_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let site = open(&directory);
    site.dialling.dial(CHAIN, source(&endpoint)).unwrap();
    site.stop.cancel();
    site.dialling.ended().await;
    while timeout(Duration::from_millis(10), listener.accept())
        .await
        .is_ok()
    {}
    let again = open(&directory);
    let mut kept = answer(&listener, Body::Kept(v1::OfferKept {})).await;
    again.dialling.forget(CHAIN).unwrap();
    let mut rest = Vec::new();
    let _ = timeout(SOON, kept.read_to_end(&mut rest)).await.unwrap();
    assert!(
        ChainFiles::<DialledSource>::open(directory.path().join("dialled"))
            .unwrap()
            .load()
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn beyond_loopback_nothing_is_dialled_in_plain_text() {
    let directory = tempfile::tempdir().unwrap();
    let site = open(&directory);
    let refused = |endpoint| {
        site.dialling
            .dial(CHAIN, source(endpoint))
            .unwrap_err()
            .to_string()
    };
    assert!(refused("http://10.0.0.1:7201").contains("insecure: true"));
    for endpoint in ["10.0.0.1:7201", "http://localhost", "https://localhost:7201", ""] {
        assert!(refused(endpoint).contains("cannot be dialled"), "{endpoint}");
    }
    assert!(
        ChainFiles::<DialledSource>::open(directory.path().join("dialled"))
            .unwrap()
            .load()
            .unwrap()
            .is_empty()
    );
}
