//! A disk in memory with data, allocated zeroes and holes.

use std::io;
use std::ops::Range;

use farshore_nbd::{Export, ExportExtent, ExtentState};

pub(crate) const UNIT: usize = 64 * 1024;

/// Each unit of 64 KiB has one state.
pub(crate) struct Disk {
    pub(crate) content: Vec<u8>,
    states: Vec<ExtentState>,
}

impl Disk {
    /// `picture` has a letter for each unit: `D`ata, `z`eroes, `.` hole.
    pub(crate) fn drawn(picture: &str) -> Self {
        let mut content = Vec::new();
        let mut states = Vec::new();
        for (index, letter) in picture.chars().enumerate() {
            states.push(match letter {
                'D' => ExtentState::Data,
                'z' => ExtentState::Zero,
                '.' => ExtentState::Hole,
                other => panic!("no state is drawn as {other}"),
            });
            content.extend_from_slice(&if letter == 'D' {
                noise(index)
            } else {
                vec![0; UNIT]
            });
        }
        Self { content, states }
    }

    fn range(&self, offset: u64, length: usize) -> io::Result<Range<usize>> {
        let start = usize::try_from(offset).unwrap();
        let end = start + length;
        if end > self.content.len() {
            return Err(io::Error::other("the server asked beyond the end"));
        }
        Ok(start..end)
    }
}

impl Export for Disk {
    fn size(&self) -> u64 {
        self.content.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = self.range(offset, buffer.len())?;
        buffer.copy_from_slice(&self.content[range]);
        Ok(())
    }

    fn extents(&self, offset: u64, length: u64) -> io::Result<Vec<ExportExtent>> {
        let range = self.range(offset, usize::try_from(length).unwrap())?;
        let mut extents = Vec::new();
        let mut position = range.start;
        while position < range.end {
            let end = ((position / UNIT + 1) * UNIT).min(range.end);
            extents.push(ExportExtent {
                length: (end - position) as u64,
                state: self.states[position / UNIT],
            });
            position = end;
        }
        Ok(extents)
    }
}

/// Bytes without a zero, different in each unit.
pub(crate) fn noise(seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8 | 1
    };
    std::iter::repeat_with(next).take(UNIT).collect()
}
