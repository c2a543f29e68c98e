//! Memory for a while.

use crate::pg::error::{self, Result};
use crate::pg::memory::Context;

/// Runs `body` in a context of its own below the current one, and deletes that. After a failure it stays until the current one goes, since the
/// error lies in it.
pub fn within<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    let context = error::catching(Context::below_current)?;
    let answer = context.enter(body)?;
    error::catching(|raw| context.delete(raw))?;
    Ok(answer)
}
