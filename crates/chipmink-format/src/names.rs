//! Names of what lies in a repository's place.

use crate::error::{FormatError, Result};
use chipmink_types::TimeId;
use std::fmt;

/// Name of a pack: sixteen random bytes, used once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PackName(pub [u8; 16]);

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Path of a pack below the repository's place: `packs/` and 32 hexadecimal digits.
pub fn pack_path(name: PackName) -> String {
    format!("packs/{name}")
}

/// The pack that lies at a path, if it is a pack's.
pub fn parse_pack_path(path: &str) -> Option<PackName> {
    let hex = path.strip_prefix("packs/")?;
    if hex.len() != 32 || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut name = [0; 16];
    for (i, byte) in name.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(PackName(name))
}

/// Path of a root entry below the repository's place: `root/` and 20 digits of 2^64 - 1 - number, so that the newest
/// sorts first.
pub fn root_path(number: TimeId) -> String {
    format!("root/{:020}", u64::MAX - number.0)
}

/// The number of the root entry that lies at a path, if it is one's.
pub fn parse_root_path(path: &str) -> Option<TimeId> {
    let digits = path.strip_prefix("root/")?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(|complement: u64| TimeId(u64::MAX - complement))
}

/// Refuses what starts with another magic than `magic`.
pub(crate) fn check_magic(what: &'static str, magic: &[u8; 8], bytes: &[u8]) -> Result<()> {
    if bytes.starts_with(magic) {
        return Ok(());
    }
    Err(FormatError::NotChipmink { what, found: bytes[..bytes.len().min(8)].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_entries_sort_first() {
        assert_eq!(root_path(TimeId(42)), "root/18446744073709551573");
        assert!(root_path(TimeId(43)) < root_path(TimeId(42)));
        assert_eq!(parse_root_path("root/18446744073709551573"), Some(TimeId(42)));
        for wrong in
            ["root/1", "root/18446744073709551616", "packs/18446744073709551573", "root/+8446744073709551573"]
        {
            assert_eq!(parse_root_path(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn pack_paths_come_back() {
        let name = PackName(*b"0123456789abcdef");
        assert_eq!(parse_pack_path(&pack_path(name)), Some(name));
        for wrong in
            ["packs/30", "packs/3031323334353637383961626364656G", "root/30313233343536373839616263646566"]
        {
            assert_eq!(parse_pack_path(wrong), None, "{wrong}");
        }
    }
}
