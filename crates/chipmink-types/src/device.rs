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
    fn capture(&mut self, spans: &[DeviceSpan]) -> Result<Box<dyn DeviceCapture>, DeviceError>;
}

/// Spans as they were at one moment. Dropping it forgets what was found.
pub trait DeviceCapture: Send {
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
