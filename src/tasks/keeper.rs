//! The look at the tables of one database: what is due becomes ready, what has ended without a run is noted, and the lines are put to their
//! beginning if a sweep was asked for. It is a job of the tables' owner.
//!
//! The tables are the truth. A row that another transaction has locked is left for later: no session may hold up the tasks of others. An error
//! about one task fails nothing else.

use crate::pg::catalog::database;
use crate::pg::error::{self, Failure, Result};
use crate::pg::fallible;
use crate::pg::function::rows::{INT4, INT8, OID, TIMESTAMPTZ, Value};
use crate::pg::guc::own;
use crate::pg::moment;
use crate::pg::plan::{self, Plan};
use crate::pg::process::backend;
use crate::pg::sqlstate;
use crate::pg::table::Sees;
use crate::pg::transaction;
use crate::settings::{self, Tasks};
use crate::tasks::elsewhere;
use crate::tasks::end::{self, Locked};
use crate::tasks::fire::{self, Firing};
use crate::tasks::history::{self, Failed};
use crate::tasks::lane;
use crate::tasks::pushed::{self, Ready, ready_columns};
use crate::tasks::ready::{self, Which};
use crate::tasks::shared::{self, Database, Mode, Of, Refused, Run};
use crate::tasks::stamp::{self, Standing};
use crate::tasks::stay::Stay;
use crate::tasks::tables::{self, Phase, Tables};
use pgrx::pg_sys::ErrorData;

/// How soon the keeper looks again where another session may commit what was prepared, in microseconds.
const PREPARED: i64 = 1_000_000;

/// The same after something that was left for later.
const LATER: i64 = 500_000;

/// The same at least, after a schedule that another transaction has locked.
const SOON: i64 = 20_000;

/// How many schedules are fired in one transaction, and how many before something else is looked at, too.
const FIRED_AT_ONCE: i64 = 100;
const FIRED_IN_A_LOOK: i64 = 1000;

/// How many tasks are looked at in one transaction.
const AT_ONCE: i64 = 1000;

/// After so many errors in one look, the rest is left for later: the disk may be full.
const ERRORS: usize = 3;

/// How long the keeper waits for a lock.
const PATIENCE: &core::ffi::CStr = c"100ms";

/// Statements of what [`Attempts`] reads, of the tasks for which the condition holds.
macro_rules! attempts_where {
    ($condition:literal) => {
        plan::text(concat!(
            "SELECT t.id, t.attempt, \
                  COALESCE(t.max_attempts, CASE WHEN t.mode OPERATOR(pg_catalog.=) 's' THEN 1 ELSE COALESCE(q.max_attempts, 5) END), \
                  LEAST(pg_catalog.date_part('epoch', COALESCE(t.retry_delay, q.retry_delay, '5 s')) OPERATOR(pg_catalog.*) 1000, 3600000)::pg_catalog.int8 \
              FROM background.task AS t LEFT JOIN background.queue AS q ON q.name OPERATOR(pg_catalog.=) t.queue WHERE ",
            $condition,
            "\0"
        ))
    };
}

static LOST: Plan = Plan::planned(attempts_where!("t.id OPERATOR(pg_catalog.=) $1"), &[INT8]);

/// Tasks of a role, which exists, that wait since a time.
static OF_ROLE: Plan = Plan::planned(
    attempts_where!(
        "t.phase OPERATOR(pg_catalog.=) 'w' AND t.owner OPERATOR(background.=) background.role_of($1) \
         AND background.role_oid(t.owner) IS NOT NULL \
         AND GREATEST(t.enqueued_at, t.run_at, t.ready_at) OPERATOR(pg_catalog.<=) $2 LIMIT $3"
    ),
    &[OID, TIMESTAMPTZ, INT8],
);

/// Tasks that end without a run: which they are, what is noted of one of them if it still is one, and their state. Those whose rows others hold are not
/// among the first ones, which would keep the rest from being found.
struct Endings {
    find: Plan,
    note: Plan,
    state: &'static [u8],
}

static EXPIRED: Endings = Endings {
    find: Plan::planned(
        c"SELECT id FROM background.task WHERE expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp() \
          LIMIT $1 FOR UPDATE SKIP LOCKED",
        &[INT8],
    ),
    note: Plan::planned(
        c"SELECT FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 AND expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()",
        &[INT8],
    ),
    state: b"expired",
};

/// Of roles that do not exist. Looked for only if there are any, as the list of lines shows.
static NOBODYS: Endings = Endings {
    find: Plan::planned(
        c"SELECT id FROM background.task WHERE phase OPERATOR(pg_catalog.=) 'w' AND background.role_oid(owner) IS NULL \
          LIMIT $1 FOR UPDATE SKIP LOCKED",
        &[INT8],
    ),
    note: Plan::planned(
        c"UPDATE background.task SET sqlstate = '42704', \
              error_message = 'role \"' OPERATOR(pg_catalog.||) background.role_name(owner) OPERATOR(pg_catalog.||) '\" does not exist' \
          WHERE id OPERATOR(pg_catalog.=) $1 AND background.role_oid(owner) IS NULL",
        &[INT8],
    ),
    state: b"failed",
};

/// Whose last attempt has begun, and how it ended is not noted: the server has ended with it.
static CUT_SHORT: Plan = Plan::planned(
    attempts_where!(
        "t.phase OPERATOR(pg_catalog.=) 'w' AND t.attempt OPERATOR(pg_catalog.>) 0 AND t.sqlstate IS NULL \
         LIMIT $1 FOR UPDATE OF t SKIP LOCKED"
    ),
    &[INT8],
);

/// The same of one task, if it still is one. Returns when the attempt began.
static IS_CUT_SHORT: Plan = Plan::planned(
    c"SELECT started_at FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 \
          AND phase OPERATOR(pg_catalog.=) 'w' AND attempt OPERATOR(pg_catalog.=) $2 AND sqlstate IS NULL",
    &[INT8, INT4],
);

static LOCK: Plan = Plan::planned(
    c"SELECT FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED",
    &[INT8],
);

/// A task that was not enqueued again since its run began.
static LOCK_CANCELED: Plan = Plan::planned(
    c"SELECT FROM background.task WHERE id OPERATOR(pg_catalog.=) $1 AND (ready_at IS NULL OR ready_at OPERATOR(pg_catalog.<=) $2) FOR UPDATE",
    &[INT8, TIMESTAMPTZ],
);

/// Parents that have ended and whose children have not been told.
static PARENTS: Plan = Plan::planned(
    c"SELECT DISTINCT parent FROM background.dependency \
      WHERE NOT EXISTS (SELECT FROM background.task WHERE id OPERATOR(pg_catalog.=) parent)",
    &[],
);

/// Tasks that wait for nothing, although they say so.
static FORGOTTEN: Plan = Plan::planned(
    c"SELECT id FROM background.task WHERE phase OPERATOR(pg_catalog.=) 'b' \
          AND NOT EXISTS (SELECT FROM background.dependency WHERE child OPERATOR(pg_catalog.=) id) \
      LIMIT $1 FOR UPDATE SKIP LOCKED",
    &[INT8],
);

static HAS_BLOCKED: Plan = Plan::planned(c"SELECT EXISTS (SELECT FROM background.dependency)", &[]);

static DUE: Plan = Plan::planned(
    plan::text(concat!(
        "UPDATE background.task AS t SET phase = 'w' \
          WHERE id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT id FROM background.task \
              WHERE phase OPERATOR(pg_catalog.=) 'd' AND run_at OPERATOR(pg_catalog.<=) $1 \
              ORDER BY run_at LIMIT $2 FOR UPDATE SKIP LOCKED)) \
          RETURNING ",
        ready_columns!(),
        "\0"
    )),
    &[TIMESTAMPTZ, INT8],
);

/// The first lines that have tasks which may run, each found by one look into the index behind the one before. Whatever the number of tasks is, this
/// takes as many looks as there are lines. Those of roles that do not exist are among them, whatever their queue is.
static LINES: Plan = Plan::planned(
    c"WITH RECURSIVE line (queue, owner) AS ( \
          (SELECT queue, owner FROM background.task WHERE phase OPERATOR(pg_catalog.=) 'w' \
           ORDER BY queue, owner USING OPERATOR(background.<) LIMIT 1) \
          UNION ALL \
          SELECT further.queue, further.owner FROM line AS before CROSS JOIN LATERAL ( \
              (SELECT queue, owner FROM background.task WHERE phase OPERATOR(pg_catalog.=) 'w' \
                   AND queue OPERATOR(pg_catalog.=) before.queue AND owner OPERATOR(background.>) before.owner \
               ORDER BY owner USING OPERATOR(background.<) LIMIT 1) \
              UNION ALL \
              (SELECT queue, owner FROM background.task WHERE phase OPERATOR(pg_catalog.=) 'w' \
                   AND queue OPERATOR(pg_catalog.>) before.queue \
               ORDER BY queue, owner USING OPERATOR(background.<) LIMIT 1) \
              LIMIT 1) AS further \
      ) SELECT queue, background.role_oid(owner) FROM line \
      WHERE background.role_oid(owner) IS NULL OR NOT EXISTS (SELECT FROM background.queue \
          WHERE name OPERATOR(pg_catalog.=) line.queue AND (paused OR max_running OPERATOR(pg_catalog.=) 0)) \
      LIMIT $1",
    &[INT8],
);

/// How many lines a sweep looks for: more than there is room for, so that some have none and are looked for again.
const LINES_AT_ONCE: usize = 2 * ready::LINES;

static NEXT: Plan = Plan::planned(
    c"SELECT LEAST((SELECT pg_catalog.min(run_at) FROM background.task WHERE phase OPERATOR(pg_catalog.=) 'd'), \
          (SELECT pg_catalog.min(expires_at) FROM background.task WHERE expires_at IS NOT NULL))",
    &[],
);

/// Whether a transaction is prepared that may have enqueued tasks.
static IS_PREPARED: Plan = Plan::planned(
    c"SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts WHERE database OPERATOR(pg_catalog.=) pg_catalog.current_database())",
    &[],
);

/// Looks at the tables of this process's database, and stays as long as it is soon to look again. Outside of a transaction.
pub fn keep() -> Result<()> {
    let database = shared::mine()?;
    // Also what only reads waits for no lock for long: DROP EXTENSION locks the tables in an order of its own, and would be the victim of a deadlock.
    transaction::own(|| own::set(c"lock_timeout", PATIENCE, false))?;
    let mut stay = Stay::begin(database);
    loop {
        match look(database, &mut stay) {
            Ok(()) => (),
            Err(failure) => {
                let edata = error::into_data(failure);
                if !is_in_the_way(edata) {
                    return Err(Failure::Caught(edata));
                }
                database.ask_for_keeper_at(backend::now() + LATER);
                return Ok(());
            }
        }
        if !stay.until_due()? {
            return Ok(());
        }
    }
}

/// Whether the error is that another transaction holds a lock.
fn is_in_the_way(edata: *mut ErrorData) -> bool {
    let code = error::sqlstate(edata);
    [b"55P03", b"40P01"]
        .into_iter()
        .any(|other| sqlstate::pack(other) == code)
}

fn look(database: &'static Database, stay: &mut Stay) -> Result<()> {
    let (began, is_asked) = database.keeper_begins();
    moment::may_fail("keeper begins")?;
    if transaction::in_recovery() {
        database.seen(began, 0, true);
        return Ok(());
    }
    let known = transaction::own(|| {
        let tables = tables::tables()?;
        // Before anything else is looked at: what is committed from here on is looked at again.
        let is_prepared = IS_PREPARED.first(&[], |row| row.bool(0))?.flatten() == Some(true);
        if has_blocked()? {
            // Nobody tells of those that a COMMIT PREPARED brings. From here on who ends a task sees that others wait for it; those that ended before
            // are found below.
            database.has_found_blocked();
        }
        Ok((tables, is_prepared, stamp::standing(&tables)?))
    });
    let (tables, is_prepared, standing) = match known {
        Ok(known) => known,
        // Without the extension nothing runs here.
        Err(Failure::Report(_)) => {
            database.is_gone(began);
            return Ok(());
        }
        Err(failure) => return Err(failure),
    };
    let mode = match (settings::tasks(), standing) {
        (Tasks::Off, _) | (Tasks::Auto, Standing::Copy(_)) => Mode::Quiet,
        (_, Standing::New) => Mode::Unknown,
        _ => Mode::Runs,
    };
    let sweeps = is_asked || mode != database.mode();
    let now = backend::now();
    let begins = mode == Mode::Runs && database.mode() != Mode::Runs;
    if begins || stay.clock_has_jumped() {
        database.duty_begins(now);
    }
    database.set_mode(mode);
    if is_prepared {
        database.ask_for_sweep_at(backend::now() + PREPARED);
    }
    let mut look = Look { tables, next: 0, now };
    if mode == Mode::Runs {
        look.schedules(standing.home(), begins, sweeps)?;
        look.lost()?;
        if let Some(refused) = database.take_refused() {
            look.refused(&refused)?;
        }
        look.end(&EXPIRED)?;
        if sweeps {
            look.cut_short()?;
            look.forgotten()?;
            look.operations()?;
        }
        if database.has_blocked() {
            look.unblock()?;
        }
        look.due()?;
        if sweeps {
            look.sweep()?;
        }
    } else {
        for run in shared::runs(0, Of::Lost)? {
            if run.is_canceled && run.relation == tables.task && patiently(|| note_lost(&run))?.is_none() {
                database.ask_for_keeper_at(backend::now() + LATER);
                continue;
            }
            shared::forget_lost(&run);
        }
    }
    moment::may_fail("looked")?;
    let (next, has_blocked) = transaction::own(|| {
        let next = NEXT.first(&[], |row| row.int8(0))?.flatten();
        Ok((next, has_blocked()?))
    })?;
    if mode == Mode::Runs
        && let Some(next) = next
    {
        // What was due and is not done was left for later.
        look.look_at(if next > look.now { next } else { backend::now() + LATER });
    }
    if mode == Mode::Runs
        && let Some(at) = history::prune()?
    {
        look.look_at(at);
    }
    database.seen(began, look.next, has_blocked);
    Ok(())
}

fn has_blocked() -> Result<bool> {
    Ok(HAS_BLOCKED.first(&[], |row| row.bool(0))?.flatten() != Some(false))
}

/// Tells of each database of the cluster that it may have tasks, so that the keeper looks there once. Outside of a transaction.
pub fn scout() -> Result<()> {
    for database in transaction::own(database::connectable)? {
        shared::database(database)?.may_have_tasks(shared::SUPERUSER);
    }
    Ok(())
}

/// Runs `body` in a transaction of its own. None after an error, which is reported unless another transaction was in the way.
fn patiently<T>(body: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    Ok(try_patiently(body)?.ok())
}

/// The same with the message of the error, if it was reported.
fn try_patiently<T>(body: impl FnOnce() -> Result<T>) -> Result<core::result::Result<T, Option<Vec<u8>>>> {
    let done = transaction::own(|| {
        // What a crash loses of this is done again.
        own::set(c"synchronous_commit", c"off", true)?;
        body()
    });
    match done {
        Ok(done) => Ok(Ok(done)),
        Err(failure) => {
            let edata = error::into_data(failure);
            if is_in_the_way(edata) {
                return Ok(Err(None));
            }
            let message = fallible::copied(error::text(edata))?;
            error::log_caught(edata);
            Ok(Err(Some(message)))
        }
    }
}

/// A look at the tables.
struct Look {
    tables: Tables,
    /// When the keeper is to look again, 0 for never.
    next: i64,
    /// When it has begun. What is due later is left to the next look.
    now: i64,
}

impl Look {
    fn look_at(&mut self, at: i64) {
        if self.next == 0 || at < self.next {
            self.next = at;
        }
    }

    fn look_later(&mut self) {
        self.look_at(backend::now() + LATER);
    }

    /// Schedules whose time has come. Some at a time, so that the first tasks run while others are enqueued.
    fn schedules(&mut self, home: i64, begins: bool, sweeps: bool) -> Result<()> {
        if begins {
            patiently(|| fire::heal(home))?;
        }
        let database = shared::mine()?;
        let (first, changed) = database.first_schedule();
        if first > self.now && !sweeps {
            if first < i64::MAX {
                self.look_at(first);
            }
            return Ok(());
        }
        let firing = Firing {
            tables: &self.tables,
            home,
            now: self.now,
            since: database.on_duty_since(self.now),
            // What another session's COMMIT PREPARED brings is told by no session.
            floor: if sweeps || first == 0 { i64::MIN } else { first },
        };
        let mut fired = 0;
        loop {
            let Some(count) = patiently(|| firing.fire(FIRED_AT_ONCE))? else {
                one_by_one(&firing)?;
                break;
            };
            fired += count as i64;
            if fired >= FIRED_IN_A_LOOK {
                self.look_at(self.now);
                return Ok(());
            }
            if (count as i64) < FIRED_AT_ONCE {
                break;
            }
        }
        let next = transaction::own(|| fire::next(home, firing.floor))?;
        database.set_first_schedule(next.unwrap_or(i64::MAX), changed);
        if let Some(next) = next {
            // A schedule that another session has locked: the later it is, the less another moment matters.
            let again = backend::now() + (self.now - next).clamp(SOON, LATER);
            self.look_at(if next > self.now { next } else { again });
        }
        Ok(())
    }

    /// Notes the attempts of processes that are gone.
    fn lost(&mut self) -> Result<()> {
        let database = shared::mine()?;
        if let Some(until) = database.lost_paused_until(self.now) {
            self.look_at(until);
            return Ok(());
        }
        let mut runs = shared::runs(0, Of::Lost)?;
        if !runs.is_empty() {
            // Another one is the first each time, so that those that fail do not keep the others from being noted.
            let first = (backend::now() / LATER).rem_euclid(runs.len() as i64);
            runs.rotate_left(first as usize);
        }
        let (mut noted, mut errors) = (0, 0);
        for run in runs {
            if run.relation != self.tables.task {
                shared::forget_lost(&run);
                continue;
            }
            if errors == ERRORS {
                break;
            }
            if run.elsewhere != 0 && elsewhere::cancel(run.elsewhere)? {
                self.look_later();
                continue;
            }
            match patiently(|| note_lost(&run))? {
                Some(()) => {
                    moment::passes("lost noted");
                    shared::forget_lost(&run);
                    noted += 1;
                    // It waits, or is deferred.
                    database.ask_for_sweep_at(backend::now());
                }
                None => {
                    errors += 1;
                    self.look_later();
                }
            }
        }
        // One that cannot be noted holds up no others. If none can, the disk may be full.
        database.lost_tried(noted > 0 || errors < ERRORS);
        Ok(())
    }

    /// The role could not connect: that is an error of an attempt at each of its tasks that waited then.
    fn refused(&mut self, refused: &Refused) -> Result<()> {
        let asked = [
            Value::Oid(refused.role),
            Value::Timestamp(refused.at),
            Value::Int8(AT_ONCE),
        ];
        let tasks = transaction::own(|| OF_ROLE.rows(&asked, Attempts::read))?;
        for attempts in tasks {
            let tables = &self.tables;
            let done = patiently(|| {
                if LOCK.first(&[Value::Int8(attempts.task)], |_| Ok(()))?.is_none()
                    || shared::is_claimed(tables.task, attempts.task)?
                {
                    return Ok(());
                }
                attempts.note(&Failed {
                    id: attempts.task,
                    attempt: attempts.made + 1,
                    pid: backend::my_pid(),
                    started_at: refused.at,
                    state: b"failed",
                    sqlstate: &refused.sqlstate,
                    message: b"the role of the task cannot connect to this database",
                    ..Failed::default()
                })
            })?;
            if done.is_none() {
                self.look_later();
            }
        }
        Ok(())
    }

    /// Notes the attempts that the end of the server has ended. A task without such an attempt left ends.
    fn cut_short(&mut self) -> Result<()> {
        let mut errors = 0;
        while errors < ERRORS {
            let found = transaction::own(|| CUT_SHORT.rows(&[Value::Int8(AT_ONCE)], Attempts::read))?;
            let mut noted = 0;
            for attempts in &found {
                match patiently(|| note_cut_short(&self.tables, attempts))? {
                    Some(true) => noted += 1,
                    Some(false) => self.look_later(),
                    None => {
                        errors += 1;
                        self.look_later();
                    }
                }
            }
            if noted == 0 || (found.len() as i64) < AT_ONCE {
                break;
            }
        }
        Ok(())
    }

    /// Ends what does not run any more. The row is locked before the claims are looked at: a runner that claims the task later finds the row held, or gone
    /// when it makes its mark.
    fn end(&mut self, endings: &Endings) -> Result<()> {
        loop {
            let ids = transaction::own(|| endings.find.rows(&[Value::Int8(AT_ONCE)], |row| row.int8(0)))?;
            let (mut ended, mut errors) = (0, 0);
            for id in ids.iter().copied().flatten() {
                let done = patiently(|| {
                    let id_value = [Value::Int8(id)];
                    let is_free =
                        LOCK.first(&id_value, |_| Ok(()))?.is_some() && !shared::is_claimed(self.tables.task, id)?;
                    if !is_free {
                        return Ok(false);
                    }
                    if endings.note.execute(&id_value)? > 0 && end::end(id, endings.state)? {
                        moment::may_fail("ending")?;
                        end::follow(id, false, Locked::Skip)?;
                    }
                    Ok(true)
                })?;
                match done {
                    Some(true) => ended += 1,
                    Some(false) => self.look_later(),
                    None => {
                        errors += 1;
                        self.look_later();
                        if errors == ERRORS {
                            return Ok(());
                        }
                    }
                }
            }
            if ended == 0 || (ids.len() as i64) < AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Tasks whose parents have ended. The row of a parent that has not committed is not seen, so it is looked for.
    fn unblock(&mut self) -> Result<()> {
        let parents = transaction::own(|| PARENTS.rows(&[], |row| row.int8(0)))?;
        for parent in parents.into_iter().flatten() {
            let tables = &self.tables;
            let done = patiently(|| {
                if tables.has_task(parent, Sees::Uncommitted)? {
                    // Nobody tells of its end if it is rolled back.
                    return Ok(false);
                }
                moment::may_fail("unblocking")?;
                let is_done = end::find(tables, parent)?.is_none_or(|ended| ended.is_done);
                end::follow(parent, is_done, Locked::Skip)
            })?;
            if done != Some(true) {
                self.look_later();
            }
        }
        Ok(())
    }

    fn forgotten(&mut self) -> Result<()> {
        let ids = transaction::own(|| FORGOTTEN.rows(&[Value::Int8(AT_ONCE)], |row| row.int8(0)))?;
        for id in ids.into_iter().flatten() {
            if patiently(|| end::unblock(id))?.is_none() {
                self.look_later();
            }
        }
        Ok(())
    }

    /// Operations that have not ended and have no lane, such as those whose tasks a session has canceled one by one, go on or end. Those that ended
    /// long ago are removed.
    fn operations(&mut self) -> Result<()> {
        for operation in transaction::own(lane::without_lane)? {
            if patiently(|| lane::revive(operation))?.is_none() {
                self.look_later();
            }
        }
        patiently(lane::prune).map(|_| ())
    }

    /// Deferred tasks whose time has come.
    fn due(&mut self) -> Result<()> {
        let now = self.now;
        let mut is_nobodys = false;
        loop {
            let due = patiently(|| {
                let ready = DUE.rows(&[Value::Timestamp(now), Value::Int8(AT_ONCE)], Ready::read)?;
                moment::may_fail("due")?;
                for ready in &ready {
                    if ready.has_role() {
                        pushed::push(&ready.task(), Phase::Waiting)?;
                    }
                }
                Ok((ready.len() as i64, ready.iter().any(|ready| !ready.has_role())))
            })?;
            let Some((count, has_nobodys)) = due else {
                self.look_later();
                break;
            };
            is_nobodys |= has_nobodys;
            if count < AT_ONCE {
                break;
            }
        }
        if is_nobodys { self.end(&NOBODYS) } else { Ok(()) }
    }

    /// Puts the lines that have tasks to their beginning.
    fn sweep(&mut self) -> Result<()> {
        let database = shared::mine()?;
        // A process that makes a task wait after this puts it into its line itself.
        if let Some(mut lines) = database.lines() {
            lines.sweep_begins();
        }
        moment::may_fail("sweeping")?;
        let found = transaction::own(|| {
            LINES.rows(&[Value::Int8(LINES_AT_ONCE as i64)], |row| {
                Ok((row.text(0)?.unwrap_or_default(), row.oid(1)?.unwrap_or(0)))
            })
        })?;
        moment::may_fail("swept")?;
        for (queue, role) in &found {
            if *role != 0 {
                let which = Which {
                    role: *role,
                    queue: shared::stands_for(queue),
                };
                if let Some(mut lines) = database.lines() {
                    lines.restart(which, queue);
                }
            }
        }
        if found.len() == LINES_AT_ONCE
            && let Some(mut lines) = database.lines()
        {
            lines.has_no_room();
        }
        if found.iter().any(|(_, role)| *role == 0) {
            self.end(&NOBODYS)?;
        }
        if !found.is_empty() {
            shared::there_is_work(None);
        }
        Ok(())
    }
}

/// Fires what is due, each schedule by itself: one of them has failed. It says so, and is tried again a minute later.
fn one_by_one(firing: &Firing) -> Result<()> {
    const PAUSE: i64 = 60_000_000;
    let due = transaction::own(|| firing.find(AT_ONCE))?;
    let mut errors = 0;
    for schedule in due {
        match try_patiently(|| firing.fire_one(schedule))? {
            Ok(()) | Err(None) => (),
            Err(Some(message)) => {
                errors += 1;
                let noted = patiently(|| fire::stop(schedule, Some(backend::now() + PAUSE), &message))?;
                if noted.is_none() || errors == ERRORS {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// The task has ended, and not as done: tells its children. The keeper looks again after the commit if some of them are left for later.
fn follow(task: i64) -> Result<()> {
    if !end::follow(task, false, Locked::Skip)? {
        pushed::ends(false)?;
    }
    Ok(())
}

/// A task whose attempt is to be noted.
struct Attempts {
    task: i64,
    /// How many are noted, and how many there may be.
    made: i32,
    most: i32,
    /// Milliseconds until the next one.
    delay: i64,
}

impl Attempts {
    fn read(row: &plan::Row) -> Result<Self> {
        Ok(Self {
            task: row.int8(0)?.unwrap_or(0),
            made: row.int4(1)?.unwrap_or(0),
            most: row.int4(2)?.unwrap_or(1),
            delay: row.int8(3)?.unwrap_or(0),
        })
    }

    /// Notes the attempt, and if it was the last one, the end of the task and what follows from that.
    fn note(&self, failed: &Failed) -> Result<()> {
        let end = failed.end.or((failed.attempt >= self.most).then_some(b"failed"));
        history::note(&Failed {
            end,
            run_at: history::next_attempt_at(self.delay, failed.attempt),
            ..*failed
        })?;
        if end.is_some() {
            follow(self.task)?;
        }
        Ok(())
    }
}

/// The row is locked before the claims are looked at: a run that begins later finds it held. False if the task is another session's, or runs.
fn note_cut_short(tables: &Tables, attempts: &Attempts) -> Result<bool> {
    let id = Value::Int8(attempts.task);
    if LOCK.first(&[id], |_| Ok(()))?.is_none() || shared::is_claimed(tables.task, attempts.task)? {
        return Ok(false);
    }
    let Some(started_at) = IS_CUT_SHORT.first(&[id, Value::Int4(attempts.made)], |row| row.int8(0))? else {
        return Ok(true);
    };
    attempts.note(&Failed {
        id: attempts.task,
        attempt: attempts.made,
        started_at: started_at.unwrap_or(0),
        state: b"interrupted",
        sqlstate: b"08006",
        message: b"the server stopped before the task ended",
        ..Failed::default()
    })?;
    Ok(true)
}

/// A process is gone with its task. If that had committed before, there is no row any more, and nothing to note; nor if it had not begun.
fn note_lost(run: &Run) -> Result<()> {
    if run.is_canceled && run.attempt == 0 {
        // Canceled when the attempt was over, and noted if it was to be. A session may have canceled it again since, and had it run again.
        let values = [Value::Int8(run.task), Value::Timestamp(run.started_at)];
        if LOCK_CANCELED.first(&values, |_| Ok(()))?.is_none() {
            return Ok(());
        }
        if end::end(run.task, b"canceled")? {
            follow(run.task)?;
        }
        return Ok(());
    }
    let attempts = LOST.first(&[Value::Int8(run.task)], Attempts::read)?;
    let Some(attempts) = attempts.filter(|_| run.attempt > 0) else {
        return Ok(());
    };
    moment::may_fail("noting lost")?;
    let failed = Failed {
        id: run.task,
        attempt: run.attempt,
        pid: run.process.pid(),
        started_at: run.started_at,
        end: run.is_canceled.then_some(b"canceled"),
        ..Failed::default()
    };
    attempts.note(&match &run.sqlstate {
        [0, ..] => Failed {
            state: b"interrupted",
            sqlstate: b"08006",
            message: b"the process that ran the task ended before the task did",
            ..failed
        },
        sqlstate => Failed {
            state: b"failed",
            sqlstate,
            message: b"the run has failed with an error that could not be noted",
            detail: Some(b"The server's log has the error."),
            ..failed
        },
    })
}
