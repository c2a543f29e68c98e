//! PostgreSQL's functions without a guard: an error in one of these jumps directly to the innermost handler.
//!
//! [`Raw`] is the border. An error may jump over a frame that has it, and each function that may raise takes it. It exists within
//! [`catch`](super::error::catch) and in callbacks from PostgreSQL, so a call outside of these does not compile. The compiler cannot tell
//! what a frame that has it owns. `scripts/raw-frames` examines the compiled code, and finds each value that is dropped in such a frame.
//!
//! The signatures are those of PostgreSQL's headers. Differences between server versions are in [`super::compat`].

use core::ffi::{c_char, c_int, c_long, c_void};
use core::marker::PhantomData;
use pgrx::pg_sys::*;

/// The token of raw frames. An error may be raised here, by a `longjmp` that passes over this frame and all above it up to the handler:
/// none of them may own anything that has to be dropped.
///
/// It is bound to the call of the closure that it was made for, and takes no space.
#[derive(Clone, Copy)]
pub struct Raw<'a>(PhantomData<fn(&'a ()) -> &'a ()>);

impl Raw<'_> {
    /// Makes the token. The caller is responsible for the frames.
    ///
    /// # Safety
    /// There is a handler, and no frame between it and the use of the token owns anything.
    pub(super) unsafe fn assume() -> Self {
        Self(PhantomData)
    }
}

/// Declares functions of PostgreSQL that may raise an error. Each takes the token first.
macro_rules! may_raise {
    ($($(#[$condition:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {$(
        $(#[$condition])*
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "PostgreSQL's own")]
        #[inline(always)]
        /// # Safety
        /// As stated in its header.
        $visibility unsafe fn $name(_: $crate::pg::raw::Raw<'_>, $($argument: $type),*) $(-> $result)? {
            #[allow(clashing_extern_declarations, reason = "the guarded twins in pgrx have the same signatures")]
            unsafe extern "C-unwind" {
                fn $name($($argument: $type),*) $(-> $result)?;
            }
            // SAFETY: as the caller promises. An error is caught, as the token shows.
            unsafe { $name($($argument),*) }
        }
    )*};
}
pub(in crate::pg) use may_raise;

/// `PQcommMethods` of `libpq/libpq.h`.
#[repr(C)]
pub struct PQcommMethods {
    pub comm_reset: extern "C-unwind" fn(),
    pub flush: extern "C-unwind" fn() -> c_int,
    pub flush_if_writable: extern "C-unwind" fn() -> c_int,
    pub is_send_pending: extern "C-unwind" fn() -> bool,
    pub putmessage: unsafe extern "C-unwind" fn(c_char, *const c_char, usize) -> c_int,
    pub putmessage_noblock: unsafe extern "C-unwind" fn(c_char, *const c_char, usize),
}

#[allow(
    clashing_extern_declarations,
    reason = "the guarded twins in pgrx have the same signatures"
)]
unsafe extern "C-unwind" {
    // These raise nothing where they are called, as their callers argue, or are only named.
    //
    // miscadmin.h, access/xact.h, utils/timestamp.h, mb/pg_wchar.h, catalog/namespace.h, access/xlog.h, utils/snapmgr.h,
    // utils/guc_tables.h: these raise nothing, and are called many times for each job.
    pub fn GetCurrentTimestamp() -> TimestampTz;
    pub fn GetUserId() -> Oid;
    pub fn GetOuterUserId() -> Oid;
    pub fn GetSessionUserId() -> Oid;
    pub fn GetAuthenticatedUserId() -> Oid;
    pub fn GetCurrentRoleId() -> Oid;
    pub fn GetUserIdAndSecContext(userid: *mut Oid, sec_context: *mut c_int);
    pub fn InSecurityRestrictedOperation() -> bool;
    pub fn IsTransactionOrTransactionBlock() -> bool;
    pub fn GetDatabaseEncoding() -> c_int;
    pub fn GetTempNamespaceState(temp_namespace: *mut Oid, temp_toast_namespace: *mut Oid);
    pub fn get_backup_status() -> SessionBackupState::Type;
    pub fn InvalidateCatalogSnapshot();
    pub fn GetSystemIdentifier() -> u64;
    #[cfg(not(since_16))]
    pub fn get_guc_variables() -> *mut *mut config_generic;
    #[cfg(not(since_16))]
    pub fn GetNumConfigOptions() -> c_int;

    // utils/elog.h
    pub fn FlushErrorState();
    pub fn errcontext_msg(format: *const c_char, ...) -> c_int;

    // libpq/libpq.h, libpq/libpq-be.h
    pub static mut PqCommMethods: *const PQcommMethods;
    pub static mut FrontendProtocol: u32;

    // miscadmin.h, storage/ipc.h, postmaster/bgworker.h, tcop/tcopprot.h, utils/guc.h
    pub fn BackgroundWorkerUnblockSignals();
    pub fn SetUserIdAndSecContext(userid: Oid, sec_context: c_int);
    pub fn SetClientEncoding(encoding: c_int) -> c_int;
    pub fn pg_get_client_encoding() -> c_int;

    // storage/latch.h, storage/lwlock.h, utils/dsa.h
    pub fn ResetLatch(latch: *mut Latch);
    pub fn SetLatch(latch: *mut Latch);
    // It raises if a process holds 200 locks. Here it holds at most four.
    pub fn LWLockAcquire(lock: *mut LWLock, mode: LWLockMode::Type) -> bool;
    pub fn LWLockRelease(lock: *mut LWLock);
    pub fn LWLockReleaseAll();
    // Only for a pointer that this process has mapped.
    pub fn dsa_get_address(area: *mut dsa_area, dp: dsa_pointer) -> *mut c_void;

    // utils/timeout.h
    pub fn RegisterTimeout(id: u32, handler: Option<unsafe extern "C-unwind" fn()>) -> u32;
    pub fn enable_timeout_after(id: u32, delay_ms: c_int);
    pub fn disable_timeout(id: u32, keep_indicator: bool);
    pub fn disable_all_timeouts(keep_indicators: bool);
    pub fn get_timeout_active(id: u32) -> bool;

    // tcop/tcopprot.h, tcop/utility.h, tcop/cmdtag.h, tcop/pquery.h, parser/analyze.h, access/xact.h, utils/portal.h,
    // utils/plancache.h, utils/snapmgr.h, utils/backend_status.h, commands/prepare.h, commands/sequence.h, storage/lock.h,
    // storage/sinval.h, replication/slot.h
    pub fn CreateCommandTag(parsetree: *mut Node) -> CommandTag::Type;
    pub fn GetCommandTagName(tag: CommandTag::Type) -> *const c_char;
    pub fn analyze_requires_snapshot(parsetree: *mut RawStmt) -> bool;
    pub fn check_log_duration(msec_str: *mut c_char, was_logged: bool) -> c_int;
    pub fn setseed(fcinfo: FunctionCallInfo) -> Datum;
    pub fn IsAbortedTransactionBlockState() -> bool;
    pub fn IsTransactionState() -> bool;
    pub fn GetTopTransactionIdIfAny() -> TransactionId;
    pub fn SetCurrentStatementStartTimestamp();
    pub fn pgstat_report_activity(state: BackendState::Type, cmd: *const c_char);
    pub fn pgstat_report_appname(appname: *const c_char);

    // executor/executor.h, nodes/extensible.h, nodes/pg_list.h, nodes/makefuncs.h, optimizer/optimizer.h,
    // optimizer/restrictinfo.h, utils/lsyscache.h, fmgr.h
    pub fn bms_is_member(number: c_int, set: *const Bitmapset) -> bool;
    pub fn bms_next_member(set: *const Bitmapset, before: c_int) -> c_int;

    // catalog/namespace.h, from version 16 on utils/guc_hooks.h
    pub fn assign_search_path(newval: *const c_char, extra: *mut c_void);

    // utils/fmgrprotos.h
    pub fn textlike(fcinfo: FunctionCallInfo) -> Datum;
    pub fn interval_in(fcinfo: FunctionCallInfo) -> Datum;
}

may_raise! {
    // utils/elog.h
    pub fn ThrowErrorData(edata: *mut ErrorData);
    pub fn ReThrowError(edata: *mut ErrorData) -> !;
    pub fn CopyErrorData() -> *mut ErrorData;
    pub fn EmitErrorReport();

    // utils/inval.h
    pub fn InvalidateSystemCaches();
    pub fn CacheRegisterRelcacheCallback(callback: RelcacheCallbackFunction, argument: Datum);

    // miscadmin.h, storage/ipc.h, postmaster/bgworker.h, tcop/tcopprot.h, utils/guc.h
    pub fn ProcessInterrupts();
    pub fn BackgroundWorkerInitializeConnectionByOid(dboid: Oid, useroid: Oid, flags: u32);
    pub fn SetSessionAuthorization(userid: Oid, is_superuser: bool);
    pub fn SetCurrentRoleId(roleid: Oid, is_superuser: bool);
    pub fn process_session_preload_libraries();
    pub fn RestoreLibraryState(start_address: *mut c_char);
    pub fn EstimateLibraryStateSpace() -> usize;
    pub fn SerializeLibraryState(maxsize: usize, start_address: *mut c_char);
    pub fn superuser_arg(roleid: Oid) -> bool;
    #[cfg(since_15)]
    pub fn MarkGUCPrefixReserved(prefix: *const c_char);
    pub fn DefineCustomIntVariable(
        name: *const c_char,
        short_desc: *const c_char,
        long_desc: *const c_char,
        value: *mut c_int,
        boot: c_int,
        min: c_int,
        max: c_int,
        context: GucContext::Type,
        flags: c_int,
        check: GucIntCheckHook,
        assign: GucIntAssignHook,
        show: GucShowHook,
    );
    pub fn DefineCustomEnumVariable(
        name: *const c_char,
        short_desc: *const c_char,
        long_desc: *const c_char,
        value: *mut c_int,
        boot: c_int,
        options: *const config_enum_entry,
        context: GucContext::Type,
        flags: c_int,
        check: GucEnumCheckHook,
        assign: GucEnumAssignHook,
        show: GucShowHook,
    );
    pub fn DefineCustomStringVariable(
        name: *const c_char,
        short_desc: *const c_char,
        long_desc: *const c_char,
        value: *mut *mut c_char,
        boot: *const c_char,
        context: GucContext::Type,
        flags: c_int,
        check: GucStringCheckHook,
        assign: GucStringAssignHook,
        show: GucShowHook,
    );
    pub fn EstimateGUCStateSpace() -> usize;
    pub fn SerializeGUCState(maxsize: usize, start_address: *mut c_char);
    pub fn RestoreGUCState(gucstate: *mut c_void);
    pub fn SetConfigOption(
        name: *const c_char,
        value: *const c_char,
        context: GucContext::Type,
        source: GucSource::Type,
    );
    pub fn set_config_option(
        name: *const c_char,
        value: *const c_char,
        context: GucContext::Type,
        source: GucSource::Type,
        action: GucAction::Type,
        change: bool,
        level: c_int,
        is_reload: bool,
    ) -> c_int;
    pub fn GetConfigOption(name: *const c_char, missing_ok: bool, restrict_privileged: bool) -> *const c_char;
    pub fn GetConfigOptionResetString(name: *const c_char) -> *const c_char;

    // storage/latch.h, storage/lwlock.h, utils/dsa.h
    pub fn WaitLatch(latch: *mut Latch, events: c_int, timeout: c_long, wait_event: u32) -> c_int;
    pub fn dsa_allocate_extended(area: *mut dsa_area, size: usize, flags: c_int) -> dsa_pointer;
    pub fn dsa_free(area: *mut dsa_area, dp: dsa_pointer);

    // storage/shmem.h
    pub fn ShmemInitStruct(name: *const c_char, size: Size, found: *mut bool) -> *mut c_void;
    pub fn RequestAddinShmemSpace(size: Size);

    // utils/timeout.h

    // tcop/tcopprot.h, tcop/utility.h, tcop/cmdtag.h, tcop/pquery.h, parser/analyze.h, access/xact.h, utils/portal.h,
    // utils/plancache.h, utils/snapmgr.h, utils/backend_status.h, commands/prepare.h, commands/sequence.h, storage/lock.h,
    // storage/sinval.h, replication/slot.h
    pub fn ResetUsage();
    pub fn ShowUsage(title: *const c_char);
    pub fn FetchPreparedStatement(name: *const c_char, throw_error: bool) -> *mut PreparedStatement;
    pub fn ReplicationSlotRelease();
    pub fn pg_parse_query(query_string: *const c_char) -> *mut List;
    pub fn pg_plan_queries(
        querytrees: *mut List,
        query_string: *const c_char,
        cursor_options: c_int,
        params: ParamListInfo,
    ) -> *mut List;
    pub fn standard_ProcessUtility(
        statement: *mut PlannedStmt,
        text: *const c_char,
        read_only: bool,
        context: ProcessUtilityContext::Type,
        parameters: ParamListInfo,
        environment: *mut QueryEnvironment,
        to: *mut DestReceiver,
        completion: *mut QueryCompletion,
    );
    pub fn GetCommandLogLevel(parsetree: *mut Node) -> LogStmtLevel::Type;
    pub fn CreatePortal(name: *const c_char, allow_dup: bool, dup_silent: bool) -> Portal;
    pub fn PortalDefineQuery(
        portal: Portal,
        prep_name: *const c_char,
        source: *const c_char,
        tag: CommandTag::Type,
        stmts: *mut List,
        cplan: *mut CachedPlan,
    );
    pub fn PortalStart(portal: Portal, params: ParamListInfo, eflags: c_int, snapshot: Snapshot);
    pub fn PortalSetResultFormat(portal: Portal, n: c_int, formats: *mut i16);
    pub fn PortalHashTableDeleteAll();
    pub fn DropAllPreparedStatements();
    pub fn ResetPlanCache();
    pub fn ResetSequenceCaches();
    pub fn LockAcquire(tag: *const LOCKTAG, mode: LOCKMODE, session: bool, dont_wait: bool) -> u32;
    pub fn LockRelease(tag: *const LOCKTAG, mode: LOCKMODE, session: bool) -> bool;
    pub fn LockReleaseAll(method: LOCKMETHODID, all: bool);
    pub fn ProcessCatchupInterrupt();
    pub fn DirectFunctionCall1Coll(func: PGFunction, collation: Oid, arg1: Datum) -> Datum;
    pub fn DirectFunctionCall2Coll(func: PGFunction, collation: Oid, arg1: Datum, arg2: Datum) -> Datum;
    pub fn DirectFunctionCall3Coll(func: PGFunction, collation: Oid, arg1: Datum, arg2: Datum, arg3: Datum) -> Datum;
    pub fn PortalDrop(portal: Portal, is_top_commit: bool);
    pub fn PortalErrorCleanup();
    pub fn StartTransactionCommand();
    pub fn CommitTransactionCommand();
    pub fn AbortCurrentTransaction();
    pub fn AbortOutOfAnyTransaction();
    pub fn BeginImplicitTransactionBlock();
    pub fn EndImplicitTransactionBlock();
    pub fn CommandCounterIncrement();
    pub fn GetTransactionSnapshot() -> Snapshot;
    pub fn PushActiveSnapshot(snapshot: Snapshot);
    pub fn PopActiveSnapshot();

    // executor/tuptable.h, access/detoast.h, utils/tuplestore.h
    pub fn slot_getsomeattrs_int(slot: *mut TupleTableSlot, attnum: c_int);
    pub fn ExecStoreMinimalTuple(
        mtup: MinimalTuple,
        slot: *mut TupleTableSlot,
        should_free: bool,
    ) -> *mut TupleTableSlot;
    pub fn tuplestore_puttupleslot(state: *mut Tuplestorestate, slot: *mut TupleTableSlot);
    pub fn tuplestore_putvalues(state: *mut Tuplestorestate, desc: TupleDesc, values: *mut Datum, isnull: *mut bool);
    pub fn tuplestore_gettupleslot(
        state: *mut Tuplestorestate,
        forward: bool,
        copy: bool,
        slot: *mut TupleTableSlot,
    ) -> bool;
    pub fn tuplestore_rescan(state: *mut Tuplestorestate);
    pub fn tuplestore_end(state: *mut Tuplestorestate);
    pub fn ExecStoreVirtualTuple(slot: *mut TupleTableSlot) -> *mut TupleTableSlot;
    pub fn MakeSingleTupleTableSlot(desc: TupleDesc, ops: *const TupleTableSlotOps) -> *mut TupleTableSlot;
    pub fn detoast_external_attr(attr: *mut varlena) -> *mut varlena;

    // mb/pg_wchar.h, utils/builtins.h, utils/lsyscache.h, fmgr.h
    pub fn pg_do_encoding_conversion(src: *mut u8, len: c_int, from: c_int, to: c_int) -> *mut u8;
    pub fn cstring_to_text_with_len(s: *const c_char, len: c_int) -> *mut text;
    pub fn format_type_be(type_oid: Oid) -> *mut c_char;
    pub fn getTypeInputInfo(kind: Oid, input: *mut Oid, parameter: *mut Oid);
    pub fn getTypeOutputInfo(kind: Oid, output: *mut Oid, is_varlena: *mut bool);
    pub fn OidInputFunctionCall(function: Oid, text: *mut c_char, parameter: Oid, typmod: i32) -> Datum;
    pub fn OidOutputFunctionCall(function: Oid, value: Datum) -> *mut c_char;
    pub fn get_typlenbyvalalign(typid: Oid, len: *mut i16, by_value: *mut bool, align: *mut c_char);

    // miscadmin.h, commands/dbcommands.h, nodes/params.h, access/tupdesc.h, access/htup_details.h, utils/typcache.h,
    // utils/array.h, executor/executor.h, funcapi.h
    pub fn GetUserNameFromId(roleid: Oid, no_error: bool) -> *mut c_char;
    pub fn get_database_name(dbid: Oid) -> *mut c_char;
    pub fn makeParamList(count: c_int) -> ParamListInfo;
    pub fn BuildParamLogString(params: ParamListInfo, texts: *mut *mut c_char, longest: c_int) -> *mut c_char;
    pub fn copyObjectImpl(object: *const c_void) -> *mut c_void;
    pub fn CreateTemplateTupleDesc(natts: c_int) -> TupleDesc;
    pub fn TupleDescInitEntry(
        desc: TupleDesc,
        number: AttrNumber,
        name: *const c_char,
        typid: Oid,
        typmod: i32,
        dimensions: c_int,
    );
    pub fn TupleDescCopyEntry(to: TupleDesc, to_number: AttrNumber, from: TupleDesc, from_number: AttrNumber);
    pub fn BlessTupleDesc(desc: TupleDesc) -> TupleDesc;
    pub fn lookup_rowtype_tupdesc_noerror(type_id: Oid, typmod: i32, no_error: bool) -> TupleDesc;
    pub fn lookup_type_cache(type_id: Oid, flags: c_int) -> *mut TypeCacheEntry;
    pub fn get_typtype(typid: Oid) -> c_char;
    pub fn get_fn_expr_rettype(flinfo: *mut FmgrInfo) -> Oid;
    pub fn get_call_result_type(fcinfo: FunctionCallInfo, kind: *mut Oid, desc: *mut TupleDesc) -> TypeFuncClass::Type;
    pub fn getBaseType(typid: Oid) -> Oid;
    pub fn get_range_subtype(typid: Oid) -> Oid;
    pub fn get_multirange_range(typid: Oid) -> Oid;
    pub fn get_element_type(typid: Oid) -> Oid;
    pub fn lookup_rowtype_tupdesc(type_id: Oid, typmod: i32) -> TupleDesc;
    pub fn DecrTupleDescRefCount(desc: TupleDesc);
    pub fn heap_form_tuple(desc: TupleDesc, values: *mut Datum, isnull: *mut bool) -> HeapTuple;
    pub fn heap_deform_tuple(tuple: HeapTuple, desc: TupleDesc, values: *mut Datum, isnull: *mut bool);
    pub fn HeapTupleHeaderGetDatum(header: HeapTupleHeader) -> Datum;
    pub fn pg_detoast_datum(datum: *mut varlena) -> *mut varlena;
    pub fn deconstruct_array(
        array: *mut ArrayType,
        elmtype: Oid,
        elmlen: c_int,
        elmbyval: bool,
        elmalign: c_char,
        elems: *mut *mut Datum,
        nulls: *mut *mut bool,
        count: *mut c_int,
    );
    pub fn construct_md_array(
        elems: *mut Datum,
        nulls: *mut bool,
        ndims: c_int,
        dims: *mut c_int,
        lbs: *mut c_int,
        elmtype: Oid,
        elmlen: c_int,
        elmbyval: bool,
        elmalign: c_char,
    ) -> *mut ArrayType;

    // utils/inval.h, utils/syscache.h, access/table.h, access/skey.h, access/genam.h
    pub fn AcceptInvalidationMessages();

    pub fn ReleaseSysCache(row: HeapTuple);
    pub fn table_open(relation: Oid, mode: LOCKMODE) -> Relation;
    pub fn table_close(relation: Relation, mode: LOCKMODE);
    pub fn ScanKeyInit(
        entry: *mut ScanKeyData,
        column: AttrNumber,
        strategy: StrategyNumber,
        procedure: Oid,
        argument: Datum,
    );
    pub fn systable_beginscan(
        relation: Relation,
        index: Oid,
        index_ok: bool,
        snapshot: Snapshot,
        nkeys: c_int,
        key: *mut ScanKeyData,
    ) -> SysScanDesc;
    pub fn systable_getnext(scan: SysScanDesc) -> HeapTuple;
    pub fn systable_endscan(scan: SysScanDesc);

    // parser/parse_coerce.h, parser/parse_collate.h, optimizer/optimizer.h, executor/executor.h, utils/expandeddatum.h
    pub fn coerce_to_target_type(
        pstate: *mut ParseState,
        expr: *mut Node,
        exprtype: Oid,
        targettype: Oid,
        targettypmod: i32,
        context: CoercionContext::Type,
        format: CoercionForm::Type,
        location: c_int,
    ) -> *mut Node;
    pub fn assign_expr_collations(pstate: *mut ParseState, expr: *mut Node);
    pub fn expression_planner(expr: *mut Expr) -> *mut Expr;
    pub fn ExecInitExpr(expr: *mut Expr, parent: *mut PlanState) -> *mut ExprState;
    pub fn CreateStandaloneExprContext() -> *mut ExprContext;
    pub fn MakeExpandedObjectReadOnlyInternal(datum: Datum) -> Datum;

    // executor/executor.h, nodes/extensible.h, nodes/pg_list.h, nodes/makefuncs.h, optimizer/optimizer.h,
    // optimizer/restrictinfo.h, utils/lsyscache.h, fmgr.h
    pub fn ExecInitTableFunctionResult(
        expr: *mut Expr,
        context: *mut ExprContext,
        parent: *mut PlanState,
    ) -> *mut SetExprState;
    pub fn ExecMakeTableFunctionResult(
        function: *mut SetExprState,
        context: *mut ExprContext,
        arguments: MemoryContext,
        expected: TupleDesc,
        random_access: bool,
    ) -> *mut Tuplestorestate;
    pub fn ExecScan(
        node: *mut ScanState,
        access: ExecScanAccessMtd,
        recheck: ExecScanRecheckMtd,
    ) -> *mut TupleTableSlot;
    pub fn ExecScanReScan(node: *mut ScanState);
    pub fn RegisterCustomScanMethods(methods: *const CustomScanMethods);
    pub fn lappend(list: *mut List, datum: *mut c_void) -> *mut List;
    pub fn makeVar(
        number: c_int,
        column: AttrNumber,
        kind: Oid,
        typmod: i32,
        collation: Oid,
        levels_up: Index,
    ) -> *mut Var;
    pub fn makeTargetEntry(expr: *mut Expr, number: AttrNumber, name: *mut c_char, junk: bool) -> *mut TargetEntry;
    pub fn pull_varattnos(node: *mut Node, number: Index, columns: *mut *mut Bitmapset);
    pub fn extract_actual_clauses(list: *mut List, pseudoconstant: bool) -> *mut List;
    pub fn get_func_name(function: Oid) -> *mut c_char;
    pub fn fmgr_info(function: Oid, info: *mut FmgrInfo);

    // executor/spi.h, utils/snapmgr.h
    pub fn SPI_connect() -> c_int;
    pub fn SPI_finish() -> c_int;
    pub fn GetLatestSnapshot() -> Snapshot;

    // utils/palloc.h, utils/memutils.h
    pub fn palloc(size: usize) -> *mut c_void;
    pub fn palloc0(size: usize) -> *mut c_void;
    pub fn pstrdup(text: *const c_char) -> *mut c_char;
    pub fn pfree(pointer: *mut c_void);
    pub fn MemoryContextAllocHuge(context: MemoryContext, size: usize) -> *mut c_void;
    pub fn MemoryContextReset(context: MemoryContext);
    pub fn MemoryContextDelete(context: MemoryContext);
    pub fn MemoryContextRegisterResetCallback(context: MemoryContext, callback: *mut MemoryContextCallback);
    #[cfg(since_16)]
    pub fn GetMemoryChunkSpace(pointer: *mut c_void) -> usize;
    #[cfg(since_16)]
    pub fn GenerationContextCreate(
        parent: MemoryContext,
        name: *const c_char,
        min: usize,
        init: usize,
        max: usize,
    ) -> MemoryContext;
    pub fn AllocSetContextCreateInternal(
        parent: MemoryContext,
        name: *const c_char,
        min: usize,
        init: usize,
        max: usize,
    ) -> MemoryContext;

    // storage/fd.h, commands/tablespace.h
    pub fn GetTempTablespaces(spaces: *mut Oid, max: c_int) -> c_int;
    pub fn PrepareTempTablespaces();

    // storage/buffile.h
    pub fn BufFileRead(file: *mut BufFile, ptr: *mut c_void, size: usize) -> usize;
    pub fn BufFileWrite(file: *mut BufFile, ptr: *mut c_void, size: usize);
    pub fn BufFileClose(file: *mut BufFile);
    pub fn BufFileSeek(file: *mut BufFile, fileno: c_int, offset: off_t, whence: c_int) -> c_int;
}

pub const SIGHUP: c_int = 1;
pub const SIGINT: c_int = 2;
pub const SIGTERM: c_int = 15;

// signal.h, unistd.h, sched.h, stdlib.h
unsafe extern "C" {
    pub fn kill(pid: c_int, signal: c_int) -> c_int;
    pub fn getppid() -> c_int;
    pub fn sched_yield() -> c_int;
    pub fn atexit(handler: extern "C" fn()) -> c_int;
    pub fn _exit(code: c_int) -> !;
}
