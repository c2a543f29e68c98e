//! A scan that passes a function's rows to the executor one by one. Raw, except where noted.
//!
//! PostgreSQL's FunctionScan collects all rows of a function before it returns the first one. This scan replaces it for functions of this
//! library, and lets the function provide a [`Source`] instead of rows. It does so only if rows are asked for once, from the first on, in
//! one run of the executor:
//!
//! * The whole query is run forward, and once, so no row is asked for or examined after the run is over. The rest of the source is then
//!   read and dropped, so that a late error still fails the statement (`shut_down`).
//! * Nothing above the scan can restart it: it is not below the inner side of a nested loop.
//! * No row is examined again by a recheck after a concurrent update.
//!
//! Otherwise the planner keeps the FunctionScan, or the scan does what a FunctionScan does: the function fills a tuplestore.

use crate::pg::error::{self, Result};
use crate::pg::function::Entry;
use crate::pg::function::rows::Rows;
use crate::pg::raw::{self, Raw};
use crate::pg::value::assign::Assignments;
use crate::pg::{compat, memory};
use core::cell::Cell;
use core::ffi::{CStr, c_int, c_void};
use core::ptr;
use pgrx::pg_sys::{
    self, CustomExecMethods, CustomPath, CustomPathMethods, CustomScan, CustomScanMethods, CustomScanState, EState,
    List, MemoryContext, MemoryContextCallback, Node, NodeTag, Path, Plan, PlannerInfo, RelOptInfo, SetExprState,
    TupleTableSlot, Tuplestorestate,
};

const NAME: &CStr = c"PgBackgroundResult";

/// The source of a scan's rows.
pub trait Source {
    /// Shows the next row in the scan's rows, where it stays until the next call. Returns false if [`Source::go_on`] must be called first.
    /// Called for each row.
    fn show(&mut self, raw: Raw) -> bool;
    /// Does what is needed before the next row can be shown. Guarded.
    fn go_on(&mut self) -> Result<Turn>;
    /// Does everything that is left to do, without showing rows. Guarded.
    fn drop_rest(&mut self) -> Result<()>;
    /// Whether the process exits and the resources of the source have been released by other means.
    fn is_lost(&self) -> bool;
}

/// The result of [`Source::go_on`].
pub enum Turn {
    /// There may be a row now.
    More,
    /// There are no more rows.
    End,
    /// The rest of the rows is here.
    Collected(Rows),
}

/// A scan that waits for its source.
#[derive(Clone, Copy)]
pub struct Scan(*mut ResultScan);

impl Scan {
    pub(in crate::pg) fn of(extra: *mut c_void) -> Option<Self> {
        (!extra.is_null()).then_some(Self(extra.cast()))
    }

    /// The rows that the scan shows.
    pub fn rows(&self) -> Rows {
        // SAFETY: the scan's slots live as long as its query.
        unsafe {
            let slot = (*self.0).base.ss.ss_ScanTupleSlot;
            Rows::shown((*slot).tts_tupleDescriptor, (*self.0).row, (*self.0).assignments)
        }
    }

    /// Makes `source` the source of the scan's rows.
    pub fn begin(&self, source: impl Source + 'static) {
        // SAFETY: the keeper was made when the scan began.
        unsafe { (*(*self.0).keeper).source = Some(Box::new(source)) };
    }
}

/// The scan's state in the executor.
#[repr(C)]
struct ResultScan {
    base: CustomScanState,
    function: *mut SetExprState,
    /// The memory of the function's arguments while it runs.
    arguments: MemoryContext,
    query_memory: MemoryContext,
    /// The row as it came. The scan's own slot shares its values.
    row: *mut TupleTableSlot,
    assignments: *mut Assignments,
    /// The last column that the query needs.
    needed: c_int,
    eflags: c_int,
    /// Whether the position in the plan is one at which rows are asked for once.
    asked_once: bool,
    begun: bool,
    streams: bool,
    /// The rows that were collected.
    store: *mut Tuplestorestate,
    keeper: *mut Keeper,
}

/// Drops the source when the query's memory is freed at the latest, so also after an error.
#[repr(C)]
struct Keeper {
    callback: MemoryContextCallback,
    source: Option<Box<dyn Source>>,
    /// The query of the scan. `runs_once` tells whether its present run is forward, and to the last row or to one after which it is not run
    /// again.
    query: *mut EState,
    runs_once: bool,
    next: *mut Keeper,
}

thread_local! {
    /// All scans of this process. Most sessions have none.
    static SCANS: Cell<*mut Keeper> = const { Cell::new(ptr::null_mut()) };
    static ENTRIES: Cell<&'static [Entry]> = const { Cell::new(&[]) };
    static NEXT: Cell<pg_sys::set_rel_pathlist_hook_type> = const { Cell::new(None) };
}

static PATH_METHODS: Shared<CustomPathMethods> = Shared(CustomPathMethods {
    CustomName: NAME.as_ptr(),
    PlanCustomPath: Some(plan),
    ReparameterizeCustomPathByChild: None,
});

static SCAN_METHODS: Shared<CustomScanMethods> = Shared(CustomScanMethods {
    CustomName: NAME.as_ptr(),
    CreateCustomScanState: Some(create),
});

static EXEC_METHODS: Shared<CustomExecMethods> = Shared(CustomExecMethods {
    CustomName: NAME.as_ptr(),
    BeginCustomScan: Some(begin),
    ExecCustomScan: Some(execute),
    EndCustomScan: Some(end),
    ReScanCustomScan: Some(rescan),
    MarkPosCustomScan: None,
    RestrPosCustomScan: None,
    EstimateDSMCustomScan: None,
    InitializeDSMCustomScan: None,
    ReInitializeDSMCustomScan: None,
    InitializeWorkerCustomScan: None,
    ShutdownCustomScan: Some(shut_down),
    ExplainCustomScan: None,
});

struct Shared<T>(T);

// SAFETY: never written to.
unsafe impl<T> Sync for Shared<T> {}

/// Makes this scan the plan for the functions behind `entries`. Called once per process.
pub fn init(raw: Raw<'_>, entries: &'static [Entry]) {
    ENTRIES.set(entries);
    // SAFETY: the methods are static; the hook is called in this thread, and the previous hook is called too.
    unsafe {
        raw::RegisterCustomScanMethods(raw, &raw const SCAN_METHODS.0);
        NEXT.set(pg_sys::set_rel_pathlist_hook);
        pg_sys::set_rel_pathlist_hook = Some(offer);
    }
    compat::watch_runs(note_run);
}

/// Called when a query is run: notes in its scans how it is run. An error that ends the run also ends the scans, with their memory.
fn note_run(query: *mut EState, once: bool) {
    let mut at = SCANS.get();
    // SAFETY: a keeper removes itself from the list before its memory is freed.
    while let Some(keeper) = unsafe { at.as_mut() } {
        if ptr::eq(keeper.query, query) {
            keeper.runs_once = once;
        }
        at = keeper.next;
    }
}

fn is_ours(function: &pg_sys::FmgrInfo) -> bool {
    function
        .fn_addr
        .is_some_and(|found| ENTRIES.get().iter().any(|entry| *entry as usize == found as usize))
}

/// Iterates over the pointers in a list.
unsafe fn pointers<T>(list: *mut List) -> impl Iterator<Item = *mut T> {
    // SAFETY: NIL, or a list of pointers to such nodes that exists and is not changed meanwhile.
    let len = unsafe { list.as_ref() }.map_or(0, |list| list.length as usize);
    (0..len).map(move |n| {
        // SAFETY: `n` is below the length.
        unsafe { (*(*list).elements.add(n)).ptr_value.cast() }
    })
}

unsafe fn first<T>(list: *mut List) -> Option<*mut T> {
    // SAFETY: as there.
    unsafe { pointers(list).next() }
}

unsafe fn is_a(node: *mut c_void, tag: NodeTag) -> bool {
    // SAFETY: NULL or a node.
    unsafe { !node.is_null() && (*node.cast::<Node>()).type_ == tag }
}

/// Hook of the planner, called when it has found the paths of a relation. Replaces the path of one of these functions.
unsafe extern "C-unwind" fn offer(
    root: *mut PlannerInfo,
    rel: *mut RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the planner's own structs.
    unsafe {
        let raw = Raw::assume();
        if let Some(next) = NEXT.get() {
            next(root, rel, rti, rte);
        }
        if (*rte).rtekind == pg_sys::RTEKind::RTE_FUNCTION {
            // All queries pass through here. If this fails, the FunctionScan stays.
            error::if_possible(|| replace(raw, root, rel, rte));
        }
    }
}

unsafe fn replace(raw: Raw<'_>, root: *mut PlannerInfo, rel: *mut RelOptInfo, rte: *mut pg_sys::RangeTblEntry) {
    // SAFETY: the planner's own structs.
    unsafe {
        if let Some(path) = only_path(rel)
            && is_for_us(raw, root, rel, rte)
        {
            let ours = raw::palloc0(raw, size_of::<CustomPath>()).cast::<CustomPath>();
            (*ours).path = *path;
            (*ours).path.type_ = NodeTag::T_CustomPath;
            (*ours).path.pathtype = NodeTag::T_CustomScan;
            (*ours).flags = compat::PATH_FLAGS;
            (*ours).methods = &raw const PATH_METHODS.0;
            (*rel).pathlist = raw::lappend(raw, ptr::null_mut(), ours.cast());
        }
    }
}

/// Returns the path of a FunctionScan, if it is the only path.
unsafe fn only_path(rel: *mut RelOptInfo) -> Option<*mut Path> {
    // SAFETY: the planner's own structs.
    unsafe {
        let mut paths = pointers::<Path>((*rel).pathlist);
        let path = paths.next().filter(|_| paths.next().is_none())?;
        ((*path).type_ == NodeTag::T_Path
            && (*path).pathtype == NodeTag::T_FunctionScan
            && (*path).param_info.is_null()
            && !(*path).parallel_safe)
            .then_some(path)
    }
}

/// Whether the relation is one of these functions with a column definition list, and its rows are asked for once and column by column. That
/// is certain only at the top level of a query that changes no existing rows.
unsafe fn is_for_us(
    raw: Raw<'_>,
    root: *mut PlannerInfo,
    rel: *mut RelOptInfo,
    rte: *mut pg_sys::RangeTblEntry,
) -> bool {
    // SAFETY: the planner's own structs.
    unsafe {
        let query = (*root).parse;
        let reads =
            (*query).commandType == pg_sys::CmdType::CMD_SELECT || (*query).commandType == pg_sys::CmdType::CMD_INSERT;
        if !reads
            || !(*query).rowMarks.is_null()
            || (*root).query_level != 1
            || !(*root).parent_root.is_null()
            || (*rel).reloptkind != pg_sys::RelOptKind::RELOPT_BASEREL
            || !(*rel).lateral_relids.is_null()
            || (*rte).funcordinality
            || looks_at_whole_rows(raw, rel)
        {
            return false;
        }
        let mut functions = pointers::<pg_sys::RangeTblFunction>((*rte).functions);
        let (Some(function), None) = (functions.next(), functions.next()) else {
            return false;
        };
        let call = (*function).funcexpr;
        if (*function).funccoltypes.is_null() || !is_a(call.cast(), NodeTag::T_FuncExpr) {
            return false;
        }
        let call = call.cast::<pg_sys::FuncExpr>();
        let name = raw::get_func_name(raw, (*call).funcid);
        if !(*call).funcretset || name.is_null() || !CStr::from_ptr(name).to_bytes().starts_with(b"pg_background_") {
            return false;
        }
        let mut info = pg_sys::FmgrInfo::default();
        raw::fmgr_info(raw, (*call).funcid, &mut info);
        is_ours(&info)
    }
}

unsafe fn looks_at_whole_rows(raw: Raw<'_>, rel: *mut RelOptInfo) -> bool {
    const WHOLE_ROW: c_int = -pg_sys::FirstLowInvalidHeapAttributeNumber;
    // SAFETY: the planner's own structs.
    unsafe {
        let mut columns = ptr::null_mut();
        raw::pull_varattnos(raw, (*(*rel).reltarget).exprs.cast(), (*rel).relid, &mut columns);
        for clause in pointers::<pg_sys::RestrictInfo>((*rel).baserestrictinfo) {
            raw::pull_varattnos(raw, (*clause).clause.cast(), (*rel).relid, &mut columns);
        }
        raw::bms_is_member(WHOLE_ROW, columns)
    }
}

/// Makes the plan of the path. Its tuples have all columns of the definition list.
unsafe extern "C-unwind" fn plan(
    root: *mut PlannerInfo,
    rel: *mut RelOptInfo,
    path: *mut CustomPath,
    targets: *mut List,
    clauses: *mut List,
    _children: *mut List,
) -> *mut Plan {
    // SAFETY: the planner's own structs; the lists of a definition list have the same length.
    unsafe {
        let raw = Raw::assume();
        let number = (*rel).relid;
        let rte = *(*root).simple_rte_array.add(number as usize);
        let scan = raw::palloc0(raw, size_of::<CustomScan>()).cast::<CustomScan>();
        (*scan).scan.plan.type_ = NodeTag::T_CustomScan;
        (*scan).scan.plan.targetlist = targets;
        (*scan).scan.plan.qual = raw::extract_actual_clauses(raw, clauses, false);
        (*scan).flags = (*path).flags;
        (*scan).methods = &raw const SCAN_METHODS.0;
        if let Some(function) = first::<pg_sys::RangeTblFunction>((*rte).functions) {
            (*scan).custom_exprs = raw::lappend(raw, ptr::null_mut(), (*function).funcexpr.cast());
            let names = pointers::<c_void>((*(*rte).eref).colnames);
            for (n, name) in names.take((*(*function).funccoltypes).length as usize).enumerate() {
                let column = (n + 1) as pg_sys::AttrNumber;
                let var = raw::makeVar(
                    raw,
                    number as c_int,
                    column,
                    (*(*(*function).funccoltypes).elements.add(n)).oid_value,
                    (*(*(*function).funccoltypmods).elements.add(n)).int_value,
                    (*(*(*function).funccolcollations).elements.add(n)).oid_value,
                    0,
                );
                let entry = raw::makeTargetEntry(
                    raw,
                    var.cast(),
                    column,
                    raw::pstrdup(raw, compat::string_of(name)),
                    false,
                );
                (*scan).custom_scan_tlist = raw::lappend(raw, (*scan).custom_scan_tlist, entry.cast());
            }
        }
        scan.cast()
    }
}

unsafe extern "C-unwind" fn create(_scan: *mut CustomScan) -> *mut Node {
    // SAFETY: all-zero is a valid state.
    unsafe {
        let raw = Raw::assume();
        let state = raw::palloc0(raw, size_of::<ResultScan>()).cast::<ResultScan>();
        (*state).base.ss.ps.type_ = NodeTag::T_CustomScanState;
        (*state).base.methods = &raw const EXEC_METHODS.0;
        state.cast()
    }
}

/// Prepares the call. Like a FunctionScan it checks here whether the function may be called. It has no side effects, since EXPLAIN gets
/// here too.
unsafe extern "C-unwind" fn begin(node: *mut CustomScanState, estate: *mut EState, eflags: c_int) {
    // SAFETY: the executor's own structs, and the plan made above.
    unsafe {
        let raw = Raw::assume();
        let state = node.cast::<ResultScan>();
        let ps = &raw mut (*node).ss.ps;
        let scan = (*ps).plan.cast::<CustomScan>();
        let Some(call) = first::<pg_sys::Expr>((*scan).custom_exprs) else {
            return;
        };
        (*state).function = raw::ExecInitTableFunctionResult(raw, call, (*ps).ps_ExprContext, ps);
        (*state).query_memory = (*estate).es_query_cxt;
        (*state).arguments = memory::new_context(raw, (*estate).es_query_cxt, c"pg_background arguments");
        (*state).eflags = eflags;
        (*state).asked_once = asks_once((*(*estate).es_plannedstmt).planTree, (*ps).plan);

        let slot = (*node).ss.ss_ScanTupleSlot;
        let desc = (*slot).tts_tupleDescriptor;
        let row = raw::MakeSingleTupleTableSlot(raw, desc, &raw const pg_sys::TTSOpsMinimalTuple);
        let (values, nulls) = ((*row).tts_values, (*row).tts_isnull);
        ptr::write_bytes(values, 0, (*desc).natts as usize);
        ptr::write_bytes(nulls.cast::<u8>(), 1, (*desc).natts as usize);
        ((*slot).tts_values, (*slot).tts_isnull) = (values, nulls);
        (*state).row = row;
        (*state).assignments = Assignments::none(raw);
        (*state).needed = last_column(raw, (*ps).plan);

        let keeper = raw::palloc0(raw, size_of::<Keeper>()).cast::<Keeper>();
        ptr::write(
            keeper,
            Keeper {
                callback: MemoryContextCallback {
                    func: Some(vanish),
                    arg: keeper.cast(),
                    next: ptr::null_mut(),
                },
                source: None,
                query: estate,
                runs_once: false,
                next: SCANS.get(),
            },
        );
        raw::MemoryContextRegisterResetCallback(raw, (*estate).es_query_cxt, &raw mut (*keeper).callback);
        SCANS.set(keeper);
        (*state).keeper = keeper;
    }
}

/// Whether `plan` is reached from `top` without passing a node that asks for rows more than once, or in another process.
unsafe fn asks_once(top: *mut Plan, plan: *mut Plan) -> bool {
    // SAFETY: the executor's own structs.
    unsafe {
        if top.is_null() || ptr::eq(top, plan) {
            return !top.is_null();
        }
        match (*top).type_ {
            NodeTag::T_Gather | NodeTag::T_GatherMerge | NodeTag::T_RecursiveUnion => false,
            NodeTag::T_HashJoin | NodeTag::T_MergeJoin => {
                asks_once((*top).lefttree, plan) || asks_once((*top).righttree, plan)
            }
            _ => asks_once((*top).lefttree, plan),
        }
    }
}

/// The last column that the scan's targets and conditions use.
unsafe fn last_column(raw: Raw<'_>, plan: *mut Plan) -> c_int {
    // SAFETY: a plan whose expressions refer to the scan's tuple.
    unsafe {
        let mut columns = ptr::null_mut();
        raw::pull_varattnos(raw, (*plan).targetlist.cast(), pg_sys::INDEX_VAR as _, &mut columns);
        raw::pull_varattnos(raw, (*plan).qual.cast(), pg_sys::INDEX_VAR as _, &mut columns);
        let mut last = 0;
        let mut member = -1;
        loop {
            member = raw::bms_next_member(columns, member);
            if member < 0 {
                return last;
            }
            last = member + pg_sys::FirstLowInvalidHeapAttributeNumber;
        }
    }
}

unsafe extern "C-unwind" fn execute(node: *mut CustomScanState) -> *mut TupleTableSlot {
    // SAFETY: the executor's own structs.
    unsafe { raw::ExecScan(Raw::assume(), &raw mut (*node).ss, Some(next), Some(recheck)) }
}

unsafe extern "C-unwind" fn recheck(_node: *mut pg_sys::ScanState, _slot: *mut TupleTableSlot) -> bool {
    true
}

/// Returns the next row, in the scan's slot.
unsafe extern "C-unwind" fn next(node: *mut pg_sys::ScanState) -> *mut TupleTableSlot {
    // SAFETY: the state made above. Nothing is owned here: the source is the keeper's.
    unsafe {
        let raw = Raw::assume();
        let state = node.cast::<ResultScan>();
        let slot = (*node).ss_ScanTupleSlot;
        if let Some(clear) = (*(*slot).tts_ops).clear {
            clear(slot);
        }
        if !(*state).begun {
            call(raw, state);
        }
        loop {
            if !(*state).store.is_null() {
                let forward = (*(*node).ps.state).es_direction != pg_sys::ScanDirection::BackwardScanDirection;
                if !raw::tuplestore_gettupleslot(raw, (*state).store, forward, false, (*state).row) {
                    return slot;
                }
                break;
            }
            let Some(source) = &mut (*(*state).keeper).source else {
                return slot;
            };
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = (*state).query_memory;
            let shown = error::at_border(|| source.show(raw));
            pg_sys::CurrentMemoryContext = before;
            if shown {
                break;
            }
            go_on(raw, state);
        }
        if (*state).needed > c_int::from((*(*state).row).tts_nvalid) {
            raw::slot_getsomeattrs_int(raw, (*state).row, (*state).needed);
        }
        raw::ExecStoreVirtualTuple(raw, slot)
    }
}

/// Calls the function. If it is the planned one and rows are asked for once, it provides a source, else rows.
unsafe fn call(raw: Raw<'_>, state: *mut ResultScan) {
    const AGAIN: u32 = pg_sys::EXEC_FLAG_REWIND | pg_sys::EXEC_FLAG_BACKWARD | pg_sys::EXEC_FLAG_MARK;
    // SAFETY: the state made above.
    unsafe {
        let ps = &raw mut (*state).base.ss.ps;
        let estate = (*ps).state;
        let function = (*state).function;
        (*state).begun = true;
        (*state).streams = (*state).asked_once
            && (*state).eflags as u32 & AGAIN == 0
            && (*estate).es_top_eflags as u32 & pg_sys::EXEC_FLAG_BACKWARD == 0
            && (*estate).es_epq_active.is_null()
            && (*(*state).keeper).runs_once
            && is_ours(&(*function).func);
        if (*state).streams {
            (*function).func.fn_extra = state.cast();
        }
        let store = raw::ExecMakeTableFunctionResult(
            raw,
            function,
            (*ps).ps_ExprContext,
            (*state).arguments,
            (*(*state).base.ss.ss_ScanTupleSlot).tts_tupleDescriptor,
            (*state).eflags as u32 & pg_sys::EXEC_FLAG_BACKWARD != 0,
        );
        if (*state).streams {
            (*function).func.fn_extra = ptr::null_mut();
        }
        if (*(*state).keeper).source.is_some() {
            // The function manager has made an empty one.
            raw::tuplestore_end(raw, store);
        } else {
            (*state).store = store;
        }
    }
}

/// Lets the source continue. The source is dropped before its error is raised.
unsafe fn go_on(raw: Raw<'_>, state: *mut ResultScan) {
    // SAFETY: the state made above.
    unsafe {
        let keeper = (*state).keeper;
        let turn = error::at_border(|| {
            let turn = match &mut (*keeper).source {
                Some(source) => source.go_on(),
                None => Ok(Turn::End),
            };
            if !matches!(turn, Ok(Turn::More)) {
                (*keeper).source = None;
            }
            turn
        });
        match turn {
            Ok(Turn::More | Turn::End) => (),
            Ok(Turn::Collected(rows)) => (*state).store = rows.store(),
            Err(failure) => error::throw(raw, failure),
        }
    }
}

/// Ends the run: no more rows are asked for. The rest is read all the same, since the job's error is also the statement's error.
unsafe extern "C-unwind" fn shut_down(node: *mut CustomScanState) {
    // SAFETY: the state made above; as in `go_on`.
    unsafe {
        let raw = Raw::assume();
        let state = node.cast::<ResultScan>();
        let keeper = (*state).keeper;
        if keeper.is_null() || (*keeper).source.is_none() {
            return;
        }
        // The row may point into memory of the source.
        if let Some(clear) = (*(*(*state).row).tts_ops).clear {
            clear((*state).row);
        }
        let dropped = error::at_border(|| {
            let dropped = match &mut (*keeper).source {
                Some(source) => source.drop_rest(),
                None => Ok(()),
            };
            (*keeper).source = None;
            dropped
        });
        if let Err(failure) = dropped {
            error::throw(raw, failure);
        }
    }
}

/// Begins again with the first of the collected rows.
unsafe extern "C-unwind" fn rescan(node: *mut CustomScanState) {
    // SAFETY: the state made above.
    unsafe {
        let raw = Raw::assume();
        let state = node.cast::<ResultScan>();
        raw::ExecScanReScan(raw, &raw mut (*node).ss);
        if (*state).streams {
            error::raise_raw(
                raw,
                pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                &[b"rows of a background job are asked for twice"],
                None,
            );
        }
        if !(*state).store.is_null() {
            raw::tuplestore_rescan(raw, (*state).store);
        }
    }
}

unsafe extern "C-unwind" fn end(node: *mut CustomScanState) {
    // SAFETY: the state made above.
    unsafe {
        let raw = Raw::assume();
        let state = node.cast::<ResultScan>();
        if !(*state).keeper.is_null() {
            forget((*state).keeper);
        }
        if !(*state).store.is_null() {
            raw::tuplestore_end(raw, (*state).store);
            (*state).store = ptr::null_mut();
        }
    }
}

/// Called when the query's memory is freed.
unsafe extern "C-unwind" fn vanish(keeper: *mut c_void) {
    // SAFETY: a keeper; called for the last time while its memory is still there. The others on the list are too.
    unsafe {
        let keeper = keeper.cast::<Keeper>();
        if ptr::eq(SCANS.get(), keeper) {
            SCANS.set((*keeper).next);
        } else {
            let mut at = SCANS.get();
            while !at.is_null() {
                if ptr::eq((*at).next, keeper) {
                    (*at).next = (*keeper).next;
                }
                at = (*at).next;
            }
        }
        forget(keeper);
    }
}

/// Drops the source, if it is still there. Raises nothing, since a transaction may be about to be aborted.
unsafe fn forget(keeper: *mut Keeper) {
    // SAFETY: a keeper.
    let source = unsafe { (*keeper).source.take() };
    if let Some(source) = source {
        error::if_possible(|| {
            if source.is_lost() {
                core::mem::forget(source);
            } else {
                drop(source);
            }
        });
    }
}
