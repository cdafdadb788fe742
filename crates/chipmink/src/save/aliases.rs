//! Aliases: pods that only name an object of a definition group.
//!
//! A name of a co-variable points into the co-variable's own table. A variable that is itself a by-value class or
//! function lives in a definition group; its co-variable then has a pod of eight bytes whose only value is the reference.

use chipmink_digest::digest;
use chipmink_format::tag;
use chipmink_types::{BlobError, BlobKind, BlobSink, Export, PodKey, PodRecord};
use std::sync::Arc;

/// Keys from here on are those of aliases; sources count theirs from below.
const FIRST_KEY: u64 = 1 << 63;

/// The key of the n-th alias of a table.
pub(super) fn alias_key(ordinal: usize) -> PodKey {
    PodKey(FIRST_KEY + ordinal as u64)
}

/// Makes the alias of an export of `target`, and stores its bytes.
pub(super) fn alias(
    target: PodKey,
    export: u32,
    sink: &mut dyn BlobSink,
) -> Result<Arc<PodRecord>, BlobError> {
    let mut bytes = vec![tag::POD_VERSION];
    match export {
        0 => bytes.extend_from_slice(&[tag::POD, 0]),
        _ => {
            bytes.extend_from_slice(&[tag::POD_EXPORT, 0]);
            let mut rest = export;
            while rest >= 0x80 {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
        }
    }
    // The trailer: no memo number is referred to; and its length.
    bytes.push(0);
    bytes.extend_from_slice(&1u32.to_le_bytes());
    let name = digest(&bytes);
    sink.put(BlobKind::Pod, name, &bytes)?;
    Ok(Arc::new(PodRecord {
        digest: name,
        byte_len: bytes.len() as u64,
        exports: vec![Export::Root(0)],
        dependencies: vec![target],
        globals: Vec::new(),
        shapes: Vec::new(),
        regions: Vec::new(),
        side: None,
        names: Vec::new(),
    }))
}
