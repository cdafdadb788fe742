//! Where the decoder's bytes come from.

use super::error::{Failure, Result};
use bytes::Bytes;
use chipmink_types::{LoadPlan, LoadPod, PodSource, RegionRecord};
use pyo3::prelude::*;

/// Gives the decoder pods and regions.
pub(super) trait Supply<'py> {
    /// The bytes of the plan's pod at `position`.
    fn pod(&mut self, position: usize) -> Result<Bytes>;

    /// Fills `into`, which has exactly the region's length, with the region of this ordinal of the pod at `position`.
    fn region(
        &mut self,
        position: usize,
        ordinal: usize,
        region: &RegionRecord,
        into: &mut [u8],
    ) -> Result<()>;

    /// The object that holds a region's bytes, if the caller of the load passed it beside the stream.
    fn outside(&self, position: usize, ordinal: usize) -> Option<&Bound<'py, PyAny>>;

    /// Whether regions carry the digests of their content.
    fn has_digests(&self) -> bool;

    /// What messages call a pod.
    fn pod_name(&self, position: usize, pod: &LoadPod) -> String;
}

/// The pods and regions of a repository.
pub(super) struct Stored<'s> {
    source: &'s mut dyn PodSource,
    /// The bytes of the plan's first pods, its definitions, are asked for twice.
    definitions: Vec<Option<Bytes>>,
}

impl<'s> Stored<'s> {
    pub(super) fn new(source: &'s mut dyn PodSource, plan: &LoadPlan) -> Self {
        Stored { source, definitions: vec![None; plan.definitions.min(plan.pods.len())] }
    }
}

impl<'py> Supply<'py> for Stored<'_> {
    fn pod(&mut self, position: usize) -> Result<Bytes> {
        match self.definitions.get_mut(position) {
            Some(Some(bytes)) => Ok(bytes.clone()),
            Some(place) => Ok(place.insert(self.source.pod(position)?).clone()),
            None => Ok(self.source.pod(position)?),
        }
    }

    fn region(&mut self, _: usize, _: usize, region: &RegionRecord, into: &mut [u8]) -> Result<()> {
        Ok(self.source.read_region(region, into)?)
    }

    fn outside(&self, _: usize, _: usize) -> Option<&Bound<'py, PyAny>> {
        None
    }

    fn has_digests(&self) -> bool {
        true
    }

    fn pod_name(&self, _: usize, pod: &LoadPod) -> String {
        format!("pod {}", pod.digest)
    }
}

/// The pods of a stream.
pub(super) struct Streamed<'py> {
    /// By position: the bytes, and the regions by ordinal.
    pub(super) pods: Vec<(Bytes, Vec<StreamedRegion<'py>>)>,
}

/// A region of a stream.
pub(super) enum StreamedRegion<'py> {
    /// Its bytes stand in the stream.
    Inline(Bytes),
    /// The caller passed the buffer.
    Outside(Bound<'py, PyAny>),
}

impl<'py> Streamed<'py> {
    fn find(&self, position: usize, ordinal: usize) -> Option<&StreamedRegion<'py>> {
        self.pods.get(position)?.1.get(ordinal)
    }
}

impl<'py> Supply<'py> for Streamed<'py> {
    fn pod(&mut self, position: usize) -> Result<Bytes> {
        let pod = self.pods.get(position).map(|(bytes, _)| bytes.clone());
        pod.ok_or_else(|| Failure::damaged(format!("the stream has no pod {position}")))
    }

    fn region(&mut self, position: usize, ordinal: usize, _: &RegionRecord, into: &mut [u8]) -> Result<()> {
        match self.find(position, ordinal) {
            Some(StreamedRegion::Inline(bytes)) if bytes.len() == into.len() => {
                into.copy_from_slice(bytes);
                Ok(())
            }
            _ => Err(Failure::damaged(format!("region {ordinal} of the stream has no such bytes"))),
        }
    }

    fn outside(&self, position: usize, ordinal: usize) -> Option<&Bound<'py, PyAny>> {
        match self.find(position, ordinal)? {
            StreamedRegion::Outside(object) => Some(object),
            StreamedRegion::Inline(_) => None,
        }
    }

    fn has_digests(&self) -> bool {
        false
    }

    fn pod_name(&self, position: usize, _: &LoadPod) -> String {
        format!("pod {position} of the stream")
    }
}
