//! One row of an index: where a blob lies.

use crate::codec::Codec;
use crate::error::Result;
use crate::wire::{Input, put_digest, put_varint};
use chipmink_types::{BlobKind, DIGEST_LEN, Digest};

/// Where a blob lies and how it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IndexRow {
    /// The blob.
    pub digest: Digest,
    /// Ordinal of its pack among the names of the segment; 0 in a pack's own segment, which names none.
    pub pack: u32,
    /// Where it begins, in bytes from the start of the pack.
    pub byte_offset: u64,
    /// Bytes that it takes there.
    pub stored_len: u64,
    /// Bytes that come out of the codec.
    pub decoded_len: u64,
    /// How it is stored.
    pub codec: Codec,
    /// What it holds, as far as known. Advice only.
    pub kind: Option<BlobKind>,
    /// The chunk that a delta is made against; with the codecs of deltas and only with them.
    pub base: Option<Digest>,
}

const KINDS: [BlobKind; 6] = [
    BlobKind::Pod,
    BlobKind::Chunk,
    BlobKind::DigestNode,
    BlobKind::Table,
    BlobKind::Descriptor,
    BlobKind::Text,
];

/// Number of a kind in the high half of the codec byte; 0: unknown.
fn kind_number(kind: Option<BlobKind>) -> u8 {
    kind.and_then(|kind| KINDS.iter().position(|other| *other == kind)).map_or(0, |at| at as u8 + 1)
}

/// Fewest bytes of an encoded row.
pub(super) const ROW_LEN_MIN: usize = 5;

impl IndexRow {
    /// Appends the row, given the digest of the row before it in the block.
    pub(super) fn encode(&self, before: Option<&Digest>, with_pack: bool, out: &mut Vec<u8>) {
        put_shared(before, &self.digest, out);
        if with_pack {
            put_varint(out, self.pack.into());
        }
        put_varint(out, self.byte_offset);
        put_varint(out, self.stored_len);
        out.push(self.codec as u8 | kind_number(self.kind) << 4);
        if self.codec != Codec::Raw {
            put_varint(out, self.decoded_len);
        }
        if self.codec.is_delta() {
            put_digest(out, &self.base.unwrap_or(self.digest));
        }
    }

    pub(super) fn decode(input: &mut Input<'_>, before: Option<&Digest>, pack_count: usize) -> Result<Self> {
        let digest = shared(input, before)?;
        let pack = if pack_count == 0 { 0 } else { input.varint_u32()? };
        if pack as usize >= pack_count.max(1) {
            return Err(input.damaged(format!("pack {pack} of {pack_count}")));
        }
        let byte_offset = input.varint()?;
        let stored_len = input.varint()?;
        if byte_offset.checked_add(stored_len).is_none() {
            return Err(input.damaged("a blob ends past 2^64"));
        }
        let byte = input.u8()?;
        let Some(codec) = Codec::from_number(byte & 0x0f) else {
            return Err(input.unsupported(format!("codec {}", byte & 0x0f)));
        };
        let kind = (byte >> 4).checked_sub(1).and_then(|at| KINDS.get(usize::from(at))).copied();
        let decoded_len = if codec == Codec::Raw { stored_len } else { input.varint()? };
        let base = if codec.is_delta() { Some(input.digest()?) } else { None };
        if base == Some(digest) {
            return Err(input.damaged(format!("chunk {digest} is a delta against itself")));
        }
        Ok(IndexRow { digest, pack, byte_offset, stored_len, decoded_len, codec, kind, base })
    }
}

/// How many leading bytes a digest shares with the one before it (u8), then the others.
pub(super) fn put_shared(before: Option<&Digest>, digest: &Digest, out: &mut Vec<u8>) {
    let bytes = digest.as_bytes();
    let shared =
        before.map_or(0, |before| before.as_bytes().iter().zip(bytes).take_while(|(a, b)| a == b).count());
    out.push(shared as u8);
    out.extend_from_slice(&bytes[shared..]);
}

pub(super) fn shared(input: &mut Input<'_>, before: Option<&Digest>) -> Result<Digest> {
    let shared = usize::from(input.u8()?);
    let mut bytes = match before {
        Some(before) if shared <= DIGEST_LEN => *before.as_bytes(),
        None if shared == 0 => [0; DIGEST_LEN],
        _ => return Err(input.damaged(format!("a digest shares {shared} bytes with the one before it"))),
    };
    bytes[shared..].copy_from_slice(input.take(DIGEST_LEN - shared)?);
    Ok(Digest::from_encoded(bytes))
}
