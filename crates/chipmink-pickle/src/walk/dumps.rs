//! `dumps`: one object as a self-contained stream.

use super::adopt::shape_records;
use super::frames::Mode;
use super::ndarray::numpy_types;
use super::session::{PySession, SessionOptions};
use super::walker::{Stop, Walker};
use crate::py::Obj;
use chipmink_format::{StreamParts, StreamPod, StreamRegion as FormatRegion, encode_stream};
use chipmink_types::{BlobError, BlobKind, BlobSink, Digest, Export, WalkError};
use pyo3::prelude::*;
use std::borrow::Cow;

/// What stands beside the pod of a stream.
#[derive(Default)]
pub(crate) struct StreamState {
    pub buffer_callback: Option<Py<PyAny>>,
    pub regions: Vec<StreamRegion>,
}

/// A region of a stream.
pub(crate) enum StreamRegion {
    /// Its bytes.
    Inline(Vec<u8>),
    /// The callback took it.
    OutOfBand,
}

/// Takes bytes that nobody will read: a stream has everything in it.
pub(super) struct NoSink;

impl BlobSink for NoSink {
    fn put(&mut self, _: BlobKind, _: Digest, _: &[u8]) -> Result<bool, BlobError> {
        Ok(true)
    }

    fn holds(&mut self, _: &Digest) -> bool {
        false
    }
}

/// Writes an object, with everything that it refers to, as a stream that [`crate::rebuild::loads`] reads.
///
/// Each out-of-band buffer (PEP 574) is offered to `buffer_callback`; it stays out of the stream if the callback returns
/// something false.
///
/// # Errors
/// The exception of the reducer that failed, or an interrupt.
pub fn dumps(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
    buffer_callback: Option<&Bound<'_, PyAny>>,
) -> PyResult<Vec<u8>> {
    let mut session = PySession::new(py, SessionOptions::for_one_walk())?;
    let mut sink = NoSink;
    let mut may_repeat = true;
    let result = loop {
        let context = session.context(py, None)?;
        let mut walker = Walker::new(py, &mut session, &mut sink, None, context, true, numpy_types(py)?);
        walker.stream = Some(StreamState {
            buffer_callback: buffer_callback.map(|callback| callback.clone().unbind()),
            regions: Vec::new(),
        });
        walker.memory.may_repeat = may_repeat && buffer_callback.is_none();
        let result = walker.whole_stream(Obj::of(object));
        if result.is_ok()
            && let Some(hints) = walker.shared_otherwise()
        {
            walker.abandon(0);
            session.hints = hints;
            may_repeat = false;
            continue;
        }
        drop(walker);
        break result;
    };
    match result {
        Ok(bytes) => Ok(bytes),
        Err(Stop::Variable(error)) => Err(error),
        Err(Stop::Fatal(WalkError::Interrupted)) => Err(session
            .take_exception()
            .unwrap_or_else(|| pyo3::exceptions::PyKeyboardInterrupt::new_err(()))),
        Err(Stop::Fatal(error)) => Err(pyo3::exceptions::PyRuntimeError::new_err(error.to_string())),
        Err(Stop::Miss(_) | Stop::Break(_)) => {
            Err(pyo3::exceptions::PyRuntimeError::new_err("the walk lost its place; please report this"))
        }
    }
}

impl Walker<'_, '_> {
    fn whole_stream(&mut self, object: Obj) -> Result<Vec<u8>, Stop> {
        self.open_single();
        self.value(object, super::frames::At::NOWHERE)?;
        self.run()?;
        self.close(0)?;
        let visit = self.visits.remove(0);
        let Mode::Written(finished) = visit.mode else {
            return Err(Stop::Fatal(WalkError::Source("the stream's pod was left open".to_owned())));
        };
        let tables = finished.tables;
        let shapes = shape_records(&tables, &self.session.shapes, self.py).map_err(Stop::Fatal)?;
        let regions = self.stream.take().map(|stream| stream.regions).unwrap_or_default();
        let regions = regions
            .into_iter()
            .zip(&tables.regions)
            .map(|(region, record)| FormatRegion {
                content: match region {
                    StreamRegion::Inline(bytes) => Some(Cow::Owned(bytes)),
                    StreamRegion::OutOfBand => None,
                },
                byte_len: record.byte_len,
                views: record.views.clone(),
            })
            .collect();
        let side = (!tables.side.is_empty()).then(|| {
            let mut bytes = vec![chipmink_format::tag::POD_VERSION];
            bytes.extend_from_slice(&tables.side);
            Cow::Owned(bytes)
        });
        let pod = StreamPod {
            bytes: Cow::Borrowed(&tables.buf),
            exports: vec![Export::Root(0)],
            dependencies: Vec::new(),
            globals: tables.globals.iter().map(|id| self.session.names.name(*id).clone()).collect(),
            shapes,
            side,
            regions,
        };
        Ok(encode_stream(&StreamParts { pods: vec![pod], root: (0, 0), ..StreamParts::default() }))
    }
}
