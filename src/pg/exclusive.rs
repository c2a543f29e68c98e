//! State of this process that callbacks of PostgreSQL reach too.

use core::cell::{Cell, UnsafeCell};

/// A value that one caller at a time may use; a second one, called from within the first, is turned away. PostgreSQL's
/// processes have one thread.
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

    /// Sets the value.
    pub fn set(&self, value: T) {
        if !self.busy.get() {
            // SAFETY: nobody uses the value now.
            unsafe { *self.value.get() = Some(value) };
        }
    }

    /// Lets `body` use the value; None where there is none or somebody further up uses it.
    pub fn with<R>(&self, body: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.busy.get() {
            return None;
        }
        // SAFETY: `busy` keeps everybody else out until `body` returns, or until `recover` after an error jumped over it.
        let value = unsafe { (*self.value.get()).as_mut() }?;
        self.busy.set(true);
        let answer = body(value);
        self.busy.set(false);
        Some(answer)
    }

    /// After an error: whoever used the value does so no more.
    pub fn recover(&self) {
        self.busy.set(false);
    }
}
