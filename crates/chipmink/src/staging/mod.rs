//! Repositories in shared memory, and staging tiers of others.
//!
//! ```text
//!   save ──► pool in shared memory ──[ Stager: a thread of the saver | run_agent: a process of its own ]──► repository below
//!            (staged)                                                                                       (durable)
//! ```
//!
//! 1. A save returns when its root entry is in the pool. From then on the version survives the death of the process, however
//!    it comes; a power cut, it survives once it is durable.
//! 2. One process at a time makes durable what is staged: whoever has the pool's lease. If it dies, another takes the
//!    lease and goes on. That saves work; that nothing is published twice does not depend on it.
//! 3. What fails in the background stays staged, is tried again, and is told once to whoever uses the repository next.

mod agent;
mod open;
mod stager;

pub use agent::{AgentEvent, AgentOptions, run_agent};
pub(crate) use open::{open_shared, open_staged};
pub use open::{remove_segment, segments};
pub(crate) use stager::Stager;
pub use stager::Status;
