//! Where in a variable the walk stands, for messages: `["a"][3].conn`.

use super::frames::FrameKind;
use super::session::NONE;
use super::walker::Walker;
use crate::py::Obj;
use pyo3::prelude::*;

/// Longer paths are cut in the middle.
const MAX_PARTS: usize = 24;

impl Walker<'_, '_> {
    /// The path from the variable to the object being visited.
    pub(crate) fn path(&self) -> String {
        let parts: Vec<String> = self.stack.iter().filter_map(|frame| self.part(frame.kind)).collect();
        if parts.len() <= MAX_PARTS {
            return parts.concat();
        }
        let (head, tail) = (&parts[..MAX_PARTS / 2], &parts[parts.len() - MAX_PARTS / 2..]);
        format!("{}…{}", head.concat(), tail.concat())
    }

    fn part(&self, kind: FrameKind) -> Option<String> {
        match kind {
            FrameKind::List { next, .. } | FrameKind::Tuple { next, .. } => {
                Some(format!("[{}]", next.max(1) - 1))
            }
            FrameKind::Items { next, .. } => Some(format!(".flat[{}]", next.max(1) - 1)),
            FrameKind::Members { .. } => Some("{…}".to_owned()),
            FrameKind::Dict { dict, done, value, .. } => match (value, done.checked_sub(1)) {
                (Some(_), _) => Some(".keys()".to_owned()),
                (None, Some(word)) => Some(format!("[{}]", self.short(nth_key(dict, word / 2)?))),
                (None, None) => None,
            },
            FrameKind::Attributes { dict, done, .. } => {
                let name = nth_key(dict, done.checked_sub(1)?)?;
                Some(format!(".{}", name.str_text(self.py).ok()?))
            }
            FrameKind::Values { next, shape } if shape != NONE => {
                let shape = self.session.shapes.get(shape);
                let mut names = shape.names.iter().copied().chain(shape.slots().map(|slot| slot.name));
                match names.nth(next.checked_sub(1)?) {
                    Some(name) => Some(format!(".{}", name.str_text(self.py).ok()?)),
                    None => Some(".__dict__".to_owned()),
                }
            }
            _ => None,
        }
    }

    fn short(&self, key: Obj) -> String {
        if !key.is_atom() {
            return crate::py::type_name(&key.bound(self.py));
        }
        let text = key.bound(self.py).repr().map(|text| text.to_string()).unwrap_or_default();
        if text.chars().count() > 40 { text.chars().take(39).chain(['…']).collect() } else { text }
    }
}

fn nth_key(dict: Obj, n: u32) -> Option<Obj> {
    let mut position = 0;
    let mut key = None;
    for _ in 0..=n {
        key = Some(dict.dict_next(&mut position)?.0);
    }
    key
}
