//! `chipmink doctor`: what this machine offers.

use crate::command::Failure;
use chipmink::{CompilerOptions, Examination, examine};
use serde_json::{Value, json};
use std::io::Write;

pub(crate) fn print(is_json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    // What wheels have brought, Python knows: `chipmink.doctor()` looks there, too.
    let found = examine(&CompilerOptions::default());
    if is_json {
        writeln!(out, "{}", as_json(&found))?;
        return Ok(());
    }
    writeln!(out, "chipmink {} on {}", found.version, found.system)?;
    for (name, answer) in facilities(&found) {
        match answer {
            Ok(detail) => writeln!(out, "{name}: {detail}")?,
            Err(reason) => writeln!(out, "{name}: no; {reason}")?,
        }
    }
    Ok(())
}

/// Each with what it is, or why there is none.
fn facilities(found: &Examination) -> Vec<(String, Result<String, String>)> {
    let driver = found.driver.clone().map(|version| format!("{}.{}", version / 1000, version % 1000 / 10));
    let compiler = found.compiler.clone().map(|(major, minor)| format!("{major}.{minor}"));
    let mut all = vec![
        ("dirty pages".to_owned(), found.dirty_pages.clone().map(|()| "tracked by the kernel".to_owned())),
        ("shared memory".to_owned(), found.shared_memory.clone().map(|()| "yes".to_owned())),
        ("CUDA driver".to_owned(), driver),
    ];
    for (ordinal, device) in found.devices.iter().enumerate() {
        let described = device.clone().map(|info| {
            let (major, minor) = info.capability;
            format!("{}, compute capability {major}.{minor}, {} bytes", info.name, info.byte_len)
        });
        all.push((format!("device {ordinal}"), described));
    }
    all.push(("NVRTC".to_owned(), compiler));
    all
}

fn as_json(found: &Examination) -> Value {
    let facilities: serde_json::Map<String, Value> = facilities(found)
        .into_iter()
        .map(|(name, answer)| {
            let value = match answer {
                Ok(detail) => json!({ "is_there": true, "detail": detail }),
                Err(reason) => json!({ "is_there": false, "detail": reason }),
            };
            (name, value)
        })
        .collect();
    json!({ "version": found.version, "system": found.system, "facilities": facilities })
}
