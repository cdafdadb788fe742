//! [`Network`]: a place in memory, and processes that reach it over a network that loses, delays and repeats requests.
//!
//! Time is simulated: it passes with requests, and nobody waits. What is delayed arrives minutes later, after any number of
//! other requests. Requests of threads that take [`turns`](crate::Turns) are met by faults as a seed decides; those of
//! others are not.

use crate::{Random, pause};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// What can befall a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Trouble {
    /// It fails and was not carried out.
    FailsBefore,
    /// It is carried out, and its answer is lost.
    FailsAfter,
    /// It times out, and is carried out minutes later.
    Delayed,
    /// It is carried out, and again minutes later.
    RepeatedLater,
    /// It is carried out twice, and the second answer arrives.
    RepeatedAtOnce,
    /// A listing is minutes old.
    StaleList,
    /// The place has no room for some time.
    Full,
    /// The process dies; its request may still be carried out.
    Kill,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Trouble; 8] = [
        Trouble::FailsBefore,
        Trouble::FailsAfter,
        Trouble::Delayed,
        Trouble::RepeatedLater,
        Trouble::RepeatedAtOnce,
        Trouble::StaleList,
        Trouble::Full,
        Trouble::Kill,
    ];
}

/// How much trouble there is.
#[derive(Clone, Debug)]
pub struct Weather {
    /// One request in so many is in trouble; 0: none is.
    pub one_in: usize,
    /// What can befall it, each as likely.
    pub troubles: Vec<Trouble>,
}

/// What befell the requests of one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Troubles {
    /// Requests that were in any.
    pub all: u64,
    /// Creations of root entries whose answer does not say what became of them: a client may have sent one twice, and only
    /// the second was refused.
    pub silent_creates: u64,
}

/// A request that changes something.
#[derive(Clone, Debug)]
enum Change {
    Put(Path, PutPayload, PutOptions),
    Remove(Path),
}

#[derive(Debug)]
struct State {
    random: Random,
    weather: Weather,
    /// Simulated seconds since the beginning.
    now: i64,
    /// Under way, and when it arrives.
    under_way: Vec<(i64, Change)>,
    created: HashMap<Path, i64>,
    removed: Vec<(ObjectMeta, i64)>,
    /// Until then there is no room.
    full_until: i64,
    met: HashMap<Trouble, u64>,
}

/// A place and the network before it. Clones are one.
#[derive(Clone, Debug)]
pub struct Network {
    place: Arc<InMemory>,
    state: Arc<Mutex<State>>,
}

/// What one process sees of the place.
#[derive(Clone, Debug)]
pub struct Link {
    network: Network,
    process: Arc<Mutex<Process>>,
}

#[derive(Debug, Default)]
struct Process {
    is_dead: bool,
    troubles: Troubles,
}

/// A request without an answer takes so long, in simulated seconds.
const TIMEOUT: i64 = 30;
/// What is delayed arrives within so many simulated seconds.
const DELAY_MAX: usize = 900;
/// A listing may be so old, in simulated seconds.
const STALE_MAX: usize = 600;

fn silence(kind: io::ErrorKind, what: &str) -> Error {
    Error::Generic { store: "network", source: Box::new(io::Error::new(kind, what.to_owned())) }
}

impl Network {
    /// An empty place.
    pub fn new(seed: u64, weather: Weather) -> Self {
        let state = State {
            random: Random::new(seed),
            weather,
            now: 0,
            under_way: Vec::new(),
            created: HashMap::new(),
            removed: Vec::new(),
            full_until: 0,
            met: HashMap::new(),
        };
        Network { place: Arc::new(InMemory::new()), state: Arc::new(Mutex::new(state)) }
    }

    /// The link of a new process.
    pub fn link(&self) -> Link {
        Link { network: self.clone(), process: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The simulated time.
    pub fn now(&self) -> DateTime<Utc> {
        moment(self.state().now)
    }

    /// Lets time pass.
    pub fn wait(&self, seconds: i64) {
        self.state().now += seconds;
    }

    /// Lets everything that is under way arrive, and ends all trouble.
    pub fn settle(&self) {
        let all: Vec<Change> = {
            let mut state = self.state();
            state.weather.one_in = 0;
            state.full_until = 0;
            state.now += DELAY_MAX as i64;
            state.under_way.drain(..).map(|(_, change)| change).collect()
        };
        for change in all {
            let _ = self.carry_out(change).now_or_never();
        }
    }

    /// How often each trouble was met.
    pub fn met(&self) -> HashMap<Trouble, u64> {
        self.state().met.clone()
    }

    async fn carry_out(&self, change: Change) -> Result<Option<PutResult>> {
        match change {
            Change::Put(path, payload, options) => {
                let put = self.place.put_opts(&path, payload, options).await?;
                let mut state = self.state();
                let now = state.now;
                state.created.insert(path, now);
                Ok(Some(put))
            }
            Change::Remove(path) => {
                let meta = self.place.head(&path).await.ok();
                self.place.delete(&path).await?;
                let mut state = self.state();
                let now = state.now;
                let created = state.created.remove(&path);
                state.removed.extend(meta.map(|meta| {
                    let last_modified = moment(created.unwrap_or_default());
                    (ObjectMeta { last_modified, ..meta }, now)
                }));
                Ok(None)
            }
        }
    }

    /// Carries out what has arrived by now.
    async fn deliver(&self) {
        loop {
            let change = {
                let mut state = self.state();
                let now = state.now;
                let Some(at) = state.under_way.iter().position(|(due, _)| *due <= now) else { return };
                state.under_way.swap_remove(at).1
            };
            // Nobody waits for the answer.
            let _ = self.carry_out(change).await;
        }
    }

    fn dated(&self, meta: ObjectMeta) -> ObjectMeta {
        let created = self.state().created.get(&meta.location).copied();
        ObjectMeta { last_modified: moment(created.unwrap_or_default()), ..meta }
    }
}

/// A simulated time as a date.
fn moment(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::seconds(seconds)
}

impl Link {
    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether the process was killed. What it calls from then on fails and does nothing.
    pub fn is_dead(&self) -> bool {
        self.process().is_dead
    }

    /// What befell its requests so far.
    pub fn troubles(&self) -> Troubles {
        self.process().troubles
    }

    /// Lets others go on, and decides what befalls a request.
    async fn meet(&self, what: &Request<'_>) -> Result<Option<Trouble>> {
        let has_part = pause();
        if self.is_dead() {
            return Err(silence(io::ErrorKind::BrokenPipe, "the process is dead"));
        }
        if !has_part {
            return Ok(None);
        }
        let trouble = {
            let mut state = self.network.state();
            let state = &mut *state;
            state.now += 1;
            let is_met = state.weather.one_in > 0 && state.random.below(state.weather.one_in) == 0;
            let choice = state.random.next_u64() as usize;
            let fitting = |trouble: &&Trouble| what.can_meet(**trouble);
            let fitting: Vec<Trouble> = state.weather.troubles.iter().filter(fitting).copied().collect();
            let trouble =
                if is_met && !fitting.is_empty() { Some(fitting[choice % fitting.len()]) } else { None };
            if let Some(trouble) = trouble {
                *state.met.entry(trouble).or_default() += 1;
            }
            trouble
        };
        self.network.deliver().await;
        if trouble.is_some() {
            self.process().troubles.all += 1;
        }
        Ok(trouble)
    }

    fn toss(&self) -> bool {
        self.network.state().random.below(2) == 0
    }

    fn send_later(&self, change: Change) {
        let mut state = self.network.state();
        let due = state.now + 1 + state.random.below(DELAY_MAX) as i64;
        state.under_way.push((due, change));
    }

    /// A request that changes something.
    async fn change(&self, change: Change) -> Result<Option<PutResult>> {
        let trouble = self.meet(&Request::Change(&change)).await?;
        let is_create = matches!(&change, Change::Put(path, _, options)
            if options.mode == PutMode::Create && path.as_ref().starts_with("root/"));
        let note_silent = || self.process().troubles.silent_creates += u64::from(is_create);
        let is_full = {
            let state = self.network.state();
            state.now < state.full_until && matches!(change, Change::Put(..))
        };
        match trouble {
            None if is_full => {
                note_silent();
                self.process().troubles.all += 1;
                Err(silence(io::ErrorKind::StorageFull, "no space left"))
            }
            None | Some(Trouble::StaleList) => self.network.carry_out(change).await,
            Some(Trouble::FailsBefore) => {
                note_silent();
                Err(silence(io::ErrorKind::ConnectionReset, "the connection was reset"))
            }
            Some(Trouble::FailsAfter) => {
                note_silent();
                let _ = self.network.carry_out(change).await;
                Err(silence(io::ErrorKind::ConnectionReset, "the connection was reset"))
            }
            Some(Trouble::Delayed) => {
                note_silent();
                self.send_later(change);
                self.network.state().now += TIMEOUT;
                Err(silence(io::ErrorKind::TimedOut, "the request timed out"))
            }
            Some(Trouble::RepeatedLater) => {
                self.send_later(change.clone());
                self.network.carry_out(change).await
            }
            Some(Trouble::RepeatedAtOnce) => {
                note_silent();
                let _ = self.network.carry_out(change.clone()).await;
                self.network.carry_out(change).await
            }
            Some(Trouble::Full) => {
                note_silent();
                let mut state = self.network.state();
                let seconds = 1 + state.random.below(20) as i64;
                state.full_until = state.now + seconds;
                Err(silence(io::ErrorKind::StorageFull, "no space left"))
            }
            Some(Trouble::Kill) => {
                if self.toss() {
                    let _ = self.network.carry_out(change).await;
                } else if self.toss() {
                    self.send_later(change);
                }
                self.die()
            }
        }
    }

    fn die<T>(&self) -> Result<T> {
        self.process().is_dead = true;
        Err(silence(io::ErrorKind::BrokenPipe, "the process was killed"))
    }

    /// A request that only reads.
    async fn look(&self, request: Request<'_>) -> Result<Option<Trouble>> {
        match self.meet(&request).await? {
            Some(Trouble::Kill) => self.die(),
            Some(Trouble::StaleList) => Ok(Some(Trouble::StaleList)),
            Some(Trouble::Delayed) => {
                self.network.state().now += TIMEOUT;
                Err(silence(io::ErrorKind::TimedOut, "the request timed out"))
            }
            Some(Trouble::FailsBefore | Trouble::FailsAfter) => {
                Err(silence(io::ErrorKind::ConnectionReset, "the connection was reset"))
            }
            other => Ok(other),
        }
    }

    async fn listing(&self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let trouble = self.look(Request::List).await?;
        let mut all: Vec<ObjectMeta> = self.network.place.list(prefix.as_ref()).try_collect().await?;
        if trouble == Some(Trouble::StaleList) {
            let mut state = self.network.state();
            let as_of = state.now - state.random.below(STALE_MAX) as i64;
            all.retain(|meta| state.created.get(&meta.location).is_none_or(|created| *created <= as_of));
            let was_there = |(meta, removed): &&(ObjectMeta, i64)| {
                let is_below = prefix.as_ref().is_none_or(|prefix| meta.location.prefix_matches(prefix));
                is_below && *removed > as_of && meta.last_modified <= moment(as_of)
            };
            all.extend(state.removed.iter().filter(was_there).map(|(meta, _)| meta.clone()));
            all.sort_unstable_by(|a, b| a.location.cmp(&b.location));
            all.dedup_by(|a, b| a.location == b.location);
        }
        Ok(all.into_iter().map(|meta| self.network.dated(meta)).collect())
    }
}

/// What is asked of the place.
enum Request<'a> {
    Change(&'a Change),
    Read,
    List,
}

impl Request<'_> {
    fn can_meet(&self, trouble: Trouble) -> bool {
        match trouble {
            Trouble::FailsBefore | Trouble::Kill => true,
            Trouble::Delayed => true,
            Trouble::FailsAfter | Trouble::RepeatedLater | Trouble::RepeatedAtOnce => {
                matches!(self, Request::Change(_))
            }
            Trouble::StaleList => matches!(self, Request::List),
            Trouble::Full => matches!(self, Request::Change(Change::Put(..))),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

#[async_trait]
impl ObjectStore for Link {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let put = self.change(Change::Put(location.clone(), payload, options)).await?;
        Ok(put.expect("a put gives a result"))
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.look(Request::Read).await?;
        self.network.place.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.look(Request::Read).await?;
        let mut found = self.network.place.get_opts(location, options).await?;
        found.meta = self.network.dated(found.meta);
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let link = self.clone();
        let remove = move |location: Result<Path>| {
            let link = link.clone();
            async move {
                let location = location?;
                link.change(Change::Remove(location.clone())).await?;
                Ok(location)
            }
        };
        locations.then(remove).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (link, prefix) = (self.clone(), prefix.cloned());
        let listing = async move {
            match link.listing(prefix).await {
                Ok(all) => futures::stream::iter(all.into_iter().map(Ok)).boxed(),
                Err(error) => futures::stream::iter([Err(error)]).boxed(),
            }
        };
        listing.flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.look(Request::Read).await?;
        self.network.place.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.look(Request::Read).await?;
        self.network.place.copy_opts(from, to, options).await
    }
}
