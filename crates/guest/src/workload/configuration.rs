//! The guest's configuration, a file on its root disk that the shell of the first process reads too.

use std::{fs, io, net::Ipv4Addr, path::Path, path::PathBuf};

use crate::network::Ipv4Network;

/// Who the guest is and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Its name.
    pub hostname: String,
    /// The address of `eth0`, if it has one.
    pub address: Option<Ipv4Network>,
    /// Its default route.
    pub gateway: Option<Ipv4Addr>,
    /// Drawn at each build of an image; every record carries it.
    pub guest: u64,
    /// The pace of the records in the regions; 0 writes none.
    pub records_per_second: u32,
    /// The pace of the records in the journal; 0 writes none.
    pub journal_records_per_second: u32,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A setting is absent or is not what it should be.
    #[error("the guest's configuration lacks a usable {name}")]
    Setting {
        /// The setting.
        name: &'static str,
    },
}

impl Configuration {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigurationError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigurationError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// One `NAME=value` a line; no value needs quotes.
    pub(crate) fn to_text(&self) -> String {
        let text = |value: Option<String>| value.unwrap_or_default();
        format!(
            "HOSTNAME={}\nADDRESS={}\nGATEWAY={}\nGUEST={}\nRECORDS_PER_SECOND={}\nJOURNAL_RECORDS_PER_SECOND={}\n",
            self.hostname,
            text(self.address.map(|address| address.to_string())),
            text(self.gateway.map(|gateway| gateway.to_string())),
            self.guest,
            self.records_per_second,
            self.journal_records_per_second,
        )
    }

    fn parse(text: &str) -> Result<Self, ConfigurationError> {
        let value = |name: &'static str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find_map(|(found, value)| (found == name).then_some(value))
                .ok_or(ConfigurationError::Setting { name })
        };
        let optional = |name| value(name).map(|text| Some(text).filter(|text| !text.is_empty()));
        Ok(Self {
            hostname: value("HOSTNAME")?.to_owned(),
            address: optional("ADDRESS")?
                .map(|text| parsed("ADDRESS", text))
                .transpose()?,
            gateway: optional("GATEWAY")?
                .map(|text| parsed("GATEWAY", text))
                .transpose()?,
            guest: parsed("GUEST", value("GUEST")?)?,
            records_per_second: parsed("RECORDS_PER_SECOND", value("RECORDS_PER_SECOND")?)?,
            journal_records_per_second: parsed(
                "JOURNAL_RECORDS_PER_SECOND",
                value("JOURNAL_RECORDS_PER_SECOND")?,
            )?,
        })
    }
}

fn parsed<T: std::str::FromStr>(name: &'static str, text: &str) -> Result<T, ConfigurationError> {
    text.parse().map_err(|_| ConfigurationError::Setting { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration() -> Configuration {
        Configuration {
            hostname: "web-1".into(),
            address: Some("10.1.2.3/24".parse().unwrap()),
            gateway: None,
            guest: u64::MAX,
            records_per_second: 200,
            journal_records_per_second: 0,
        }
    }

    #[test]
    fn a_configuration_reads_back_as_it_was_written() {
        assert_eq!(
            Configuration::parse(&configuration().to_text()).unwrap(),
            configuration()
        );
    }

    #[test]
    fn a_setting_that_is_absent_or_wrong_is_named() {
        let text = configuration().to_text();
        let error = Configuration::parse(&text.replace("GUEST=", "GUEST=x")).unwrap_err();
        assert!(error.to_string().contains("GUEST"), "{error}");
        let error = Configuration::parse(&text.replace("HOSTNAME=web-1\n", "")).unwrap_err();
        assert!(error.to_string().contains("HOSTNAME"), "{error}");
    }
}
