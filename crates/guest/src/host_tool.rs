//! The programs of the host that build and run the guest: where they are, and what to install if they are missing.

use std::{
    env,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Where system programs lie that an ordinary user's `PATH` may lack.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// A program of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the program of its name")]
pub enum HostTool {
    Busybox,
    E2fsck,
    Ip,
    Ldd,
    Mcopy,
    MkfsVfat,
    Mke2fs,
    Nsenter,
    QemuGa,
    QemuImg,
    QemuSystem,
    Strip,
    Syslinux,
    Xz,
    Zstd,
}

/// A program is missing or failed.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("`{program}` is missing: install the Debian package `{debian_package}`")]
    Missing {
        /// The program.
        program: &'static str,
        /// What brings it.
        debian_package: &'static str,
    },
    /// It could not be started, or its output not be read.
    #[error("cannot run `{program}`")]
    NotRun {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended with an error.
    #[error("`{program}` failed ({status}): {output}")]
    Failed {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said, standard error and standard output.
        output: String,
    },
}

impl HostTool {
    /// The name of the program and the Debian package that brings it.
    #[must_use]
    pub const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Busybox => ("busybox", "busybox-static"),
            Self::E2fsck => ("e2fsck", "e2fsprogs"),
            Self::Ip => ("ip", "iproute2"),
            Self::Ldd => ("ldd", "libc-bin"),
            Self::Mcopy => ("mcopy", "mtools"),
            Self::MkfsVfat => ("mkfs.vfat", "dosfstools"),
            Self::Mke2fs => ("mke2fs", "e2fsprogs"),
            Self::Nsenter => ("nsenter", "util-linux"),
            Self::QemuGa => ("qemu-ga", "qemu-guest-agent"),
            Self::QemuImg => ("qemu-img", "qemu-utils"),
            Self::QemuSystem => ("qemu-system-x86_64", "qemu-system-x86"),
            Self::Strip => ("strip", "binutils"),
            Self::Syslinux => ("syslinux", "syslinux"),
            Self::Xz => ("xz", "xz-utils"),
            Self::Zstd => ("zstd", "zstd"),
        }
    }

    /// Where it is.
    ///
    /// # Errors
    /// [`ToolError::Missing`].
    pub fn find(self) -> Result<PathBuf, ToolError> {
        let (program, debian_package) = self.names();
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .chain(SYSTEM_DIRECTORIES.map(PathBuf::from))
            .map(|directory| directory.join(program))
            .find(|candidate| candidate.is_file())
            .ok_or(ToolError::Missing {
                program,
                debian_package,
            })
    }

    /// A command for it, without any input.
    ///
    /// # Errors
    /// [`ToolError::Missing`].
    pub(crate) fn command(self) -> Result<Command, ToolError> {
        let mut command = Command::new(self.find()?);
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `command`, which is one of this tool, to its end.
    pub(crate) fn run(self, command: &mut Command) -> Result<Output, ToolError> {
        let (program, _) = self.names();
        let output = command
            .output()
            .map_err(|source| ToolError::NotRun { program, source })?;
        if output.status.success() {
            return Ok(output);
        }
        let said = [output.stderr.as_slice(), output.stdout.as_slice()].concat();
        let output_text = String::from_utf8_lossy(&said).trim().to_owned();
        Err(ToolError::Failed {
            program,
            status: output.status,
            output: output_text,
        })
    }

    /// Runs it with these arguments to its end.
    pub(crate) fn run_with<A: AsRef<OsStr>>(self, arguments: &[A]) -> Result<Output, ToolError> {
        self.run(self.command()?.args(arguments))
    }
}

/// The shared libraries that a program needs, its interpreter included, as the host's loader finds them.
pub(crate) fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>, ToolError> {
    match HostTool::Ldd.run_with(&[program]) {
        Ok(output) => Ok(library_paths(&String::from_utf8_lossy(&output.stdout))),
        Err(ToolError::Failed { output, .. }) if output.contains("not a dynamic executable") => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn library_paths(listing: &str) -> Vec<PathBuf> {
    listing
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_read_from_the_listing() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffe)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths = library_paths(listing);
        assert_eq!(
            paths,
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
    }

    #[test]
    fn a_failure_says_what_the_program_said() {
        let error = HostTool::Mke2fs.run_with(&["/nonexistent/disk"]).unwrap_err();
        assert!(error.to_string().contains("mke2fs"), "{error}");
    }
}
