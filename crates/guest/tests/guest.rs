//! Real guests: built, booted, cut off, judged, and booted again.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must fail"
)]

use std::{
    env,
    fs::{File, OpenOptions},
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    os::unix::{fs::FileExt, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use farshore_guest::{
    disk_layout::{REGION_A, REGION_B},
    image::{GuestDisks, GuestImage, ImageRequest, WorkloadExecutable},
    judge::{Judgement, judge},
    machine::{CacheMode, DiskThreads, MachineType, Network, SourceVm, SourceVmRequest, Tap},
    probe::{Exchange, exchange},
    record::{RECORD_LENGTH, Stream},
    region::RegionScan,
    status::Status,
    witness::{Acknowledged, Testimony},
};

const BOOT: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(20);

/// Ends the machine when a test fails.
struct Machine(SourceVm);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill9(END);
    }
}

/// The example of this package, which cargo builds beside the tests.
fn workload() -> WorkloadExecutable {
    let test = env::current_exe().unwrap();
    let build = test.parent().and_then(Path::parent).unwrap();
    let path = build.join("examples/workload");
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

fn build(directory: &Path) -> GuestDisks {
    GuestImage::build(&ImageRequest::small(directory, "web-1", workload())).unwrap()
}

fn written(count: u64) -> impl Fn(&Testimony) -> Option<Acknowledged> {
    move |testimony| {
        let told = testimony.acknowledged;
        (told.region_b >= count && told.journal >= 3).then_some(told)
    }
}

fn judge_disks(directory: &Path, disks: &GuestDisks, acknowledged: Acknowledged) -> Judgement {
    let root: PathBuf = directory.join("root-copy.raw");
    let converted = Command::new("qemu-img")
        // The locks of a QEMU that was just killed may outlive it by a moment.
        .args(["convert", "-U", "-f", "qcow2", "-O", "raw"])
        .args([&disks.root, &root])
        .status()
        .unwrap();
    assert!(converted.success());
    let a = RegionScan::read(&File::open(&disks.data).unwrap(), REGION_A, Stream::RegionA).unwrap();
    let b = RegionScan::read(&File::open(root).unwrap(), REGION_B, Stream::RegionB).unwrap();
    judge(&a, &b, acknowledged)
}

#[test]
fn a_guest_that_is_cut_off_lost_nothing_and_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let disks = build(directory.path());
    let request = SourceVmRequest::small(directory.path(), "web-1", &disks);

    let first = Machine(SourceVm::start(request.clone()).unwrap());
    let verdict = first.0.wait_for_boot(BOOT).unwrap();
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(
        (verdict.region_a_last, verdict.region_b_last, verdict.ext4_last),
        (0, 0, 0)
    );
    first.0.wait_for(END, written(300)).unwrap();
    first.0.kill9(END).unwrap();
    assert!(!first.0.is_running());

    let told = first.0.testimony().unwrap();
    assert_eq!(told.errors, Vec::<String>::new());
    let judgement = judge_disks(directory.path(), &disks, told.acknowledged);
    assert!(judgement.lost_nothing(), "{}", judgement.describe());
    assert!(judgement.region_b.last >= 300);

    let second = Machine(SourceVm::start(request).unwrap());
    let verdict = second.0.wait_for_boot(BOOT).unwrap();
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(verdict.region_a_last, judgement.region_a.last);
    assert_eq!(verdict.region_b_last, judgement.region_b.last);
    assert!(verdict.ext4_last >= told.acknowledged.journal, "{verdict:?}");
    let more = written(judgement.region_b.last + 100);
    second.0.wait_for(END, more).unwrap();
    second.0.quit(END).unwrap();
    let told = second.0.testimony().unwrap();
    let judgement = judge_disks(directory.path(), &disks, told.acknowledged);
    assert!(judgement.lost_nothing(), "{}", judgement.describe());
}

#[test]
fn a_guest_that_finds_its_disks_damaged_says_so_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let disks = build(directory.path());
    let mut request = SourceVmRequest::small(directory.path(), "web-1", &disks);
    // The other forms of a machine, so that they are seen to work too.
    request.machine_type = MachineType::Q35;
    request.cache = CacheMode::Writeback;
    request.disk_threads = DiskThreads::IoThreads;
    request.processors = 2;

    let first = Machine(SourceVm::start(request.clone()).unwrap());
    first.0.wait_for(BOOT, written(20)).unwrap();
    first.0.quit(END).unwrap();
    let told = first.0.testimony().unwrap().acknowledged;
    let data = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&disks.data)
        .unwrap();
    let damaged_byte = REGION_A.offset + 7 * RECORD_LENGTH + 1234;
    data.write_all_at(&[0xff, 0xfe], damaged_byte).unwrap();
    let before = judge_disks(directory.path(), &disks, told);
    assert_eq!(
        (before.region_a.torn, before.region_a.first_fault.unwrap().slot),
        (1, 7)
    );

    let second = Machine(SourceVm::start(request).unwrap());
    let verdict = second.0.wait_for_boot(BOOT).unwrap();
    assert!(!verdict.is_clean());
    assert_eq!((verdict.torn, verdict.gaps, verdict.ext4_clean), (1, 0, true));
    let journal_goes_on =
        |testimony: &Testimony| (testimony.acknowledged.journal >= verdict.ext4_last + 3).then_some(());
    second.0.wait_for(END, journal_goes_on).unwrap();
    second.0.quit(END).unwrap();
    let testimony = second.0.testimony().unwrap();
    assert!(
        !testimony.errors.is_empty(),
        "the damage was not told as an error"
    );
    let after = judge_disks(directory.path(), &disks, told);
    assert_eq!(after, before);
}

/// A free port of this host; another process may take it, and then QEMU refuses to start.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn status(exchange: &Exchange) -> Status {
    serde_json::from_str(&exchange.text).unwrap_or_else(|error| panic!("{error}: {exchange:?}"))
}

#[test]
fn a_guest_answers_and_ends_in_order_when_its_power_button_is_pressed() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = ImageRequest::small(directory.path(), "web-1", workload());
    image.address = Some("10.9.8.7/24".parse().unwrap());
    image.gateway = Some("10.9.8.2".parse().unwrap());
    image.data_bytes = 256 << 20;
    image.ballast_bytes = 40 << 20;
    let disks = GuestImage::build(&image).unwrap();
    let mut request = SourceVmRequest::small(directory.path(), "web-1", &disks);
    let port = free_port();
    request.extra_arguments = vec![
        "-netdev".into(),
        format!("user,id=net0,net=10.9.8.0/24,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.9.8.7:80"),
        "-device".into(),
        "virtio-net-pci,netdev=net0".into(),
    ];
    let monitor = request.monitors[1].clone();
    let machine = Machine(SourceVm::start(request).unwrap());
    machine.0.wait_for(BOOT, written(50)).unwrap();

    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let answer = status(&exchange(address, "/status", END));
    assert_eq!((answer.hostname.as_str(), answer.io_errors), ("web-1", 0));
    assert!(
        answer.last_b >= 50 && answer.boot_verdict.is_clean(),
        "{answer:?}"
    );
    let itself = exchange(address, "/probe?to=10.9.8.7:80", END);
    let probed: Exchange = serde_json::from_str(&itself.text).unwrap();
    assert!(
        probed.received > 0 && status(&probed).hostname == "web-1",
        "{probed:?}"
    );
    let nobody = exchange(address, "/probe?to=10.9.8.99:80", END);
    let probed: Exchange = serde_json::from_str(&nobody.text).unwrap();
    assert_eq!((probed.connected, probed.received), (false, 0), "{probed:?}");
    assert!(exchange(address, "/else", END).text.contains("understood"));

    press_power_button(&monitor);
    machine.0.wait_for_end(END).unwrap();
    let told = machine.0.testimony().unwrap();
    assert!(judge_disks(directory.path(), &disks, told.acknowledged).lost_nothing());
}

fn press_power_button(monitor: &Path) {
    let mut stream = UnixStream::connect(monitor).unwrap();
    stream.set_read_timeout(Some(END)).unwrap();
    let mut said = Vec::new();
    for command in ["qmp_capabilities", "system_powerdown"] {
        writeln!(stream, "{{\"execute\":\"{command}\"}}").unwrap();
    }
    let mut piece = [0; 1024];
    let deadline = Instant::now() + END;
    while !String::from_utf8_lossy(&said).contains("POWERDOWN") {
        assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&said));
        let count = stream.read(&mut piece).unwrap();
        said.extend_from_slice(&piece[..count]);
    }
}

#[test]
fn a_build_leaves_nothing_but_the_disks_and_refuses_what_cannot_fit() {
    let directory = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let disks = build(directory.path());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let entries = directory.path().read_dir().unwrap().count();
    assert_eq!(entries, 2, "something is left over beside {disks:?}");
    let mut small = ImageRequest::small(directory.path(), "web-2", workload());
    small.root_bytes = 66 << 20;
    let refused = GuestImage::build(&small).unwrap_err();
    assert!(refused.to_string().contains("order at least"), "{refused}");
}

/// A network namespace of a test's own, with a bridge that has an address and no uplink.
struct Namespace(String);

impl Namespace {
    fn create() -> Self {
        let namespace = Self(format!("guest-test-{}", std::process::id()));
        ip(&["netns", "add", &namespace.0]);
        namespace.ip(&["link", "add", "br0", "type", "bridge"]);
        namespace.ip(&["addr", "add", "10.77.0.1/24", "dev", "br0"]);
        namespace.ip(&["link", "set", "br0", "up"]);
        namespace
    }

    fn ip(&self, arguments: &[&str]) {
        ip(&[&["-netns", &self.0], arguments].concat());
    }

    /// What a guest at `address` answers to someone inside.
    fn ask(&self, address: &str) -> String {
        let script =
            format!("exec 3<>/dev/tcp/{address}/80; printf 'GET /status HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
        let command = ["netns", "exec", &self.0, "timeout", "10", "bash", "-c", &script];
        let output = Command::new("ip").args(command).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn interfaces(&self) -> String {
        let output = Command::new("ip")
            .args(["-netns", &self.0, "-brief", "link"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

#[test]
fn a_guest_in_a_namespace_answers_on_its_bridge_and_its_tap_goes_with_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: network namespaces need root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let namespace = Namespace::create();
    let mut image = ImageRequest::small(directory.path(), "web-1", workload());
    image.address = Some("10.77.0.7/24".parse().unwrap());
    image.records_per_second = 0;
    let disks = GuestImage::build(&image).unwrap();
    let mut request = SourceVmRequest::small(directory.path(), "web-1", &disks);
    request.network = Network::Tap(Tap {
        interface: "tap-web".into(),
        bridge: "br0".into(),
        namespace: Some(namespace.0.clone()),
        mac_address: "52:54:00:77:00:07".into(),
    });
    let machine = Machine(SourceVm::start(request).unwrap());
    machine.0.wait_for_boot(BOOT).unwrap();
    assert!(namespace.interfaces().contains("tap-web"));

    let deadline = Instant::now() + END;
    let mut answer = namespace.ask("10.77.0.7");
    while !answer.contains("\"hostname\":\"web-1\"") {
        assert!(Instant::now() < deadline, "{answer}");
        answer = namespace.ask("10.77.0.7");
    }
    assert!(answer.contains("\"last_a\":0"), "an idle guest wrote: {answer}");
    machine.0.kill9(END).unwrap();
    assert!(!namespace.interfaces().contains("tap-web"));
}
