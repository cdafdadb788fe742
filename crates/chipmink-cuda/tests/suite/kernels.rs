//! Each kernel alone, against what it must equal.

use super::emulator::{Emulator, emulator};
use chipmink_digest::digest;
use chipmink_kernels::layout::{
    COMPACT_BLOCK, COMPARE_BLOCK, Chunk, DIGEST_BLOCK, Dirty, GATHER_BLOCK, RawDigest, Totals,
};
use chipmink_testkit::Random;

fn address<T>(list: &[T]) -> u64 {
    list.as_ptr() as u64
}

/// Of what a kernel writes to.
fn output<T>(list: &mut [T]) -> u64 {
    list.as_mut_ptr() as u64
}

fn expected(bytes: &[u8]) -> RawDigest {
    let mut canonical = [0; 16];
    canonical.copy_from_slice(&digest(bytes).as_bytes()[1..]);
    RawDigest::from_canonical(canonical)
}

/// Pieces of a buffer as descriptors, whose slots are in reverse.
fn chunks_of(buffer: &[u8], pieces: &[(usize, usize)]) -> Vec<Chunk> {
    let last = pieces.len() as u32 - 1;
    let chunk = |(i, (start, len)): (usize, &(usize, usize))| Chunk {
        address: address(&buffer[*start..]),
        byte_len: *len as u32,
        slot: last - i as u32,
    };
    pieces.iter().enumerate().map(chunk).collect()
}

fn digests_of(emulator: &Emulator, chunks: &[Chunk], block: u32) -> Vec<RawDigest> {
    let count = chunks.len() as u32;
    let mut digests = vec![RawDigest::UNKNOWN; chunks.len()];
    let grid = count.div_ceil(block / 32);
    let parameters = [address(chunks), count.into(), output(&mut digests)];
    emulator.launch("chipmink_digest", grid, block, &parameters);
    digests
}

#[test]
fn digests_equal_those_of_the_processor_for_every_length_and_alignment() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(5);
    let buffer = random.bytes(1 << 20);
    let mut pieces: Vec<(usize, usize)> = (0..2200).map(|len| (random.below(700), len)).collect();
    // Both sides of each end of a stripe, a block and a group of blocks, at each alignment.
    for end in [1024, 8192, 16384, 65536] {
        for shift in 0..16 {
            pieces.extend([-65i64, -64, -1, 0, 1, 64, 65].map(|by| (shift, (end as i64 + by) as usize)));
        }
    }
    pieces.extend((0..300).map(|_| (random.below(1000), random.below(70_000))));
    let chunks = chunks_of(&buffer, &pieces);
    for block in [DIGEST_BLOCK, 32] {
        let digests = digests_of(&emulator, &chunks, block);
        for (chunk, (start, len)) in chunks.iter().zip(&pieces) {
            let found = digests[chunk.slot as usize];
            assert_eq!(found, expected(&buffer[*start..start + len]), "{len} bytes from {start} on");
        }
    }
}

#[test]
fn a_digest_depends_on_every_byte_of_a_long_chunk() {
    let Some(emulator) = emulator() else { return };
    let mut buffer = Random::new(6).bytes(20_000);
    let pieces = [(3, 19_990)];
    let chunks = chunks_of(&buffer, &pieces);
    let before = digests_of(&emulator, &chunks, 32);
    for at in (3..19_993).step_by(997) {
        buffer[at] ^= 1;
        assert_ne!(digests_of(&emulator, &chunks, 32), before, "byte {at}");
        buffer[at] ^= 1;
    }
    assert_eq!(digests_of(&emulator, &chunks, 32), before);
}

/// Compare and compact, and what they must come to.
fn dirty_of(
    emulator: &Emulator,
    chunks: &[Chunk],
    digests: &[RawDigest],
    previous: &[RawDigest],
    capacity: u64,
) -> (Totals, Vec<Dirty>) {
    let count = chunks.len() as u32;
    let mut masks = vec![u32::MAX; count.div_ceil(32) as usize];
    let grid = count.div_ceil(COMPARE_BLOCK);
    let tables = [address(chunks), count.into(), address(digests), address(previous), output(&mut masks)];
    emulator.launch("chipmink_compare", grid, COMPARE_BLOCK, &tables);
    let unset = Dirty { byte_offset: u64::MAX, number: u32::MAX, byte_len: 0, digest: RawDigest::UNKNOWN };
    let mut dirty = vec![unset; chunks.len()];
    let mut totals = [Totals::default()];
    let tables = [
        address(chunks),
        count.into(),
        address(digests),
        address(&masks),
        capacity,
        output(&mut dirty),
        output(&mut totals),
    ];
    emulator.launch("chipmink_compact", 1, COMPACT_BLOCK, &tables);
    let found = totals[0].dirty_count as usize;
    assert!(dirty[found..].iter().all(|entry| *entry == unset), "nothing is written beyond the list");
    (totals[0], dirty[..found].to_vec())
}

#[test]
fn dirty_chunks_are_listed_in_order_with_their_places() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(7);
    for (count, one_in) in [(1, 1), (31, 2), (33, 1), (1000, 50), (40_000, 3), (70_000, 5000), (64, 1000)] {
        let chunks: Vec<Chunk> = (0..count)
            .map(|i| Chunk {
                address: 0,
                byte_len: random.below(70_000) as u32,
                slot: (count - 1 - i) as u32,
            })
            .collect();
        let digests: Vec<RawDigest> =
            (0..count).map(|_| RawDigest { low: random.next_u64(), high: random.next_u64() }).collect();
        let mut previous = digests.clone();
        for slot in &mut previous {
            if random.below(one_in) != 0 {
                continue;
            }
            // Some of them differ in one half alone.
            match random.below(3) {
                0 => *slot = RawDigest::UNKNOWN,
                1 => slot.low ^= 1,
                _ => slot.high ^= 1 << 63,
            }
        }
        let mut list = Vec::new();
        let mut byte_offset = 0;
        for (number, chunk) in chunks.iter().enumerate() {
            let slot = chunk.slot as usize;
            if digests[slot] != previous[slot] {
                let digest = digests[slot];
                list.push(Dirty { byte_offset, number: number as u32, byte_len: chunk.byte_len, digest });
                byte_offset += u64::from(chunk.byte_len.next_multiple_of(16));
            }
        }
        for capacity in [0, byte_offset / 2, byte_offset, u64::MAX] {
            let end = |entry: &Dirty| entry.byte_offset + u64::from(entry.byte_len.next_multiple_of(16));
            let fitting = list.iter().filter(|entry| end(entry) <= capacity).count();
            let (totals, found) = dirty_of(&emulator, &chunks, &digests, &previous, capacity);
            assert_eq!(found, list, "{count} chunks");
            assert_eq!(totals.byte_len, byte_offset);
            assert_eq!(totals.fitting_count as usize, fitting);
        }
    }
}

#[test]
fn gathered_chunks_lie_at_their_places_and_nothing_else_is_written() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(8);
    let buffer = random.bytes(1 << 20);
    let pieces: Vec<(usize, usize)> = (0..80)
        .map(|i| (random.below(900_000), if i < 40 { random.below(80) } else { random.below(66_000) }))
        .collect();
    let chunks = chunks_of(&buffer, &pieces);
    let mut list = Vec::new();
    let mut byte_offset = 0u64;
    for (number, chunk) in chunks.iter().enumerate().step_by(2) {
        let digest = RawDigest::UNKNOWN;
        list.push(Dirty { byte_offset, number: number as u32, byte_len: chunk.byte_len, digest });
        byte_offset += u64::from(chunk.byte_len.next_multiple_of(16));
    }
    let totals = [Totals { byte_len: byte_offset, dirty_count: list.len() as u32, fitting_count: 0 }];
    for (first, capacity) in [(0, byte_offset), (0, byte_offset - 1), (11, byte_offset / 2), (39, 0)] {
        let base = list[first].byte_offset;
        // Aligned to 16 bytes, as a staging area is.
        let mut staging = vec![[0xeeu8; 16]; (capacity / 16 + 2) as usize];
        let part = [
            address(&chunks),
            address(&list),
            address(&totals),
            first as u64,
            base,
            output(&mut staging).next_multiple_of(16),
            capacity,
        ];
        emulator.launch("chipmink_gather", 3, GATHER_BLOCK, &part);
        let mut expected_staging = vec![0xee; staging.len() * 16];
        let mut confirmed = list.clone();
        let start = (address(&staging).next_multiple_of(16) - address(&staging)) as usize;
        for entry in list[first..].iter().enumerate().take_while(|(_, entry)| {
            entry.byte_offset - base + u64::from(entry.byte_len.next_multiple_of(16)) <= capacity
        }) {
            let (i, entry) = entry;
            let (from, len) = pieces[entry.number as usize];
            let to = start + (entry.byte_offset - base) as usize;
            expected_staging[to..to + len].copy_from_slice(&buffer[from..from + len]);
            confirmed[first + i].digest = expected(&buffer[from..from + len]);
        }
        assert!(staging.concat() == expected_staging, "from {first} on, {capacity} bytes");
        let mut digests = vec![RawDigest::UNKNOWN; chunks.len()];
        let mut entries = list.clone();
        let [chunk_table, _, totals, first, base, staged, capacity] = part;
        let part =
            [chunk_table, output(&mut entries), totals, first, base, staged, capacity, output(&mut digests)];
        emulator.launch("chipmink_confirm", 2, DIGEST_BLOCK, &part);
        assert_eq!(entries, confirmed);
        for entry in &entries {
            assert_eq!(digests[chunks[entry.number as usize].slot as usize], entry.digest);
        }
    }
}

#[test]
fn adopting_changes_the_slots_of_the_descriptors_alone() {
    let Some(emulator) = emulator() else { return };
    let mut random = Random::new(9);
    let word = |random: &mut Random| RawDigest { low: random.next_u64(), high: random.next_u64() };
    let digests: Vec<RawDigest> = (0..600).map(|_| word(&mut random)).collect();
    let previous: Vec<RawDigest> = (0..600).map(|_| word(&mut random)).collect();
    let chunks: Vec<Chunk> =
        (0..600).step_by(2).map(|slot| Chunk { address: 0, byte_len: 1, slot }).collect();
    let mut table = previous.clone();
    let count = chunks.len() as u32;
    let parameters = [address(&chunks), count.into(), address(&digests), output(&mut table)];
    emulator.launch("chipmink_adopt", count.div_ceil(COMPARE_BLOCK), COMPARE_BLOCK, &parameters);
    for slot in 0..600 {
        assert_eq!(table[slot], if slot % 2 == 0 { digests[slot] } else { previous[slot] });
    }
}

#[test]
fn the_word_is_written_only_if_all_was_staged() {
    let Some(emulator) = emulator() else { return };
    for (dirty_count, fitting_count, expected) in [(3, 3, 7), (0, 0, 7), (3, 2, 0)] {
        let totals = [Totals { byte_len: 0, dirty_count, fitting_count }];
        let mut word = [0u32];
        emulator.launch("chipmink_release", 1, 32, &[address(&totals), output(&mut word), 7]);
        assert_eq!(word[0], expected);
    }
}
