//! [`StoreOptions`] and [`Compression`].

use crate::log::Trust;
use chipmink_types::{NewGather, RepositoryId};

/// How the blobs that a store writes are compressed. Whatever was chosen earlier stays readable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// As suits the place: on local disk what shrinks to half of its length (chunks of large buffers: to a quarter), in memory
    /// what LZ4 shrinks to three quarters (chunks: to half), elsewhere all that zstd can shrink.
    #[default]
    Automatic,
    /// Nothing is compressed, and there are no chunk deltas.
    None,
    /// All that LZ4 can shrink.
    Lz4,
    /// All that zstd can shrink.
    Zstd,
}

impl Compression {
    /// The names that [`Compression::from_name`] knows.
    pub const NAMES: [&'static str; 4] = ["auto", "none", "lz4", "zstd"];

    /// The compression of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Compression::Automatic, Compression::None, Compression::Lz4, Compression::Zstd];
        Self::NAMES.iter().position(|known| *known == name).map(|at| all[at])
    }
}

/// How a store works. None of it changes what a version holds.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Whether what a publication promises survives a power cut; if not, only the death of the process.
    pub durable: bool,
    /// Bytes that the thesaurus may take.
    pub thesaurus_bytes: u64,
    /// Bytes that decoded small blobs and index blocks may take, each.
    pub cache_bytes: u64,
    /// Bytes after which a transaction begins another pack.
    pub pack_bytes: u64,
    /// Bytes that a repository in memory may take. When they are full a save fails; no version goes away by itself.
    pub memory_bytes: u64,
    /// What the packs of a repository in memory are gathered in.
    pub gather: NewGather,
    /// How blobs are compressed.
    pub compression: Compression,
    /// Whether the caller vouches that nobody else writes, so that a place may be used that does not honour conditional
    /// writes. Elsewhere it changes nothing.
    pub single_writer: bool,
    /// The identity of the repository, if it is made: a copy has that of what it is a copy of. `None`: a new one.
    pub repository: Option<RepositoryId>,
    /// Longest blob that is read, in decoded bytes; a longer one is taken for damage.
    pub blob_bytes_max: u64,
}

impl StoreOptions {
    /// How far what was not synced is believed.
    pub(crate) const fn trust(&self) -> Trust {
        if self.durable { Trust::Checked { blob_bytes_max: self.blob_bytes_max } } else { Trust::Lengths }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            durable: true,
            thesaurus_bytes: 1 << 30,
            cache_bytes: 64 << 20,
            // Well below the largest object that any store takes (5 GiB in one put), and large enough that the count
            // of packs is no cost.
            pack_bytes: 4 << 30,
            memory_bytes: 4 << 30,
            gather: || Box::<Vec<u8>>::default(),
            compression: Compression::Automatic,
            single_writer: false,
            repository: None,
            blob_bytes_max: 64 << 30,
        }
    }
}

/// A number of bytes, alone or with a binary unit: `64MiB`.
pub fn parse_byte_len(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << unit)
}
