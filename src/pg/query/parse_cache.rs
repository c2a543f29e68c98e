//! A cache for the parse trees of a text that is run repeatedly.
//!
//! A trigger launches the same text for each row, and parsing takes a tenth of a short job. The result of the grammar depends on the text
//! and on some settings alone. It reads no catalog, so it can be kept while the settings stay the same. It is copied for each use, since
//! analysis modifies its input (the plan cache does the same for a prepared statement, `RevalidateCachedQuery` of utils/cache/plancache.c).
//! Everything that depends on more, such as names, types, privileges and plans, is made anew for each job.

use crate::pg::error;
use crate::pg::memory::{self, Context};
use crate::pg::query::callbacks;
use crate::pg::raw::{self, Raw};
use core::cell::Cell;
use core::ffi::CStr;
use core::ptr;
use pgrx::pg_sys::{self, List};

/// The maximum length of a text that is kept, in bytes. The trees may take many times as much.
const LONGEST: usize = 4096;

/// The last text, and its trees if it has come twice.
#[derive(Clone, Copy)]
struct Kept {
    text: &'static [u8],
    trees: *mut List,
}

const NOTHING: Kept = Kept {
    text: b"",
    trees: ptr::null_mut(),
};

thread_local! {
    static KEPT: Cell<Kept> = const { Cell::new(NOTHING) };
    /// The memory of the text and its trees.
    static CONTEXT: Cell<Option<Context>> = const { Cell::new(None) };
}

/// Parses the text into the current memory context. An empty text gives NULL.
pub fn parse(raw: Raw<'_>, sql: &CStr) -> *mut List {
    let text = sql.to_bytes();
    let kept = KEPT.get();
    // SAFETY: a plain variable. Who wants to see the parser's statistics sees those of each text.
    let is_known = kept.text == text && unsafe { !pg_sys::log_parser_stats };
    if is_known && !kept.trees.is_null() {
        return copy(raw, kept.trees);
    }
    let said = callbacks::said();
    // SAFETY: NUL-terminated.
    let trees = unsafe { raw::pg_parse_query(raw, sql.as_ptr()) };
    if !is_known {
        remember(raw, text);
    } else if callbacks::said() == said {
        // What the parser reports, it must report each time, so such trees are not kept. A copy that fails does not fail the job: copying
        // recurses more deeply than the parser does.
        match error::catch(|raw| within(raw, || copy(raw, trees))) {
            Ok(trees) => KEPT.set(Kept { trees, ..kept }),
            Err(_) => forget(raw),
        }
    }
    trees
}

/// Empties the cache. Call it when the settings have changed.
pub fn forget(raw: Raw<'_>) {
    KEPT.set(NOTHING);
    if let Some(context) = CONTEXT.get() {
        context.reset(raw);
    }
}

fn remember(raw: Raw<'_>, text: &[u8]) {
    forget(raw);
    if text.len() <= LONGEST {
        let text = within(raw, || memory::copy_bytes(raw, text));
        KEPT.set(Kept { text, ..NOTHING });
    }
}

fn within<T>(raw: Raw<'_>, body: impl FnOnce() -> T) -> T {
    let context = CONTEXT.get().unwrap_or_else(|| {
        let context = Context::for_process(raw, c"pg_background parse trees");
        CONTEXT.set(Some(context));
        context
    });
    context.enter(body)
}

fn copy(raw: Raw<'_>, trees: *mut List) -> *mut List {
    // SAFETY: a list of nodes, or NULL.
    unsafe { raw::copyObjectImpl(raw, trees.cast()).cast() }
}
