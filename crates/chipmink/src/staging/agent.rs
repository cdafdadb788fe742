//! [`run_agent`]: a process of its own that makes durable what others staged, also after they were killed.

use super::open::{attach, segment_name};
use crate::error::{Error, Result};
use chipmink_shm::ShmError;
use chipmink_shm::pool::{Pool, PoolLease};
use chipmink_store::{Persisted, Place, Staging, Store, StoreError, StoreOptions};
use chipmink_types::SharedPool;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks: a look is one system call as long as nothing changes.
const POLL: Duration = Duration::from_millis(5);
/// Between two looks for what is not there yet, or whether the segment is still the one of its name.
const SLOW: Duration = Duration::from_millis(200);
/// Between two tries after a failure, at most.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What an agent does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentOptions {
    /// The staging tier, as `shm://NAME`.
    pub staging: String,
    /// The repository below.
    pub to: String,
    /// Bytes of the staging tier, which the agent makes then if there is none; `None`: it waits until there is one.
    pub segment_bytes: Option<u64>,
    /// Ends as soon as nothing is staged, instead of waiting for more.
    pub until_durable: bool,
}

/// What an agent tells of.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AgentEvent {
    /// It waits for this.
    Waiting(String),
    /// It is at work for the repository of this place.
    Attached(String),
    /// It has made a version durable.
    Persisted(Persisted),
    /// It has removed so many objects of saves whose process died before they were staged.
    Cleaned(u64),
    /// Something went wrong; it will be tried again.
    Failed(String),
}

/// Makes durable whatever reaches a staging tier, until `tell` says `false` or, if so asked, nothing is left.
///
/// # Errors
/// When the places have no meaning, or the staging tier belongs to another repository. Whatever may pass is told of and tried
/// again, unless the agent is to end when nothing is left.
pub fn run_agent(options: &AgentOptions, tell: &mut dyn FnMut(AgentEvent) -> bool) -> Result<()> {
    let name = segment_name(&options.staging)?;
    let place = Place::parse(&options.to)?;
    let mut agent = Agent { options, name, place, last: None };
    loop {
        match agent.serve(tell) {
            Ok(Next::End) => return Ok(()),
            Ok(Next::Again) => {}
            Err(error) => {
                if options.until_durable || !error.kind().can_retry() && !is_missing(&error) {
                    return Err(error);
                }
                if !agent.wait(AgentEvent::Waiting(error.to_string()), tell) {
                    return Ok(());
                }
            }
        }
    }
}

enum Next {
    End,
    /// The segment is another one by now.
    Again,
}

struct Agent<'a> {
    options: &'a AgentOptions,
    name: String,
    place: Place,
    /// What was told last: the same is not told again and again.
    last: Option<AgentEvent>,
}

fn is_missing(error: &Error) -> bool {
    match error {
        Error::Shm(ShmError::System { source, .. }) => source.kind() == ErrorKind::NotFound,
        Error::Store(StoreError::NoRepository { .. }) => true,
        _ => false,
    }
}

impl Agent<'_> {
    /// Tells of a state, once, and lets some time pass.
    fn wait(&mut self, event: AgentEvent, tell: &mut dyn FnMut(AgentEvent) -> bool) -> bool {
        if self.last.as_ref() != Some(&event) {
            self.last = Some(event.clone());
            if !tell(event) {
                return false;
            }
        }
        std::thread::sleep(SLOW);
        true
    }

    /// Serves the segment that has the name now.
    fn serve(&mut self, tell: &mut dyn FnMut(AgentEvent) -> bool) -> Result<Next> {
        let pool = match (attach(&self.name, None, false), self.options.segment_bytes) {
            (Err(error), Some(byte_len)) if is_missing(&error) => attach(&self.name, Some(byte_len), true)?,
            (attached, _) => attached?,
        };
        let lower = Store::open(self.place.clone(), StoreOptions::default())?;
        match pool.binding()? {
            Some(bound) if bound == lower.repository().0 => {}
            Some(_) => {
                let (place, below) = (pool.label().to_owned(), lower.label().to_owned());
                let reason = format!("it is the staging tier of another repository than {below}");
                return Err(StoreError::Place { place, reason }.into());
            }
            None if pool.list().map_or(true, |all| all.is_empty()) => pool.bind(lower.repository().0)?,
            None => {
                let reason = "it is a repository of its own, and no staging tier".to_owned();
                return Err(StoreError::Place { place: pool.label().to_owned(), reason }.into());
            }
        }
        let staging = Staging::new(Arc::new(pool.clone()), lower);
        let lease = loop {
            if let Some(lease) = pool.lease()? {
                break lease;
            }
            if self.options.until_durable && staging.state()?.entries == 0 {
                return Ok(Next::End);
            }
            let holder = pool.lease_holder()?.map_or_else(String::new, |pid| format!(" {pid}"));
            let event = AgentEvent::Waiting(format!("process{holder} makes versions durable itself"));
            if !self.wait(event, tell) {
                return Ok(Next::End);
            }
            if !is_current(&pool, &self.name) {
                return Ok(Next::Again);
            }
        };
        self.last = None;
        if !tell(AgentEvent::Attached(staging.lower().label().to_owned())) {
            return Ok(Next::End);
        }
        self.drain(&pool, &staging, &lease, tell)
    }

    /// Makes durable whatever is staged, as long as it has the lease.
    fn drain(
        &mut self,
        pool: &Pool,
        staging: &Staging,
        lease: &PoolLease,
        tell: &mut dyn FnMut(AgentEvent) -> bool,
    ) -> Result<Next> {
        let (mut seen, mut pause) = (None, POLL);
        let mut looked = Instant::now();
        loop {
            let changes = staging.changes()?;
            if seen == Some(changes) {
                if self.options.until_durable {
                    return Ok(Next::End);
                }
                if looked.elapsed() >= SLOW {
                    looked = Instant::now();
                    if !is_current(pool, &self.name) {
                        return Ok(Next::Again);
                    }
                }
                std::thread::sleep(POLL);
                continue;
            }
            if !lease.stands()? {
                return Ok(Next::Again);
            }
            match self.pass(staging, tell) {
                Ok(true) => {
                    pause = POLL;
                    // In this order, so that what is staged in between is seen.
                    let after = staging.changes()?;
                    seen = (staging.state()?.entries == 0).then_some(after);
                }
                Ok(false) => return Ok(Next::End),
                Err(error) if self.options.until_durable => return Err(error),
                Err(error) => {
                    let event = AgentEvent::Failed(error.to_string());
                    if self.last.as_ref() != Some(&event) {
                        self.last = Some(event.clone());
                        if !tell(event) {
                            return Ok(Next::End);
                        }
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Makes durable what is staged at this moment; `false`: it is to end.
    fn pass(&mut self, staging: &Staging, tell: &mut dyn FnMut(AgentEvent) -> bool) -> Result<bool> {
        let cleaned = staging.clean()?;
        if cleaned > 0 && !tell(AgentEvent::Cleaned(cleaned)) {
            return Ok(false);
        }
        while let Some(persisted) = staging.persist_next(&mut |_| {})? {
            self.last = None;
            if !tell(AgentEvent::Persisted(persisted)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether the segment is still the one of its name.
fn is_current(pool: &Pool, name: &str) -> bool {
    Pool::attach(name).is_ok_and(|now| now.id() == pool.id())
}
