//! [`BlockWriter`]: the bytes of a pack on their way to it, in large blocks; by a thread of their own once they are many.
//!
//! Invariants:
//! 1. Blocks are written in the order in which they were given, each by one call, and all but the last have
//!    [`BLOCK_LEN`] bytes: so they begin at multiples of it, and a file system takes pages of that size into its cache.
//! 2. At most [`RING`] blocks are in memory: whoever is faster waits for the other.
//! 3. After an error nothing more is written, and whoever gives the next block or ends the pack hears of it.
//! 4. In a forked child nothing is written, since the file is the parent's, and dropping waits for no thread: it has none.

use crate::local::PackOutput;
use object_store::Result;
use std::mem::ManuallyDrop;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Bytes of a block. Where memory is in pieces, as it is after some hours, the kernel needs long to find larger pages for its
/// cache: writing 1 GiB by 1 or 2 MiB at once took twice the time (1.0 s against 0.46 s), and reading it through a mapping
/// hardly less (0.13 s against 0.15 s).
pub(crate) const BLOCK_LEN: usize = 256 << 10;
/// Blocks in memory at once. The second core finds what it writes in a cache.
const RING: usize = 8;
/// Blocks after which a thread takes over. It costs some 50 microseconds, as much as writing a hundred kilobytes.
const ALONE: usize = 32;

/// Writes blocks.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    route: Route,
    /// Blocks given so far.
    given: usize,
    may_thread: bool,
    /// The process that began the pack.
    process: u32,
}

#[derive(Debug)]
enum Route {
    Here(Box<dyn PackOutput>),
    Thread(ManuallyDrop<Worker>),
    /// An error was given back, or the pack was ended.
    Over,
}

/// A thread that writes, and the ways to it.
#[derive(Debug)]
struct Worker {
    full: Sender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    thread: JoinHandle<(Box<dyn PackOutput>, Result<()>)>,
    /// Blocks made for it.
    made: usize,
}

fn failure(reason: &str) -> object_store::Error {
    object_store::Error::Generic { store: "chipmink", source: reason.into() }
}

impl Worker {
    fn start(output: Box<dyn PackOutput>) -> std::result::Result<Self, Box<dyn PackOutput>> {
        let (full, blocks) = channel::<Vec<u8>>();
        let (done, empty) = channel();
        // Handed over by a channel, so that it is not lost if there can be no thread.
        let (hand_over, taken) = channel();
        let work = move || {
            let mut output: Box<dyn PackOutput> = taken.recv().expect("it is sent once the thread runs");
            for mut block in blocks {
                if let Err(error) = output.write(&[&block]) {
                    return (output, Err(error));
                }
                block.clear();
                // Nobody takes it back once the last was given.
                let _ = done.send(block);
            }
            (output, Ok(()))
        };
        match std::thread::Builder::new().name("chipmink-write".to_owned()).spawn(work) {
            Ok(thread) => {
                hand_over.send(output).expect("the thread waits for it");
                Ok(Worker { full, empty, thread, made: 0 })
            }
            Err(_) => Err(output),
        }
    }

    fn end(self) -> (Option<Box<dyn PackOutput>>, Result<()>) {
        drop(self.full);
        drop(self.empty);
        match self.thread.join() {
            Ok((output, written)) => (Some(output), written),
            Err(_) => (None, Err(failure("the thread that writes it panicked"))),
        }
    }
}

impl BlockWriter {
    /// `may_thread`: whether it may write in a thread of its own, where there are several processors.
    pub(crate) fn new(output: Box<dyn PackOutput>, may_thread: bool) -> Self {
        BlockWriter { route: Route::Here(output), given: 0, may_thread, process: std::process::id() }
    }

    /// Writes a block, now or soon; returns an empty one to be filled.
    ///
    /// # Errors
    /// When this block or one before it cannot be written.
    pub(crate) fn write(&mut self, mut block: Vec<u8>) -> Result<Vec<u8>> {
        self.check_process()?;
        self.given += 1;
        if self.given > ALONE && self.may_thread {
            self.may_thread = false;
            self.route = match std::mem::replace(&mut self.route, Route::Over) {
                Route::Here(output) if has_processors() => match Worker::start(output) {
                    Ok(worker) => Route::Thread(ManuallyDrop::new(worker)),
                    Err(output) => Route::Here(output),
                },
                other => other,
            };
        }
        match &mut self.route {
            Route::Here(output) => {
                output.write(&[&block])?;
                block.clear();
                Ok(block)
            }
            Route::Thread(worker) => {
                if worker.full.send(block).is_ok() {
                    if worker.made + 1 < RING {
                        worker.made += 1;
                        return Ok(Vec::with_capacity(BLOCK_LEN));
                    }
                    if let Ok(block) = worker.empty.recv() {
                        return Ok(block);
                    }
                }
                Err(self.come_back().err().unwrap_or_else(|| failure("its thread ended too soon")))
            }
            Route::Over => Err(failure("it is over")),
        }
    }

    /// Whether to write so many bytes now would wait for a place far away.
    pub(crate) fn would_wait(&self, byte_len: usize) -> bool {
        match &self.route {
            Route::Here(output) => output.would_wait(byte_len),
            Route::Thread(_) | Route::Over => false,
        }
    }

    fn check_process(&self) -> Result<()> {
        match self.process == std::process::id() {
            true => Ok(()),
            false => Err(failure("this process was forked while it was written; save again in the child")),
        }
    }

    /// Waits for what was given, and takes the output back from the thread.
    fn come_back(&mut self) -> Result<Box<dyn PackOutput>> {
        let route = std::mem::replace(&mut self.route, Route::Over);
        // A worker of another process stays as it is: its locks may be held by a thread that is not here.
        self.check_process()?;
        match route {
            Route::Here(output) => Ok(output),
            Route::Thread(worker) => {
                let (output, written) = ManuallyDrop::into_inner(worker).end();
                written?;
                output.ok_or_else(|| failure("its thread ended too soon"))
            }
            Route::Over => Err(failure("it is over")),
        }
    }

    /// Writes what is left and puts the pack in its place.
    ///
    /// # Errors
    /// When a block cannot be written, or the pack not be finished.
    pub(crate) fn finish(mut self, rest: &[&[u8]]) -> Result<()> {
        let mut output = self.come_back()?;
        output.write(rest)?;
        output.finish()
    }
}

fn has_processors() -> bool {
    std::thread::available_parallelism().is_ok_and(|count| count.get() > 1)
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        // A given-up pack is gone when this returns.
        drop(self.come_back());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Debug, Default)]
    struct Recorder {
        written: Arc<Mutex<Vec<Vec<u8>>>>,
        /// Calls of `write` that succeed; `None`: all.
        good: Option<usize>,
        is_finished: Arc<Mutex<bool>>,
    }

    impl PackOutput for Recorder {
        fn write(&mut self, parts: &[&[u8]]) -> Result<()> {
            let mut written = self.written.lock().unwrap();
            if self.good == Some(written.len()) {
                return Err(failure("the disk is full"));
            }
            written.push(parts.concat());
            Ok(())
        }

        fn finish(&mut self) -> Result<()> {
            *self.is_finished.lock().unwrap() = true;
            Ok(())
        }
    }

    fn filled(block: &mut Vec<u8>, with: u8) {
        assert!(block.is_empty());
        block.resize(64, with);
    }

    #[test]
    fn blocks_arrive_whole_and_in_order() {
        for may_thread in [false, true] {
            let recorder = Recorder::default();
            let mut writer = BlockWriter::new(Box::new(recorder.clone()), may_thread);
            let mut block = Vec::new();
            for i in 0..100 {
                filled(&mut block, i);
                block = writer.write(block).unwrap();
            }
            assert!(!*recorder.is_finished.lock().unwrap());
            writer.finish(&[b"re", b"st"]).unwrap();
            let mut expected: Vec<Vec<u8>> = (0..100).map(|i| vec![i; 64]).collect();
            expected.push(b"rest".to_vec());
            assert_eq!(*recorder.written.lock().unwrap(), expected);
            assert!(*recorder.is_finished.lock().unwrap());
        }
    }

    #[test]
    fn an_error_is_given_to_a_later_call_and_ends_it() {
        for good in [0, 2, ALONE, ALONE + 1, 30] {
            let recorder = Recorder { good: Some(good), ..Recorder::default() };
            let mut writer = BlockWriter::new(Box::new(recorder.clone()), true);
            let mut outcome = Ok(Vec::new());
            for i in 0..=good + RING {
                outcome = outcome.and_then(|mut block| {
                    filled(&mut block, i as u8);
                    writer.write(block)
                });
            }
            let told = outcome.map(drop).and_then(|()| writer.finish(&[]));
            assert!(told.unwrap_err().to_string().contains("the disk is full"), "after {good}");
            assert_eq!(recorder.written.lock().unwrap().len(), good);
            assert!(!*recorder.is_finished.lock().unwrap());
        }
    }

    #[test]
    fn what_is_given_up_is_gone_when_it_is_dropped() {
        let recorder = Recorder::default();
        let mut writer = BlockWriter::new(Box::new(recorder.clone()), true);
        for _ in 0..3 * ALONE {
            writer.write(vec![1; 64]).unwrap();
        }
        drop(writer);
        assert_eq!(Arc::strong_count(&recorder.written), 1);
        assert!(!*recorder.is_finished.lock().unwrap());
    }
}
