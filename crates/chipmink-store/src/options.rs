//! [`StoreOptions`].

use crate::log::Trust;

/// How a store works. None of it changes what is stored.
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
            blob_bytes_max: 64 << 30,
        }
    }
}
