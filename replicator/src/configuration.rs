//! The replicator's configuration file, read and checked once.

mod upkeep;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use farshore_provider_qemu::AcceleratorChoice;
use serde::Deserialize;

pub use upkeep::{BytesPerSecond, VaultUpkeep};

/// What a replicator is told when it starts. Paths are absolute or relative to where it was started.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplicatorConfiguration {
    /// Its name, unique in the fleet.
    pub name: String,
    /// The site that it serves.
    pub site: String,
    /// Where it keeps its assignments.
    pub state_directory: PathBuf,
    /// The orchestrator's gRPC endpoint, like `http://127.0.0.1:7100`.
    pub orchestrator: String,
    /// Where it listens for replicators of other sites: for sources, and for targets that dial. Left out, nobody can dial it.
    #[serde(default)]
    pub replication_listen: Option<SocketAddr>,
    /// What they dial to reach it, like `http://10.0.0.2:7201`; by default the listening address.
    #[serde(default)]
    pub advertise: Option<String>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub http_listen: SocketAddr,
    /// Its vault: with it, it can be a target.
    #[serde(default)]
    pub vault_directory: Option<PathBuf>,
    /// What the upkeep of the vault may take of the disk's time; every part of it may be left out.
    #[serde(default)]
    pub vault_upkeep: Option<VaultUpkeep>,
    /// Where captures keep what the guest overwrites meanwhile: with it, it can be a source.
    #[serde(default)]
    pub scratch_directory: Option<PathBuf>,
    /// Where it listens for the other replicators of its site, whose VMs are in consistency groups with VMs of its own.
    #[serde(default)]
    pub site_listen: Option<SocketAddr>,
    /// What they dial to reach it, like `http://10.0.0.1:7301`; by default the listening address.
    #[serde(default)]
    pub site_advertise: Option<String>,
    /// Where recovered VMs keep their overlays: with a vault, it can recover.
    #[serde(default)]
    pub recovery_directory: Option<PathBuf>,
    /// What executes recovered VMs.
    #[serde(default)]
    pub accelerator: AcceleratorChoice,
    /// Says that traffic beyond loopback may travel unencrypted.
    #[serde(default)]
    pub insecure: bool,
}

/// Where unencrypted traffic may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plaintext {
    /// Only where it stays on this machine.
    LoopbackOnly,
    /// Anywhere: the operator said so.
    Anywhere,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("configuration {path} cannot be read")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no YAML of this shape.
    #[error("configuration {path} is refused")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_yaml::Error,
    },
    /// Its values do not fit together.
    #[error("configuration {path} is refused: {why}")]
    Unfit {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what would be accepted.
        why: String,
    },
}

impl ReplicatorConfiguration {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, has unknown fields or wrong types, or its values do not fit together.
    pub fn load(path: &Path) -> Result<Self, ConfigurationError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigurationError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Where unencrypted traffic may go.
    pub(crate) fn plaintext(&self) -> Plaintext {
        if self.insecure {
            Plaintext::Anywhere
        } else {
            Plaintext::LoopbackOnly
        }
    }

    /// Where nobody but this replicator writes.
    pub(crate) fn own_directories(&self) -> Vec<PathBuf> {
        let optional = [
            &self.vault_directory,
            &self.scratch_directory,
            &self.recovery_directory,
        ];
        let optional = optional.into_iter().flatten();
        optional.chain([&self.state_directory]).cloned().collect()
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigurationError> {
        let configuration: Self =
            serde_yaml::from_str(text).map_err(|source| ConfigurationError::Malformed {
                path: path.to_owned(),
                source,
            })?;
        configuration.check().map_err(|why| ConfigurationError::Unfit {
            path: path.to_owned(),
            why,
        })?;
        Ok(configuration)
    }

    fn check(&self) -> Result<(), String> {
        if self.advertise.is_some() && self.replication_listen.is_none() {
            return Err("advertise needs a replicationListen, which is what is advertised".to_owned());
        }
        if self.vault_directory.is_none() && self.scratch_directory.is_none() {
            return Err(
                "neither vaultDirectory nor scratchDirectory is given: it could be neither target \
                        nor source"
                    .to_owned(),
            );
        }
        if self.recovery_directory.is_some() && self.vault_directory.is_none() {
            return Err("recoveryDirectory needs a vaultDirectory to recover from".to_owned());
        }
        if self.vault_upkeep.is_some() && self.vault_directory.is_none() {
            return Err("vaultUpkeep needs a vaultDirectory to keep up".to_owned());
        }
        if self.site_listen.is_some() && self.scratch_directory.is_none() {
            return Err(
                "siteListen needs a scratchDirectory: only sources are in consistency groups".to_owned(),
            );
        }
        if self.site_advertise.is_some() && self.site_listen.is_none() {
            return Err("siteAdvertise needs a siteListen that is reached by it".to_owned());
        }
        if let Some(plain) = self.first_plain_address().filter(|_| !self.insecure) {
            return Err(format!(
                "`{plain}` is beyond loopback and traffic is not encrypted: say `insecure: true` if that is \
                 what you want"
            ));
        }
        Ok(())
    }

    fn first_plain_address(&self) -> Option<String> {
        let listens = [self.replication_listen, self.site_listen, Some(self.http_listen)];
        let beyond = listens
            .into_iter()
            .flatten()
            .find(|address| !address.ip().is_loopback());
        let dialled = [
            Some(&self.orchestrator),
            self.advertise.as_ref(),
            self.site_advertise.as_ref(),
        ];
        beyond.map(|address| address.to_string()).or_else(|| {
            dialled
                .into_iter()
                .flatten()
                .find(|endpoint| !is_loopback(endpoint))
                .cloned()
        })
    }
}

/// Whether traffic to `endpoint` (a URL) stays on this machine; a name other than `localhost` does not count.
pub(crate) fn is_loopback(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<tonic::transport::Uri>() else {
        return false;
    };
    uri.host().is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str =
        "name: east-1\nsite: east\nstateDirectory: /s\nhttpListen: 127.0.0.1:0\nscratchDirectory: /x\n";

    fn refusal(text: &str) -> String {
        let error = ReplicatorConfiguration::parse(Path::new("c.yaml"), text).unwrap_err();
        format!(
            "{error}: {}",
            std::error::Error::source(&error).map_or(String::new(), ToString::to_string)
        )
    }

    #[test]
    fn plaintext_beyond_loopback_needs_the_word_insecure() {
        let text = format!("{SOURCE}orchestrator: http://10.0.0.1:7100\n");
        assert!(refusal(&text).contains("insecure: true"));
        assert!(ReplicatorConfiguration::parse(Path::new("c"), &format!("{text}insecure: true\n")).is_ok());
        assert!(
            refusal(&format!("{SOURCE}orchestrator: http://example.org:1\n")).contains("beyond loopback")
        );
        let local = format!("{SOURCE}orchestrator: http://[::1]:7100\n");
        assert!(ReplicatorConfiguration::parse(Path::new("c"), &local).is_ok());
    }

    #[test]
    fn what_goes_with_something_else_is_refused_without_it() {
        let text = format!("{SOURCE}orchestrator: http://127.0.0.1:1\nadvertise: http://127.0.0.1:1\n");
        assert!(refusal(&text).contains("advertise needs"));
        let text = format!("{SOURCE}orchestrator: http://127.0.0.1:1\nvaultUpkeep: {{scrubRate: 8MiB}}\n");
        assert!(refusal(&text).contains("vaultUpkeep needs"));
    }

    #[test]
    fn only_a_source_meets_the_others_of_its_site() {
        let text = format!("{SOURCE}orchestrator: http://127.0.0.1:1\n");
        let with = |more: &str| refusal(&format!("{text}{more}"));
        assert!(with("siteListen: 10.0.0.1:7301\n").contains("beyond loopback"));
        assert!(with("siteAdvertise: http://127.0.0.1:1\n").contains("needs a siteListen"));
        assert!(
            with("siteListen: 127.0.0.1:0\nsiteAdvertise: http://10.0.0.1:7301\n")
                .contains("beyond loopback")
        );
        let target = text.replace(
            "scratchDirectory: /x",
            "vaultDirectory: /v\nreplicationListen: 127.0.0.1:0",
        );
        assert!(refusal(&format!("{target}siteListen: 127.0.0.1:0\n")).contains("only sources"));
    }

    #[test]
    fn an_unknown_field_is_named_with_its_line() {
        let shown = refusal(&format!("{SOURCE}orchestrator: http://127.0.0.1:1\nvault: /v\n"));
        assert!(
            shown.contains("unknown field `vault`") && shown.contains("line 7"),
            "{shown}"
        );
    }

    #[test]
    fn the_documented_configurations_are_accepted() {
        let document = include_str!("../../docs/configuration.md");
        let blocks: Vec<_> = document.split("```yaml\n# replicator\n").skip(1).collect();
        assert_eq!(blocks.len(), 3);
        for block in blocks {
            let text = block.split("```").next().unwrap();
            ReplicatorConfiguration::parse(Path::new("docs/configuration.md"), text).unwrap();
        }
    }
}
