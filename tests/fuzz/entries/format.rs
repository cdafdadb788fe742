//! One function per decoder. Each takes any bytes and must return: an error is fine, a panic is a bug. What decodes must
//! encode to the same bytes again, as everything in the format has one encoding.

use bytes::Bytes;
use chipmink_digest::{NodeKind, digest, visit_tree};
use chipmink_format::*;
use chipmink_types::{BlobError, BlobKind, BlobSink, BlobSource, Digest, TimeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Takes any bytes.
pub(crate) type Entry = fn(&[u8]);

/// Every entry with its name.
pub(crate) const ALL: &[(&str, Entry)] = &[
    ("commit", commit),
    ("covariable", covariable),
    ("delta", delta),
    ("digest tree", digest_tree),
    ("frame", frame),
    ("global descriptor", global_descriptor),
    ("list", list),
    ("lz4", lz4),
    ("manifest row", manifest_row),
    ("pack footer", pack_footer),
    ("pack header", pack_header),
    ("pod row", pod_row),
    ("root entry", root_entry),
    ("root state", root_state),
    ("segment", segment),
    ("shape descriptor", shape_descriptor),
    ("sparse delta", sparse_delta),
    ("stream", stream),
    ("table", table),
];

/// What an input may make a decoder hold, in bytes.
const MAX: u64 = 1 << 20;

/// A store whose every blob is the input: a hostile one, in which nodes are their own children. It gives out a bounded
/// number of blobs, so that what ends only with the store counts as endless.
struct Hostile<'a> {
    bytes: &'a [u8],
    left: RefCell<u32>,
}

impl<'a> Hostile<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Hostile { bytes, left: RefCell::new(100_000) }
    }
}

impl BlobSource for Hostile<'_> {
    fn get(&self, _: &Digest) -> Result<Bytes, BlobError> {
        let mut left = self.left.borrow_mut();
        *left = left.checked_sub(1).expect("a decoder reads on and on");
        Ok(Bytes::copy_from_slice(self.bytes))
    }
}

/// Keeps what it is given.
#[derive(Default)]
struct Memory(HashMap<Digest, Bytes>);

impl BlobSink for Memory {
    fn put(&mut self, _: BlobKind, name: Digest, bytes: &[u8]) -> Result<bool, BlobError> {
        Ok(self.0.insert(name, Bytes::copy_from_slice(bytes)).is_none())
    }

    fn holds(&mut self, name: &Digest) -> bool {
        self.0.contains_key(name)
    }
}

impl BlobSource for Memory {
    fn get(&self, name: &Digest) -> Result<Bytes, BlobError> {
        self.0.get(name).cloned().ok_or(BlobError::Missing { digest: *name })
    }
}

fn commit(bytes: &[u8]) {
    if let Ok(found) = Commit::decode(bytes) {
        assert_eq!(found.encode(), bytes);
    }
}

fn covariable(bytes: &[u8]) {
    if let Ok(found) = Covariable::decode(bytes) {
        assert_eq!(found.encode(), bytes);
        let _ = found.table.rows(&Hostile::new(bytes));
    }
}

fn delta(bytes: &[u8]) {
    let (base, stored) = bytes.split_at(bytes.len() / 2);
    if let Ok(found) = decode_delta(stored, Codec::XorDelta, 1000, Bytes::copy_from_slice(base), MAX) {
        assert_eq!(found.len(), 1000);
    }
}

/// As it came, and with a checksum that is right: what a forger would write.
fn sparse_delta(bytes: &[u8]) {
    let (base, stored) = bytes.split_at(bytes.len() / 2);
    let summed = [&digest(stored).as_bytes()[1..9], stored].concat();
    for stored in [stored, &summed[..]] {
        if let Ok(found) = decode_delta(stored, Codec::SparseDelta, 1000, Bytes::copy_from_slice(base), MAX) {
            assert_eq!(found.len(), 1000);
            check_delta(stored, Codec::SparseDelta, 1000, MAX).expect("it was decoded");
        }
    }
}

fn digest_tree(bytes: &[u8]) {
    let hostile = Hostile::new(bytes);
    for count in [0, 1, 256, 257, 70_000] {
        let mut seen = 0u64;
        let mut get = |name: &Digest| hostile.get(name).map_err(drop);
        let visited = visit_tree(NodeKind::Region, digest(bytes), count, &mut get, &mut |_| {
            seen += 1;
            Ok(())
        });
        assert!(seen <= count && (visited.is_err() || seen == count));
    }
}

fn frame(bytes: &[u8]) {
    blob(Codec::Zstd, bytes);
}

fn lz4(bytes: &[u8]) {
    blob(Codec::Lz4, bytes);
}

fn blob(codec: Codec, bytes: &[u8]) {
    if let Some((len, stored)) = bytes.split_first_chunk::<4>() {
        let len = u64::from(u32::from_le_bytes(*len));
        if let Ok(found) = decode_blob(Bytes::copy_from_slice(stored), codec, len, MAX) {
            assert_eq!(found.len() as u64, len);
        }
    }
}

fn global_descriptor(bytes: &[u8]) {
    if let Ok(found) = decode_global(bytes) {
        assert_eq!(encode_global(&found), bytes);
    }
}

fn list(bytes: &[u8]) {
    if let Ok(found) = load_list(&digest(bytes), MAX, &Hostile::new(bytes)) {
        assert!(found.len() as u64 <= MAX);
    }
}

fn manifest_row(bytes: &[u8]) {
    if let Ok(found) = ManifestRow::decode(&Bytes::copy_from_slice(bytes)) {
        // Texts that are too long are cut when they are written.
        if bytes.len() < 512 {
            assert_eq!(found.encode(), bytes);
        }
    }
}

fn pack_footer(bytes: &[u8]) {
    for pack_len in [bytes.len() as u64, 0, u64::MAX] {
        if let Ok(found) = PackFooter::decode(bytes, pack_len) {
            assert!(found.segments.iter().all(|s| s.place.byte_offset + s.place.byte_len <= pack_len));
        }
    }
}

fn pack_header(bytes: &[u8]) {
    if let Ok(found) = PackHeader::decode(bytes) {
        assert_eq!(found.encode(), bytes[..PACK_HEADER_LEN]);
    }
}

fn pod_row(bytes: &[u8]) {
    let mut memory = Memory::default();
    if let Ok(found) = PodRow::decode(bytes, &memory) {
        assert_eq!(found.encode(&mut memory).expect("memory takes all"), bytes);
    }
    let _ = PodRow::decode(bytes, &Hostile::new(bytes));
}

fn root_entry(bytes: &[u8]) {
    // As it came, and with a checksum that is right: what a forger would write.
    let mut forged = bytes.to_vec();
    forged.extend_from_slice(&digest(bytes).as_bytes()[1..9]);
    for bytes in [bytes, &forged] {
        if let Ok(found) = RootEntry::decode(bytes, TimeId(7)) {
            assert_eq!(found.encode(), bytes);
            let _ = found.ref_changes();
        }
    }
}

fn root_state(bytes: &[u8]) {
    if let Ok(mut found) = RootState::decode(bytes) {
        assert_eq!(found.encode(), bytes);
        let _ = found.read_tables(&Hostile::new(bytes));
    }
}

fn segment(bytes: &[u8]) {
    let _ = decode_segment(bytes);
    // With checksums that are right: the head as given, and the rest as one block.
    let Some((head_len, rest)) = bytes.split_first() else { return };
    let (head, block) = rest.split_at(rest.len().min(usize::from(*head_len)));
    let mut forged = vec![b'I', 1];
    forged.extend_from_slice(&(head.len() as u32 + 14).to_le_bytes());
    forged.extend_from_slice(head);
    let sum = digest(&forged);
    forged.extend_from_slice(&sum.as_bytes()[1..9]);
    forged.extend_from_slice(block);
    forged.extend_from_slice(&digest(block).as_bytes()[1..9]);
    if let Ok((head, rows)) = decode_segment(&forged) {
        for row in &rows {
            let fence = head.blocks.iter().rfind(|fence| fence.first <= row.digest);
            assert!(fence.is_some());
        }
    }
}

fn shape_descriptor(bytes: &[u8]) {
    if let Ok((dict_names, slot_names)) = decode_names(bytes) {
        assert_eq!(encode_names(&dict_names, &slot_names), bytes);
    }
}

fn stream(bytes: &[u8]) {
    if let Ok(found) = decode_stream(bytes) {
        assert_eq!(encode_stream(&found), bytes);
    }
    let _ = stream_len(bytes);
}

fn table(bytes: &[u8]) {
    let root = digest(bytes);
    let hostile = Hostile::new(bytes);
    let tree = Tree::open(root);
    let _ = tree.get(b"key", &hostile);
    let mut rows = 0u64;
    let _ = tree.scan(b"", &hostile, &mut |_, _| {
        rows += 1;
        Ok(ControlFlow::Continue(()))
    });
    assert!(rows <= bytes.len() as u64);
    let _ = Tree::diff(&Tree::empty(), &tree, &hostile);
    let mut memory = Memory::default();
    let mut edited = tree.clone();
    let edits = [(b"key".to_vec(), Some(b"value".to_vec())), (b"kez".to_vec(), None)];
    if edited.apply(&edits, &hostile, &mut memory).is_ok() {
        assert!(!memory.0.is_empty());
    }
}
