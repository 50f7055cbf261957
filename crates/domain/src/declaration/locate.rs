//! Finds the line and column of a value in a text by reading it again and stopping with an error just there:
//! the YAML library tells positions only with its errors.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{manifest::Position, path::Path, problems::Place};

/// Where `path` is, in the document with this number (from 1).
pub(super) fn locate(text: &str, document: usize, path: &Path, place: Place) -> Option<Position> {
    let document = serde_yaml::Deserializer::from_str(text).nth(document.checked_sub(1)?)?;
    let seek = Seek {
        steps: path.steps(),
        place,
    };
    let stopped = seek.deserialize(document).err()?;
    Position::of(&stopped)
}

#[derive(Clone, Copy)]
struct Seek<'a> {
    steps: &'a [usize],
    place: Place,
}

impl<'a> Seek<'a> {
    fn next(self) -> Option<(usize, Self)> {
        let (first, rest) = self.steps.split_first()?;
        Some((*first, Self { steps: rest, ..self }))
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Every visit that is not overridden fails, which is what marks the place.
impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the place that was looked for")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let (skip, rest) = self.next().ok_or_else(|| A::Error::custom("here"))?;
        for _ in 0..skip {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(rest)?;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let (skip, rest) = self.next().ok_or_else(|| A::Error::custom("here"))?;
        for _ in 0..skip {
            entries.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        if rest.steps.is_empty() && self.place == Place::Key {
            entries.next_key_seed(rest)?;
        } else if entries.next_key::<IgnoredAny>()?.is_some() {
            entries.next_value_seed(rest)?;
        }
        Ok(())
    }
}
