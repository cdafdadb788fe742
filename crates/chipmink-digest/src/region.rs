//! A region as chunks and a tree, in one call.

use crate::{Grid, NodeKind, TreeBuilder, digest};
use chipmink_types::{BlobError, BlobKind, BlobSink, Digest, RegionOutline};

/// Gives the chunks of `bytes` and the nodes of their tree to `sink`; returns the digest of the root. `previous` is the root
/// of an earlier version of them with the number of its chunks, as in [`RegionOutline`].
///
/// # Errors
/// When the sink fails.
///
/// # Panics
/// When `bytes` is not as long as the grid says, which is a mistake of the caller.
pub fn digest_region(
    bytes: &[u8],
    grid: &Grid,
    previous: Option<(Digest, u64)>,
    sink: &mut dyn BlobSink,
) -> Result<Digest, BlobError> {
    assert_eq!(bytes.len() as u64, grid.byte_len(), "the grid must describe these bytes");
    sink.begin_region(&RegionOutline { chunk_count: grid.chunk_count(), previous });
    let mut tree = TreeBuilder::new(NodeKind::Region);
    for (ordinal, (byte_offset, byte_len)) in (0..).zip(grid.chunks()) {
        let start = byte_offset as usize;
        let chunk = &bytes[start..start + byte_len as usize];
        let name = digest(chunk);
        sink.put_chunk(ordinal, name, chunk)?;
        tree.push(name);
    }
    let root = tree.finish(&mut |name, node| sink.put(BlobKind::DigestNode, name, node).map(drop))?;
    sink.end_region(root);
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CHUNK_LEN, read_tree};
    use bytes::Bytes;
    use std::collections::HashMap;

    #[derive(Default)]
    struct Memory(HashMap<Digest, (BlobKind, Vec<u8>)>);

    impl BlobSink for Memory {
        fn put(&mut self, kind: BlobKind, name: Digest, bytes: &[u8]) -> Result<bool, BlobError> {
            assert_eq!(name, digest(bytes));
            Ok(self.0.insert(name, (kind, bytes.to_vec())).is_none())
        }

        fn holds(&mut self, name: &Digest) -> bool {
            self.0.contains_key(name)
        }
    }

    #[test]
    fn a_region_comes_back_from_its_blobs() {
        let bytes: Vec<u8> = (0..3 * CHUNK_LEN + 17).map(|i| (i / 77) as u8).collect();
        let grid = Grid::run(bytes.len() as u64);
        let mut blobs = Memory::default();
        let root = digest_region(&bytes, &grid, None, &mut blobs).unwrap();
        let chunks = read_tree::<()>(NodeKind::Region, root, grid.chunk_count(), &mut |name| {
            let (kind, bytes) = &blobs.0[name];
            assert_eq!(*kind, BlobKind::DigestNode);
            Ok(Bytes::from(bytes.clone()))
        });
        let joined: Vec<u8> = chunks.unwrap().iter().flat_map(|name| blobs.0[name].1.clone()).collect();
        assert_eq!(joined, bytes);
    }

    #[test]
    fn one_changed_byte_makes_one_new_chunk_and_one_new_node() {
        let mut bytes = vec![7u8; 40 * CHUNK_LEN as usize];
        bytes.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * i / 1000) as u8);
        let grid = Grid::run(bytes.len() as u64);
        let mut blobs = Memory::default();
        digest_region(&bytes, &grid, None, &mut blobs).unwrap();
        let before = blobs.0.len();
        bytes[CHUNK_LEN as usize * 20 + 3] ^= 1;
        digest_region(&bytes, &grid, None, &mut blobs).unwrap();
        assert_eq!(blobs.0.len(), before + 2);
    }
}
