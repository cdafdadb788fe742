//! Which codec a blob gets: by what its place wants, and by what has paid so far.
//!
//! Invariants:
//! 1. Whatever is chosen, the blob comes back; a choice costs room or time, never content.
//! 2. Trying costs little where it does not pay: what was tried in vain is tried ever more rarely, and a large blob is
//!    tried on a sample first.

use crate::options::Compression;
use chipmink_format::{Codec, Compressor, Method};
use chipmink_types::BlobKind;

/// What kind of place a repository lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlaceKind {
    /// Files of this machine: room is cheap, and raw chunks can be mapped.
    LocalDisk,
    /// Memory of this process: room is dear, and every copy is felt.
    Memory,
    /// Elsewhere: each byte takes its time.
    Remote,
}

/// LZ4 is tried from this many bytes on: below, a row of the index takes as much as there is to gain.
const LZ4_FROM: usize = 256;
/// As [`LZ4_FROM`]. Measured in CPU time on a core that compresses 64 KiB of pods at 240 MB/s: zstd at level 1 takes 7 us for
/// any blob that is not noise, and below 1 KiB it rarely halves one.
const ZSTD_FROM: usize = 1024;
/// From this many bytes on zstd goes before LZ4, as setting it up costs little beside the work; and samples are tried
/// before the whole.
const LARGE_FROM: usize = 16 * 1024;
/// Failures in a row that are forgiven before trying becomes rarer.
const PATIENCE: u8 = 4;
/// At the rarest, one in so many is tried.
const RAREST: u8 = 64;

/// How much of a blob may be left, in sixteenths; 0: the method is not tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rule {
    lz4: usize,
    zstd: usize,
}

/// The rules of a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tariff {
    chunk: Rule,
    other: Rule,
    /// How much of what would be stored else may be left of a chunk delta, in sixteenths; 0: there are none.
    delta: usize,
}

impl Tariff {
    fn of(place: PlaceKind, wanted: Compression) -> Self {
        let same = |lz4, zstd, delta| Tariff { chunk: Rule { lz4, zstd }, other: Rule { lz4, zstd }, delta };
        let automatic = match place {
            // A chunk that is compressed cannot be mapped, so it must shrink a lot. LZ4 is taken where it leaves zstd
            // nothing to gain, as it takes a tenth of the time.
            PlaceKind::LocalDisk => {
                Tariff { chunk: Rule { lz4: 0, zstd: 4 }, other: Rule { lz4: 4, zstd: 8 }, delta: 8 }
            }
            PlaceKind::Memory => {
                Tariff { chunk: Rule { lz4: 8, zstd: 0 }, other: Rule { lz4: 12, zstd: 0 }, delta: 8 }
            }
            // A base would have to be fetched.
            PlaceKind::Remote => same(0, 14, 0),
        };
        match wanted {
            Compression::Automatic => automatic,
            Compression::None => same(0, 0, 0),
            Compression::Lz4 => same(15, 0, automatic.delta),
            Compression::Zstd => same(0, 15, automatic.delta),
        }
    }

    const fn rule(&self, kind: BlobKind) -> Rule {
        if matches!(kind, BlobKind::Chunk) { self.chunk } else { self.other }
    }
}

/// Whether something that may be in vain is tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Backoff {
    failures: u8,
    wait: u8,
}

impl Backoff {
    /// Whether it is tried now. To be asked once each time.
    pub(crate) const fn is_due(&mut self) -> bool {
        if self.wait == 0 {
            return true;
        }
        self.wait -= 1;
        false
    }

    /// What became of it.
    pub(crate) const fn note(&mut self, has_paid: bool) {
        if has_paid {
            *self = Backoff { failures: 0, wait: 0 };
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if let Some(over) = self.failures.checked_sub(PATIENCE) {
            let rarity = 1u8 << if over < 6 { over } else { 6 };
            self.wait = if rarity < RAREST { rarity } else { RAREST } - 1;
        }
    }
}

/// Chooses codecs and remembers what paid.
#[derive(Debug)]
pub(crate) struct Chooser {
    tariff: Tariff,
    compressor: Compressor,
    /// By kind and whether the blob is large.
    memory: [[Backoff; 2]; KINDS],
}

const KINDS: usize = 6;

impl Chooser {
    pub(crate) fn new(place: PlaceKind, wanted: Compression) -> Self {
        let tariff = Tariff::of(place, wanted);
        Chooser { tariff, compressor: Compressor::new(), memory: Default::default() }
    }

    /// What is known of chunks when a region begins: no worse than that a look now and then is worth it.
    pub(crate) fn chunk_outlook(&self) -> Backoff {
        let known = self.memory[BlobKind::Chunk as usize][1];
        Backoff { failures: known.failures.min(PATIENCE + 2), wait: 0 }
    }

    /// Takes over what a region has taught.
    pub(crate) fn note_chunks(&mut self, known: Backoff) {
        self.memory[BlobKind::Chunk as usize][1] = known;
    }

    /// How to store a blob.
    pub(crate) fn encode<'a>(&'a mut self, kind: BlobKind, bytes: &'a [u8]) -> (Codec, &'a [u8]) {
        let is_large = usize::from(bytes.len() >= LARGE_FROM);
        let mut backoff = self.memory[kind as usize][is_large];
        let chosen = self.choose(kind, bytes, &mut backoff);
        self.memory[kind as usize][is_large] = backoff;
        self.stored(chosen, bytes)
    }

    /// How to store a chunk of a region of which `known` is known.
    pub(crate) fn encode_chunk<'a>(&'a mut self, bytes: &'a [u8], known: &mut Backoff) -> (Codec, &'a [u8]) {
        let chosen = self.choose(BlobKind::Chunk, bytes, known);
        self.stored(chosen, bytes)
    }

    fn stored<'a>(&'a self, chosen: Option<Method>, bytes: &'a [u8]) -> (Codec, &'a [u8]) {
        chosen.map_or((Codec::Raw, bytes), |method| (method.codec(), self.compressor.output()))
    }

    /// The method by which the compressor has just compressed it; `None`: it stays raw.
    fn choose(&mut self, kind: BlobKind, bytes: &[u8], backoff: &mut Backoff) -> Option<Method> {
        let Rule { lz4, zstd } = self.tariff.rule(kind);
        let is_large = bytes.len() >= LARGE_FROM;
        let has_lz4 = lz4 > 0 && bytes.len() >= LZ4_FROM && (!is_large || zstd == 0);
        let has_zstd = zstd > 0 && bytes.len() >= ZSTD_FROM;
        if !(has_lz4 || has_zstd) || !backoff.is_due() {
            return None;
        }
        let tries = [(Method::Lz4, lz4, has_lz4), (Method::Zstd, zstd, has_zstd)];
        let chosen = tries.into_iter().filter(|(.., is_tried)| *is_tried).find(|(method, share, _)| {
            let limit = bytes.len() / 16 * share;
            (!is_large || self.compressor.promises(*method, bytes, limit))
                && self.compressor.compress(*method, bytes, limit).is_some()
        });
        backoff.note(chosen.is_some());
        chosen.map(|(method, ..)| method)
    }

    /// Whether chunk deltas are made here.
    pub(crate) const fn has_deltas(&self) -> bool {
        self.tariff.delta > 0
    }

    /// A chunk as a delta, if that pays; `is_compressible`: it would be smaller by itself, too.
    pub(crate) fn encode_delta(
        &mut self,
        bytes: &[u8],
        base: &[u8],
        is_compressible: bool,
    ) -> Option<(Codec, &[u8])> {
        let share = if is_compressible { self.tariff.delta.min(1) } else { self.tariff.delta };
        self.compressor.compress_delta(bytes, base, bytes.len() * share / 16)
    }

    /// A root state as a zstd frame, if that halves it.
    pub(crate) fn encode_state(&mut self, bytes: &[u8]) -> Option<&[u8]> {
        self.compressor.compress(Method::Zstd, bytes, bytes.len() / 2)
    }

    /// Lets go of what a large blob has made large.
    pub(crate) fn trim(&mut self) {
        self.compressor.trim();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 4] =
        [Compression::Automatic, Compression::None, Compression::Lz4, Compression::Zstd];

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// Noise of which each byte stands so many times.
    fn repeated(len: usize, times: usize) -> Vec<u8> {
        noise(len / times + 1, 7)
            .iter()
            .flat_map(|byte| std::iter::repeat_n(*byte, times))
            .take(len)
            .collect()
    }

    #[test]
    fn each_place_and_wish_has_its_codecs() {
        let pod: Vec<u8> = noise(4000, 3).iter().map(|byte| byte % 3).collect();
        let chunk = repeated(65_536, 8);
        let codecs = |place, wanted| {
            let mut chooser = Chooser::new(place, wanted);
            let pod = chooser.encode(BlobKind::Pod, &pod).0;
            let tiny = chooser.encode(BlobKind::Table, &[5; 300]).0;
            (pod, tiny, chooser.encode_chunk(&chunk, &mut Backoff::default()).0, chooser.has_deltas())
        };
        use Codec::{Lz4, Raw, Zstd};
        for (place, wanted, expected) in [
            (PlaceKind::LocalDisk, Compression::Automatic, (Zstd, Lz4, Zstd, true)),
            (PlaceKind::LocalDisk, Compression::None, (Raw, Raw, Raw, false)),
            (PlaceKind::LocalDisk, Compression::Lz4, (Lz4, Lz4, Lz4, true)),
            (PlaceKind::LocalDisk, Compression::Zstd, (Zstd, Raw, Zstd, true)),
            (PlaceKind::Memory, Compression::Automatic, (Lz4, Lz4, Lz4, true)),
            (PlaceKind::Remote, Compression::Automatic, (Zstd, Raw, Zstd, false)),
            (PlaceKind::Remote, Compression::Lz4, (Lz4, Lz4, Lz4, false)),
        ] {
            assert_eq!(codecs(place, wanted), expected, "{place:?} {wanted:?}");
        }
        for wanted in ALL {
            let mut chooser = Chooser::new(PlaceKind::LocalDisk, wanted);
            assert_eq!(chooser.encode(BlobKind::Pod, &noise(5000, 1)).0, Raw, "noise stays as it is");
            assert_eq!(chooser.encode(BlobKind::Pod, b"short").0, Raw);
        }
    }

    #[test]
    fn a_chunk_on_local_disk_is_compressed_only_if_a_quarter_is_left() {
        let mut chooser = Chooser::new(PlaceKind::LocalDisk, Compression::Automatic);
        let mut encode = |bytes: &[u8]| chooser.encode_chunk(bytes, &mut Backoff::default()).0;
        assert_eq!(encode(&repeated(65_536, 3)), Codec::Raw, "it would be halved, but not mapped");
        assert_eq!(encode(&repeated(65_536, 20)), Codec::Zstd);
    }

    #[test]
    fn what_never_pays_is_hardly_tried() {
        let mut chooser = Chooser::new(PlaceKind::LocalDisk, Compression::Automatic);
        let mut backoff = Backoff::default();
        let mut tried = 0;
        for seed in 0..2000 {
            let before = backoff;
            chooser.choose(BlobKind::Pod, &noise(2000, seed), &mut backoff);
            tried += usize::from(before.wait == 0);
        }
        assert!(tried < 50, "{tried} of 2,000");
        // Once it pays it is tried each time.
        let good = repeated(2000, 10);
        let codecs: Vec<Option<Method>> =
            (0..100).map(|_| chooser.choose(BlobKind::Pod, &good, &mut backoff)).collect();
        let first = codecs.iter().position(Option::is_some).unwrap();
        assert!(first < usize::from(RAREST) && codecs[first..].iter().all(Option::is_some));
    }

    #[test]
    fn a_change_of_content_is_found_by_a_new_region() {
        let mut chooser = Chooser::new(PlaceKind::LocalDisk, Compression::Automatic);
        let mut known = chooser.chunk_outlook();
        for seed in 0..1000 {
            assert_eq!(chooser.encode_chunk(&noise(65_536, seed), &mut known).0, Codec::Raw);
        }
        chooser.note_chunks(known);
        let mut next = chooser.chunk_outlook();
        let good = vec![7; 65_536];
        assert_eq!(chooser.encode_chunk(&good, &mut next).0, Codec::Zstd, "its first chunk is tried");
    }
}
