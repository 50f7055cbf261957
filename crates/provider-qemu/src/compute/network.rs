//! The network of a recovered VM: a bubble of its own, or taps on a bridge of the site.
//!
//! A bubble is a network namespace that holds a bridge without uplink and without address, and the taps of its VMs.
//! What is missing is found by looking, so that a first run, a repetition and a run after a crash or a reboot (which
//! removes namespaces) are the same.

pub(crate) mod claim;
pub(crate) mod isolation;
pub(crate) mod links;
pub(crate) mod missing;
mod place;

use std::path::{Path, PathBuf};

use farshore_provider::{ComputeError, RecoveryId};

use self::links::{Link, Route};
pub(crate) use self::place::{NIC_LIMIT, Place, Wanted, is_interface_name, tap_prefix};
use super::tool::{self, TOOL_LIMIT, ToolError};

/// The bridge inside each bubble.
pub(crate) const BUBBLE_BRIDGE: &str = "br0";

/// Where iproute2 keeps named namespaces.
const NAMESPACES: &str = "/run/netns";

/// What a mounted namespace says it is (linux/magic.h, `NSFS_MAGIC`).
const NAMESPACE_MAGIC: u64 = 0x6e73_6673;

/// A name that may or may not lead to a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    Absent,
    /// A file that a crash left, with nothing mounted on it.
    Broken,
    Present,
}

/// The `ip` tool, in the service of one VM.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network<'a> {
    pub(crate) ip: &'a Path,
    /// The directory of all VMs.
    pub(crate) root: &'a str,
    pub(crate) id: &'a RecoveryId,
}

/// Where a namespace is reached.
pub(crate) fn namespace_path(namespace: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace)
}

/// What is behind the name.
pub(crate) fn look_at(namespace: &str) -> Namespace {
    match rustix::fs::statfs(namespace_path(namespace)) {
        Ok(found) if u64::try_from(found.f_type) == Ok(NAMESPACE_MAGIC) => Namespace::Present,
        Ok(_) => Namespace::Broken,
        Err(_) => Namespace::Absent,
    }
}

impl Network<'_> {
    /// Refuses a place that is not there and cannot be made, or that is not ours to use. `known` are the taps of all VMs
    /// in the same place.
    pub(crate) async fn verify(&self, place: &Place, known: &[String]) -> Result<(), ComputeError> {
        match place {
            Place::Bubble { namespace } if look_at(namespace) == Namespace::Present => {
                let links = self.links(Some(namespace)).await?;
                self.refuse_hindrance(&links, namespace, known)
            }
            Place::Bubble { .. } => Ok(()),
            Place::Bridge { bridge } => missing::bridge_among(&self.links(None).await?, bridge)
                .map(|_bridge| ())
                .map_err(|why| self.unfit(why.to_string())),
        }
    }

    /// Makes what is missing. A bubble that holds anything but what is `known` is not joined: it belongs to somebody else,
    /// or leads somewhere.
    pub(crate) async fn lay_out(&self, wanted: &Wanted, known: &[String]) -> Result<(), ComputeError> {
        let commands = match &wanted.place {
            Place::Bubble { namespace } => {
                self.make_namespace(namespace).await?;
                let links = self.links(Some(namespace)).await?;
                self.refuse_hindrance(&links, namespace, known)?;
                missing::in_bubble(&links, &claim::bridge_address(self.root), &wanted.taps)
            }
            Place::Bridge { bridge } => {
                let links = self.links(None).await?;
                missing::on_bridge(&links, bridge, &wanted.taps).map_err(|why| self.unfit(why.to_string()))?
            }
        };
        for command in commands {
            self.change(wanted.place.namespace(), &command).await?;
        }
        Ok(())
    }

    /// Whether the bubble is there and ours.
    pub(crate) async fn is_ours(&self, namespace: &str) -> Result<bool, ComputeError> {
        match look_at(namespace) {
            Namespace::Absent => Ok(false),
            Namespace::Broken => Ok(true),
            Namespace::Present => Ok(claim::is_ours(&self.links(Some(namespace)).await?, self.root)),
        }
    }

    /// Removes the VM's taps, wherever in the place they are; nothing if there are none.
    pub(crate) async fn remove_taps(&self, place: &Place, prefix: &str) -> Result<(), ComputeError> {
        let namespace = place.namespace();
        if namespace.is_some_and(|namespace| look_at(namespace) != Namespace::Present) {
            return Ok(());
        }
        for tap in self.taps(namespace, prefix).await? {
            self.change(namespace, &["link", "delete", &tap].map(str::to_owned))
                .await?;
        }
        Ok(())
    }

    /// The taps there whose names begin with `prefix`.
    pub(crate) async fn taps(
        &self,
        namespace: Option<&str>,
        prefix: &str,
    ) -> Result<Vec<String>, ComputeError> {
        let links = self.links(namespace).await?;
        let taps = links.into_iter().filter(|link| link.is_tap());
        Ok(taps
            .map(|link| link.name)
            .filter(|name| name.starts_with(prefix))
            .collect())
    }

    /// Removes a namespace with all that is in it.
    pub(crate) async fn remove_namespace(&self, namespace: &str) -> Result<(), ComputeError> {
        if look_at(namespace) == Namespace::Absent {
            return Ok(());
        }
        self.change(None, &["netns", "delete", namespace].map(str::to_owned))
            .await
    }

    /// Every interface there.
    pub(crate) async fn links(&self, namespace: Option<&str>) -> Result<Vec<Link>, ComputeError> {
        let listing = self.list(namespace, &["-j", "-d", "link", "show"]).await?;
        links::parse_links(&listing).map_err(|error| self.unreadable("interfaces", &error))
    }

    /// Every route there, of both families, in all tables.
    pub(crate) async fn routes(&self, namespace: &str) -> Result<Vec<Route>, ComputeError> {
        let mut routes = Vec::new();
        for family in ["-4", "-6"] {
            let arguments = [family, "-j", "route", "show", "table", "all"];
            let listing = self.list(Some(namespace), &arguments).await?;
            let parsed = links::parse_routes(&listing).map_err(|error| self.unreadable("routes", &error))?;
            routes.extend(parsed);
        }
        Ok(routes)
    }

    /// The processes inside a namespace.
    pub(crate) async fn inhabitants(&self, namespace: &str) -> Result<Vec<u32>, ComputeError> {
        let listing = self.list(None, &["netns", "pids", namespace]).await?;
        let text = String::from_utf8_lossy(&listing);
        Ok(text
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect())
    }

    async fn make_namespace(&self, namespace: &str) -> Result<(), ComputeError> {
        match look_at(namespace) {
            Namespace::Present => return Ok(()),
            Namespace::Broken => self.remove_namespace(namespace).await?,
            Namespace::Absent => {}
        }
        self.change(None, &["netns", "add", namespace].map(str::to_owned))
            .await
    }

    async fn list(&self, namespace: Option<&str>, arguments: &[&str]) -> Result<Vec<u8>, ComputeError> {
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self.run(namespace, &arguments).await.map_err(|error| {
            error.during(
                self.id,
                format!("looking at the network (`ip {}`)", arguments.join(" ")),
            )
        })
    }

    async fn change(&self, namespace: Option<&str>, arguments: &[String]) -> Result<(), ComputeError> {
        self.run(namespace, arguments)
            .await
            .map(|_nothing| ())
            .map_err(|error| {
                error.during(
                    self.id,
                    format!("changing the network (`ip {}`)", arguments.join(" ")),
                )
            })
    }

    async fn run(&self, namespace: Option<&str>, arguments: &[String]) -> Result<Vec<u8>, ToolError> {
        let mut all = Vec::new();
        if let Some(namespace) = namespace {
            all.extend(["-n".to_owned(), namespace.to_owned()]);
        }
        all.extend_from_slice(arguments);
        tool::run(self.ip, &all, TOOL_LIMIT).await
    }

    fn refuse_hindrance(
        &self,
        links: &[Link],
        namespace: &str,
        known: &[String],
    ) -> Result<(), ComputeError> {
        claim::hindrance(links, self.root, known).map_or(Ok(()), |why| {
            Err(self.unfit(format!("namespace {namespace} is in use: {why}")))
        })
    }

    fn unfit(&self, why: String) -> ComputeError {
        ComputeError::Unfit {
            id: self.id.clone(),
            why,
        }
    }

    fn unreadable(&self, what: &str, error: &serde_json::Error) -> ComputeError {
        ComputeError::Tool {
            id: self.id.clone(),
            action: format!("reading the list of {what}"),
            output: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_nowhere_is_absent() {
        assert_eq!(look_at("fs-nobody-ever-made-this"), Namespace::Absent);
    }
}
