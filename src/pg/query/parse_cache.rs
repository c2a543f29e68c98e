//! The parse trees of a text that comes again.
//!
//! A trigger launches the same text for each row, and parsing it takes a tenth of a short job. What the grammar makes of a text is
//! decided by the text and some settings alone, no catalog is looked at: as long as the settings are the same it may be kept. It
//! is copied for each use, since analysis changes what it gets (as the plan cache does with that of a prepared statement,
//! `RevalidateCachedQuery` of utils/cache/plancache.c). All that depends on more, be it names, types, privileges or plans, is made anew for
//! each job.

use crate::pg::error;
use crate::pg::memory::{self, Context};
use crate::pg::query::callbacks;
use crate::pg::raw::{self, Raw};
use core::cell::Cell;
use core::ffi::CStr;
use core::ptr;
use pgrx::pg_sys::{self, List};

/// Longer texts are not kept, in bytes: their trees may take many times as much.
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
    /// What they lie in.
    static CONTEXT: Cell<Option<Context>> = const { Cell::new(None) };
}

/// Parses the text into the current memory context; an empty one gives NULL.
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
        // What the parser has to say it says each time. And a copy that fails, for it goes deeper than the parser does, is not the
        // job's failure.
        match error::catch(|raw| within(raw, || copy(raw, trees))) {
            Ok(trees) => KEPT.set(Kept { trees, ..kept }),
            Err(_) => forget(raw),
        }
    }
    trees
}

/// The settings have changed.
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
