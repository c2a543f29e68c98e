//! What a worker needs to know before it runs the SQL: where it runs, who acts, the session's state of settings, and the
//! parameters. A job whose state is that of a connection which nobody holds comes with none of these: the worker finds them when it connects.

use crate::pg::catalog::database::Database;
use crate::pg::error::Result;
use crate::pg::guc::apply::{self, Digest};
use crate::pg::memory::padded;
use crate::pg::process::backend;
use crate::pg::process::identity::Identity;
use crate::pg::query::simple_query;
use crate::pg::raw::Raw;
use crate::pg::reuse::adopt;
use crate::pg::reuse::connection_version::{self, Kind};
use crate::pg::shmem::{self, DsaPointer, Owned};
use crate::pg::value::describe::Numbers;
use crate::pg::value::encoding;
use crate::pg::value::params::{Outgoing, Parameters};
use crate::registry::pool::WorkerKey;
use crate::settings;
use core::ffi::CStr;

/// Where a job's state comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Origin {
    /// A session of the job's database, with all of its settings.
    Session,
    /// A session of another database, with the limits that it has set.
    Elsewhere,
    /// A connection that nobody holds.
    Connection,
}

/// What the engine itself does in the transaction of a job, before the job's first statement and after its last one.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Work {
    /// Nothing: the transactions are the job's own.
    #[default]
    None,
    /// A durable task of the worker's role is taken up, and run with the note of its end.
    Task,
    /// What is due in the database is made ready.
    Keep,
    /// The databases of the cluster are looked up.
    Scout,
    /// What a test wants.
    #[cfg(feature = "probe")]
    Probe { before: Deed, after: Deed },
}

impl Work {
    /// Whether a job with this work is one of the library's own.
    pub fn is_internal(self) -> bool {
        matches!(self, Self::Task | Self::Keep | Self::Scout)
    }
}

/// What a test wants of the engine.
#[cfg(feature = "probe")]
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Deed {
    Nothing,
    /// A row in the table `marks`.
    Insert,
    /// An error.
    Raise,
    /// The process ends without a word about its job.
    Vanish,
}

/// What a job does for a task of another database, which keeps what comes back.
#[derive(Clone, Copy, Default)]
pub struct Errand<'a> {
    /// Settings that the job makes first: names and values in turn, each with a NUL behind.
    pub settings: &'a [u8],
    /// How many bytes of JSON its rows may have, which it sends instead of the rows. None if they are thrown away.
    pub rows: Option<usize>,
    /// Whether the job is a task's. Without a task there is no errand.
    pub is_task: bool,
}

impl<'a> Errand<'a> {
    /// The names of the settings and their values.
    pub fn settings(&self) -> impl Iterator<Item = (&'a CStr, &'a CStr)> + use<'a> {
        let mut rest = self.settings;
        let mut next = move || {
            let text = CStr::from_bytes_until_nul(rest).ok()?;
            rest = rest.get(text.count_bytes() + 1..)?;
            Some(text)
        };
        core::iter::from_fn(move || Some((next()?, next()?)))
    }
}

/// The head of a request; settings, parameters, the settings of an errand and libraries follow.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    key: WorkerKey,
    /// The identity that the job acts with.
    identity: Identity,
    /// The number of the settings that compiled or planned objects may depend on.
    material: u64,
    /// The session's `pg_background.worker_idle_timeout` and `pg_background.max_idle_workers`.
    idle_timeout: i32,
    max_idle: i32,
    /// The process that ordered the job.
    session: i32,
    origin: Origin,
    work: Work,
    /// The encoding of the SQL and the parameters.
    encoding: i32,
    /// A number that is unique to these settings, or 0 if they were made for this job alone.
    settings_mark: u64,
    settings_len: u64,
    /// 0 if there are no parameters.
    parameters_len: u64,
    /// The errand: the bytes of its settings, how many bytes of rows come back, -1 for none, and whether it is a task's.
    errand_len: u64,
    errand_rows: i64,
    errand_is_task: bool,
}

/// Bytes of the head. What follows is aligned.
const HEAD: u64 = padded(size_of::<Head>()) as u64;

/// A request as the worker sees it.
pub struct Request {
    pointer: DsaPointer,
    head: &'static Head,
}

/// Puts what a job in `database` needs of this session into the shared area: all of its settings, or in another database the
/// limits that it has set itself. Tells which workers key it. 53200 where memory is out.
pub fn store(
    identity: Identity,
    database: &Database,
    parameters: Option<&Outgoing>,
    work: Work,
    errand: &Errand,
) -> Result<(Owned, WorkerKey)> {
    let start = |settings: &Sent, origin: Origin, kind: Kind| Head {
        key: WorkerKey {
            database: database.oid,
            role: identity.authenticated,
            connection_version: if settings::worker_idle_timeout() > 0 {
                connection_version::of(database.oid, identity.authenticated, kind)
            } else {
                0
            },
            custom: settings.digest.custom,
        },
        identity,
        ..Head::of(origin, encoding::of_database(), work)
    };
    if database.is_other {
        let limits = apply::explicit_limits()?;
        let settings = Sent {
            state: &limits,
            mark: 0,
            digest: Digest::NONE,
        };
        let head = start(&settings, Origin::Elsewhere, Kind::Elsewhere);
        return store_with(head, parameters, settings, errand, &[0]);
    }
    apply::with_settings(|settings| {
        let libraries = settings.libraries();
        let settings = Sent {
            state: settings.bytes(),
            mark: settings.mark(),
            digest: settings.digest(),
        };
        let head = start(&settings, Origin::Session, Kind::Own);
        store_with(head, parameters, settings, errand, &libraries)
    })
}

/// The same for a job whose state is that of a new connection of `role` to `database`, with SQL in this encoding. Looks nothing up. 53200.
pub fn store_connection(database: u32, role: u32, encoding: i32, work: Work) -> Result<(Owned, WorkerKey)> {
    let head = Head {
        key: WorkerKey {
            database,
            role,
            connection_version: if settings::worker_idle_timeout() > 0 {
                WorkerKey::JUDGED_BY_THE_WORKER
            } else {
                0
            },
            custom: 0,
        },
        ..Head::of(Origin::Connection, encoding, work)
    };
    let settings = Sent {
        state: &[],
        mark: 0,
        digest: Digest::NONE,
    };
    store_with(head, None, settings, &Errand::default(), &[0])
}

/// Settings that go along with a job.
struct Sent<'a> {
    state: &'a [u8],
    /// What is known of them, as [`apply::Settings`] tells it.
    mark: u64,
    digest: Digest,
}

impl Head {
    /// What does not depend on the state.
    fn of(origin: Origin, encoding: i32, work: Work) -> Self {
        Self {
            key: WorkerKey::ANY,
            identity: Identity::default(),
            material: 0,
            idle_timeout: settings::worker_idle_timeout(),
            max_idle: settings::max_idle_workers(),
            session: backend::my_pid(),
            origin,
            work,
            encoding,
            settings_mark: 0,
            settings_len: 0,
            parameters_len: 0,
            errand_len: 0,
            errand_rows: -1,
            errand_is_task: false,
        }
    }
}

fn store_with(
    head: Head,
    parameters: Option<&Outgoing>,
    settings: Sent,
    errand: &Errand,
    libraries: &[u8],
) -> Result<(Owned, WorkerKey)> {
    let parameters_len = parameters.map_or(0, |parameters| padded(parameters.len()));
    let owned = Owned::new(shmem::allocate(
        HEAD as usize + padded(settings.state.len()) + parameters_len + padded(errand.settings.len()) + libraries.len(),
    )?);
    let pointer = owned.pointer();
    let head = Head {
        material: settings.digest.material,
        settings_mark: settings.mark,
        settings_len: settings.state.len() as u64,
        parameters_len: parameters_len as u64,
        errand_len: errand.settings.len() as u64,
        errand_rows: errand.rows.map_or(-1, |most| most as i64),
        errand_is_task: errand.is_task,
        ..head
    };
    shmem::put(pointer, head);
    let request = Request::at(pointer);
    shmem::write(request.settings_at(), settings.state);
    if let Some(parameters) = parameters {
        parameters.write(shmem::address(request.parameters_at()))?;
    }
    shmem::write(request.errand_at(), errand.settings);
    shmem::write(request.libraries_at(), libraries);
    Ok((owned, head.key))
}

impl Request {
    /// Maps and returns the request at this pointer, which another process stored. Raises the system's own error if it cannot be mapped.
    pub fn mapped(pointer: DsaPointer) -> Result<Self> {
        shmem::map(pointer)?;
        Ok(Self::at(pointer))
    }

    /// The request at this pointer, which this process has mapped.
    fn at(pointer: DsaPointer) -> Self {
        Self {
            pointer,
            head: shmem::at(pointer),
        }
    }

    fn settings_at(&self) -> DsaPointer {
        self.pointer + HEAD
    }

    fn parameters_at(&self) -> DsaPointer {
        self.settings_at() + padded(self.head.settings_len as usize) as u64
    }

    fn errand_at(&self) -> DsaPointer {
        self.parameters_at() + self.head.parameters_len
    }

    fn libraries_at(&self) -> DsaPointer {
        self.errand_at() + padded(self.head.errand_len as usize) as u64
    }

    /// The database to connect to and the role to connect as.
    pub fn connection(&self) -> (u32, u32) {
        (self.head.key.database, self.head.key.role)
    }

    /// The worker key of the job.
    pub fn key(&self) -> WorkerKey {
        self.head.key
    }

    /// How long the worker may wait for another job, in milliseconds.
    pub fn idle_timeout(&self) -> i32 {
        self.head.idle_timeout
    }

    /// How many idle workers the cluster may have.
    pub fn max_idle(&self) -> i32 {
        self.head.max_idle
    }

    /// The process that ordered the job.
    pub fn session(&self) -> i32 {
        self.head.session
    }

    /// Whose jobs a worker serves that has begun with this one.
    pub fn kind(&self) -> Kind {
        match self.head.origin {
            Origin::Elsewhere => Kind::Elsewhere,
            Origin::Session | Origin::Connection => Kind::Own,
        }
    }

    /// Whether the job's state is that of a connection which nobody holds.
    pub fn is_connection(&self) -> bool {
        self.head.origin == Origin::Connection
    }

    /// What the engine does in the job's transaction.
    pub fn work(&self) -> Work {
        self.head.work
    }

    /// The settings that come along, serialized.
    fn settings(&self) -> &'static [u8] {
        shmem::bytes(self.settings_at(), self.head.settings_len as usize)
    }

    /// How many bytes of JSON the job's rows may have, if it sends that instead of them.
    pub fn errand_rows(&self) -> Option<usize> {
        usize::try_from(self.head.errand_rows).ok()
    }

    /// The encoding of the session's database, if the job runs in another database.
    pub fn home(&self) -> Option<i32> {
        (self.head.origin == Origin::Elsewhere).then_some(self.head.encoding)
    }

    /// Puts this worker into the job's state, and tells who the job acts as.
    pub fn adopt(&self, raw: Raw<'_>, application_name: &CStr) -> Identity {
        let identity = &self.head.identity;
        match self.head.origin {
            Origin::Session => {
                let libraries = shmem::address(self.libraries_at());
                let settings = (self.settings(), self.head.settings_mark, self.head.material);
                adopt::adopt(raw, identity, settings, libraries, application_name);
                *identity
            }
            Origin::Elsewhere => {
                let limits = (self.settings(), self.head.material);
                adopt::adopt_limits(raw, identity, limits, application_name);
                *identity
            }
            Origin::Connection => adopt::adopt_connection(raw, application_name),
        }
    }

    /// Copies the SQL, the parameters and the errand for as long as the job runs. `records` must outlive the call. Call it outside of a
    /// transaction.
    pub fn take(&self, raw: Raw<'_>, sql: &'static CStr, records: &mut Numbers) -> Taken {
        let len = self.head.parameters_len as usize;
        let settings = shmem::bytes(self.errand_at(), self.head.errand_len as usize);
        let mut taken = Taken {
            sql,
            parameters: None,
            errand: Errand {
                settings: &[],
                rows: self.errand_rows(),
                is_task: self.head.errand_is_task,
            },
        };
        let converts = encoding::differ(self.head.encoding, encoding::of_database());
        if len == 0 && settings.is_empty() && !converts {
            return taken;
        }
        simple_query::in_message_context(raw, || {
            records.texts_come_in(self.head.encoding);
            taken.sql = encoding::c_string(raw, sql, self.head.encoding);
            taken.parameters =
                (len > 0).then(|| Parameters::take(raw, shmem::address(self.parameters_at()), len, records));
            taken.errand.settings = encoding::c_strings(raw, settings, self.head.encoding);
            taken
        })
    }
}

/// What a worker runs.
#[derive(Clone, Copy)]
pub struct Taken {
    pub sql: &'static CStr,
    pub parameters: Option<Parameters>,
    pub errand: Errand<'static>,
}
