//! Random bytes for names that are used once.

use rustix::rand::{GetRandomFlags, getrandom};

/// Sixteen random bytes of the system.
///
/// # Panics
/// When the system has no source of random bytes, which no supported system lacks.
pub(crate) fn bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(read) => filled += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the system gives no random bytes: {error}"),
        }
    }
    bytes
}
