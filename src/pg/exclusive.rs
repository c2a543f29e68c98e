//! State of this process that callbacks from PostgreSQL use too.

use core::cell::{Cell, UnsafeCell};

/// A value with one user at a time. A second use, from within the first, is refused. PostgreSQL's processes have one thread.
pub struct Exclusive<T> {
    value: UnsafeCell<Option<T>>,
    busy: Cell<bool>,
}

// SAFETY: PostgreSQL runs our code in one thread of each process.
unsafe impl<T> Sync for Exclusive<T> {}

impl<T> Exclusive<T> {
    /// No value yet.
    pub const fn new() -> Self {
        Self {
            value: UnsafeCell::new(None),
            busy: Cell::new(false),
        }
    }

    /// Sets the value, unless it is in use.
    pub fn set(&self, value: T) {
        if !self.busy.get() {
            // SAFETY: the value is not in use.
            unsafe { *self.value.get() = Some(value) };
        }
    }

    /// Lets `body` use the value. Returns None if there is none or if it is in use further up the stack.
    pub fn with<R>(&self, body: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.busy.get() {
            return None;
        }
        // SAFETY: `busy` refuses other users until `body` returns, or until `recover` after an error has jumped over it.
        let value = unsafe { (*self.value.get()).as_mut() }?;
        self.busy.set(true);
        let answer = body(value);
        self.busy.set(false);
        Some(answer)
    }

    /// Call this after an error: a user of the value that the error has jumped over no longer uses it.
    pub fn recover(&self) {
        self.busy.set(false);
    }
}
