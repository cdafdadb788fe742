//! How objects of a type are walked.
//!
//! A verdict holds within one walk, as long as the class is not edited (`tp_version_tag`).

use super::scalars::Scalars;
use crate::py::{Obj, type_lookup, type_version};
use hashbrown::{HashMap, HashSet};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// How objects of a type are walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A plain instance: class and attributes say everything, no hook of pickle's is in the way.
    Plain,
    /// Exactly `numpy.ndarray`.
    NdArray,
    /// A numpy dtype.
    Dtype,
    /// An immutable description, which each pod has for itself.
    Value,
    /// An instance of `type` or of a metaclass.
    Class,
    /// A numpy scalar whose value can be read where it lies.
    NumpyScalar,
    /// Exactly a Python function.
    Function,
    /// Exactly `pickle.PickleBuffer`.
    PickleBuffer,
    /// A marker of the reducers: the saved namespace.
    NamespaceMarker,
    /// A marker of the reducers: a value for the side record.
    SideMarker,
    /// A marker of the reducers: bytes of memory that other processes share.
    SharedBytes,
    /// A marker of the reducers: bytes of memory of a device.
    DeviceBytes,
    /// A handle of something elsewhere, of which a number that lies in it says all.
    Identified,
    /// There is a reducer in our own table.
    Registered,
    /// There is one in `copyreg.dispatch_table`.
    Copyreg,
    /// Everything else: `__reduce_ex__(5)`.
    Reduce,
}

#[derive(Clone, Copy)]
struct Verdict {
    version: u32,
    kind: Kind,
}

/// Names that `object` gives every class; a class that overrides one is not plain.
const SAME_AS_OBJECT: [&str; 5] =
    ["__reduce_ex__", "__reduce__", "__getstate__", "__getattribute__", "__class__"];
/// Names that a plain class must not have.
const ABSENT: [&str; 3] = ["__getnewargs__", "__getnewargs_ex__", "__setstate__"];

/// Verdicts of the present walk.
pub(crate) struct Kinds {
    verdicts: HashMap<usize, Verdict>,
    last: (usize, Verdict),
    same_as_object: Vec<(Py<PyString>, usize)>,
    absent: Vec<Py<PyString>>,
    /// `__getstate__` and `__setstate__` with the address of what `dataclasses` makes of them.
    dataclass_state: [(Py<PyString>, usize); 2],
    copyreg_table: Py<PyDict>,
    registry: Py<PyDict>,
    by_name: HashSet<(String, String)>,
    values: HashSet<(String, String)>,
    identified: HashSet<(String, String)>,
    module_name: Py<PyString>,
    pickle_buffer: usize,
    namespace_marker: usize,
    side_marker: usize,
    shared_bytes: usize,
    device_bytes: usize,
    ndarray: usize,
    dtype_meta: usize,
    pub(crate) scalars: Option<&'static Scalars>,
}

const NO_VERDICT: Verdict = Verdict { version: 0, kind: Kind::Reduce };

impl Kinds {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        let reducers = py.import("chipmink._reducers")?;
        let object = &raw mut ffi::PyBaseObject_Type;
        let same_as_object = SAME_AS_OBJECT
            .iter()
            .map(|name| {
                let name = PyString::intern(py, name);
                let found = type_lookup(object, Obj::of(name.as_any())).map_or(0, Obj::addr);
                (name.unbind(), found)
            })
            .collect();
        let dataclasses = py.import("dataclasses")?;
        let dataclass_state = |name: &str, function: &str| -> PyResult<(Py<PyString>, usize)> {
            // The module holds the function; without it there is nothing to compare with.
            let found =
                dataclasses.getattr_opt(function)?.map_or(usize::MAX, |found| found.as_ptr() as usize);
            Ok((PyString::intern(py, name).unbind(), found))
        };
        let dataclass_state = [
            dataclass_state("__getstate__", "_dataclass_getstate")?,
            dataclass_state("__setstate__", "_dataclass_setstate")?,
        ];
        let names_of = |table: &str| -> PyResult<HashSet<(String, String)>> {
            let names = reducers.getattr(table)?.cast_into::<PyDict>()?.keys();
            Ok(names.extract::<Vec<_>>()?.into_iter().collect())
        };
        let type_of = |name: &str| -> PyResult<usize> { Ok(reducers.getattr(name)?.as_ptr() as usize) };
        Ok(Kinds {
            verdicts: HashMap::new(),
            last: (0, NO_VERDICT),
            same_as_object,
            dataclass_state,
            absent: ABSENT.iter().map(|name| PyString::intern(py, name).unbind()).collect(),
            copyreg_table: py.import("copyreg")?.getattr("dispatch_table")?.cast_into::<PyDict>()?.unbind(),
            registry: reducers.getattr("DISPATCH")?.cast_into::<PyDict>()?.unbind(),
            by_name: names_of("_BY_NAME")?,
            values: names_of("VALUES")?,
            identified: reducers.getattr("IDENTIFIED")?.extract::<Vec<_>>()?.into_iter().collect(),
            module_name: PyString::intern(py, "__module__").unbind(),
            pickle_buffer: py.import("pickle")?.getattr("PickleBuffer")?.as_ptr() as usize,
            namespace_marker: type_of("NamespaceMarker")?,
            side_marker: type_of("Side")?,
            shared_bytes: type_of("SharedBytes")?,
            device_bytes: type_of("DeviceBytes")?,
            ndarray: 0,
            dtype_meta: 0,
            scalars: None,
        })
    }

    /// Forgets the verdicts: the tables of reducers may have changed since the last walk.
    pub(crate) fn begin_walk(&mut self, py: Python<'_>, (ndarray, dtype_meta): (usize, usize)) {
        self.scalars = Scalars::known(py);
        self.dtype_meta = dtype_meta;
        self.verdicts.clear();
        self.last = (0, NO_VERDICT);
        self.ndarray = ndarray;
    }

    /// Address of `numpy.ndarray`, or 0.
    pub(crate) fn ndarray(&self) -> usize {
        self.ndarray
    }

    /// How to walk `object`, which is of no exact builtin container or atom type.
    #[inline(always)]
    pub(crate) fn of(&mut self, py: Python<'_>, object: Obj) -> Kind {
        let ty = object.ty_addr();
        if self.last.0 == ty && self.last.1.version == type_version(object.ty()) && self.last.1.version != 0 {
            return self.last.1.kind;
        }
        self.look_up(py, object)
    }

    fn look_up(&mut self, py: Python<'_>, object: Obj) -> Kind {
        let ty = object.ty();
        if let Some(verdict) = self.verdicts.get(&(ty as usize))
            && verdict.version != 0
            && verdict.version == type_version(ty)
        {
            self.last = (ty as usize, *verdict);
            return verdict.kind;
        }
        let kind = self.judge(py, object);
        let verdict = Verdict { version: type_version(ty), kind };
        self.verdicts.insert(ty as usize, verdict);
        self.last = (ty as usize, verdict);
        kind
    }

    fn judge(&self, py: Python<'_>, object: Obj) -> Kind {
        let ty = object.ty();
        let addr = ty as usize;
        let listed = |table: &Py<PyDict>| {
            // SAFETY: a dict and a live type; types hash by address, so no Python code runs.
            let found = unsafe { ffi::PyDict_GetItemWithError(table.as_ptr(), ty.cast()) };
            if found.is_null() {
                // SAFETY: clears a possible error of the lookup.
                unsafe { ffi::PyErr_Clear() };
            }
            !found.is_null()
        };
        if addr == self.namespace_marker {
            Kind::NamespaceMarker
        } else if addr == self.side_marker {
            Kind::SideMarker
        } else if addr == self.shared_bytes {
            Kind::SharedBytes
        } else if addr == self.device_bytes {
            Kind::DeviceBytes
        } else if addr == self.pickle_buffer {
            Kind::PickleBuffer
        } else if object.is_function() {
            Kind::Function
        } else if object.is_class() {
            Kind::Class
        } else if listed(&self.registry) {
            Kind::Registered
        } else if listed(&self.copyreg_table) {
            Kind::Copyreg
        } else if self.ndarray == addr {
            Kind::NdArray
        } else if self.scalars.is_some_and(|scalars| scalars.contains(addr)) {
            Kind::NumpyScalar
        // SAFETY: a live type.
        } else if unsafe { ffi::Py_TYPE(ty.cast()) } as usize == self.dtype_meta {
            Kind::Dtype
        } else if self.own_name(py, ty).is_some_and(|name| self.values.contains(&name)) {
            Kind::Value
        } else if self
            .own_name(py, ty)
            .or_else(|| static_name(ty))
            .is_some_and(|name| self.identified.contains(&name))
        {
            Kind::Identified
        } else if self.has_rule_by_name(py, ty) {
            Kind::Registered
        } else if self.is_plain(py, ty) {
            Kind::Plain
        } else {
            Kind::Reduce
        }
    }

    /// Whether a base of the type is one of those for which the reducers have a rule under its name.
    fn has_rule_by_name(&self, py: Python<'_>, ty: *mut ffi::PyTypeObject) -> bool {
        // SAFETY: a live, ready type.
        let mro = unsafe { (*ty).tp_mro };
        if mro.is_null() {
            return false;
        }
        // SAFETY: the method resolution order is a tuple of types.
        unsafe { Obj::from_ptr(mro) }
            .tuple_items()
            .iter()
            .any(|base| self.own_name(py, base.ptr().cast()).is_some_and(|name| self.by_name.contains(&name)))
    }

    /// Module and qualname of a type.
    fn own_name(&self, py: Python<'_>, ty: *mut ffi::PyTypeObject) -> Option<(String, String)> {
        // SAFETY: a live type; a new reference or null.
        let qualname = unsafe { Bound::from_owned_ptr_or_opt(py, ffi::PyType_GetQualName(ty)) }?;
        let module = type_lookup(ty, Obj::of(self.module_name.bind(py).as_any()))?;
        let text = |object: &Bound<'_, PyAny>| object.extract::<String>().unwrap_or_default();
        module.is_str().then(|| (text(&module.bound(py)), text(&qualname)))
    }

    fn is_plain(&self, py: Python<'_>, ty: *mut ffi::PyTypeObject) -> bool {
        let object = &raw mut ffi::PyBaseObject_Type;
        // SAFETY: a live, ready type.
        let (flags, tp_new, itemsize, mro) =
            unsafe { ((*ty).tp_flags, (*ty).tp_new, (*ty).tp_itemsize, (*ty).tp_mro) };
        // SAFETY: `object` is a static type.
        let object_new = unsafe { (*object).tp_new };
        let heap = ffi::Py_TPFLAGS_HEAPTYPE;
        if flags & heap == 0
            || tp_new.map(|f| f as usize) != object_new.map(|f| f as usize)
            || itemsize != 0
            || mro.is_null()
        {
            return false;
        }
        // SAFETY: the method resolution order of a ready type is a tuple of types.
        for base in unsafe { Obj::from_ptr(mro) }.tuple_items() {
            let base_type = base.ptr().cast::<ffi::PyTypeObject>();
            if base_type == object {
                continue;
            }
            // SAFETY: a live type.
            if unsafe { (*base_type).tp_flags & heap == 0 } {
                return false;
            }
        }
        let found =
            |name: &Py<PyString>| type_lookup(ty, Obj::of(name.bind(py).as_any())).map_or(0, Obj::addr);
        let [getstate, setstate] = &self.dataclass_state;
        let of_dataclass = found(&getstate.0) == getstate.1 && found(&setstate.0) == setstate.1;
        let is_allowed = |name: &Py<PyString>, expected: usize| {
            let address = found(name);
            // What a frozen dataclass with slots is given does what is done without it.
            address == expected || of_dataclass && (address == getstate.1 || address == setstate.1)
        };
        self.same_as_object.iter().all(|(name, expected)| is_allowed(name, *expected))
            && self.absent.iter().all(|name| is_allowed(name, 0))
            && super::shapes::slots_of(ty).is_some()
    }
}

/// Module and name of a type that is no heap type, and has both in one.
fn static_name(ty: *mut ffi::PyTypeObject) -> Option<(String, String)> {
    // SAFETY: a live type; the name of one that is no heap type is a C string that stays.
    let (flags, name) = unsafe { ((*ty).tp_flags, (*ty).tp_name) };
    if flags & ffi::Py_TPFLAGS_HEAPTYPE != 0 || name.is_null() {
        return None;
    }
    // SAFETY: as above.
    let name = unsafe { std::ffi::CStr::from_ptr(name) }.to_str().ok()?;
    name.rsplit_once('.').map(|(module, name)| (module.to_owned(), name.to_owned()))
}
