//! Texts of a checked form: names, identifiers, addresses and paths. Each exists only if it was found good.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How much of a refused text is repeated in the error.
const SHOWN_CHARACTERS: usize = 60;

/// A text that is not of the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not {expected}", shortened(text))]
pub struct TextRefused {
    /// As it was given.
    pub text: String,
    /// What would be accepted.
    pub expected: String,
    /// What may have been meant.
    pub suggestion: Option<String>,
}

impl TextRefused {
    pub(super) fn new(text: &str, expected: impl Into<String>, suggestion: Option<String>) -> Self {
        Self {
            text: text.to_owned(),
            expected: expected.into(),
            suggestion,
        }
    }
}

fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown.escape_debug().to_string()
}

/// Defines a text that its `check` found good, perhaps in another spelling.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $check:path, $suggest:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = TextRefused;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $check(text).map(Self).ok_or_else(|| {
                    let suggestion = $suggest(text).filter(|suggested| $check(suggested).is_some());
                    TextRefused::new(text, $expected, suggestion)
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, out)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

checked_text! {
    /// A name: an RFC 1123 label.
    Name,
    "a name: at most 63 lower-case letters, digits and hyphens, with a letter or a digit at both ends",
    check_name,
    suggest_name
}
checked_text! {
    /// The identifier of a device in the hypervisor, as QEMU takes them.
    DeviceIdentifier,
    "a device's identifier: a letter, then letters, digits, `-`, `.` and `_`, at most 64 in all",
    check_identifier,
    suggest_nothing
}
checked_text! {
    /// The hypervisor's name of a machine type, like `pc` or `pc-q35-7.2`.
    MachineType,
    "a machine type like `pc` or `q35`",
    check_identifier,
    suggest_nothing
}
checked_text! {
    /// The name of a network bridge of the host.
    BridgeName,
    "the name of a bridge: 1 to 15 letters, digits, `-`, `.` and `_`",
    check_bridge,
    suggest_nothing
}
checked_text! {
    /// A UUID, in lower case.
    MachineUuid,
    "a UUID like `6f1c2b9e-0d4c-4d8e-9a57-3b1f0c6e2a11`",
    check_uuid,
    suggest_nothing
}
checked_text! {
    /// The MAC address of one network card, in lower case.
    MacAddress,
    "the MAC address of one network card, like `52:54:00:00:00:01`",
    check_mac_address,
    suggest_mac_address
}
checked_text! {
    /// The absolute path of a VM's monitor socket.
    MonitorPath,
    "the absolute path of a socket, at most 107 bytes, without control characters",
    check_monitor_path,
    suggest_nothing
}
checked_text! {
    /// The absolute path of a disk: a raw image or a block device.
    DiskPath,
    "the absolute path of a raw image or a block device, without control characters",
    check_disk_path,
    suggest_nothing
}

fn check_name(text: &str) -> Option<String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    good.then(|| text.to_owned())
}

fn suggest_name(text: &str) -> Option<String> {
    let likely = text.trim().to_lowercase().replace(['_', ' ', '.'], "-");
    Some(likely.trim_matches('-').to_owned())
}

fn check_identifier(text: &str) -> Option<String> {
    let good = text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(is_identifier_byte);
    good.then(|| text.to_owned())
}

fn check_bridge(text: &str) -> Option<String> {
    let good = (1..=15).contains(&text.len())
        && text.bytes().all(is_identifier_byte)
        && !text.starts_with(['.', '-']);
    good.then(|| text.to_owned())
}

fn is_identifier_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

fn check_uuid(text: &str) -> Option<String> {
    let groups: Vec<_> = text.split('-').collect();
    let lengths: Vec<_> = groups.iter().map(|group| group.len()).collect();
    let good = lengths == [8, 4, 4, 4, 12]
        && groups
            .iter()
            .all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
    good.then(|| text.to_ascii_lowercase())
}

fn check_mac_address(text: &str) -> Option<String> {
    let pairs: Vec<_> = text.split(':').collect();
    let pair_is_good = |pair: &&str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    if pairs.len() != 6 || !pairs.iter().all(pair_is_good) {
        return None;
    }
    let first = u8::from_str_radix(pairs.first()?, 16).ok()?;
    let is_group = first & 1 == 1;
    let is_zero = text.bytes().all(|byte| matches!(byte, b'0' | b':'));
    (!is_group && !is_zero).then(|| text.to_ascii_lowercase())
}

fn suggest_mac_address(text: &str) -> Option<String> {
    Some(text.trim().replace('-', ":").to_ascii_lowercase())
}

fn check_monitor_path(text: &str) -> Option<String> {
    let good = text.starts_with('/')
        && !text.ends_with('/')
        && text.len() <= 107
        && !text.chars().any(char::is_control);
    good.then(|| text.to_owned())
}

fn check_disk_path(text: &str) -> Option<String> {
    let good = text.starts_with('/')
        && !text.ends_with('/')
        && text.len() <= 4096
        && !text.chars().any(char::is_control);
    good.then(|| text.to_owned())
}

fn suggest_nothing(_: &str) -> Option<String> {
    None
}
