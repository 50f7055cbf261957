//! Reading what the host says of itself: pure.

/// Of making interfaces (linux/capability.h).
const NET_ADMIN: u32 = 12;

/// Of making namespaces.
const SYS_ADMIN: u32 = 21;

/// What this process may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rights {
    Enough,
    Lacking(Vec<&'static str>),
}

/// The rights in a `/proc/PID/status`.
pub(super) fn rights_in(status: &str) -> Option<Rights> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(line.trim(), 16).ok()?;
    let lacking: Vec<_> = [(NET_ADMIN, "CAP_NET_ADMIN"), (SYS_ADMIN, "CAP_SYS_ADMIN")]
        .into_iter()
        .filter(|(bit, _)| effective & (1 << bit) == 0)
        .map(|(_, name)| name)
        .collect();
    Some(if lacking.is_empty() {
        Rights::Enough
    } else {
        Rights::Lacking(lacking)
    })
}

/// A line of `/proc/meminfo`, in bytes.
pub(super) fn meminfo_bytes(listing: &str, name: &str) -> Option<u64> {
    let value = listing
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Major and minor version in what `qemu-system-x86_64 --version` prints first.
pub(super) fn version_in(line: &str) -> Option<(u32, u32)> {
    let text = line.strip_prefix("QEMU emulator version ")?;
    let mut numbers = text.split(|other: char| !other.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The names in what `-machine help` prints.
pub(super) fn machine_types_in(printed: &str) -> Vec<String> {
    let names = printed
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_rights_are_named() {
        assert_eq!(
            rights_in("Name:\tx\nCapEff:\t000001fffeffffff\n"),
            Some(Rights::Enough)
        );
        assert_eq!(
            rights_in("CapEff:\t0000000000001000\n"),
            Some(Rights::Lacking(vec!["CAP_SYS_ADMIN"]))
        );
        assert_eq!(rights_in("CapEff: x"), None);
        assert_eq!(rights_in(""), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let listing = "MemTotal:       16384 kB\nMemAvailable:    4096 kB\n";
        assert_eq!(meminfo_bytes(listing, "MemTotal"), Some(16 << 20));
        assert_eq!(meminfo_bytes(listing, "MemAvailable"), Some(4 << 20));
        assert_eq!(meminfo_bytes(listing, "Mem"), None);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let version = version_in("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)");
        assert_eq!(version, Some((7, 2)));
        assert!(version_in("QEMU emulator version 10.0.2") > version);
        assert_eq!(version_in("something else"), None);
    }

    #[test]
    fn machine_types_are_the_first_words() {
        let printed =
            "Supported machines are:\npc                   Standard PC (alias of pc-i440fx-7.2)\nq35  x\n";
        assert_eq!(machine_types_in(printed), ["pc", "q35"]);
    }
}
