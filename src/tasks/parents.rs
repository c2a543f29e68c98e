//! The tasks that a task waits for: `after`.
//!
//! A row of `background.dependency` stands for each parent that has not ended. A parent may end while the row is not committed yet, and then it
//! does not see the row; so after the commit the keeper looks again at the parents of what is blocked ([`crate::tasks::pushed`]).
//!
//! A parent has a lower id than its child, so there are no cycles.

use crate::pg::catalog::role;
use crate::pg::error::{Report, Result};
use crate::pg::fallible;
use crate::pg::function::rows::{INT8, Value};
use crate::pg::plan::Plan;
use crate::pg::table::Sees;
use crate::tasks::end::{self, Ended};
use crate::tasks::options::OnParentFailure;
use crate::tasks::tables::{Tables, task};
use pgrx::PgSqlErrorCode;

/// What the parents mean for a task.
pub struct Parents {
    /// Those that have not ended, each once.
    pub unfinished: Vec<i64>,
    /// One has ended and not as done, and the task is to be canceled for that.
    pub cancels: bool,
}

static ADD: Plan = Plan::fixed(
    c"INSERT INTO background.dependency (parent, child) VALUES ($1, $2)",
    &[INT8, INT8],
);

/// Looks at the parents of the task `child`. 42704 for an id that was never given out, 42501 if the current role may not act for a parent's,
/// 22023 for a parent that has not ended and is not older than the task.
pub fn look(tables: &Tables, after: &[i64], child: i64, on_failure: OnParentFailure) -> Result<Parents> {
    let mut ids = fallible::copied(after)?;
    ids.sort_unstable();
    ids.dedup();
    let mut parents = Parents {
        unfinished: Vec::new(),
        cancels: false,
    };
    for id in ids {
        // Given out before this one, as ids go; others, too, but not all of them yet.
        if id < 1 || (id >= child && !end::was_given_out(id)?) {
            return Err(end::never_given_out(id));
        }
        if id == child {
            return Err(too_new(id));
        }
        let owner = tables.find_task(id, Sees::Uncommitted, |row| {
            row.role(task::OWNER)
                .map(|owner| owner.number())
                .transpose()
                .map(|owner| owner.map(|owner| owner.unwrap_or(0)))
        })?;
        if let Some(owner) = owner {
            if !role::may_act_for(owner, 0) {
                return Err(end::not_permitted(id));
            }
            if id > child {
                return Err(too_new(id));
            }
            fallible::push(&mut parents.unfinished, id)?;
            continue;
        }
        // It has ended, or it never was: its row went in the same commit that brought the row of its end.
        if let Some(Ended { owner, is_done, .. }) = end::find(tables, id)? {
            if !role::may_act_for(owner, 0) {
                return Err(end::not_permitted(id));
            }
            parents.cancels |= !is_done && on_failure == OnParentFailure::Cancel;
        }
    }
    Ok(parents)
}

/// Notes what the task waits for.
pub fn add(child: i64, parents: &[i64]) -> Result<()> {
    for parent in parents {
        ADD.execute(&[Value::Int8(*parent), Value::Int8(child)])?;
    }
    Ok(())
}

fn too_new(id: i64) -> crate::pg::error::Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("a task cannot wait for task {id}, which is not older"),
    )
    .into()
}
