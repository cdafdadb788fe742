//! `chipmink cat`.

use crate::arguments::CatArguments;
use crate::command::Failure;
use chipmink::Repository;
use chipmink_types::Digest;
use serde_json::json;
use std::io::Write;

pub(crate) fn print(
    repository: &Repository,
    arguments: &CatArguments,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let digest: Digest = arguments.digest.parse().map_err(|error| Failure::Argument(format!("{error}")))?;
    if !arguments.common.json {
        if arguments.buffer {
            repository.read_buffer(digest, &mut |piece| out.write_all(piece))?;
        } else {
            out.write_all(&repository.blob(&digest)?)?;
        }
        return Ok(());
    }
    // Written as it is read: a buffer may be larger than memory.
    write!(out, "{{\"digest\":{},\"hex\":\"", json!(digest.to_string()))?;
    let mut byte_len = 0u64;
    let mut put = |piece: &[u8]| {
        byte_len += piece.len() as u64;
        piece.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    };
    if arguments.buffer {
        repository.read_buffer(digest, &mut put)?;
    } else {
        put(&repository.blob(&digest)?)?;
    }
    writeln!(out, "\",\"byte_len\":{byte_len}}}")?;
    Ok(())
}
