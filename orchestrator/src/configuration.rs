//! The orchestrator's configuration file, read and checked once.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// What an orchestrator is told when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrchestratorConfiguration {
    /// Where gRPC is served, to users and to replicators; port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; port 0 takes a free one.
    #[serde(default = "default_http_listen")]
    pub http_listen: SocketAddr,
    /// Where it keeps its state, absolute or relative to where it was started.
    pub state_directory: PathBuf,
    /// Says that traffic beyond this machine may travel unencrypted.
    #[serde(default)]
    pub insecure: bool,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("the configuration {path} cannot be read")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no YAML of this shape.
    #[error("the configuration {path} is refused")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What and where.
        #[source]
        source: serde_yaml::Error,
    },
    /// `stateDirectory` is there, but empty.
    #[error("{path}: `stateDirectory` is empty; it is the directory in which the state is kept")]
    NoStateDirectory {
        /// Which file.
        path: PathBuf,
    },
    /// Both services cannot listen at one address.
    #[error("{path}: `listen` and `httpListen` are both {address}; they need different ports")]
    SameAddress {
        /// Which file.
        path: PathBuf,
        /// The address.
        address: SocketAddr,
    },
    /// Others could read and change what passes.
    #[error(
        "{path}: `{field}` is {address}, which others than this machine can reach, and traffic is not encrypted yet: \
         listen on a loopback address, or say `insecure: true` if the network is trusted"
    )]
    Insecure {
        /// Which file.
        path: PathBuf,
        /// Which of the two.
        field: &'static str,
        /// Its address.
        address: SocketAddr,
    },
}

impl OrchestratorConfiguration {
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

    /// Reads and checks a text that came from `path`.
    ///
    /// # Errors
    /// When it has unknown fields or wrong types, or its values do not fit together.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigurationError> {
        let configuration: Self =
            serde_yaml::from_str(text).map_err(|source| ConfigurationError::Malformed {
                path: path.to_owned(),
                source,
            })?;
        configuration.checked(path)
    }

    fn checked(self, path: &Path) -> Result<Self, ConfigurationError> {
        if self.state_directory.as_os_str().is_empty() {
            return Err(ConfigurationError::NoStateDirectory {
                path: path.to_owned(),
            });
        }
        if self.listen == self.http_listen && self.listen.port() != 0 {
            return Err(ConfigurationError::SameAddress {
                path: path.to_owned(),
                address: self.listen,
            });
        }
        let addresses = [("listen", self.listen), ("httpListen", self.http_listen)];
        let beyond = addresses
            .into_iter()
            .find(|(_, address)| !address.ip().to_canonical().is_loopback());
        match beyond {
            Some((field, address)) if !self.insecure => Err(ConfigurationError::Insecure {
                path: path.to_owned(),
                field,
                address,
            }),
            Some(_) | None => Ok(self),
        }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7100))
}

fn default_http_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7180))
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    /// The configuration, or the error with its cause, as a person is shown it.
    fn read(text: &str) -> Result<OrchestratorConfiguration, String> {
        OrchestratorConfiguration::parse(Path::new("o.yaml"), text).map_err(|error| {
            error
                .source()
                .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
        })
    }

    #[test]
    fn a_configuration_is_what_its_file_says() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("o.yaml");
        let text = "listen: 127.0.0.1:0\nhttpListen: '[::1]:9'\nstateDirectory: /var/lib/farshore\n";
        std::fs::write(&path, text).unwrap();
        let expected = OrchestratorConfiguration {
            listen: "127.0.0.1:0".parse().unwrap(),
            http_listen: "[::1]:9".parse().unwrap(),
            state_directory: "/var/lib/farshore".into(),
            insecure: false,
        };
        assert_eq!(OrchestratorConfiguration::load(&path).unwrap(), expected);
        let smallest = read("stateDirectory: s").unwrap();
        assert_eq!(smallest.listen.to_string(), "127.0.0.1:7100");
        assert_eq!(smallest.http_listen.to_string(), "127.0.0.1:7180");
    }

    #[test]
    fn addresses_that_others_can_reach_need_the_word_insecure() {
        for (field, address) in [
            ("listen", "0.0.0.0:7100"),
            ("listen", "[::]:0"),
            ("httpListen", "10.0.0.1:7180"),
            ("httpListen", "[::ffff:10.0.0.1]:7180"),
        ] {
            let text = format!("stateDirectory: s\n{field}: '{address}'\n");
            assert_eq!(
                read(&text).unwrap_err(),
                format!(
                    "o.yaml: `{field}` is {address}, which others than this machine can reach, and traffic is not \
                     encrypted yet: listen on a loopback address, or say `insecure: true` if the network is trusted"
                )
            );
            assert!(read(&format!("{text}insecure: true\n")).is_ok());
        }
        assert!(read("stateDirectory: s\nlisten: '[::ffff:127.0.0.1]:1'\n").is_ok());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let refused = "the configuration o.yaml is refused";
        for (text, expected) in [
            (
                "stateDirectory: s\nlisten: localhost:7100\n",
                format!("{refused}: listen: invalid socket address syntax at line 2 column 9"),
            ),
            (
                "stateDirectory: s\nhttplisten: 127.0.0.1:1\n",
                format!(
                    "{refused}: unknown field `httplisten`, expected one of `listen`, `httpListen`, `stateDirectory`, \
                     `insecure` at line 2 column 1"
                ),
            ),
            (
                "listen: 127.0.0.1:1\n",
                format!("{refused}: missing field `stateDirectory`"),
            ),
            (
                "stateDirectory: s\ninsecure: yes\n",
                format!(
                    "{refused}: insecure: invalid type: string \"yes\", expected a boolean at line 2 column 11"
                ),
            ),
            (
                "stateDirectory: ''\n",
                "o.yaml: `stateDirectory` is empty; it is the directory in which the state is kept"
                    .to_owned(),
            ),
            (
                "stateDirectory: s\nlisten: 127.0.0.1:1\nhttpListen: 127.0.0.1:1\n",
                "o.yaml: `listen` and `httpListen` are both 127.0.0.1:1; they need different ports"
                    .to_owned(),
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = OrchestratorConfiguration::load(Path::new("/nowhere/o.yaml")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the configuration /nowhere/o.yaml cannot be read"
        );
    }

    #[test]
    fn the_documented_configuration_is_accepted() {
        let document = include_str!("../../docs/configuration.md");
        let block = document.split("```yaml\n# orchestrator\n").nth(1).unwrap();
        read(block.split("```").next().unwrap()).unwrap();
    }
}
