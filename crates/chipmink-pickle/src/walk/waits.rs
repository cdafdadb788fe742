//! What a walk does while its sink waits for a place far away: it lets other threads run.
//!
//! 1. The interpreter is given back only where the sink says that it would wait: to get it back costs up to 5 ms wherever
//!    another thread computes.
//! 2. Before, references are taken to everything that was met, as before Python code runs, and the witness is called: containers
//!    that others change meanwhile are found at the end, and the walk begins anew.
//! 3. A region of which some bytes were read before and some after such a wait is digested again once it is complete: it is
//!    unsteady if it is not what was written.
//! 4. The last attempt of a walk keeps the interpreter: what others have changed twice would never be seen in one state else.

use super::regions::{Content, root_of};
use super::walker::{Step, Walker};
use chipmink_digest::Grid;
use chipmink_types::{BlobError, BlobKind, Digest, RegionRecord};

impl Walker<'_, '_> {
    /// Whether other threads are to run while this blob is put or asked for. Counts how often that was so.
    fn gives_way(&mut self, digest: &Digest, byte_len: usize) -> bool {
        !self.session.keeps_interpreter && self.sink.would_wait(digest, byte_len) && {
            self.make_way();
            true
        }
    }

    fn make_way(&mut self) {
        self.hold();
        self.waits += 1;
    }

    /// Puts a blob. Other threads may run meanwhile.
    pub(crate) fn put(&mut self, kind: BlobKind, digest: Digest, bytes: &[u8]) -> Result<bool, BlobError> {
        match self.gives_way(&digest, bytes.len()) {
            false => self.sink.put(kind, digest, bytes),
            true => {
                let sink = &mut *self.sink;
                self.py.detach(|| sink.put(kind, digest, bytes))
            }
        }
    }

    /// Puts a chunk of the region that was begun. Other threads may run meanwhile, so `bytes` must be a copy, or of an object
    /// that never changes.
    pub(crate) fn put_chunk(
        &mut self,
        ordinal: u64,
        digest: Digest,
        bytes: &[u8],
    ) -> Result<bool, BlobError> {
        match self.gives_way(&digest, bytes.len()) {
            false => self.sink.put_chunk(ordinal, digest, bytes),
            true => {
                let sink = &mut *self.sink;
                self.py.detach(|| sink.put_chunk(ordinal, digest, bytes))
            }
        }
    }

    /// Whether a blob is held already. Other threads may run meanwhile.
    pub(crate) fn holds(&mut self, digest: &Digest) -> bool {
        match self.gives_way(digest, 0) {
            false => self.sink.holds(digest),
            true => {
                let sink = &mut *self.sink;
                self.py.detach(|| sink.holds(digest))
            }
        }
    }

    /// What a region of which the session knows nothing probably was. Other threads may run meanwhile.
    pub(crate) fn earlier_version(&mut self, record: &RegionRecord) -> Option<RegionRecord> {
        if self.session.keeps_interpreter || !self.earlier.would_wait() {
            return self.earlier.take(record);
        }
        self.make_way();
        let earlier = &mut self.earlier;
        self.py.detach(|| earlier.take(record))
    }

    /// Compares a region with what was written of it, if the walk has waited since it had waited so often.
    pub(crate) fn recheck(&mut self, content: &Content, grid: &Grid, root: Digest, waits: u64) -> Step {
        if self.waits == waits || content.is_frozen || !self.is_witnessed() {
            return Ok(());
        }
        if root_of(&self.digests_now(content.span, grid)?) != root {
            self.note_unsteady();
        }
        Ok(())
    }
}
