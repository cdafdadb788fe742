//! What a forked child may believe: nothing that was opened before the fork. What the parent may believe: the same as
//! before.
#![cfg(target_os = "linux")]

use chipmink_shm::dirty::{DirtyPages, Untracked, Verdict, WriteProtection};

const PAGE: usize = 4096;

/// Runs `child` in a fork of this process; whether it returned true.
fn in_child(child: impl FnOnce() -> bool) -> bool {
    // SAFETY: this test binary has one test, so no other thread holds a lock; the child leaves by `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let code = i32::from(!child());
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(code) }
        }
        pid => {
            assert!(pid > 0, "fork failed");
            let mut status = 0;
            // SAFETY: `status` is a valid place.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
        }
    }
}

#[test]
fn a_child_knows_nothing_and_takes_nothing_from_its_parent() {
    let mut own = match WriteProtection::probe() {
        Ok(protection) => Some(protection),
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    let mut memory = vec![1u8; 64 * PAGE];
    let (address, len) = (memory.as_ptr() as usize, memory.len());
    let finds = |protection: &mut WriteProtection, page: usize| match protection.written(address, len) {
        Verdict::Written(ranges) => ranges.iter().any(|range| range.contains(&(address + page * PAGE))),
        Verdict::Unknown => panic!("tracking was lost"),
    };
    own.as_mut().unwrap().track(address, len).unwrap();

    memory[20 * PAGE] = 2;
    let is_right = in_child(|| {
        let mut inherited = own.take().unwrap();
        let lost = inherited.is_lost() && !inherited.is_trusted();
        let unknown = inherited.written(address, len) == Verdict::Unknown;
        let refused = inherited.track(address, len) == Err(Untracked::Forked);
        inherited.untrack(address, len);
        drop(inherited);
        memory[3 * PAGE] = 7;
        let mut fresh = WriteProtection::probe().unwrap();
        fresh.track(address, len).unwrap();
        let is_clean = !finds(&mut fresh, 40);
        memory[40 * PAGE] = 7;
        lost && unknown && refused && is_clean && finds(&mut fresh, 40)
    });
    assert!(is_right, "in the child");

    let mut own = own.unwrap();
    assert!(!own.is_lost() && own.is_trusted());
    memory[30 * PAGE] = 2;
    let Verdict::Written(ranges) = own.written(address, len) else { panic!("the parent lost track") };
    let has = |page: usize| ranges.iter().any(|range| range.contains(&(address + page * PAGE)));
    assert!(has(20) && has(30), "written before and after the fork");
    assert!(!has(3) && !has(40), "written by the child, into its own copy");
    memory[31 * PAGE] = 2;
    assert!(finds(&mut own, 31));
    assert!(!finds(&mut own, 31));
}
