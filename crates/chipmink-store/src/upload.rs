//! [`Upload`]: a pack on its way to a store that takes parts.
//!
//! Invariants:
//! 1. At most [`AT_ONCE`] parts of a pack are under way, and one is being filled: so much memory, however long the pack. Of
//!    several packs [`ALL_AT_ONCE`] are, and one more of each that would have none.
//! 2. The object exists only once every part has arrived; an upload that is given up is aborted.
//! 3. A pack of less than a part is put whole, by one request.

use crate::backend::Backend;
use crate::local::PackOutput;
use crate::runner::Begun;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of one part. Stores ask for at least 5 MiB.
const PART_LEN: usize = 8 << 20;
/// Parts that are sent at once: what one connection of 100 MB/s and one of 1 GB/s with 20 ms of latency need to be full.
const AT_ONCE: usize = 6;
/// Parts that all uploads to a place send at once.
const ALL_AT_ONCE: usize = 10;

/// A part that is under way, counted until it has arrived or was given up.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(all: Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Counted(all)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A pack on its way to a store that takes parts; a short one is put whole.
#[derive(Debug)]
pub(crate) struct Upload {
    backend: Backend,
    location: Path,
    parts: Option<Box<dyn MultipartUpload>>,
    /// Oldest first.
    sent: VecDeque<Begun<Result<()>>>,
    buffer: Vec<u8>,
    /// Bytes of the parts begun.
    byte_len: u64,
}

impl Upload {
    pub(crate) fn new(backend: Backend, location: Path) -> Self {
        Upload { backend, location, parts: None, sent: VecDeque::new(), buffer: Vec::new(), byte_len: 0 }
    }

    /// Whether a part must arrive before another one is sent.
    fn is_full(&self) -> bool {
        let all = || self.backend.parts().load(Ordering::Relaxed);
        !self.sent.is_empty() && (self.sent.len() == AT_ONCE || all() >= ALL_AT_ONCE)
    }

    fn send(&mut self) -> Result<()> {
        while self.is_full() {
            self.wait_for_oldest()?;
        }
        let all = self.backend.parts().clone();
        self.byte_len += self.buffer.len() as u64;
        let part = PutPayload::from(std::mem::take(&mut self.buffer));
        let backend = self.backend.clone();
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => none.insert(backend.runner().run(backend.objects().put_multipart(&self.location))?),
        };
        let sending = parts.put_part(part);
        let counted = Counted::new(all);
        self.sent.push_back(backend.runner().begin(async move {
            let sent = sending.await;
            drop(counted);
            sent
        }));
        Ok(())
    }

    /// Whether the object is there with all that was sent.
    fn has_arrived(&self) -> bool {
        let found = self.backend.runner().run(self.backend.objects().head(&self.location));
        found.is_ok_and(|found| found.size == self.byte_len)
    }

    fn wait_for_oldest(&mut self) -> Result<()> {
        let Some(oldest) = self.sent.pop_front() else { return Ok(()) };
        self.backend.runner().wait(oldest).unwrap_or_else(|| {
            let source = "the thread that sends a part panicked".into();
            Err(object_store::Error::Generic { store: "chipmink", source })
        })
    }
}

impl PackOutput for Upload {
    fn would_wait(&self, byte_len: usize) -> bool {
        if self.buffer.len() + byte_len < PART_LEN {
            return false;
        }
        let has_arrived = |sent: &Begun<_>| match sent {
            Begun::Done(_) => true,
            Begun::Running(sending) => sending.is_finished(),
        };
        // To begin an upload is a request of its own.
        let is_begun = self.parts.is_some() && byte_len < PART_LEN;
        !is_begun || self.is_full() && !self.sent.front().is_some_and(has_arrived)
    }

    fn write(&mut self, parts: &[&[u8]]) -> Result<()> {
        for part in parts {
            let mut rest = *part;
            while self.buffer.len() + rest.len() >= PART_LEN {
                let (now, later) = rest.split_at(PART_LEN - self.buffer.len());
                self.buffer.extend_from_slice(now);
                self.send()?;
                // Another one is likely.
                self.buffer.reserve_exact(PART_LEN);
                rest = later;
            }
            self.buffer.extend_from_slice(rest);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let backend = self.backend.clone();
        if self.parts.is_none() {
            let payload = PutPayload::from(std::mem::take(&mut self.buffer));
            return backend.runner().run(backend.objects().put(&self.location, payload)).map(drop);
        }
        if !self.buffer.is_empty() {
            self.send()?;
        }
        while !self.sent.is_empty() {
            self.wait_for_oldest()?;
        }
        let completed = match &mut self.parts {
            Some(parts) => backend.runner().run(parts.complete()).map(drop),
            None => Ok(()),
        };
        // If the answer was lost and the client asked again, there is no such upload any more. Nothing but its completion can have
        // made the object.
        if completed.is_err() && !self.has_arrived() {
            return completed;
        }
        self.parts = None;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut parts) = self.parts.take() else { return };
        for sent in &self.sent {
            if let Begun::Running(sending) = sent {
                sending.abort();
            }
        }
        while !self.sent.is_empty() {
            // Those that cannot be stopped any more must not arrive behind the abort.
            let _ = self.wait_for_oldest();
        }
        // What cannot be removed now is removed by the store's own rule for unfinished uploads.
        let _ = self.backend.runner().run(parts.abort());
    }
}
