//! Where everything of one demo is: its directory, its network namespaces, its addresses. Pure, but for choosing names
//! that nobody uses yet.
//!
//! ```text
//!  host ── fsd-ID ─┐
//!                  │ wan bridge, in namespace fsd-ID-wan (10.231.N.0/24; host .1, east .2, west .3)
//!      ┌───────────┴───────────┐
//!  fsd-ID-east             fsd-ID-west
//!  prod0 192.168.77.1/24   prod0 192.168.77.1/24   the same production network at both sites
//!   ├ shop-db  .11          └ where recovered VMs are plugged in
//!   └ shop-web .12
//! ```

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use uuid::Uuid;

use super::{network, preflight};
use crate::exit::CliError;

/// What the directory's name begins with; the identifier follows.
const DIRECTORY_PREFIX: &str = "farshore-demo-";
/// The first two numbers of the wide area network.
const WAN: [u8; 2] = [10, 231];
/// The production network, at both sites.
const PRODUCTION: [u8; 3] = [192, 168, 77];
/// How many names are tried before there is none.
const ATTEMPTS: u32 = 64;
/// A recovered VM's sockets must fit 107 bytes; this leaves room for what is put below the directory.
const LONGEST_DIRECTORY_BYTES: usize = 50;

/// One of the two sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    /// Where the VMs run.
    East,
    /// The far shore.
    West,
}

impl Site {
    /// Both.
    pub(super) const BOTH: [Self; 2] = [Self::East, Self::West];

    /// Its name in the declarations.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::East => "east",
            Self::West => "west",
        }
    }

    fn wan_host(self) -> u8 {
        match self {
            Self::East => 2,
            Self::West => 3,
        }
    }
}

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    id: String,
    directory: PathBuf,
    wan_number: u8,
}

impl Layout {
    /// A fresh one, whose directory is made.
    pub(super) fn new(parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(default_parent, Path::to_owned);
        let parent = fs::canonicalize(&parent).with_context(|| format!("cannot use {}", parent.display()))?;
        preflight::check_room(&parent)?;
        let used = network::used_networks()?;
        for _ in 0..ATTEMPTS {
            let [first, second, wan_number, ..] = *Uuid::new_v4().as_bytes();
            let id = format!("{first:02x}{second:02x}");
            let layout = Self {
                directory: parent.join(format!("{DIRECTORY_PREFIX}{id}")),
                id,
                wan_number,
            };
            if used.contains(&layout.wan_network()) || network::any_exists(&layout.namespaces()) {
                continue;
            }
            if layout.directory.as_os_str().len() > LONGEST_DIRECTORY_BYTES {
                bail!(
                    "{} is too long a path for the sockets below it; choose a shorter --dir",
                    parent.display()
                );
            }
            match fs::create_dir(&layout.directory) {
                Ok(()) => return Ok(layout),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return super::on_file(Err(error), "create", &layout.directory),
            }
        }
        bail!("no free name for the demo was found; remove earlier ones with `farshore demo --stop DIR`")
    }

    /// The one that an earlier demo had.
    pub(super) fn of_directory(directory: &Path) -> Result<Self, CliError> {
        let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
        let name = directory.file_name().and_then(|name| name.to_str());
        let id = name.and_then(|name| name.strip_prefix(DIRECTORY_PREFIX));
        let id = id.filter(|id| id.len() == 4 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let id = id.map(str::to_owned).ok_or_else(|| {
            let given = directory.display();
            CliError::Usage(format!(
                "{given} is no demo's directory; one like /tmp/{DIRECTORY_PREFIX}3f2a is accepted"
            ))
        })?;
        Ok(Self {
            id,
            directory,
            wan_number: 0,
        })
    }

    /// Where all its files are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A directory of one of its parts.
    pub(super) fn part_directory(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the guests' disks, monitors and witnesses are.
    pub(super) fn vms_directory(&self) -> PathBuf {
        self.directory.join("vms")
    }

    /// The vault at west.
    pub(super) fn vault(&self) -> PathBuf {
        self.directory.join("vault")
    }

    /// Where a site's replicator has its directories.
    pub(super) fn replicator(&self, site: Site) -> PathBuf {
        self.directory.join(format!("{}-1", site.name()))
    }

    /// Where west's replicator keeps recovered VMs.
    pub(super) fn recovery(&self) -> PathBuf {
        self.replicator(Site::West).join("recovery")
    }

    /// One directory a recovered VM, named after it.
    pub(super) fn recovered_vms(&self) -> PathBuf {
        self.recovery().join("vms")
    }

    /// Where the log of a part goes.
    pub(super) fn log(&self, part: &str) -> PathBuf {
        self.directory.join(format!("{part}.log"))
    }

    /// The network namespace of a site.
    pub(super) fn namespace(&self, site: Site) -> String {
        format!("fsd-{}-{}", self.id, site.name())
    }

    /// The network namespace that holds the wide area network's bridge.
    pub(super) fn wan_namespace(&self) -> String {
        format!("fsd-{}-wan", self.id)
    }

    /// All of them.
    pub(super) fn namespaces(&self) -> [String; 3] {
        [
            self.namespace(Site::East),
            self.namespace(Site::West),
            self.wan_namespace(),
        ]
    }

    /// The host's own interface on the wide area network.
    pub(super) fn host_interface(&self) -> String {
        format!("fsd-{}", self.id)
    }

    /// The first three numbers of the wide area network.
    pub(super) fn wan_network(&self) -> [u8; 3] {
        [WAN[0], WAN[1], self.wan_number]
    }

    /// The host on the wide area network.
    pub(super) fn host_address(&self) -> Ipv4Addr {
        self.wan_address(1)
    }

    /// A site on the wide area network.
    pub(super) fn site_address(&self, site: Site) -> Ipv4Addr {
        self.wan_address(site.wan_host())
    }

    fn wan_address(&self, host: u8) -> Ipv4Addr {
        let [first, second, third] = self.wan_network();
        Ipv4Addr::new(first, second, third, host)
    }

    /// The orchestrator's API, at west.
    pub(super) fn orchestrator(&self) -> SocketAddr {
        SocketAddr::from((self.site_address(Site::West), 7100))
    }

    /// The orchestrator's metrics.
    pub(super) fn orchestrator_http(&self) -> SocketAddr {
        SocketAddr::from((self.site_address(Site::West), 7180))
    }

    /// Where west's replicator takes what east sends.
    pub(super) fn replication(&self) -> SocketAddr {
        SocketAddr::from((self.site_address(Site::West), 7201))
    }

    /// A replicator's metrics.
    pub(super) fn replicator_http(&self, site: Site) -> SocketAddr {
        SocketAddr::from((self.site_address(site), 7281))
    }
}

/// A directory for large files that come and go; `/tmp` may be in memory, where disks are none.
fn default_parent() -> PathBuf {
    let large = Path::new("/var/tmp");
    if large.is_dir() {
        large.to_owned()
    } else {
        env::temp_dir()
    }
}

/// An address in the production network; `host` 1 is the site itself.
pub(super) fn production_address(host: u8) -> Ipv4Addr {
    let [first, second, third] = PRODUCTION;
    Ipv4Addr::new(first, second, third, host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_fits_the_kernel_and_carries_the_identifier() {
        let layout = Layout::of_directory(Path::new("/tmp/farshore-demo-3f2a")).unwrap();
        assert_eq!(layout.host_interface(), "fsd-3f2a");
        assert_eq!(
            layout.namespaces(),
            ["fsd-3f2a-east", "fsd-3f2a-west", "fsd-3f2a-wan"]
        );
        assert!(layout.host_interface().len() <= 15);
    }

    #[test]
    fn only_a_demos_directory_is_ever_stopped() {
        for path in [
            "/",
            "/tmp",
            "/tmp/farshore-demo-",
            "/tmp/farshore-demo-3f2a/west",
            "/tmp/farshore-demo-zzzz",
        ] {
            assert!(Layout::of_directory(Path::new(path)).is_err(), "{path}");
        }
    }
}
