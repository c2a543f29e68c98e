//! Reads a job's rows, messages and error.

use crate::channel::message::{Column, Kind};
use crate::channel::queue::Taken;
use crate::channel::reader::{self, Event, Pump, Reader};
use crate::pg::error::{self, Failure, Report, Result};
use crate::pg::function::rows::{Rows, Value};
use crate::pg::function::scan::{Source, Turn};
use crate::pg::process::backend;
use crate::pg::raw::Raw;
use crate::pg::shmem::{self, INVALID_POINTER};
use crate::pg::value::{border, describe, encoding, fingerprint};
use crate::pg::{fallible, memory, wire};
use crate::registry::job::{self, Job};
use crate::registry::totals::Totals;
use crate::session::jobs::{self, Handle, Hidden};
use crate::session::wait::{self, Deadline};
use pgrx::PgSqlErrorCode;
use std::rc::Rc;

/// `text`.
const TEXT: u32 = 25;

/// How reading ended, if not by an error.
#[derive(PartialEq, Eq, Clone, Copy)]
pub enum Outcome {
    /// All is read, and the handle is released.
    Read,
    /// The deadline came first; the handle is still there.
    TimedOut,
}

/// Reads the job's result to its end into `rows`; without rows only for its messages and its error. Messages are passed on as they come.
/// The job's error is raised as it was, with a context line that names the worker.
///
/// Errors: 0A000 for a submitted job and for values that only another database knows, 42804 if the result is not what `rows` expects or a
/// type in it has changed, 55000 if an earlier reading was broken off, 42704 if another session is reading it. If one of them comes before
/// the first row, the result stays as it is.
pub fn read(handle: &Rc<Handle>, rows: Option<&Rows>, deadline: Deadline) -> Result<Outcome> {
    let mut session = Session::begin(handle)?;
    session.check(rows)?;
    let outcome = session.pass_on_all(rows, deadline)?;
    if outcome == Outcome::Read {
        session.finish(rows)?;
    }
    Ok(outcome)
}

/// Calls `take` with the rows that the job has collected as JSON. The job has ended. In a transaction. 08P01 if they are not whole.
pub fn json(handle: &Rc<Handle>, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut session = Session::begin(handle)?;
    loop {
        let Session { pump, reader, .. } = &mut session;
        let event = error::catching(|raw| pump.run(raw, None, &reader.records, &mut reader.rows))?;
        match event {
            Event::Message(Kind::Json, body, len) => take(memory::view(body, len))?,
            Event::Message(..) => (),
            Event::LeftRole => session.handle.check()?,
            Event::End | Event::Drained => break,
            Event::Broken | Event::Unsettled(_) => {
                session.reader.torn = true;
                break;
            }
        }
    }
    let failure = session.job_error()?;
    session.done = true;
    failure.map_or(Ok(()), Err)
}

/// A result that is read row by row. For the session it counts as read at once: while this exists, the handle is hidden from everything
/// else that the statement does.
///
/// Rows from a transaction that has written and has not ended are passed on only when the job has ended, as if all had been read first:
/// code that looks at such a row sees what the job did.
pub struct Stream {
    handle: Rc<Handle>,
    /// None when all is read.
    session: Option<Session>,
    rows: Rows,
    at_end: AtEnd,
    /// Whether only this statement knows the handle.
    is_unnamed: bool,
    /// The event that came instead of a row.
    event: Option<Event>,
    _hidden: Hidden,
}

/// Called at the end of the reading with its outcome.
type AtEnd = fn(&Rc<Handle>, Result<Outcome>) -> Result<()>;

impl Stream {
    /// Begins to read as [`read`] does, with the same errors; `at_end` may turn the outcome into another one. `is_unnamed` says that nobody has got
    /// the handle.
    pub fn begin(handle: Rc<Handle>, rows: Rows, is_unnamed: bool, at_end: AtEnd) -> Result<Self> {
        let begun = Session::begin(&handle).and_then(|mut session| {
            session.check(Some(&rows))?;
            let unsettled = session.handle.slot.lock().queue.is_unsettled();
            session.pump.heed_writes(unsettled);
            Ok(session)
        });
        let session = match begun {
            Ok(session) => Some(session),
            Err(failure) => {
                at_end(&handle, Err(failure))?;
                None
            }
        };
        let hidden = Hidden::new(&handle);
        Ok(Self {
            handle,
            session,
            rows,
            at_end,
            is_unnamed,
            event: None,
            _hidden: hidden,
        })
    }

    /// Handles an event that was not a row. None if rows may follow.
    fn go_on(session: &mut Session, event: Event, rows: &mut Rows) -> Result<Option<Outcome>> {
        let Event::Unsettled(tuple) = event else {
            return session.see_to(event, Some(rows), Deadline::after(0));
        };
        rows.collect();
        let Session { pump, reader, .. } = session;
        error::catching(|raw| pump.push(raw, tuple, Some(rows), &reader.records, &mut reader.rows))?;
        session.pass_on_all(Some(rows), Deadline::after(0)).map(Some)
    }

    /// Ends the reading: all is read, or it failed.
    fn conclude(&mut self, ended: Result<Outcome>, wanted: bool) -> Result<()> {
        let finished = match (self.session.take(), ended) {
            (Some(session), Ok(Outcome::Read)) => {
                if session.reader.columns.is_none() {
                    self.rows.collect();
                }
                session.finish(wanted.then_some(&self.rows)).map(|()| Outcome::Read)
            }
            (_, ended) => ended,
        };
        (self.at_end)(&self.handle, finished)
    }
}

impl Drop for Stream {
    /// The statement failed in the middle of its rows: the reading is broken off. A handle that nobody has got is released when the job has ended. As
    /// long as the job runs, sessions can wait for it and stop it.
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let taken = session.reader.rows > 0;
            drop(session);
            if taken && self.is_unnamed {
                self.handle.slot.orphan(self.handle.cookie);
            }
        }
    }
}

impl Source for Stream {
    fn show(&mut self, raw: Raw<'_>) -> bool {
        let Some(Session { pump, reader, .. }) = &mut self.session else {
            return false;
        };
        self.event = pump.show(raw, &self.rows, &reader.records, &mut reader.rows);
        self.event.is_none()
    }

    fn go_on(&mut self) -> Result<Turn> {
        let (Some(session), Some(event)) = (&mut self.session, self.event.take()) else {
            return Ok(Turn::End);
        };
        let ended = Self::go_on(session, event, &mut self.rows);
        if let Ok(None) = ended {
            return Ok(Turn::More);
        }
        self.conclude(ended.map(|outcome| outcome.unwrap_or(Outcome::Read)), true)?;
        Ok(Turn::Collected(self.rows))
    }

    fn drop_rest(&mut self) -> Result<()> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        let ended = session.pass_on_all(None, Deadline::after(0));
        self.conclude(ended, false)
    }

    fn is_lost(&self) -> bool {
        !jobs::is_in_hand(self.handle.cookie)
    }
}

/// One reading, from its beginning until it is over or broken off.
struct Session {
    handle: Rc<Handle>,
    reader: Reader,
    pump: Pump,
    /// How much of the result had been read before, in bytes.
    read_before: u64,
    /// Whether this has taken over what an earlier reading left, so that a broken-off reading has to store it again.
    begun: bool,
    done: bool,
    /// Whether to look up the encoding of the texts again when something has come.
    encoding_is_guessed: bool,
}

impl Session {
    fn begin(handle: &Rc<Handle>) -> Result<Self> {
        let mut reader = Reader::default();
        let (read_before, known, left, encoding_is_guessed);
        {
            let mut job = handle.slot.lock();
            if let Some(refusal) = Refusal::of(&job) {
                drop(job);
                return Err(refusal.report(handle.pid).into());
            }
            left = job.queue.left();
            read_before = job.queue.read();
            known = (job.known, job.known_len as usize);
            job.queue.set_reader(Some(backend::my_procno()));
            reader.records.texts_come_in(job.encoding);
            encoding_is_guessed = job.encoding_is_guessed;
        }
        let pump = Pump::new(handle.slot, handle.cookie, &mut reader);
        let mut session = Self {
            handle: Rc::clone(handle),
            reader,
            pump,
            read_before,
            begun: false,
            done: false,
            encoding_is_guessed,
        };
        // This session is the reader, so no other process frees it. If it cannot be mapped, it stays as it is.
        let known = fallible::copied(shmem::mapped_bytes(known.0, known.1)?)?;
        if let Some((pointer, done)) = left {
            shmem::map(pointer)?;
            session.reader.begun = Some((Taken::at(pointer), done));
            session.pump = Pump::new(handle.slot, handle.cookie, &mut session.reader);
        }
        for (kind, body) in reader::remembered(&known) {
            session.message(kind, body, None)?;
        }
        session.begun = true;
        Ok(session)
    }

    /// Passes on all that comes; without `rows`, drops the rows.
    fn pass_on_all(&mut self, rows: Option<&Rows>, deadline: Deadline) -> Result<Outcome> {
        loop {
            let Session { pump, reader, .. } = self;
            let Reader {
                records, rows: count, ..
            } = reader;
            let event = error::catching(|raw| pump.run(raw, rows, records, count))?;
            if let Some(outcome) = self.see_to(event, rows, deadline)? {
                return Ok(outcome);
            }
        }
    }

    /// Handles an event without a row. None if more may come.
    fn see_to(&mut self, event: Event, rows: Option<&Rows>, deadline: Deadline) -> Result<Option<Outcome>> {
        match event {
            Event::Message(kind, body, len) => self.message(kind, memory::view(body, len), rows)?,
            Event::Drained => {
                let handle = &self.handle;
                let more = wait::until(core::slice::from_ref(handle), deadline, || {
                    Ok(handle.job().queue.has_news().then_some(()))
                })?;
                if more.is_none() {
                    return Ok(Some(Outcome::TimedOut));
                }
            }
            Event::LeftRole => self.handle.check()?,
            Event::End => return Ok(Some(Outcome::Read)),
            Event::Broken | Event::Unsettled(_) => {
                self.reader.torn = true;
                return Ok(Some(Outcome::Read));
            }
        }
        Ok(None)
    }

    /// Handles a message. Without `rows`, what it says of the rows is only noted.
    fn message(&mut self, kind: Kind, body: &[u8], rows: Option<&Rows>) -> Result<()> {
        let allowed = self.handle.check();
        if self.reader.rows == 0 && (kind != Kind::Notice || allowed.is_err()) {
            // The message was taken from the stream. The next reader needs it, whatever becomes of this reading.
            let torn = core::mem::replace(&mut self.reader.torn, true);
            self.reader.remember(kind, body)?;
            self.reader.torn = torn;
        }
        allowed?;
        if core::mem::take(&mut self.encoding_is_guessed) {
            self.reader.records.texts_come_in(self.handle.slot.lock().encoding);
        }
        match kind {
            Kind::Columns => {
                self.reader.columns = Some(Column::all(body));
                self.check_columns(rows)
            }
            Kind::Record if rows.is_some() => {
                self.check_record(body)?;
                self.reader.records.learn(body)
            }
            Kind::Record => Ok(()),
            Kind::Tag => self.reader.add_tag(body),
            Kind::Notice => {
                let edata = self.error_data(wire::Fields(body), None)?;
                error::catching(|raw| error::emit(raw, edata))
            }
            Kind::Row | Kind::Json => Ok(()),
        }
    }

    /// Checks what is known of the result so far, if an earlier reading has left something. Without `rows` all is well.
    fn check(&mut self, rows: Option<&Rows>) -> Result<()> {
        if rows.is_none() {
            return Ok(());
        }
        self.check_columns(rows)?;
        for (kind, body) in reader::remembered(&self.reader.known) {
            if kind == Kind::Record {
                self.check_record(body)?;
                self.reader.records.learn(body)?;
            }
        }
        Ok(())
    }

    /// Checks a type within a record by its description.
    fn check_record(&self, description: &[u8]) -> Result<()> {
        if let Some(border) = self.border() {
            error::catching(|raw| {
                describe::each_column(description, &mut |kind, name| match name {
                    b"" => border.check(raw, kind, &[b"a record"]),
                    _ => border.check(raw, kind, &[b"column \"", name, b"\" of a record"]),
                })
            })?;
        }
        if error::catching(|raw| describe::has_changed(raw, description))? {
            return Err(changed_type());
        }
        Ok(())
    }

    /// Compares the columns of the result with those that are expected, once for all rows.
    fn check_columns(&self, rows: Option<&Rows>) -> Result<()> {
        let (Some(rows), Some(columns)) = (rows, &self.reader.columns) else {
            return Ok(());
        };
        let same = rows.width() == columns.len()
            && columns
                .iter()
                .enumerate()
                .all(|(n, column)| rows.column_type(n) == column.kind);
        if !same {
            return Err(Report::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                "remote query result rowtype does not match the specified FROM clause rowtype",
            )
            .into());
        }
        if let Some(border) = self.border() {
            error::catching(|raw| {
                for (n, column) in columns.iter().enumerate() {
                    border.check(raw, column.kind, &[b"column \"", rows.column_name(n), b"\""]);
                }
            })?;
        }
        let changed = error::catching(|raw| {
            columns
                .iter()
                .any(|column| fingerprint::fingerprint(raw, column.kind) != column.print)
        })?;
        if changed {
            return Err(changed_type());
        }
        error::catching(|raw| rows.come_with(raw, &|n| columns.get(n).map_or(-1, |column| column.modifier)))
    }

    /// Ends a complete reading: raises the job's error, or returns the tags as the result if there were no columns. Releases the handle.
    fn finish(mut self, rows: Option<&Rows>) -> Result<()> {
        self.handle.check()?;
        let failure = self.job_error()?;
        if failure.is_none()
            && self.reader.columns.is_none()
            && let Some(rows) = rows
        {
            if rows.width() != 1 || rows.column_type(0) != TEXT {
                return Err(Report::new(
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    "remote query did not return a result set, but result rowtype is not a single text column",
                )
                .into());
            }
            for tag in self.reader.each_tag() {
                rows.push(&[Value::Text(tag)])?;
            }
        }
        self.done = true;
        let handle = Rc::clone(&self.handle);
        drop(self);
        jobs::release(&handle);
        failure.map_or(Ok(()), Err)
    }

    /// The message as this session shows it, with its own level or with `level`.
    fn error_data(&self, fields: wire::Fields, level: Option<u32>) -> Result<*mut pgrx::pg_sys::ErrorData> {
        let (sql, encoding, text_encoding) = {
            let job = self.handle.slot.lock();
            (job.sql(), job.encoding, job.text_encoding)
        };
        let message = fields.readable(encoding)?;
        let level = level.unwrap_or_else(|| fields.level());
        Ok(wire::Fields(&message).to_error_data(level, &encoding::readable(sql.read()?, text_encoding)?))
    }

    /// The checks and conversions for values of a job that ran in another database than this session's; None for one that ran in the same.
    fn border(&self) -> Option<border::Border> {
        let (database, encoding) = {
            let job = self.handle.slot.lock();
            (job.database, job.encoding)
        };
        (database != backend::my_database().to_u32()).then(|| border::Border {
            from: encoding,
            to: encoding::of_database(),
            outward: false,
        })
    }

    /// The job's error as this session raises it.
    fn raised(&self, error: &job::Error) -> Result<*mut pgrx::pg_sys::ErrorData> {
        let fields = error.fields()?;
        self.error_data(wire::Fields(&fields), Some(pgrx::pg_sys::PGERROR))
    }

    /// The error that the reading ends with. 53200 if there is no memory to read it; then it can be asked for again.
    fn job_error(&self) -> Result<Option<Failure>> {
        let error = self.handle.slot.lock().error().copied();
        if let Some(error) = error {
            return Ok(Some(Failure::OfJob(self.raised(&error)?)));
        }
        Ok(self.reader.torn.then(|| {
            Report::new(
                PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION,
                format!("the result of PID {} is not whole", self.handle.pid),
            )
            .into()
        }))
    }
}

/// The error for a type in the result that was altered since the job ran: its values cannot be read any more.
fn changed_type() -> Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        "a type in the result has changed since the job ran",
    )
    .hint("Run the job again.")
    .into()
}

/// Why this session may not begin to read. Determined under the job's lock, reported without it.
enum Refusal {
    Released,
    ReadHere,
    ReadElsewhere,
    Consumed,
    Unwanted,
    Submitted,
}

impl Refusal {
    fn of(job: &Job) -> Option<Self> {
        if job.is_released() {
            return Some(Self::Released);
        }
        match job.queue.reader() {
            Some(reader) if reader == backend::my_procno() => return Some(Self::ReadHere),
            Some(_) => return Some(Self::ReadElsewhere),
            None => (),
        }
        if job.consumed {
            return Some(Self::Consumed);
        }
        if job.is_unwanted() {
            return Some(Self::Unwanted);
        }
        (!job.keeps_result).then_some(Self::Submitted)
    }

    fn report(self, pid: i32) -> Report {
        match self {
            Self::Released => jobs::unknown(pid),
            Self::ReadHere => Report::new(
                PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
                format!("the result of PID {pid} is being read"),
            ),
            Self::ReadElsewhere => jobs::unknown(pid).detail("Another session is reading the result."),
            Self::Consumed => Report::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the result of PID {pid} was read in part before"),
            )
            .hint("Use pg_background_detach to forget the job."),
            Self::Unwanted => jobs::unknown(pid)
                .detail("The session that launched the job has ended, and its result was not retained."),
            Self::Submitted => Report::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("results are disabled for PID {pid} (submitted via pg_background_submit)"),
            ),
        }
    }
}

impl Drop for Session {
    /// Ends the reading. If it was broken off, its position in the stream is kept for the next reader. But if rows or a part of a message
    /// were passed on, they are lost with the caller's result, so the rest cannot be read any more. The same holds if there is no memory to
    /// keep what the reader has learned.
    fn drop(&mut self) {
        if !self.begun {
            return self.handle.slot.stop_reading(self.handle.cookie);
        }
        self.pump.stop(&mut self.reader);
        let known = &self.reader.known;
        let kept = if self.done || self.reader.rows > 0 || self.reader.torn {
            None
        } else {
            shmem::store(known).ok()
        };
        let (before, totals, bytes);
        {
            let mut job = self.handle.slot.lock();
            if let Some((piece, done)) = self.reader.begun {
                job.queue.leave(piece, done);
            }
            before = core::mem::replace(&mut job.known, kept.unwrap_or(INVALID_POINTER));
            job.known_len = known.len() as u64;
            job.consumed |= kept.is_none();
            (totals, bytes) = (job.totals, job.queue.read() - self.read_before);
        }
        shmem::free(before);
        Totals::at(totals).returned(self.reader.rows, bytes);
        self.handle.slot.stop_reading(self.handle.cookie);
    }
}
