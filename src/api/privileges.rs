//! Who may use the extension: `grant_privileges`, `revoke_privileges`, `drop_executor_role`.

use crate::pg::error::Result;
use crate::pg::fmgr::{Answer, Call};

crate::sql_function! {
    pg_background_grant_privileges => todo;
    pg_background_revoke_privileges => todo;
    pg_background_drop_executor_role => todo;
}
fn todo(call: &Call) -> Result<Answer> { call.null() }
