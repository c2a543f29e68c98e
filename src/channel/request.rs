//! The request: what a worker needs before it runs the SQL. That is the connection, the identity, the session's settings and the
//! parameters.

use crate::pg::catalog::database::Database;
use crate::pg::error::Result;
use crate::pg::guc::apply;
use crate::pg::memory::padded;
use crate::pg::process::backend;
use crate::pg::process::identity::Identity;
use crate::pg::query::simple_query;
use crate::pg::raw::Raw;
use crate::pg::reuse::adopt;
use crate::pg::reuse::standing::{self, Kind};
use crate::pg::shmem::{self, Offset, Owned};
use crate::pg::value::describe::Numbers;
use crate::pg::value::encoding;
use crate::pg::value::params::{Outgoing, Parameters};
use crate::registry::pool::Fit;
use crate::settings;
use core::ffi::CStr;

/// The head of a request. Settings, parameters and libraries follow.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    fit: Fit,
    /// The identity that the job acts with.
    identity: Identity,
    /// The number of the settings that compiled or planned objects may depend on.
    material: u64,
    /// The session's `pg_background.worker_idle_timeout` and `pg_background.max_idle_workers`.
    idle_timeout: i32,
    max_idle: i32,
    /// The pid of the session.
    session: i32,
    /// Whether the job runs in another database than the session's database.
    is_elsewhere: bool,
    /// The encoding of the session's database.
    encoding: i32,
    /// A number that is unique to these settings, or 0 if they were made for this job alone.
    settings_mark: u64,
    settings_len: u64,
    /// 0 if there are no parameters.
    parameters_len: u64,
}

/// Bytes of the head. What follows is aligned.
const HEAD: u64 = padded(size_of::<Head>()) as u64;

/// A request as the worker sees it.
pub struct Request {
    place: Offset,
    head: &'static Head,
}

/// Stores in the shared area what a job in `database` needs of this session. For the session's database that is all settings; for an other
/// database it is the limits that the session has set itself. Also returns the worker key of the job. Raises 53200 if memory is out.
pub fn store(identity: Identity, database: &Database, parameters: Option<&Outgoing>) -> Result<(Owned, Fit)> {
    if database.is_other {
        let limits = apply::explicit_limits()?;
        let settings = Sent {
            state: &limits,
            mark: 0,
            custom: 0,
            material: 1,
        };
        return store_with(identity, database, parameters, settings, &[0]);
    }
    apply::with_settings(|settings| {
        let libraries = settings.libraries();
        let settings = Sent {
            state: settings.bytes(),
            mark: settings.mark(),
            custom: settings.mark_of_custom(),
            material: settings.mark_of_material(),
        };
        store_with(identity, database, parameters, settings, &libraries)
    })
}

/// The settings to send with a job.
struct Sent<'a> {
    state: &'a [u8],
    /// The numbers of [`apply::Settings`].
    mark: u64,
    custom: u64,
    material: u64,
}

fn store_with(
    identity: Identity,
    database: &Database,
    parameters: Option<&Outgoing>,
    settings: Sent,
    libraries: &[u8],
) -> Result<(Owned, Fit)> {
    let parameters_len = parameters.map_or(0, |parameters| padded(parameters.len()));
    let owned = Owned::new(shmem::allocate(
        HEAD as usize + padded(settings.state.len()) + parameters_len + libraries.len(),
    )?);
    let place = owned.place();
    let idle_timeout = settings::worker_idle_timeout();
    let kind = kind(database.is_other);
    let fit = Fit {
        database: database.oid,
        role: identity.authenticated,
        standing: if idle_timeout > 0 {
            standing::of(database.oid, identity.authenticated, kind)
        } else {
            0
        },
        custom: settings.custom,
    };
    let head = Head {
        fit,
        identity,
        material: settings.material,
        idle_timeout,
        max_idle: settings::max_idle_workers(),
        session: backend::my_pid(),
        is_elsewhere: database.is_other,
        encoding: encoding::of_database(),
        settings_mark: settings.mark,
        settings_len: settings.state.len() as u64,
        parameters_len: parameters_len as u64,
    };
    shmem::put(place, head);
    let request = Request::at(place);
    shmem::write(request.settings_at(), settings.state);
    if let Some(parameters) = parameters {
        parameters.write(shmem::address(request.parameters_at()))?;
    }
    shmem::write(request.libraries_at(), libraries);
    Ok((owned, fit))
}

fn kind(is_elsewhere: bool) -> Kind {
    if is_elsewhere { Kind::Elsewhere } else { Kind::Own }
}

impl Request {
    /// Maps and returns the request at this pointer, which another process stored. Raises the system's own error if it cannot be mapped.
    pub fn mapped(place: Offset) -> Result<Self> {
        shmem::map(place)?;
        Ok(Self::at(place))
    }

    /// The request at this pointer, which this process has mapped.
    fn at(place: Offset) -> Self {
        Self {
            place,
            head: shmem::at(place),
        }
    }

    fn settings_at(&self) -> Offset {
        self.place + HEAD
    }

    fn parameters_at(&self) -> Offset {
        self.settings_at() + padded(self.head.settings_len as usize) as u64
    }

    fn libraries_at(&self) -> Offset {
        self.parameters_at() + self.head.parameters_len
    }

    /// The database to connect to and the role to connect as.
    pub fn connection(&self) -> (u32, u32) {
        (self.head.fit.database, self.head.fit.role)
    }

    /// The worker key of the job.
    pub fn fit(&self) -> Fit {
        self.head.fit
    }

    /// How long the worker may wait for another job, in milliseconds.
    pub fn idle_timeout(&self) -> i32 {
        self.head.idle_timeout
    }

    /// How many idle workers the cluster may have.
    pub fn max_idle(&self) -> i32 {
        self.head.max_idle
    }

    /// The pid of the session that launched the job.
    pub fn session(&self) -> i32 {
        self.head.session
    }

    /// Which jobs a worker that has run this one may serve.
    pub fn kind(&self) -> Kind {
        kind(self.head.is_elsewhere)
    }

    /// The identity that the job acts with.
    pub fn identity(&self) -> Identity {
        self.head.identity
    }

    /// The serialized settings.
    pub fn settings(&self) -> &'static [u8] {
        shmem::bytes(self.settings_at(), self.head.settings_len as usize)
    }

    /// The encoding of the session's database, if the job runs in another database.
    pub fn home(&self) -> Option<i32> {
        self.head.is_elsewhere.then_some(self.head.encoding)
    }

    /// Adopts the session's state in this worker.
    pub fn adopt(&self, raw: Raw<'_>, application_name: &CStr) {
        let libraries = shmem::address(self.libraries_at());
        if self.head.is_elsewhere {
            let limits = (self.settings(), self.head.material);
            adopt::adopt_limits(raw, &self.head.identity, limits, application_name);
        } else {
            let settings = (self.settings(), self.head.settings_mark, self.head.material);
            adopt::adopt(raw, &self.head.identity, settings, libraries, application_name);
        }
    }

    /// Copies the SQL and the parameters for as long as the job runs. `records` must outlive the call. Call it outside of a transaction.
    pub fn take(&self, raw: Raw<'_>, sql: &'static CStr, records: &mut Numbers) -> (&'static CStr, Option<Parameters>) {
        let len = self.head.parameters_len as usize;
        let converts = encoding::differ(self.head.encoding, encoding::of_database());
        if len == 0 && !converts {
            return (sql, None);
        }
        simple_query::in_message_context(raw, || {
            records.texts_come_in(self.head.encoding);
            let sql = encoding::c_string(raw, sql, self.head.encoding);
            let parameters =
                (len > 0).then(|| Parameters::take(raw, shmem::address(self.parameters_at()), len, records));
            (sql, parameters)
        })
    }
}
