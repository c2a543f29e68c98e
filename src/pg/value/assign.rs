//! Assignment of the values that are read to the columns of the column definition list.
//!
//! The types are the same, but type modifiers may differ. The executor relies on the list: a table made from the result is dumped with the
//! list's types. So each value of such a column goes through the expression that the parser adds for an assignment. It rounds, pads, or
//! raises an error. It may call user-defined functions.

use crate::pg::raw::{self, Raw};
use crate::pg::value::desc::tuple_desc_attr;
use core::ptr;
use pgrx::pg_sys::{self, CoercionContext, CoercionForm, Datum, ExprContext, ExprState, TupleTableSlot};

/// The assignments to the columns of one row set. They live in the memory of the rows' slot.
pub(in crate::pg) struct Assignments {
    context: *mut ExprContext,
    columns: *mut Assignment,
    count: usize,
}

struct Assignment {
    n: usize,
    is_varlena: bool,
    state: *mut ExprState,
}

impl Assignments {
    /// Makes an empty set of assignments in the current memory context.
    pub(in crate::pg) fn none(raw: Raw<'_>) -> *mut Self {
        // SAFETY: all-zero is a valid value.
        unsafe { raw::palloc0(raw, size_of::<Self>()).cast() }
    }

    /// Whether values are taken as they are.
    pub(in crate::pg) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Prepares the assignments for rows in `slot` whose columns come with these type modifiers. A column whose modifier equals that of the
    /// list needs none: the process that made the value has applied it.
    pub(in crate::pg) unsafe fn prepare(
        &mut self,
        raw: Raw<'_>,
        slot: *mut TupleTableSlot,
        modifier: &dyn Fn(usize) -> i32,
    ) {
        // SAFETY: the slot's descriptor has the types of the values that will come; what is made here lives as long as the slot.
        unsafe {
            let desc = (*slot).tts_tupleDescriptor;
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = (*slot).tts_mcxt;
            self.count = 0;
            for n in 0..(*desc).natts as usize {
                let (column, from) = (tuple_desc_attr(desc, n), modifier(n));
                if (*column).atttypmod < 0 || (*column).atttypmod == from {
                    continue;
                }
                let var = raw::makeVar(
                    raw,
                    1,
                    n as i16 + 1,
                    (*column).atttypid,
                    from,
                    (*column).attcollation,
                    0,
                );
                let assigned = raw::coerce_to_target_type(
                    raw,
                    ptr::null_mut(),
                    var.cast(),
                    (*column).atttypid,
                    (*column).atttypid,
                    (*column).atttypmod,
                    CoercionContext::COERCION_ASSIGNMENT,
                    CoercionForm::COERCE_IMPLICIT_CAST,
                    -1,
                );
                if assigned.is_null() || (*assigned).type_ == pg_sys::NodeTag::T_Var {
                    continue;
                }
                raw::assign_expr_collations(raw, ptr::null_mut(), assigned);
                if self.columns.is_null() {
                    self.columns = raw::palloc(raw, size_of::<Assignment>() * (*desc).natts as usize).cast();
                    self.context = raw::CreateStandaloneExprContext(raw);
                    (*self.context).ecxt_scantuple = slot;
                }
                self.columns.add(self.count).write(Assignment {
                    n,
                    is_varlena: (*column).attlen == -1,
                    state: raw::ExecInitExpr(raw, raw::expression_planner(raw, assigned.cast()), ptr::null_mut()),
                });
                self.count += 1;
            }
            pg_sys::CurrentMemoryContext = before;
        }
    }

    /// Replaces the values in the slot, which holds a row with all its columns, by the assigned ones. Their memory is valid until the next
    /// row.
    pub(in crate::pg) unsafe fn apply(&self, raw: Raw<'_>, slot: *mut TupleTableSlot) {
        if self.is_empty() {
            return;
        }
        // SAFETY: the slot is the one that was prepared for; as ExecEvalExprSwitchContext. Another user of the same row must
        // not change an expanded value, as ExecProject sees to.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            raw::MemoryContextReset(raw, (*self.context).ecxt_per_tuple_memory);
            pg_sys::CurrentMemoryContext = (*self.context).ecxt_per_tuple_memory;
            for at in 0..self.count {
                let column = &*self.columns.add(at);
                let Some(evaluate) = (*column.state).evalfunc else {
                    continue;
                };
                let mut null = false;
                let mut value: Datum = evaluate(column.state, self.context, &mut null);
                if column.is_varlena && !null {
                    value = raw::MakeExpandedObjectReadOnlyInternal(raw, value);
                }
                *(*slot).tts_values.add(column.n) = value;
                *(*slot).tts_isnull.add(column.n) = null;
            }
            pg_sys::CurrentMemoryContext = before;
        }
    }
}
