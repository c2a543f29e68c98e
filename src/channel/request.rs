//! What a worker needs to know before it runs the SQL: who acts, and the session's whole state of settings.

use crate::pg::error::Result;
use crate::pg::guc_state;
use crate::pg::proc::{self, Identity};
use crate::pg::shmem::{self, Offset, Owned};
use core::ffi::CStr;

/// The head of a request; settings and libraries follow.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    database: u32,
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

/// Puts this session's state into the shared area. 53200 where memory is out.
pub fn store(identity: Identity) -> Result<Owned> {
    let settings = (guc_state::settings_size() + 7) & !7;
    let libraries = guc_state::libraries_with_settings();
    let owned = Owned::new(shmem::allocate(HEAD as usize + settings + libraries.len())?);
    let place = owned.place();
    let head = Head {
        database: proc::my_database().to_u32(),
        identity,
        settings_len: settings as u64,
    };
    shmem::put(place, head);
    guc_state::serialize_settings(shmem::address(place + HEAD), settings);
    shmem::write(place + HEAD + settings as u64, &libraries);
    Ok(owned)
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
        (self.head.database, self.head.identity.authenticated)
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
        let settings = shmem::address(self.place + HEAD);
        let libraries = shmem::address(self.place + HEAD + self.head.settings_len);
        proc::adopt_state(&self.head.identity, settings, libraries, application_name);
    }
}
