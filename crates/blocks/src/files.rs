//! Replacing a small file so that after a crash it holds either the old content or the new, never a mixture.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Writes `content` to a temporary file beside `path`, syncs it, renames it over `path` and syncs the directory.
///
/// Crash story: before the rename the old file stands and a `*.new` file may lie beside it, which the next
/// replacement overwrites; after it the new file stands.
///
/// # Errors
/// Any failure of the file system; `path` then still holds its old content.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_file_by(path, |_| Ok(content.to_vec()))
}

/// As [`replace_file`], with content that may depend on the very file that will hold it.
///
/// # Errors
/// Any failure of the file system or of `content`; `path` then still holds its old content.
pub fn replace_file_by(path: &Path, content: impl FnOnce(&File) -> io::Result<Vec<u8>>) -> io::Result<()> {
    let fresh = temporary_name(path);
    let mut file = File::create(&fresh)?;
    file.write_all(&content(&file)?)?;
    file.sync_all()?;
    rename(&fresh, path)?;
    sync_directory_of(path)
}

/// Makes creations, renames and removals beside `path` durable.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[expect(clippy::disallowed_methods, reason = "this is the home of rename")]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_created_and_then_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        for content in ["one", "two, which is longer", ""] {
            replace_file(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
