//! Live classes and functions that a load uses again, because they equal the stored ones.
//!
//! 1. A stored definition is equal to a live one if a save of the live one would store the same pods.
//! 2. Nothing live is altered, and no live object is used for two stored ones.
//! 3. A pod is settled only if all that it depends on is, so that a live class never mixes with a newly made base.
//! 4. Functions of one origin that are made anew fill one globals dict; so what shares it with them is made anew, too.
//! 5. Which of several equal live definitions is meant: the one that a variable of the plan names, else one that the
//!    namespace holds, else the only one of the process that is known to be saved by value; never any of several.

use super::error::Result;
use super::options::LiveDefinitions;
use super::supply::Supply;
use crate::py::Obj;
use crate::walk::{Image, image};
use bytes::Bytes;
use chipmink_types::{Export, LoadPlan, LoadPod, LoadRoot, LoadShape, ShapeRecord};
use hashbrown::{HashMap, HashSet};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

/// What a settled pod offers, by export slot.
pub(super) type Offered<'py> = Vec<Option<Bound<'py, PyAny>>>;

/// By position in the plan: what the pod offers, if it need not run.
///
/// # Errors
/// When a pod's bytes cannot be read, or the program is interrupted.
pub(super) fn settle<'py>(
    py: Python<'py>,
    plan: &LoadPlan,
    supply: &mut dyn Supply<'py>,
    live: &LiveDefinitions,
) -> Result<HashMap<usize, Offered<'py>>> {
    let definitions = &plan.pods[..plan.definitions.min(plan.pods.len())];
    if definitions.is_empty() {
        return Ok(HashMap::new());
    }
    let pods = (0..definitions.len()).map(|position| supply.pod(position)).collect::<Result<Vec<_>>>()?;
    let candidates = Candidates::find(py, live, &pods)?;
    if candidates.objects.is_empty() {
        return Ok(HashMap::new());
    }
    let image = image(py, live.namespace.bind(py), &candidates.objects)?;
    let mut matching = Matching::new(py, definitions, &image, &candidates);
    let named = plan.variables.iter().filter_map(|variable| {
        let position = named_definition(plan, &variable.root)?;
        let pod = image.roots[*candidates.by_name.get(&variable.name)?]?;
        Some((matching.unified(position, pod)?.len(), position, pod))
    });
    let mut named: Vec<(usize, usize, usize)> = named.collect();
    // A class goes before its bases: it settles them, and a base that was defined anew would keep it from being used.
    named.sort_by_key(|(count, ..)| std::cmp::Reverse(*count));
    for (_, position, pod) in named {
        matching.unify(position, pod);
    }
    for position in 0..definitions.len() {
        matching.find(position);
    }
    matching.give_up_shared_globals()?;
    Ok(matching.offered()?)
}

/// The definition that a variable probably is: a pod of its own that only refers to it, or the definition's own pod.
fn named_definition(plan: &LoadPlan, root: &LoadRoot) -> Option<usize> {
    let LoadRoot::Pod(position, _) = *root else { return None };
    match plan.pods.get(position)?.dependencies[..] {
        _ if position < plan.definitions => Some(position),
        [definition] if definition < plan.definitions => Some(definition),
        _ => None,
    }
}

/// Live objects that may equal stored definitions.
struct Candidates<'py> {
    objects: Vec<Bound<'py, PyAny>>,
    /// How many of the first are held by the namespace.
    named: usize,
    by_name: HashMap<String, usize>,
}

impl<'py> Candidates<'py> {
    /// Those whose name stands in one of the pods: every definition's name is written out in its pod.
    fn find(py: Python<'py>, live: &LiveDefinitions, pods: &[Bytes]) -> PyResult<Self> {
        let mut found = Candidates { objects: Vec::new(), named: 0, by_name: HashMap::new() };
        let mut seen: HashSet<usize> = HashSet::new();
        let mut mentioned: HashMap<String, bool> = HashMap::new();
        let mut is_mentioned = |object: &Bound<'py, PyAny>| -> PyResult<bool> {
            let Some(name) = own_name(object)? else { return Ok(false) };
            let stands = |name: &str| {
                let is_in = |pod: &Bytes| pod.windows(name.len().max(1)).any(|part| part == name.as_bytes());
                !name.is_ascii() || pods.iter().any(is_in)
            };
            Ok(*mentioned.entry_ref(name.as_str()).or_insert_with(|| stands(&name)))
        };
        for (name, object) in live.namespace.bind(py).iter() {
            let is_definition =
                Obj::of(&object).is_class() || live.functions && Obj::of(&object).is_function();
            if is_definition && is_mentioned(&object)? {
                let at = found.objects.len();
                if let Ok(name) = name.extract() {
                    found.by_name.insert(name, at);
                }
                seen.insert(object.as_ptr() as usize);
                found.objects.push(object);
            }
        }
        found.named = found.objects.len();
        let known = py.import("chipmink._live")?.call_method0("known_classes")?;
        for object in known.try_iter()? {
            let object = object?;
            if seen.insert(object.as_ptr() as usize) && is_mentioned(&object)? {
                found.objects.push(object);
            }
        }
        Ok(found)
    }
}

/// A class's or function's `__name__`, read without running code of a metaclass.
fn own_name(object: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    let name = match object.cast::<PyType>() {
        // SAFETY: a live class; a new reference or null with an exception.
        Ok(class) => unsafe {
            Bound::from_owned_ptr_or_err(object.py(), ffi::PyType_GetName(class.as_type_ptr()))?
        },
        Err(_) => object.getattr("__name__")?,
    };
    Ok(name.cast::<PyString>().ok().and_then(|name| name.to_str().ok().map(str::to_owned)))
}

/// Which live pods the stored pods were found to equal.
struct Matching<'a, 'py> {
    py: Python<'py>,
    definitions: &'a [LoadPod],
    image: &'a Image,
    /// Pods of the image that are reached from what the namespace holds.
    is_named: Vec<bool>,
    /// Pods of the image whose root may be used although no stored variable names it: candidates, and all classes.
    may_stand_alone: Vec<bool>,
    by_digest: HashMap<chipmink_types::Digest, Vec<usize>>,
    /// Stored pod to pod of the image.
    live_of: HashMap<usize, usize>,
    taken: HashSet<usize>,
}

impl<'a, 'py> Matching<'a, 'py> {
    fn new(
        py: Python<'py>,
        definitions: &'a [LoadPod],
        image: &'a Image,
        candidates: &Candidates<'py>,
    ) -> Self {
        let mut is_named = vec![false; image.pods.len()];
        let mut open: Vec<usize> = image.roots[..candidates.named].iter().flatten().copied().collect();
        while let Some(pod) = open.pop() {
            if let Some(named) = is_named.get_mut(pod)
                && !std::mem::replace(named, true)
            {
                open.extend_from_slice(&image.pods[pod].dependencies);
            }
        }
        let mut may_stand_alone: Vec<bool> = image
            .pods
            .iter()
            .map(|pod| {
                let root = pod.exports.first().and_then(Option::as_ref);
                root.is_some_and(|root| Obj::of(root.bind(py)).is_class())
            })
            .collect();
        for root in image.roots.iter().flatten() {
            may_stand_alone[*root] = true;
        }
        let mut by_digest: HashMap<_, Vec<usize>> = HashMap::new();
        for (at, pod) in image.pods.iter().enumerate() {
            by_digest.entry(pod.record.digest).or_default().push(at);
        }
        let (live_of, taken) = (HashMap::new(), HashSet::new());
        Matching { py, definitions, image, is_named, may_stand_alone, by_digest, live_of, taken }
    }

    /// Looks for a live definition that equals a stored one.
    fn find(&mut self, position: usize) {
        if self.live_of.contains_key(&position) {
            return;
        }
        let Some(found) = self.by_digest.get(&self.definitions[position].digest) else { return };
        let free = |pod: &&usize| self.may_stand_alone[**pod] && !self.taken.contains(*pod);
        let (named, known): (Vec<usize>, Vec<usize>) =
            found.iter().filter(free).partition(|pod| self.is_named[**pod]);
        if named.iter().any(|pod| self.unify(position, *pod)) {
            return;
        }
        let equal: Vec<_> = known.iter().filter_map(|pod| self.unified(position, *pod)).collect();
        if let [pairs] = &equal[..] {
            self.take(pairs);
        }
    }

    /// Takes the live pod for the stored one if they are equal; returns whether they are.
    fn unify(&mut self, position: usize, pod: usize) -> bool {
        let pairs = self.unified(position, pod);
        if let Some(pairs) = &pairs {
            self.take(pairs);
        }
        pairs.is_some()
    }

    fn take(&mut self, pairs: &[(usize, usize)]) {
        self.live_of.extend(pairs.iter().copied());
        self.taken.extend(pairs.iter().map(|(_, pod)| *pod));
    }

    /// The pairs that follow if the stored pod is the live one; `None`: they differ, or one is another's.
    fn unified(&self, position: usize, pod: usize) -> Option<Vec<(usize, usize)>> {
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        let mut live_of: HashMap<usize, usize> = HashMap::new();
        let mut taken: HashSet<usize> = HashSet::new();
        let mut open = vec![(position, pod)];
        while let Some((position, pod)) = open.pop() {
            match self.live_of.get(&position).or_else(|| live_of.get(&position)) {
                Some(known) if *known == pod => continue,
                Some(_) => return None,
                None if self.taken.contains(&pod) || !taken.insert(pod) => return None,
                None => {}
            }
            let (stored, live) = (self.definitions.get(position)?, self.image.pods.get(pod)?);
            if !is_equal(stored, live) {
                return None;
            }
            live_of.insert(position, pod);
            pairs.push((position, pod));
            open.extend(stored.dependencies.iter().copied().zip(live.dependencies.iter().copied()));
        }
        Some(pairs)
    }

    /// Gives up what is settled and shares its globals with a function that is made anew.
    fn give_up_shared_globals(&mut self) -> PyResult<()> {
        let stand_in = self.py.import("chipmink._markers")?.getattr("CapturedGlobals")?;
        let offers_globals: Vec<bool> = self
            .image
            .pods
            .iter()
            .map(|pod| {
                pod.exports.iter().flatten().any(|object| object.bind(self.py).get_type().is(&stand_in))
            })
            .collect();
        let uses = |user: usize, position: usize| self.definitions[user].dependencies.contains(&position);
        let mut open: Vec<usize> = Vec::new();
        loop {
            let is_new = |user: &usize| !self.live_of.contains_key(user);
            let shared = |(position, pod): (&usize, &usize)| {
                let is_shared = offers_globals[*pod]
                    && (0..self.definitions.len()).filter(is_new).any(|user| uses(user, *position));
                is_shared.then_some(*position)
            };
            open.extend(self.live_of.iter().filter_map(shared));
            if open.is_empty() {
                return Ok(());
            }
            while let Some(position) = open.pop() {
                if self.live_of.remove(&position).is_some() {
                    open.extend(self.live_of.keys().filter(|user| uses(**user, position)));
                }
            }
        }
    }

    /// What the settled pods offer. What stands for a module's globals in the walk is those globals here.
    fn offered(&self) -> PyResult<HashMap<usize, Offered<'py>>> {
        let stand_in = self.py.import("chipmink._reduce_functions")?.getattr("ModuleGlobals")?;
        let globals_of = self.py.import("chipmink._rebuild")?.getattr("module_globals")?;
        let offer = |object: &Option<Py<PyAny>>| -> PyResult<Option<Bound<'py, PyAny>>> {
            let Some(object) = object else { return Ok(None) };
            let object = object.bind(self.py);
            if object.get_type().is(&stand_in) {
                return globals_of.call1((object.getattr("name")?,)).map(Some);
            }
            Ok(Some(object.clone()))
        };
        let of_pod = |(position, pod): (&usize, &usize)| {
            let exports = self.image.pods[*pod].exports.iter();
            Ok((*position, exports.map(offer).collect::<PyResult<_>>()?))
        };
        self.live_of.iter().map(of_pod).collect()
    }
}

/// Whether a pod of its own says the same as a stored one. What functions read of their namespace says nothing.
fn is_equal(stored: &LoadPod, live: &crate::walk::ImagePod) -> bool {
    let record = &live.record;
    let same_shape = |(stored, live): (&LoadShape, &ShapeRecord)| {
        stored.class == live.class
            && stored.dict_names == live.dict_names
            && stored.slot_names == live.slot_names
    };
    // A slot that nobody outside has asked for need not be offered by the stored pod.
    let offers = stored.exports.iter().enumerate().all(|(slot, export)| match export {
        Export::Vacant => true,
        Export::Root(0) if slot == 0 => live.exports.first().is_some_and(Option::is_some),
        _ => record.exports.get(slot) == Some(export) && live.exports.get(slot).is_some_and(Option::is_some),
    });
    stored.digest == record.digest
        && stored.byte_len == record.byte_len
        && stored.dependencies.len() == live.dependencies.len()
        && stored.globals == record.globals
        && stored.shapes.len() == record.shapes.len()
        && stored.shapes.iter().zip(&record.shapes).all(same_shape)
        && stored.regions == record.regions
        && offers
}
