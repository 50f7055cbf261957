//! Which file of a vault lies where.

use std::path::{Path, PathBuf};

use farshore_blocks::{ChainId, Sequence};

use crate::{
    format::{SegmentKind, SegmentName},
    journal::Copy,
};

const JOURNAL_SUFFIX: &str = ".journal";
const MIRROR_SUFFIX: &str = ".mirror";
const SEGMENT_SUFFIX: &str = ".segment";
const PACK_SUFFIX: &str = ".pack";
const RUN_SUFFIX: &str = ".run";

/// The paths in one vault's directory.
#[derive(Debug, Clone)]
pub(crate) struct VaultLayout {
    root: PathBuf,
}

/// The paths in one chain's directory.
#[derive(Debug, Clone)]
pub(crate) struct ChainLayout {
    root: PathBuf,
}

impl VaultLayout {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn head(&self) -> PathBuf {
        self.root.join("head")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn journals(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub(crate) fn journal(&self, generation: u64, copy: Copy) -> PathBuf {
        let suffix = match copy {
            Copy::Primary => JOURNAL_SUFFIX,
            Copy::Mirror => MIRROR_SUFFIX,
        };
        self.journals().join(format!("{generation:016}{suffix}"))
    }

    pub(crate) fn chains(&self) -> PathBuf {
        self.root.join("chains")
    }

    pub(crate) fn chain(&self, chain: ChainId) -> ChainLayout {
        ChainLayout {
            root: self.chains().join(chain.to_string()),
        }
    }
}

impl ChainLayout {
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    /// The file of this segment or pack.
    pub(crate) fn segment(&self, name: SegmentName) -> PathBuf {
        let suffix = match name.kind {
            SegmentKind::Ingested => SEGMENT_SUFFIX,
            SegmentKind::Packed => PACK_SUFFIX,
        };
        self.segments().join(format!("{:010}{suffix}", name.number))
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    pub(crate) fn run(&self, number: u64) -> PathBuf {
        self.runs().join(format!("{number:016}{RUN_SUFFIX}"))
    }

    /// Where readers say which points they are reading.
    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }
}

/// The generation in the name of a journal's file or of its mirror.
pub(crate) fn journal_generation(path: &Path) -> Option<u64> {
    number_before(path, JOURNAL_SUFFIX).or_else(|| number_before(path, MIRROR_SUFFIX))
}

/// Which segment or pack a file is, by its name.
pub(crate) fn segment_name(path: &Path) -> Option<SegmentName> {
    let segment = number_before(path, SEGMENT_SUFFIX).map(SegmentName::ingested);
    segment.or_else(|| number_before(path, PACK_SUFFIX).map(SegmentName::packed))
}

/// The number in the name of a run's file.
pub(crate) fn run_number(path: &Path) -> Option<u64> {
    number_before(path, RUN_SUFFIX)
}

/// The point that a lease is on, by the lease's name.
pub(crate) fn leased_sequence(path: &Path) -> Option<Sequence> {
    let (digits, _) = path.file_name()?.to_str()?.split_once('.')?;
    number(digits).map(Sequence)
}

fn number_before<Number: std::str::FromStr>(path: &Path, suffix: &str) -> Option<Number> {
    number(path.file_name()?.to_str()?.strip_suffix(suffix)?)
}

fn number<Number: std::str::FromStr>(digits: &str) -> Option<Number> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_name_again() {
        let layout = VaultLayout::new(Path::new("/v")).chain(ChainId::from_bytes([1; 16]));
        for name in [SegmentName::ingested(7), SegmentName::packed(u32::MAX)] {
            assert_eq!(segment_name(&layout.segment(name)), Some(name));
            assert_eq!(run_number(&layout.segment(name)), None);
        }
        assert_eq!(run_number(&layout.run(u64::MAX)), Some(u64::MAX));
        assert_eq!(segment_name(Path::new("+7.segment")), None);
        let journal = VaultLayout::new(Path::new("/v")).journal(3, Copy::Mirror);
        assert_eq!(journal_generation(&journal), Some(3));
        assert_eq!(leased_sequence(Path::new("12.abc")), Some(Sequence(12)));
    }
}
