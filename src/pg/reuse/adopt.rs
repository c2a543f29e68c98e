//! Adoption of the state of the session whose job a worker runs, and the return to the state in which the worker connected.
//!
//! Three serialized states of the settings decide what to do: the one that this process connected with (`base`), the last session's
//! (`theirs`), and the result of applying that here (`own`). While jobs change nothing and each comes with the same state as the one
//! before, nothing is done. Changes that a job made are undone by returning to `base`. The bytes then show whether that succeeded.

use crate::pg::catalog::database;
use crate::pg::compat;
use crate::pg::exclusive::Exclusive;
use crate::pg::guc::apply::{self, Digest};
use crate::pg::guc::serialized::{self, Entries, Entry};
use crate::pg::guc::unchanged::Written;
use crate::pg::memory::{self, Buffer};
use crate::pg::process::identity::{self, Identity, assume_user};
use crate::pg::query::parse_cache;
use crate::pg::raw::{self, Raw};
use crate::pg::reuse::compiled;
use crate::pg::reuse::library::{self, files};
use core::ffi::CStr;
use pgrx::pg_sys::{self, GucContext, GucSource};

struct SessionState {
    base: Buffer,
    /// Who this process acted as when it had connected: the role's and the database's settings may have set another role.
    base_identity: Identity,
    /// What the settings in `base` stand for.
    base_digest: Digest,
    theirs: Buffer,
    /// The number that the session has given its settings, or 0 for none.
    theirs_mark: u64,
    own: Written,
    /// What is compared with `own` if the quick check does not decide.
    now: Written,
    scratch: Buffer,
    identity: Identity,
    /// The roles, and the number of the settings, under which the catalog caches were filled.
    filled_under: Option<(Identity, u64)>,
    /// The number of settings, including placeholders for unknown ones.
    settings: usize,
    /// The libraries that were loaded when this process had connected.
    first: Buffer,
    /// The libraries that were loaded when they were last checked one by one, and found harmless.
    harmless: Buffer,
}

static STATE: Exclusive<SessionState> = Exclusive::new();

/// PostgreSQL's own libraries that keep nothing of one job for the next, or only what is undone here. Who loaded them makes no difference.
/// Any other library may keep connections, interpreters or prepared plans.
const HARMLESS: &[&str] = &[
    "_int",
    "amcheck",
    "autoinc",
    "bloom",
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "cyrillic_and_mic",
    "dict_int",
    "dict_snowball",
    "dict_xsyn",
    "earthdistance",
    "euc2004_sjis2004",
    "euc_cn_and_mic",
    "euc_jp_and_sjis",
    "euc_kr_and_mic",
    "euc_tw_and_big5",
    "file_fdw",
    "fuzzystrmatch",
    "hstore",
    "insert_username",
    "latin2_and_win1250",
    "latin_and_mic",
    "libpqwalreceiver",
    "llvmjit",
    "lo",
    "ltree",
    "moddatetime",
    "pageinspect",
    "pg_background",
    "pg_buffercache",
    "pg_freespacemap",
    "pg_prewarm",
    "pg_stat_statements",
    "pg_trgm",
    "pg_visibility",
    "pg_walinspect",
    "pgcrypto",
    "pgrowlocks",
    "pgstattuple",
    "pgxml",
    "plpgsql",
    "seg",
    "tablefunc",
    "tcn",
    "tsm_system_rows",
    "tsm_system_time",
    "unaccent",
    "utf8_and_big5",
    "utf8_and_cyrillic",
    "utf8_and_euc2004",
    "utf8_and_euc_cn",
    "utf8_and_euc_jp",
    "utf8_and_euc_kr",
    "utf8_and_euc_tw",
    "utf8_and_gb18030",
    "utf8_and_gbk",
    "utf8_and_iso8859",
    "utf8_and_iso8859_1",
    "utf8_and_johab",
    "utf8_and_sjis",
    "utf8_and_sjis2004",
    "utf8_and_uhc",
    "utf8_and_win",
    "uuid-ossp",
];

/// As [`HARMLESS`], but their presence changes behaviour. So they are harmless only if a new connection has them too.
const HARMLESS_FROM_THE_START: &[&str] = &["auth_delay", "auto_explain", "basic_archive", "passwordcheck"];

/// Puts this process into the state of `identity`'s session: libraries, settings, roles. Before the first job it also loads what a new
/// connection loads.
///
/// This runs in transactions of its own. Values are checked there as in a parallel worker: what was valid in the session is valid here. The
/// settings come with a number that is unique to them, or 0 (`mark`), and with a number for those of them that compiled or planned objects
/// may depend on (`material`).
pub fn adopt(
    raw: Raw<'_>,
    identity: &Identity,
    (settings, mark, material): (&[u8], u64, u64),
    libraries: *mut u8,
    application_name: &CStr,
) {
    connected(raw);
    if STATE.with(|state| state.is_of(identity, settings, mark)) == Some(true) {
        return rename(raw, application_name);
    }
    parse_cache::forget(raw);
    let before = STATE.with(|state| state.filled_under.replace((*identity, material)));
    if before.flatten().is_some_and(|before| before != (*identity, material)) {
        compiled::empty_caches(raw);
    }
    let finish = || {
        set_name(raw, application_name);
        compat::stop_transaction_timer();
        STATE.with(|state| state.remember(raw, identity, settings, mark));
    };
    transaction(raw, || {
        STATE.with(|state| state.reach(raw, identity, settings, libraries));
        if !apply::is_anything_left_out() {
            finish();
        }
    });
    if apply::is_anything_left_out() {
        STATE.with(|state| apply::set_left_out(raw, settings, &mut state.scratch));
        transaction(raw, finish);
    }
}

/// The identity of the job that this process runs, if it is known.
pub fn identity() -> Option<Identity> {
    STATE.with(|state| state.identity)
}

/// As [`adopt`], for a job from another database. The state is that in which this process connected, with the limits that the session has
/// set itself. Raises 42501 if the role may not connect to this database.
pub fn adopt_limits(raw: Raw<'_>, identity: &Identity, (limits, material): (&[u8], u64), application_name: &CStr) {
    connected(raw);
    let settings = STATE.with(|state| apply::with_limits(raw, state.base.bytes(), limits));
    transaction(raw, || database::check_connect_raw(raw, identity.current));
    if let Some(settings) = settings {
        adopt(
            raw,
            identity,
            (settings.bytes(), 0, material),
            c"".as_ptr().cast_mut().cast(),
            application_name,
        );
    }
}

/// [`adopt`] with the state in which this process connected, in full, but as the role that it has connected as: the settings of that role, or of the
/// database, may say `role`, and what comes without a session is that role's own. Tells who that acts as. 42501 where a used process finds that its
/// role may not connect to this database any more; a new one has just asked.
pub fn adopt_connection(raw: Raw<'_>, application_name: &CStr) -> Identity {
    let is_used = STATE.with(|_| ()).is_some();
    connected(raw);
    if is_used {
        // SAFETY: a plain read.
        let role = unsafe { raw::GetAuthenticatedUserId() };
        transaction(raw, || database::check_connect_raw(raw, role.to_u32()));
    }
    if let Some(Some(identity)) = STATE.with(|state| state.as_connected()) {
        rename(raw, application_name);
        return identity;
    }
    let found = STATE.with(|state| {
        // A copy without `role`: what is there is replaced meanwhile.
        let settings = apply::with_limits(raw, state.base.bytes(), &[]);
        (state.base_identity.without_role(), settings, state.base_digest.material)
    });
    let Some((identity, settings, material)) = found else {
        return Identity::default();
    };
    let libraries = c"".as_ptr().cast_mut().cast();
    adopt(
        raw,
        &identity,
        (settings.bytes(), 0, material),
        libraries,
        application_name,
    );
    identity
}

/// A number that stands for the settings which the state has in which this process connected, and which it can never be without again:
/// a new connection has them, too.
pub fn custom_of_base() -> u64 {
    STATE.with(|state| state.base_digest.custom).unwrap_or(0)
}

/// Before the first job loads what a new connection loads, and remembers the state.
fn connected(raw: Raw<'_>) {
    STATE.recover();
    if STATE.with(|_| ()).is_none() {
        transaction(raw, || {
            // SAFETY: as InitPostgres is followed by it in a backend.
            unsafe { raw::process_session_preload_libraries(raw) };
            STATE.set(SessionState::found(raw));
        });
    }
}

/// Undoes what a job did to settings and roles. Returns false if that cannot be shown to have succeeded, or if the job left something that
/// cannot be undone: a setting that no library defines, or a library that may keep state.
///
/// `is_stateless` tells by name which libraries keep no state, in addition to PostgreSQL's own.
pub fn restore(raw: Raw<'_>, is_stateless: fn(&[u8]) -> bool) -> bool {
    STATE.recover();
    STATE
        .with(|state| {
            if !state.only_harmless_libraries(raw, is_stateless)
                || !state.no_new_placeholders(raw)
                || !compiled::forget_plans(raw)
            {
                return false;
            }
            if state.is_unchanged(raw) {
                return true;
            }
            if !serialized::same_but(state.own.bytes(), state.now.bytes(), |entry| entry.is_immaterial()) {
                compiled::empty_caches(raw);
            }
            transaction(raw, || state.go_back(raw));
            serialized::write(raw, &mut state.scratch);
            // An undefined setting stays known when it is emptied. Those that remain here came with a session's state.
            serialized::same_but(state.scratch.bytes(), state.base.bytes(), |entry| entry.is_emptied())
        })
        .unwrap_or(false)
}

impl SessionState {
    /// The state of this process, which has just connected.
    fn found(raw: Raw<'_>) -> Self {
        memory::for_process(|| {
            let mut state = Self {
                base: Buffer::new(raw, 4096),
                base_identity: identity::of_connection(raw),
                base_digest: Digest::NONE,
                theirs: Buffer::new(raw, 4096),
                theirs_mark: 0,
                own: Written::nothing(Buffer::new(raw, 4096)),
                now: Written::nothing(Buffer::new(raw, 4096)),
                scratch: Buffer::new(raw, 4096),
                identity: Identity::default(),
                filled_under: None,
                settings: compat::settings_number(raw),
                first: Buffer::new(raw, 256),
                harmless: Buffer::new(raw, 256),
            };
            take_libraries(raw, &mut state.first);
            serialized::write(raw, &mut state.base);
            state.base_digest = Digest::of(state.base.bytes());
            state
        })
    }

    /// Reaches the state of a session, by the differences if possible, else from `base`.
    fn reach(&mut self, raw: Raw<'_>, identity: &Identity, settings: &[u8], libraries: *mut u8) {
        // SAFETY: the libraries are in the form that SerializeLibraryState writes, empty or not.
        unsafe {
            if *libraries != 0 {
                raw::RestoreLibraryState(raw, libraries.cast());
            }
            pg_sys::InitializingParallelWorker = true;
        }
        let same = self.identity == *identity;
        let warm = same && !self.theirs.is_empty();
        let (before, own, base) = (self.theirs.bytes(), self.own.bytes(), self.base.bytes());
        let steps = warm && apply::same_below(settings, before);
        if !(steps && apply::step(raw, settings, before, own, base, APPLICATION_NAME)) {
            if !self.own.is_empty() {
                self.go_back(raw);
            }
            // What a new connection gets is there already.
            if *identity != self.base_identity || settings != self.base.bytes() {
                assume_user(raw, identity);
                if let Some(reset_values) = apply::adopt_settings(raw, settings, self.base.bytes()) {
                    assume_user(raw, &self.connected(raw));
                    reset_values.put_back(raw, settings);
                    assume_user(raw, identity);
                }
                if identity.role != 0 {
                    install_role(raw, identity);
                }
                apply::set_below(raw, settings);
            }
        }
        // SAFETY: a plain variable.
        unsafe { pg_sys::InitializingParallelWorker = false };
    }

    /// Whether this process is in the state of that session.
    fn is_of(&mut self, identity: &Identity, settings: &[u8], mark: u64) -> bool {
        if self.identity != *identity || self.theirs.is_empty() {
            return false;
        }
        if self.theirs_mark != mark || mark == 0 {
            if self.theirs.bytes() != settings {
                return false;
            }
            self.theirs_mark = mark;
        }
        true
    }

    /// Who this process acts for, where its state is the one in which it connected.
    fn as_connected(&self) -> Option<Identity> {
        let is_base = self.identity == self.base_identity
            && self.base_identity.role == 0
            && self.theirs.bytes() == self.base.bytes();
        (is_base && !self.theirs.is_empty()).then_some(self.base_identity)
    }

    /// Records the session's state that this process has reached.
    fn remember(&mut self, raw: Raw<'_>, identity: &Identity, settings: &[u8], mark: u64) {
        self.own.write(raw);
        self.identity = *identity;
        memory::for_process(|| self.theirs.restart(raw, settings.len()));
        self.theirs.push(settings.as_ptr(), settings.len());
        self.theirs_mark = mark;
    }

    /// Whether settings and roles are as the job found them.
    fn is_unchanged(&mut self, raw: Raw<'_>) -> bool {
        let (session, role, ..) = identity::acting();
        if (session, role) != (self.identity.session, self.identity.role) {
            return false;
        }
        if self.own.is_current(raw, Some(APPLICATION_NAME)) {
            return true;
        }
        self.now.write(raw);
        let is_name = |entry: &Entry| entry.is(APPLICATION_NAME);
        let same = serialized::same_but(self.own.bytes(), self.now.bytes(), is_name);
        if same {
            // A setting was set and set back, or a library defined one. The next check compares with the present state.
            core::mem::swap(&mut self.own, &mut self.now);
        }
        same
    }

    /// The identity in which this process connected. Call it in a transaction.
    fn connected(&self, raw: Raw<'_>) -> Identity {
        let connected = self.base_identity;
        // SAFETY: a look-up in the catalogs.
        let session_is_superuser = unsafe { raw::superuser_arg(raw, pg_sys::Oid::from(connected.session)) };
        Identity {
            session_is_superuser,
            ..connected
        }
    }

    /// Returns to the state in which this process connected. Call it in a transaction.
    ///
    /// The user comes before the settings, as in ParallelWorkerMain: what RESET SESSION AUTHORIZATION returns to is the user of the moment in
    /// which `session_authorization` is restored. RestoreGUCState has reset the role by then, so both come again, and then what RESET ROLE
    /// returns to.
    fn go_back(&mut self, raw: Raw<'_>) {
        self.theirs.clear();
        // SAFETY: the state was written by SerializeGUCState; numbers and flags of the role that this process authenticated as.
        unsafe {
            pg_sys::InitializingParallelWorker = true;
            let connected = self.connected(raw);
            assume_user(raw, &connected);
            raw::RestoreGUCState(raw, self.base.as_ptr().cast());
            assume_user(raw, &connected);
            apply::set_named(raw, self.base.bytes(), c"role");
            if connected.role != 0 && memory::c_bytes(role_setting(raw)) == b"none" {
                install_role(raw, &connected);
            }
            pg_sys::InitializingParallelWorker = false;
        }
    }

    /// An undefined setting can be emptied, but it stays known. Returns whether all of them came with a session's state.
    fn no_new_placeholders(&mut self, raw: Raw<'_>) -> bool {
        let number = compat::settings_number(raw);
        if number == self.settings {
            return true;
        }
        self.settings = number;
        // SAFETY: the settings live as long as the process.
        unsafe {
            let (settings, len) = compat::all_settings();
            let accounted = (0..len).map(|n| *settings.add(n)).all(|setting| {
                (*setting).flags as u32 & pg_sys::GUC_CUSTOM_PLACEHOLDER == 0
                    || [&self.theirs, &self.base]
                        .iter()
                        .any(|state| Entries::of_bytes(state.bytes()).has(memory::c_bytes((*setting).name)))
            });
            compat::free_settings(raw, settings);
            accounted
        }
    }

    /// Whether all loaded libraries are harmless.
    fn only_harmless_libraries(&mut self, raw: Raw<'_>, is_stateless: fn(&[u8]) -> bool) -> bool {
        // SAFETY: adds up the lengths of their names. Libraries are never unloaded, so more of them take more room.
        if unsafe { raw::EstimateLibraryStateSpace(raw) } == self.harmless.len() {
            return true;
        }
        take_libraries(raw, &mut self.scratch);
        let is_from_the_start = |file| files(self.first.bytes()).any(|first| first == file);
        let are_harmless = files(self.scratch.bytes()).all(|file| {
            is_in(HARMLESS, file)
                || library::is_this(file)
                || is_in(HARMLESS_FROM_THE_START, file) && is_from_the_start(file)
                || library::name(file).is_some_and(is_stateless)
        });
        if are_harmless {
            core::mem::swap(&mut self.harmless, &mut self.scratch);
        }
        are_harmless
    }
}

const APPLICATION_NAME: &CStr = c"application_name";

/// Whether the file is one of these libraries, in PostgreSQL's own library directory.
fn is_in(list: &[&str], file: &[u8]) -> bool {
    let directory = memory::c_bytes((&raw const pg_sys::pkglib_path).cast());
    let rest = file.strip_prefix(directory).and_then(|rest| rest.strip_prefix(b"/"));
    let name = rest
        .and_then(library::name)
        .filter(|_| rest == Some(library::file_name(file)));
    name.is_some_and(|name| list.iter().any(|known| known.as_bytes() == name))
}

/// Writes the files of the libraries that this process has loaded.
fn take_libraries(raw: Raw<'_>, into: &mut Buffer) {
    // SAFETY: there is room for as many bytes as were estimated.
    unsafe {
        let size = raw::EstimateLibraryStateSpace(raw);
        memory::for_process(|| into.restart(raw, size));
        raw::SerializeLibraryState(raw, size, into.as_ptr().cast());
        into.advance(size);
    }
}

fn transaction(raw: Raw<'_>, body: impl FnOnce()) {
    // SAFETY: no transaction runs.
    unsafe {
        raw::StartTransactionCommand(raw);
        compat::stop_transaction_timer();
        body();
        raw::CommitTransactionCommand(raw);
    }
}

/// Sets `role` after the other settings. The return to `base` has reset "role" too, so a new value was installed without a role. This puts
/// the role in force again and installs its value.
fn install_role(raw: Raw<'_>, identity: &Identity) {
    assume_user(raw, identity);
    // SAFETY: the setting exists and has a value; the name of a dropped role is NULL.
    unsafe {
        let mut role = role_setting(raw);
        if memory::c_bytes(role) == b"none" {
            // Minor releases before November 2024 omit it from the serialized state.
            role = raw::GetUserNameFromId(raw, pg_sys::Oid::from(identity.role), false);
        }
        set(raw, c"role", role);
    }
}

/// The value of the setting `role`.
fn role_setting(raw: Raw<'_>) -> *const core::ffi::c_char {
    // SAFETY: the setting exists and has a value.
    unsafe { raw::GetConfigOption(raw, c"role".as_ptr(), false, false) }
}

fn set_name(raw: Raw<'_>, name: &CStr) {
    // SAFETY: NUL-terminated.
    unsafe { set(raw, APPLICATION_NAME, name.as_ptr()) };
}

/// Only updates the name. The state is the right one, but the name may be another job's, and the statistics show an idle process.
fn rename(raw: Raw<'_>, name: &CStr) {
    // SAFETY: the setting exists; both are NUL-terminated.
    unsafe {
        if memory::c_bytes(pg_sys::application_name) == name.to_bytes() {
            raw::pgstat_report_appname(name.as_ptr());
        } else {
            set_name(raw, name);
        }
    }
}

unsafe fn set(raw: Raw<'_>, name: &CStr, value: *const core::ffi::c_char) {
    // SAFETY: both are NUL-terminated (the caller's promise).
    unsafe {
        raw::SetConfigOption(
            raw,
            name.as_ptr(),
            value,
            GucContext::PGC_USERSET,
            GucSource::PGC_S_SESSION,
        );
    }
}
