//! Pods as subroutines: which have run, which are running, and what they offer to others.

use super::error::{Failure, RebuildError, Result};
use super::frame::{Build, Frame, NOT_KEPT};
use super::loader::Loader;
use super::memo::{Entry, Kept, Mark, NO_NUMBER};
use super::reader::Reader;
use super::shape::Shape;
use bytes::Bytes;
use chipmink_format::tag;
use chipmink_types::{Export, LoadPod};
use pyo3::prelude::*;
use smallvec::SmallVec;
use std::rc::Rc;

/// How far a pod of the plan has come.
pub(super) enum PodState<'py> {
    Waiting,
    /// Position in [`Loader::active`].
    Running(usize),
    /// By export slot.
    Done(SmallVec<[Option<Entry<'py>>; 1]>),
}

/// Where the decoder stands in a pod: what the loader keeps at hand for the pod that runs now.
pub(super) struct Run {
    pub(super) reader: Reader,
    /// The next memo number.
    pub(super) number: usize,
    /// The next memo number that is kept.
    pub(super) next_kept: usize,
    /// How many list slots may still be reserved ahead of reading; at most one for each byte of the pod, so that
    /// announced counts, however they nest, cannot ask for more memory than the bytes could fill.
    pub(super) room: usize,
    /// How many array elements may still be announced: each takes a byte of the pod.
    pub(super) element_room: usize,
}

/// A pod that runs, or waits for one that it called.
pub(super) struct Active<'py> {
    /// Position in the plan.
    pub(super) position: usize,
    /// Depth of its frame on the stack.
    pub(super) base: usize,
    pub(super) kept: Kept,
    /// The kept objects, in the order of `kept`.
    pub(super) memo: Vec<Entry<'py>>,
    pub(super) roots: SmallVec<[Entry<'py>; 1]>,
    /// Globals and shapes that it has used, by ordinal.
    pub(super) globals: Vec<Option<Bound<'py, PyAny>>>,
    pub(super) shapes: Vec<Option<Rc<Shape<'py>>>>,
    /// The values of the side record, once one is used.
    pub(super) side: Option<Vec<Bound<'py, PyAny>>>,
    /// Regions that several arrays look into, by ordinal.
    pub(super) regions: Vec<(usize, Bound<'py, PyAny>)>,
}

/// What asking for an export finds.
pub(super) enum Offer<'py> {
    /// The pod has not run: it must run first.
    NotRun,
    Object(Entry<'py>),
}

/// Where a pod's values end, and the memo numbers that its trailer lists.
type Parts = (usize, SmallVec<[u32; 4]>);

/// The parts of a pod's bytes; else where they are damaged, and how.
fn split(bytes: &Bytes) -> std::result::Result<Parts, (usize, String)> {
    let damaged = |at: usize, reason: &str| (at, reason.to_owned());
    match bytes.first() {
        Some(&tag::POD_VERSION) => {}
        Some(version) => {
            return Err((0, format!("its version is {version}, this chipmink reads {}", tag::POD_VERSION)));
        }
        None => return Err(damaged(0, "it is empty")),
    }
    let Some(len_at) = bytes.len().checked_sub(4).filter(|&at| at >= 1) else {
        return Err(damaged(0, "it is too short to have a trailer"));
    };
    let len = bytes[len_at..].first_chunk::<4>().map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes));
    let Some(start) = len_at.checked_sub(len as usize).filter(|&start| start >= 1) else {
        return Err(damaged(len_at, "its trailer is longer than the pod"));
    };
    let mut trailer = Reader::new(bytes.clone(), start, len_at);
    let mut read = || -> Result<SmallVec<[u32; 4]>> {
        let count = trailer.count()?;
        let mut numbers = SmallVec::with_capacity(count);
        let mut last = 0u32;
        for i in 0..count {
            let step = u32::try_from(trailer.varint()?).ok().filter(|&step| step > 0 || i == 0);
            last = step
                .and_then(|step| last.checked_add(step))
                .ok_or_else(|| Failure::damaged("memo numbers do not ascend"))?;
            numbers.push(last);
        }
        if !trailer.is_at_end() {
            return Err(Failure::damaged("bytes are left over"));
        }
        Ok(numbers)
    };
    match read() {
        Ok(numbers) => Ok((start, numbers)),
        Err(_) => Err(damaged(start, "its trailer is not a list of ascending memo numbers")),
    }
}

impl<'py, 'a> Loader<'py, 'a> {
    /// The pod whose bytes are being read.
    ///
    /// # Errors
    /// When none is: the decoder was asked for a value of a pod while it read one that stands alone.
    #[inline(always)]
    pub(super) fn current(&mut self) -> Result<&mut Active<'py>> {
        self.active.last_mut().ok_or_else(|| Failure::damaged("a value that stands alone refers to a pod"))
    }

    /// The plan's entry for the pod whose bytes are being read.
    pub(super) fn current_plan(&self) -> Result<&'a LoadPod> {
        let position = self.active.last().map(|active| active.position);
        position
            .and_then(|position| self.plan.get(position))
            .ok_or_else(|| Failure::damaged("a value that stands alone refers to a pod"))
    }

    /// Runs a pod, and all that it calls, unless it has run already.
    pub(super) fn run_pod(&mut self, position: usize) -> Result<()> {
        let floor = self.stack.len();
        if matches!(self.states.get(position), Some(PodState::Waiting)) {
            self.begin_pod(position)?;
            self.run(floor)?;
        }
        Ok(())
    }

    /// Puts a pod's frame on the stack; the decoder goes on at its first root.
    pub(super) fn begin_pod(&mut self, position: usize) -> Result<()> {
        let pod = &self.plan[position];
        let bytes = self.supply.pod(position)?;
        let damaged = |byte_offset: usize, reason: String| RebuildError::Damaged {
            pod: self.pod_name(position),
            byte_offset: byte_offset as u64,
            reason,
        };
        if bytes.len() as u64 != pod.byte_len {
            let reason = format!("it has {} bytes instead of {}", bytes.len(), pod.byte_len);
            return Err(damaged(0, reason).into());
        }
        let (end, mut numbers) = split(&bytes).map_err(|(at, reason)| damaged(at, reason))?;
        numbers.extend(pod.exports.iter().filter_map(|export| match export {
            Export::Memo(number) => Some(*number),
            Export::Vacant | Export::Root(_) => None,
        }));
        let kept = Kept::new(numbers, end)?;
        let run = Run {
            reader: Reader::new(bytes, 1, end),
            number: 0,
            next_kept: kept.number(0),
            room: end,
            element_room: end,
        };
        let caller = std::mem::replace(&mut self.at, run);
        self.states[position] = PodState::Running(self.active.len());
        self.active.push(Active {
            position,
            base: self.stack.len(),
            memo: Vec::with_capacity(kept.len()),
            kept,
            roots: SmallVec::new(),
            globals: Vec::new(),
            shapes: Vec::new(),
            side: None,
            regions: Vec::new(),
        });
        let serial = self.next_serial();
        self.stack.push(Frame {
            serial,
            memo: NOT_KEPT,
            mark: Mark::SETTLED,
            build: Build::Pod(Box::new(caller)),
        });
        Ok(())
    }

    /// Reads root values until the pod's bytes end.
    pub(super) fn fill_pod(&mut self) -> Result<()> {
        loop {
            if let Some(object) = self.delivered.take() {
                let mark = self.take_mark();
                self.current()?.roots.push(Entry { object, mark });
            }
            if self.at.reader.is_at_end() {
                return self.end_pod();
            }
            match self.value(0)? {
                super::loader::Step::Value(object) => self.delivered = Some(object),
                _ => return Ok(()),
            }
        }
    }

    /// Keeps what the pod offers to others, and goes on where it was called.
    fn end_pod(&mut self) -> Result<()> {
        let active = self.current()?;
        if active.memo.len() != active.kept.len() {
            return Err(Failure::damaged("memo numbers are referred to that no value has"));
        }
        let (Some(active), Some(frame)) = (self.active.pop(), self.stack.pop()) else {
            return Err(Failure::damaged("a pod ends that did not begin"));
        };
        let Build::Pod(caller) = frame.build else {
            return Err(Failure::damaged("a pod ends inside a value"));
        };
        let exports = self.plan[active.position].exports.iter().map(|export| match *export {
            Export::Vacant => None,
            Export::Root(root) => active.roots.get(root as usize).cloned(),
            Export::Memo(number) => {
                active.kept.position(u64::from(number)).and_then(|at| active.memo.get(at)).cloned()
            }
        });
        self.states[active.position] = PodState::Done(exports.collect());
        self.at = *caller;
        Ok(())
    }

    /// The position in the plan of a dependency of the pod that is being read.
    pub(super) fn dependency(&self, slot: u64) -> Result<usize> {
        let dependencies = &self.current_plan()?.dependencies;
        let position = usize::try_from(slot).ok().and_then(|slot| dependencies.get(slot)).copied();
        position.filter(|&position| position < self.states.len()).ok_or_else(|| {
            Failure::damaged(format!("dependency {slot} is referred to, of {}", dependencies.len()))
        })
    }

    /// What a pod offers under an export slot.
    pub(super) fn export(&self, position: usize, slot: u64) -> Result<Offer<'py>> {
        let missing = || {
            Failure::damaged(format!(
                "export {slot} of {} is referred to, which does not exist",
                self.pod_name(position)
            ))
        };
        let index = usize::try_from(slot).map_err(|_| missing())?;
        let active = match self.states.get(position) {
            Some(PodState::Waiting) => return Ok(Offer::NotRun),
            Some(PodState::Done(exports)) => {
                let entry = exports.get(index).and_then(Option::as_ref).ok_or_else(missing)?;
                return Ok(Offer::Object(entry.clone()));
            }
            Some(PodState::Running(active)) => self.active.get(*active).ok_or_else(missing)?,
            None => return Err(missing()),
        };
        let entry = match *self.plan[position].exports.get(index).ok_or_else(missing)? {
            Export::Vacant => None,
            Export::Memo(number) => {
                active.kept.position(u64::from(number)).and_then(|at| active.memo.get(at)).cloned()
            }
            Export::Root(root) if root as usize == active.roots.len() => {
                let depth = active.base + 1;
                self.stack.get(depth).and_then(|frame| {
                    let object = frame.object()?.clone();
                    Some(Entry { object, mark: Mark { depth: depth as u32, serial: frame.serial } })
                })
            }
            Export::Root(root) => active.roots.get(root as usize).cloned(),
        };
        entry.map(Offer::Object).ok_or_else(|| {
            Failure::damaged(format!(
                "export {slot} of {} is referred to before the object exists",
                self.pod_name(position)
            ))
        })
    }
}

impl Run {
    /// Reads values that stand alone, outside any pod.
    pub(super) fn alone(bytes: Bytes) -> Self {
        let end = bytes.len();
        Run { reader: Reader::new(bytes, 0, end), number: 0, next_kept: NO_NUMBER, room: 0, element_room: 0 }
    }
}
