//! From memory of the host to memory of a device, through pinned blocks.
//!
//! A copy from memory that is not pinned goes through a block of the driver's, which one thread fills: no faster than a
//! thread copies. Here several threads fill blocks, each its own two in turn, while the device takes the others.
//!
//! 1. All has arrived when [`Uploader::upload`] returns, also if it fails: nothing reads or writes what it was given any more.
//! 2. Blocks and streams are made at construction.

use crate::driver::{Context, Event, PinnedBuffer, Stream, StreamHandle, copy_to_device, relax_capture};
use crate::{CudaError, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of the host that go to a place on a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upload {
    /// Address on the device, of any alignment.
    pub to: u64,
    /// Address on the host.
    pub from: u64,
    /// Bytes.
    pub byte_len: u64,
}

/// What brings memory of the host to one device.
#[derive(Debug)]
pub struct Uploader {
    // Dropped in this order: streams come to their end before their blocks are freed.
    lanes: Vec<Lane>,
    mark: Event,
    block_len: u64,
    context: Arc<Context>,
}

/// What one thread fills.
#[derive(Debug)]
struct Lane {
    stream: Stream,
    blocks: [(PinnedBuffer, Event); 2],
}

impl Uploader {
    /// For so many threads, each with two pinned blocks of so many bytes.
    ///
    /// # Errors
    /// When there is no room, or the device fails.
    pub fn new(context: &Arc<Context>, lane_count: usize, block_len: u64) -> Result<Self> {
        let _relaxed = relax_capture(context)?;
        let block = || Ok((PinnedBuffer::new(context, "pinned memory", block_len)?, Event::new(context)?));
        let lane = |_| Ok(Lane { stream: Stream::new(context)?, blocks: [block()?, block()?] });
        let lanes: Result<Vec<Lane>> = (0..lane_count.max(1)).map(lane).collect();
        Ok(Uploader {
            lanes: lanes?,
            mark: Event::new(context)?,
            block_len: block_len.max(1),
            context: context.clone(),
        })
    }

    /// Copies all pieces, after what stands in the program's streams, and waits until it is done.
    ///
    /// # Safety
    /// Until this returns, the host's bytes can be read, the places on the device are allocated and used by nothing but what stands
    /// in the streams, and these are alive and of this device. Pieces do not overlap on the device.
    ///
    /// # Errors
    /// When a stream is being captured into a graph, or the device fails: then anything may stand in the places.
    pub unsafe fn upload(&mut self, pieces: &[Upload], streams: &[u64]) -> Result<()> {
        let relaxed = relax_capture(&self.context)?;
        for stream in streams {
            StreamHandle(*stream).refuse_capture(&self.context)?;
        }
        let parts = self.parts(pieces);
        let lane_count = self.lanes.len().min(parts.len());
        for stream in streams {
            self.mark.record(StreamHandle(*stream))?;
            for lane in &self.lanes[..lane_count] {
                lane.stream.handle().wait(&self.context, &self.mark)?;
            }
        }
        drop(relaxed);
        let (next, context) = (AtomicUsize::new(0), &*self.context);
        std::thread::scope(|scope| {
            let mut others = Vec::new();
            for lane in &self.lanes[1..lane_count.max(1)] {
                let (parts, next) = (&parts, &next);
                others.push(scope.spawn(move || lane.run(context, parts, next)));
            }
            let mut done = self.lanes[0].run(context, &parts, &next);
            for other in others {
                let here = other.join().unwrap_or(Err(CudaError::Lost {
                    call: "a thread that copies",
                    device: context.ordinal(),
                    message: "it panicked".to_owned(),
                }));
                done = done.and(here);
            }
            done
        })
    }

    /// The pieces, cut so that each fits in a block.
    fn parts(&self, pieces: &[Upload]) -> Vec<Upload> {
        let mut parts = Vec::new();
        for piece in pieces {
            let mut at = 0;
            while at < piece.byte_len {
                let byte_len = self.block_len.min(piece.byte_len - at);
                parts.push(Upload { to: piece.to + at, from: piece.from + at, byte_len });
                at += byte_len;
            }
        }
        parts
    }
}

impl Lane {
    /// Copies parts until none is left. What was enqueued has been done when this returns.
    fn run(&self, context: &Context, parts: &[Upload], next: &AtomicUsize) -> Result<()> {
        let done = self.run_parts(context, parts, next);
        let ended = self.stream.synchronize();
        done.and(ended)
    }

    fn run_parts(&self, context: &Context, parts: &[Upload], next: &AtomicUsize) -> Result<()> {
        let _relaxed = relax_capture(context)?;
        for turn in 0.. {
            let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let (block, taken) = &self.blocks[turn % 2];
            // The device has taken what this block held before.
            taken.synchronize()?;
            // SAFETY: the bytes can be read, by the promise of `upload`'s caller, and no copy from the block is under way.
            unsafe { block.fill_from(part.from as usize as *const u8, part.byte_len) };
            // SAFETY: the place is the caller's, and the block is not filled again before this copy is done.
            unsafe { copy_to_device(context, self.stream.handle(), part.to, block, part.byte_len)? };
            taken.record(self.stream.handle())?;
        }
        Ok(())
    }
}
