//! Where everything lies on the guest's two disks, and the partition tables that say so to the guest.
//!
//! | disk | partition | start | length | what |
//! |---|---|---|---|---|
//! | root | 1 | 1 MiB | 32 MiB | FAT: SYSLINUX, kernel, initial RAM disk |
//! | root | 3 | 33 MiB | 16 MiB | region B, raw records |
//! | root | 2 | 49 MiB | the rest | ext4, the root file system |
//! | data | 1 | 1 MiB | 32 MiB | region A, raw records |
//! | data | 2 | 33 MiB | at most 256 MiB | ext4, mounted on `/data` |
//! | data | 3 | after 2 | as ordered | ballast: random bytes, never read (absent if none is ordered) |
//!
//! Both regions start at an offset that does not depend on any size, so that a raw copy of a disk can be judged
//! without reading its partition table.

const MIB: u64 = 1 << 20;
const SECTOR_BYTES: u64 = 512;

/// A run of bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRange {
    /// First byte, counted from the start of the disk.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// Region A, on the data disk.
pub const REGION_A: DiskRange = DiskRange {
    offset: MIB,
    length: 32 * MIB,
};

/// Region B, on the root disk.
pub const REGION_B: DiskRange = DiskRange {
    offset: 33 * MIB,
    length: 16 * MIB,
};

pub(crate) const BOOT: DiskRange = DiskRange {
    offset: MIB,
    length: 32 * MIB,
};
const ROOT_OFFSET: u64 = 49 * MIB;
const DATA_OFFSET: u64 = 33 * MIB;
const DATA_FILE_SYSTEM_LIMIT: u64 = 256 * MIB;
const SMALLEST_FILE_SYSTEM: u64 = 16 * MIB;

/// Why no layout fits the ordered sizes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// The disk has no room for what must be on it.
    #[error(
        "the {disk} disk of {ordered_bytes} bytes is too small: at least {needed_bytes} bytes are needed"
    )]
    TooSmall {
        /// `root` or `data`.
        disk: &'static str,
        /// What was ordered.
        ordered_bytes: u64,
        /// What would do.
        needed_bytes: u64,
    },
    /// The master boot record cannot address it.
    #[error("a disk of {ordered_bytes} bytes is beyond the 2 TiB that its partition table can address")]
    TooLarge {
        /// What was ordered.
        ordered_bytes: u64,
    },
}

/// The partitions of the root disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RootLayout {
    pub(crate) disk_bytes: u64,
    pub(crate) file_system: DiskRange,
}

/// The partitions of the data disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataLayout {
    pub(crate) disk_bytes: u64,
    pub(crate) file_system: DiskRange,
    pub(crate) ballast: Option<DiskRange>,
}

impl RootLayout {
    pub(crate) fn new(ordered_bytes: u64) -> Result<Self, LayoutError> {
        let disk_bytes = addressable("root", ordered_bytes, ROOT_OFFSET + SMALLEST_FILE_SYSTEM)?;
        let file_system = DiskRange {
            offset: ROOT_OFFSET,
            length: disk_bytes - ROOT_OFFSET,
        };
        Ok(Self {
            disk_bytes,
            file_system,
        })
    }

    /// The 66 bytes that end the first sector: partition table and signature.
    pub(crate) fn partition_table(&self) -> Vec<u8> {
        partition_table([
            Some((Kind::BootableFat, BOOT)),
            Some((Kind::Linux, self.file_system)),
            Some((Kind::Raw, REGION_B)),
            None,
        ])
    }
}

impl DataLayout {
    pub(crate) fn new(ordered_bytes: u64, ballast_bytes: u64) -> Result<Self, LayoutError> {
        let ballast_length = ballast_bytes.next_multiple_of(MIB);
        let needed = DATA_OFFSET + SMALLEST_FILE_SYSTEM + ballast_length;
        let disk_bytes = addressable("data", ordered_bytes, needed)?;
        let room = disk_bytes - DATA_OFFSET - ballast_length;
        let file_system = DiskRange {
            offset: DATA_OFFSET,
            length: room.min(DATA_FILE_SYSTEM_LIMIT),
        };
        let ballast = (ballast_length > 0).then_some(DiskRange {
            offset: file_system.offset + file_system.length,
            length: ballast_length,
        });
        Ok(Self {
            disk_bytes,
            file_system,
            ballast,
        })
    }

    pub(crate) fn partition_table(&self) -> Vec<u8> {
        partition_table([
            Some((Kind::Raw, REGION_A)),
            Some((Kind::Linux, self.file_system)),
            self.ballast.map(|range| (Kind::Raw, range)),
            None,
        ])
    }
}

fn addressable(disk: &'static str, ordered_bytes: u64, needed_bytes: u64) -> Result<u64, LayoutError> {
    let disk_bytes = ordered_bytes - ordered_bytes % MIB;
    if disk_bytes < needed_bytes {
        return Err(LayoutError::TooSmall {
            disk,
            ordered_bytes,
            needed_bytes,
        });
    }
    if disk_bytes / SECTOR_BYTES > u64::from(u32::MAX) {
        return Err(LayoutError::TooLarge { ordered_bytes });
    }
    Ok(disk_bytes)
}

#[derive(Clone, Copy)]
enum Kind {
    BootableFat,
    Linux,
    Raw,
}

fn partition_table(partitions: [Option<(Kind, DiskRange)>; 4]) -> Vec<u8> {
    let mut table = Vec::with_capacity(66);
    for partition in partitions {
        let entry = partition.and_then(|(kind, range)| entry(kind, range));
        table.extend_from_slice(&entry.unwrap_or_default());
    }
    table.extend_from_slice(&[0x55, 0xaa]);
    table
}

/// One entry; cylinders and heads are the "use the sector numbers instead" values.
fn entry(kind: Kind, range: DiskRange) -> Option<[u8; 16]> {
    let (status, system) = match kind {
        Kind::BootableFat => (0x80, 0x0c),
        Kind::Linux => (0, 0x83),
        Kind::Raw => (0, 0xda),
    };
    let [s0, s1, s2, s3] = u32::try_from(range.offset / SECTOR_BYTES).ok()?.to_le_bytes();
    let [l0, l1, l2, l3] = u32::try_from(range.length / SECTOR_BYTES).ok()?.to_le_bytes();
    Some([
        status, 0xfe, 0xff, 0xff, system, 0xfe, 0xff, 0xff, s0, s1, s2, s3, l0, l1, l2, l3,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballast_takes_the_end_and_the_file_system_keeps_its_limit() {
        let layout = DataLayout::new(1 << 30, 500 * MIB + 1).unwrap();
        assert_eq!(
            layout.file_system,
            DiskRange {
                offset: 33 * MIB,
                length: 256 * MIB
            }
        );
        assert_eq!(
            layout.ballast,
            Some(DiskRange {
                offset: 289 * MIB,
                length: 501 * MIB
            })
        );
    }

    #[test]
    fn a_disk_without_room_is_refused_with_the_size_that_would_do() {
        let refused = DataLayout::new(64 * MIB, 32 * MIB);
        assert_eq!(
            refused,
            Err(LayoutError::TooSmall {
                disk: "data",
                ordered_bytes: 64 * MIB,
                needed_bytes: 81 * MIB
            })
        );
        assert!(RootLayout::new(8 * MIB).is_err());
        assert!(matches!(
            DataLayout::new(3 << 40, 0),
            Err(LayoutError::TooLarge { .. })
        ));
    }

    #[test]
    fn the_table_names_each_partition_by_its_sectors() {
        let table = RootLayout::new(192 * MIB).unwrap().partition_table();
        assert_eq!(table.len(), 66);
        assert_eq!(table[0], 0x80);
        assert_eq!(table[32 + 4], 0xda);
        assert_eq!(table[32 + 8..32 + 12], (33 * 2048_u32).to_le_bytes());
        assert_eq!(table[64..], [0x55, 0xaa]);
    }
}
