//! What a worker needs to know before it runs the SQL: who acts, and the session's whole state of settings.

use crate::pg::error::Result;
use crate::pg::proc::{self, Identity};
use crate::pg::shmem::{self, Offset, Owned};
use crate::pg::{adopt, guc_state, standing};
use crate::registry::pool::Fit;
use crate::settings;
use core::ffi::CStr;

/// The head of a request; settings and libraries follow.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    fit: Fit,
    /// `pg_background.worker_idle_timeout` and `pg_background.max_idle_workers` of the session.
    idle_timeout: i32,
    max_idle: i32,
    /// The session's process.
    session: i32,
    identity: Identity,
    settings_len: u64,
}

/// Bytes of the head; what follows is aligned.
const HEAD: u64 = (size_of::<Head>() as u64 + 7) & !7;

/// A request as its worker sees it.
pub struct Request {
    place: Offset,
    head: &'static Head,
}

/// Puts this session's state into the shared area, and tells which workers fit it. 53200 where memory is out.
pub fn store(identity: Identity) -> Result<(Owned, Fit)> {
    let settings = (guc_state::settings_size() + 7) & !7;
    let libraries = guc_state::libraries_with_settings();
    let owned = Owned::new(shmem::allocate(HEAD as usize + settings + libraries.len())?);
    let place = owned.place();
    guc_state::serialize_settings(shmem::address(place + HEAD), settings);
    shmem::write(place + HEAD + settings as u64, &libraries);
    let database = proc::my_database().to_u32();
    let idle_timeout = settings::worker_idle_timeout();
    let fit = Fit {
        database,
        role: identity.authenticated,
        standing: if idle_timeout > 0 {
            standing::of(database, identity.authenticated)
        } else {
            0
        },
        settings: guc_state::mark_of_custom(shmem::bytes(place + HEAD, settings)),
    };
    let head = Head {
        fit,
        idle_timeout,
        max_idle: settings::max_idle_workers(),
        session: proc::my_pid(),
        identity,
        settings_len: settings as u64,
    };
    shmem::put(place, head);
    Ok((owned, fit))
}

impl Request {
    /// The request at `place`.
    pub fn at(place: Offset) -> Self {
        Self {
            place,
            head: shmem::at(place),
        }
    }

    /// The database to connect to and the role to connect as.
    pub fn connection(&self) -> (u32, u32) {
        (self.head.fit.database, self.head.fit.role)
    }

    /// Which workers fit the job.
    pub fn fit(&self) -> Fit {
        self.head.fit
    }

    /// How long the worker may wait for another job, in milliseconds.
    pub fn idle_timeout(&self) -> i32 {
        self.head.idle_timeout
    }

    /// How many workers of the cluster may wait.
    pub fn max_idle(&self) -> i32 {
        self.head.max_idle
    }

    /// The session that launched the job.
    pub fn session(&self) -> i32 {
        self.head.session
    }

    /// Who the job acts as.
    pub fn identity(&self) -> Identity {
        self.head.identity
    }

    /// The session's settings, serialized.
    pub fn settings(&self) -> &'static [u8] {
        shmem::bytes(self.place + HEAD, self.head.settings_len as usize)
    }

    /// Puts this worker into the session's state. Raw.
    pub fn adopt(&self, application_name: &CStr) {
        let libraries = shmem::address(self.place + HEAD + self.head.settings_len);
        adopt::adopt(&self.head.identity, self.settings(), libraries, application_name);
    }
}
