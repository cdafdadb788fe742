//! `chipmink agent`: makes durable what others stage.
//!
//! It leaves the session and the process group that it was started in, so that a signal to these does not end it. Where that
//! cannot be done, since a shell made it the leader of a group, it starts itself once more and waits.

use crate::arguments::AgentArguments;
use crate::command::Failure;
use crate::view;
use chipmink::{AgentEvent, AgentOptions, run_agent};
use rustix::io::Errno;
use serde_json::json;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Exit status of a program that was ended by a signal.
const KILLED: u8 = 1;

pub(crate) fn run(arguments: &AgentArguments, out: &mut dyn Write) -> Result<u8, Failure> {
    match rustix::process::setsid() {
        Ok(_) => {}
        Err(Errno::PERM) if is_leader_of_session() => {}
        Err(Errno::PERM) => return start_again(),
        Err(error) => return Err(io::Error::from(error).into()),
    }
    let options = AgentOptions {
        staging: arguments.staging.clone(),
        to: arguments.to.clone(),
        segment_bytes: arguments.size,
        until_durable: arguments.until_durable,
    };
    run_agent(&options, &mut |event| {
        // Whether anybody reads what it says does not matter to what it does.
        let _ = print(&event, arguments.json, out).and_then(|()| out.flush());
        true
    })?;
    Ok(0)
}

fn is_leader_of_session() -> bool {
    let me = rustix::process::getpid();
    rustix::process::getsid(None).is_ok_and(|session| session == me)
}

/// A child is no leader of a group, so it can begin a session.
fn start_again() -> Result<u8, Failure> {
    let status =
        Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).stdin(Stdio::null()).status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(KILLED))
}

fn print(event: &AgentEvent, is_json: bool, out: &mut dyn Write) -> io::Result<()> {
    if is_json {
        let value = match event {
            AgentEvent::Waiting(reason) => json!({ "event": "waiting", "reason": reason }),
            AgentEvent::Attached(place) => json!({ "event": "attached", "place": place }),
            AgentEvent::Persisted(persisted) => json!({
                "event": "persisted",
                "version": persisted.time.0,
                "staged_as": persisted.staged_as.0,
                "moved_to": persisted.moved_to,
                "byte_len": persisted.byte_len,
            }),
            AgentEvent::Cleaned(objects) => json!({ "event": "cleaned", "objects": objects }),
            AgentEvent::Failed(reason) => json!({ "event": "failed", "reason": reason }),
            _ => return Ok(()),
        };
        return writeln!(out, "{value}");
    }
    match event {
        AgentEvent::Waiting(reason) => writeln!(out, "waiting: {}", view::line(reason)),
        AgentEvent::Attached(place) => writeln!(out, "at work for {}", view::line(place)),
        AgentEvent::Persisted(persisted) => {
            let bytes = view::bytes(persisted.byte_len);
            match &persisted.moved_to {
                Some(moved_to) => writeln!(
                    out,
                    "version {} is durable as version {} of ref {}, since its own was moved ({bytes})",
                    persisted.staged_as,
                    persisted.time,
                    view::line(moved_to),
                ),
                None if persisted.time != persisted.staged_as => {
                    writeln!(
                        out,
                        "version {} is durable as version {} ({bytes})",
                        persisted.staged_as, persisted.time
                    )
                }
                None => writeln!(out, "version {} is durable ({bytes})", persisted.time),
            }
        }
        AgentEvent::Cleaned(objects) => {
            writeln!(out, "removed {} of saves that never ended", view::count(*objects, "object"))
        }
        AgentEvent::Failed(reason) => writeln!(out, "failed, will be tried again: {}", view::line(reason)),
        _ => Ok(()),
    }
}
