//! Which file of a vault lies where.

use std::path::{Path, PathBuf};

use farshore_blocks::{ChainId, Sequence};

const SEGMENT_SUFFIX: &str = ".segment";
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

    pub(crate) fn description(&self) -> PathBuf {
        self.root.join("description")
    }

    pub(crate) fn epoch(&self) -> PathBuf {
        self.root.join("epoch")
    }

    pub(crate) fn open(&self) -> PathBuf {
        self.root.join("open")
    }

    pub(crate) fn points(&self) -> PathBuf {
        self.root.join("points.log")
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.segments().join(format!("{number:016}{SEGMENT_SUFFIX}"))
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    pub(crate) fn run(&self, sequence: Sequence) -> PathBuf {
        self.runs().join(format!("{:016}{RUN_SUFFIX}", sequence.0))
    }
}

/// The number in the name of a segment's file.
pub(crate) fn segment_number(path: &Path) -> Option<u64> {
    number_before(path, SEGMENT_SUFFIX)
}

/// The sequence in the name of a run's file.
pub(crate) fn run_sequence(path: &Path) -> Option<Sequence> {
    number_before(path, RUN_SUFFIX).map(Sequence)
}

fn number_before(path: &Path, suffix: &str) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(suffix)?;
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
        assert_eq!(segment_number(&layout.segment(7)), Some(7));
        assert_eq!(segment_number(&layout.segment(u64::MAX)), Some(u64::MAX));
        assert_eq!(run_sequence(&layout.run(Sequence(9))), Some(Sequence(9)));
        assert_eq!(segment_number(&layout.run(Sequence(9))), None);
        assert_eq!(segment_number(Path::new("+7.segment")), None);
    }
}
