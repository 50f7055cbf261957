//! What the peer says: a greeting, an answer or an event; fields that are not known are passed over.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// The hypervisor's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Version {
    /// Like 7 in 7.2.22.
    pub major: u32,
    /// Like 2 in 7.2.22.
    pub minor: u32,
    /// Like 22 in 7.2.22.
    pub micro: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// Something that happened at the hypervisor without having been asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Like `BLOCK_EXPORT_DELETED`.
    pub name: String,
    /// Its fields; null if it has none.
    pub data: Value,
}

/// The first line of a connection.
#[derive(Debug, Deserialize)]
pub(crate) struct Greeting {
    #[serde(rename = "QMP")]
    pub(crate) qmp: GreetingBody,
}

#[derive(Debug, Deserialize)]
pub(crate) struct GreetingBody {
    pub(crate) version: GreetingVersion,
}

#[derive(Debug, Deserialize)]
pub(crate) struct GreetingVersion {
    pub(crate) qemu: Version,
}

/// Why a command was refused, in the peer's words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Refusal {
    #[serde(default)]
    pub(crate) class: String,
    #[serde(default)]
    pub(crate) desc: String,
}

/// An answer: what the command returned, or why it was refused.
pub(crate) type Answer = Result<Value, Refusal>;

/// A line after the greeting.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    Answer {
        id: u64,
        answer: Answer,
    },
    Event(Event),
    /// Nothing that concerns anyone here: an answer without our kind of identifier, an empty line.
    Other,
}

#[derive(Deserialize)]
struct Raw {
    id: Option<Value>,
    #[serde(rename = "return", default, deserialize_with = "present")]
    returned: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
}

/// A field that is there, even as null, is not the same as one that is missing.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// Whether this is an answer or an event, whoever it is for.
pub(crate) fn is_of_a_session(line: &[u8]) -> bool {
    serde_json::from_slice::<Raw>(line)
        .is_ok_and(|raw| raw.event.is_some() || raw.error.is_some() || raw.returned.is_some())
}

impl Message {
    pub(crate) fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::Other);
        }
        let raw: Raw = serde_json::from_slice(line)?;
        if let Some(name) = raw.event {
            return Ok(Self::Event(Event { name, data: raw.data }));
        }
        let answer = match (raw.error, raw.returned) {
            (Some(refusal), _) => Err(refusal),
            (None, Some(value)) => Ok(value),
            (None, None) => return Ok(Self::Other),
        };
        let id = raw.id.as_ref().and_then(Value::as_u64);
        Ok(id.map_or(Self::Other, |id| Self::Answer { id, answer }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Message {
        Message::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn answers_and_events_are_told_apart_and_unknown_fields_passed_over() {
        let refusal = Refusal {
            class: "GenericError".into(),
            desc: "no".into(),
        };
        for (text, expected) in [
            (
                r#"{"return":{"a":1},"id":7,"new":[]}"#,
                Message::Answer {
                    id: 7,
                    answer: Ok(json!({"a": 1})),
                },
            ),
            (
                r#"{"return":null,"id":7}"#,
                Message::Answer {
                    id: 7,
                    answer: Ok(Value::Null),
                },
            ),
            (
                r#"{"id":8,"error":{"class":"GenericError","desc":"no","more":1}}"#,
                Message::Answer {
                    id: 8,
                    answer: Err(refusal),
                },
            ),
            (
                r#"{"timestamp":{"seconds":1},"event":"STOP"}"#,
                Message::Event(Event {
                    name: "STOP".into(),
                    data: Value::Null,
                }),
            ),
            (r#"{"error":{"class":"x","desc":"y"}}"#, Message::Other),
            (r#"{"return":{},"id":"text"}"#, Message::Other),
            ("{}", Message::Other),
            (" \r", Message::Other),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_object_is_an_error() {
        for text in ["{", "hello", "[1]", "\u{0}"] {
            assert!(Message::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
