//! The differences between server versions, and constants that the bindings lack.

use crate::pg::raw::{self, Raw, may_raise};
use core::cell::Cell;
use core::ffi::{CStr, c_char, c_int, c_void};
use pgrx::pg_sys::{self, BufFile, CommandDest, DestReceiver, LWLock, List, Portal, QueryCompletion, RawStmt};

/// `STATEMENT_TIMEOUT` of `utils/timeout.h`.
pub const STATEMENT_TIMEOUT: u32 = 3;

/// `TRANSACTION_TIMEOUT` of `utils/timeout.h`.
#[cfg(since_17)]
const TRANSACTION_TIMEOUT: u32 = 8;

/// At or above `USER_TIMEOUT` of `utils/timeout.h` in every supported version: RegisterTimeout then takes the first free one.
pub const USER_TIMEOUT: u32 = 13;

/// The lock for initializing an extension's part of the main shared memory.
pub fn addin_shmem_init_lock() -> *mut LWLock {
    /// The index of `AddinShmemInitLock` of `storage/lwlock.h` among the individual locks. It is the same in every supported version.
    const ADDIN_SHMEM_INIT_LOCK: usize = 21;
    // SAFETY: MainLWLockArray holds all individual locks and is set before any extension is loaded in a backend.
    unsafe { &raw mut (*pg_sys::MainLWLockArray.add(ADDIN_SHMEM_INIT_LOCK)).lock }
}

/// `DSA_DEFAULT_INIT_SEGMENT_SIZE` of `utils/dsa.h`, where dsa_create is a macro.
#[cfg(since_17)]
const DSA_INIT_SEGMENT_SIZE: usize = 1024 * 1024;
/// `DSA_MAX_SEGMENT_SIZE` of `utils/dsa.h`.
#[cfg(since_17)]
const DSA_MAX_SEGMENT_SIZE: usize = 1 << 40;

/// Requests `size` bytes more of the main shared memory. Call it while libraries are preloaded.
pub fn request_shared_memory(size: usize) {
    // SAFETY: called in the postmaster, which has not made it yet.
    #[cfg(not(since_15))]
    unsafe {
        raw::RequestAddinShmemSpace(Raw::assume(), size);
    }
    #[cfg(since_15)]
    {
        thread_local! {
            static SIZE: Cell<usize> = const { Cell::new(0) };
            static NEXT: Cell<pg_sys::shmem_request_hook_type> = const { Cell::new(None) };
        }
        unsafe extern "C-unwind" fn request() {
            // SAFETY: the postmaster calls this when it may be asked; the previous hook is called too. Nothing is owned here.
            unsafe {
                let raw = Raw::assume();
                if let Some(next) = NEXT.get() {
                    next();
                }
                raw::RequestAddinShmemSpace(raw, SIZE.get());
            }
        }
        SIZE.set(size);
        // SAFETY: the hook is called in this thread.
        unsafe {
            NEXT.set(pg_sys::shmem_request_hook);
            pg_sys::shmem_request_hook = Some(request);
        }
    }
}

/// Makes a tranche of lightweight locks, whose id is never 0. Guarded: from version 19 on there can be too many.
pub fn new_tranche(name: &'static CStr) -> c_int {
    // SAFETY: only takes a number from shared memory.
    #[cfg(not(since_19))]
    unsafe {
        let _ = name;
        pg_sys::LWLockNewTrancheId()
    }
    // SAFETY: as above; the name is copied there.
    #[cfg(since_19)]
    unsafe {
        pg_sys::LWLockNewTrancheId(name.as_ptr())
    }
}

/// Names the tranche in this process. From version 19 on the name is known already.
pub fn name_tranche(tranche: c_int, name: &'static CStr) {
    // SAFETY: the tranche exists and the name is static.
    #[cfg(not(since_19))]
    unsafe {
        pg_sys::LWLockRegisterTranche(tranche, name.as_ptr());
    }
    #[cfg(since_19)]
    {
        let _ = (tranche, name);
    }
}

/// The resource owner while a segment of the area is mapped.
///
/// If the system refuses to map a segment that has been attached, the attachment stays with the current owner, and while that owner has it
/// every other attempt fails, too. From version 17 on the area uses its own owner, which is none.
#[derive(Clone, Copy)]
pub struct SegmentOwner {
    before: pg_sys::ResourceOwner,
}

#[cfg(not(since_17))]
thread_local! {
    static SEGMENT_OWNER: Cell<pg_sys::ResourceOwner> = const { Cell::new(core::ptr::null_mut()) };
}

impl SegmentOwner {
    /// Makes the owner. Called once per process. Guarded.
    pub fn prepare() {
        // SAFETY: the owner has no parent, so nothing else releases it.
        #[cfg(not(since_17))]
        SEGMENT_OWNER
            .set(unsafe { pg_sys::ResourceOwnerCreate(core::ptr::null_mut(), c"pg_background segments".as_ptr()) });
    }

    /// Makes it the current owner.
    pub fn enter() -> Self {
        // SAFETY: the owner lives as long as the process.
        #[cfg(not(since_17))]
        unsafe {
            let before = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = SEGMENT_OWNER.get();
            Self { before }
        }
        // SAFETY: a plain read. PostgreSQL sets the owner itself while it attaches, and an error leaves that one.
        #[cfg(since_17)]
        let before = unsafe { pg_sys::CurrentResourceOwner };
        #[cfg(since_17)]
        Self { before }
    }

    /// Restores the previous owner. A segment that was mapped has no owner, and stays. If the mapping has `failed`, the attachment is
    /// released.
    pub fn leave(self, failed: bool) {
        // SAFETY: all that the owner may have is the attachment that has failed.
        #[cfg(not(since_17))]
        unsafe {
            if failed {
                let phase = pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_BEFORE_LOCKS;
                pg_sys::ResourceOwnerRelease(SEGMENT_OWNER.get(), phase, false, false);
            }
            pg_sys::CurrentResourceOwner = self.before;
        }
        // SAFETY: the owner was current before.
        #[cfg(since_17)]
        unsafe {
            let _ = failed;
            pg_sys::CurrentResourceOwner = self.before;
        }
    }
}

/// Makes a dynamic shared area. Guarded.
pub fn dsa_create(tranche: c_int) -> *mut pg_sys::dsa_area {
    // SAFETY: the tranche exists.
    #[cfg(not(since_17))]
    unsafe {
        pg_sys::dsa_create(tranche)
    }
    // SAFETY: the tranche exists; the sizes are those of the macro dsa_create.
    #[cfg(since_17)]
    unsafe {
        pg_sys::dsa_create_ext(tranche, DSA_INIT_SEGMENT_SIZE, DSA_MAX_SEGMENT_SIZE)
    }
}

// mb/pg_wchar.h, utils/guc_tables.h: these raise nothing.
unsafe extern "C-unwind" {
    // From version 17 on the server's own copy has another name than that of libpq.
    #[cfg_attr(since_17, link_name = "pg_encoding_to_char_private")]
    pub fn pg_encoding_to_char(encoding: c_int) -> *const c_char;
    #[cfg(since_16)]
    fn find_option(
        name: *const c_char,
        create_placeholders: bool,
        skip_errors: bool,
        elevel: c_int,
    ) -> *mut pg_sys::config_generic;
}

// tcop/tcopprot.h, parser/parse_node.h, parser/analyze.h, parser/parse_param.h, utils/acl.h, tcop/pquery.h
may_raise! {
    #[cfg(since_15)]
    fn pg_analyze_and_rewrite_fixedparams(
        stmt: *mut RawStmt,
        sql: *const c_char,
        types: *const pg_sys::Oid,
        n: c_int,
        env: *mut pg_sys::QueryEnvironment,
    ) -> *mut List;
    #[cfg(not(since_15))]
    fn pg_analyze_and_rewrite(
        stmt: *mut RawStmt,
        sql: *const c_char,
        types: *mut pg_sys::Oid,
        n: c_int,
        env: *mut pg_sys::QueryEnvironment,
    ) -> *mut List;
    fn make_parsestate(parent: *mut pg_sys::ParseState) -> *mut pg_sys::ParseState;
    fn free_parsestate(state: *mut pg_sys::ParseState);
    fn transformTopLevelStmt(state: *mut pg_sys::ParseState, stmt: *mut RawStmt) -> *mut pg_sys::Query;
    #[cfg(since_15)]
    fn setup_parse_variable_parameters(state: *mut pg_sys::ParseState, types: *mut *mut pg_sys::Oid, count: *mut c_int);
    #[cfg(not(since_15))]
    fn parse_variable_parameters(state: *mut pg_sys::ParseState, types: *mut *mut pg_sys::Oid, count: *mut c_int);
    #[cfg(not(since_16))]
    fn pg_database_aclcheck(database: pg_sys::Oid, role: pg_sys::Oid, mode: pg_sys::AclMode) -> u32;
    #[cfg(since_16)]
    fn object_aclcheck(class: pg_sys::Oid, object: pg_sys::Oid, role: pg_sys::Oid, mode: pg_sys::AclMode) -> u32;
    #[cfg(not(since_18))]
    fn PortalRun(
        portal: Portal,
        count: core::ffi::c_long,
        top: bool,
        once: bool,
        dest: *mut DestReceiver,
        alt: *mut DestReceiver,
        qc: *mut QueryCompletion,
    ) -> bool;
    #[cfg(since_18)]
    fn PortalRun(
        portal: Portal,
        count: core::ffi::c_long,
        top: bool,
        dest: *mut DestReceiver,
        alt: *mut DestReceiver,
        qc: *mut QueryCompletion,
    ) -> bool;
}

/// Analyses and rewrites one statement with `count` parameters of the given types.
///
/// # Safety
/// The tree comes from the parser, `sql` is the text that it was parsed from, and there are `count` types.
pub unsafe fn analyze_and_rewrite(
    raw: Raw<'_>,
    stmt: *mut RawStmt,
    sql: *const c_char,
    types: *mut pg_sys::Oid,
    count: c_int,
) -> *mut List {
    // SAFETY: see above.
    unsafe {
        #[cfg(since_15)]
        return pg_analyze_and_rewrite_fixedparams(raw, stmt, sql, types, count, core::ptr::null_mut());
        #[cfg(not(since_15))]
        return pg_analyze_and_rewrite(raw, stmt, sql, types, count, core::ptr::null_mut());
    }
}

/// Analyses a statement to find the types of its parameters whose type is 0. The type is `unknown` if the statement uses the parameter and
/// does not determine its type. The array grows if the statement names more parameters.
///
/// # Safety
/// As for [`analyze_and_rewrite`]. The array was allocated by PostgreSQL. The tree must not be used afterwards.
pub unsafe fn find_parameter_types(
    raw: Raw<'_>,
    stmt: *mut RawStmt,
    sql: *const c_char,
    types: &mut *mut pg_sys::Oid,
    count: &mut c_int,
) {
    // SAFETY: see above; as parse_analyze_varparams does it, but that it leaves out that all must have been found.
    unsafe {
        let state = make_parsestate(raw, core::ptr::null_mut());
        (*state).p_sourcetext = sql;
        #[cfg(since_15)]
        setup_parse_variable_parameters(raw, state, types, count);
        #[cfg(not(since_15))]
        parse_variable_parameters(raw, state, types, count);
        transformTopLevelStmt(raw, state, stmt);
        free_parsestate(raw, state);
    }
}

/// Whether the role may connect to the database. Guarded.
pub fn may_connect(database: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the catalogs.
    #[cfg(not(since_16))]
    let answer = unsafe { pg_sys::pg_database_aclcheck(database, role, pg_sys::ACL_CONNECT as _) };
    // SAFETY: as above.
    #[cfg(since_16)]
    let answer =
        unsafe { pg_sys::object_aclcheck(pg_sys::DatabaseRelationId, database, role, pg_sys::ACL_CONNECT as _) };
    answer == pg_sys::AclResult::ACLCHECK_OK
}

/// As [`may_connect`], raw.
pub fn may_connect_raw(raw: Raw<'_>, database: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in the catalogs.
    #[cfg(not(since_16))]
    let answer = unsafe { pg_database_aclcheck(raw, database, role, pg_sys::ACL_CONNECT as _) };
    // SAFETY: as above.
    #[cfg(since_16)]
    let answer = unsafe {
        object_aclcheck(
            raw,
            pg_sys::DatabaseRelationId,
            database,
            role,
            pg_sys::ACL_CONNECT as _,
        )
    };
    answer == pg_sys::AclResult::ACLCHECK_OK
}

/// Runs a portal to its end.
///
/// # Safety
/// The portal is started, and the receiver exists.
pub unsafe fn portal_run(
    raw: Raw<'_>,
    portal: Portal,
    top_level: bool,
    dest: *mut DestReceiver,
    qc: *mut QueryCompletion,
) {
    const FETCH_ALL: core::ffi::c_long = core::ffi::c_long::MAX;
    // SAFETY: see above.
    unsafe {
        #[cfg(not(since_18))]
        PortalRun(raw, portal, FETCH_ALL, top_level, true, dest, dest, qc);
        #[cfg(since_18)]
        PortalRun(raw, portal, FETCH_ALL, top_level, dest, dest, qc);
    }
}

/// Temporary files in a directory of their own, which other processes may open (`storage/fileset.h`, `storage/buffile.h`).
#[cfg(since_15)]
pub use pg_sys::FileSet;
#[cfg(not(since_15))]
pub use pg_sys::SharedFileSet as FileSet;

#[cfg(since_15)]
may_raise! {
    fn FileSetDeleteAll(fileset: *mut FileSet);
    fn BufFileCreateFileSet(fileset: *mut FileSet, name: *const c_char) -> *mut BufFile;
    fn BufFileExportFileSet(file: *mut BufFile);
    fn BufFileOpenFileSet(fileset: *mut FileSet, name: *const c_char, mode: c_int, missing_ok: bool) -> *mut BufFile;
    fn BufFileDeleteFileSet(fileset: *mut FileSet, name: *const c_char, missing_ok: bool);
}

// storage/sharedfileset.h
#[cfg(not(since_15))]
may_raise! {
    fn SharedFileSetDelete(fileset: *mut FileSet, name: *const c_char, error_on_failure: bool) -> bool;
    fn SharedFileSetDeleteAll(fileset: *mut FileSet);
    fn BufFileCreateShared(fileset: *mut FileSet, name: *const c_char) -> *mut BufFile;
    fn BufFileExportShared(file: *mut BufFile);
    fn BufFileOpenShared(fileset: *mut FileSet, name: *const c_char, mode: c_int) -> *mut BufFile;
}

/// Makes an empty set with this number. It is not removed when a process exits.
///
/// FileSetInit is not called for it, since that does not work outside of a transaction, where the last messages of a job are stored. There
/// the setting temp_tablespaces cannot be looked up, and the files go to the database's own tablespace. It would also be possible to tell
/// PostgreSQL that no tablespaces are set, but that lasts until the end of the next transaction, which is another job's.
pub fn new_file_set(raw: Raw<'_>, number: u32) -> FileSet {
    // SAFETY: reads of this process's own state. The tablespaces are looked up where they can be, and forgotten at the end of the
    // transaction; there is room for as many as are asked for.
    unsafe {
        let mut set = FileSet {
            creator_pid: pg_sys::MyProcPid,
            number,
            ..FileSet::default()
        };
        #[cfg(not(since_15))]
        {
            set.refcnt = 1;
        }
        let count = if raw::IsTransactionState() {
            raw::PrepareTempTablespaces(raw);
            raw::GetTempTablespaces(raw, set.tablespaces.as_mut_ptr(), set.tablespaces.len() as c_int)
        } else {
            0
        };
        // No tablespace, or an invalid one, stands for the database's own.
        set.ntablespaces = count.max(1);
        for space in &mut set.tablespaces[..set.ntablespaces as usize] {
            if *space == pg_sys::Oid::INVALID {
                *space = pg_sys::MyDatabaseTableSpace;
            }
        }
        set
    }
}

/// Deletes all files of the set.
///
/// # Safety
/// The set is initialized.
pub unsafe fn file_set_delete_all(raw: Raw<'_>, set: *mut FileSet) {
    // SAFETY: see above.
    #[cfg(since_15)]
    unsafe {
        FileSetDeleteAll(raw, set);
    }
    // SAFETY: see above.
    #[cfg(not(since_15))]
    unsafe {
        SharedFileSetDeleteAll(raw, set);
    }
}

/// Creates a file in the set.
///
/// # Safety
/// The set is initialized and the name is NUL-terminated.
pub unsafe fn file_create(raw: Raw<'_>, set: *mut FileSet, name: &CStr) -> *mut BufFile {
    // SAFETY: see above.
    unsafe {
        #[cfg(since_15)]
        return BufFileCreateFileSet(raw, set, name.as_ptr());
        #[cfg(not(since_15))]
        return BufFileCreateShared(raw, set, name.as_ptr());
    }
}

/// Completes a file that was written and makes it readable by others.
///
/// # Safety
/// `file` was created by [`file_create`] and is open.
pub unsafe fn file_export(raw: Raw<'_>, file: *mut BufFile) {
    // SAFETY: see above.
    unsafe {
        #[cfg(since_15)]
        BufFileExportFileSet(raw, file);
        #[cfg(not(since_15))]
        BufFileExportShared(raw, file);
    }
}

/// Opens a file of the set for reading.
///
/// # Safety
/// The set is initialized and the name is NUL-terminated.
pub unsafe fn file_open(raw: Raw<'_>, set: *mut FileSet, name: &CStr) -> *mut BufFile {
    const O_RDONLY: c_int = 0;
    // SAFETY: see above.
    unsafe {
        #[cfg(since_15)]
        return BufFileOpenFileSet(raw, set, name.as_ptr(), O_RDONLY, false);
        #[cfg(not(since_15))]
        return BufFileOpenShared(raw, set, name.as_ptr(), O_RDONLY);
    }
}

/// Deletes a file of the set, if it exists.
///
/// # Safety
/// The set is initialized and the name is NUL-terminated.
pub unsafe fn file_delete(raw: Raw<'_>, set: *mut FileSet, name: &CStr) {
    // SAFETY: see above.
    #[cfg(since_15)]
    unsafe {
        BufFileDeleteFileSet(raw, set, name.as_ptr(), true);
    }
    // SAFETY: see above. BufFileDeleteShared would refuse a file that is not there; what it deletes are the segments.
    #[cfg(not(since_15))]
    unsafe {
        let mut segment = 0;
        loop {
            let mut path = [0 as c_char; 64];
            pg_sys::pg_snprintf(
                path.as_mut_ptr(),
                path.len(),
                c"%s.%d".as_ptr(),
                name.as_ptr(),
                segment as c_int,
            );
            if !SharedFileSetDelete(raw, set, path.as_ptr(), true) {
                break;
            }
            segment += 1;
        }
    }
}

#[allow(
    clashing_extern_declarations,
    reason = "the guarded twins in pgrx have the same signatures"
)]
unsafe extern "C-unwind" {
    #[cfg(not(since_18))]
    fn pqsignal(signal: c_int, handler: pg_sys::pqsigfunc) -> pg_sys::pqsigfunc;
    #[cfg(since_18)]
    #[link_name = "pqsignal_be"]
    fn pqsignal(signal: c_int, handler: pg_sys::pqsigfunc);
}

/// A signal handler.
#[cfg(not(since_19))]
pub type SignalHandler = unsafe extern "C-unwind" fn(c_int);
#[cfg(since_19)]
pub type SignalHandler = unsafe extern "C-unwind" fn(c_int, *const pg_sys::pg_signal_info);

#[allow(
    clashing_extern_declarations,
    reason = "the guarded twins in pgrx have the same signatures"
)]
// tcop/tcopprot.h, postmaster/interrupt.h
unsafe extern "C-unwind" {
    #[cfg(not(since_19))]
    pub fn die(signal: c_int);
    #[cfg(since_19)]
    pub fn die(signal: c_int, sender: *const pg_sys::pg_signal_info);
    #[cfg(not(since_19))]
    pub fn SignalHandlerForConfigReload(signal: c_int);
    #[cfg(since_19)]
    pub fn SignalHandlerForConfigReload(signal: c_int, sender: *const pg_sys::pg_signal_info);
}

/// Installs `handler` for the signal. Raises nothing.
pub fn handle_signal(signal: c_int, handler: SignalHandler) {
    // SAFETY: the handler lives as long as the process.
    unsafe {
        pqsignal(signal, Some(handler));
    }
}

// utils/ps_status.h, utils/backend_status.h
may_raise! {
    #[cfg(since_16)]
    fn set_ps_display_with_len(activity: *const c_char, len: usize);
    #[cfg(not(since_16))]
    fn set_ps_display(activity: *const c_char);
    #[cfg(not(since_18))]
    fn pgstat_report_query_id(query_id: u64, force: bool);
    #[cfg(since_18)]
    fn pgstat_report_query_id(query_id: i64, force: bool);
    #[cfg(since_18)]
    fn pgstat_report_plan_id(plan_id: i64, force: bool);
}

/// Sets the activity in the process title.
pub fn show_activity(raw: Raw<'_>, activity: &CStr) {
    // SAFETY: the text is copied.
    #[cfg(since_16)]
    unsafe {
        set_ps_display_with_len(raw, activity.as_ptr(), activity.count_bytes());
    }
    // SAFETY: the text is copied.
    #[cfg(not(since_16))]
    unsafe {
        set_ps_display(raw, activity.as_ptr());
    }
}

/// Resets the query and plan identifiers, which are not yet known at the beginning of a statement.
pub fn forget_query_id(raw: Raw<'_>) {
    // SAFETY: only writes this process's own statistics.
    unsafe {
        pgstat_report_query_id(raw, 0, true);
        #[cfg(since_18)]
        pgstat_report_plan_id(raw, 0, true);
    }
}

/// The statement that rewrites a table: CLUSTER, from version 19 on also REPACK.
#[cfg(not(since_19))]
pub const REWRITE_STATEMENT: pg_sys::NodeTag = pg_sys::NodeTag::T_ClusterStmt;
#[cfg(since_19)]
pub const REWRITE_STATEMENT: pg_sys::NodeTag = pg_sys::NodeTag::T_RepackStmt;

/// The destination of a statement's rows in the simple-query protocol.
pub const DEST_REMOTE: CommandDest::Type = CommandDest::DestRemote;

/// The wait event shown in `pg_stat_activity` while a session waits for a job or a job for its reader.
pub fn wait_event() -> u32 {
    pg_sys::PG_WAIT_EXTENSION
}

/// `PG_PROTOCOL(3, 0)` of `libpq/pqcomm.h`: messages are written in version 3 of the protocol.
pub const PROTOCOL_LATEST: u32 = 3 << 16;

/// Redirects the messages for the client.
///
/// # Safety
/// The methods live as long as the process.
pub unsafe fn redirect_messages(methods: *const raw::PQcommMethods) {
    // SAFETY: as pq_redirect_to_shm_mq does it (libpq/pqmq.c).
    unsafe {
        raw::PqCommMethods = methods;
        raw::FrontendProtocol = PROTOCOL_LATEST;
        pg_sys::whereToSendOutput = DEST_REMOTE;
    }
}

/// All settings of this process, and their number.
///
/// # Safety
/// The array is used only until a setting is added.
pub unsafe fn all_settings() -> (*mut *mut pg_sys::config_generic, usize) {
    // SAFETY: only hands out pointers.
    #[cfg(not(since_16))]
    unsafe {
        (raw::get_guc_variables(), raw::GetNumConfigOptions().max(0) as usize)
    }
    // SAFETY: as above; the array is a copy in the current memory context.
    #[cfg(since_16)]
    unsafe {
        let mut count = 0;
        let settings = pg_sys::get_guc_variables(&mut count);
        (settings, count.max(0) as usize)
    }
}

/// Frees the result of [`all_settings`].
///
/// # Safety
/// The array is not used any more.
pub unsafe fn free_settings(raw: Raw<'_>, settings: *mut *mut pg_sys::config_generic) {
    // SAFETY: see above; up to version 15 it is no copy.
    #[cfg(not(since_16))]
    let _ = (raw, settings);
    // SAFETY: see above.
    #[cfg(since_16)]
    unsafe {
        raw::pfree(raw, settings.cast());
    }
}

/// A number that changes whenever a setting becomes known.
///
/// From version 16 on the settings are in a private hash table of PostgreSQL. The function that returns all of them also sorts them, which
/// takes longer than the rest of a job. But the list of the settings that EXPLAIN shows is short, and is allocated with room for all.
pub fn settings_number(raw: Raw<'_>) -> usize {
    // SAFETY: a plain read.
    #[cfg(not(since_16))]
    unsafe {
        let _ = raw;
        raw::GetNumConfigOptions() as usize
    }
    #[cfg(since_16)]
    {
        // utils/guc_tables.h
        may_raise! {
            fn get_explain_guc_options(count: *mut c_int) -> *mut *mut pg_sys::config_generic;
        }
        super::memory::size_taken(raw, || {
            // SAFETY: a list in the current memory context.
            unsafe { get_explain_guc_options(raw, &mut 0).cast() }
        })
    }
}

/// Returns the setting of this name, if it exists. Raises nothing.
#[cfg(not(since_16))]
pub fn find_setting(name: &CStr) -> Option<*mut pg_sys::config_generic> {
    // SAFETY: as many as there are; they live as long as the process.
    unsafe {
        let (settings, len) = all_settings();
        (0..len)
            .map(|n| *settings.add(n))
            .find(|setting| CStr::from_ptr((**setting).name) == name)
    }
}

/// Returns the setting of this name, if it exists. Raises nothing.
#[cfg(since_16)]
pub fn find_setting(name: &CStr) -> Option<*mut pg_sys::config_generic> {
    // SAFETY: a look-up that raises nothing and makes nothing, as the flags say.
    let setting = unsafe { find_option(name.as_ptr(), false, true, 0) };
    (!setting.is_null()).then_some(setting)
}

/// The address of a setting's value, a variable of the setting's type.
///
/// # Safety
/// The setting exists.
pub unsafe fn setting_variable(setting: *mut pg_sys::config_generic) -> *const c_void {
    // SAFETY: see above. What is of one type begins with a pointer to the variable, whatever the type.
    #[cfg(not(since_19))]
    unsafe {
        (*setting.cast::<pg_sys::config_int>()).variable.cast()
    }
    // SAFETY: as above.
    #[cfg(since_19)]
    unsafe {
        (*setting).__bindgen_anon_1._int.variable.cast()
    }
}

/// The address of a text setting's assign hook, which is called when the setting is about to get a value.
///
/// # Safety
/// The setting exists, and is a text.
pub unsafe fn assign_hook(setting: *mut pg_sys::config_generic) -> *mut pg_sys::GucStringAssignHook {
    // SAFETY: see above.
    #[cfg(not(since_19))]
    unsafe {
        &raw mut (*setting.cast::<pg_sys::config_string>()).assign_hook
    }
    // SAFETY: see above.
    #[cfg(since_19)]
    unsafe {
        &raw mut (*setting).__bindgen_anon_1._string.assign_hook
    }
}

/// The role that set the value of a setting, if the version records it.
///
/// # Safety
/// The setting exists.
pub unsafe fn setting_role(setting: *mut pg_sys::config_generic) -> pg_sys::Oid {
    // SAFETY: see above.
    #[cfg(since_15)]
    unsafe {
        (*setting).srole
    }
    #[cfg(not(since_15))]
    {
        let _ = setting;
        pg_sys::Oid::INVALID
    }
}

/// The role that set the value that RESET returns to, if the version records it.
///
/// # Safety
/// The setting exists.
pub unsafe fn setting_reset_role(setting: *mut pg_sys::config_generic) -> pg_sys::Oid {
    // SAFETY: see above.
    #[cfg(since_15)]
    unsafe {
        (*setting).reset_srole
    }
    #[cfg(not(since_15))]
    {
        let _ = setting;
        pg_sys::Oid::INVALID
    }
}

// utils/guc.h
#[cfg(since_15)]
may_raise! {
    fn set_config_option_ext(
        name: *const c_char,
        value: *const c_char,
        context: u32,
        source: u32,
        role: pg_sys::Oid,
        action: u32,
        change: bool,
        elevel: c_int,
        reload: bool,
    ) -> c_int;
}

/// Sets a setting as its source would. If the present value comes from a stronger source, only the reset value changes. With `elevel` 0 a
/// refusal is only a message.
///
/// # Safety
/// Name and value are NUL-terminated.
pub unsafe fn set_setting(
    raw: Raw<'_>,
    name: *const c_char,
    value: *const c_char,
    context: u32,
    source: u32,
    role: pg_sys::Oid,
    elevel: c_int,
) {
    /// `GUC_ACTION_SET` of `utils/guc.h`.
    const GUC_ACTION_SET: u32 = 0;
    // SAFETY: see above.
    #[cfg(since_15)]
    unsafe {
        set_config_option_ext(
            raw,
            name,
            value,
            context,
            source,
            role,
            GUC_ACTION_SET,
            true,
            elevel,
            true,
        );
    }
    // SAFETY: see above.
    #[cfg(not(since_15))]
    unsafe {
        let _ = role;
        raw::set_config_option(raw, name, value, context, source, GUC_ACTION_SET, true, elevel, true);
    }
}

/// Whether this process's writes are marked with a replication origin.
pub fn has_replication_origin() -> bool {
    // SAFETY: a plain read of this process's state.
    #[cfg(not(since_19))]
    unsafe {
        pg_sys::replorigin_session_origin != 0
    }
    // SAFETY: as above.
    #[cfg(since_19)]
    unsafe {
        pg_sys::replorigin_xact_state.origin != 0
    }
}

/// How many bytes a byte that is not printable ASCII takes in `application_name` (`pg_clean_ascii`).
pub const CLEANED_BYTE: usize = if cfg!(since_16) { r"\xNN".len() } else { 1 };

/// Whether this process has locks in the lock table, including advisory ones. Another process may transfer a relation lock there that this
/// process has taken by the fast path. Only this process removes locks from there.
pub fn is_in_lock_table() -> bool {
    // SAFETY: the heads of this process's lists, which are in shared memory. In all versions one is a pointer back and a pointer forward,
    // and points at itself if the list is empty.
    unsafe {
        let lists = &raw const (*pg_sys::MyProc).myProcLocks;
        let heads = lists.cast::<[*const c_void; 2]>();
        (0..(*lists).len()).any(|n| heads.add(n).read_volatile()[1] != heads.add(n).cast())
    }
}

/// Drops the temporary replication slots of this process.
pub fn drop_temporary_slots(raw: Raw<'_>) {
    // replication/slot.h
    may_raise! {
        #[cfg(not(since_17))]
        fn ReplicationSlotCleanup();
        #[cfg(since_17)]
        fn ReplicationSlotCleanup(synced_only: bool);
    }
    // SAFETY: callable outside of a transaction, as PostgresMain does after an error.
    #[cfg(not(since_17))]
    unsafe {
        ReplicationSlotCleanup(raw);
    }
    // SAFETY: as above.
    #[cfg(since_17)]
    unsafe {
        ReplicationSlotCleanup(raw, false);
    }
}

/// Cleans up SPI after an error within a procedure's commit or rollback. From version 15 on this is not needed.
pub fn spi_cleanup(raw: Raw<'_>) {
    #[cfg(since_15)]
    let _ = raw;
    // executor/spi.h
    #[cfg(not(since_15))]
    may_raise! {
        fn SPICleanup();
    }
    // SAFETY: callable after any error, as PostgresMain does it.
    #[cfg(not(since_15))]
    unsafe {
        SPICleanup(raw);
    }
}

/// Stops the timer of transaction_timeout: the current transaction is not the job's.
pub fn stop_transaction_timer() {
    #[cfg(since_17)]
    {
        // SAFETY: the timer was registered when this process connected.
        unsafe {
            if pg_sys::TransactionTimeout > 0 {
                raw::disable_timeout(TRANSACTION_TIMEOUT, false);
            }
        }
        forget_transaction_timeout();
    }
}

/// Discards a pending transaction timeout.
pub fn forget_transaction_timeout() {
    // SAFETY: set by a signal handler.
    #[cfg(since_17)]
    unsafe {
        core::ptr::write_volatile(&raw mut pg_sys::TransactionTimeoutPending, 0);
    }
}

/// Sends the statistics of this process, so that no counts of a job are left for the next. Call it outside of a transaction.
pub fn report_statistics() {
    // SAFETY: no transaction runs. What differs between versions is the result only.
    unsafe {
        pg_sys::pgstat_report_stat(true);
    }
}

// executor/executor.h
may_raise! {
    #[cfg(not(since_18))]
    fn standard_ExecutorRun(
        query: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
        once: bool,
    );
    #[cfg(since_18)]
    fn standard_ExecutorRun(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64);
}

/// Called for each run of the executor, before it begins, with the query and whether it is run forward, and to its last row or to one after
/// which it is not run again. It is called for every query of the session, and must raise nothing.
pub type RunWatcher = fn(*mut pg_sys::EState, bool);

thread_local! {
    static NEXT_RUN: Cell<pg_sys::ExecutorRun_hook_type> = const { Cell::new(None) };
    static RUN_WATCHER: Cell<Option<RunWatcher>> = const { Cell::new(None) };
}

/// Sets the function to call for runs. Called once per process.
pub fn watch_runs(watcher: RunWatcher) {
    RUN_WATCHER.set(Some(watcher));
    // SAFETY: the hook is called in this thread; the previous hook is called too.
    unsafe {
        NEXT_RUN.set(pg_sys::ExecutorRun_hook);
        pg_sys::ExecutorRun_hook = Some(run);
    }
}

unsafe extern "C-unwind" fn run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    #[cfg(not(since_18))] once: bool,
) {
    // SAFETY: the executor's own arguments, passed on; PostgreSQL calls this, and nothing is owned here.
    unsafe {
        let raw = Raw::assume();
        if let Some(watcher) = RUN_WATCHER.get() {
            let forward = direction == pg_sys::ScanDirection::ForwardScanDirection;
            // All queries pass through here. If this fails, rows are collected first.
            super::error::if_possible(|| watcher((*query).estate, forward && (count == 0 || is_of_spi(query))));
        }
        #[cfg(not(since_18))]
        match NEXT_RUN.get() {
            Some(next) => next(query, direction, count, once),
            None => standard_ExecutorRun(raw, query, direction, count, once),
        }
        #[cfg(since_18)]
        match NEXT_RUN.get() {
            Some(next) => next(query, direction, count),
            None => standard_ExecutorRun(raw, query, direction, count),
        }
    }
}

/// Whether the query is one that SPI runs itself (`_SPI_pquery`). It runs it once, and copies each row. That distinguishes it from a
/// function in SQL, which also runs its query for one row and never again, but uses that row afterwards. The rows of an SPI cursor have the
/// same destination, but belong to the query of the active portal.
unsafe fn is_of_spi(query: *mut pg_sys::QueryDesc) -> bool {
    // SAFETY: the executor's own arguments; the active portal, if any, is alive.
    unsafe {
        let (portal, to) = (pg_sys::ActivePortal, (*query).dest);
        !to.is_null() && (*to).mydest == CommandDest::DestSPI && (portal.is_null() || (*portal).queryDesc != query)
    }
}

/// `Anum_pg_constraint_contypid` of `catalog/pg_constraint_d.h`.
#[cfg(not(since_18))]
pub const CONSTRAINT_TYPE: c_int = 9;
/// `Anum_pg_constraint_contypid` of `catalog/pg_constraint_d.h`.
#[cfg(since_18)]
pub const CONSTRAINT_TYPE: c_int = 10;

/// `Anum_pg_constraint_convalidated` of `catalog/pg_constraint_d.h`.
#[cfg(not(since_18))]
pub const CONSTRAINT_VALIDATED: c_int = 7;
/// `Anum_pg_constraint_convalidated` of `catalog/pg_constraint_d.h`.
#[cfg(since_18)]
pub const CONSTRAINT_VALIDATED: c_int = 8;

/// Returns a row of a catalog, by its oid, from the catalog's cache. It must be released. NULL if there is none.
pub fn cached_row(raw: Raw<'_>, cache: pg_sys::SysCacheIdentifier::Type, oid: pg_sys::Oid) -> pg_sys::HeapTuple {
    // utils/syscache.h
    may_raise! {
        #[cfg(not(since_19))]
        fn SearchSysCache1(cache: c_int, key: pg_sys::Datum) -> pg_sys::HeapTuple;
        #[cfg(since_19)]
        fn SearchSysCache1(cache: u32, key: pg_sys::Datum) -> pg_sys::HeapTuple;
    }
    // SAFETY: the caches that are asked for have one key, an oid.
    unsafe { SearchSysCache1(raw, cache as _, oid.into()) }
}

/// The columns of a catalog's row, as the catalog's struct has them (`GETSTRUCT` of access/htup_details.h).
///
/// # Safety
/// A row of the catalog whose struct `F` is.
pub unsafe fn columns<F>(row: pg_sys::HeapTuple) -> *mut F {
    // SAFETY: see above.
    unsafe {
        let header = (*row).t_data;
        header.cast::<u8>().add((*header).t_hoff.into()).cast()
    }
}

/// Whether the column `number` of a catalog's row is null.
///
/// # Safety
/// A row of a catalog that has the column.
pub unsafe fn is_null_in(raw: Raw<'_>, row: pg_sys::HeapTuple, number: u32) -> bool {
    // access/htup_details.h
    may_raise! {
        fn heap_attisnull(row: pg_sys::HeapTuple, number: c_int, desc: pg_sys::TupleDesc) -> bool;
    }
    // SAFETY: see above. Columns of catalogs need no descriptor, since none is missing in old rows.
    unsafe { heap_attisnull(raw, row, number as c_int, core::ptr::null_mut()) }
}

/// Returns what `read` takes from the row of a catalog with an oid, None if there is none.
///
/// # Safety
/// `F` is the struct of the catalog that the cache is of.
pub unsafe fn read_cached<F, T: Copy>(
    raw: Raw<'_>,
    cache: pg_sys::SysCacheIdentifier::Type,
    oid: pg_sys::Oid,
    read: fn(&F) -> T,
) -> Option<T> {
    let row = cached_row(raw, cache, oid);
    // SAFETY: see above; the row is looked at while the cache holds it.
    unsafe {
        (!row.is_null()).then(|| {
            let read = read(&*columns(row));
            raw::ReleaseSysCache(raw, row);
            read
        })
    }
}

thread_local! {
    static CONSTRAINT_WATCHER: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// Sets the function to call when this process learns that a constraint in this database has changed. Called once per process.
pub fn watch_constraints(raw: Raw<'_>, watcher: fn()) {
    unsafe extern "C-unwind" fn changed(_argument: pg_sys::Datum, _cache: c_int, _hash: u32) {
        if let Some(watcher) = CONSTRAINT_WATCHER.get() {
            watcher();
        }
    }
    CONSTRAINT_WATCHER.set(Some(watcher));
    on_cache_change(raw, pg_sys::SysCacheIdentifier::CONSTROID, changed);
}

/// Called when rows of a cached catalog have changed.
pub type CacheCallback = unsafe extern "C-unwind" fn(pg_sys::Datum, c_int, u32);

/// Registers the callback for the cache, for the life of the process.
pub fn on_cache_change(raw: Raw<'_>, cache: pg_sys::SysCacheIdentifier::Type, callback: CacheCallback) {
    // utils/inval.h
    may_raise! {
        #[cfg(not(since_19))]
        fn CacheRegisterSyscacheCallback(
            cache: c_int,
            callback: pg_sys::SyscacheCallbackFunction,
            argument: pg_sys::Datum,
        );
        #[cfg(since_19)]
        fn CacheRegisterSyscacheCallback(
            cache: u32,
            callback: pg_sys::SyscacheCallbackFunction,
            argument: pg_sys::Datum,
        );
    }
    // SAFETY: the callback lives as long as the process.
    unsafe { CacheRegisterSyscacheCallback(raw, cache as _, Some(callback), 0usize.into()) }
}

/// The number that stands for a row in [`CacheCallback`]s.
pub fn cache_hash(raw: Raw<'_>, cache: pg_sys::SysCacheIdentifier::Type, oid: pg_sys::Oid) -> u32 {
    // utils/syscache.h
    may_raise! {
        #[cfg(not(since_19))]
        fn GetSysCacheHashValue(
            cache: c_int,
            key: pg_sys::Datum,
            key2: pg_sys::Datum,
            key3: pg_sys::Datum,
            key4: pg_sys::Datum,
        ) -> u32;
        #[cfg(since_19)]
        fn GetSysCacheHashValue(
            cache: u32,
            key: pg_sys::Datum,
            key2: pg_sys::Datum,
            key3: pg_sys::Datum,
            key4: pg_sys::Datum,
        ) -> u32;
    }
    let none = || 0usize.into();
    // SAFETY: the caches that are asked for have one key, an oid.
    unsafe { GetSysCacheHashValue(raw, cache as _, oid.into(), none(), none(), none()) }
}

/// Has the type cache read the checks of domains anew when they are needed next, as after a change of a constraint.
pub fn forget_domain_checks(raw: Raw<'_>) {
    // utils/inval.h
    may_raise! {
        #[cfg(not(since_19))]
        fn CallSyscacheCallbacks(cache: c_int, hash: u32);
        #[cfg(since_19)]
        fn CallSyscacheCallbacks(cache: u32, hash: u32);
    }
    // SAFETY: those who are called only mark what they know of constraints.
    unsafe { CallSyscacheCallbacks(raw, pg_sys::SysCacheIdentifier::CONSTROID as _, 0) }
}

/// Plans a query by the hook `next`, if there is one.
///
/// # Safety
/// The arguments are those of a planner hook.
pub unsafe fn plan(
    raw: Raw<'_>,
    next: pg_sys::planner_hook_type,
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
    #[cfg(since_19)] explain: *mut pg_sys::ExplainState,
) -> *mut pg_sys::PlannedStmt {
    // optimizer/planner.h
    may_raise! {
        #[cfg(not(since_19))]
        fn standard_planner(
            query: *mut pg_sys::Query,
            text: *const c_char,
            options: c_int,
            parameters: pg_sys::ParamListInfo,
        ) -> *mut pg_sys::PlannedStmt;
        #[cfg(since_19)]
        fn standard_planner(
            query: *mut pg_sys::Query,
            text: *const c_char,
            options: c_int,
            parameters: pg_sys::ParamListInfo,
            explain: *mut pg_sys::ExplainState,
        ) -> *mut pg_sys::PlannedStmt;
    }
    // SAFETY: see above.
    unsafe {
        #[cfg(not(since_19))]
        return match next {
            Some(next) => next(query, text, options, parameters),
            None => standard_planner(raw, query, text, options, parameters),
        };
        #[cfg(since_19)]
        return match next {
            Some(next) => next(query, text, options, parameters, explain),
            None => standard_planner(raw, query, text, options, parameters, explain),
        };
    }
}

/// The next transaction id, or one that was assigned shortly before.
pub fn next_xid() -> u32 {
    // SAFETY: a number in shared memory, which is there in every process; it is only looked at.
    #[cfg(not(since_17))]
    unsafe {
        core::ptr::read_volatile(&raw const (*pg_sys::ShmemVariableCache).nextXid.value) as u32
    }
    // SAFETY: as above.
    #[cfg(since_17)]
    unsafe {
        core::ptr::read_volatile(&raw const (*pg_sys::TransamVariables).nextXid.value) as u32
    }
}

/// Completes a descriptor whose columns have all been initialized. From version 19 on this is required before it is used.
///
/// # Safety
/// Each column was initialized.
pub unsafe fn finish_descriptor(raw: Raw<'_>, desc: pg_sys::TupleDesc) {
    // access/tupdesc.h
    may_raise! {
        #[cfg(since_19)]
        fn TupleDescFinalize(desc: pg_sys::TupleDesc);
    }
    #[cfg(not(since_19))]
    let _ = (raw, desc);
    // SAFETY: see above.
    #[cfg(since_19)]
    unsafe {
        TupleDescFinalize(raw, desc);
    }
}

/// The text of a String node.
///
/// # Safety
/// The node is a String.
pub unsafe fn string_of(node: *mut core::ffi::c_void) -> *mut c_char {
    // SAFETY: see above.
    #[cfg(since_15)]
    unsafe {
        (*node.cast::<pg_sys::String>()).sval
    }
    // SAFETY: see above.
    #[cfg(not(since_15))]
    unsafe {
        (*node.cast::<pg_sys::Value>()).val.str_
    }
}

/// The abilities of a custom path: backward scan and, in versions that have the flag, projection.
#[cfg(since_15)]
pub const PATH_FLAGS: u32 = pg_sys::CUSTOMPATH_SUPPORT_BACKWARD_SCAN | pg_sys::CUSTOMPATH_SUPPORT_PROJECTION;
#[cfg(not(since_15))]
pub const PATH_FLAGS: u32 = pg_sys::CUSTOMPATH_SUPPORT_BACKWARD_SCAN;

// access/heapam.h
may_raise! {
    #[cfg(not(since_15))]
    fn heap_fetch(
        relation: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        tuple: pg_sys::HeapTuple,
        buffer: *mut pg_sys::Buffer,
    ) -> bool;
    #[cfg(since_15)]
    fn heap_fetch(
        relation: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        tuple: pg_sys::HeapTuple,
        buffer: *mut pg_sys::Buffer,
        keep: bool,
    ) -> bool;
    #[cfg(not(since_19))]
    fn heap_delete(
        relation: pg_sys::Relation,
        item: pg_sys::ItemPointer,
        command: pg_sys::CommandId,
        check: pg_sys::Snapshot,
        wait: bool,
        failure: *mut pg_sys::TM_FailureData,
        moves: bool,
    ) -> pg_sys::TM_Result::Type;
    #[cfg(since_19)]
    fn heap_delete(
        relation: pg_sys::Relation,
        item: *const pg_sys::ItemPointerData,
        command: pg_sys::CommandId,
        options: u32,
        check: pg_sys::Snapshot,
        wait: bool,
        failure: *mut pg_sys::TM_FailureData,
    ) -> pg_sys::TM_Result::Type;
}

/// Finds the tuple at its own tid, whoever sees it. Its page stays pinned where there is one.
///
/// # Safety
/// The relation is an open heap that has the page.
pub unsafe fn fetch_any(
    raw: Raw<'_>,
    relation: pg_sys::Relation,
    tuple: pg_sys::HeapTuple,
    buffer: &mut pg_sys::Buffer,
) -> bool {
    // SAFETY: see above; a snapshot that is a constant.
    unsafe {
        let any = &raw mut pg_sys::SnapshotAnyData;
        #[cfg(not(since_15))]
        let found = heap_fetch(raw, relation, any, tuple, buffer);
        #[cfg(since_15)]
        let found = heap_fetch(raw, relation, any, tuple, buffer, false);
        found
    }
}

/// Deletes a tuple, when those have ended that have locked it. False where it is not the last version of its row.
///
/// # Safety
/// The relation is an open heap that has the tuple.
pub unsafe fn delete_tuple(
    raw: Raw<'_>,
    relation: pg_sys::Relation,
    item: &mut pg_sys::ItemPointerData,
    command: pg_sys::CommandId,
) -> bool {
    let none = core::ptr::null_mut();
    // SAFETY: see above. All-zero is a valid value of what is filled where it fails.
    unsafe {
        let mut failure = core::mem::zeroed();
        #[cfg(not(since_19))]
        let done = heap_delete(raw, relation, item, command, none, true, &mut failure, false);
        #[cfg(since_19)]
        let done = heap_delete(raw, relation, item, command, 0, none, true, &mut failure);
        done == pg_sys::TM_Result::TM_Ok
    }
}
