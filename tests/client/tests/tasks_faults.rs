//! A fault between every two steps of a task: commit, push, claim, run, mark, commit, release, and what follows; and of the keeper's steps. The
//! moments are those of `src/pg/moment.rs`. After each fault all tasks end as they should, effects are there exactly once, limits were kept, all
//! claims are free, and the cache has missed nothing.

use harness::{Cluster, Moments, Session, install_probe, wait_for};
use std::time::{Duration, Instant};

/// How soon all must be as if nothing had happened.
const SOON: Duration = Duration::from_secs(10);

const SETUP: &str = "
    CREATE FUNCTION knows(int8, int8, text, int4, text, bool) RETURNS text LANGUAGE C AS 'pg_background_probe', 'pg_background_probe_knows';
    CREATE FUNCTION claims() RETURNS text LANGUAGE C AS 'pg_background_probe', 'pg_background_probe_claims';
    CREATE TABLE effect (task int8 DEFAULT background.current_task());
    CREATE SEQUENCE violations;
    -- Who comes next under a unique key sees the commit of the one before, which lets go of its locks a moment later.
    CREATE OR REPLACE FUNCTION is_alone(lock int8) RETURNS bool LANGUAGE sql SECURITY DEFINER AS $$
        SELECT pg_try_advisory_xact_lock(lock) OR EXISTS (
            SELECT FROM background.task AS me WHERE id = background.current_task() AND key IS NOT NULL
                AND NOT EXISTS (SELECT FROM background.task AS o WHERE o.key = me.key AND o.id < me.id))
    $$;
    CREATE TABLE source (id int PRIMARY KEY);
    INSERT INTO source SELECT generate_series(1, 3);
    GRANT ALL ON effect, violations, source TO PUBLIC;
    SELECT background.set_queue('keys', max_running_per_key => 1), background.set_queue('one', max_running => 1),
        background.set_queue('none', max_running => 0);
    -- Tasks that wait, and that no process would find. What has expired is looked for by its time. The end of the first task of a key leads to
    -- the next one.
    CREATE VIEW missed AS
        SELECT id, label, known FROM (
            SELECT id, label, knows(id, background.role_oid(owner)::int8, queue, priority, concurrency_key, operation_id IS NOT NULL) AS known FROM background.task AS t
            WHERE phase = 'w' AND (expires_at IS NULL OR expires_at > clock_timestamp())
                AND NOT EXISTS (SELECT FROM background.task AS o WHERE o.key = t.key AND o.owner OPERATOR(background.=) t.owner AND o.turn < t.turn)
                AND NOT EXISTS (
                    SELECT FROM background.task AS o WHERE o.phase = 'w' AND o.queue = t.queue AND o.concurrency_key = t.concurrency_key
                        AND (-o.priority, o.id) < (-t.priority, t.id)
                )
        ) AS _ WHERE known = 'missed';
    CREATE FUNCTION wrong(first int8, kept text[]) RETURNS text BEGIN ATOMIC
        SELECT string_agg(format('%s %s is %s with %s effects, %s done%s', label, id, state, effects, done, CASE WHEN repeated THEN ', an attempt noted twice' END), '; ') FROM (
            SELECT id, label, state, mode, coalesce(max_attempts, 1) AS max_attempts, (SELECT count(*) FROM effect WHERE task = id) AS effects,
                (SELECT count(*) FROM background.runs AS r WHERE r.task_id = id AND r.state = 'done') AS done,
                (SELECT count(*) > count(DISTINCT attempt) FROM background.runs AS r WHERE r.task_id = id) AS repeated
            FROM background.tasks WHERE id > first
        ) AS _ WHERE CASE
            WHEN repeated AND label <> 'again' THEN true
            WHEN label IN ('fails', 'canceled', 'expires') THEN state = 'done' OR effects > 0
            WHEN state = 'done' THEN done <> 1 OR (CASE WHEN mode = 'transaction' OR max_attempts = 1 THEN effects <> 1 ELSE effects < 1 END)
            WHEN label = ANY (kept) THEN true
            WHEN mode = 'transaction' THEN effects <> 0 OR done <> 0
            ELSE effects > max_attempts OR done <> 0 END;
    END;";

/// A cluster whose database `postgres` has the functions of the library of the probe.
fn start(settings: &[&str]) -> (Cluster, Session, Moments) {
    install_probe();
    let cluster = Cluster::start(settings);
    // The session has the other library by now.
    cluster.session().exec(
        "CREATE EXTENSION pg_background_tasks;
         UPDATE pg_proc SET probin = 'pg_background_probe' WHERE probin = '$libdir/pg_background'",
    );
    let mut session = cluster.session();
    session.exec(SETUP);
    let moments = Moments::of(&cluster);
    (cluster, session, moments)
}

/// Tasks of one kind. `EFFECT` stands for the arguments of an enqueue of a task with an effect, `ALONE` for one that notes if it does not run
/// alone.
struct Kind {
    name: &'static str,
    enqueue: &'static str,
}

const fn kind(name: &'static str, enqueue: &'static str) -> Kind {
    Kind { name, enqueue }
}

const KINDS: [Kind; 13] = [
    kind("plain", "SELECT background.enqueue(EFFECT, priority => n) FROM generate_series(1, 3) AS n"),
    kind("key", "DO $$ BEGIN FOR n IN 1..5 LOOP PERFORM background.enqueue(ALONE, key => 'k'); COMMIT; PERFORM pg_sleep(0.002); END LOOP; END $$"),
    kind(
        "concurrency",
        "SELECT background.enqueue(ALONE, queue => 'keys', concurrency_key => 'k') FROM generate_series(1, 3)",
    ),
    kind("limited", "SELECT background.enqueue(ALONE, queue => 'one') FROM generate_series(1, 3)"),
    kind(
        "family",
        "DO $$ DECLARE parent int8; BEGIN
            parent := background.enqueue(EFFECT); COMMIT;
            parent := background.enqueue(EFFECT, after => ARRAY[parent]); COMMIT;
            parent := background.enqueue(EFFECT, after => ARRAY[parent]); END $$",
    ),
    kind(
        "failing family",
        "DO $$ DECLARE parent int8; BEGIN
            parent := background.enqueue('SELECT 1 / 0', label => 'fails', max_attempts => 1); COMMIT;
            parent := background.enqueue('SELECT 1', label => 'canceled', after => ARRAY[parent]); COMMIT;
            parent := background.enqueue(EFFECT, after => ARRAY[parent], on_parent_failure => 'run'); END $$",
    ),
    kind("last", "SELECT background.enqueue(LAST) FROM generate_series(1, 2)"),
    kind(
        "statement",
        "SELECT background.enqueue(STATEMENT, max_attempts => 3, retry_delay => '1 ms') FROM generate_series(1, 2)",
    ),
    kind("once", "SELECT background.enqueue(STATEMENT) FROM generate_series(1, 2)"),
    kind(
        "retried",
        "SELECT background.enqueue('SELECT 1 / (background.current_attempt() - 1); INSERT INTO effect DEFAULT VALUES', label => 'effect', retry_delay => '1 ms')
         FROM generate_series(1, 2)",
    ),
    kind(
        "retried in order",
        "SELECT background.enqueue('SELECT 1 / (background.current_attempt() - 1); INSERT INTO effect DEFAULT VALUES', label => 'effect', retry_delay => '1 ms',
             queue => 'keys', concurrency_key => 'r') FROM generate_series(1, 2)",
    ),
    kind(
        "timed",
        "SELECT background.enqueue(EFFECT, run_at => now() + '20 ms') FROM generate_series(1, 2);
         SELECT background.enqueue('SELECT 1', label => 'expires', queue => 'none', expires_at => now() + '20 ms')",
    ),
    kind(
        "operation",
        "SELECT background.parallel_execute('INSERT INTO effect SELECT background.current_task() FROM source WHERE id BETWEEN $1 AND $2', 'source', 'id',
             chunk_rows => 1, label => 'effect', retry_delay => '1 ms')",
    ),
];

impl Kind {
    fn sql(&self) -> String {
        const RETRIES: &str = "retry_delay => '1 ms'";
        self.enqueue
            .replace("EFFECT", &format!("'INSERT INTO effect DEFAULT VALUES', label => 'effect', {RETRIES}"))
            .replace(
                "ALONE",
                &format!(
                    "'SELECT nextval(''violations'') WHERE NOT is_alone(hashtext(''{}'')); INSERT INTO effect DEFAULT VALUES; SELECT pg_sleep(0.002)', label => 'effect', {RETRIES}",
 self.name
                ),
            )
            .replace("LAST", "'INSERT INTO effect DEFAULT VALUES', label => 'last', max_attempts => 1")
            .replace("STATEMENT", "'INSERT INTO effect DEFAULT VALUES', label => 'statement', mode => 'statement'")
    }
}

/// Waits until all is as if nothing had happened. Tells what is wrong otherwise.
fn settled(session: &mut Session, first: i64, kept: &str) -> Result<(), String> {
    let began = Instant::now();
    let mut missed = (String::new(), began);
    loop {
        let rest = session.rows(
            "SELECT (SELECT string_agg(concat_ws(' ', id, label, phase, attempt, run_at - clock_timestamp()), ', ') FROM background.task), \
                (SELECT string_agg(concat_ws(' ', id, label), ', ') FROM missed), claims()",
        );
        let text = |n: usize| rest[0][n].clone().unwrap_or_default();
        let goes_on = "EXISTS (SELECT FROM background.operation WHERE finished_at IS NULL)";
        if text(0).is_empty() && text(2) == "0 0 0" && !session.holds(goes_on) {
            break;
        }
        // A task is in no line between the commit and what follows that at once.
        if text(1) != missed.0 {
            missed = (text(1), Instant::now());
        }
        let is_missed = !missed.0.is_empty() && missed.1.elapsed() > Duration::from_millis(500);
        if is_missed || began.elapsed() > SOON {
            return Err(format!(
                "unfinished: {}; missed: {}; claims: {}",
                text(0),
                text(1),
                text(2)
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let wrong = session.text(&format!("SELECT wrong({first}, '{{{kept}}}')"));
    let violations = session.holds("(SELECT is_called FROM violations)");
    let incomplete = session.text(
        "SELECT string_agg(concat_ws(' ', id, state, rows_affected, last_error), ', ') FROM background.operations WHERE state <> 'done' OR rows_affected <> 3",
    );
    if let Some(incomplete) = incomplete {
        return Err(format!("operation {incomplete}"));
    }
    match (wrong, violations) {
        (None, false) => Ok(()),
        (wrong, violations) => {
            session.exec("SELECT setval('violations', 1, false)");
            Err(format!("{} violations: {violations}", wrong.unwrap_or_default()))
        }
    }
}

/// Waits until a process has come by.
fn reaches(moments: &Moments, step: &str) -> bool {
    let began = Instant::now();
    while !moments.is_reached(step) && began.elapsed() < SOON {
        std::thread::sleep(Duration::from_millis(2));
    }
    moments.is_reached(step)
}

/// What was wrong in cases.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, case: &str, began: Instant, outcome: Result<(), String>) {
        let took = began.elapsed();
        if took > Duration::from_secs(1) {
            eprintln!("{case}: {took:?}");
        }
        if let Err(what) = outcome {
            eprintln!("{case}: {what}");
            self.0.push(format!("{case}: {what}"));
        }
    }
}

impl Drop for Findings {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{:#?}", self.0);
        }
    }
}

/// The steps that come when the settings of queues have changed and the lines are read again; and what leads there.
const SWEPT: [&str; 3] = ["limits", "read", "swept"];
const PAUSE: &str =
    "SELECT background.set_queue(name, paused => true) FROM unnest('{default,keys,one}'::text[]) AS name";
const GO_ON: &str =
    "SELECT background.set_queue(name, paused => false) FROM unnest('{default,keys,one}'::text[]) AS name";

/// The steps of a session and of a runner, in order, and whether a fault there may be an error of the attempt.
const STEPS: [(&str, bool); 28] = [
    ("enqueued", false),
    ("committed", false),
    ("pushed", false),
    ("ordering a runner", false),
    ("arriving", false),
    ("limits", false),
    ("read", false),
    ("claimed", false),
    ("loaded", false),
    ("begun", true),
    ("taken", true),
    ("adopting", true),
    ("cutting", true),
    ("cut", true),
    ("before", true),
    ("effects", true),
    ("lane over", true),
    ("marked", true),
    ("performed", true),
    ("run committed", true),
    ("noted", true),
    ("ended", false),
    ("following", false),
    ("next of key", false),
    ("releasing", false),
    ("released", false),
    ("failing", true),
    ("failed", true),
];

#[test]
fn a_fault_at_each_step_of_each_kind_of_task() {
    let (cluster, mut session, moments) = start(&["pg_background.max_task_workers = 3", "log_min_messages = fatal"]);
    let mut findings = Findings::default();
    for (step, is_attempt) in STEPS {
        // To look into one of them.
        if std::env::var("STEP").is_ok_and(|only| only != step) {
            continue;
        }
        let mut was_reached = false;
        for fault in ["error", "cancel", "die"] {
            for (n, kind) in KINDS.iter().enumerate() {
                // The clock starts again a second later, whatever the kind is; and a cancel is rarely the kind's concern.
                if step == "ordering a runner" && n % 4 > 0 || fault == "cancel" && n % 2 > 0 {
                    continue;
                }
                let began = Instant::now();
                let first: i64 = session.value("SELECT last_value FROM background.task_id");
                moments.arm(step, fault);
                if SWEPT.contains(&step) {
                    session.exec(PAUSE);
                }
                // A fault of the session is for another one.
                if ["enqueued", "committed", "pushed"].contains(&step) {
                    let _ = cluster.session().try_rows(&kind.sql());
                } else {
                    session.exec(&kind.sql());
                }
                if SWEPT.contains(&step) {
                    session.exec(GO_ON);
                }
                let kept = if is_attempt { "effect" } else { "effect,last" };
                let outcome = settled(&mut session, first, kept);
                was_reached |= moments.disarm(step);
                findings.add(&format!("{step}, {fault}, {}", kind.name), began, outcome);
            }
        }
        if !was_reached {
            findings.0.push(format!("{step} was not reached"));
        }
    }
}

/// The steps of the keeper and of the clock, what else is to fail for the keeper to come there, and the kind of task that it is about.
const KEEPERS: [(&str, &str, &str); 14] = [
    ("ordering the keeper", "", "retried"),
    ("clock turns", "", "plain"),
    ("keeper begins", "", "retried"),
    ("keeper begins", "", "timed"),
    ("due", "", "retried"),
    ("due", "", "timed"),
    ("looked", "", "timed"),
    ("ending", "", "timed"),
    ("unblocking", "following", "family"),
    ("noting lost", "effects", "plain"),
    ("noting lost", "effects", "concurrency"),
    ("lost noted", "effects", "limited"),
    ("sweeping", "next of key", "concurrency"),
    ("swept", "claimed", "plain"),
];

#[test]
fn a_fault_at_each_step_of_the_keeper() {
    let (_cluster, mut session, moments) = start(&["pg_background.max_task_workers = 3", "log_min_messages = fatal"]);
    let mut findings = Findings::default();
    for (step, before, kind) in KEEPERS {
        let mut was_reached = false;
        for fault in ["error", "die", "cancel"] {
            let began = Instant::now();
            let first: i64 = session.value("SELECT last_value FROM background.task_id");
            moments.arm(step, fault);
            if !before.is_empty() {
                moments.arm(before, "die");
            }
            let kind = KINDS.iter().find(|other| other.name == kind).expect("a kind");
            session.exec(&kind.sql());
            let outcome = settled(&mut session, first, "effect");
            was_reached |= moments.disarm(step);
            if !before.is_empty() {
                moments.disarm(before);
            }
            findings.add(&format!("{step}, {fault}, {}", kind.name), began, outcome);
        }
        if !was_reached {
            findings.0.push(format!("{step} was not reached"));
        }
    }
}

/// The server starts again, and only what is on disk is left.
#[test]
fn a_crash_at_each_step() {
    let settings = [
        "pg_background.max_task_workers = 3",
        "restart_after_crash = on",
        "log_min_messages = fatal",
    ];
    let (cluster, mut session, moments) = start(&settings);
    cluster.expect_crash();
    let mut findings = Findings::default();
    let steps = STEPS.iter().map(|(step, _)| *step).filter(|step| *step != "enqueued");
    for step in steps.chain([
        "worker committed",
        "worker pushed",
        "keeper begins",
        "due",
        "ending",
        "swept",
        "looked",
    ]) {
        let began = Instant::now();
        let first: i64 = session.value("SELECT last_value FROM background.task_id");
        // The session that is killed has enqueued first, so what it has enqueued is there.
        let is_own = ["committed", "pushed"].contains(&step);
        if is_own {
            moments.arm(step, "kill");
            let _ = cluster.session().try_rows(&KINDS[0].sql());
        } else {
            if SWEPT.contains(&step) {
                session.exec(PAUSE);
            }
            for (n, kind) in KINDS.iter().enumerate() {
                // In the midst of tasks that are on their way.
                if n == 4 {
                    moments.arm(step, "kill");
                }
                if session.try_rows(&kind.sql()).is_err() {
                    break;
                }
            }
            if SWEPT.contains(&step) {
                let _ = session.try_rows(GO_ON);
            }
        }
        if !reaches(&moments, step) {
            moments.disarm(step);
            findings.0.push(format!("{step} was not reached"));
            continue;
        }
        harness::wait_for("the crash", || session.try_rows("SELECT 1").is_err());
        harness::wait_for("a session", || cluster.try_session_in("postgres", "postgres").is_ok());
        session = cluster.session();
        if SWEPT.contains(&step) {
            session.exec(GO_ON);
        }
        let outcome = settled(&mut session, first, "effect,last");
        moments.disarm(step);
        findings.add(&format!("{step}, kill"), began, outcome);
    }
}

/// The steps of a runner at which others act, in order.
const STOPS: [&str; 14] = [
    "arriving",
    "claimed",
    "loaded",
    "begun",
    "taken",
    "before",
    "effects",
    "marked",
    "run committed",
    "ended",
    "following",
    "releasing",
    "released",
    "failed",
];

/// What is done while a process stands at a step, once the first task is `id`. `OLD` of the tasks is replaced by `NEW`.
const ACTIONS: [(&str, &str, &str); 7] = [
    (
        "cancel",
        "SELECT background.enqueue(OLD) FROM generate_series(1, 2)",
        "SELECT background.cancel(id)",
    ),
    (
        "cancel under a key",
        "SELECT background.enqueue(OLD, key => 'k')",
        "SELECT background.cancel(id)",
    ),
    (
        "cancel under a concurrency key",
        "SELECT background.enqueue(OLD, queue => 'keys', concurrency_key => 'k') FROM generate_series(1, 3)",
        "SELECT background.cancel(id)",
    ),
    (
        "keep",
        "SELECT background.enqueue(OLD, key => 'k')",
        "INSERT INTO seen SELECT background.enqueue(OLD, key => 'k')",
    ),
    (
        "replace",
        "SELECT background.enqueue(OLD, key => 'k')",
        "INSERT INTO seen SELECT background.enqueue(NEW, key => 'k', on_conflict => 'replace')",
    ),
    (
        "overtake",
        "SELECT background.enqueue(OLD, queue => 'keys', concurrency_key => 'k') FROM generate_series(1, 3)",
        "SELECT background.enqueue(OLD, queue => 'keys', concurrency_key => 'k', priority => 1) FROM generate_series(1, 3)",
    ),
    (
        "retry",
        "SELECT background.enqueue(FAILS)",
        "SELECT background.retry(id)",
    ),
];

/// While a process stands between two steps others cancel, replace, retry, follow and overtake; then it goes on, or ends.
#[test]
fn others_act_between_two_steps() {
    let (cluster, mut session, moments) = start(&["pg_background.max_task_workers = 3", "log_min_messages = fatal"]);
    session.exec("CREATE TABLE seen (id int8); ALTER TABLE effect ADD what text, ADD saw bool; CREATE SEQUENCE tries; GRANT ALL ON seen, tries TO PUBLIC");
    let mut findings = Findings::default();
    for step in STOPS {
        let mut was_reached = false;
        for (action, enqueue, act) in ACTIONS {
            for ends in [false, true] {
                let began = Instant::now();
                let first: i64 = session.value("SELECT last_value FROM background.task_id");
                session.exec("TRUNCATE seen; SELECT setval('tries', 1, false)");
                moments.arm(step, "stop");
                let text = |sql: &str| {
                    let alone = if enqueue.contains("key") {
                        "SELECT nextval(''violations'') WHERE NOT is_alone(1);"
                    } else {
                        ""
                    };
                    let effect = |what: &str| {
                        format!(
                            "'{alone} INSERT INTO effect SELECT background.current_task(), ''{what}'', EXISTS (SELECT FROM seen WHERE id = background.current_task())', \
                              retry_delay => '1 ms', label => 'task'"
                        )
                    };
                    sql.replace("OLD", &effect("old"))
                        .replace("NEW", &effect("new"))
                        .replace("FAILS", "'SELECT 1 / (nextval(''tries'') - 1); INSERT INTO effect DEFAULT VALUES', max_attempts => 1, label => 'again'")
                };
                session.exec(&text(enqueue));
                // Only what fails comes to some of the steps, and only what is done to others.
                let waits = Instant::now();
                while !moments.is_reached(step)
                    && (waits.elapsed() < Duration::from_millis(300)
                        || session.holds("EXISTS (SELECT FROM background.task)"))
                    && waits.elapsed() < SOON
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let acting = moments.is_reached(step).then(|| {
                    let id: i64 = session.value(&format!("SELECT min(id) FROM background.tasks WHERE id > {first}"));
                    let other = cluster.session();
                    let pid = other.pid;
                    let acting = other.start(&text(act).replace("(id)", &format!("({id})")));
                    // It is done, or waits for the process.
                    harness::wait_for("the action", || {
                        acting.is_finished() || session.holds(&format!("cardinality(pg_blocking_pids({pid})) > 0"))
                            || session.holds(&format!("(SELECT wait_event_type IS NOT NULL FROM pg_stat_activity WHERE pid = {pid})"))
                    });
                    if ends {
                        // The process serves this when it goes on.
                        session.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'pg_background%' AND datname IS NOT NULL");
                    }
                    moments.go_on(step);
                    acting
                });
                was_reached |= moments.disarm(step);
                let acted = acting.map(|acting| acting.join().1);
                let mut outcome = settled(&mut session, first, "effect");
                if let Some(Err(error)) = &acted
                    && outcome.is_ok()
                {
                    outcome = Err(format!("{error:?}"));
                }
                // What an enqueue has found, or made, runs after the commit of that enqueue.
                let early = session.text(&format!(
                    "SELECT string_agg(concat_ws(' ', id, what, saw, state), ', ') FROM seen JOIN background.tasks USING (id) LEFT JOIN effect ON task = id \
                     WHERE state = 'done' AND (saw IS NOT TRUE OR '{action}' = 'replace' AND what <> 'new')"
                ));
                if let Some(early) = early {
                    outcome = outcome.and(Err(format!("ran before it was enqueued: {early}")));
                }
                let is_again = acted.is_some_and(|acted| {
                    acted.is_ok_and(|rows| rows.first().is_some_and(|row| row[0].as_deref() == Some("t")))
                });
                // What is tried again after it has failed does not fail again. A process that ends before its first try has not failed yet.
                let undone = session.text(&format!(
                    "SELECT string_agg(concat_ws(' ', id, state), ', ') FROM background.tasks WHERE id > {first} AND state NOT IN ('done', 'canceled') \
                     AND (state <> 'failed' OR '{action}' <> 'retry' OR {is_again} AND (SELECT last_value > 1 FROM tries))"
                ));
                if let Some(undone) = undone {
                    outcome = outcome.and(Err(format!("not done: {undone}")));
                }
                findings.add(&format!("{step}, {action}, ends: {ends}"), began, outcome);
            }
        }
        if !was_reached {
            findings.0.push(format!("{step} was not reached"));
        }
    }
}

/// A process that runs a task goes on, or ends, when the extension has been dropped and created anew meanwhile.
#[test]
fn the_extension_is_dropped_between_two_steps() {
    let (cluster, mut session, moments) = start(&["pg_background.max_task_workers = 3"]);
    let mut findings = Findings::default();
    for step in STOPS {
        let began = Instant::now();
        moments.arm(step, "stop");
        session.exec(if step == "failed" {
            "SELECT background.enqueue('SELECT 1 / 0', max_attempts => 1)"
        } else {
            "SELECT background.enqueue('SELECT 1', key => 'k')"
        });
        if !reaches(&moments, step) {
            moments.disarm(step);
            eprintln!("{step} was not reached");
            continue;
        }
        let other = cluster.session();
        let pid = other.pid;
        let dropping = other.start("DROP EXTENSION pg_background_tasks CASCADE");
        harness::wait_for("the drop", || {
            dropping.is_finished() || session.holds(&format!("cardinality(pg_blocking_pids({pid})) > 0"))
        });
        moments.go_on(step);
        let (_, mut dropped) = dropping.join();
        // The process may have stopped between two locks, which DROP EXTENSION takes in another order.
        while dropped.as_ref().is_err_and(|error| error.sqlstate == "40P01") {
            dropped = session.try_rows("DROP EXTENSION pg_background_tasks CASCADE");
        }
        let mut outcome = dropped.map(|_| ()).map_err(|error| format!("{error:?}"));
        if let Err(what) = &outcome {
            let log = cluster.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("{step}: {what}\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
        }
        // The session has the other library from then on.
        cluster.session().exec(
            "DROP TABLE effect, source; DROP SEQUENCE violations; DROP FUNCTION knows, claims; CREATE EXTENSION pg_background_tasks",
        );
        session.exec("UPDATE pg_proc SET probin = 'pg_background_probe' WHERE probin = '$libdir/pg_background'");
        session = cluster.session();
        session.exec(SETUP);
        let first: i64 = 0;
        for kind in &KINDS {
            session.exec(&kind.sql());
        }
        outcome = outcome.and(settled(&mut session, first, "effect,last"));
        findings.add(&format!("{step}, DROP EXTENSION"), began, outcome);
    }
}

/// A lane that was canceled is the last one of its operation, which is canceled before it has ended.
#[test]
fn a_lane_ends_after_its_operation_was_canceled() {
    let (cluster, mut session, moments) = start(&["pg_background.max_task_workers = 3"]);
    let mut other = cluster.session();
    session.exec(PAUSE);
    let id: i64 = session.value(
        "SELECT background.parallel_execute('SELECT FROM source WHERE id BETWEEN $1 AND $2', 'source', 'id', parallelism => 1)",
    );
    other.exec("BEGIN; LOCK source");
    session.exec(GO_ON);
    session.wait_until("EXISTS (SELECT FROM pg_locks WHERE NOT granted)");
    moments.arm("lane over", "stop");
    assert!(session.holds(&format!("background.cancel_operation({id})")));
    assert!(reaches(&moments, "lane over"));
    moments.go_on("lane over");
    assert_eq!(
        session
            .text(&format!("SELECT background.wait_operation({id}, 20000)"))
            .as_deref(),
        Some("canceled")
    );
}

/// A run in another database: the attempt is noted before, and its outcome after. The limits hold for what runs there, too.
#[test]
fn a_fault_around_a_run_in_another_database() {
    let (cluster, mut session, moments) = start(&["pg_background.max_task_workers = 3", "log_min_messages = fatal"]);
    let mut findings = Findings::default();
    session.exec("CREATE DATABASE there");
    let mut there = cluster.session_in("there", "postgres");
    there.exec("CREATE TABLE effect (task int8); CREATE SEQUENCE violations");
    for step in [
        "launching elsewhere",
        "launched elsewhere",
        "ended elsewhere",
        "performed",
        "run committed",
        "noted",
        "released",
    ] {
        for fault in ["error", "cancel", "die"] {
            for attempts in [1, 3] {
                let began = Instant::now();
                let first: i64 = session.value("SELECT last_value FROM background.task_id");
                moments.arm(step, fault);
                session.exec(&format!(
                    "SELECT background.enqueue('SELECT nextval(''violations'') WHERE NOT pg_try_advisory_xact_lock(1); \
                         INSERT INTO effect VALUES ({first}); SELECT pg_sleep(0.1)', \
                         database => 'there', queue => 'one', max_attempts => {attempts}, retry_delay => '1 ms') FROM generate_series(1, 2)"
                ));
                let outcome = settled_elsewhere(&mut session, &mut there, first, attempts);
                if !moments.disarm(step) && fault != "error" {
                    findings.0.push(format!("{step} was not reached"));
                }
                findings.add(&format!("{step}, {fault}, {attempts} attempts"), began, outcome);
            }
        }
    }
}

fn settled_elsewhere(session: &mut Session, there: &mut Session, first: i64, attempts: i64) -> Result<(), String> {
    let began = Instant::now();
    while !session.holds("(NOT EXISTS (SELECT FROM background.task) AND claims() = '0 0 0')") {
        if began.elapsed() > SOON {
            return Err(session
                .text("SELECT claims() || (SELECT string_agg(t::text, ' ') FROM background.task t)")
                .unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let states = session
        .text(&format!(
            "SELECT string_agg(state, ' ') FROM background.tasks WHERE id > {first}"
        ))
        .unwrap_or_default();
    let effects: i64 = there.value(&format!("SELECT count(*) FROM effect WHERE task = {first}"));
    let done = states.split(' ').filter(|state| *state == "done").count() as i64;
    if there.holds("(SELECT is_called FROM violations)") {
        there.exec("SELECT setval('violations', 1, false)");
        return Err("two ran at a time".into());
    }
    if effects < done || effects > 2 * attempts || attempts == 1 && effects > 2 || attempts > 1 && done < 2 {
        return Err(format!("{states}, {effects} effects"));
    }
    Ok(())
}

/// A session cancels a task at the moment at which its run begins, or fails for another reason: the task is canceled, and does not run to its end.
#[test]
fn a_cancel_at_the_wrong_moment() {
    let (cluster, mut session, moments) = start(&[]);
    session.exec("CREATE TABLE attempts (n int)");
    let canceled = |session: &mut Session, id: i64| {
        session.wait_until(&format!(
            "(SELECT state = 'canceled' FROM background.tasks WHERE id = {id})"
        ));
        // What would run again is there at the same time, and runs later.
        let later = session.enqueue("'SELECT 1', run_at => now() + interval '1500 ms'");
        assert_eq!(session.wait_task(later), "done");
        assert!(session.holds(&format!(
            "(SELECT state = 'canceled' FROM background.tasks WHERE id = {id})"
        )));
    };
    for mode in ["statement", "transaction"] {
        // It is taken, and has not begun; or it has.
        for moment in ["loaded", "begun"] {
            session.exec("TRUNCATE attempts");
            moments.arm(moment, "stop");
            let id = session.enqueue(&format!(
                "'INSERT INTO attempts SELECT 1 FROM pg_sleep(1)', mode => '{mode}'"
            ));
            wait_for("the moment", || moments.is_reached(moment));
            let canceling = cluster.session().start(&format!(
                "SELECT background.cancel({id}, 10000), background.wait({id}, 20000)"
            ));
            let pid = canceling.pid;
            wait_for("the cancel waits or is through", || {
                canceling.is_finished()
                    || session.holds(&format!(
                        "(SELECT state = 'active' AND wait_event IS NOT NULL FROM pg_stat_activity WHERE pid = {pid})"
                    ))
            });
            moments.go_on(moment);
            let (_, answer) = canceling.join();
            let answer = answer.expect("an answer");
            assert_eq!(
                answer[0].iter().map(Option::as_deref).collect::<Vec<_>>(),
                [Some("t"), Some("canceled")],
                "{mode}, {moment}"
            );
            canceled(&mut session, id);
            assert!(
                session.holds("NOT EXISTS (SELECT FROM attempts)"),
                "{mode}, {moment}: it has run"
            );
        }
        // It has failed: that is to be noted, is noted, or the process ends then.
        for (moment, fault) in [
            ("failing", ""),
            ("noted that it failed", ""),
            ("noted that it failed", "failed"),
        ] {
            moments.arm(moment, "stop");
            if !fault.is_empty() {
                moments.arm(fault, "die");
            }
            let id = session.enqueue(&format!(
                "'SELECT 1 / 0', mode => '{mode}', max_attempts => 5, retry_delay => '1 s'"
            ));
            wait_for("the moment", || moments.is_reached(moment));
            assert!(session.holds(&format!("background.cancel({id})")));
            moments.go_on(moment);
            canceled(&mut session, id);
            assert!(session.holds(&format!(
                "(SELECT max(attempt) = 1 FROM background.runs WHERE task_id = {id})"
            )));
        }
    }
}

/// The process that has loaded a statement finds that it must not run it. Another one does, and no attempt counts.
#[test]
fn a_statement_is_given_back_before_it_begins() {
    let (cluster, mut session, moments) = start(&[
        "pg_background.max_task_workers = 1",
        "pg_background.worker_idle_timeout = '1 min'",
    ]);
    let mut other = cluster.session();
    session.exec(
        "CREATE TYPE cents AS (n int);
         CREATE FUNCTION cents(int) RETURNS cents LANGUAGE sql AS 'SELECT ROW($1)::cents';
         CREATE TABLE ran (n int);
         CREATE TABLE gate ()",
    );
    other.exec("BEGIN; LOCK TABLE gate");
    let first = session.enqueue("'SELECT FROM gate'");
    session.wait_until("EXISTS (SELECT FROM pg_locks WHERE NOT granted)");
    moments.arm("taken", "stop");
    let second = session.enqueue("'INSERT INTO ran VALUES (1)', mode => 'statement'");
    other.exec("COMMIT");
    wait_for("the moment", || moments.is_reached("taken"));
    // What a process that has run others keeps may be called in the old way after this.
    session.exec("CREATE CAST (int AS cents) WITH FUNCTION cents(int)");
    moments.go_on("taken");
    assert_eq!(session.wait_task(first), "done");
    assert_eq!(session.wait_task(second), "done");
    assert!(session.holds(&format!(
        "(SELECT array_agg(attempt) = '{{1}}' FROM background.runs WHERE task_id = {second})"
    )));
}
