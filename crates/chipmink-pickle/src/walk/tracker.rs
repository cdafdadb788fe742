//! Which variables need not be walked.
//!
//! A variable is left alone only if the caller says that its objects were not touched *and* its binding is proved
//! unchanged: the namespace dict is known not to have changed there since the base was walked ([`Watch`]), or the name
//! still refers to a held atom or type, or to an object that a weak reference shows to be alive. Everything else is walked,
//! and its shadow decides.

use super::watch::{Changes, Watch};
use crate::py::Obj;
use hashbrown::{HashMap, HashSet};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

/// Why an address means the same object as before.
enum Proof {
    /// We hold it: an exact immutable atom, or a type.
    Held,
    /// It is alive as long as the weak reference is.
    Weak(Py<PyWeakrefReference>),
    /// None: the address may have been used again.
    None,
}

struct Binding {
    addr: usize,
    proof: Proof,
    component: u32,
}

/// Variables that share objects.
#[derive(Default, Clone)]
pub(crate) struct Group {
    pub names: Vec<String>,
    /// The walker cannot see into something of it.
    pub is_opaque: bool,
    /// Some of its memory may be written by other processes: it is walked in every save.
    pub is_shared: bool,
    /// A definition group: the names are those of the variables that use it, and it is active only if all of them are.
    pub is_definition: bool,
    is_active: bool,
    /// Some variable of it is walked, or was accessed and is gone.
    is_touched: bool,
}

impl Group {
    pub(crate) fn new(names: Vec<String>, is_opaque: bool) -> Self {
        Group { names, is_opaque, is_shared: false, is_definition: false, is_active: true, is_touched: true }
    }
}

/// What is known of the base's namespace.
#[derive(Default)]
pub(crate) struct Tracker {
    is_known: bool,
    /// Since the base was walked.
    watch: Option<Watch>,
    /// Since the present walk began.
    next_watch: Option<Watch>,
    bindings: HashMap<String, Binding>,
    groups: Vec<Group>,
    /// Names that the functions of a variable read.
    edges: HashMap<String, Vec<String>>,
    any_inactive: bool,
}

/// Which variables to walk.
pub(crate) enum Plan {
    /// Nothing can have changed.
    Nothing,
    /// Those marked, in the order of the namespace.
    Walk(Vec<bool>),
}

impl Tracker {
    /// Decides what to walk. `names` and `values` are the namespace's, in order.
    pub(crate) fn plan(
        &mut self,
        py: Python<'_>,
        dict: Obj,
        accessed: Option<&[String]>,
        variables: &mut dyn FnMut() -> Vec<(String, Obj)>,
    ) -> Plan {
        self.any_inactive = false;
        self.groups.iter_mut().for_each(|group| (group.is_active, group.is_touched) = (false, false));
        // Names that are bound anew while the walk, or the writing of what it found, goes on count for the next save.
        self.next_watch = Watch::begin(py, dict);
        let Some(accessed) = accessed.filter(|_| self.is_known) else {
            self.groups.iter_mut().for_each(|group| group.is_active = true);
            return Plan::Walk(vec![true; variables().len()]);
        };
        let changes = self.watch.as_ref().map_or(Changes::Anything, |watch| watch.changes(py, dict));
        let has_shared = self.groups.iter().any(|group| group.is_shared);
        if changes == Changes::Nothing
            && !has_shared
            && accessed.iter().all(|name| !self.bindings.contains_key(name))
        {
            self.next_watch = None;
            return Plan::Nothing;
        }
        let variables = variables();
        let shared = self.groups.iter().filter(|group| group.is_shared);
        let shared: Vec<String> = shared.flat_map(|group| group.names.iter().cloned()).collect();
        let mut todo: Vec<&str> = accessed.iter().chain(&shared).map(String::as_str).collect();
        for (name, value) in &variables {
            let is_unchanged = match &changes {
                Changes::Nothing => true,
                Changes::Names(names) => !names.contains(name),
                Changes::Anything => false,
            };
            let is_proved = self.bindings.get(name).is_some_and(|binding| {
                is_unchanged || (binding.addr == value.addr() && binding.proof.holds(py, *value))
            });
            if !is_proved {
                todo.push(name);
            }
        }
        let active = self.close_over(todo);
        let walk: Vec<bool> = variables.iter().map(|(name, _)| active.contains(name.as_str())).collect();
        self.any_inactive = walk.iter().any(|walk| !walk);
        Plan::Walk(walk)
    }

    /// All names that must be walked with the given ones: of the same group, read by their functions, and everything if
    /// one reaches an object that cannot be seen into.
    fn close_over(&mut self, todo: Vec<&str>) -> HashSet<String> {
        let mut active: HashSet<String> = HashSet::new();
        let mut todo: Vec<String> = todo.into_iter().map(str::to_owned).collect();
        let mut groups = vec![false; self.groups.len()];
        while let Some(name) = todo.pop() {
            if active.contains(&name) {
                continue;
            }
            todo.extend(self.edges.get(&name).into_iter().flatten().cloned());
            if let Some(binding) = self.bindings.get(&name)
                && let Some(group) = self.groups.get(binding.component as usize)
                && !std::mem::replace(&mut groups[binding.component as usize], true)
            {
                todo.extend(group.names.iter().cloned());
                if group.is_opaque {
                    todo.extend(self.bindings.keys().cloned());
                }
            }
            active.insert(name);
        }
        for group in &mut self.groups {
            let is_walked = |name: &String| active.contains(name);
            group.is_touched = group.names.iter().any(is_walked);
            group.is_active =
                if group.is_definition { group.names.iter().all(is_walked) } else { group.is_touched };
        }
        active
    }

    /// The types that are held, each as often as it is.
    pub(crate) fn held_types(&self) -> impl Iterator<Item = Obj> {
        let held = self.bindings.values().filter(|binding| matches!(binding.proof, Proof::Held));
        // SAFETY: the binding owns a reference to the object at this address.
        held.map(|binding| unsafe { Obj::from_ptr(binding.addr as *mut ffi::PyObject) })
            .filter(|object| object.is_class())
    }

    /// Whether some variables are not walked.
    pub(crate) fn has_inactive(&self) -> bool {
        self.any_inactive
    }

    /// An object of the group was met. Returns whether the group becomes active by that.
    pub(crate) fn activate(&mut self, group: u32) -> bool {
        match self.groups.get_mut(group as usize) {
            Some(group) if !group.is_active => {
                group.is_active = true;
                true
            }
            _ => false,
        }
    }

    /// Names of a group.
    pub(crate) fn names(&self, group: u32) -> &[String] {
        self.groups.get(group as usize).map_or(&[], |group| &group.names)
    }

    /// Whether a group was walked.
    pub(crate) fn is_active(&self, group: u32) -> bool {
        self.groups.get(group as usize).is_none_or(|group| group.is_active)
    }

    /// Whether objects of a group may have been changed through one of its variables.
    pub(crate) fn is_touched(&self, group: u32) -> bool {
        self.groups.get(group as usize).is_some_and(|group| group.is_touched)
    }

    /// The group's number after an adopt that keeps the inactive ones.
    pub(crate) fn adopt(
        &mut self,
        py: Python<'_>,
        groups: Vec<Group>,
        edges: HashMap<String, Vec<String>>,
        variables: &[(String, Option<(Obj, u32)>)],
        ndarray: usize,
    ) -> Vec<u32> {
        let mut moved = vec![u32::MAX; self.groups.len()];
        let mut all = groups;
        for (old, group) in self.groups.iter().enumerate() {
            if !group.is_active {
                moved[old] = all.len() as u32;
                all.push(group.clone());
            }
        }
        let walked_names: HashSet<&str> =
            variables.iter().filter(|(_, walked)| walked.is_some()).map(|(name, _)| name.as_str()).collect();
        let mut bindings = HashMap::with_capacity(variables.len());
        for (name, walked) in variables {
            let binding = match walked {
                Some((value, group)) => {
                    Binding { addr: value.addr(), proof: Proof::of(py, *value, ndarray), component: *group }
                }
                None => match self.bindings.remove(name) {
                    Some(old) => Binding {
                        component: moved.get(old.component as usize).copied().unwrap_or(u32::MAX),
                        ..old
                    },
                    None => continue,
                },
            };
            bindings.insert(name.clone(), binding);
        }
        self.edges.retain(|name, _| bindings.contains_key(name) && !walked_names.contains(name.as_str()));
        self.edges.extend(edges);
        for (_, binding) in self.bindings.drain() {
            binding.proof.release(binding.addr);
        }
        self.bindings = bindings;
        self.groups = all;
        self.is_known = true;
        self.watch = self.next_watch.take();
        moved
    }
}

impl Proof {
    /// `ndarray`: the address of `numpy.ndarray`, or 0.
    fn of(py: Python<'_>, value: Obj, ndarray: usize) -> Proof {
        if super::shadow::may_hold(value) || value.is_class() {
            value.incref();
            return Proof::Held;
        }
        // SAFETY: a live type.
        let offset = unsafe { (*value.ty()).tp_weaklistoffset };
        // An array that has a weak reference refuses to be resized.
        // SAFETY: two live types.
        let is_array = ndarray != 0
            && unsafe { ffi::PyType_IsSubtype(value.ty(), ndarray as *mut ffi::PyTypeObject) } != 0;
        if offset == 0 || is_array {
            return Proof::None;
        }
        match PyWeakrefReference::new(&value.bound(py)) {
            Ok(weak) => Proof::Weak(weak.unbind()),
            Err(_) => Proof::None,
        }
    }

    fn holds(&self, py: Python<'_>, value: Obj) -> bool {
        match self {
            Proof::Held => true,
            Proof::Weak(weak) => {
                use pyo3::types::PyWeakrefMethods;
                weak.bind(py).upgrade().is_some_and(|alive| alive.as_ptr() == value.ptr())
            }
            Proof::None => false,
        }
    }

    fn release(self, addr: usize) {
        if let Proof::Held = self {
            // SAFETY: the binding owns a reference to the object at this address.
            unsafe { Obj::from_ptr(addr as *mut ffi::PyObject) }.decref();
        }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        for (_, binding) in self.bindings.drain() {
            binding.proof.release(binding.addr);
        }
    }
}
