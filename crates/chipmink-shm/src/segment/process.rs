//! Who holds a lease: a process, told apart from a later one with the same number by when it was started.

use std::os::unix::fs::MetadataExt;

/// A process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) pid: u64,
    /// In clock ticks after boot, as field 22 of `/proc/<pid>/stat`.
    pub(crate) started: u64,
    /// Inode of the namespace in which `pid` counts.
    pub(crate) namespace: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn me() -> std::io::Result<Self> {
        let pid = u64::from(std::process::id());
        let started = started(pid).ok_or_else(|| std::io::Error::other("/proc/self/stat cannot be read"))?;
        Ok(Owner { pid, started, namespace: namespace()? })
    }

    /// Whether it may still be running.
    pub(crate) fn may_live(&self) -> bool {
        match namespace() {
            Ok(here) if here == self.namespace => started(self.pid) == Some(self.started),
            _ => true,
        }
    }
}

fn namespace() -> std::io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/ns/pid")?.ino())
}

/// When a running process was started; `None` if there is none, or it is dead and only waited for by its parent.
fn started(pid: u64) -> Option<u64> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_start_is_found_whatever_the_name() {
        let stat = |state: &str| {
            format!("12 (a) b) 7) {state} 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21")
        };
        assert_eq!(parse(&stat("S")), Some(4711));
        assert_eq!(parse(&stat("Z")), None);
        assert_eq!(parse("nothing"), None);
    }

    #[test]
    fn this_process_lives_and_another_start_of_its_number_does_not() {
        let me = Owner::me().unwrap();
        assert!(me.may_live());
        assert!(!Owner { started: me.started + 1, ..me }.may_live());
        assert!(!Owner { pid: u64::MAX, ..me }.may_live());
        // Nothing can be said of another namespace's.
        assert!(Owner { pid: u64::MAX, namespace: me.namespace + 1, ..me }.may_live());
    }

    #[test]
    fn a_process_that_ended_is_dead_before_its_parent_asks() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = u64::from(child.id());
        let owner = Owner { pid, started: started(pid).unwrap(), namespace: namespace().unwrap() };
        assert!(owner.may_live());
        child.kill().unwrap();
        let dead = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            !owner.may_live()
        });
        assert!(dead);
        child.wait().unwrap();
    }
}
