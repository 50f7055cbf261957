//! What is served is what was written, to whoever speaks NBD.

use std::{fs, time::Duration};

use farshore_nbd::Client;
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Fixture, SIZES, fixture};
use crate::{
    exit::CliError,
    vault::{VaultCommand, serve},
};

const LIMIT: Duration = Duration::from_secs(30);

/// Serves in this process until the token is cancelled.
struct Served {
    task: tokio::task::JoinHandle<Result<(), CliError>>,
    shutdown: CancellationToken,
    address: String,
}

async fn served(at: &Fixture, arguments: &[&str]) -> Result<Served, CliError> {
    let VaultCommand::Serve(arguments) = at.parse(arguments).unwrap() else {
        panic!("not serve");
    };
    let shutdown = CancellationToken::new();
    let (ready, listening) = oneshot::channel();
    let stop = shutdown.clone();
    let task = tokio::spawn(async move {
        serve::serve(&arguments, stop, |bound| ready.send(bound.to_string()).unwrap()).await
    });
    match timeout(LIMIT, listening).await.unwrap() {
        Ok(address) => Ok(Served {
            task,
            shutdown,
            address,
        }),
        Err(_) => Err(timeout(LIMIT, task).await.unwrap().unwrap().unwrap_err()),
    }
}

impl Served {
    async fn stop(self) {
        self.shutdown.cancel();
        timeout(LIMIT, self.task).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn every_volume_is_served_under_its_name() {
    let at = fixture();
    let (socket, pid_file) = (at.path("nbd.sock"), at.path("pid"));
    let socket_name = socket.to_str().unwrap();
    let pid_name = pid_file.to_str().unwrap();
    let serve = [
        "serve",
        "web",
        "--point",
        "latest",
        "--socket",
        socket_name,
        "--pid-file",
        pid_name,
    ];
    let served = served(&at, &serve).await.unwrap();
    assert_eq!(served.address, socket_name);
    assert_eq!(
        fs::read_to_string(&pid_file).unwrap().trim(),
        std::process::id().to_string()
    );
    for (name, disk) in ["root", "data"].iter().zip(&at.points[1]) {
        let client = Client::connect_unix(&socket, name, &["base:allocation"])
            .await
            .unwrap();
        assert_eq!(client.size(), disk.len() as u64);
        assert!(client.read(0, u32::try_from(disk.len()).unwrap()).await.unwrap() == *disk);
        client.disconnect().await;
    }
    let client = Client::connect_unix(&socket, "root", &["base:allocation"])
        .await
        .unwrap();
    let status = client
        .block_status("base:allocation", 0, SIZES[0] as u64)
        .await
        .unwrap();
    let data: u64 = status
        .iter()
        .filter(|extent| extent.flags == 0)
        .map(|extent| extent.length)
        .sum();
    assert_eq!(data, 65536 + 512, "{status:?}");
    served.stop().await;
    assert!(!socket.exists() && !pid_file.exists());
}

#[tokio::test]
async fn a_socket_in_use_is_refused_and_a_stale_one_replaced() {
    let at = fixture();
    let socket = at.path("nbd.sock");
    let serve = ["serve", "web", "--socket", socket.to_str().unwrap()];
    // A listener that is gone leaves its socket.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let first = served(&at, &serve).await.unwrap();
    let refused = served(&at, &serve).await.err().unwrap();
    assert_eq!(refused.exit_status(), 3, "{}", refused.describe());
    Client::connect_unix(&socket, "data", &[])
        .await
        .unwrap()
        .disconnect()
        .await;
    first.stop().await;
    fs::write(&socket, "a file").unwrap();
    let refused = served(&at, &serve).await.err().unwrap();
    assert_eq!(refused.exit_status(), 3, "{}", refused.describe());
    assert_eq!(fs::read_to_string(&socket).unwrap(), "a file");
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    let at = fixture();
    let refused = served(&at, &["serve", "web", "--listen", "0.0.0.0:0"])
        .await
        .err()
        .unwrap();
    assert_eq!(refused.exit_status(), 2, "{}", refused.describe());
    let local = served(&at, &["serve", "web", "--listen", "127.0.0.1:0"])
        .await
        .unwrap();
    let stream = tokio::net::TcpStream::connect(&local.address).await.unwrap();
    let client = Client::connect_over(stream, "data", &[], farshore_nbd::ClientTimeouts::default())
        .await
        .unwrap();
    assert_eq!(client.size(), SIZES[1] as u64);
    client.disconnect().await;
    local.stop().await;
}

#[tokio::test]
async fn a_damaged_byte_is_an_error_and_the_rest_is_served() {
    let at = fixture();
    at.damage();
    let socket = at.path("nbd.sock");
    let served = served(&at, &["serve", "web", "--socket", socket.to_str().unwrap()])
        .await
        .unwrap();
    let client = Client::connect_unix(&socket, "root", &[]).await.unwrap();
    assert!(client.read(1_048_576, 512).await.is_err());
    assert!(client.read(1_114_112, 512).await.unwrap() == vec![2; 512]);
    client.disconnect().await;
    served.stop().await;
}

#[tokio::test]
async fn it_ends_at_sigterm_and_not_at_a_hang_up() {
    let shutdown = serve::end_at_signals().unwrap();
    let own = rustix::process::getpid();
    for signal in [rustix::process::Signal::HUP, rustix::process::Signal::TERM] {
        assert!(!shutdown.is_cancelled());
        rustix::process::kill_process(own, signal).unwrap();
    }
    timeout(LIMIT, shutdown.cancelled()).await.unwrap();
}
