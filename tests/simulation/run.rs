//! [`run`]: one simulated history.

use crate::books::Books;
use crate::process::{Counts, Process};
use chipmink_store::{Backend, Store, StoreError, StoreOptions};
use chipmink_testkit::toy::{self, Namespace};
use chipmink_testkit::{Network, Random, Trouble, Turns, Weather, Work};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

/// What happened in a run, or in many.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) published: u64,
    pub(crate) failed: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    pub(crate) deaths: u64,
    pub(crate) loads: u64,
    pub(crate) silent_creates: u64,
    pub(crate) dropped: u64,
    pub(crate) packs_deleted: u64,
    pub(crate) troubles: HashMap<Trouble, u64>,
    pub(crate) problems: Vec<String>,
}

impl Figures {
    pub(crate) fn add(&mut self, other: Figures) {
        self.published += other.published;
        self.failed += other.failed;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.deaths += other.deaths;
        self.loads += other.loads;
        self.silent_creates += other.silent_creates;
        self.dropped += other.dropped;
        self.packs_deleted += other.packs_deleted;
        for (trouble, count) in other.troubles {
            *self.troubles.entry(trouble).or_default() += count;
        }
        self.problems.extend(other.problems);
    }

    fn add_counts(&mut self, counts: Counts) {
        self.published += counts.published;
        self.failed += counts.failed;
        self.refused += counts.refused;
        self.unknown += counts.unknown;
        self.deaths += counts.deaths;
        self.loads += counts.loads;
        self.silent_creates += counts.silent_creates;
        self.dropped += counts.dropped;
        self.packs_deleted += counts.packs_deleted;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems = |kind: &str| self.problems.iter().filter(|problem| problem.contains(kind)).count();
        write!(
            f,
            "{} versions published, {} saves failed, {} refused, {} outcomes unknown of {} silent creations, \
             {} processes killed, {} loads, {} versions swept with {} packs; lost {}, phantom {}, missing {}; troubles {:?}",
            self.published,
            self.failed,
            self.refused,
            self.unknown,
            self.silent_creates,
            self.deaths,
            self.loads,
            self.dropped,
            self.packs_deleted,
            problems("lost:"),
            problems("phantom:"),
            problems("missing:"),
            self.troubles,
        )
    }
}

/// The weather of a run: in some everything can happen, in others one thing or two, and that often.
fn weather(random: &mut Random) -> Weather {
    let one_in = [0, 4, 8, 20, 60][random.below(5)];
    let troubles = match random.below(3) {
        0 => Trouble::ALL.to_vec(),
        1 => vec![Trouble::ALL[random.below(8)]],
        _ => vec![Trouble::ALL[random.below(8)], Trouble::ALL[random.below(8)]],
    };
    Weather { one_in, troubles }
}

/// Runs one history and compares its end with what the processes were told.
pub(crate) fn run(seed: u64) -> Figures {
    let mut random = Random::new(seed ^ 0x5eed);
    let weather = weather(&mut random);
    let options = StoreOptions {
        durable: random.below(3) > 0,
        // Some runs write several packs for one save.
        pack_bytes: if random.below(3) == 0 { 1000 } else { 1 << 20 },
        ..StoreOptions::default()
    };
    let network = Network::new(random.next_u64(), weather);
    let books = Arc::new(Mutex::new(Books::default()));
    // Where several sweep, they meet.
    let sweeps = random.below(4) > 0;
    let processes = 1 + random.below(4);
    let steps = 5 + random.below(if processes > 2 { 12 } else { 30 });
    let start = |name: usize| {
        let process = Process::new(name, &network, sweeps, options.clone(), &books, random.next_u64());
        Box::new(move || process.work(steps)) as Work<'_, Counts>
    };
    let threads = (0..processes).map(start).collect();
    let counts = Turns::run(seed, threads);
    network.settle();
    let mut books = std::mem::take(&mut *books.lock().unwrap());
    finish(&network, options, &mut books);
    let mut figures = Figures { problems: books.problems, troubles: network.met(), ..Figures::default() };
    counts.into_iter().for_each(|counts| figures.add_counts(counts));
    figures
}

/// Opens what is left, compares, and saves once more.
fn finish(network: &Network, options: StoreOptions, books: &mut Books) {
    let backend = Backend::remote(Arc::new(network.link()), "sim://place");
    let store = match Store::open_in(backend, options) {
        Ok(store) => store,
        Err(StoreError::NoRepository { .. }) if books.published().is_empty() => return,
        Err(error) => return books.problem(format!("lost: the repository cannot be opened: {error}")),
    };
    books.close(&store);
    let last = Namespace::from([("last".to_owned(), vec![1; 100])]);
    match toy::save(&store, &last, "last") {
        Ok(time) => assert_eq!(toy::load(&store, time).unwrap(), last),
        Err(error) => books.problem(format!("nothing can be saved any more: {error}")),
    }
}
