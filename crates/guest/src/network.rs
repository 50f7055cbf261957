//! The guest's address, as it is ordered and as it is written into the image.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// An address and the length of its network's prefix, as `10.1.2.3/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Network {
    /// The host's own address.
    pub address: Ipv4Addr,
    /// The length of the prefix, 0 to 32.
    pub prefix_length: u8,
}

/// A text is not an address with a prefix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not an IPv4 address with a prefix; 10.1.2.3/24 would be accepted")]
pub struct ParseNetworkError {
    text: String,
}

impl FromStr for Ipv4Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let prefix_length = prefix.parse().ok().filter(|length| *length <= 32)?;
            Some(Self {
                address: address.parse().ok()?,
                prefix_length,
            })
        });
        parsed.ok_or_else(|| ParseNetworkError {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Ipv4Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_its_prefix() {
        let network: Ipv4Network = "10.1.2.3/24".parse().unwrap();
        assert_eq!(network.to_string(), "10.1.2.3/24");
        for text in ["10.1.2.3", "10.1.2/24", "10.1.2.3/33", "10.1.2.3/24; reboot", ""] {
            assert!(text.parse::<Ipv4Network>().is_err(), "{text}");
        }
    }
}
