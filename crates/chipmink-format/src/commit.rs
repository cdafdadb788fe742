//! Commits: the immutable record of one save.
//!
//! ```text
//! 'C' 1  parents: varint count, digest…
//!        digest of the manifest's root
//!        i64 saved_at
//!        text message, str author, u8 has code, text code
//!        statistics: varint count, (str name, str value)… by ascending name
//!        extensions
//! text = varint 2 * length, bytes | varint 2 * length + 1, digest of a blob of so many bytes
//! ```
//!
//! A commit is identified by the digest of these bytes. Its number in a repository is not among them.

use crate::error::{FormatError, Result};
use crate::extensions::Extensions;
use crate::wire::{Input, put_digest, put_str, put_varint};
use chipmink_digest::digest;
use chipmink_types::{BlobKind, BlobSink, BlobSource, DIGEST_LEN, Digest};
use std::collections::BTreeMap;

const LETTER: u8 = b'C';
/// Longer texts leave the commit as blobs, so that a root entry stays small.
pub const TEXT_INLINE_MAX: usize = 512;

/// A text, or the blob that holds it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Text {
    /// The text.
    Inline(String),
    /// The blob of its UTF-8 bytes.
    Stored {
        /// The blob.
        digest: Digest,
        /// Its length in bytes.
        byte_len: u64,
    },
}

impl Default for Text {
    fn default() -> Self {
        Text::Inline(String::new())
    }
}

impl Text {
    /// Keeps a short text, puts a long one into `sink`.
    ///
    /// # Errors
    /// When the sink fails.
    pub fn store(text: &str, sink: &mut dyn BlobSink) -> Result<Self> {
        if text.len() <= TEXT_INLINE_MAX {
            return Ok(Text::Inline(text.to_owned()));
        }
        let name = digest(text.as_bytes());
        sink.put(BlobKind::Text, name, text.as_bytes())?;
        Ok(Text::Stored { digest: name, byte_len: text.len() as u64 })
    }

    /// The text.
    ///
    /// # Errors
    /// When its blob is missing, of another length, or not UTF-8.
    pub fn load(&self, source: &dyn BlobSource) -> Result<String> {
        match self {
            Text::Inline(text) => Ok(text.clone()),
            Text::Stored { digest, byte_len } => {
                let bytes = source.get(digest)?;
                let text = std::str::from_utf8(&bytes).ok().filter(|_| bytes.len() as u64 == *byte_len);
                text.map(str::to_owned).ok_or_else(|| {
                    let reason = format!("it is not UTF-8 of {byte_len} bytes").into();
                    FormatError::Damaged { what: "text".into(), byte_offset: 0, reason }.in_blob(digest)
                })
            }
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Text::Inline(text) => {
                put_varint(out, (text.len() as u64) << 1);
                out.extend_from_slice(text.as_bytes());
            }
            Text::Stored { digest, byte_len } => {
                put_varint(out, byte_len << 1 | 1);
                put_digest(out, digest);
            }
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<Self> {
        let number = input.varint()?;
        let byte_len = number >> 1;
        if number & 1 == 1 {
            return Ok(Text::Stored { digest: input.digest()?, byte_len });
        }
        let bytes = input.take(usize::try_from(byte_len).unwrap_or(usize::MAX))?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Text::Inline(text.to_owned())),
            Err(_) => Err(input.damaged("a text is not UTF-8")),
        }
    }
}

/// The immutable record of one save.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Digests of the commits that it follows; the first is the one whose branch it continues.
    pub parents: Vec<Digest>,
    /// Root of its manifest.
    pub manifest: Digest,
    /// When it was saved, in microseconds since 1970-01-01 UTC, by the saver's clock.
    pub saved_at: i64,
    /// What the user said of it.
    pub message: Text,
    /// Who saved it, as far as the user said.
    pub author: String,
    /// The code that ran before it.
    pub code: Option<Text>,
    /// Figures of the save, e.g. objects walked.
    pub statistics: BTreeMap<String, String>,
    /// What later versions add.
    pub extensions: Extensions,
}

impl Commit {
    /// The commit's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![LETTER, 1];
        put_varint(&mut out, self.parents.len() as u64);
        self.parents.iter().for_each(|parent| put_digest(&mut out, parent));
        put_digest(&mut out, &self.manifest);
        out.extend_from_slice(&self.saved_at.to_le_bytes());
        self.message.encode(&mut out);
        put_str(&mut out, &self.author);
        out.push(u8::from(self.code.is_some()));
        if let Some(code) = &self.code {
            code.encode(&mut out);
        }
        put_varint(&mut out, self.statistics.len() as u64);
        for (name, value) in &self.statistics {
            put_str(&mut out, name);
            put_str(&mut out, value);
        }
        self.extensions.encode(&mut out);
        out
    }

    /// Decodes what [`Commit::encode`] made.
    ///
    /// # Errors
    /// When the bytes are damaged or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut input = Input::with_header("commit", LETTER, bytes)?;
        let count = input.count(DIGEST_LEN)?;
        let parents = (0..count).map(|_| input.digest()).collect::<Result<Vec<_>>>()?;
        let manifest = input.digest()?;
        let saved_at = input.i64()?;
        let message = Text::decode(&mut input)?;
        let author = input.string()?;
        let code = if input.bool()? { Some(Text::decode(&mut input)?) } else { None };
        let mut statistics = BTreeMap::new();
        for _ in 0..input.count(2)? {
            let name = input.string()?;
            if statistics.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(input.damaged("statistics do not ascend"));
            }
            statistics.insert(name, input.string()?);
        }
        let extensions = input.extensions()?;
        input.end()?;
        Ok(Commit { parents, manifest, saved_at, message, author, code, statistics, extensions })
    }

    /// Its identity.
    pub fn digest(&self) -> Digest {
        digest(&self.encode())
    }
}

#[cfg(test)]
mod tests;
