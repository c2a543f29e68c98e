//! Rows and messages on their way into the channel. PostgreSQL calls in here from within the executor and from wherever a message
//! is raised; so everything is raw, and a message that comes while another is being written is dropped.

use super::main::Attached;
use crate::channel::writer::Writer;
use crate::pg::error;
use crate::pg::foreign;
use crate::pg::local::Exclusive;
use crate::pg::memory;
use crate::pg::receiver::{Receiver, RowSlot};
use crate::pg::tuples::Shape;
use crate::registry::job::Slot;

static WRITER: Exclusive<Writer> = Exclusive::new();
static LAST_WORDS: Exclusive<Vec<u8>> = Exclusive::new();

/// Where the rows of a job's last statement go.
pub static ROWS: Receiver = Receiver {
    start: start_rows,
    row,
    finish: finish_rows,
};

/// Once for each process. Guarded.
pub fn init(slot: &'static Slot) {
    WRITER.set(Writer::new(slot));
}

/// A job begins.
pub fn begin(job: Attached, queue_size: u32, keep: bool) {
    WRITER.with(|writer| writer.begin(job.slot, job.cookie, queue_size, keep));
}

/// Lets the executor's side write. It is never called from within the writer; if that looks busy, an error jumped out of the
/// writing of a notice, and SQL caught it.
fn write(body: impl FnOnce(&mut Writer)) {
    WRITER.recover();
    WRITER.with(body);
}

fn start_rows(shape: Shape) {
    foreign::check_columns(&shape);
    write(|writer| writer.start_rows(shape));
}

fn row(slot: RowSlot) {
    write(|writer| writer.row(slot));
}

fn finish_rows() {
    write(Writer::finish_rows);
}

/// The tag of a statement that has ended.
pub fn tag(tag: &[u8]) {
    write(|writer| writer.tag(tag));
}

/// Everything so far goes into the queue: before the commit, so that a result that cannot be kept is the job's error.
pub fn flush() {
    write(Writer::flush_at_end);
}

/// What was said during the commit goes after it; that it might not be kept is no reason to call the job failed.
pub fn finish() {
    if error::catch(flush).is_err() {
        recover();
    }
}

/// After an error, before the transaction is aborted.
pub fn after_error() {
    WRITER.recover();
    if error::catch(|| WRITER.with(Writer::after_error)).is_err() {
        WRITER.recover();
        WRITER.with(Writer::give_up_file);
    }
}

/// The process ends, perhaps in the middle of a job: an open file is closed before PostgreSQL finds it open at the end of the
/// transaction.
pub fn abandon() {
    WRITER.recover();
    WRITER.with(Writer::give_up_file);
}

/// After an error that nothing more can be done about.
pub fn recover() {
    WRITER.recover();
    LAST_WORDS.recover();
}

/// What the process said when it died.
pub fn last_words() -> Option<Vec<u8>> {
    LAST_WORDS.with(core::mem::take)
}

/// A message for the client. `N` is a notice. `E` is only seen when an error is not caught, which is when the process ends.
pub fn message_for_client(kind: u8, body: &[u8]) {
    match kind {
        b'N' => {
            WRITER.with(|writer| writer.notice(body));
        }
        b'E' => {
            if let Ok(words) = memory::copied(body) {
                LAST_WORDS.set(words);
            }
        }
        _ => (),
    }
}
