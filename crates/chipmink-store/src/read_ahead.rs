//! [`ReadAhead`]: what lies around that which is read of packs that are far away.
//!
//! A request takes as long as a mebibyte, and what belongs together lies together: the nodes and tables of a version, and pods
//! and chunks in the order in which they are loaded. So a read takes what lies around it along, the more the more often what
//! was taken along is asked for.
//!
//! Invariants:
//! 1. Packs never change, so what was read of one is right as long as it is kept. It is what the place gave: whoever asks for
//!    it compares digests.
//! 2. At most [`KEPT`] bytes are kept, beside those that are being read.
//! 3. Several that want the same window wait for one read of it, each once its own are begun.

use crate::error::Result;
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes of a first window: 20 tables. It takes no longer than what it spares costs at 10 MB/s and 20 ms a request.
const FIRST: u64 = 128 << 10;
/// Bytes before the end of a pack of which those that are short are read at once: what a version is read by, its tables and the
/// nodes of a gibibyte of chunks, stands behind what it names. That spares two requests, which take as long at 10 MB/s.
const TAIL: u64 = 512 << 10;
/// Bytes of a window at most, and of a read of one thread.
const MOST: u64 = 8 << 20;
/// Bytes of windows that are kept.
const KEPT: u64 = 64 << 20;

/// The pieces of a range, in order.
pub(crate) type Pieces = SmallVec<[Bytes; 2]>;

/// A part of a pack.
#[derive(Debug)]
struct Window {
    pack: u32,
    range: Range<u64>,
    /// `None` inside: it could not be read.
    bytes: OnceLock<Option<Bytes>>,
}

impl Window {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether a read there goes on from this one: within its length behind it, or before it.
    fn is_near(&self, at: u64) -> bool {
        at < self.range.end + self.len() && at + self.len() >= self.range.start
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    /// Oldest first.
    windows: Mutex<VecDeque<Arc<Window>>>,
}

impl ReadAhead {
    /// A range of a pack with so many bytes of blobs, by `read` where it is not here.
    pub(crate) fn get(
        &self,
        pack: u32,
        pack_len: u64,
        range: &Range<u64>,
        read: impl Fn(Range<u64>) -> Result<Bytes>,
    ) -> Result<Pieces> {
        let mut pieces = Pieces::new();
        let windows = self.cover(pack, pack_len, range);
        let read_once =
            |window: &Window| window.bytes.get_or_init(|| read(window.range.clone()).ok()).clone();
        // What nobody has begun is begun before others are waited for: else whoever waits would hold up the next one.
        for (window, _) in windows.iter().filter(|(_, is_new)| *is_new) {
            read_once(window);
        }
        for (window, _) in windows {
            let Some(bytes) = read_once(&window) else {
                // What lies around it may be what fails.
                self.windows().retain(|other| !Arc::ptr_eq(other, &window));
                return Ok(SmallVec::from_iter([read(range.clone())?]));
            };
            let from = range.start.max(window.range.start) - window.range.start;
            let to = range.end.min(window.range.end) - window.range.start;
            pieces.push(bytes.slice(from as usize..to as usize));
        }
        Ok(pieces)
    }

    pub(crate) fn clear(&self) {
        self.windows().clear();
    }

    fn windows(&self) -> MutexGuard<'_, VecDeque<Arc<Window>>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Windows that hold a range together, in order, and whether each is new: it is known from now on, so that others wait for it.
    fn cover(&self, pack: u32, pack_len: u64, range: &Range<u64>) -> SmallVec<[(Arc<Window>, bool); 2]> {
        let mut windows = self.windows();
        let mut covering = SmallVec::new();
        let mut at = range.start;
        while at < range.end {
            let known = windows.iter().find(|window| window.pack == pack && window.range.contains(&at));
            let (window, is_new) = match known {
                Some(window) => (Arc::clone(window), false),
                None => {
                    let of_pack = || windows.iter().filter(|window| window.pack == pack);
                    let range = plan(of_pack, pack_len, at..range.end);
                    let window = Arc::new(Window { pack, range, bytes: OnceLock::new() });
                    windows.push_back(Arc::clone(&window));
                    (window, true)
                }
            };
            at = window.range.end;
            covering.push((window, is_new));
        }
        let mut kept: u64 = windows.iter().map(|window| window.len()).sum();
        while kept > KEPT
            && let Some(oldest) = windows.pop_front()
        {
            kept -= oldest.len();
        }
        covering
    }
}

/// The window for what is wanted and in none of the others.
fn plan<'a, W: Iterator<Item = &'a Arc<Window>>>(
    others: impl Fn() -> W,
    pack_len: u64,
    wanted: Range<u64>,
) -> Range<u64> {
    let near = others().filter(|other| other.is_near(wanted.start)).map(|other| other.len()).max();
    let len = near.map_or(FIRST, |near| (2 * near).clamp(FIRST, MOST));
    // What is short may be the end of what is wanted: nodes stand behind what they name.
    let tail = pack_len.saturating_sub(TAIL);
    let (start, end) = match wanted.end - wanted.start < FIRST {
        true if wanted.start >= tail => (tail, pack_len),
        true => (wanted.start / FIRST * FIRST, wanted.end),
        false => (wanted.start, wanted.end),
    };
    let before = others().map(|other| other.range.end).filter(|end| *end <= wanted.start).max();
    let start = start.max(before.unwrap_or(0));
    let end = end.max((start + len).min(pack_len)).max(wanted.end);
    let behind = others().map(|other| other.range.start).filter(|other| *other > wanted.start).min();
    start..end.min(behind.unwrap_or(u64::MAX))
}

/// A part of pieces that follow each other: a copy only if it lies in several.
pub(crate) fn cut(pieces: &Pieces, range: Range<usize>) -> Bytes {
    let mut parts = Pieces::new();
    let mut start = 0;
    for piece in pieces {
        let (from, to) = (range.start.max(start), range.end.min(start + piece.len()));
        if from < to {
            parts.push(piece.slice(from - start..to - start));
        }
        start += piece.len();
    }
    join(parts)
}

/// Pieces as one.
pub(crate) fn join(mut pieces: Pieces) -> Bytes {
    if pieces.len() == 1 {
        return pieces.swap_remove(0);
    }
    let mut all = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| all.extend_from_slice(piece));
    all.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreError;
    use std::sync::Condvar;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    const LEN: u64 = 40 << 20;

    struct Place {
        bytes: Bytes,
        reads: AtomicUsize,
        longest: AtomicUsize,
    }

    impl Place {
        fn new() -> Self {
            let bytes = (0..LEN).map(|at| (at / 97) as u8).collect();
            Place { bytes, reads: AtomicUsize::new(0), longest: AtomicUsize::new(0) }
        }

        fn read(&self, ahead: &ReadAhead, range: Range<u64>) {
            let read = |range: Range<u64>| {
                self.reads.fetch_add(1, Ordering::Relaxed);
                self.longest.fetch_max((range.end - range.start) as usize, Ordering::Relaxed);
                Ok(self.bytes.slice(range.start as usize..range.end as usize))
            };
            let found = join(ahead.get(3, LEN, &range, read).unwrap());
            assert_eq!(found, self.bytes.slice(range.start as usize..range.end as usize), "{range:?}");
        }
    }

    #[test]
    fn what_follows_each_other_takes_few_requests() {
        let (place, ahead) = (Place::new(), ReadAhead::default());
        // A node behind the chunks that it names, again and again.
        let mut at = 0;
        while at + 100_200 <= LEN {
            place.read(&ahead, at + 100_000..at + 100_200);
            place.read(&ahead, at..at + 65_536);
            place.read(&ahead, at + 65_536..at + 100_000);
            at += 100_200;
        }
        assert!(place.reads.load(Ordering::Relaxed) <= 5 + 7, "{:?}", place.reads);
        assert_eq!(place.longest.load(Ordering::Relaxed) as u64, MOST);
    }

    #[test]
    fn a_part_is_copied_only_if_it_lies_in_several_pieces() {
        let pieces = Pieces::from_iter([&b"abc"[..], b"", b"defg", b"h"].map(Bytes::from_static));
        let whole = b"abcdefgh";
        for from in 0..=8 {
            for to in from..=8 {
                assert_eq!(cut(&pieces, from..to), whole[from..to]);
            }
        }
        assert_eq!(cut(&pieces, 4..6).as_ptr(), pieces[2].slice(1..).as_ptr());
    }

    #[test]
    fn what_lies_apart_takes_little_along() {
        let (place, ahead) = (Place::new(), ReadAhead::default());
        for step in 0..10 {
            place.read(&ahead, (step << 22) + 5..(step << 22) + 50);
        }
        assert_eq!((place.reads.into_inner(), place.longest.into_inner() as u64), (10, FIRST));
    }

    #[test]
    fn long_reads_are_made_as_they_are() {
        let (place, ahead) = (Place::new(), ReadAhead::default());
        std::thread::scope(|scope| {
            for part in 0..LEN / MOST {
                let (place, ahead) = (&place, &ahead);
                scope.spawn(move || place.read(ahead, part * MOST..(part + 1) * MOST));
            }
        });
        assert_eq!((place.reads.into_inner() as u64, place.longest.into_inner() as u64), (LEN / MOST, MOST));
    }

    /// Windows are longer than these reads, so each needs the window of the one before it, and one of its own.
    #[test]
    fn who_waits_for_a_window_holds_up_nobody() {
        let (place, ahead) = (Place::new(), ReadAhead::default());
        let (piece, count) = (7 << 20, LEN.div_ceil(7 << 20));
        let (begun, changed) = (Mutex::new(0), Condvar::new());
        let wait_for = |count: u64| {
            let (begun, timed_out) = changed
                .wait_timeout_while(begun.lock().unwrap(), Duration::from_secs(20), |begun| *begun < count)
                .unwrap();
            assert!(!timed_out.timed_out(), "only {begun} of {count} were begun at once");
        };
        let read = |range: Range<u64>| {
            *begun.lock().unwrap() += 1;
            changed.notify_all();
            wait_for(count);
            Ok(place.bytes.slice(range.start as usize..range.end as usize))
        };
        std::thread::scope(|scope| {
            for part in 0..count {
                wait_for(part);
                let (read, ahead, bytes) = (&read, &ahead, &place.bytes);
                scope.spawn(move || {
                    let range = part * piece..((part + 1) * piece).min(LEN);
                    let found = join(ahead.get(3, LEN, &range, read).unwrap());
                    assert_eq!(found, bytes.slice(range.start as usize..range.end as usize));
                });
            }
        });
    }

    #[test]
    fn reads_in_any_order_give_what_is_there_and_little_is_kept() {
        let (place, ahead) = (Place::new(), ReadAhead::default());
        let mut state = 1u64;
        for _ in 0..3_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = (state >> 20) % LEN;
            let len = 1 + (state >> 10) % [100, 10_000, 1 << 20, 9 << 20][(state >> 60) as usize % 4];
            place.read(&ahead, start..(start + len).min(LEN));
            assert!(ahead.windows().iter().map(|window| window.len()).sum::<u64>() <= KEPT);
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_and_tried_again() {
        let (place, ahead) = (Place::new(), ReadAhead::default());
        let fail = |_| Err(StoreError::Stopped);
        assert!(ahead.get(3, LEN, &(5..10), fail).is_err());
        // What lies around may be missing while this is there.
        let short = |range: Range<u64>| match range.end <= 10 {
            true => Ok(place.bytes.slice(range.start as usize..range.end as usize)),
            false => Err(StoreError::Stopped),
        };
        assert_eq!(join(ahead.get(3, LEN, &(5..10), short).unwrap()), place.bytes.slice(5..10));
        place.read(&ahead, 5..10);
    }
}
