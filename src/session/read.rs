//! A job's rows, messages and error, as they reach the session that reads.

use super::jobs::{self, Handle};
use super::wait::{self, Deadline};
use crate::channel::message::Kind;
use crate::channel::reader::{Event, Pump, Reader};
use crate::pg::error::{self, Failure, Report, Result};
use crate::pg::fmgr::{Rows, Value};
use crate::pg::{encoding, foreign, memory, proc, record, rowtype, wire};
use crate::registry::job::State;
use pgrx::PgSqlErrorCode;
use std::cell::RefMut;
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

/// Reads the job's result to its end into `rows`, or without rows for its messages and its error only. Messages are passed on as
/// they come. The job's error is raised as it was, with a context line that names the worker.
///
/// Errors: 0A000 for a submitted job, 42804 where the result is not what `rows` expects (it stays unread), 55000 where an
/// earlier reading was broken off.
pub fn read(handle: &Rc<Handle>, rows: Option<&Rows>, deadline: Deadline) -> Result<Outcome> {
    let mut session = Session::begin(handle)?;
    session.check_columns(rows)?;
    loop {
        let Session { pump, reader, .. } = &mut session;
        let Reader {
            records, rows: count, ..
        } = &mut **reader;
        match error::catching(|| pump.run(rows, records, count))? {
            Event::Message(kind, body, len) => session.message(kind, memory::view(body, len), rows)?,
            Event::Drained => {
                let more = wait::until(core::slice::from_ref(handle), deadline, || {
                    Ok(handle.job().queue.has_news().then_some(()))
                })?;
                if more.is_none() {
                    return Ok(Outcome::TimedOut);
                }
            }
            Event::End => break,
            Event::Broken => {
                session.reader.torn = true;
                break;
            }
        }
    }
    session.finish(rows)?;
    Ok(Outcome::Read)
}

/// One reading, from its beginning to its end or until it is broken off.
struct Session<'a> {
    handle: &'a Rc<Handle>,
    reader: RefMut<'a, Reader>,
    pump: Pump,
    done: bool,
}

impl<'a> Session<'a> {
    fn begin(handle: &'a Rc<Handle>) -> Result<Self> {
        let pid = handle.pid;
        let Ok(mut reader) = handle.reader.try_borrow_mut() else {
            return Err(Report::new(
                PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
                format!("the result of PID {pid} is being read"),
            )
            .into());
        };
        {
            let mut job = handle.slot.lock();
            if !job.keeps_result {
                drop(job);
                return Err(Report::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("results are disabled for PID {pid} (submitted via pg_background_submit)"),
                )
                .into());
            }
            if job.consumed {
                drop(job);
                return Err(Report::new(
                    PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("the result of PID {pid} was read in part before"),
                )
                .hint("Use pg_background_detach to forget the job.")
                .into());
            }
            job.queue.set_reader(Some(proc::my_procno()));
            reader.records.texts_come_in(job.encoding);
        }
        let pump = Pump::new(handle.slot, handle.cookie, &mut reader);
        Ok(Self {
            handle,
            reader,
            pump,
            done: false,
        })
    }

    fn message(&mut self, kind: Kind, body: &[u8], rows: Option<&Rows>) -> Result<()> {
        match kind {
            Kind::Columns => {
                self.reader.columns = Some(
                    body.as_chunks::<8>()
                        .0
                        .iter()
                        .map(|[a, b, c, d, print @ ..]| {
                            (u32::from_ne_bytes([*a, *b, *c, *d]), u32::from_ne_bytes(*print))
                        })
                        .collect(),
                );
                self.check_columns(rows)
            }
            Kind::Record => {
                // The description is out of the stream: if it is not learned now, rows that need it must not be read later.
                let torn = core::mem::replace(&mut self.reader.torn, true);
                if error::catching(|| record::has_changed(body))? {
                    return Err(changed_type());
                }
                if let Some(border) = self.border() {
                    error::catching(|| {
                        record::each_column(body, &mut |kind, name| {
                            border.check(kind, &[b"column \"", name, b"\" of a record"]);
                        })
                    })?;
                }
                self.reader.records.learn(body)?;
                self.reader.torn = torn;
                Ok(())
            }
            Kind::Tag => {
                self.reader.tags.push(body.to_vec());
                Ok(())
            }
            Kind::Notice => {
                let edata = self.error_data(wire::Fields(body), None);
                error::catching(|| error::emit(edata))
            }
            Kind::Row => Ok(()),
        }
    }

    /// Compares the columns that came with those that are expected, once for all rows.
    fn check_columns(&self, rows: Option<&Rows>) -> Result<()> {
        let (Some(rows), Some(columns)) = (rows, &self.reader.columns) else {
            return Ok(());
        };
        let same = rows.width() == columns.len()
            && columns
                .iter()
                .enumerate()
                .all(|(n, (kind, _))| rows.column_type(n) == *kind);
        if !same {
            return Err(Report::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                "remote query result rowtype does not match the specified FROM clause rowtype",
            )
            .into());
        }
        if let Some(border) = self.border() {
            error::catching(|| {
                for (n, (kind, _)) in columns.iter().enumerate() {
                    border.check(*kind, &[b"column \"", rows.column_name(n), b"\""]);
                }
            })?;
        }
        let changed = error::catching(|| {
            columns
                .iter()
                .any(|(kind, print)| rowtype::fingerprint(*kind) != *print)
        })?;
        if changed { Err(changed_type()) } else { Ok(()) }
    }

    /// Everything is read: the error is raised, or the tags are the result, and the handle is released.
    fn finish(mut self, rows: Option<&Rows>) -> Result<()> {
        let failure = self.job_error();
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
            for tag in &self.reader.tags {
                rows.push(&[Value::Text(tag)])?;
            }
        }
        self.done = true;
        let handle = self.handle;
        drop(self);
        handle.slot.lock().consumed = true;
        jobs::release(handle);
        failure.map_or(Ok(()), Err)
    }

    /// The message as this session shows it, with the level that it was raised with or another one.
    fn error_data(&self, fields: wire::Fields, level: Option<u32>) -> *mut pgrx::pg_sys::ErrorData {
        let (sql, encoding, text_encoding) = {
            let job = self.handle.slot.lock();
            (job.sql(), job.encoding, job.text_encoding)
        };
        let message = fields.readable(encoding);
        let level = level.unwrap_or_else(|| fields.level());
        wire::Fields(&message).to_error_data(level, &encoding::readable(sql, text_encoding))
    }

    /// Where the job ran in another database than this session's: what its values cross.
    fn border(&self) -> Option<foreign::Border> {
        let (database, encoding) = {
            let job = self.handle.slot.lock();
            (job.database, job.encoding)
        };
        (database != proc::my_database().to_u32()).then(|| foreign::Border {
            from: encoding,
            to: encoding::of_database(),
        })
    }

    fn job_error(&self) -> Option<Failure> {
        let (fields, state) = {
            let job = self.handle.slot.lock();
            (job.error(), job.state)
        };
        if let Some(fields) = fields {
            let edata = self.error_data(fields, Some(pgrx::pg_sys::PGERROR));
            return Some(Failure::Foreign(edata));
        }
        if state != State::Stopped {
            // There was no memory to keep the error itself.
            let report = Report::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of shared memory");
            return Some(report.detail("The job failed; its error could not be kept.").into());
        }
        self.reader.torn.then(|| {
            Report::new(
                PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION,
                format!("the result of PID {} is not whole", self.handle.pid),
            )
            .into()
        })
    }
}

/// A composite type in the result was altered since the job ran: its values cannot be read any more.
fn changed_type() -> Failure {
    Report::new(
        PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        "a composite type in the result has changed since the job ran",
    )
    .hint("Run the job again.")
    .into()
}

impl Drop for Session<'_> {
    /// Broken off: the place in the stream is kept. If rows were passed on, or a message in part, they are lost with the caller's
    /// set, so the rest is no whole result any more.
    fn drop(&mut self) {
        self.pump.stop(&mut self.reader);
        jobs::stop_reading(self.handle);
        if !self.done && (self.reader.rows > 0 || self.reader.torn) {
            self.handle.slot.lock().consumed = true;
        }
    }
}
