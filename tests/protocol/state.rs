//! What the parties and the place know: one state of the model.
//!
//! Numbers of the root log stand in no state. A party that acts on what it has read creates the entry behind the newest it
//! knows, which succeeds only if nobody else has created it; so of its view only whether it still is the newest counts
//! (`is_fresh`), and of a pack's birth number only whether it is below the floor, below the newest entry or that entry's.

/// Writers, and commits of each.
pub(crate) const WRITERS: usize = 2;
/// Commits of each writer.
pub(crate) const COMMITS: usize = 2;
/// Packs that one commit may write: its own, and another if what the first builds on is gone.
const ATTEMPTS: usize = 2;
/// Sweeps of the sweeper.
pub(crate) const SWEEPS: usize = 2;
/// The pack of the version that is there at the beginning, the packs of the commits, those of the sweeps.
pub(crate) const PACKS: usize = 1 + WRITERS * COMMITS * ATTEMPTS + SWEEPS;

/// A set of packs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Packs(pub(crate) u16);

/// A pack by its number in the model.
pub(crate) type Pack = usize;

/// The first pack: it holds the blob X, which many versions need, and Z, which only the first version needs.
pub(crate) const FIRST_PACK: Pack = 0;

/// The pack that a commit writes at its first or second attempt.
pub(crate) const fn own_pack(commit: usize, attempt: usize) -> Pack {
    1 + commit * ATTEMPTS + attempt
}

/// The pack into which a sweep copies what lives of another.
pub(crate) const fn swept_pack(sweep: usize) -> Pack {
    1 + WRITERS * COMMITS * ATTEMPTS + sweep
}

impl Packs {
    pub(crate) const NONE: Packs = Packs(0);

    pub(crate) const fn one(pack: Pack) -> Packs {
        Packs(1 << pack)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn has(self, pack: Pack) -> bool {
        self.0 & (1 << pack) != 0
    }

    pub(crate) const fn with(self, other: Packs) -> Packs {
        Packs(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Packs) -> Packs {
        Packs(self.0 & !other.0)
    }

    pub(crate) const fn both(self, other: Packs) -> Packs {
        Packs(self.0 & other.0)
    }

    /// The first of them as a set, none if there is none.
    pub(crate) const fn first(self) -> Packs {
        Packs(self.0 & self.0.wrapping_neg())
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Pack> {
        (0..PACKS).filter(move |pack| self.has(*pack))
    }
}

impl std::fmt::Debug for Packs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A version: 0 is there at the beginning, 1 + n is that of commit n.
pub(crate) type Version = u8;

/// A ref that does not exist.
pub(crate) const NOWHERE: Version = u8::MAX;

/// The refs: one or two that writers save to, and one that is made beside them.
pub(crate) const REFS: usize = 3;
/// The ref that tags and refused saves go to.
pub(crate) const BESIDE: usize = 2;

/// When a pack was begun, by the numbers of the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) enum Birth {
    /// Below the floor; also of packs whose birth matters to nobody any more.
    #[default]
    BelowFloor,
    /// Below the newest entry.
    Earlier,
    /// At the newest entry.
    Newest,
}

/// How far the entry of a sweep raises the floor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) enum Raise {
    /// It does not.
    #[default]
    No,
    /// To the number of the entry before it.
    ToBase,
    /// To its own number.
    ToItself,
}

/// What the caller of a commit was told, until that cannot be wrong any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) enum Told {
    /// Nothing, or it does not matter any more.
    #[default]
    Nothing,
    /// It is published.
    Published,
    /// It failed, and nothing was published.
    Failed,
}

/// Where a commit has its blob X from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) enum Source {
    /// It holds none.
    #[default]
    None,
    /// Its parent holds it: a table is taken over without a look at what is below.
    Parent,
    /// The index named a pack. The bytes are at hand until it is published.
    Index,
    /// It is written into a pack of the commit.
    Own,
}

/// What a party does next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) enum Phase {
    /// It begins its next commit or sweep, if it has any left.
    #[default]
    Idle,
    /// It stores a pack.
    Writing,
    /// It lists the packs (sweeper).
    Listing,
    /// It creates an entry.
    Creating,
    /// It reads what stands under the number, because the answer decided nothing.
    Reading,
    /// It removes the condemned packs (sweeper).
    Removing,
    /// It looks once more whether anybody needs what it will remove (only where that is the mistake to be found).
    Checking,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct Writer {
    /// Commits that are over.
    pub(crate) over: u8,
    pub(crate) phase: Phase,
    /// Whether the newest entry that it knows is the newest.
    pub(crate) is_fresh: bool,
    /// How often it has sent the entry.
    pub(crate) sent: u8,
    pub(crate) parent: Version,
    /// It makes a ref to its parent instead of a version.
    pub(crate) is_tag: bool,
    /// The ref has moved, and the version goes to one beside it.
    pub(crate) is_beside: bool,
    pub(crate) source: Source,
    /// Packs that were written twice for one commit.
    pub(crate) attempt: u8,
    /// Packs that the entry will add.
    pub(crate) own: Packs,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct Sweeper {
    /// Sweeps that are over.
    pub(crate) over: u8,
    pub(crate) phase: Phase,
    pub(crate) is_fresh: bool,
    pub(crate) sent: u8,
    /// How far its entry will raise the floor.
    pub(crate) raises: Raise,
    /// Whether its entry stands in the log.
    pub(crate) is_published: bool,
    /// Live packs that nothing needs.
    pub(crate) dead: Packs,
    /// Packs in the place that no entry names.
    pub(crate) orphans: Packs,
    /// The pack that was made of what lived of others.
    pub(crate) adds: Packs,
    /// Packs that it will remove.
    pub(crate) doomed: Packs,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct Reader {
    /// Times that it has opened the repository, and whether it is reading now.
    pub(crate) opened: u8,
    pub(crate) is_reading: bool,
    pub(crate) version: Version,
    /// Packs that it has yet to read, as its view of the log resolves them.
    pub(crate) left: Packs,
    /// It was refused a version that is retained.
    pub(crate) is_failed: bool,
}

/// A request that the place has not carried out yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Request {
    Put(u8),
    /// Many at once.
    Remove(Packs),
    /// Creating the entry of a commit.
    Commit {
        commit: u8,
        ref_at: u8,
        to: Version,
        own: Packs,
        /// A condemned pack that it names again (a mistake).
        recovers: Packs,
        /// Whether nobody has created the number.
        is_fresh: bool,
    },
    /// Creating the entry of a sweep.
    Condemn {
        sweep: u8,
        condemned: Packs,
        adds: Packs,
        raises: Raise,
        is_fresh: bool,
    },
}

/// Faults that may still happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct Faults {
    /// Requests without an answer, which are carried out at any time from now on or never. Of one that is carried out at
    /// once only the answer is lost.
    pub(crate) delayed: u8,
    /// Requests that are carried out twice.
    pub(crate) duplicated: u8,
    /// Parties that die. Another takes their place, and knows nothing.
    pub(crate) crashes: u8,
}

/// One state of everything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct State {
    /// Packs in the place.
    pub(crate) stored: Packs,
    /// Packs that entries have added and none has condemned.
    pub(crate) live: Packs,
    /// Condemned packs that are still listed as such.
    pub(crate) condemned: Packs,
    /// Packs that hold the blob X.
    pub(crate) with_x: Packs,
    pub(crate) births: [Birth; PACKS],
    pub(crate) refs: [Version; REFS],
    /// Commits (a bit each) whose version needs X.
    pub(crate) needs_x: u8,
    /// Commits (a bit each) whose entry stands in the log.
    pub(crate) published: u8,
    pub(crate) told: [Told; WRITERS * COMMITS],
    pub(crate) writers: [Writer; WRITERS],
    pub(crate) sweeper: Sweeper,
    pub(crate) reader: Reader,
    pub(crate) network: [Option<Request>; 2],
    pub(crate) faults: Faults,
    /// An old entry was removed (a mistake).
    pub(crate) has_gap: bool,
    /// A commit was published twice.
    pub(crate) is_double: bool,
}

impl State {
    /// Packs that are live and hold what only this version holds: Z, or the blob of its commit.
    pub(crate) fn holders(&self, version: Version) -> Packs {
        self.live.both(all_holders(version))
    }

    pub(crate) fn version_needs_x(&self, version: Version) -> bool {
        version == 0 || self.needs_x & (1 << (version - 1)) != 0
    }

    pub(crate) fn is_retained(&self, version: Version) -> bool {
        self.refs.contains(&version)
    }

    pub(crate) fn retained(&self) -> impl Iterator<Item = Version> + '_ {
        self.refs.iter().copied().filter(|version| *version != NOWHERE)
    }
}

/// Packs that may hold what only this version holds.
pub(crate) fn all_holders(version: Version) -> Packs {
    match version {
        0 => Packs::one(FIRST_PACK),
        version => {
            let commit = usize::from(version) - 1;
            Packs::one(own_pack(commit, 0)).with(Packs::one(own_pack(commit, 1)))
        }
    }
}
