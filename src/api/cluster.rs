//! The functions behind the views `pg_background_jobs` and `pg_background_cluster_stats`.

use crate::pg::catalog::role;
use crate::pg::error::{Failure, Report, Result};
use crate::pg::function::call::{Answer, Call};
use crate::pg::function::rows::Value;
use crate::pg::process::signals;
use crate::pg::query::simple_query;
use crate::pg::text;
use crate::pg::value::encoding;
use crate::registry::history::{Entry, Reading};
use crate::registry::job::PREVIEW_CHARACTERS;
use crate::registry::segment::segment;
use crate::registry::{totals, upkeep};
use crate::session::jobs;
use core::sync::atomic::Ordering::Relaxed;
use pgrx::PgSqlErrorCode;
use std::borrow::Cow;
use std::collections::HashSet;

crate::sql_function! {
    pg_background_jobs => jobs;
    pg_background_cluster_stats => cluster_stats;
    pg_background_reset_cluster_stats => reset_cluster_stats;
}

/// `jobs()`: every job in a slot or in the history.
///
/// A role that may not act on a job sees its owner, its state and its times. A role that may read all statistics sees all columns but the
/// cookie, which is shown only to roles that may act on the job or cancel it.
fn jobs(call: &Call) -> Result<Answer> {
    let rows = call.rows()?;
    jobs::join()?;
    let reads_all = role::reads_all_stats();
    each_known(|entry| {
        let facts = &entry.facts;
        let acts = jobs::may_read_of(facts.user, facts.also_for);
        let cookie = acts || role::may_signal(facts.connected);
        let reads = acts || reads_all;
        let text = |text: Option<&[u8]>, from| {
            let text = text.map(|text| encoding::readable(text, from)).transpose()?;
            Ok::<_, Failure>(text.map(Cow::into_owned))
        };
        let (label, sql) = (
            text(entry.label(), facts.text_encoding)?,
            text(Some(entry.sql()), facts.text_encoding)?,
        );
        let (message, progress) = (
            text(entry.message(), facts.encoding)?,
            text(entry.progress(), facts.encoding)?,
        );
        let mut values = [
            Value::Int4(facts.pid),
            if cookie {
                Value::Int8(facts.cookie as i64)
            } else {
                Value::Null
            },
            Value::Oid(facts.database),
            Value::Oid(facts.user),
            Value::Int4(facts.launcher_pid),
            Value::text_or_null(label.as_deref()),
            Value::Text(facts.state.name().as_bytes()),
            Value::text_or_null(
                sql.as_deref()
                    .map(|sql| text::first_characters(sql, PREVIEW_CHARACTERS)),
            ),
            Value::time_or_null(facts.launched_at),
            Value::time_or_null(facts.started_at),
            Value::time_or_null(facts.finished_at),
            Value::Int8(facts.row_count),
            if facts.has_tag {
                Value::Text(simple_query::tag_name(facts.tag))
            } else {
                Value::Null
            },
            if facts.has_error {
                Value::Text(&facts.sqlstate)
            } else {
                Value::Null
            },
            Value::text_or_null(message.as_deref().map(|message| text::clip(message, message.len()))),
            if facts.has_progress {
                Value::Int4(facts.progress_pct)
            } else {
                Value::Null
            },
            Value::text_or_null(progress.as_deref()),
            Value::Int8(facts.result_bytes as i64),
        ];
        if !reads {
            for n in [5, 7, 11, 12, 13, 14, 15, 16, 17] {
                values[n] = Value::Null;
            }
        }
        rows.push(&values)
    })?;
    call.null()
}

/// Calls `show` for each job once, first for those in a slot, then for those in the history.
///
/// A job gets its record in the step in which it ends. So a job that is missed in its slot is in the history, which is read afterwards, up to
/// the record that is then the last one.
fn each_known(mut show: impl FnMut(&Entry) -> Result<()>) -> Result<()> {
    let mut seen = HashSet::new();
    for slot in segment()?.all()? {
        let cookie = slot.cookie.load(Relaxed);
        if cookie == 0 {
            continue;
        }
        slot.look_after(cookie)?;
        let entry = match slot.lock_if(cookie) {
            Some(job) if slot.pid.load(Relaxed) != 0 && !job.is_hidden => Entry::of(slot, &job),
            _ => continue,
        };
        seen.try_reserve(1).map_err(|_| out_of_memory())?;
        seen.insert(cookie);
        show(&entry)?;
    }
    let mut reading = Reading::begin(&segment()?.history);
    while let Some(entries) = reading.next()? {
        for entry in entries {
            if !seen.contains(&entry.facts.cookie) {
                show(&entry)?;
            }
        }
        signals::check_for_interrupts()?;
    }
    Ok(())
}

fn out_of_memory() -> Failure {
    Report::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory").into()
}

/// `cluster_stats()`: the counts of jobs by database and role.
fn cluster_stats(call: &Call) -> Result<Answer> {
    let rows = call.rows()?;
    upkeep::look_after_all()?;
    for totals in totals::all(&segment()?.totals)? {
        let (database, user) = totals.key();
        let counts = totals.counts().map(|count| count.load(Relaxed));
        if counts.iter().all(|count| *count == 0) {
            continue;
        }
        let mut values = vec![Value::Oid(database), Value::Oid(user)];
        values.extend(counts.iter().enumerate().map(|(n, count)| match n {
            8..12 => Value::Float8(*count as f64 / 1000.0),
            _ => Value::Int8(*count as i64),
        }));
        values.push(Value::Timestamp(totals.since.load(Relaxed)));
        rows.push(&values)?;
    }
    call.null()
}

/// `reset_cluster_stats()`: sets these counts to zero.
fn reset_cluster_stats(call: &Call) -> Result<Answer> {
    for totals in totals::all(&segment()?.totals)? {
        totals.reset();
    }
    call.void()
}
