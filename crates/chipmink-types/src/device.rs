//! Memory of a device: what the layers say to each other of it. Nothing here reads it.

use crate::{BlobError, Digest};

/// Contiguous memory of a device, which is saved as one region with a grid of one run.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DeviceSpan {
    /// Number of the device.
    pub device: i32,
    /// Of the first byte.
    pub address: u64,
    /// Bytes.
    pub byte_len: u64,
    /// Handles of the streams in which the program writes to it.
    pub streams: Vec<u64>,
    /// Whether these wait when [`DeviceFence::wait`] says so, and not before: the program writes to it at one place alone.
    pub is_deferred: bool,
}

/// Who keeps the program from writing to memory that is being captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hold {
    /// The caller, until [`DeviceCapture::let_go`]: all chunks can be had.
    #[default]
    Caller,
    /// The program's streams, until all that changed is staged: nothing else can be had.
    Streams,
}

/// A chunk that was copied to the host.
#[derive(Clone, Copy, Debug)]
pub struct DeviceChunk<'a> {
    /// Index of its span in what was captured.
    pub span: usize,
    /// Its place in the grid.
    pub ordinal: u64,
    /// Of the bytes here.
    pub digest: Digest,
    /// The copy.
    pub bytes: &'a [u8],
}

/// Why memory of a device could not be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The chunks could not be taken.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The device failed, or refuses.
    #[error("{0}")]
    Device(String),
}

/// Takes chunks of a device, those of one span one after another.
pub type TakeChunk<'a> = dyn FnMut(DeviceChunk<'_>) -> Result<(), BlobError> + 'a;

/// Memory of devices that can be captured.
pub trait DeviceMemory: Send {
    /// Captures spans as they are when the streams named there have come to this point. The caller keeps the memory
    /// allocated until [`DeviceCapture::let_go`], and whoever writes to it does so in those streams.
    ///
    /// # Errors
    /// When there is no such device, it fails, or one of the streams is being captured into a graph.
    fn capture(&mut self, spans: &[DeviceSpan], hold: Hold) -> Result<Box<dyn DeviceCapture>, DeviceError>;

    /// Digests spans without copying them, and takes as known what each chunk is now, if `is_stored` says of all digests of its
    /// span that the chunks are stored. Returns the bytes of the spans of which that is so.
    ///
    /// # Errors
    /// As [`DeviceMemory::capture`].
    fn recognise(
        &mut self,
        spans: &[DeviceSpan],
        is_stored: &mut dyn FnMut(&Digest) -> bool,
    ) -> Result<u64, DeviceError>;
}

/// What lets streams of the program wait until a capture has read what they are about to write.
pub trait DeviceFence: Send + Sync {
    /// The device whose streams it is for.
    fn device(&self) -> i32;

    /// Lets all that is enqueued from now on in these streams wait.
    ///
    /// # Errors
    /// When one of the streams is being captured into a graph, or the device fails.
    fn wait(&self, streams: &[u64]) -> Result<(), DeviceError>;
}

/// Spans as they were at one moment. Dropping it forgets what was found.
pub trait DeviceCapture: Send {
    /// Whether the caller may let the program go on now: its streams wait by themselves, or by `fences`.
    fn is_held_by_streams(&self) -> bool;

    /// For the spans that are deferred: what the program must let its streams wait for before it writes to them.
    fn fences(&self) -> Vec<Box<dyn DeviceFence>>;

    /// The digests that a span had when it was adopted last; `None`: never. Chunks that are not taken still have them.
    fn known(&self, span: usize) -> Option<Vec<Digest>>;

    /// Gives every chunk that is not what it was.
    ///
    /// # Errors
    /// The first error of `take`, or of the device.
    fn take(&mut self, take: &mut TakeChunk<'_>) -> Result<(), DeviceError>;

    /// Gives chunks, by span and ordinal, that were not taken.
    ///
    /// # Errors
    /// As [`DeviceCapture::take`], or when the program was let go.
    fn fetch(&mut self, chunks: &[(usize, u64)], take: &mut TakeChunk<'_>) -> Result<(), DeviceError>;

    /// Lets the program write again.
    ///
    /// # Errors
    /// When the device fails; the program is let go all the same.
    fn let_go(&mut self) -> Result<(), DeviceError>;

    /// The version is visible: what was found is what is known.
    fn adopt(self: Box<Self>);
}
