//! Writes rows and messages into the channel. PostgreSQL calls these functions from within the executor and wherever a message is raised.
//! So everything is raw, and a message that comes while another is being written is dropped.

use crate::channel::writer::Writer;
use crate::pg::exclusive::Exclusive;
use crate::pg::query::receiver::{Receiver, RowSlot};
use crate::pg::raw::Raw;
use crate::pg::value::border;
use crate::pg::value::tuple::Shape;
use crate::pg::{error, text, wire};
use crate::registry::job::{MESSAGE_MAX, Slot};
use crate::worker::attached::Attached;
use crate::worker::errand;

static WRITER: Exclusive<Writer> = Exclusive::new();
static LAST_WORDS: Exclusive<LastWords> = Exclusive::new();

/// The last error of a process, as far as it is kept. It has memory of its own: when it is reported, memory may be out.
#[derive(Clone, Copy)]
pub struct LastWords {
    /// Packed.
    pub sqlstate: i32,
    message: [u8; MESSAGE_MAX],
    len: usize,
}

impl LastWords {
    fn of(fields: wire::Fields) -> Self {
        let message = text::clip(fields.get(b'M').unwrap_or_default(), MESSAGE_MAX);
        let mut words = Self {
            sqlstate: fields.sqlstate(),
            message: [0; MESSAGE_MAX],
            len: message.len(),
        };
        words.message.iter_mut().zip(message).for_each(|(to, from)| *to = *from);
        words
    }

    /// The beginning of the message.
    pub fn message(&self) -> &[u8] {
        self.message.get(..self.len).unwrap_or_default()
    }
}

/// Where the rows of a job's last statement go.
pub static ROWS: Receiver = Receiver::new(start_rows, row, finish_rows);

/// Creates the writer, once for each process. Guarded.
pub fn init(raw: Raw<'_>, slot: &'static Slot) {
    WRITER.set(Writer::new(raw, slot));
}

/// Prepares the writer for a job.
pub fn begin(raw: Raw<'_>, job: Attached, queue_size: u32, keep: bool) {
    WRITER.with(|writer| writer.begin(raw, job.slot, job.cookie, queue_size, keep));
}

/// Calls `body` with the writer. The executor never calls this from within the writer. If the writer looks busy, an error has jumped out of
/// the writing of a notice, and SQL has caught it.
fn write(body: impl FnOnce(&mut Writer)) {
    WRITER.recover();
    WRITER.with(body);
}

fn start_rows(raw: Raw<'_>, shape: Shape) {
    border::check_columns(raw, &shape);
    write(|writer| writer.start_rows(raw, shape));
}

fn row(raw: Raw<'_>, slot: RowSlot) {
    write(|writer| writer.row(raw, slot));
}

fn finish_rows(raw: Raw<'_>) {
    write(|writer| writer.finish_rows(raw));
}

/// Writes the tag of a statement that has ended.
pub fn tag(raw: Raw<'_>, tag: &[u8]) {
    write(|writer| writer.tag(raw, tag));
}

/// Writes the rows of a task of another database.
pub fn json(raw: Raw<'_>, text: &[u8]) {
    write(|writer| writer.json(raw, text));
}

/// Writes everything so far into the queue. Called before the commit, so that a result that cannot be kept is the job's error.
pub fn flush(raw: Raw<'_>) {
    write(|writer| writer.flush_at_end(raw));
}

/// Writes the messages that were raised during the commit. If they cannot be kept, the job has not failed for that.
pub fn finish() {
    if error::catch(flush).is_err() {
        recover();
    }
}

/// Ends the output after an error, before the transaction is aborted.
pub fn after_error() {
    WRITER.recover();
    if error::catch(|raw| WRITER.with(|writer| writer.after_error(raw))).is_err() {
        WRITER.recover();
        WRITER.with(Writer::give_up_file);
    }
}

/// Closes an open file as the process ends, perhaps in the middle of a job: PostgreSQL would report it as open at the end of the
/// transaction.
pub fn abandon() {
    WRITER.recover();
    WRITER.with(Writer::give_up_file);
}

/// Makes the writer and the last words usable again after an error that jumped out of them.
pub fn recover() {
    WRITER.recover();
    LAST_WORDS.recover();
}

/// The last error of the process.
pub fn last_words() -> Option<LastWords> {
    LAST_WORDS.with(|words| *words)
}

/// Takes a message for the client. `N` is a notice. `E` only comes for an error that is not caught, which ends the process.
pub fn message_for_client(raw: Raw<'_>, kind: u8, body: &[u8]) {
    match kind {
        // A task has no reader for its notices.
        b'N' if errand::collects() => (),
        b'N' => {
            WRITER.with(|writer| writer.notice(raw, body));
        }
        b'E' => LAST_WORDS.set(LastWords::of(wire::Fields(body))),
        _ => (),
    }
}
