//! Keys and members whose hash needs state that comes later.

use crate::writer::Writer;
use crate::{check, graphs, load};
use chipmink_pickle::rebuild::RebuildOptions;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Runs code that defines `x`, saves and loads it with every way of cutting pods, and checks the copy.
fn round_trip(code: &str, expression: &str) {
    Python::attach(|py| {
        let code = std::ffi::CString::new(format!("from rebuild_graphs import *\n{code}")).unwrap();
        graphs(py);
        for seed in 0..60 {
            let names = PyDict::new(py);
            py.run(&code, Some(&names), None).unwrap();
            let namespace = PyDict::new(py);
            namespace.set_item("x", names.get_item("x").unwrap().unwrap()).unwrap();
            let written = Writer::new(py, seed, [0, 500, 1000][seed as usize % 3]).namespace(&namespace);
            let loaded = load(py, &written, &RebuildOptions::default()).unwrap();
            check(py, &loaded.get_item("x").unwrap().unwrap(), expression);
        }
    });
}

#[test]
fn a_key_that_leads_to_its_own_dict() {
    round_trip(
        "x = Keyed(1); x.to = {'first': 0, x: 1, 'last': 2}",
        "list(x.to.values()) == [0, 1, 2] and x.to[x] == 1 and x.to[Keyed(1)] == 1",
    );
}

#[test]
fn later_items_wait_so_that_the_order_stays() {
    round_trip(
        "x = Keyed(1); x.to = {x: 0, **{i: i for i in range(1, 50)}}",
        "list(x.to.values()) == list(range(50)) and list(x.to)[0] is x",
    );
}

#[test]
fn a_member_of_a_set_and_of_a_frozenset() {
    round_trip(
        "x = Keyed(1); x.to = [{x, Keyed(2)}, frozenset([x, Keyed(3)]), {frozenset([x]): 'f'}]",
        "x in x.to[0] and Keyed(2) in x.to[0] and x in x.to[1] and x.to[2][frozenset([Keyed(1)])] == 'f'",
    );
}

#[test]
fn a_key_that_contains_an_unfinished_object() {
    round_trip(
        "x = Keyed(1); x.to = {(1, (x, 2)): 'tuple', (x,): 'other'}",
        "x.to[(1, (x, 2))] == 'tuple' and list(x.to.values()) == ['tuple', 'other']",
    );
}

#[test]
fn two_keys_that_lead_to_each_other_s_dicts() {
    round_trip(
        "a, b = Keyed(1), Keyed(2)\na.to, b.to = {b: 'b', a: 'a'}, {a: 'a', b: 'b'}\nx = [a, b]",
        "list(x[0].to.values()) == ['b', 'a'] and x[0].to[x[1]] == 'b' and x[1].to[x[0]] == 'a'",
    );
}

#[test]
fn items_that_wait_for_an_object_wait_on_for_what_it_leads_to() {
    // inner is a key while it is built; it turns out to lead to outer, which is further out and unfinished.
    round_trip(
        "
class Deep(Keyed):
    def __hash__(self): return hash((self.key, hash(self.outer)))
    def __eq__(self, other): return type(other) is Deep and self.key == other.key and self.outer == other.outer
import rebuild_graphs; rebuild_graphs.Deep = Deep; Deep.__module__ = 'rebuild_graphs'; Deep.__qualname__ = 'Deep'
x = Keyed(1)
inner = Deep(2); inner.outer = x; inner.to = {'a': 0, inner: 1, 'z': 2}
x.to = inner
",
        "list(x.to.to.values()) == [0, 1, 2] and x.to.to[x.to] == 1",
    );
}

#[test]
fn dict_items_of_reduced_objects() {
    round_trip(
        "x = Keyed(1); x.to = collections.OrderedDict([('first', 0), (x, 1), ('last', 2)])",
        "type(x.to) is collections.OrderedDict and list(x.to.values()) == [0, 1, 2] and x.to[x] == 1",
    );
}

#[test]
fn a_key_without_a_hash_of_its_own_does_not_wait() {
    // Table.__setstate__ would see an incomplete dict if it did.
    round_trip(
        "
class Watcher(Plain):
    def __setstate__(self, state): self.__dict__.update(state); self.seen = len(self.table)
import rebuild_graphs; rebuild_graphs.Watcher = Watcher
Watcher.__module__ = 'rebuild_graphs'; Watcher.__qualname__ = 'Watcher'
x = Plain()
x.watcher = Watcher()
x.watcher.table = {x: 1, (x, 2): 3}
",
        "x.watcher.seen == 2 and x.watcher.table[x] == 1 and x.watcher.table[(x, 2)] == 3",
    );
}
