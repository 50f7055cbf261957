//! Whether what is declared as a seed can be one, before anything relies on it.

use std::path::{Path, PathBuf};

use farshore_blocks::{ByteCount, ByteOffset, Extent};
use farshore_provider::Check;

use super::SeedDisk;
use crate::source::chain as with_causes;

const CODE: &str = "seed-readable";
/// How images begin whose bytes are not where the disk has them.
const FORMATS: [(&[u8], &str); 4] = [
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "VMDK"),
    (b"vhdxfile", "VHDX"),
    (b"conectix", "VHD"),
];
const LONGEST_BEGIN: u64 = 8;

/// Looks at the seed at `path` of a volume of this name and size. What lies below `own` is this replicator's and no seed.
pub(crate) fn check((volume, size): (&str, ByteCount), path: &Path, own: &[PathBuf]) -> Check {
    let disk = match SeedDisk::open(path) {
        Ok(disk) => disk,
        Err(error) => {
            return Check::failed(
                CODE,
                format!("volume `{volume}`: {}", with_causes(&error)),
                "name a raw image or a block device that the target's replicator can read, or leave the seed out",
            );
        }
    };
    let path = path.display();
    if let Some(own) = directory_around(disk.path(), own) {
        return Check::failed(
            CODE,
            format!(
                "volume `{volume}`: {path} is in {}, which the replicator changes as it likes",
                own.display()
            ),
            "name a copy that lies elsewhere",
        );
    }
    let begin = Extent::new(ByteOffset(0), ByteCount(LONGEST_BEGIN.min(disk.size().0)));
    let begin = match begin.map(|begin| disk.read(begin)).transpose() {
        Ok(begin) => begin.unwrap_or_default(),
        Err(error) => {
            return Check::failed(
                CODE,
                format!("volume `{volume}`: {path} cannot be read: {error}"),
                "see that the disk under it is sound, or leave the seed out",
            );
        }
    };
    if let Some((_, format)) = FORMATS.iter().find(|(magic, _)| begin.starts_with(magic)) {
        return Check::failed(
            CODE,
            format!(
                "volume `{volume}`: {path} is a {format} image, whose bytes are not where the disk has them"
            ),
            "convert it: qemu-img convert -O raw",
        );
    }
    Check::passed(
        CODE,
        format!(
            "volume `{volume}` of {size}: {path} has {} of an older copy",
            disk.size()
        ),
    )
}

/// Which of `directories` the file lies in, links followed.
fn directory_around<'a>(path: &Path, directories: &'a [PathBuf]) -> Option<&'a PathBuf> {
    let path = path.canonicalize().ok()?;
    directories.iter().find(|directory| {
        let directory = directory.canonicalize();
        directory.is_ok_and(|directory| path.starts_with(directory))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use farshore_provider::CheckOutcome;

    use super::*;

    const VOLUME: (&str, ByteCount) = ("root", ByteCount(1 << 20));

    #[test]
    fn a_raw_copy_of_any_size_can_be_a_seed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("old.raw");
        for size in [1, 513, 70_000, 2 << 20] {
            fs::write(&path, vec![3; size]).unwrap();
            let found = check(VOLUME, &path, &[]);
            assert_eq!(found.outcome, CheckOutcome::Passed, "{found:?}");
            assert!(found.found.contains("root"), "{found:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_seed_is_refused_with_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let own = directory.path().join("vault");
        fs::create_dir(&own).unwrap();
        let inside = at("vault/segment", &[1; 4096]);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&inside, &link).unwrap();
        for (path, why) in [
            (directory.path().join("none"), "cannot be read"),
            (directory.path().to_owned(), "neither"),
            (PathBuf::from("/dev/zero"), "neither"),
            (at("empty", &[]), "empty"),
            (at("image", b"QFI\xfb and more"), "qcow2"),
            (inside, "vault"),
            (link, "vault"),
        ] {
            let found = check(VOLUME, &path, std::slice::from_ref(&own));
            assert_eq!(found.outcome, CheckOutcome::Failed, "{found:?}");
            assert!(found.found.contains(why), "{found:?}");
            assert!(!found.remedy.is_empty());
        }
    }
}
