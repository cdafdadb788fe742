//! [`SyncAhead`]: a file on its way to the disk while it is still being written.
//!
//! 1. What failed is told by [`SyncAhead::end`], whoever asks first: the kernel tells it only once.
//! 2. In a forked child there is no such thread; whoever drops it waits for nothing.

use std::fs::File;
use std::io;
use std::thread::JoinHandle;

/// One sync of what was written up to its begin, by a thread of its own: it waits nearly all of the time.
#[derive(Debug)]
pub(super) enum SyncAhead {
    /// The thread.
    Running(JoinHandle<io::Result<()>>),
    /// Its result, if that was taken before.
    Done(io::Result<()>),
}

impl SyncAhead {
    /// `None`: there can be no thread now, and a later sync does it all.
    pub(super) fn begin(file: &File) -> Option<Self> {
        let file = file.try_clone().ok()?;
        let work = move || file.sync_data();
        std::thread::Builder::new().name("chipmink-sync".to_owned()).spawn(work).ok().map(SyncAhead::Running)
    }

    /// Whether [`SyncAhead::end`] would not wait.
    pub(super) fn is_done(&self) -> bool {
        match self {
            SyncAhead::Running(thread) => thread.is_finished(),
            SyncAhead::Done(_) => true,
        }
    }

    /// What became of it.
    ///
    /// # Errors
    /// As `fdatasync(2)`.
    pub(super) fn end(self) -> io::Result<()> {
        match self {
            SyncAhead::Running(thread) => {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that syncs panicked")))
            }
            SyncAhead::Done(result) => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_was_written_is_synced_beside() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = File::create(folder.path().join("file")).unwrap();
        file.write_all(&[7; 1 << 20]).unwrap();
        let ahead = SyncAhead::begin(&file).unwrap();
        file.write_all(&[8; 1 << 20]).unwrap();
        ahead.end().unwrap();
    }

    #[test]
    fn a_failure_is_kept_until_the_end() {
        let failed = SyncAhead::Done(Err(io::Error::other("the disk is gone")));
        assert!(failed.is_done());
        assert_eq!(failed.end().unwrap_err().to_string(), "the disk is gone");
    }
}
