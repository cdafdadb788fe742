//! Streams: what `dumps` returns, the pods of one object with everything that they need.
//!
//! ```text
//! 0xC1 "chm" 1 flags
//! varint length of the head
//! head:   varint root pod, varint root export slot
//!         varint count of pods, for each:
//!           varint length of its bytes
//!           exports, dependencies, globals, shapes: varint count and items
//!           u8 has side record, varint length and bytes
//!           regions: varint count, (u8 0 inline or 1 out of band, varint byte length, views)…
//!         extensions
//! the bytes of the inline regions in order, pod by pod; the bytes of the pods in order
//! ```
//!
//! Everything variable but short stands in the head, so a writer that knows the lengths can lay out the rest and copy
//! each buffer once. Out-of-band buffers are numbered in order of their regions. The first byte is no pickle opcode.
//!
//! Invariants: the head accounts for every byte behind it; a dependency is another pod of the stream.

use crate::descriptor::{global, put_global, put_strs, strs};
use crate::error::{FormatError, Result};
use crate::extensions::Extensions;
use crate::row::parts::{class, export, put_class, put_export, put_views, views};
use crate::wire::{Input, put_bytes, put_varint};
use chipmink_types::{Export, GlobalName, ShapeRecord, ViewRecord};
use std::borrow::Cow;

/// First bytes of a stream; its version follows.
pub const STREAM_MAGIC: &[u8; 4] = b"\xc1chm";
const VERSION: u8 = 1;

/// A region of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamRegion<'a> {
    /// Its bytes; `None`: it is handed over out of band.
    pub content: Option<Cow<'a, [u8]>>,
    /// Its length in bytes, also out of band.
    pub byte_len: u64,
    /// Its views, by ordinal.
    pub views: Vec<ViewRecord>,
}

/// A pod of a stream, with what the ordinals in its bytes mean.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StreamPod<'a> {
    /// Its bytes.
    pub bytes: Cow<'a, [u8]>,
    /// Export slot to what it offers.
    pub exports: Vec<Export>,
    /// Dependency slot to position in [`StreamParts::pods`].
    pub dependencies: Vec<u32>,
    /// Global ordinal to name.
    pub globals: Vec<GlobalName>,
    /// Shape ordinal to shape.
    pub shapes: Vec<ShapeRecord>,
    /// Its side record.
    pub side: Option<Cow<'a, [u8]>>,
    /// Region ordinal to region.
    pub regions: Vec<StreamRegion<'a>>,
}

/// Everything of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StreamParts<'a> {
    /// The pods, in run order.
    pub pods: Vec<StreamPod<'a>>,
    /// Position of the pod that holds the object, and its export slot there.
    pub root: (u32, u32),
    /// What later versions add.
    pub extensions: Extensions,
}

/// The bytes of a stream up to its regions and pods, which are to follow: inline regions in order, then pods in order.
pub fn encode_stream_head(parts: &StreamParts<'_>) -> Vec<u8> {
    let mut head = Vec::with_capacity(128);
    put_varint(&mut head, parts.root.0.into());
    put_varint(&mut head, parts.root.1.into());
    put_varint(&mut head, parts.pods.len() as u64);
    for pod in &parts.pods {
        put_pod(pod, &mut head);
    }
    parts.extensions.encode(&mut head);
    let mut out = Vec::with_capacity(head.len() + 16);
    out.extend_from_slice(STREAM_MAGIC);
    out.extend_from_slice(&[VERSION, 0]);
    put_bytes(&mut out, &head);
    out
}

/// Bytes that follow the head.
pub fn stream_body_len(parts: &StreamParts<'_>) -> usize {
    bodies(parts).map(<[u8]>::len).sum()
}

/// What follows the head, piece by piece.
pub fn bodies<'p>(parts: &'p StreamParts<'_>) -> impl Iterator<Item = &'p [u8]> {
    let regions =
        parts.pods.iter().flat_map(|pod| &pod.regions).filter_map(|region| region.content.as_deref());
    regions.chain(parts.pods.iter().map(|pod| &*pod.bytes))
}

/// The bytes of a stream.
pub fn encode_stream(parts: &StreamParts<'_>) -> Vec<u8> {
    let mut out = encode_stream_head(parts);
    out.reserve_exact(stream_body_len(parts));
    bodies(parts).for_each(|body| out.extend_from_slice(body));
    out
}

/// Decodes a stream without copying its buffers.
///
/// # Errors
/// [`FormatError::Pickle`] when the bytes are a pickle; else when they are no stream, damaged, or of a later version.
pub fn decode_stream(bytes: &[u8]) -> Result<StreamParts<'_>> {
    let (mut parts, lens, mut input) = decode_stream_head(bytes)?;
    let mut body = |len: u64| input.take(usize::try_from(len).unwrap_or(usize::MAX)).map(Cow::Borrowed);
    for region in parts.pods.iter_mut().flat_map(|pod| &mut pod.regions) {
        if region.content.is_some() {
            region.content = Some(body(region.byte_len)?);
        }
    }
    for (pod, len) in parts.pods.iter_mut().zip(lens) {
        pod.bytes = body(len)?;
    }
    input.end()?;
    Ok(parts)
}

/// The length in bytes of the stream that `bytes` begin with; they must hold at least its head.
///
/// # Errors
/// As [`decode_stream`].
pub fn stream_len(bytes: &[u8]) -> Result<u64> {
    let (parts, lens, input) = decode_stream_head(bytes)?;
    let regions = parts.pods.iter().flat_map(|pod| &pod.regions).filter(|region| region.content.is_some());
    let body = regions.map(|region| region.byte_len).chain(lens).try_fold(0u64, u64::checked_add);
    let head = (bytes.len() - input.left()) as u64;
    body.and_then(|body| body.checked_add(head))
        .ok_or_else(|| input.damaged("it claims to be longer than 2^64 bytes"))
}

/// The stream with empty bodies, the lengths of the pods, and what follows the head.
fn decode_stream_head(bytes: &[u8]) -> Result<(StreamParts<'_>, Vec<u64>, Input<'_>)> {
    if !bytes.starts_with(STREAM_MAGIC) {
        return Err(not_a_stream(bytes));
    }
    let mut input = Input::new("chipmink stream", bytes);
    input.take(STREAM_MAGIC.len())?;
    let (version, flags) = (input.u8()?, input.u8()?);
    if version != VERSION || flags != 0 {
        return Err(input.unsupported(format!("version {version}, flags {flags:#04x}")));
    }
    let mut head = Input::new("head of a chipmink stream", input.bytes()?);
    let root = (head.varint_u32()?, head.varint_u32()?);
    let count = head.count(8)?;
    let mut pods = Vec::with_capacity(count);
    let mut lens = Vec::with_capacity(count);
    for _ in 0..count {
        let (pod, len) = pod(&mut head, count)?;
        pods.push(pod);
        lens.push(len);
    }
    let extensions = head.extensions()?;
    if root.0 as usize >= count {
        return Err(head.damaged(format!("its object is in pod {} of {count}", root.0)));
    }
    head.end()?;
    Ok((StreamParts { pods, root, extensions }, lens, input))
}

fn put_pod(pod: &StreamPod<'_>, out: &mut Vec<u8>) {
    put_varint(out, pod.bytes.len() as u64);
    put_varint(out, pod.exports.len() as u64);
    pod.exports.iter().for_each(|item| put_export(out, *item));
    put_varint(out, pod.dependencies.len() as u64);
    pod.dependencies.iter().for_each(|other| put_varint(out, (*other).into()));
    put_varint(out, pod.globals.len() as u64);
    pod.globals.iter().for_each(|name| put_global(out, name));
    put_varint(out, pod.shapes.len() as u64);
    for shape in &pod.shapes {
        put_class(out, shape.class);
        put_strs(out, &shape.dict_names);
        put_strs(out, &shape.slot_names);
    }
    out.push(u8::from(pod.side.is_some()));
    if let Some(side) = &pod.side {
        put_bytes(out, side);
    }
    put_varint(out, pod.regions.len() as u64);
    for region in &pod.regions {
        debug_assert!(region.content.as_ref().is_none_or(|content| content.len() as u64 == region.byte_len));
        out.push(u8::from(region.content.is_none()));
        put_varint(out, region.byte_len);
        put_views(out, &region.views);
    }
}

/// The pod without its bytes, and their length.
fn pod<'a>(input: &mut Input<'a>, pods: usize) -> Result<(StreamPod<'a>, u64)> {
    let len = input.varint()?;
    let count = input.count(1)?;
    let exports = (0..count).map(|_| export(input)).collect::<Result<Vec<_>>>()?;
    let count = input.count(1)?;
    let mut dependencies = Vec::with_capacity(count);
    for _ in 0..count {
        let other = input.varint_u32()?;
        if other as usize >= pods {
            return Err(input.damaged(format!("a dependency on pod {other} of {pods}")));
        }
        dependencies.push(other);
    }
    let count = input.count(2)?;
    let globals = (0..count).map(|_| global(input)).collect::<Result<Vec<_>>>()?;
    let count = input.count(3)?;
    let mut shapes = Vec::with_capacity(count);
    for _ in 0..count {
        shapes.push(ShapeRecord { class: class(input)?, dict_names: strs(input)?, slot_names: strs(input)? });
    }
    let side = if input.bool()? { Some(Cow::Borrowed(input.bytes()?)) } else { None };
    let count = input.count(3)?;
    let mut regions = Vec::with_capacity(count);
    for _ in 0..count {
        let content = if input.bool()? { None } else { Some(Cow::Borrowed(&[][..])) };
        let byte_len = input.varint()?;
        let views = views(input)?;
        if let Some(view) = views.iter().find(|view| view.byte_offset > byte_len) {
            return Err(input.damaged(format!("a view at byte {} of {byte_len}", view.byte_offset)));
        }
        regions.push(StreamRegion { content, byte_len, views });
    }
    let pod = StreamPod { bytes: Cow::Borrowed(&[]), exports, dependencies, globals, shapes, side, regions };
    Ok((pod, len))
}

/// Pickles of protocol 2 and later begin with PROTO and a protocol number; older ones end with STOP.
fn not_a_stream(bytes: &[u8]) -> FormatError {
    let is_new_pickle = matches!(bytes, [0x80, 2..=5, ..]);
    let is_old_pickle = bytes.last() == Some(&b'.') && bytes.first().is_some_and(u8::is_ascii);
    if is_new_pickle || is_old_pickle {
        return FormatError::Pickle;
    }
    FormatError::NotChipmink { what: "chipmink stream", found: bytes[..bytes.len().min(8)].to_vec() }
}

#[cfg(test)]
mod tests;
