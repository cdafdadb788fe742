//! A region as chunks and a tree, in one call.

use crate::{Grid, NodeKind, TreeBuilder, digest};
use chipmink_types::{BlobError, BlobKind, BlobSink, Digest};

/// Gives the chunks of `bytes` and the nodes of their tree to `sink`; returns the digest of the root.
///
/// # Errors
/// When the sink fails.
///
/// # Panics
/// When `bytes` is not as long as the grid says, which is a mistake of the caller.
pub fn digest_region(bytes: &[u8], grid: &Grid, sink: &mut dyn BlobSink) -> Result<Digest, BlobError> {
    assert_eq!(bytes.len() as u64, grid.byte_len(), "the grid must describe these bytes");
    let mut tree = TreeBuilder::new(NodeKind::Region);
    for (byte_offset, byte_len) in grid.chunks() {
        let start = byte_offset as usize;
        let chunk = &bytes[start..start + byte_len as usize];
        let name = digest(chunk);
        sink.put(BlobKind::Chunk, name, chunk)?;
        tree.push(name);
    }
    tree.finish(&mut |name, node| sink.put(BlobKind::DigestNode, name, node).map(drop))
}
