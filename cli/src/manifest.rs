//! Where declarations come from: a file, every `*.yaml` and `*.yml` of a directory by name, or standard input.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::exit::CliError;

/// The largest manifest that is read: far more than any estate needs, far less than memory.
const LARGEST_MANIFEST_BYTES: u64 = 16 * 1024 * 1024;

/// One file of declarations.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ManifestFile {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Reads everything that `-f` names; never nothing.
pub(crate) fn read(from: &Path) -> Result<Vec<ManifestFile>, CliError> {
    if from == Path::new("-") {
        let text = limited(io::stdin().lock(), from)?;
        return Ok(vec![ManifestFile {
            path: PathBuf::from("standard input"),
            text,
        }]);
    }
    let files = if from.is_dir() {
        files_of(from)?
    } else {
        vec![from.to_owned()]
    };
    if files.is_empty() {
        return Err(CliError::Usage(format!(
            "{} holds no *.yaml or *.yml file",
            from.display()
        )));
    }
    files.into_iter().map(read_file).collect()
}

/// All of them as one manifest.
pub(crate) fn joined(files: &[ManifestFile]) -> String {
    let texts: Vec<&str> = files.iter().map(|file| file.text.trim_end()).collect();
    texts.join("\n---\n")
}

fn read_file(path: PathBuf) -> Result<ManifestFile, CliError> {
    let file = fs::File::open(&path).map_err(|source| CliError::File {
        action: "read",
        path: path.clone(),
        source,
    })?;
    let text = limited(file, &path)?;
    Ok(ManifestFile { path, text })
}

fn limited(reader: impl Read, path: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let read = reader
        .take(LARGEST_MANIFEST_BYTES.saturating_add(1))
        .read_to_string(&mut text);
    let length = read.map_err(|source| CliError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    if u64::try_from(length).unwrap_or(u64::MAX) > LARGEST_MANIFEST_BYTES {
        let message = format!("{}: larger than 16 MiB, which no manifest may be", path.display());
        return Err(CliError::InvalidManifest(message));
    }
    Ok(text)
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>, CliError> {
    let unreadable = |source| CliError::File {
        action: "list",
        path: directory.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml")) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_by_name_and_only_its_yaml() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("b.yml", "b: 1\n"), ("a.yaml", "a: 1\n\n"), ("notes.txt", "no")] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let files = read(directory.path()).unwrap();
        assert_eq!(joined(&files), "a: 1\n---\nb: 1");
    }

    #[test]
    fn a_directory_without_yaml_is_wrong_usage() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap_err().exit_status(), 2);
    }
}
