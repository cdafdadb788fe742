//! numpy's scalars: read where they lie, and written as their own reducer would say it.
//!
//! A table with one entry for each type of a fixed size is made once in the process, by looking at samples: the value's
//! place in the object, its dtype, and the callable that makes it again. What is not found so goes through its reducer.

use super::kinds::Kind;
use super::shadow::kind as word;
use super::walker::{Step, Walker};
use crate::py::Obj;
use chipmink_format::tag;
use chipmink_types::GlobalName;
use hashbrown::HashMap;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;

/// Names in `numpy`, with a value whose bytes all differ from each other where the type has room for it.
const SAMPLES: [(&str, &str); 14] = [
    ("bool_", "1"),
    ("int8", "-3"),
    ("int16", "-12346"),
    ("int32", "-1985229329"),
    ("int64", "-1147797409030816546"),
    ("uint8", "253"),
    ("uint16", "53190"),
    ("uint32", "2309737967"),
    ("uint64", "17298946664678735070"),
    ("float16", "1.234"),
    ("float32", "1.2345678"),
    ("float64", "1.2345678901234567"),
    ("complex64", "1.2345678+8.765433j"),
    ("complex128", "1.2345678901234567+7.654321098765432j"),
];
/// Where the value lies in an object of these types.
const VALUE_OFFSET: usize = size_of::<ffi::PyObject>();
/// The longest value, in bytes.
const LONGEST: usize = 16;

static TABLE: PyOnceLock<Scalars> = PyOnceLock::new();

/// A type of scalars.
struct Scalar {
    dtype: Py<PyAny>,
    /// What `numpy.dtype` makes it of.
    dtype_text: String,
    byte_len: usize,
}

/// The types of scalars whose values are read in place, by address.
#[derive(Default)]
pub(crate) struct Scalars {
    types: HashMap<usize, Scalar>,
    /// Kept, so that their addresses stay theirs.
    classes: Vec<Py<PyAny>>,
    /// What makes a scalar of a dtype and bytes.
    callable: Option<GlobalName>,
}

impl Scalars {
    /// Looks at samples, once in the process. numpy must have been imported.
    pub(crate) fn learn(py: Python<'_>) -> PyResult<()> {
        let table = TABLE.get_or_try_init(py, || {
            let numpy = py.import("numpy")?;
            let mut scalars = Scalars::default();
            for (name, text) in SAMPLES {
                scalars.look_at(&numpy, name, text)?;
            }
            PyResult::Ok(scalars)
        });
        table.map(|_| ())
    }

    /// The table, if numpy is in use.
    pub(crate) fn known(py: Python<'_>) -> Option<&'static Scalars> {
        TABLE.get(py)
    }

    pub(crate) fn contains(&self, class: usize) -> bool {
        self.types.contains_key(&class)
    }

    fn look_at(&mut self, numpy: &Bound<'_, PyModule>, name: &str, text: &str) -> PyResult<()> {
        let py = numpy.py();
        let class = numpy.getattr(name)?;
        let value = match name {
            "bool_" => true.into_pyobject(py)?.to_owned().into_any(),
            name if name.starts_with("complex") => py.get_type::<pyo3::types::PyComplex>().call1((text,))?,
            name if name.starts_with("float") => py.get_type::<pyo3::types::PyFloat>().call1((text,))?,
            _ => py.get_type::<pyo3::types::PyInt>().call1((text,))?,
        };
        let dtype = numpy.call_method1("dtype", (&class,))?;
        let dtype_text: String = dtype.getattr("str")?.extract()?;
        if !numpy.call_method1("dtype", (&dtype_text,))?.is(&dtype) {
            return Ok(());
        }
        for sample in [class.call1((value,))?, class.call0()?] {
            let bytes = sample.call_method0("tobytes")?.cast_into::<PyBytes>().map_err(PyErr::from)?;
            let expected = bytes.as_bytes();
            // SAFETY: a live type.
            let room = unsafe { (*sample.get_type_ptr()).tp_basicsize } as usize;
            let is_there = expected.len() <= LONGEST
                && VALUE_OFFSET + expected.len() <= room
                && sample.get_type().is(&class)
                // SAFETY: so many bytes belong to the object.
                && unsafe { value_at(Obj::of(&sample), expected.len()) } == expected;
            let (callable, arguments): (Bound<'_, PyAny>, Bound<'_, PyAny>) =
                sample.call_method1("__reduce_ex__", (5,))?.extract()?;
            let callable = GlobalName {
                module: callable.getattr("__module__")?.extract()?,
                qualname: callable.getattr("__qualname__")?.extract()?,
            };
            let is_usual = arguments.eq((&dtype, &bytes))?
                && !callable.qualname.contains('.')
                && self.callable.as_ref().is_none_or(|known| *known == callable);
            if !is_there || !is_usual {
                self.types.remove(&(class.as_ptr() as usize));
                return Ok(());
            }
            self.callable = Some(callable);
            let byte_len = expected.len();
            let scalar = Scalar { dtype: dtype.clone().unbind(), dtype_text: dtype_text.clone(), byte_len };
            self.types.insert(class.as_ptr() as usize, scalar);
        }
        self.classes.push(class.unbind());
        Ok(())
    }
}

/// # Safety
/// The object must have so many bytes after its head.
unsafe fn value_at<'a>(object: Obj, byte_len: usize) -> &'a [u8] {
    // SAFETY: the caller's; scalars are immutable.
    unsafe { std::slice::from_raw_parts(object.ptr().cast::<u8>().add(VALUE_OFFSET), byte_len) }
}

/// A value's bytes as words of a shadow.
fn value_words(value: &[u8]) -> [u64; 2] {
    let mut padded = [0; LONGEST];
    padded[..value.len()].copy_from_slice(value);
    let [low, high] =
        [0, 8].map(|at| u64::from_le_bytes(padded[at..at + 8].try_into().expect("eight bytes")));
    [low, high]
}

impl Walker<'_, '_> {
    /// Writes a scalar: the call of its callable with a dtype and the value's bytes.
    pub(crate) fn numpy_scalar(&mut self, object: Obj) -> Step {
        let table = self.session.kinds.scalars;
        let entry =
            table.and_then(|table| Some((table.types.get(&object.ty_addr())?, table.callable.as_ref()?)));
        let Some((scalar, callable)) = entry else { return self.start_reduce(object, Kind::Reduce) };
        // SAFETY: the table says that a value of this type has so many bytes there.
        let value = unsafe { value_at(object, scalar.byte_len) };
        let id = self.session.names.id(callable.clone());
        let builder = self.builder();
        builder.bytes(&[tag::REDUCE, 0]);
        builder.global(id);
        builder.bytes(&[tag::TUPLE, 2]);
        self.write_dtype(Obj::of(scalar.dtype.bind(self.py)), &scalar.dtype_text);
        let builder = self.builder();
        builder.bytes(&[tag::BYTES8, value.len() as u8]);
        builder.bytes(value);
        // The bytes and the tuple take a number each.
        builder.next += 2;
        let number = builder.take_number();
        let [low, high] = value_words(value);
        self.memoize(object, number);
        let fields = [object.ty_addr() as u64, low, high];
        self.record(word::NUMPY_SCALAR, number, &fields, std::iter::empty());
        Ok(())
    }

    /// Compares a scalar with its record at `at`.
    pub(super) fn check_scalar(&mut self, object: Obj, record: [u64; 4], at: usize) -> Step {
        let [header, class, low, high] = record;
        let scalar = self.session.kinds.scalars.and_then(|table| table.types.get(&object.ty_addr()));
        let Some(scalar) = scalar.filter(|_| object.ty_addr() as u64 == class) else { return self.miss() };
        // SAFETY: as in `numpy_scalar`.
        if value_words(unsafe { value_at(object, scalar.byte_len) }) != [low, high] {
            return self.miss();
        }
        self.enter(object, (header >> 32) as u32)?;
        self.advance(at + 4);
        Ok(())
    }
}
