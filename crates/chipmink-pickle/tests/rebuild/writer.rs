//! A plain writer of pods, as simple as it can be: it recurses, cuts pods at random, and shares no code with the walker.

use bytes::Bytes;
use chipmink_format::tag;
use chipmink_types::{
    BlobError, Digest, Export, GlobalName, GridKind, LoadPlan, LoadPod, LoadRoot, LoadShape, LoadVariable,
    PodSource, RegionRecord, ShapeClass, ViewRecord,
};
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyCFunction, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet,
    PyString, PyTuple, PyType,
};
use std::collections::{BTreeSet, HashMap};

/// One pod on its way.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) bytes: Vec<u8>,
    pub(crate) number: u32,
    pub(crate) referred: BTreeSet<u32>,
    pub(crate) exports: Vec<Export>,
    pub(crate) dependencies: Vec<usize>,
    pub(crate) globals: Vec<GlobalName>,
    pub(crate) shapes: Vec<LoadShape>,
    pub(crate) regions: Vec<Vec<u8>>,
    pub(crate) side: Option<Vec<u8>>,
}

impl Draft {
    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub(crate) fn tagged(&mut self, tag: u8, numbers: &[u64]) {
        self.bytes.push(tag);
        numbers.iter().for_each(|&number| self.varint(number));
    }

    pub(crate) fn text(&mut self, text: &str) {
        assert!(text.is_ascii() && text.len() < 256);
        self.bytes.push(tag::STR8);
        self.bytes.push(text.len() as u8);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn next_number(&mut self) -> u32 {
        self.number += 1;
        self.number - 1
    }

    fn slot<T: PartialEq>(list: &mut Vec<T>, item: T) -> u64 {
        let at = list.iter().position(|known| *known == item).unwrap_or_else(|| {
            list.push(item);
            list.len() - 1
        });
        at as u64
    }

    pub(crate) fn dependency(&mut self, position: usize) -> u64 {
        Self::slot(&mut self.dependencies, position)
    }

    pub(crate) fn export(&mut self, export: Export) -> u64 {
        Self::slot(&mut self.exports, export)
    }

    pub(crate) fn global(&mut self, module: &str, qualname: &str) -> u64 {
        Self::slot(&mut self.globals, GlobalName { module: module.into(), qualname: qualname.into() })
    }

    /// The pod's bytes, with head and trailer.
    pub(crate) fn finished(&self) -> Vec<u8> {
        let mut out = Draft { bytes: vec![tag::POD_VERSION], ..Draft::default() };
        out.bytes.extend_from_slice(&self.bytes);
        let trailer_at = out.bytes.len();
        out.varint(self.referred.len() as u64);
        let mut last = 0;
        for &number in &self.referred {
            out.varint(u64::from(number - last));
            last = number;
        }
        let trailer_len = (out.bytes.len() - trailer_at) as u32;
        out.bytes.extend_from_slice(&trailer_len.to_le_bytes());
        out.bytes
    }
}

/// What was written: the plan, and what its source gives.
pub(crate) struct Written {
    pub(crate) plan: LoadPlan,
    pub(crate) pods: Vec<Vec<u8>>,
    /// By pod, then ordinal.
    pub(crate) regions: Vec<Vec<Vec<u8>>>,
}

pub(crate) fn region_root(pod: usize, ordinal: usize) -> Digest {
    let mut canonical = [0; 16];
    canonical[..8].copy_from_slice(&(pod as u64).to_be_bytes());
    canonical[8..].copy_from_slice(&(ordinal as u64).to_be_bytes());
    Digest::xxh3(canonical)
}

impl Written {
    pub(crate) fn of(drafts: &[Draft], variables: Vec<LoadVariable>) -> Self {
        let pods: Vec<Vec<u8>> = drafts.iter().map(Draft::finished).collect();
        let described = drafts.iter().zip(&pods).enumerate().map(|(position, (draft, bytes))| LoadPod {
            digest: Digest::xxh3([position as u8; 16]),
            byte_len: bytes.len() as u64,
            exports: draft.exports.clone(),
            dependencies: draft.dependencies.clone(),
            globals: draft.globals.clone(),
            shapes: draft.shapes.clone(),
            regions: (0..draft.regions.len())
                .map(|ordinal| RegionRecord {
                    grid: GridKind::Run,
                    row_len: 0,
                    first_chunk_len: 0,
                    byte_len: draft.regions[ordinal].len() as u64,
                    buffer_id: 0,
                    root: region_root(position, ordinal),
                    views: vec![ViewRecord { byte_offset: 0 }],
                })
                .collect(),
            side: draft.side.clone().map(Bytes::from),
        });
        let plan = LoadPlan { pods: described.collect(), definitions: 0, variables };
        Written { plan, pods, regions: drafts.iter().map(|draft| draft.regions.clone()).collect() }
    }

    /// The plan that loads one variable alone: the closure of its pod, in order.
    pub(crate) fn part(&self, variable: usize) -> Written {
        let variable = self.plan.variables[variable].clone();
        let LoadRoot::Pod(root, slot) = variable.root else { panic!("a variable of the writer is a pod") };
        let mut wanted = BTreeSet::from([root]);
        let mut open = vec![root];
        while let Some(position) = open.pop() {
            open.extend(self.plan.pods[position].dependencies.iter().filter(|&&other| wanted.insert(other)));
        }
        let places: Vec<usize> = wanted.into_iter().collect();
        let place = |position: &usize| places.binary_search(position).expect("it is in the closure");
        let mut part = Written {
            plan: LoadPlan::default(),
            pods: places.iter().map(|&position| self.pods[position].clone()).collect(),
            regions: places.iter().map(|&position| self.regions[position].clone()).collect(),
        };
        part.plan.pods = places.iter().map(|&position| self.plan.pods[position].clone()).collect();
        for pod in &mut part.plan.pods {
            pod.dependencies.iter_mut().for_each(|position| *position = place(position));
        }
        part.plan
            .variables
            .push(LoadVariable { name: variable.name, root: LoadRoot::Pod(place(&root), slot) });
        part
    }
}

impl PodSource for &Written {
    fn pod(&mut self, position: usize) -> Result<Bytes, BlobError> {
        Ok(Bytes::copy_from_slice(&self.pods[position]))
    }

    fn read_region(&mut self, region: &RegionRecord, into: &mut [u8]) -> Result<(), BlobError> {
        let all = self.plan.pods.iter().zip(&self.regions);
        let found = all
            .flat_map(|(pod, regions)| pod.regions.iter().zip(regions))
            .find(|(known, _)| *known == region);
        match found {
            Some((_, bytes)) => into.copy_from_slice(bytes),
            None => return Err(BlobError::Missing { digest: region.root }),
        }
        Ok(())
    }
}

/// Writes graphs.
pub(crate) struct Writer<'py> {
    py: Python<'py>,
    pub(crate) drafts: Vec<Draft>,
    /// Object to pod and memo number.
    memo: HashMap<usize, (usize, u32)>,
    /// Keeps every object that has an entry.
    kept: Vec<Bound<'py, PyAny>>,
    /// State of the random numbers that decide where pods are cut.
    random: u64,
    /// Pods are cut at this many of 1000 objects.
    split_per_mille: u64,
}

impl<'py> Writer<'py> {
    pub(crate) fn new(py: Python<'py>, seed: u64, split_per_mille: u64) -> Self {
        Writer {
            py,
            drafts: Vec::new(),
            memo: HashMap::new(),
            kept: Vec::new(),
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            split_per_mille,
        }
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 1000 < per_mille
    }

    /// Writes each value of a dict as a variable with a pod of its own, or a reference into another's.
    pub(crate) fn namespace(mut self, namespace: &Bound<'py, PyDict>) -> Written {
        let mut variables = Vec::new();
        for (name, object) in namespace.iter() {
            let known = self.memo.get(&(object.as_ptr() as usize)).copied();
            let (pod, slot) = match known {
                Some((pod, number)) => (pod, self.drafts[pod].export(Export::Memo(number))),
                None => {
                    let pod = self.begin();
                    self.write(pod, &object);
                    (pod, 0)
                }
            };
            let name = name.extract::<String>().expect("names are strs");
            variables.push(LoadVariable { name, root: LoadRoot::Pod(pod, slot as u32) });
        }
        Written::of(&self.drafts, variables)
    }

    fn begin(&mut self) -> usize {
        self.drafts.push(Draft { exports: vec![Export::Root(0)], ..Draft::default() });
        self.drafts.len() - 1
    }

    fn remember(&mut self, pod: usize, object: &Bound<'py, PyAny>) {
        let number = self.drafts[pod].next_number();
        self.memo.insert(object.as_ptr() as usize, (pod, number));
        self.kept.push(object.clone());
    }

    /// Writes a reference to an object that exists already.
    fn refer(&mut self, pod: usize, object: &Bound<'py, PyAny>) -> bool {
        let Some(&(home, number)) = self.memo.get(&(object.as_ptr() as usize)) else { return false };
        if home == pod {
            self.drafts[pod].referred.insert(number);
            self.drafts[pod].tagged(tag::REF, &[u64::from(number)]);
        } else {
            let export = self.drafts[home].export(Export::Memo(number));
            let slot = self.drafts[pod].dependency(home);
            self.drafts[pod].tagged(tag::POD_EXPORT, &[slot, export]);
        }
        true
    }

    fn value(&mut self, pod: usize, object: &Bound<'py, PyAny>) {
        if self.atom(pod, object) || self.refer(pod, object) {
            return;
        }
        let split = self.split_per_mille;
        if self.chance(split) {
            let child = self.begin();
            let slot = self.drafts[pod].dependency(child);
            self.drafts[pod].tagged(tag::POD, &[slot]);
            self.write(child, object);
        } else {
            self.write(pod, object);
        }
    }

    fn atom(&mut self, pod: usize, object: &Bound<'py, PyAny>) -> bool {
        let draft = &mut self.drafts[pod];
        if object.is_none() {
            draft.bytes.push(tag::NONE);
        } else if object.is(self.py.Ellipsis()) {
            draft.bytes.push(tag::ELLIPSIS);
        } else if let Ok(value) = object.cast_exact::<PyBool>() {
            draft.bytes.push(if value.is_true() { tag::TRUE } else { tag::FALSE });
        } else if object.is_exact_instance_of::<PyInt>() {
            match object.extract::<i64>() {
                Ok(value) if i8::try_from(value).is_ok() => draft.bytes.extend([tag::INT8, value as u8]),
                Ok(value) if i16::try_from(value).is_ok() => {
                    draft.bytes.push(tag::INT16);
                    draft.bytes.extend((value as i16).to_le_bytes());
                }
                Ok(value) if i32::try_from(value).is_ok() => {
                    draft.bytes.push(tag::INT32);
                    draft.bytes.extend((value as i32).to_le_bytes());
                }
                Ok(value) => {
                    draft.bytes.push(tag::INT64);
                    draft.bytes.extend(value.to_le_bytes());
                }
                Err(_) => {
                    let code = c"(n.bit_length() // 8 + 1, n.to_bytes(n.bit_length() // 8 + 1, 'little', signed=True))";
                    let locals = PyDict::new(self.py);
                    locals.set_item("n", object).expect("a new dict");
                    let (len, bytes): (u64, Vec<u8>) = self
                        .py
                        .eval(code, None, Some(&locals))
                        .and_then(|pair| pair.extract())
                        .expect("an int");
                    draft.tagged(tag::BIGINT, &[len]);
                    draft.bytes.extend(bytes);
                }
            }
        } else if let Ok(value) = object.cast_exact::<PyFloat>() {
            draft.bytes.push(tag::FLOAT);
            draft.bytes.extend(value.value().to_le_bytes());
        } else if let Ok(value) = object.cast_exact::<PyComplex>() {
            draft.bytes.push(tag::COMPLEX);
            draft.bytes.extend(value.real().to_le_bytes());
            draft.bytes.extend(value.imag().to_le_bytes());
        } else if let Ok(value) = object.cast_exact::<PyBytes>() {
            let value = value.as_bytes();
            if value.len() < 256 {
                draft.bytes.extend([tag::BYTES8, value.len() as u8]);
            } else {
                draft.tagged(tag::BYTES, &[value.len() as u64]);
            }
            draft.bytes.extend_from_slice(value);
            draft.next_number();
        } else if let Ok(value) = object.cast_exact::<PyString>() {
            let value = value.to_string();
            let largest = value.chars().max().unwrap_or('\0') as u32;
            match largest {
                0..0x80 if value.len() < 256 => draft.text(&value),
                0..0x80 => {
                    draft.tagged(tag::STR, &[value.len() as u64]);
                    draft.bytes.extend_from_slice(value.as_bytes());
                }
                _ => {
                    let width = if largest < 0x100 {
                        1
                    } else if largest < 0x1_0000 {
                        2
                    } else {
                        4
                    };
                    draft.bytes.extend([tag::STR_WIDE, width as u8]);
                    draft.varint(value.chars().count() as u64);
                    value
                        .chars()
                        .for_each(|c| draft.bytes.extend_from_slice(&(c as u32).to_le_bytes()[..width]));
                }
            }
            draft.next_number();
        } else if let Ok(value) = object.cast_exact::<PyTuple>()
            && value.is_empty()
        {
            draft.bytes.push(tag::EMPTY_TUPLE);
        } else {
            return false;
        }
        true
    }

    /// Writes an object that is in no memo.
    fn write(&mut self, pod: usize, object: &Bound<'py, PyAny>) {
        if self.atom(pod, object) || self.global(pod, object) {
            return;
        }
        if let Ok(list) = object.cast_exact::<PyList>() {
            self.drafts[pod].tagged(tag::LIST, &[list.len() as u64]);
            self.remember(pod, object);
            list.iter().for_each(|item| self.value(pod, &item));
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            self.drafts[pod].tagged(tag::DICT, &[dict.len() as u64]);
            self.remember(pod, object);
            for (key, value) in dict.iter() {
                self.value(pod, &key);
                self.value(pod, &value);
            }
        } else if let Ok(set) = object.cast_exact::<PySet>() {
            self.drafts[pod].tagged(tag::SET, &[set.len() as u64]);
            self.remember(pod, object);
            set.iter().for_each(|item| self.value(pod, &item));
        } else if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            self.finite(pod, object, tag::TUPLE, tag::TUPLE_AGAIN, tuple.iter().collect());
        } else if let Ok(set) = object.cast_exact::<PyFrozenSet>() {
            self.finite(pod, object, tag::FROZENSET, tag::FROZENSET_AGAIN, set.iter().collect());
        } else if object.is_exact_instance_of::<PyByteArray>() {
            let content = object.extract::<Vec<u8>>().expect("a bytearray");
            self.drafts[pod].tagged(tag::BYTEARRAY, &[content.len() as u64]);
            self.drafts[pod].bytes.extend_from_slice(&content);
            self.remember(pod, object);
        } else if matches!(
            object.get_type().name().expect("a name").to_cow().as_deref(),
            Ok("Plain" | "Keyed")
        ) {
            self.instance(pod, object);
        } else {
            self.reduced(pod, object);
        }
    }

    fn global(&mut self, pod: usize, object: &Bound<'py, PyAny>) -> bool {
        if !object.is_instance_of::<PyType>() && !object.is_instance_of::<PyCFunction>() {
            return false;
        }
        let module: String = object.getattr("__module__").and_then(|name| name.extract()).expect("a module");
        let qualname: String =
            object.getattr("__qualname__").and_then(|name| name.extract()).expect("a qualname");
        let ordinal = self.drafts[pod].global(&module, &qualname);
        self.drafts[pod].tagged(tag::GLOBAL, &[ordinal]);
        true
    }

    /// An object that exists once its items do, unless it came to exist through them.
    fn finite(
        &mut self,
        pod: usize,
        object: &Bound<'py, PyAny>,
        tag: u8,
        again: u8,
        items: Vec<Bound<'py, PyAny>>,
    ) {
        let tag_at = self.drafts[pod].bytes.len();
        self.drafts[pod].tagged(tag, &[items.len() as u64]);
        items.iter().for_each(|item| self.value(pod, item));
        if self.memo.contains_key(&(object.as_ptr() as usize)) {
            self.drafts[pod].bytes[tag_at] = again;
            self.refer(pod, object);
        } else {
            self.remember(pod, object);
        }
    }

    fn instance(&mut self, pod: usize, object: &Bound<'py, PyAny>) {
        let class = object.get_type();
        let dict =
            object.getattr("__dict__").and_then(|dict| Ok(dict.cast_into::<PyDict>()?)).expect("a dict");
        let dict_names: Vec<String> = dict.keys().extract().expect("names");
        let module = class.module().expect("a module").to_string();
        let global =
            self.drafts[pod].global(&module, &class.qualname().expect("a qualname").to_string()) as u32;
        if self.chance(200) {
            let shape =
                LoadShape { class: ShapeClass::Global(global), dict_names: vec![], slot_names: vec![] };
            let shape = Draft::slot(&mut self.drafts[pod].shapes, shape);
            self.drafts[pod].tagged(tag::INSTANCE_DICT, &[shape]);
            self.remember(pod, object);
            self.value(pod, &dict);
            return;
        }
        let shape = LoadShape { class: ShapeClass::Global(global), dict_names, slot_names: vec![] };
        let shape = Draft::slot(&mut self.drafts[pod].shapes, shape);
        self.drafts[pod].tagged(tag::INSTANCE, &[shape]);
        self.remember(pod, object);
        dict.values().iter().for_each(|value| self.value(pod, &value));
    }

    fn reduced(&mut self, pod: usize, object: &Bound<'py, PyAny>) {
        let reduced = object.call_method1("__reduce_ex__", (5,)).expect("it can be reduced");
        self.kept.push(reduced.clone());
        let reduced = reduced.cast_into::<PyTuple>().expect("a tuple");
        let part = |i: usize| reduced.get_item(i).ok().filter(|part| !part.is_none());
        let mut callable = part(0).expect("a callable");
        let mut arguments = part(1).expect("arguments").cast_into::<PyTuple>().expect("a tuple");
        let mut flags = 0;
        if callable
            .getattr("__name__")
            .and_then(|name| name.extract::<String>())
            .is_ok_and(|n| n == "__newobj__")
        {
            flags |= tag::REDUCE_NEWOBJ;
            callable = arguments.get_item(0).expect("a class");
            arguments = arguments.get_slice(1, arguments.len());
        }
        let items = |i: usize| {
            part(i).map(|items| items.try_iter().expect("items").map(|item| item.expect("an item")))
        };
        let list: Option<Vec<_>> = items(3).map(Iterator::collect);
        let dict: Option<Vec<_>> = items(4).map(Iterator::collect);
        flags |= if list.is_some() { tag::REDUCE_LIST } else { 0 };
        flags |= if dict.is_some() { tag::REDUCE_DICT } else { 0 };
        flags |= if part(2).is_some() { tag::REDUCE_STATE } else { 0 };
        let tag_at = self.drafts[pod].bytes.len();
        self.drafts[pod].bytes.extend([tag::REDUCE, flags]);
        self.value(pod, &callable);
        // The tuple itself is new each time, so it is in no memo.
        self.kept.push(arguments.clone().into_any());
        self.value(pod, arguments.as_any());
        if self.memo.contains_key(&(object.as_ptr() as usize)) {
            self.drafts[pod].bytes[tag_at] = tag::REDUCE_AGAIN;
            self.drafts[pod].bytes[tag_at + 1] = flags & tag::REDUCE_NEWOBJ;
            self.refer(pod, object);
            return;
        }
        self.remember(pod, object);
        if let Some(list) = list {
            self.drafts[pod].varint(list.len() as u64);
            list.iter().for_each(|item| self.value(pod, item));
            self.kept.extend(list);
        }
        if let Some(dict) = dict {
            self.drafts[pod].varint(dict.len() as u64);
            for item in dict {
                let (key, value) = item.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>().expect("a pair");
                self.value(pod, &key);
                self.value(pod, &value);
                self.kept.push(item);
            }
        }
        if let Some(state) = part(2) {
            self.value(pod, &state);
        }
    }
}
