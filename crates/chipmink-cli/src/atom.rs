//! Atoms of a manifest, shown as Python would write them.

use chipmink_format::tag;

/// The text of one atom value of the pod stream; its bytes in hexadecimal if it is none that is known.
pub(crate) fn text(atom: &[u8]) -> String {
    known(atom).unwrap_or_else(|| {
        let hex: String = atom.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("<value 0x{hex}>")
    })
}

fn known(atom: &[u8]) -> Option<String> {
    let (first, rest) = atom.split_first()?;
    Some(match *first {
        tag::NONE if rest.is_empty() => "None".to_owned(),
        tag::TRUE if rest.is_empty() => "True".to_owned(),
        tag::FALSE if rest.is_empty() => "False".to_owned(),
        tag::ELLIPSIS if rest.is_empty() => "Ellipsis".to_owned(),
        tag::NOT_IMPLEMENTED if rest.is_empty() => "NotImplemented".to_owned(),
        tag::EMPTY_TUPLE if rest.is_empty() => "()".to_owned(),
        tag::INT8 => i8::from_le_bytes(whole(rest)?).to_string(),
        tag::INT16 => i16::from_le_bytes(whole(rest)?).to_string(),
        tag::INT32 => i32::from_le_bytes(whole(rest)?).to_string(),
        tag::INT64 => i64::from_le_bytes(whole(rest)?).to_string(),
        tag::FLOAT => float(f64::from_le_bytes(whole(rest)?)),
        tag::COMPLEX => {
            let (real, imaginary) = rest.split_first_chunk::<8>()?;
            let (real, imaginary) = (f64::from_le_bytes(*real), f64::from_le_bytes(whole(imaginary)?));
            format!("complex({}, {})", float(real), float(imaginary))
        }
        tag::STR8 => quoted(std::str::from_utf8(sized(rest)?).ok().filter(|text| text.is_ascii())?),
        tag::STR_WIDE => quoted(&wide(rest)?),
        tag::BYTES8 => {
            let escaped = sized(rest)?.iter().flat_map(|byte| std::ascii::escape_default(*byte));
            format!("b'{}'", escaped.map(char::from).collect::<String>())
        }
        _ => return None,
    })
}

fn whole<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn sized(bytes: &[u8]) -> Option<&[u8]> {
    let (len, content) = bytes.split_first()?;
    (content.len() == usize::from(*len)).then_some(content)
}

/// Width, number of code points (below 128, as an atom is short), code points.
fn wide(bytes: &[u8]) -> Option<String> {
    let (&width, rest) = bytes.split_first()?;
    let (&count, units) = rest.split_first()?;
    if count >= 0x80 || units.len() != usize::from(count) * usize::from(width) {
        return None;
    }
    let code_point = |unit: &[u8]| {
        let value = unit.iter().rev().fold(0u32, |value, byte| value << 8 | u32::from(*byte));
        char::from_u32(value)
    };
    match width {
        1 | 2 | 4 => units.chunks(usize::from(width)).map(code_point).collect(),
        _ => None,
    }
}

fn quoted(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| match c {
        '\'' | '\\' => vec!['\\', c],
        c if c.is_control() => c.escape_default().collect(),
        c => vec![c],
    });
    format!("'{}'", escaped.collect::<String>())
}

/// Shortest digits that give the number back, with a point or exponent.
fn float(value: f64) -> String {
    let text = format!("{value:?}");
    match text.as_str() {
        "NaN" => "nan".to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atoms_read_as_in_python() {
        let cases: [(&[u8], &str); 12] = [
            (&[tag::NONE], "None"),
            (&[tag::TRUE], "True"),
            (&[tag::INT8, 0xFF], "-1"),
            (&[tag::INT16, 0x39, 0x30], "12345"),
            (&[tag::INT32, 0, 0, 0, 0x80], "-2147483648"),
            (&[tag::FLOAT, 0, 0, 0, 0, 0, 0, 0xF8, 0x3F], "1.5"),
            (&[tag::FLOAT, 0, 0, 0, 0, 0, 0, 0xF8, 0x7F], "nan"),
            (&[tag::STR8, 3, b'a', b'\'', b'\n'], "'a\\'\\n'"),
            (&[tag::STR_WIDE, 1, 1, 0xE9], "'é'"),
            (&[tag::STR_WIDE, 2, 1, 0xAC, 0x20], "'€'"),
            (&[tag::BYTES8, 2, b'x', 0], "b'x\\x00'"),
            (&[tag::EMPTY_TUPLE], "()"),
        ];
        for (atom, shown) in cases {
            assert_eq!(text(atom), shown);
        }
    }

    #[test]
    fn what_is_not_understood_is_shown_as_bytes() {
        for atom in
            [&[][..], &[tag::INT8], &[tag::INT8, 1, 2], &[tag::STR8, 9, b'a'], &[tag::NONE, 0], &[0xEE, 1]]
        {
            assert!(text(atom).starts_with("<value 0x"), "{atom:?}");
        }
    }
}
