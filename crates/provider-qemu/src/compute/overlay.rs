//! The overlays of a recovered VM: local qcow2 files that take the guest's writes, on read-only exports of the point.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use farshore_blocks::ByteCount;
use farshore_provider::{ComputeError, RecoveryDisk, RecoveryId};
use rustix::fs::OFlags;

use super::{
    directory::RecoveryDirectory,
    tool::{self, TOOL_LIMIT},
};

/// qcow2's header begins with it (QEMU's docs/interop/qcow2.txt, "Header").
const MAGIC: [u8; 4] = *b"QFI\xfb";

/// The backing file's name lies in the first cluster; qemu-img makes clusters of 64 KiB.
const HEAD_BYTES: u64 = 65536;

/// How an overlay is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OverlayCache {
    /// Past the host's page cache.
    Direct,
    /// Through it, on file systems that know no other way; the guest's flushes still reach the disk.
    Writeback,
}

/// What an overlay's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OverlayHeader {
    /// The disk's size.
    pub(crate) size: ByteCount,
    /// What it lies on; `None` once all data was brought into it.
    pub(crate) backing: Option<String>,
}

/// Parses the first bytes of a qcow2 file; `None` if they are not a whole header.
pub(crate) fn parse_header(head: &[u8]) -> Option<OverlayHeader> {
    let word = |at: usize| -> Option<u32> {
        let bytes = head.get(at..at.checked_add(4)?)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let long = |at: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(8)?)?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    };
    if head.get(..4)? != MAGIC {
        return None;
    }
    let start = usize::try_from(long(8)?).ok()?;
    let length = usize::try_from(word(16)?).ok()?;
    let backing = match start {
        0 => None,
        _ => {
            let name = head.get(start..start.checked_add(length)?)?;
            Some(String::from_utf8(name.to_vec()).ok()?)
        }
    };
    Some(OverlayHeader {
        size: ByteCount(long(24)?),
        backing,
    })
}

/// The header of the file at `path`; `None` if there is no file or no whole header in it.
pub(crate) fn read_header(path: &Path) -> io::Result<Option<OverlayHeader>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(parse_header(&head))
}

/// The NBD URI of a disk's export (github.com/NetworkBlockDevice/nbd, doc/uri.md).
pub(crate) fn export_uri(disk: &RecoveryDisk) -> String {
    format!(
        "nbd+unix:///{}?socket={}",
        percent_encoded(&disk.name),
        percent_encoded(&disk.export_socket.to_string_lossy())
    )
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Makes the overlay of `disk`, unless it is there already. Only for VMs that never ran: a leftover of a creation that
/// was cut short is replaced.
pub(crate) async fn create(
    qemu_img: &Path,
    files: &RecoveryDirectory,
    id: &RecoveryId,
    disk: &RecoveryDisk,
) -> Result<(), ComputeError> {
    let path = files.overlay(&disk.name);
    let wanted = OverlayHeader {
        size: disk.size,
        backing: Some(export_uri(disk)),
    };
    if header_of(&path, id)?.as_ref() == Some(&wanted) {
        return Ok(());
    }
    let uri = export_uri(disk);
    let size = disk.size.0.to_string();
    // `-u`: the export need not answer now; the size is known.
    let arguments = [
        "create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", &uri, &path, &size,
    ];
    tool::run(qemu_img, &arguments, TOOL_LIMIT)
        .await
        .map_err(|error| error.during(id, format!("creating the overlay of disk `{}`", disk.name)))?;
    match header_of(&path, id)? {
        Some(header) if header == wanted => Ok(()),
        found => Err(ComputeError::Tool {
            id: id.clone(),
            action: format!("creating the overlay of disk `{}`", disk.name),
            output: format!("the file reads {found:?}, expected {wanted:?}"),
        }),
    }
}

/// What the overlay at `path` says of itself.
pub(crate) fn header_of(path: &str, id: &RecoveryId) -> Result<Option<OverlayHeader>, ComputeError> {
    read_header(Path::new(path)).map_err(|source| ComputeError::Io {
        id: id.clone(),
        action: format!("reading the header of {path}"),
        source,
    })
}

/// How the files below `directory` can be opened: tried, because file systems differ.
pub(crate) fn cache_possible(existing_file: &Path) -> OverlayCache {
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or_default();
    match fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(existing_file)
    {
        Ok(_) => OverlayCache::Direct,
        Err(_) => OverlayCache::Writeback,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn header(size: u64, backing: &str) -> Vec<u8> {
        let start: u64 = if backing.is_empty() { 0 } else { 104 };
        let mut head = MAGIC.to_vec();
        head.extend(3_u32.to_be_bytes());
        head.extend(start.to_be_bytes());
        head.extend(u32::try_from(backing.len()).unwrap().to_be_bytes());
        head.extend(16_u32.to_be_bytes());
        head.extend(size.to_be_bytes());
        head.resize(104, 0);
        head.extend(backing.bytes());
        head
    }

    #[test]
    fn a_header_says_its_size_and_backing() {
        let parsed = parse_header(&header(4096, "nbd+unix:///a?socket=/b")).unwrap();
        assert_eq!(parsed.size, ByteCount(4096));
        assert_eq!(parsed.backing.as_deref(), Some("nbd+unix:///a?socket=/b"));
        assert_eq!(parse_header(&header(512, "")).unwrap().backing, None);
    }

    #[test]
    fn a_header_that_is_cut_anywhere_is_none() {
        let whole = header(4096, "nbd+unix:///a?socket=/b");
        assert!((0..whole.len()).all(|length| parse_header(&whole[..length]).is_none()));
        let mut endless = whole;
        endless[8..16].fill(0xff);
        assert!(parse_header(&endless).is_none());
    }

    #[test]
    fn an_export_is_named_with_what_needs_escaping_escaped() {
        let disk = RecoveryDisk {
            name: "root 1".to_owned(),
            size: ByteCount(512),
            export_socket: PathBuf::from("/a&b/c?.sock"),
        };
        assert_eq!(export_uri(&disk), "nbd+unix:///root%201?socket=/a%26b/c%3F.sock");
    }
}
