//! Puts a dynamic executable of the host into the guest's tree, with everything that the loader will ask for.

use std::{fs, path::Path};

use super::{ImageError, OnFile, make_directory};
use crate::host_tool::{HostTool, shared_libraries};

/// Copies `program` to `inside` (absolute in the guest) and its libraries to where the host has them.
pub(super) fn install(program: &Path, tree: &Path, inside: &str) -> Result<(), ImageError> {
    for library in shared_libraries(program)? {
        copy(&library, tree, &library)?;
    }
    copy(program, tree, Path::new(inside))
}

/// Like [`install`], without symbols where the host can strip them: a build for debugging is ten times as large.
pub(super) fn install_stripped(program: &Path, tree: &Path, inside: &str) -> Result<(), ImageError> {
    install(program, tree, inside)?;
    if let Ok(mut strip) = HostTool::Strip.command() {
        HostTool::Strip.run(strip.arg(tree.join(inside.trim_start_matches('/'))))?;
    }
    Ok(())
}

fn copy(from: &Path, tree: &Path, inside: &Path) -> Result<(), ImageError> {
    let to = tree.join(inside.strip_prefix("/").unwrap_or(inside));
    to.parent().map_or(Ok(()), make_directory)?;
    fs::copy(from, &to).on_file("copy", from)?;
    Ok(())
}
