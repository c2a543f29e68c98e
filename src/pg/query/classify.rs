//! What the grammar alone tells of a text: whether it is SQL, and whether it can run within a transaction that others begin and end.

use crate::pg::error::{self, Failure, Result};
use crate::pg::memory;
use crate::pg::raw::{self, Raw, may_raise};
use crate::pg::scratch;
use core::ffi::{CStr, c_char};
use pgrx::pg_sys::{self, List, Node, NodeTag, Oid, RangeVar};
use std::cell::RefCell;

/// How a text stands to transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// It is one statement that PostgreSQL refuses within a transaction block, or may refuse, or one that may end transactions itself.
    pub is_alone: bool,
    /// It is more than one statement.
    pub is_many: bool,
    /// It has a statement that is refused in a transaction that others end, and what that is called.
    pub refused: Option<&'static CStr>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// May end transactions itself, or is refused in a transaction block for reasons that are known when it runs.
    Free,
    /// Refused in a transaction block.
    Refused,
    /// Begins or ends transactions.
    Control,
}

/// Longer texts are not remembered, in bytes.
const LONGEST: usize = 4096;

thread_local! {
    /// The last text, and what was seen of it.
    static LAST: RefCell<Option<(Vec<u8>, Seen)>> = const { RefCell::new(None) };
}

/// Parses the text, in memory that goes at once. 42601 with the place in the text.
pub fn look(sql: &[u8]) -> Result<Seen> {
    let known = LAST.with_borrow(|last| last.as_ref().filter(|(text, _)| text == sql).map(|(_, seen)| *seen));
    if let Some(seen) = known {
        return Ok(seen);
    }
    let seen = scratch::within(|| {
        let text = error::catching(|raw| copy(raw, sql))?;
        error::catching(|raw| parse(raw, text))
    });
    let seen = match seen {
        Err(Failure::Caught(edata)) => return Err(Failure::Caught(within(edata, sql)?)),
        seen => seen?,
    };
    // What a relation is decides sometimes, and that may change.
    if sql.len() <= LONGEST && !seen.is_alone {
        LAST.set(Some((crate::pg::fallible::copied(sql)?, seen)));
    }
    Ok(seen)
}

fn copy(raw: Raw<'_>, sql: &[u8]) -> &'static CStr {
    // SAFETY: as much is allocated as is copied, and a NUL; a text has none within.
    unsafe {
        let text = raw::MemoryContextAllocHuge(raw, pg_sys::CurrentMemoryContext, sql.len() + 1).cast::<u8>();
        core::ptr::copy_nonoverlapping(sql.as_ptr(), text, sql.len());
        text.add(sql.len()).write(0);
        CStr::from_ptr(text.cast::<c_char>())
    }
}

/// The place of the error is one in the text, not in the statement of the caller. The error lies in memory that is not given back before the
/// statement ends.
fn within(edata: *mut pg_sys::ErrorData, sql: &[u8]) -> Result<*mut pg_sys::ErrorData> {
    // SAFETY: a caught error.
    unsafe {
        if (*edata).cursorpos > 0 && (*edata).internalpos == 0 {
            (*edata).internalpos = (*edata).cursorpos;
            (*edata).cursorpos = 0;
            (*edata).internalquery = error::catching(|raw| copy(raw, sql).as_ptr().cast_mut())?;
        }
    }
    Ok(edata)
}

fn parse(raw: Raw<'_>, sql: &CStr) -> Seen {
    // SAFETY: NUL-terminated; NULL is the empty list, and the list holds RawStmts.
    unsafe {
        let list = raw::pg_parse_query(raw, sql.as_ptr());
        let count = if list.is_null() { 0 } else { (*list).length as usize };
        let mut seen = Seen {
            is_alone: false,
            is_many: count > 1,
            refused: None,
        };
        for n in 0..count {
            let statement = (*(*(*list).elements.add(n)).ptr_value.cast::<pg_sys::RawStmt>()).stmt;
            let kind = kind(raw, statement);
            seen.is_alone = count == 1 && matches!(kind, Kind::Free | Kind::Refused);
            if matches!(kind, Kind::Refused | Kind::Control) && seen.refused.is_none() {
                let name = raw::GetCommandTagName(raw::CreateCommandTag(statement));
                seen.refused = Some(CStr::from_ptr(name));
            }
        }
        seen
    }
}

fn refused_if(condition: bool) -> Kind {
    if condition { Kind::Refused } else { Kind::Plain }
}

/// What PreventInTransactionBlock is called for (tcop/utility.c and commands/).
unsafe fn kind(raw: Raw<'_>, node: *mut Node) -> Kind {
    // SAFETY: a statement from the parser; each cast follows the node's tag.
    unsafe {
        match (*node).type_ {
            NodeTag::T_TransactionStmt => match (*node.cast::<pg_sys::TransactionStmt>()).kind {
                pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED
                | pg_sys::TransactionStmtKind::TRANS_STMT_ROLLBACK_PREPARED => Kind::Refused,
                _ => Kind::Control,
            },
            NodeTag::T_CallStmt => Kind::Free,
            NodeTag::T_VacuumStmt => refused_if((*node.cast::<pg_sys::VacuumStmt>()).is_vacuumcmd),
            NodeTag::T_IndexStmt => refused_if((*node.cast::<pg_sys::IndexStmt>()).concurrent),
            NodeTag::T_DropStmt => refused_if((*node.cast::<pg_sys::DropStmt>()).concurrent),
            NodeTag::T_ReindexStmt => reindex(raw, node.cast()),
            NodeTag::T_CreatedbStmt
            | NodeTag::T_DropdbStmt
            | NodeTag::T_CreateTableSpaceStmt
            | NodeTag::T_DropTableSpaceStmt
            | NodeTag::T_AlterSystemStmt => Kind::Refused,
            NodeTag::T_AlterDatabaseStmt => refused_if(
                option(
                    raw,
                    (*node.cast::<pg_sys::AlterDatabaseStmt>()).options,
                    c"tablespace",
                    |_| true,
                )
                .unwrap_or(false),
            ),
            #[cfg(not(since_19))]
            NodeTag::T_ClusterStmt => {
                let relation = (*node.cast::<pg_sys::ClusterStmt>()).relation;
                refused_if(relation.is_null() || is_partitioned(raw, relation))
            }
            #[cfg(since_19)]
            NodeTag::T_RepackStmt => {
                // CLUSTER, too.
                let statement = node.cast::<pg_sys::RepackStmt>();
                let concurrently = option(raw, (*statement).params, c"concurrently", |option| {
                    defGetBoolean(raw, option)
                });
                let relation = (*statement).relation;
                refused_if(
                    concurrently.unwrap_or(false) || relation.is_null() || is_partitioned(raw, (*relation).relation),
                )
            }
            NodeTag::T_DiscardStmt => {
                refused_if((*node.cast::<pg_sys::DiscardStmt>()).target == pg_sys::DiscardMode::DISCARD_ALL)
            }
            NodeTag::T_AlterTableStmt => {
                let commands = (*node.cast::<pg_sys::AlterTableStmt>()).cmds;
                refused_if(pointers::<pg_sys::AlterTableCmd>(commands).any(|command| {
                    (*command).subtype == pg_sys::AlterTableType::AT_DetachPartition
                        && (*(*command).def.cast::<pg_sys::PartitionCmd>()).concurrent
                }))
            }
            NodeTag::T_CreateSubscriptionStmt => {
                let options = (*node.cast::<pg_sys::CreateSubscriptionStmt>()).options;
                let truth = |name| option(raw, options, name, |option| defGetBoolean(raw, option));
                let connects = truth(c"connect").unwrap_or(true);
                refused_if(truth(c"create_slot").unwrap_or(connects))
            }
            NodeTag::T_AlterSubscriptionStmt | NodeTag::T_DropSubscriptionStmt => Kind::Free,
            _ => Kind::Plain,
        }
    }
}

unsafe fn reindex(raw: Raw<'_>, statement: *mut pg_sys::ReindexStmt) -> Kind {
    // SAFETY: a statement from the parser.
    unsafe {
        let concurrently = option(raw, (*statement).params, c"concurrently", |option| {
            defGetBoolean(raw, option)
        });
        let relation = (*statement).relation;
        refused_if(concurrently.unwrap_or(false) || relation.is_null() || is_partitioned(raw, relation))
    }
}

// commands/defrem.h
may_raise! {
    fn defGetBoolean(option: *mut pg_sys::DefElem) -> bool;
}

// catalog/namespace.h
may_raise! {
    fn RangeVarGetRelidExtended(
        relation: *const RangeVar,
        mode: pg_sys::LOCKMODE,
        flags: u32,
        callback: pg_sys::RangeVarGetRelidCallback,
        argument: *mut core::ffi::c_void,
    ) -> Oid;
}

// utils/lsyscache.h
may_raise! {
    fn get_rel_relkind(relation: Oid) -> c_char;
}

/// A partitioned table or index, as far as there is one of that name now.
unsafe fn is_partitioned(raw: Raw<'_>, relation: *const RangeVar) -> bool {
    // SAFETY: a name from the parser; no lock is taken, and nothing found is no error.
    unsafe {
        let missing_ok = pg_sys::RVROption::RVR_MISSING_OK;
        let oid = RangeVarGetRelidExtended(raw, relation, 0, missing_ok, None, core::ptr::null_mut());
        oid != Oid::INVALID && matches!(get_rel_relkind(raw, oid) as u8, b'p' | b'I')
    }
}

unsafe fn option(
    _raw: Raw<'_>,
    options: *mut List,
    name: &CStr,
    value: impl Fn(*mut pg_sys::DefElem) -> bool,
) -> Option<bool> {
    // SAFETY: a list of options from the parser.
    unsafe {
        pointers::<pg_sys::DefElem>(options)
            .find(|option| memory::c_bytes((**option).defname) == name.to_bytes())
            .map(value)
    }
}

unsafe fn pointers<T>(list: *mut List) -> impl Iterator<Item = *mut T> {
    // SAFETY: NULL is the empty list; the elements are pointers.
    unsafe {
        let count = if list.is_null() { 0 } else { (*list).length as usize };
        (0..count).map(move |n| (*(*list).elements.add(n)).ptr_value.cast())
    }
}
