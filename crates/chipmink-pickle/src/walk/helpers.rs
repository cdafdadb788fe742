//! [`Helpers`]: threads that digest live memory beside the walk, started once for all of its regions: to start a thread takes
//! as long as to digest some chunks.
//!
//! 1. When the digests of chunks are returned, no helper looks at their memory any more.
//! 2. They end with the walk. They run no Python.

use chipmink_types::{Digest, Edges};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use super::live::Chunk;

/// Bytes for which another thread is worth waking.
const THREAD_LEN: usize = 1 << 20;
/// More threads than these do not make memory any faster.
const THREADS_MAX: usize = 4;
/// Chunks that a thread takes at once.
const SHARE: usize = 8;

/// What a chunk turned out to be.
pub(crate) type Found = (Digest, Option<Edges>);

/// Where a share of the chunks begins, and what they are.
type Done = (usize, Vec<Found>);

/// Chunks that are digested by whoever has time.
struct Task {
    chunks: Vec<Chunk>,
    next: AtomicUsize,
}

impl Task {
    fn work(&self, mut done: impl FnMut(Done)) {
        let mut scratch = Vec::new();
        loop {
            let start = self.next.fetch_add(SHARE, Ordering::Relaxed);
            let Some(share) = self.chunks.get(start..).and_then(|rest| rest.chunks(SHARE).next()) else {
                return;
            };
            done((start, share.iter().map(|chunk| chunk.digest(&mut scratch)).collect()));
        }
    }
}

type Job = (Arc<Task>, Sender<Done>);

fn help(jobs: &Receiver<Job>) {
    while let Ok((task, done)) = jobs.recv() {
        task.work(|share| {
            // Who asked waits for each share that was taken.
            let _ = done.send(share);
        });
    }
}

/// Processors that there are for this process. To ask the system takes as long as to digest a chunk.
fn processors() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// Threads of one walk; none until they are needed.
#[derive(Default)]
pub(crate) struct Helpers {
    jobs: Vec<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    /// What chunks are, which several threads compute if they are many. The caller keeps the memory alive.
    pub(crate) fn digest(&mut self, chunks: Vec<Chunk>) -> Vec<Found> {
        let mut scratch = Vec::new();
        let byte_len: usize = chunks.iter().map(|chunk| chunk.len).sum();
        let helpers = match (byte_len / THREAD_LEN).min(THREADS_MAX) {
            0 | 1 => 0,
            wanted => wanted.min(processors()) - 1,
        };
        if helpers == 0 {
            return chunks.iter().map(|chunk| chunk.digest(&mut scratch)).collect();
        }
        self.start(helpers);
        let mut found: Vec<Option<Found>> = vec![None; chunks.len()];
        let mut left = chunks.len();
        let task = Arc::new(Task { chunks, next: AtomicUsize::new(0) });
        let (done, results) = channel();
        for job in self.jobs.iter().take(helpers) {
            // With fewer threads it takes longer.
            let _ = job.send((Arc::clone(&task), done.clone()));
        }
        drop(done);
        let mut put = |(start, share): Done| {
            left -= share.len();
            found[start..].iter_mut().zip(share).for_each(|(place, digest)| *place = Some(digest));
            left
        };
        let mut open = task.chunks.len();
        task.work(|share| open = put(share));
        while open > 0
            && let Ok(share) = results.recv()
        {
            open = put(share);
        }
        // All are there, but for shares of a thread that has ended before its time.
        let by_itself =
            |(found, chunk): (Option<Found>, &Chunk)| found.unwrap_or_else(|| chunk.digest(&mut scratch));
        found.into_iter().zip(&task.chunks).map(by_itself).collect()
    }

    fn start(&mut self, wanted: usize) {
        while self.threads.len() < wanted {
            let (job, jobs) = channel();
            let thread = std::thread::Builder::new().name("chipmink-digest".to_owned());
            let Ok(thread) = thread.spawn(move || help(&jobs)) else { return };
            self.threads.push(thread);
            self.jobs.push(job);
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.jobs.clear();
        for thread in self.threads.drain(..) {
            // Its share was computed by who asked for it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_find_the_same_digests() {
        let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
        let mut helpers = Helpers::default();
        for len in [0, 1, 65_536, 1 << 20, 3 << 20, bytes.len()] {
            let parts: Vec<&[u8]> = bytes[..len].chunks(65_536).collect();
            for page_len in [0, 4096] {
                let chunk = |(ordinal, part): (usize, &&[u8])| Chunk {
                    ordinal,
                    start: part.as_ptr() as usize,
                    len: part.len(),
                    page_len,
                };
                let found = helpers.digest(parts.iter().enumerate().map(chunk).collect());
                assert_eq!(found.len(), parts.len());
                for ((digest, edges), part) in found.iter().zip(&parts) {
                    assert_eq!(*digest, chipmink_digest::digest(part), "{len} bytes");
                    assert_eq!(edges.is_some(), page_len > 0 && part.len() >= 4 * page_len);
                }
            }
        }
    }

    #[test]
    fn a_helper_that_is_gone_is_done_without() {
        let bytes = vec![7u8; 3 << 20];
        let (job, jobs) = channel();
        drop(jobs);
        let mut helpers = Helpers { jobs: vec![job; 3], threads: Vec::new() };
        helpers.threads.extend((0..3).map(|_| std::thread::spawn(|| ())));
        let chunk = |(ordinal, part): (usize, &[u8])| Chunk {
            ordinal,
            start: part.as_ptr() as usize,
            len: part.len(),
            page_len: 0,
        };
        let found = helpers.digest(bytes.chunks(65_536).enumerate().map(chunk).collect());
        assert!(found.iter().all(|(digest, _)| *digest == chipmink_digest::digest(&bytes[..65_536])));
    }
}
