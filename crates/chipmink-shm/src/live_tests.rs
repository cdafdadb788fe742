use super::*;
use crate::dirty::{NoDirtyPages, probe};
use chipmink_types::GridKind;
use proptest::prelude::*;

const CHUNK: usize = 64 * 1024;

/// Tracks as soon as it can, whatever changes.
const EAGER: LivePolicy = LivePolicy {
    least_len: CHUNK,
    calm_walks: 0,
    calm_part: 1,
    hot_part: 1,
    most_regions: 4,
    most_digests: 1000,
};

fn run_of(memory: &[u8]) -> LiveRegion {
    LiveRegion {
        address: memory.as_ptr() as usize,
        byte_len: memory.len(),
        grid: GridKind::Run,
        row_len: 0,
        first_chunk_len: 0,
    }
}

fn digests(memory: &[u8], region: &LiveRegion) -> Vec<Digest> {
    let start = region.address - memory.as_ptr() as usize;
    let chunks = grid_of(region).unwrap().chunks();
    chunks.map(|(at, len)| chipmink_digest::digest(&memory[start + at as usize..][..len as usize])).collect()
}

/// One walk that looks at a region, and what it found known. Panics if anything known is wrong.
fn walk(memo: &mut LiveMemo, memory: &[u8], region: &LiveRegion) -> usize {
    memo.begin_walk();
    look(memo, memory, region, true)
}

fn look(memo: &mut LiveMemo, memory: &[u8], region: &LiveRegion, learns: bool) -> usize {
    let mut look = memo.look(region);
    let live = digests(memory, region);
    for doubt in &look.doubts {
        let now = edges(memory, region, doubt.ordinal as usize, look.page_len).unwrap();
        assert!(doubt.is_head || doubt.is_tail);
        let is_same = (!doubt.is_head || now.head == doubt.edges.head)
            && (!doubt.is_tail || now.tail == doubt.edges.tail);
        look.digests[doubt.ordinal as usize] = is_same.then_some(doubt.digest);
    }
    let known = live.iter().zip(&look.digests).filter(|(live, known)| match known {
        Some(known) => {
            assert_eq!(known, *live, "a change was missed");
            true
        }
        None => false,
    });
    let known = known.count();
    if learns {
        let is_asked = |i: &usize| {
            look.page_len > 0 && look.doubts.iter().any(|doubt| doubt.ordinal == *i as u64)
                || look.digests.get(*i).is_none_or(Option::is_none)
        };
        let of = (0..live.len()).filter(is_asked);
        let found: Vec<_> =
            of.filter_map(|i| Some((i as u64, edges(memory, region, i, look.page_len)?))).collect();
        memo.learn(region, look.ticket, &live, &found);
    }
    known
}

fn edges(memory: &[u8], region: &LiveRegion, ordinal: usize, page_len: usize) -> Option<Edges> {
    let (offset, len) = grid_of(region).unwrap().chunk(ordinal as u64).unwrap();
    let start = region.address - memory.as_ptr() as usize + offset as usize;
    let chunk = &memory[start..start + len as usize];
    let (head, tail) =
        (page_len > 0).then(|| Edges::lens(chunk.as_ptr() as usize, chunk.len(), page_len)).flatten()?;
    let digest = chipmink_digest::digest;
    Some(Edges { head: digest(&chunk[..head]), tail: digest(&chunk[chunk.len() - tail..]) })
}

fn can_track() -> bool {
    let mut pages = probe();
    let memory = vec![1u8; 1 << 20];
    let tracks = pages.track(memory.as_ptr() as usize, memory.len());
    if let Err(error) = &tracks {
        eprintln!("skipped: {error}");
    }
    tracks.is_ok()
}

/// Memory of ten chunks, and a memo that tracks it.
fn tracked() -> (LiveMemo, Vec<u8>, LiveRegion) {
    let mut memo = LiveMemo::new(probe, EAGER);
    let memory = vec![3u8; 10 * CHUNK];
    let region = run_of(&memory);
    for _ in 0..3 {
        walk(&mut memo, &memory, &region);
    }
    (memo, memory, region)
}

#[test]
fn nothing_is_known_where_pages_cannot_be_tracked() {
    let mut memo = LiveMemo::new(|| Box::new(NoDirtyPages::new("a test")), EAGER);
    let memory = vec![3u8; 10 * CHUNK];
    for _ in 0..5 {
        assert_eq!(walk(&mut memo, &memory, &run_of(&memory)), 0);
    }
    assert_eq!(memo.tracked(), 0);
}

/// Tracks everything, and has lost it whenever it is asked.
#[derive(Debug)]
struct Forgetful;

impl DirtyPages for Forgetful {
    fn page_len(&self) -> usize {
        4096
    }

    fn is_trusted(&mut self) -> bool {
        true
    }

    fn track(&mut self, _: usize, _: usize) -> Result<(), dirty::Untracked> {
        Ok(())
    }

    fn written(&mut self, _: usize, _: usize) -> Verdict {
        Verdict::Unknown
    }

    fn untrack(&mut self, _: usize, _: usize) {}
}

#[test]
fn nothing_is_known_of_a_region_that_was_lost() {
    let mut memo = LiveMemo::new(|| Box::new(Forgetful), EAGER);
    let mut memory = vec![3u8; 10 * CHUNK];
    for value in 0..6 {
        let tracked_before = memo.tracked();
        assert_eq!(walk(&mut memo, &memory, &run_of(&memory)), 0);
        assert_eq!(memo.tracked() + tracked_before, 1, "tracked and lost in turn");
        memory.fill(value);
    }
}

#[test]
fn a_calm_region_is_tracked_and_then_known_but_for_what_is_written() {
    if !can_track() {
        return;
    }
    let mut memo = LiveMemo::new(probe, LivePolicy::default());
    let mut memory = vec![3u8; 64 * CHUNK];
    let region = run_of(&memory);
    let known: Vec<usize> = (0..3).map(|_| walk(&mut memo, &memory, &region)).collect();
    assert_eq!(known, [0, 0, 0]);
    assert_eq!(memo.tracked(), 1);
    // The first and the last chunk have a part of a page each.
    assert_eq!(walk(&mut memo, &memory, &region), 64, "those at the ends by their edges");
    memory[10 * CHUNK + 17] = 9;
    assert_eq!(walk(&mut memo, &memory, &region), 63);
    memory[20 * CHUNK + 30_000] = 9;
    assert_eq!(walk(&mut memo, &memory, &region), 63);
    assert_eq!(walk(&mut memo, &memory, &region), 64);
}

#[test]
fn a_page_of_two_chunks_that_was_written_spares_the_one_that_was_not() {
    if !can_track() {
        return;
    }
    let mut memory = vec![3u8; 21 * CHUNK];
    // Chunks begin 16 bytes behind a page's start, as allocators have it.
    let offset = memory.as_ptr().align_offset(4096) + 16;
    let region = run_of(&memory[offset..offset + 20 * CHUNK]);
    let mut memo = LiveMemo::new(probe, EAGER);
    for _ in 0..3 {
        walk(&mut memo, &memory, &region);
    }
    // The last byte of one, the first of another, and both sides of a border.
    for (places, known) in
        [(vec![5 * CHUNK - 1], 19), (vec![7 * CHUNK], 19), (vec![9 * CHUNK - 1, 9 * CHUNK], 18)]
    {
        for place in places {
            memory[offset + place] ^= 1;
        }
        assert_eq!(walk(&mut memo, &memory, &region), known);
        assert_eq!(walk(&mut memo, &memory, &region), 20);
    }
}

#[test]
fn edges_vouch_only_for_the_bytes_that_have_the_digest() {
    if !can_track() {
        return;
    }
    let (mut memo, mut memory, region) = tracked();
    memo.begin_walk();
    let look = memo.look(&region);
    // Written between the look and the hashing, which gives no edges; and back.
    let border = 5 * CHUNK + 1;
    memory[border] ^= 1;
    let read = digests(&memory, &region);
    memory[border] ^= 1;
    memo.learn(&region, look.ticket, &read, &[]);
    walk(&mut memo, &memory, &region);
}

#[test]
fn a_region_that_changes_all_over_is_not_tracked() {
    let mut memo = LiveMemo::new(probe, LivePolicy::default());
    let mut memory = vec![3u8; 64 * CHUNK];
    let region = run_of(&memory);
    for value in 0..10 {
        assert_eq!(walk(&mut memo, &memory, &region), 0);
        memory.fill(value);
    }
    assert_eq!(memo.tracked(), 0);
}

#[test]
fn a_region_that_becomes_hot_is_let_go_and_must_stay_calm_for_longer() {
    if !can_track() {
        return;
    }
    let mut memo = LiveMemo::new(probe, LivePolicy::default());
    let mut memory = vec![3u8; 64 * CHUNK];
    let region = run_of(&memory);
    let mut waits = Vec::new();
    for round in 0..4u8 {
        let mut calm_walks = 0;
        while memo.tracked() == 0 {
            walk(&mut memo, &memory, &region);
            calm_walks += 1;
        }
        waits.push(calm_walks);
        memory[..20 * CHUNK].fill(round);
        walk(&mut memo, &memory, &region);
        assert_eq!(memo.tracked(), 0);
    }
    // The first round begins with a walk that knows of nothing to compare with.
    assert_eq!(waits, [3, 3, 5, 9]);
}

#[test]
fn a_walk_that_fails_leaves_what_was_written_unknown() {
    if !can_track() {
        return;
    }
    let (mut memo, mut memory, region) = tracked();
    memory[5 * CHUNK + 100] = 1;
    memo.begin_walk();
    assert!(look(&mut memo, &memory, &region, false) >= 8);
    memo.begin_walk();
    // Neither does anybody vouch any more for chunks whose edges only the failed walk has looked at.
    let known = look(&mut memo, &memory, &region, false);
    assert!((6..=7).contains(&known), "{known}");
    memo.begin_walk();
    assert_eq!(look(&mut memo, &memory, &region, true), known);
    assert_eq!(look(&mut memo, &memory, &region, true), 10);
}

#[test]
fn what_an_older_look_found_is_not_taken() {
    if !can_track() {
        return;
    }
    let (mut memo, mut memory, region) = tracked();
    memo.begin_walk();
    let first = memo.look(&region);
    let stale = digests(&memory, &region);
    memory[5 * CHUNK + 100] = 1;
    look(&mut memo, &memory, &region, true);
    memo.learn(&region, first.ticket, &stale, &[]);
    look(&mut memo, &memory, &region, true);
}

#[test]
fn digests_of_another_number_of_chunks_are_not_taken() {
    let mut memo = LiveMemo::new(probe, EAGER);
    let memory = vec![3u8; 10 * CHUNK];
    let region = run_of(&memory);
    for _ in 0..4 {
        memo.begin_walk();
        let look = memo.look(&region);
        assert!(look.digests.iter().all(Option::is_none));
        memo.learn(&region, look.ticket, &digests(&memory, &region)[1..], &[]);
    }
}

#[test]
fn regions_that_lie_across_each_other_take_each_other_s_place() {
    let mut memo = LiveMemo::new(probe, EAGER);
    let mut memory = vec![3u8; 20 * CHUNK];
    let whole = run_of(&memory);
    let part = run_of(&memory[3 * CHUNK..9 * CHUNK]);
    let rows = LiveRegion { grid: GridKind::Rows, row_len: 2 * CHUNK as u64 + 10, ..whole };
    for step in 0..40usize {
        let region = [whole, part, rows, whole, whole, part, part][step % 7];
        walk(&mut memo, &memory, &region);
        memory[step * 31 * 1024 % (20 * CHUNK)] ^= 1;
        assert!(memo.entries.len() <= 1);
    }
}

#[test]
fn no_more_is_remembered_than_the_policy_says() {
    let mut memo = LiveMemo::new(probe, EAGER);
    let memories: Vec<Vec<u8>> = (0..10).map(|i| vec![i; 3 * CHUNK]).collect();
    for _ in 0..3 {
        for memory in &memories {
            walk(&mut memo, memory, &run_of(memory));
            assert!(memo.entries.len() <= EAGER.most_regions);
        }
    }
    let large = vec![0u8; 1001 * CHUNK];
    assert_eq!(memo.look(&run_of(&large)), Look::default());
    for _ in 0..=UNSEEN_WALKS {
        memo.begin_walk();
    }
    assert!(memo.entries.is_empty());
}

#[test]
fn impossible_regions_are_not_remembered() {
    let mut memo = LiveMemo::new(probe, EAGER);
    let region = LiveRegion {
        address: usize::MAX - 10,
        byte_len: 1 << 20,
        grid: GridKind::Run,
        row_len: 0,
        first_chunk_len: 0,
    };
    assert_eq!(memo.look(&region), Look::default());
    assert_eq!(memo.look(&LiveRegion { address: 4096, row_len: 5, ..region }), Look::default());
    assert_eq!(memo.look(&LiveRegion { address: 4096, byte_len: 100, ..region }), Look::default());
}

#[test]
fn the_process_has_one_memo() {
    if !can_track() {
        return;
    }
    let memory = vec![3u8; 4 << 20];
    let region = run_of(&memory);
    let live = digests(&memory, &region);
    let (mut first, mut second) = (live_digests(), live_digests());
    for walk in 0..3 {
        let memo = if walk == 1 { &mut second } else { &mut first };
        memo.begin_walk();
        let look = memo.look(&region);
        memo.learn(&region, look.ticket, &live, &[]);
    }
    second.begin_walk();
    let known = second.look(&region).digests;
    assert!(known.iter().flatten().count() >= live.len() - 2, "{known:?}");
}

#[test]
fn every_byte_is_in_the_chunk_that_the_grid_says() {
    let memory = vec![0u8; 10 * CHUNK];
    let whole = run_of(&memory);
    for region in [
        whole,
        LiveRegion { grid: GridKind::Rows, row_len: CHUNK as u64 + 100, ..whole },
        LiveRegion { grid: GridKind::Shard, first_chunk_len: 77, ..whole },
    ] {
        let grid = grid_of(&region).unwrap();
        let mut entry = Entry::new(&region, grid, &EAGER);
        entry.digests = vec![None; grid.chunk_count() as usize];
        for (i, (at, len)) in grid.chunks().enumerate() {
            assert_eq!(entry.chunk_at(at as usize), i);
            assert_eq!(entry.chunk_at((at + len - 1) as usize), i);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Two walkers look at the same memory, some walks fail, memory is written in between: what is known is right.
    #[test]
    fn what_is_known_is_what_is_there(
        offset in 0usize..5000,
        row in 0usize..3,
        steps in proptest::collection::vec((0u8..5, any::<u32>(), 1usize..200_000, any::<u8>()), 1..40),
    ) {
        let mut memo = LiveMemo::new(probe, EAGER);
        let mut memory = vec![0u8; 24 * CHUNK];
        let mut region = run_of(&memory[offset..]);
        if row > 0 {
            region.grid = GridKind::Rows;
            region.row_len = (CHUNK + row * 1000) as u64;
        }
        for (kind, at, len, value) in steps {
            let at = at as usize % memory.len();
            match kind {
                0 => memory[at] = value,
                1 => {
                    let end = (at + len).min(memory.len());
                    memory[at..end].fill(value);
                }
                2 => { walk(&mut memo, &memory, &region); }
                3 => { look(&mut memo, &memory, &region, false); }
                _ => { look(&mut memo, &memory, &region, true); memo.begin_walk(); }
            }
        }
        walk(&mut memo, &memory, &region);
    }
}
