//! The steps of a simple query, as `exec_simple_query` performs them (tcop/postgres.c).
//!
//! A worker's loop is that of PostgresMain, for one message after the other. This is what PostgresMain and exec_simple_query do in any
//! supported version, and a worker does not:
//!
//! * Everything that belongs to a connection: the messages to the client (BeginCommand, EndCommand, NullCommand, ReadyForQuery, the reports
//!   of settings, the format of a binary cursor), the state of the protocol (pq_comm_reset, pq_is_reading_msg, ignore_till_sync,
//!   DoingCommandRead), the check whether the client is still there, the log of connections, login triggers, and all that is for walsenders
//!   (WalSndErrorCleanup).
//! * Everything that belongs to the extended protocol: the unnamed statement, pipelines.
//! * Everything that is for a wait for the next message in an open transaction: a job is one message, and a transaction that it leaves open
//!   is rolled back. So the timers for idle sessions and idle transactions are never started, and no catalog snapshot has to be released
//!   (InvalidateCatalogSnapshotConditionally). The end of the transaction releases it, and a look-up in the catalogs between two jobs
//!   invalidates it (`connection_version.rs`).
//! * ProcessNotifyInterrupt: a worker that has run LISTEN takes no other job, and it has no client to notify.
//! * ProcessConfigFile: an idle worker that is told to reload the configuration exits instead.
//! * A timer for statistics that have not been sent (IDLE_STATS_UPDATE_TIMEOUT): they are sent after each job, without delay.
//! * errdetail_abort: a conflict with recovery fails the job at once, so no later statement can encounter it.
//! * Debugging aids for the server itself: Valgrind, MEMORY_CONTEXT_CHECKING, the probes for DTrace.

use crate::pg::digits::Digits;
use crate::pg::guc::{own, serialized};
use crate::pg::process::signals;
use crate::pg::query::parse_cache;
use crate::pg::query::receiver::Destination;
use crate::pg::raw::{self, Raw, may_raise};
use crate::pg::value::params::Parameters;
use crate::pg::{compat, error, memory};
use core::cell::Cell;
use core::ffi::{CStr, c_char, c_int};
use core::ptr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{
    self, BackendState, CommandTag, List, LogStmtLevel, NodeTag, QueryCompletion, RawStmt, TransactionStmtKind,
};

// utils/elog.h: called between the next two functions, by a caller that has the token.
unsafe extern "C-unwind" {
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn errdetail(format: *const c_char, ...) -> c_int;
}

// utils/elog.h
may_raise! {
    fn errstart(elevel: c_int, domain: *const c_char) -> bool;
    fn errhidestmt(hide: bool) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}

thread_local! {
    /// Whether a transaction command is open (`xact_started`).
    static STARTED: Cell<bool> = const { Cell::new(false) };
    /// Whether resource usage is counted from the beginning of the string (`save_log_statement_stats`).
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// The statements of a string.
#[derive(Clone, Copy)]
pub struct Statements {
    list: *mut List,
    sql: *const c_char,
}

/// One statement, parsed only.
#[derive(Clone, Copy)]
pub struct Statement {
    raw: *mut RawStmt,
    sql: *const c_char,
}

/// The command tag of a finished statement and how many rows it processed.
#[derive(Clone, Copy)]
pub struct Completion(QueryCompletion);

impl Completion {
    /// The number of the command tag.
    pub fn tag(&self) -> u32 {
        self.0.commandTag
    }

    /// The number of rows processed.
    pub fn rows(&self) -> u64 {
        self.0.nprocessed
    }

    /// Writes the tag with its count to `buffer`, as the protocol shows it, and returns the length (`BuildQueryCompletionString`).
    pub fn text(&self, buffer: &mut [u8; 64]) -> usize {
        let name = tag_name(self.tag());
        let digits = Digits::of(self.0.nprocessed);
        // SAFETY: a tag number that PostgreSQL made.
        let counts = unsafe { pg_sys::command_tag_display_rowcount(self.0.commandTag) };
        let insert = self.0.commandTag == CommandTag::CMDTAG_INSERT;
        let pieces: [&[u8]; 3] = match (counts, insert) {
            (true, true) => [name, b" 0 ", digits.bytes()],
            (true, false) => [name, b" ", digits.bytes()],
            (false, _) => [name, b"", b""],
        };
        let mut len = 0;
        for (to, from) in buffer.iter_mut().zip(pieces.into_iter().flatten()) {
            *to = *from;
            len += 1;
        }
        len
    }
}

/// The name of a command tag.
pub fn tag_name(tag: u32) -> &'static [u8] {
    // SAFETY: a tag number that PostgreSQL made; the names are static.
    crate::pg::memory::c_bytes(unsafe { raw::GetCommandTagName(tag as _) })
}

/// Begins a string. Its start becomes the statement's start time.
pub fn begin(raw: Raw<'_>, sql: &CStr) {
    // SAFETY: the text outlives the job; `forget_text` or `recover` forgets it.
    unsafe {
        raw::SetCurrentStatementStartTimestamp();
        pg_sys::debug_query_string = sql.as_ptr();
        raw::pgstat_report_activity(BackendState::STATE_RUNNING, sql.as_ptr());
        COUNTED.set(pg_sys::log_statement_stats);
        if COUNTED.get() {
            raw::ResetUsage(raw);
        }
    }
    STARTED.set(false);
    start_command(raw);
}

/// Opens a transaction command if none is open, and starts the statement timer. Returns whether it opened one.
pub fn start_command(raw: Raw<'_>) -> bool {
    let fresh = !STARTED.get();
    // SAFETY: as start_xact_command.
    unsafe {
        if fresh {
            raw::StartTransactionCommand(raw);
            STARTED.set(true);
        }
        let timeout = own::statement_timeout();
        if timeout > 0 {
            if !raw::get_timeout_active(compat::STATEMENT_TIMEOUT) {
                raw::enable_timeout_after(compat::STATEMENT_TIMEOUT, timeout);
            }
        } else {
            stop_statement_timer();
        }
    }
    fresh
}

/// Stops the statement timer.
pub fn stop_statement_timer() {
    if signals::timer_active(compat::STATEMENT_TIMEOUT) {
        signals::stop_timer(compat::STATEMENT_TIMEOUT);
    }
}

/// Closes the transaction command, which commits unless a transaction block is open.
pub fn finish_command(raw: Raw<'_>) {
    stop_statement_timer();
    if STARTED.get() {
        // SAFETY: as finish_xact_command.
        unsafe { raw::CommitTransactionCommand(raw) };
        STARTED.set(false);
    }
}

/// Whether a transaction command is open.
pub fn command_is_open() -> bool {
    STARTED.get()
}

/// Parses the string into MessageContext.
pub fn parse(raw: Raw<'_>, sql: &CStr) -> Statements {
    // SAFETY: the text outlives the trees; the lists are in MessageContext.
    unsafe {
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = pg_sys::MessageContext;
        let list = parse_cache::parse(raw, sql);
        pg_sys::CurrentMemoryContext = before;
        Statements {
            list,
            sql: sql.as_ptr(),
        }
    }
}

impl Statements {
    /// The number of statements.
    pub fn len(&self) -> usize {
        if self.list.is_null() {
            return 0;
        }
        // SAFETY: NULL is the empty list, anything else a list.
        unsafe { (*self.list).length as usize }
    }

    /// The statement at index `n`.
    pub fn get(&self, n: usize) -> Statement {
        // SAFETY: callers stay below `len`; the list holds RawStmts.
        let raw = unsafe { (*(*self.list).elements.add(n)).ptr_value.cast() };
        Statement { raw, sql: self.sql }
    }

    /// Whether the string itself changes a setting that compiled or planned objects may depend on: by SET, RESET or DISCARD, or by
    /// `set_config`. A string longer than `LONG` is assumed to do so. What user-defined functions set is not detected here.
    pub fn change_state(&self) -> bool {
        const LONG: usize = 64 << 10;
        const FUNCTION: &[u8] = b"set_config";
        let text = crate::pg::memory::c_bytes(self.sql);
        let sets = (0..self.len()).any(|n| self.get(n).sets_state());
        sets || text.len() > LONG
            || text
                .windows(FUNCTION.len())
                .any(|part| part.eq_ignore_ascii_case(FUNCTION))
    }

    /// Logs the string, and the parameters, if `log_statement` requires it. Returns whether it did (`check_log_statement`).
    pub fn log(&self, raw: Raw<'_>, parameters: Option<&Parameters>) -> bool {
        // SAFETY: plain reads; the log entry is made of static format and the live text.
        unsafe {
            let level = pg_sys::log_statement as u32;
            let wanted = match level {
                LogStmtLevel::LOGSTMT_NONE => false,
                LogStmtLevel::LOGSTMT_ALL => true,
                _ => (0..self.len()).any(|n| raw::GetCommandLogLevel(raw, self.get(n).raw.cast()) <= level),
            };
            let values = match parameters {
                Some(parameters) if wanted => parameters.for_log(raw),
                _ => ptr::null_mut(),
            };
            if wanted && errstart(raw, pg_sys::LOG as c_int, ptr::null()) {
                errmsg(c"statement: %s".as_ptr(), self.sql);
                if !values.is_null() {
                    errdetail(c"parameters: %s".as_ptr(), values);
                }
                self.detail_execute(raw);
                errhidestmt(raw, true);
                errfinish(raw, c"execute.rs".as_ptr(), 0, c"execute".as_ptr());
            }
            wanted
        }
    }

    /// Adds to a log entry the text of the first prepared statement that the string executes (`errdetail_execute`).
    unsafe fn detail_execute(&self, raw: Raw<'_>) {
        // SAFETY: a log entry is being made; the cast follows the node's tag. Nothing is raised for a statement that is not there.
        unsafe {
            for statement in (0..self.len()).map(|n| self.get(n)) {
                if statement.is(NodeTag::T_ExecuteStmt) {
                    let name = (*statement.node().cast::<pg_sys::ExecuteStmt>()).name;
                    let prepared = raw::FetchPreparedStatement(raw, name, false);
                    if !prepared.is_null() {
                        errdetail(c"prepare: %s".as_ptr(), (*(*prepared).plansource).query_string);
                        return;
                    }
                }
            }
        }
    }

    /// Logs the duration of the string and its resource usage, if the settings require it. `was_logged` tells that its text has been logged
    /// already.
    pub fn log_end(&self, raw: Raw<'_>, was_logged: bool) {
        let mut text = [0 as c_char; 32];
        // SAFETY: the buffer has the size that check_log_duration asks for.
        unsafe {
            let kind = raw::check_log_duration(text.as_mut_ptr(), was_logged);
            if kind > 0 && errstart(raw, pg_sys::LOG as c_int, ptr::null()) {
                if kind == 1 {
                    errmsg(c"duration: %s ms".as_ptr(), text.as_ptr());
                } else {
                    errmsg(c"duration: %s ms  statement: %s".as_ptr(), text.as_ptr(), self.sql);
                    self.detail_execute(raw);
                }
                errhidestmt(raw, true);
                errfinish(raw, c"execute.rs".as_ptr(), 0, c"execute".as_ptr());
            }
            if COUNTED.get() {
                raw::ShowUsage(raw, c"QUERY STATISTICS".as_ptr());
            }
        }
    }
}

/// The kinds of statements that a job has to treat specially.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    None,
    /// COPY from or to the client.
    CopyClient,
    /// LISTEN.
    Listen,
    /// The end of a transaction that begins the next one.
    Chain,
    /// A utility command that runs transactions of its own.
    OwnTransactions,
    /// A utility command that must not be in a transaction block, and runs no transactions of its own.
    Alone,
    /// CALL or DO, whose code may commit and roll back.
    Procedural,
}

impl Statement {
    fn node(&self) -> *mut pg_sys::Node {
        // SAFETY: a RawStmt of the parser.
        unsafe { (*self.raw).stmt }
    }

    fn is(&self, tag: NodeTag) -> bool {
        // SAFETY: every node begins with its tag.
        unsafe { (*self.node()).type_ == tag }
    }

    /// The bare name of its command.
    pub fn tag_name(&self) -> &'static [u8] {
        // SAFETY: a statement of the parser.
        tag_name(unsafe { raw::CreateCommandTag(self.node()) } as _)
    }

    /// Whether it controls the transaction.
    pub fn is_transaction_control(&self) -> bool {
        self.is(NodeTag::T_TransactionStmt)
    }

    /// Whether it changes a setting that compiled or planned objects may depend on.
    fn sets_state(&self) -> bool {
        if self.is(NodeTag::T_DiscardStmt) {
            return true;
        }
        self.is(NodeTag::T_VariableSetStmt) && {
            // SAFETY: checked above; the name is NULL for all settings.
            let name = unsafe { (*self.node().cast::<pg_sys::VariableSetStmt>()).name };
            name.is_null() || {
                let name = crate::pg::memory::c_bytes(name);
                !name.starts_with(b"TRANSACTION")
                    && name != b"SESSION CHARACTERISTICS"
                    && !serialized::is_immaterial(name)
            }
        }
    }

    /// Whether it ends a transaction. No other statement is accepted in an aborted transaction (`IsTransactionExitStmt`).
    pub fn is_transaction_exit(&self) -> bool {
        use pg_sys::TransactionStmtKind::*;
        self.is_transaction_control() && {
            // SAFETY: checked above.
            let kind = unsafe { (*self.node().cast::<pg_sys::TransactionStmt>()).kind };
            matches!(
                kind,
                TRANS_STMT_COMMIT | TRANS_STMT_PREPARE | TRANS_STMT_ROLLBACK | TRANS_STMT_ROLLBACK_TO
            )
        }
    }

    /// How a job has to treat the statement.
    pub fn kind(&self) -> StatementKind {
        let node = self.node();
        // SAFETY: each cast follows the node's tag.
        unsafe {
            match (*node).type_ {
                NodeTag::T_CopyStmt => {
                    let copy = node.cast::<pg_sys::CopyStmt>();
                    if (*copy).filename.is_null() && !(*copy).is_program {
                        StatementKind::CopyClient
                    } else {
                        StatementKind::None
                    }
                }
                NodeTag::T_CallStmt | NodeTag::T_DoStmt => StatementKind::Procedural,
                NodeTag::T_ListenStmt => StatementKind::Listen,
                NodeTag::T_TransactionStmt if (*node.cast::<pg_sys::TransactionStmt>()).chain => StatementKind::Chain,
                NodeTag::T_TransactionStmt => match (*node.cast::<pg_sys::TransactionStmt>()).kind {
                    TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED
                    | TransactionStmtKind::TRANS_STMT_ROLLBACK_PREPARED => StatementKind::Alone,
                    _ => StatementKind::None,
                },
                NodeTag::T_DiscardStmt => StatementKind::Alone,
                NodeTag::T_VacuumStmt
                | compat::REWRITE_STATEMENT
                | NodeTag::T_ReindexStmt
                | NodeTag::T_AlterSystemStmt
                | NodeTag::T_CreatedbStmt
                | NodeTag::T_DropdbStmt
                | NodeTag::T_AlterDatabaseStmt
                | NodeTag::T_CreateTableSpaceStmt
                | NodeTag::T_DropTableSpaceStmt
                | NodeTag::T_CreateSubscriptionStmt
                | NodeTag::T_AlterSubscriptionStmt
                | NodeTag::T_DropSubscriptionStmt
                | NodeTag::T_AlterTableStmt
                | NodeTag::T_IndexStmt
                | NodeTag::T_DropStmt => {
                    let alone = match (*node).type_ {
                        NodeTag::T_IndexStmt => (*node.cast::<pg_sys::IndexStmt>()).concurrent,
                        NodeTag::T_DropStmt => (*node.cast::<pg_sys::DropStmt>()).concurrent,
                        NodeTag::T_AlterTableStmt => detaches_concurrently(node.cast()),
                        _ => true,
                    };
                    if alone {
                        StatementKind::OwnTransactions
                    } else {
                        StatementKind::None
                    }
                }
                _ => StatementKind::None,
            }
        }
    }

    /// Analyses, plans and runs the statement, with its rows going to `to`. With parameters it is planned for their values, like the
    /// unnamed statement of the extended protocol.
    pub fn run(
        &self,
        raw: Raw<'_>,
        parameters: Option<&Parameters>,
        is_last: bool,
        top_level: bool,
        to: Destination,
    ) -> Completion {
        // SAFETY: the steps and their memory contexts are those of exec_simple_query: the trees of the last statement are in
        // MessageContext, those of others in a context of their own that is deleted when the statement is over, or with MessageContext.
        unsafe {
            let tag = raw::CreateCommandTag((*self.raw).stmt);
            compat::forget_query_id(raw);
            compat::show_activity(raw, CStr::from_ptr(raw::GetCommandTagName(tag)));
            let with_snapshot = raw::analyze_requires_snapshot(self.raw);
            if with_snapshot {
                raw::PushActiveSnapshot(raw, raw::GetTransactionSnapshot(raw));
            }
            let before = pg_sys::CurrentMemoryContext;
            let trees = if is_last {
                pg_sys::MessageContext
            } else {
                memory::new_context(raw, pg_sys::MessageContext, c"per-parsetree message context")
            };
            pg_sys::CurrentMemoryContext = trees;
            let queries = match parameters {
                None => compat::analyze_and_rewrite(raw, self.raw, self.sql, ptr::null_mut(), 0),
                Some(parameters) => parameters.analyze(raw, self.raw, self.sql),
            };
            let values = parameters.map_or(ptr::null_mut(), Parameters::list);
            let plans = raw::pg_plan_queries(raw, queries, self.sql, pg_sys::CURSOR_OPT_PARALLEL_OK as c_int, values);
            if with_snapshot {
                raw::PopActiveSnapshot(raw);
            }
            signals::check_for_interrupts_raw(raw);
            let portal = raw::CreatePortal(raw, c"".as_ptr(), true, true);
            (*portal).visible = false;
            raw::PortalDefineQuery(raw, portal, ptr::null(), self.sql, tag, plans, ptr::null_mut());
            raw::PortalStart(raw, portal, values, 0, ptr::null_mut());
            let mut text_format = 0i16;
            raw::PortalSetResultFormat(raw, portal, 1, &mut text_format);
            pg_sys::CurrentMemoryContext = before;
            let mut completion = QueryCompletion::default();
            compat::portal_run(raw, portal, top_level, to.0, &mut completion);
            raw::PortalDrop(raw, portal, false);
            if !is_last {
                raw::MemoryContextDelete(raw, trees);
            }
            Completion(completion)
        }
    }
}

unsafe fn detaches_concurrently(statement: *mut pg_sys::AlterTableStmt) -> bool {
    // SAFETY: an ALTER TABLE's commands are a list of AlterTableCmd; DETACH PARTITION's definition is a PartitionCmd.
    unsafe {
        let commands = (*statement).cmds;
        if commands.is_null() || (*commands).length != 1 {
            return false;
        }
        let command = (*(*commands).elements).ptr_value.cast::<pg_sys::AlterTableCmd>();
        (*command).subtype == pg_sys::AlterTableType::AT_DetachPartition
            && (*(*command).def.cast::<pg_sys::PartitionCmd>()).concurrent
    }
}

/// Sets whether this process appears as a client backend. PostgreSQL refuses LISTEN in background workers, which have no client to notify.
/// A job is a client's string, so while this statement runs the worker is treated as a backend.
pub fn pretend_backend(pretend: bool) {
    // SAFETY: a plain variable, which only decides what a utility command may do.
    unsafe {
        pg_sys::MyBackendType = if pretend {
            pg_sys::BackendType::B_BACKEND
        } else {
            pg_sys::BackendType::B_BG_WORKER
        }
    }
}

/// Begins an implicit transaction block for the statements of the string.
pub fn begin_implicit_block(raw: Raw<'_>) {
    // SAFETY: a transaction command is open.
    unsafe { raw::BeginImplicitTransactionBlock(raw) }
}

/// Ends the implicit transaction block.
pub fn end_implicit_block(raw: Raw<'_>) {
    // SAFETY: a transaction command is open.
    unsafe { raw::EndImplicitTransactionBlock(raw) }
}

/// Whether the open transaction has failed.
pub fn transaction_is_aborted() -> bool {
    // SAFETY: a plain read.
    unsafe { raw::IsAbortedTransactionBlockState() }
}

/// Makes the effects of a statement visible to the next.
pub fn next_command(raw: Raw<'_>) {
    // SAFETY: a transaction command is open.
    unsafe { raw::CommandCounterIncrement(raw) }
}

/// Whether a transaction block is open after the string.
pub fn block_is_open() -> bool {
    // SAFETY: a plain read.
    unsafe { raw::IsTransactionOrTransactionBlock() }
}

/// Rolls back any open transaction.
pub fn roll_back(raw: Raw<'_>) {
    // SAFETY: callable in every state.
    unsafe { raw::AbortOutOfAnyTransaction(raw) }
    STARTED.set(false);
}

/// How often [`recover`] tries. PostgresMain tries until elog.c has no more room for errors about errors, and then all processes of the
/// server end. Here only this process ends.
const TRIES: usize = 4;

/// Recovers from an error as PostgresMain does: timers, the transaction, portals, replication slots.
///
/// An error on the way is logged and starts it again, as in PostgresMain, since each try finds less to do. If no try succeeds, the process
/// ends. Returns whether the first try succeeded.
pub fn recover(raw: Raw<'_>) -> bool {
    for tries in 0..TRIES {
        match error::catch(clean_up) {
            Ok(()) => return tries == 0,
            Err(edata) => error::log_caught(edata),
        }
    }
    error::emit_raw(
        raw,
        pg_sys::FATAL,
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        c"could not clean up after the error of a job",
    );
    false
}

fn clean_up(raw: Raw<'_>) {
    // SAFETY: the order is PostgresMain's.
    unsafe {
        // An error sets the count to zero itself.
        pg_sys::InterruptHoldoffCount += 1;
        raw::BackgroundWorkerUnblockSignals();
        raw::disable_all_timeouts(false);
        signals::clear_pending_cancel();
        pretend_backend(false);
        own::lock_roles(false);
        pg_sys::debug_query_string = ptr::null();
        raw::AbortCurrentTransaction(raw);
        raw::PortalErrorCleanup(raw);
        compat::spi_cleanup(raw);
        release_slot(raw);
        compat::drop_temporary_slots(raw);
        pg_sys::jit_reset_after_error();
        raw::AbortOutOfAnyTransaction(raw);
        pg_sys::InterruptHoldoffCount -= 1;
    }
    STARTED.set(false);
}

/// Releases the replication slot that this process has acquired.
///
/// A function that works on a slot keeps it if it fails, for PostgresMain to release. If SQL has caught that failure, a session keeps the
/// slot until it ends. A job's session ends with the job. [`compat::drop_temporary_slots`] would treat an acquired slot as a temporary one.
pub fn release_slot(raw: Raw<'_>) {
    // SAFETY: as PostgresMain does it.
    unsafe {
        if !pg_sys::MyReplicationSlot.is_null() {
            raw::ReplicationSlotRelease(raw);
        }
    }
}

/// Ends the string: messages no longer quote it.
pub fn forget_text() {
    // SAFETY: a plain variable.
    unsafe { pg_sys::debug_query_string = ptr::null() }
}

/// Ends the string: frees its memory, and reports this process to the statistics as idle, under `name` and without a text.
pub fn finish(raw: Raw<'_>, name: &CStr) {
    // SAFETY: no transaction is open.
    unsafe {
        compat::forget_query_id(raw);
        raw::pgstat_report_activity(BackendState::STATE_IDLE, c"".as_ptr());
        raw::pgstat_report_appname(name.as_ptr());
        compat::show_activity(raw, c"idle");
        raw::MemoryContextReset(raw, pg_sys::MessageContext);
    }
}

/// Runs `body` in a transaction of its own. What it allocates lives as long as the job's string.
pub fn in_message_context<T>(raw: Raw<'_>, body: impl FnOnce() -> T) -> T {
    // SAFETY: no transaction is open; the context outlives the job.
    unsafe {
        raw::StartTransactionCommand(raw);
        compat::stop_transaction_timer();
        pg_sys::CurrentMemoryContext = pg_sys::MessageContext;
        let answer = body();
        raw::CommitTransactionCommand(raw);
        answer
    }
}

/// Runs `body` in the memory context in which a backend handles its messages.
pub fn with_message_memory<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: the context lives as long as the process, once there is one.
    unsafe {
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = pg_sys::MessageContext;
        let answer = body();
        pg_sys::CurrentMemoryContext = before;
        answer
    }
}

/// Enters the memory context in which a backend handles its messages. [`finish`] resets it.
pub fn enter_message_context(raw: Raw<'_>) {
    // SAFETY: as PostgresMain does it. A background worker has none at first.
    unsafe {
        if pg_sys::MessageContext.is_null() {
            pg_sys::MessageContext = memory::new_context(raw, pg_sys::TopMemoryContext, c"MessageContext");
        }
        pg_sys::CurrentMemoryContext = pg_sys::MessageContext;
    }
}
