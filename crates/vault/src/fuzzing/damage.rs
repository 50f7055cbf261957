//! Damage as bytes say it: the same bytes do the same damage, so that a fuzzer can search through them and a failure
//! can be kept as a few of them.
//!
//! A script is a row of operations of 8 bytes: what is done (1), how long (1), where (4), with what (2).

use crate::format::fields::Fields;

/// Numbers at which bounds are.
const EXTREMES: [u64; 14] = [
    0,
    1,
    2,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    u64::MAX,
    u64::MAX - 1,
    1 << 63,
    4096,
    16_385,
    65_535,
    65_536,
    65_537,
];

/// One operation.
#[derive(Debug, Clone, Copy)]
struct Operation {
    what: u8,
    length: u8,
    place: u32,
    with: u16,
}

/// `good` after what the script does to it; some of that puts bytes of `donor` in.
#[must_use]
pub fn damaged(good: &[u8], donor: &[u8], script: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    let mut rest = Fields::new(script);
    while let Ok(operation) = operation(&mut rest) {
        operation.apply(&mut bytes, donor);
    }
    bytes
}

fn operation(script: &mut Fields<'_>) -> Result<Operation, crate::FormatError> {
    Ok(Operation {
        what: script.u8()?,
        length: script.u8()?,
        place: script.u32()?,
        with: script.u16()?,
    })
}

impl Operation {
    fn apply(self, bytes: &mut Vec<u8>, donor: &[u8]) {
        let at = self.place_in(bytes);
        let end = at.saturating_add(self.span()).min(bytes.len());
        match self.what % 9 {
            0 => {
                let bit = 1u8 << (self.with % 8);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= bit);
            }
            1 => bytes.truncate(at),
            2 => {
                let [byte, _] = self.with.to_le_bytes();
                bytes.get_mut(at).into_iter().for_each(|into| *into = byte);
            }
            3 => self.number(bytes, at, |_| {
                let index = usize::from(self.with).checked_rem(EXTREMES.len());
                index.and_then(|index| EXTREMES.get(index)).copied().unwrap_or(0)
            }),
            4 => self.number(bytes, at, |number| {
                let distance = u64::from(self.with >> 8).saturating_add(1);
                if self.with.is_multiple_of(2) {
                    number.wrapping_add(distance)
                } else {
                    number.wrapping_sub(distance)
                }
            }),
            5 => {
                for (into, byte) in bytes.iter_mut().skip(at).zip(self.donated(donor, at)) {
                    *into = *byte;
                }
            }
            6 => drop(bytes.splice(at..at, self.donated(donor, at).iter().copied())),
            7 => drop(bytes.drain(at.min(end)..end)),
            _ => bytes.get_mut(at..end).into_iter().for_each(|range| range.fill(0)),
        }
    }

    /// Where in the bytes: anywhere, or at one of those that are not zero, of which there may be few.
    fn place_in(self, bytes: &[u8]) -> usize {
        let place = usize::try_from(self.place >> 1).unwrap_or(0);
        if self.place.is_multiple_of(2) {
            return place.checked_rem(bytes.len().saturating_add(1)).unwrap_or(0);
        }
        let count = bytes.iter().filter(|byte| **byte != 0).count();
        let chosen = place.checked_rem(count).unwrap_or(0);
        let mut marked = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0);
        marked.nth(chosen).map_or(0, |(at, _)| at)
    }

    fn span(self) -> usize {
        1 << (self.length % 14)
    }

    /// Bytes of the donor, from the same place on or from another.
    fn donated(self, donor: &[u8], at: usize) -> &[u8] {
        let from = if self.with.is_multiple_of(2) {
            at
        } else {
            usize::from(self.with)
                .saturating_mul(8)
                .checked_rem(donor.len().max(1))
                .unwrap_or(0)
        };
        let rest = donor.get(from..).unwrap_or_default();
        rest.get(..self.span()).unwrap_or(rest)
    }

    /// Changes the little-endian number of 1, 2, 4 or 8 bytes at `at`.
    fn number(self, bytes: &mut [u8], at: usize, change: impl FnOnce(u64) -> u64) {
        let width = 1usize << (self.length % 4);
        let Some(place) = bytes.get_mut(at..at.saturating_add(width)) else {
            return;
        };
        let mut number = [0; 8];
        for (into, byte) in number.iter_mut().zip(place.iter()) {
            *into = *byte;
        }
        let changed = change(u64::from_le_bytes(number)).to_le_bytes();
        for (into, byte) in place.iter_mut().zip(changed) {
            *into = byte;
        }
    }
}
