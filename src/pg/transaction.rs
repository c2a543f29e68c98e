//! Transactions of this process: their ends, and whether they may write.

use crate::pg::compat;
use crate::pg::error::{self, Result};
use crate::pg::fallible;
use crate::pg::raw::{self, may_raise};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use pgrx::pg_sys::{self, SubTransactionId, SubXactEvent, XactEvent};

/// What happens to a transaction. Levels count from 1, the top transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// It is about to commit or to be prepared, and may still fail.
    BeforeCommit,
    /// It has committed, and others see what it wrote.
    Committed,
    Aborted,
    /// It will be committed or rolled back by some session later.
    Prepared,
    /// What the subtransaction at this level did is now done by the one above.
    SubCommitted(i32),
    SubAborted(i32),
}

// access/xact.h
may_raise! {
    fn RegisterXactCallback(callback: pg_sys::XactCallback, argument: *mut c_void);
    fn RegisterSubXactCallback(callback: pg_sys::SubXactCallback, argument: *mut c_void);
}

// miscadmin.h
may_raise! {
    fn PreventCommandIfReadOnly(name: *const c_char);
    fn PreventCommandDuringRecovery(name: *const c_char);
}

// access/xlog.h
may_raise! {
    fn XLogFlush(record: pg_sys::XLogRecPtr);
}

// access/xlog.h: it raises nothing.
unsafe extern "C-unwind" {
    fn RecoveryInProgress() -> bool;
}

// access/xact.h: these raise nothing.
unsafe extern "C-unwind" {
    fn GetCurrentTransactionNestLevel() -> c_int;
    fn TransactionIdIsCurrentTransactionId(xid: pg_sys::TransactionId) -> bool;
}

/// Who is called for each event of this process's transactions, once that was asked for. Except at [`Event::BeforeCommit`] it must not fail.
pub struct Watcher {
    handler: fn(Event),
    is_on: AtomicBool,
}

impl Watcher {
    /// One that is not on yet.
    pub const fn new(handler: fn(Event)) -> Self {
        Self {
            handler,
            is_on: AtomicBool::new(false),
        }
    }

    /// From now on, and as long as the process lives, the handler is called.
    pub fn turn_on(&'static self) -> Result<()> {
        if self.is_on.load(Relaxed) {
            return Ok(());
        }
        let argument = ptr::from_ref(self).cast_mut().cast::<c_void>();
        // SAFETY: the callbacks and the argument live as long as the process.
        error::catching(|raw| unsafe {
            RegisterXactCallback(raw, Some(ended), argument);
            RegisterSubXactCallback(raw, Some(sub_ended), argument);
        })?;
        self.is_on.store(true, Relaxed);
        Ok(())
    }
}

/// What a transaction collects for its end. What a subtransaction that is rolled back has added is dropped.
pub struct Collected<T> {
    /// With the levels, in their order: the current subtransaction is the last one that adds.
    entries: Vec<(T, i32)>,
}

impl<T> Collected<T> {
    /// Nothing.
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Adds an entry of the current subtransaction. 53200.
    pub fn push(&mut self, entry: T) -> Result<()> {
        fallible::push(&mut self.entries, (entry, level()))
    }

    /// The entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(entry, _)| entry)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// A subtransaction has ended. Other events mean nothing here.
    pub fn follow(&mut self, event: Event) {
        match event {
            Event::SubCommitted(level) => {
                let raised = self.entries.iter_mut().rev().take_while(|(_, of)| *of >= level);
                raised.for_each(|(_, of)| *of = level - 1);
            }
            Event::SubAborted(level) => while self.entries.pop_if(|(_, of)| *of >= level).is_some() {},
            _ => (),
        }
    }
}

fn tell(watcher: *mut c_void, event: Event) {
    // SAFETY: the argument of the callbacks is a static watcher.
    let handler = unsafe { (*watcher.cast::<Watcher>()).handler };
    error::at_border(|| handler(event));
}

unsafe extern "C-unwind" fn ended(event: XactEvent::Type, watcher: *mut c_void) {
    match event {
        XactEvent::XACT_EVENT_PRE_COMMIT | XactEvent::XACT_EVENT_PRE_PREPARE => tell(watcher, Event::BeforeCommit),
        XactEvent::XACT_EVENT_COMMIT => tell(watcher, Event::Committed),
        XactEvent::XACT_EVENT_ABORT => tell(watcher, Event::Aborted),
        XactEvent::XACT_EVENT_PREPARE => tell(watcher, Event::Prepared),
        _ => (),
    }
}

unsafe extern "C-unwind" fn sub_ended(
    event: SubXactEvent::Type,
    _this: SubTransactionId,
    _parent: SubTransactionId,
    watcher: *mut c_void,
) {
    match event {
        SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => tell(watcher, Event::SubCommitted(level())),
        SubXactEvent::SUBXACT_EVENT_ABORT_SUB => tell(watcher, Event::SubAborted(level())),
        _ => (),
    }
}

/// Runs `body` in a transaction of this library's own: it may write, and each of its statements sees what was committed last, whatever the
/// defaults of the session are. What it allocates lives as long as the job's string. Call it outside of a transaction.
pub fn own<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: no transaction is open. The variables are those of this transaction, which has no snapshot yet.
    error::catching(|raw| unsafe {
        raw::StartTransactionCommand(raw);
        compat::stop_transaction_timer();
        pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as c_int;
        pg_sys::XactReadOnly = false;
        pg_sys::XactDeferrable = false;
        raw::PushActiveSnapshot(raw, raw::GetTransactionSnapshot(raw));
        pg_sys::CurrentMemoryContext = pg_sys::MessageContext;
    })?;
    let done = body().and_then(|answer| {
        // SAFETY: as pushed above.
        error::catching(|raw| unsafe {
            raw::PopActiveSnapshot(raw);
            raw::CommitTransactionCommand(raw);
        })?;
        Ok(answer)
    });
    if done.is_err() {
        // SAFETY: callable in every state.
        error::catching(|raw| unsafe { raw::AbortOutOfAnyTransaction(raw) })?;
    }
    // SAFETY: the context lives as long as the process.
    unsafe { pg_sys::CurrentMemoryContext = pg_sys::MessageContext };
    done
}

/// The end of the record of this process's last commit, 0 if it has written none.
pub fn last_commit_end() -> u64 {
    // SAFETY: a plain variable of this process.
    unsafe { pg_sys::XactLastCommitEnd }
}

/// Waits until what was committed up to there is on disk.
pub fn flush_up_to(end: u64) -> Result<()> {
    // SAFETY: the end of a record that was written.
    error::catching(|raw| unsafe { XLogFlush(raw, end) })
}

// storage/lmgr.h
may_raise! {
    fn XactLockTableWait(
        xid: pg_sys::TransactionId,
        relation: pg_sys::Relation,
        item: pg_sys::ItemPointer,
        operation: pg_sys::XLTW_Oper::Type,
    );
}

/// Waits until the transaction has ended. 40P01 if it waits for this one.
pub fn wait_for(xid: u32) -> Result<()> {
    // SAFETY: a transaction of another process; nothing is said of a row.
    error::catching(|raw| unsafe {
        XactLockTableWait(
            raw,
            pg_sys::TransactionId::from_inner(xid),
            ptr::null_mut(),
            ptr::null_mut(),
            pg_sys::XLTW_Oper::XLTW_None,
        );
    })
}

/// When the transaction began, as now() of SQL.
pub fn started_at() -> i64 {
    // SAFETY: a plain read. Functions are called within a transaction.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}

/// Whether the server replays what another one writes.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared memory.
    unsafe { RecoveryInProgress() }
}

/// How deep the current subtransaction is, 1 for the top transaction.
pub fn level() -> i32 {
    // SAFETY: reads this process's own state.
    unsafe { GetCurrentTransactionNestLevel() }
}

/// Whether this transaction wrote what `xid` wrote.
pub fn is_own(xid: u32) -> bool {
    // SAFETY: reads this process's own state.
    unsafe { TransactionIdIsCurrentTransactionId(pg_sys::TransactionId::from_inner(xid)) }
}

/// 25006 on a standby and in a read-only transaction.
pub fn check_writable(command: &'static CStr) -> Result<()> {
    // SAFETY: a static name.
    error::catching(|raw| unsafe {
        PreventCommandIfReadOnly(raw, command.as_ptr());
        PreventCommandDuringRecovery(raw, command.as_ptr());
    })
}

/// The identifier that this cluster was given by initdb. pg_upgrade makes a new one.
pub fn system_identifier() -> i64 {
    // SAFETY: reads shared memory that is set at the server's start.
    unsafe { raw::GetSystemIdentifier() as i64 }
}

/// Runs `body`, whose statements may write although the transaction says that it writes nothing.
pub fn writable<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: a plain variable of this process's transaction. `body` returns its errors.
    let is_read_only = unsafe {
        let is_read_only = pg_sys::XactReadOnly;
        pg_sys::XactReadOnly = false;
        is_read_only
    };
    let done = body();
    // SAFETY: as above.
    unsafe { pg_sys::XactReadOnly = is_read_only };
    done
}
