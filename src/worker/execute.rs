//! Runs the job's SQL as the simple-query protocol does (`exec_simple_query` of tcop/postgres.c). Raw: nothing in here owns anything.
//!
//! For each statement of the string:
//! 1. a transaction command is opened, in which the job acts as the user that it was launched by;
//! 2. several statements are grouped into one transaction, unless they control transactions themselves;
//! 3. the statement is analysed, planned and run; the rows of the last one are the result;
//! 4. after the last one, and after those that control transactions, the transaction is closed.
//!
//! If the engine has work of its own in the job's transaction ([`work`](super::work)), there is one transaction, which belongs to the
//! engine: all statements are in an implicit block, which none of them may end. The engine's part comes before the first one and after the
//! last one.

use crate::channel::request::Work;
use crate::pg::error::{emit_raw, raise_raw};
use crate::pg::guc::own;
use crate::pg::process::identity::{self, Identity};
use crate::pg::process::signals;
use crate::pg::query::receiver;
use crate::pg::query::simple_query::{self, Completion, Statement, StatementKind};
use crate::pg::raw::Raw;
use crate::pg::reuse::compiled;
use crate::pg::value::json;
use crate::pg::value::params::Parameters;
use crate::registry::job::{Slot, Stop};
use crate::tasks::runner;
use crate::worker::{attached, errand, idle, output, work};
use core::ffi::CStr;
use pgrx::PgSqlErrorCode;

/// Runs the string to its end, or raises. With parameters it may be one statement at most, as in the extended protocol. `is_used` tells
/// whether this process has run other jobs before.
pub fn execute(
    raw: Raw<'_>,
    slot: &'static Slot,
    sql: &CStr,
    parameters: Option<&Parameters>,
    identity: &Identity,
    work: Work,
    is_used: bool,
) {
    let user = User { identity };
    give_up_if_asked(raw, slot);
    user.begin();
    simple_query::begin(raw, sql);
    user.act();
    let statements = simple_query::parse(raw, sql);
    if statements.change_state() {
        compiled::text_changes_state(raw, is_used);
    }
    let was_logged = statements.log(raw, parameters);
    let count = statements.len();
    check_count(raw, count, parameters);
    let is_engines = work != Work::None;
    let grouped = count > 1 || is_engines;
    let mut works = None;
    if is_engines {
        (0..count).for_each(|n| refuse_transaction_control(raw, &statements.get(n)));
        simple_query::begin_implicit_block(raw);
        works = work::before(raw, work);
        check_count(raw, count, works.as_ref());
        simple_query::next_command(raw);
    }
    let parameters = works.as_ref().or(parameters);
    for n in 0..count {
        let statement = statements.get(n);
        let is_last = n + 1 == count;
        give_up_if_asked(raw, slot);
        if simple_query::transaction_is_aborted() && !statement.is_transaction_exit() {
            raise_raw(
                raw,
                PgSqlErrorCode::ERRCODE_IN_FAILED_SQL_TRANSACTION,
                &[b"current transaction is aborted, commands ignored until end of transaction block"],
                None,
            );
        }
        if simple_query::start_command(raw) {
            user.act();
        }
        if grouped {
            simple_query::begin_implicit_block(raw);
        }
        signals::check_for_interrupts_raw(raw);
        let done = run(raw, &statement, parameters, is_last, grouped, &user);
        send_tag(raw, &done);
        if is_last {
            if let Some(rows) = errand::rows(raw) {
                output::json(raw, rows);
            }
            output::flush(raw);
            give_up_if_asked(raw, slot);
            if is_engines {
                finish_work(raw, work, Some(&done));
            }
            if grouped {
                simple_query::end_implicit_block(raw);
            }
            user.finish_command(raw);
        } else if statement.is_transaction_control() {
            user.finish_command(raw);
        } else {
            simple_query::next_command(raw);
            simple_query::stop_statement_timer();
        }
        // As in a session: a statement whose own commit fails has not completed.
        note(slot, &done);
    }
    if is_engines && count == 0 {
        finish_work(raw, work, None);
        simple_query::end_implicit_block(raw);
    }
    user.finish_command(raw);
    if simple_query::block_is_open() && (runner::is_runner() || errand::is_task()) {
        // What the task has done is not committed, so it is not done.
        raise_raw(
            raw,
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            &[b"the SQL of the task has left a transaction open"],
            Some(c"Add COMMIT."),
        );
    }
    // The job has done its work. Interrupts are held, since even a message in the server's log would serve them.
    signals::hold_interrupts();
    statements.log_end(raw, was_logged);
    if simple_query::block_is_open() {
        simple_query::roll_back(raw);
        emit_raw(
            raw,
            pgrx::pg_sys::WARNING,
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            c"transaction block was still open at the end of the job and has been rolled back",
        );
    }
}

/// 42601.
fn check_count(raw: Raw<'_>, count: usize, parameters: Option<&Parameters>) {
    if count > 1 && parameters.is_some() {
        raise_raw(
            raw,
            PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
            &[b"cannot insert multiple commands into a prepared statement"],
            None,
        );
    }
}

/// Runs the engine's part after the job's statements, which sees their effects; `last` is what the last of them has done. Their time limit does not
/// hold for it.
fn finish_work(raw: Raw<'_>, work: Work, last: Option<&Completion>) {
    simple_query::stop_statement_timer();
    simple_query::next_command(raw);
    work::after(raw, work, last);
}

/// Refuses a statement that controls transactions, in a transaction that belongs to the engine. 2D000.
fn refuse_transaction_control(raw: Raw<'_>, statement: &Statement) {
    if statement.is_transaction_control() {
        raise_raw(
            raw,
            PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_TERMINATION,
            &[
                statement.tag_name(),
                b" is not allowed in a job whose transaction belongs to the engine",
            ],
            None,
        );
    }
}

/// Switches back to the session's user, after the job's transaction has ended in any way.
pub fn leave(identity: &Identity) {
    if identity.security_context != 0 {
        identity::set_user(identity.outer, 0);
    }
}

fn run(
    raw: Raw<'_>,
    statement: &Statement,
    parameters: Option<&Parameters>,
    is_last: bool,
    grouped: bool,
    user: &User,
) -> Completion {
    let to = if is_last && (runner::keeps_result() || errand::collects()) {
        receiver::to(&json::RECEIVER)
    } else if is_last {
        receiver::to(&output::ROWS)
    } else {
        receiver::nowhere()
    };
    match statement.kind() {
        StatementKind::CopyClient => raise_raw(
            raw,
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            &[b"COPY from or to the client is not supported in a background job"],
            Some(c"Use a file on the server or a program, or a query whose rows are the job's result."),
        ),
        StatementKind::Chain if user.is_confined() => raise_raw(
            raw,
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            &[b"AND CHAIN is not supported in a job launched by a security-definer function"],
            None,
        ),
        StatementKind::Listen => {
            idle::mark_not_reusable();
            simple_query::pretend_backend(true);
            let done = statement.run(raw, parameters, is_last, true, to);
            simple_query::pretend_backend(false);
            done
        }
        // Such a command commits in the middle, or runs user code that may do so, and a transaction must not begin inside a security
        // context. So it acts as the owner without a security context, in each of its transactions, and commands that would switch the role
        // back are locked instead.
        StatementKind::OwnTransactions | StatementKind::Procedural if user.is_confined() && !grouped => {
            own::lock_roles(true);
            user.act_unconfined();
            let done = statement.run(raw, parameters, is_last, true, to);
            user.act();
            own::lock_roles(false);
            done
        }
        // Inside the security context: there PostgreSQL itself refuses what would be done to the session's user.
        StatementKind::Alone => statement.run(raw, parameters, is_last, true, to),
        StatementKind::None | StatementKind::Chain | StatementKind::OwnTransactions | StatementKind::Procedural => {
            statement.run(raw, parameters, is_last, !user.is_confined(), to)
        }
    }
}

/// Notes that the job has left the roles that it began with, if it has: what it reads from then on is not for every role that may act as
/// those.
pub fn note_roles(slot: &Slot, identity: &Identity, began_with: (u32, u32)) {
    if identity::roles() != began_with {
        attached::note_other_role(slot, identity);
    }
}

/// Publishes the tag of the statement.
fn note(slot: &'static Slot, done: &Completion) {
    slot.look(|job| {
        job.has_tag = true;
        job.tag = done.tag();
        job.row_count = done.rows() as i64;
    });
}

/// Writes the tag of the statement into the channel: it is the result of a job without rows.
fn send_tag(raw: Raw<'_>, done: &Completion) {
    let mut text = [0; 64];
    let len = done.text(&mut text);
    output::tag(raw, text.get(..len).unwrap_or_default());
}

/// Raises if the job is to end early. A cancel interrupts a statement, but SQL can catch that and go on. So this is checked between
/// statements and before the commit.
pub fn give_up_if_asked(raw: Raw<'_>, slot: &Slot) {
    if slot.stop() != Stop::No {
        raise_raw(
            raw,
            PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
            &[b"canceling statement due to user request"],
            None,
        );
    }
}

/// The user that the job's statements act for.
struct User<'a> {
    identity: &'a Identity,
}

impl User<'_> {
    /// Whether the job was launched within a SECURITY DEFINER function: it acts as the function's owner, and may not become the session's
    /// user again.
    fn is_confined(&self) -> bool {
        self.identity.security_context != 0
    }

    /// Makes the job's user the one to which the end of the transaction returns. A rollback gives the process the user that it had when the
    /// transaction began, and a procedure may roll back and go on, so that must not be the session's user. [`leave`] switches back.
    fn begin(&self) {
        if self.is_confined() {
            self.act_unconfined();
        }
    }

    /// Called in each transaction anew, since the end of the last one has reset the identity.
    fn act(&self) {
        if self.is_confined() {
            identity::set_user(self.identity.current, self.identity.security_context);
        }
    }

    fn act_unconfined(&self) {
        identity::set_user(self.identity.current, 0);
    }

    /// Closes the transaction command. Code that runs at the commit still acts for the user; the next transaction must begin outside of any
    /// security context. Within an open block the identity stays.
    fn finish_command(&self, raw: Raw<'_>) {
        let was_open = simple_query::command_is_open();
        simple_query::finish_command(raw);
        if was_open && self.is_confined() && !simple_query::block_is_open() {
            identity::set_user(self.identity.outer, 0);
        }
    }
}
