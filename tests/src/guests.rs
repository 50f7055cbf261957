//! Guests of a lab, started as an operator would start them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use farshore_guest::{
    image::{GuestAgent, GuestImage, ImageRequest, WorkloadExecutable},
    machine::{Network, SourceVm, SourceVmRequest, Tap},
    network::Ipv4Network,
    probe::{Exchange, exchange},
    status::Status,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::daemon::binary;

/// Under emulation, with other VMs booting beside it.
pub const BOOT: Duration = Duration::from_secs(90);
const HTTP: Duration = Duration::from_secs(10);

/// A guest to start.
#[derive(Debug, Clone)]
pub struct GuestOrder {
    /// Its name.
    pub name: String,
    /// The last number of its address, and of its MAC.
    pub number: u8,
    /// Incompressible bytes on its data disk.
    pub ballast_bytes: u64,
    /// Records a second.
    pub records_per_second: u32,
    /// Whether it has QEMU's agent.
    pub agent: GuestAgent,
}

impl GuestOrder {
    /// A small guest.
    #[must_use]
    pub fn small(name: &str, number: u8) -> Self {
        Self {
            name: name.to_owned(),
            number,
            ballast_bytes: 0,
            records_per_second: 200,
            agent: GuestAgent::Absent,
        }
    }

    /// The socket of its agent's channel, if it has an agent and its disks are in `directory`.
    #[must_use]
    pub fn agent_channel(&self, directory: &Path) -> Option<PathBuf> {
        let channel = directory.join(format!("{}.agent", self.name));
        (self.agent == GuestAgent::Installed).then_some(channel)
    }

    /// The address in the production network.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        format!("10.77.0.{}:80", self.number).parse().unwrap()
    }

    /// Its network card's address.
    #[must_use]
    pub fn mac(&self) -> String {
        format!("52:54:00:77:00:{:02x}", self.number)
    }

    /// Builds its disks in `directory` and starts it on the production bridge of `namespace`.
    ///
    /// # Panics
    /// When it does not boot.
    #[must_use]
    pub fn start(&self, directory: &Path, namespace: &str) -> SourceVm {
        let workload = WorkloadExecutable {
            path: binary(),
            leading_arguments: vec!["guest-workload".into()],
        };
        let mut image = ImageRequest::small(directory, &self.name, workload);
        image.address = Some(
            format!("10.77.0.{}/24", self.number)
                .parse::<Ipv4Network>()
                .unwrap(),
        );
        image.ballast_bytes = self.ballast_bytes;
        image.data_bytes = image.data_bytes.max(256 * 1024 * 1024 + self.ballast_bytes * 2);
        image.root_bytes = 512 * 1024 * 1024;
        image.records_per_second = self.records_per_second;
        image.agent = self.agent;
        let disks = GuestImage::build(&image).unwrap();
        let mut request = SourceVmRequest::small(directory, &self.name, &disks);
        request.network = Network::Tap(Tap {
            interface: format!("v{}", self.number),
            bridge: "prod0".to_owned(),
            namespace: Some(namespace.to_owned()),
            mac_address: self.mac(),
        });
        if let Some(channel) = self.agent_channel(directory) {
            let socket = format!("socket,id=agent,path={},server=on,wait=off", channel.display());
            let port = "virtserialport,bus=ports.0,chardev=agent,name=org.qemu.guest_agent.0";
            request.extra_arguments = ["-chardev", &socket, "-device", port].map(str::to_owned).to_vec();
        }
        let vm = SourceVm::start(request).unwrap();
        let verdict = vm.wait_for_boot(BOOT).unwrap();
        assert!(verdict.is_clean(), "{verdict:?}");
        vm
    }
}

/// An HTTP exchange with a guest, from inside `namespace`.
#[must_use]
pub fn exchange_from(namespace: &str, guest: SocketAddr, path: &str) -> Exchange {
    let namespace = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    let path = path.to_owned();
    // A thread of its own changes its namespace, and ends with it.
    std::thread::spawn(move || {
        use std::os::fd::AsFd;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        exchange(guest, &path, HTTP)
    })
    .join()
    .unwrap()
}

/// What a guest says of itself, asked from inside `namespace`; `None` while it does not answer.
#[must_use]
pub fn status_from(namespace: &str, guest: SocketAddr) -> Option<Status> {
    serde_json::from_str(&exchange_from(namespace, guest, "/status").text).ok()
}

/// Whether the guest, asked from inside `namespace`, gets an answer from `to`.
#[must_use]
pub fn reaches(namespace: &str, guest: SocketAddr, to: SocketAddr) -> bool {
    let answer = exchange_from(namespace, guest, &format!("/probe?to={to}"));
    let probed: Exchange = serde_json::from_str(&answer.text)
        .unwrap_or_else(|error| panic!("{guest} did not say whether it reaches {to}: {error}: {answer:?}"));
    probed.received > 0
}
