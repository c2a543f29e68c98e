//! What a statement updates, as far as its analysis shows it. What functions and triggers do is not seen.

use crate::pg::error::{self, Result, raise_raw};
use crate::pg::memory;
use crate::pg::raw::{self, Raw, may_raise};
use crate::pg::value::kept;
use core::ffi::{CStr, c_char};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, AttrNumber, CmdType, List, NodeTag, Oid, Query, TargetEntry};

/// What a statement does to some tables.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Seen {
    /// It updates rows of one of them.
    pub updates: bool,
    /// It assigns to one of the columns.
    pub assigns: bool,
}

// utils/lsyscache.h
may_raise! {
    fn get_attname(relation: Oid, column: AttrNumber, missing_ok: bool) -> *mut c_char;
}

// tcop/utility.h, tcop/tcopprot.h
may_raise! {
    fn UtilityContainsQuery(statement: *mut pg_sys::Node) -> *mut Query;
    fn pg_rewrite_query(query: *mut Query) -> *mut List;
}

/// Analyses the statement with these parameters, names of types and texts of values, as the current role, and tells what it does to the tables
/// `family`, whose columns the names are of. 42601 unless it is one statement; 0A000 for COPY from or to the client; the errors of the analysis,
/// 42P02 for a parameter that is not there, of which COPY has none.
pub fn look(sql: &CStr, parameters: &[(&CStr, Option<&CStr>)], family: &[u32], columns: &[Vec<u8>]) -> Result<Seen> {
    let (parameters, none) = (kept::read(parameters)?, kept::read(&[])?);
    error::catching(|raw| {
        let mut seen = Seen::default();
        // SAFETY: NUL-terminated; NULL is the empty list, and the list holds RawStmts. The list of queries is that of the analysis.
        unsafe {
            let statements = raw::pg_parse_query(raw, sql.as_ptr());
            if statements.is_null() || (*statements).length != 1 {
                raise_raw(
                    raw,
                    PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
                    &[b"the SQL of an operation must be one statement"],
                    None,
                );
            }
            let statement = (*(*statements).elements).ptr_value.cast::<pg_sys::RawStmt>();
            let queries = if (*(*statement).stmt).type_ == NodeTag::T_CopyStmt {
                let copy = (*statement).stmt.cast::<pg_sys::CopyStmt>();
                check_copy(raw, copy);
                let mut inner = *statement;
                inner.stmt = (*copy).query;
                if inner.stmt.is_null() {
                    core::ptr::null_mut()
                } else {
                    none.analyze(raw, &raw mut inner, sql.as_ptr())
                }
            } else {
                parameters.analyze(raw, statement, sql.as_ptr())
            };
            for query in elements::<Query>(queries) {
                look_at(raw, query, family, columns, &mut seen);
            }
        }
        seen
    })
}

/// 0A000: a chunk has no client.
unsafe fn check_copy(raw: Raw<'_>, copy: *mut pg_sys::CopyStmt) {
    // SAFETY: a statement from the parser.
    if unsafe { (*copy).filename.is_null() && !(*copy).is_program } {
        raise_raw(
            raw,
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            &[b"COPY from or to the client cannot run in an operation"],
            Some(c"Use a file on the server or a program."),
        );
    }
}

/// The elements of a list of pointers.
unsafe fn elements<T>(list: *mut List) -> impl Iterator<Item = *mut T> {
    // SAFETY: NULL is the empty list; the elements are pointers.
    unsafe {
        let count = if list.is_null() { 0 } else { (*list).length as usize };
        (0..count).map(move |n| (*(*list).elements.add(n)).ptr_value.cast())
    }
}

unsafe fn look_at(raw: Raw<'_>, query: *mut Query, family: &[u32], columns: &[Vec<u8>], seen: &mut Seen) {
    // SAFETY: an analysed query; a statement that changes rows may be there at its top, in its WITH, and in an EXPLAIN, which has analysed but not
    // rewritten it.
    unsafe {
        if (*query).commandType == CmdType::CMD_UTILITY {
            let inner = UtilityContainsQuery(raw, (*query).utilityStmt);
            if !inner.is_null() {
                for query in elements::<Query>(pg_rewrite_query(raw, inner)) {
                    look_at(raw, query, family, columns, seen);
                }
            }
            return;
        }
        if (*query).resultRelation > 0 {
            let entry = (*(*(*query).rtable).elements.add((*query).resultRelation as usize - 1)).ptr_value;
            let table = (*entry.cast::<pg_sys::RangeTblEntry>()).relid;
            if family.contains(&table.to_u32()) {
                look_at_targets(raw, query, table, columns, seen);
            }
        }
        for cte in elements::<pg_sys::CommonTableExpr>((*query).cteList) {
            let inner = (*cte).ctequery;
            if (*inner).type_ == NodeTag::T_Query {
                look_at(raw, inner.cast(), family, columns, seen);
            }
        }
    }
}

unsafe fn look_at_targets(raw: Raw<'_>, query: *mut Query, table: Oid, columns: &[Vec<u8>], seen: &mut Seen) {
    let mut assigned = |targets: *mut List| {
        seen.updates = true;
        // SAFETY: a list of targets, whose numbers are those of the table's columns.
        unsafe {
            for target in elements::<TargetEntry>(targets) {
                if !(*target).resjunk {
                    let name = memory::c_bytes(get_attname(raw, table, (*target).resno, true));
                    seen.assigns |= columns.iter().any(|column| column == name);
                }
            }
        }
    };
    // SAFETY: as its command says.
    unsafe {
        match (*query).commandType {
            CmdType::CMD_UPDATE => assigned((*query).targetList),
            CmdType::CMD_INSERT if !(*query).onConflict.is_null() => {
                let conflict = (*query).onConflict;
                if (*conflict).action == pg_sys::OnConflictAction::ONCONFLICT_UPDATE {
                    assigned((*conflict).onConflictSet);
                }
            }
            #[cfg(since_15)]
            CmdType::CMD_MERGE => {
                for action in elements::<pg_sys::MergeAction>((*query).mergeActionList) {
                    if (*action).commandType == CmdType::CMD_UPDATE {
                        assigned((*action).targetList);
                    }
                }
            }
            _ => (),
        }
    }
}
