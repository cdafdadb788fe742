//! Checking one pack from its first byte to its last.

use crate::backend::Backend;
use crate::error::{Result, StoreError};
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{
    Codec, FormatError, IndexRow, PACK_FOOTER_GUESS, PACK_HEADER_LEN, PackFooter, PackHeader, PackInfo,
    PackName, SegmentPlace, check_delta, decode_blob, decode_segment, expansion_max, pack_path,
};
use chipmink_types::TimeId;
use std::ops::Range;

/// Bytes of blobs that are read at once.
const WINDOW: u64 = 8 << 20;

/// Checks that a pack is what the root log says and that each of its blobs has its digest; of a delta, which needs
/// its base for that, the checksum. Returns the rows of its own index.
pub(crate) fn check_pack(backend: &Backend, pack: &PackInfo, blob_bytes_max: u64) -> Result<Vec<IndexRow>> {
    let rows = check_structure(backend, pack)?;
    check_blobs(backend, pack, &rows, blob_bytes_max, &mut |_| {}, &mut |_, error| Err(error))?;
    Ok(rows)
}

/// Bytes that are read, checked and passed on at once: they are still in the cache of the core then.
const PASS_LEN: u64 = 256 << 10;

/// As [`check_pack`], reading each byte once: `pass` gets all of them in their order, each after it was checked as far as it has
/// a digest. What it was given of a pack that turns out to be damaged is of no use. `read` fills a buffer from an offset.
pub(crate) fn pass_pack(
    backend: &Backend,
    pack: &PackInfo,
    blob_bytes_max: u64,
    read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
    pass: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut rows = check_structure(backend, pack)?;
    rows.sort_unstable_by_key(|row| row.byte_offset);
    let mut rest = rows.as_slice();
    let mut buffer = Vec::new();
    let (mut at, mut filled) = (0, PACK_HEADER_LEN as u64);
    while at < pack.byte_len {
        // Up to where no blob goes on.
        let (mut end, mut count) = (at.max(filled), 0);
        while let Some(row) = rest.get(count)
            && (end - at < PASS_LEN || row.byte_offset < end)
        {
            end = end.max(row.byte_offset + row.stored_len);
            count += 1;
        }
        if count == 0 {
            end = (at + PASS_LEN).min(pack.byte_len);
        }
        let (window, after) = rest.split_at(count);
        rest = after;
        buffer.resize((end - at) as usize, 0);
        read(at, &mut buffer)?;
        let part = |range: Range<u64>| &buffer[(range.start - at) as usize..(range.end - at) as usize];
        for row in window {
            if row.byte_offset > filled && part(filled..row.byte_offset).iter().any(|byte| *byte != 0) {
                return Err(no_zeros(backend, pack, filled));
            }
            let row_end = row.byte_offset + row.stored_len;
            let stored = part(row.byte_offset..row_end);
            filled = filled.max(row_end);
            if is_digested(row, stored) {
                continue;
            }
            check_blob(row, Bytes::copy_from_slice(stored), blob_bytes_max)
                .map_err(|source| damage(backend, pack, source))?;
        }
        let gap = at.max(filled)..end.min(pack.index.byte_offset);
        if gap.start < gap.end && part(gap.clone()).iter().any(|byte| *byte != 0) {
            return Err(no_zeros(backend, pack, gap.start));
        }
        pass(&buffer)?;
        at = end;
    }
    Ok(())
}

/// Checks each byte of a pack between its header and its index. `good` is told of each row whose blob is what it should
/// be, `bad` of each failure and whose it is; it goes on unless that gives the error back.
pub(crate) fn check_blobs(
    backend: &Backend,
    pack: &PackInfo,
    rows: &[IndexRow],
    blob_bytes_max: u64,
    good: &mut dyn FnMut(&IndexRow),
    bad: &mut dyn FnMut(Option<&IndexRow>, StoreError) -> Result<()>,
) -> Result<()> {
    let mut by_place: Vec<&IndexRow> = rows.iter().collect();
    by_place.sort_unstable_by_key(|row| row.byte_offset);
    let mut rest = by_place.as_slice();
    let mut filled = PACK_HEADER_LEN as u64;
    // Files are read into the same memory again and again: to have the kernel find more takes longer than to read and digest.
    let is_file = backend.files().is_some();
    let window_len = if is_file { PASS_LEN } else { WINDOW };
    let mut buffer = Vec::new();
    while let Some(first) = rest.first() {
        check_zeros(backend, pack, filled, first.byte_offset).or_else(|error| bad(None, error))?;
        filled = filled.max(first.byte_offset);
        let ends = |row: &&IndexRow| row.byte_offset + row.stored_len - first.byte_offset <= window_len;
        let (window, after) = rest.split_at(rest.iter().take_while(|row| ends(row)).count().max(1));
        rest = after;
        let end = window.iter().map(|row| row.byte_offset + row.stored_len).max().unwrap_or(0);
        let path = pack_path(pack.name);
        let read = match is_file {
            true => {
                buffer.resize((end - first.byte_offset) as usize, 0);
                backend.read_into(&path, first.byte_offset, &mut buffer).map(|()| Bytes::new())
            }
            false => backend.get_range(&path, first.byte_offset..end),
        };
        let found = match read {
            Ok(bytes) => bytes,
            Err(error) => {
                bad(None, error)?;
                filled = filled.max(end);
                continue;
            }
        };
        let bytes = if is_file { &buffer[..] } else { &found[..] };
        for row in window {
            let from = (row.byte_offset - first.byte_offset) as usize;
            if row.byte_offset > filled
                && bytes[(filled - first.byte_offset) as usize..from].iter().any(|byte| *byte != 0)
            {
                bad(None, no_zeros(backend, pack, filled))?;
            }
            filled = filled.max(row.byte_offset + row.stored_len);
            let stored = from..from + row.stored_len as usize;
            let checked = match is_digested(row, &bytes[stored.clone()]) {
                true => Ok(()),
                false if is_file => check_blob(row, Bytes::copy_from_slice(&bytes[stored]), blob_bytes_max),
                false => check_blob(row, found.slice(stored), blob_bytes_max),
            };
            match checked {
                Ok(()) => good(row),
                Err(source) => bad(Some(row), damage(backend, pack, source))?,
            }
        }
    }
    check_zeros(backend, pack, filled, pack.index.byte_offset).or_else(|error| bad(None, error))
}

/// Whether a blob lies as it is, and has its digest.
fn is_digested(row: &IndexRow, stored: &[u8]) -> bool {
    row.codec == Codec::Raw && row.decoded_len == row.stored_len && digest(stored) == row.digest
}

fn check_blob(row: &IndexRow, stored: Bytes, blob_bytes_max: u64) -> Result<(), FormatError> {
    let max = blob_bytes_max.min(expansion_max(row.stored_len));
    let in_blob = |source: FormatError| source.in_blob(&row.digest);
    if row.codec.is_delta() {
        return check_delta(&stored, row.codec, row.decoded_len, max).map_err(in_blob);
    }
    let decoded = decode_blob(stored, row.codec, row.decoded_len, max).map_err(in_blob)?;
    if digest(&decoded) != row.digest {
        return Err(bad(row.byte_offset, format!("blob {} does not have its digest", row.digest)));
    }
    Ok(())
}

/// Checks that nothing stands between two blobs.
fn check_zeros(backend: &Backend, pack: &PackInfo, start: u64, end: u64) -> Result<()> {
    for from in (start..end).step_by(WINDOW as usize) {
        let bytes = backend.get_range(&pack_path(pack.name), from..end.min(from + WINDOW))?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(no_zeros(backend, pack, from));
        }
    }
    Ok(())
}

fn no_zeros(backend: &Backend, pack: &PackInfo, byte_offset: u64) -> StoreError {
    damage(backend, pack, bad(byte_offset, "there are no zeros between two blobs".into()))
}

/// Checks header, footer and index segments, and that every row lies within the pack.
pub(crate) fn check_structure(backend: &Backend, pack: &PackInfo) -> Result<Vec<IndexRow>> {
    let path = pack_path(pack.name);
    let (tail, byte_len) = backend.get_tail(&path, PACK_FOOTER_GUESS)?;
    if byte_len != pack.byte_len {
        let reason = format!("it has {byte_len} bytes, the root log says {}", pack.byte_len);
        return Err(damage(backend, pack, bad(byte_len, reason)));
    }
    let header_len = (PACK_HEADER_LEN as u64).min(byte_len);
    let header = PackHeader::decode(&backend.get_range(&path, 0..header_len)?);
    let header = header.map_err(|source| damage(backend, pack, source))?;
    if header.name != pack.name {
        return Err(damage(backend, pack, bad(0, format!("it is pack {} under another name", header.name))));
    }
    let footer = read_footer(backend, pack, tail)?;
    let mut own = Vec::new();
    for (at, segment) in footer.segments.iter().enumerate() {
        let range = segment.place.byte_offset..segment.place.byte_offset + segment.place.byte_len;
        let (head, rows) = decode_segment(&backend.get_range(&path, range)?)
            .map_err(|source| damage(backend, pack, source))?;
        if at > 0 {
            continue;
        }
        if segment.place != pack.index || !head.packs.is_empty() {
            return Err(damage(
                backend,
                pack,
                bad(segment.place.byte_offset, "its index is not where the root log says".into()),
            ));
        }
        let inside = |row: &IndexRow| {
            row.byte_offset >= PACK_HEADER_LEN as u64
                && row.byte_offset + row.stored_len <= pack.index.byte_offset
        };
        if let Some(row) = rows.iter().find(|row| !inside(row)) {
            return Err(damage(
                backend,
                pack,
                bad(row.byte_offset, format!("blob {} lies outside it", row.digest)),
            ));
        }
        own = rows;
    }
    Ok(own)
}

/// What the header of a pack says, and what a root entry would say of the pack.
pub(crate) fn describe_pack(backend: &Backend, name: PackName) -> Result<(PackHeader, PackInfo)> {
    let path = pack_path(name);
    let (tail, byte_len) = backend.get_tail(&path, PACK_FOOTER_GUESS)?;
    let born = TimeId(0);
    let mut pack = PackInfo { name, byte_len, index: SegmentPlace::default(), born, is_synced: false };
    let header = backend.get_range(&path, 0..(PACK_HEADER_LEN as u64).min(byte_len))?;
    let header = PackHeader::decode(&header).map_err(|source| damage(backend, &pack, source))?;
    let footer = read_footer(backend, &pack, tail)?;
    (pack.born, pack.index) = (header.born, footer.segments[0].place);
    Ok((header, pack))
}

fn read_footer(backend: &Backend, pack: &PackInfo, tail: Bytes) -> Result<PackFooter> {
    let tail = match PackFooter::decode(&tail, pack.byte_len) {
        Ok(footer) => return Ok(footer),
        Err(FormatError::NeedMore { needed }) => backend.get_tail(&pack_path(pack.name), needed)?.0,
        Err(source) => return Err(damage(backend, pack, source)),
    };
    PackFooter::decode(&tail, pack.byte_len).map_err(|source| damage(backend, pack, source))
}

fn bad(byte_offset: u64, reason: String) -> FormatError {
    FormatError::Damaged { what: "pack".into(), byte_offset, reason: reason.into() }
}

fn damage(backend: &Backend, pack: &PackInfo, source: FormatError) -> StoreError {
    StoreError::Format { place: backend.label().to_owned(), object: pack_path(pack.name), source }
}
