//! Real guests, booted from their exported disks inside a bubble.

use std::{
    env,
    fs::File,
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use farshore_blocks::ByteCount;
use farshore_guest::{
    image::{GuestImage, ImageRequest, WorkloadExecutable},
    probe::{Exchange, exchange},
    status::Status,
};
use farshore_provider::{
    Compute, DiskBus, NetworkAttachment, RecoveryDisk, RecoveryId, RecoveryRequest, VmCondition,
};

use crate::site::{Site, machine, output};

/// Boots are emulated, two at a time, on a host that may have other things to do.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// Takes part in the guests' network for the time of a question, at the address that the guests take for their gateway.
const OUR_ADDRESS: &str = "10.77.0.254";

fn workload() -> WorkloadExecutable {
    let test = env::current_exe().unwrap();
    let build = test.parent().and_then(Path::parent).unwrap();
    let path = build.join("examples/guest_workload");
    assert!(
        path.is_file(),
        "{} is missing: build the examples",
        path.display()
    );
    WorkloadExecutable {
        path,
        leading_arguments: Vec::new(),
    }
}

/// A guest's two disks, exported, and the request to run it.
fn guest(site: &mut Site, name: &str, address: &str) -> RecoveryRequest {
    let image = ImageRequest {
        address: Some(format!("{address}/24").parse().unwrap()),
        gateway: Some(OUR_ADDRESS.parse().unwrap()),
        ..ImageRequest::small(site.root.path(), name, workload())
    };
    let disks = GuestImage::build(&image).unwrap();
    let root = site.root.path().join(format!("{name}-root.raw"));
    let (from, to) = (disks.root.to_str().unwrap(), root.to_str().unwrap());
    output("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", from, to]);
    let disks: Vec<_> = [("root", root), ("data", disks.data)]
        .into_iter()
        .map(|(disk, image)| exported(site, name, disk, image))
        .collect();
    let mut machine = machine(&[
        (&disks[0].name, DiskBus::VirtioBlk),
        (&disks[1].name, DiskBus::VirtioBlk),
    ]);
    machine.memory = ByteCount(160 << 20);
    RecoveryRequest {
        id: RecoveryId::new(name).unwrap(),
        machine,
        disks,
        network: NetworkAttachment::Bubble {
            name: RecoveryId::new(&site.tag).unwrap(),
        },
    }
}

fn exported(site: &mut Site, name: &str, disk: &str, image: PathBuf) -> RecoveryDisk {
    let size = File::open(&image).unwrap().metadata().unwrap().len();
    site.export_image(&format!("{name}-{disk}"), image, size)
}

/// Asks a guest over HTTP, from inside the bubble; the body of its answer.
fn ask(site: &Site, address: &str, path: &str) -> Option<String> {
    let net = format!("--net=/run/netns/{}", site.namespace());
    let mut client = Command::new("nsenter")
        .args([&net, "busybox", "nc", "-w", "15", address, "80"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut request = client.stdin.take().unwrap();
    // A guest that is not up yet refuses.
    drop(request.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()));
    let mut answer = String::new();
    client.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    drop(request);
    client.wait().unwrap();
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

fn status(site: &Site, address: &str) -> Option<Status> {
    serde_json::from_str(&ask(site, address, "/status")?).ok()
}

fn probe(site: &Site, from: &str, to: &str) -> Exchange {
    let answer = ask(site, from, &format!("/probe?to={to}")).unwrap();
    serde_json::from_str(&answer).unwrap()
}

fn wait_until_writing(site: &Site, address: &str) -> Status {
    let deadline = Instant::now() + BOOT_LIMIT;
    loop {
        match status(site, address) {
            Some(status) if status.last_b >= 20 && status.last_ext4 >= 1 => return status,
            other => assert!(Instant::now() < deadline, "the guest at {address} is {other:?}"),
        }
    }
}

/// A server outside of the bubble, on all addresses of this host, that answers everyone; and its port.
fn serve_outside() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream.unwrap().write_all(b"HTTP/1.0 200 OK\r\n\r\noutside"));
        }
    });
    port
}

/// The addresses of this host outside of the bubble.
fn addresses_outside() -> Vec<String> {
    let listing = output("ip", &["-4", "-o", "addr"]);
    let addresses = listing
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3)?.split('/').next());
    addresses
        .filter(|address| *address != "127.0.0.1")
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_guests_run_reach_each_other_and_nothing_else_and_leave_their_points_unchanged() {
    let mut site = Site::new();
    let (web, data) = ("10.77.0.1", "10.77.0.2");
    let requests = [guest(&mut site, "web-1", web), guest(&mut site, "db-1", data)];
    let digest = |site: &Site| {
        let images = site.exports.iter().map(|export| export.image.to_str().unwrap());
        output("b2sum", &images.collect::<Vec<_>>())
    };
    let before = digest(&site);
    for request in &requests {
        site.compute.prepare(request).await.unwrap();
        site.compute.start(&request.id).await.unwrap();
    }
    let address = format!("{OUR_ADDRESS}/24");
    output(
        "ip",
        &["-n", &site.namespace(), "addr", "add", &address, "dev", "br0"],
    );

    for guest in [web, data] {
        let status = wait_until_writing(&site, guest);
        assert!(status.boot_verdict.is_clean(), "{status:?}");
        assert_eq!(status.io_errors, 0);
    }
    for (from, to) in [(web, data), (data, web)] {
        let reached = probe(&site, from, &format!("{to}:80"));
        assert!(reached.received > 0, "{from} does not reach {to}: {reached:?}");
    }
    let port = serve_outside();
    for outside in addresses_outside() {
        let to = format!("{outside}:{port}");
        let control = exchange(to.parse().unwrap(), "/status", Duration::from_secs(5));
        assert_eq!(
            control.text, "outside",
            "the server outside does answer those outside"
        );
        let reached = probe(&site, web, &to);
        assert_eq!(reached.received, 0, "{web} reaches {to}: {reached:?}");
    }
    let proof = site.compute.prove_isolation(&requests[0].id).await.unwrap();
    assert_eq!(proof.ways_out, [""; 0]);

    let console = std::fs::read_to_string(site.compute.console(&requests[0].id)).unwrap();
    assert!(console.contains("GUEST-UP"), "{console}");
    for request in &requests {
        assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    }
    assert_eq!(digest(&site), before, "a point was written to");
    site.assert_nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_outlives_a_restart_of_its_points_server_without_an_error() {
    let mut site = Site::new();
    let address = "10.77.0.1";
    let request = guest(&mut site, "web-1", address);
    site.compute.prepare(&request).await.unwrap();
    site.compute.start(&request.id).await.unwrap();
    let ours = format!("{OUR_ADDRESS}/24");
    output(
        "ip",
        &["-n", &site.namespace(), "addr", "add", &ours, "dev", "br0"],
    );
    let first = wait_until_writing(&site, address);
    for export in &mut site.exports {
        export.fall_silent();
        export.serve();
    }
    site.succeed();
    let deadline = Instant::now() + BOOT_LIMIT;
    loop {
        let now = status(&site, address).expect("the guest answers");
        assert_eq!(now.io_errors, 0);
        if now.last_b > first.last_b + 100 && now.last_ext4 > first.last_ext4 {
            break;
        }
        assert!(Instant::now() < deadline, "the guest writes no more: {now:?}");
    }
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "waits for longer than a minute, until QEMU gives a server up"]
async fn a_guest_whose_points_server_stays_away_is_suspended_and_goes_on_without_an_error() {
    let mut site = Site::new();
    let address = "10.77.0.1";
    let request = guest(&mut site, "web-1", address);
    site.compute.prepare(&request).await.unwrap();
    site.compute.start(&request.id).await.unwrap();
    // It has hardly begun to boot: it needs the point.
    for export in &mut site.exports {
        export.fall_silent();
    }
    let deadline = Instant::now() + BOOT_LIMIT;
    while site.compute.probe(&request.id).await.unwrap() != VmCondition::Suspended {
        assert!(Instant::now() < deadline, "it was never suspended");
    }
    for export in &mut site.exports {
        export.serve();
    }
    site.compute.start(&request.id).await.unwrap();
    let ours = format!("{OUR_ADDRESS}/24");
    output(
        "ip",
        &["-n", &site.namespace(), "addr", "add", &ours, "dev", "br0"],
    );
    let status = wait_until_writing(&site, address);
    assert!(status.boot_verdict.is_clean(), "{status:?}");
    assert_eq!(status.io_errors, 0);
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}
