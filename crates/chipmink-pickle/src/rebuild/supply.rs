//! Where the decoder's bytes come from.

use super::error::{Failure, Result};
use bytes::Bytes;
use chipmink_types::{PodSource, RegionRecord};
use pyo3::prelude::*;

/// Gives the decoder pods and regions.
pub(super) trait Supply<'py> {
    /// The bytes of the plan's pod at `position`.
    fn pod(&mut self, position: usize) -> Result<Bytes>;

    /// Fills `into`, which has exactly the region's length.
    fn region(&mut self, ordinal: usize, region: &RegionRecord, into: &mut [u8]) -> Result<()>;

    /// The object that holds a region's bytes, if the caller of the load passed it beside the stream.
    fn outside(&self, ordinal: usize) -> Option<&Bound<'py, PyAny>>;
}

/// The pods and regions of a repository.
pub(super) struct Stored<'s>(pub(super) &'s mut dyn PodSource);

impl<'py> Supply<'py> for Stored<'_> {
    fn pod(&mut self, position: usize) -> Result<Bytes> {
        Ok(self.0.pod(position)?)
    }

    fn region(&mut self, _ordinal: usize, region: &RegionRecord, into: &mut [u8]) -> Result<()> {
        Ok(self.0.read_region(region, into)?)
    }

    fn outside(&self, _ordinal: usize) -> Option<&Bound<'py, PyAny>> {
        None
    }
}

/// The one pod of a stream that stands by itself.
pub(super) struct SelfContained<'py> {
    pub(super) pod: Bytes,
    /// By region ordinal.
    pub(super) regions: Vec<StreamRegion<'py>>,
}

/// A region of a stream.
pub(super) enum StreamRegion<'py> {
    /// Its bytes stand in the stream.
    Inline(Bytes),
    /// The caller passed the buffer.
    Outside(Bound<'py, PyAny>),
}

impl<'py> Supply<'py> for SelfContained<'py> {
    fn pod(&mut self, _position: usize) -> Result<Bytes> {
        Ok(self.pod.clone())
    }

    fn region(&mut self, ordinal: usize, _region: &RegionRecord, into: &mut [u8]) -> Result<()> {
        match self.regions.get(ordinal) {
            Some(StreamRegion::Inline(bytes)) if bytes.len() == into.len() => {
                into.copy_from_slice(bytes);
                Ok(())
            }
            _ => Err(Failure::damaged(format!("region {ordinal} of the stream has no such bytes"))),
        }
    }

    fn outside(&self, ordinal: usize) -> Option<&Bound<'py, PyAny>> {
        match self.regions.get(ordinal)? {
            StreamRegion::Outside(object) => Some(object),
            StreamRegion::Inline(_) => None,
        }
    }
}
