//! Measures durable tasks, on a cluster with PostgreSQL's own settings: two runners.
//!
//! A burst of tasks is enqueued in one transaction, the last of them notifies the session: its time is that from the COMMIT to the
//! notification. Each measurement has a database of its own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Cluster, Session, quoted, try_process_status};

use crate::cores;
use crate::measure::{median, percentile};
use crate::report::{Goal, Line, Unit, Workers};

const INSERT: &str = "INSERT INTO written VALUES (1)";

/// The size of a burst where many of them are compared. More tasks than this are not told one by one after a commit.
const BURST: u32 = 10_000;

/// The release that npm installs.
const GRAPHILE: &str = "graphile-worker@0.17.3";

/// The exit status of timeout(1) when it has ended the program.
const TIMED_OUT: i32 = 124;

pub struct Tasks {
    quick: bool,
    cluster: Cluster,
    lines: Vec<Line>,
}

impl Tasks {
    pub fn start(quick: bool) -> Self {
        Self {
            quick,
            cluster: Cluster::start_with_defaults(&[]),
            lines: Vec::new(),
        }
    }

    pub fn session(&self) -> Session {
        self.cluster.session()
    }

    pub fn measure(mut self) -> Vec<Line> {
        let idle = [true, false].map(Idle::start);
        let rate = self.throughput();
        self.graphile(rate);
        self.throughput_to_disk();
        self.enqueue();
        let idle = idle.map(Idle::begin_counting);
        self.latency();
        self.many_waiting();
        self.under_a_snapshot();
        self.held_back();
        self.operation();
        self.wakes(&idle);
        self.lines
    }

    fn pick(&self, full: u32, quick: u32) -> u32 {
        if self.quick { quick } else { full }
    }

    fn burst(&self) -> u32 {
        self.pick(BURST, 200)
    }

    fn rounds(&self) -> u32 {
        self.pick(10, 2)
    }

    fn line(&mut self, what: String, unit: Unit, ours: f64, against: String, theirs: f64, goal: Goal) {
        let line = Line {
            what,
            unit,
            judged: Workers::Warm,
            warm: Some(ours),
            fresh: None,
            against,
            theirs,
            goal,
        };
        line.print();
        self.lines.push(line);
    }

    /// A session of a new database.
    fn open(&self, database: &str) -> Session {
        self.cluster.session().exec(&format!("CREATE DATABASE {database}"));
        let mut session = self.cluster.session_in(database, "postgres");
        session.exec("CREATE EXTENSION pg_background_tasks CASCADE");
        session.exec("CREATE TABLE written (n int); LISTEN over");
        session.exec(
            "CREATE PROCEDURE insert_and_commit(n int) LANGUAGE plpgsql AS
             $$ BEGIN FOR i IN 1..n LOOP INSERT INTO written VALUES (1); COMMIT; END LOOP; END $$",
        );
        session
    }

    /// Drops the database, together with what waits or runs there.
    fn close(&self, mut session: Session) {
        let database: String = session.value("SELECT current_database()");
        drop(session);
        self.cluster
            .session()
            .exec(&format!("DROP DATABASE {database} WITH (FORCE)"));
    }

    /// Measures in a new database.
    fn within<T>(&self, database: &str, measure: impl FnOnce(&mut Session) -> T) -> T {
        let mut session = self.open(database);
        let measured = measure(&mut session);
        self.close(session);
        measured
    }

    /// Bursts in a database that `prepare` has prepared, and in one of which nothing is special, in turns.
    fn compare(
        &mut self,
        what: String,
        queue: &str,
        against: &str,
        prepare: impl FnOnce(&Self, &mut Session, &mut Session) -> Option<Session>,
        goal: Goal,
    ) {
        let (count, rounds) = (self.burst(), self.rounds());
        let (mut special, mut plain) = (self.open("special"), self.open("plain"));
        let holder = prepare(self, &mut special, &mut plain);
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let rates = [&mut special, &mut plain].map(|session| burst(session, queue, count));
            // The first round fills caches.
            if round > 0 {
                with.push(rates[0]);
                without.push(rates[1]);
            }
        }
        drop(holder);
        self.close(special);
        self.close(plain);
        self.line(
            what,
            Unit::PerSecond,
            median(&with),
            against.to_owned(),
            median(&without),
            goal,
        );
    }

    fn throughput(&mut self) -> f64 {
        let (ours, theirs) = self.against_the_loop("off", self.pick(100_000, 1000), self.pick(5, 1));
        self.line(
            "waiting tasks that insert a row, 2 runners".to_owned(),
            Unit::PerSecond,
            ours,
            "a loop of INSERT and COMMIT".to_owned(),
            theirs,
            Goal::at_least(0.15, 0.3),
        );
        ours
    }

    fn throughput_to_disk(&mut self) {
        let (ours, theirs) = self.against_the_loop("on", self.pick(BURST, 200), self.pick(10, 1));
        self.line(
            "the same, synchronous_commit on".to_owned(),
            Unit::PerSecond,
            ours,
            "that loop, synchronous_commit on".to_owned(),
            theirs,
            Goal::at_least(0.8, 1.5),
        );
    }

    /// Tasks, and executions of the loop, in a second. The loop is on another core in each turn, as one of the runners is.
    fn against_the_loop(&self, synchronous_commit: &str, count: u32, rounds: u32) -> (f64, f64) {
        let cores = cores::all();
        self.within("throughput", |session| {
            session.exec(&format!("SET synchronous_commit = {synchronous_commit}"));
            session.exec(&format!(
                "SELECT background.set_queue('default', synchronous_commit => {})",
                quoted(synchronous_commit)
            ));
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..=rounds {
                session.exec("TRUNCATE written; CHECKPOINT");
                let our_rate = burst(session, "default", count);
                session.exec("TRUNCATE written; CHECKPOINT");
                cores::place(session.pid, cores::one(&cores, round as usize));
                let started = Instant::now();
                session.exec(&format!("CALL insert_and_commit({count})"));
                let their_rate = rate(count, started.elapsed());
                cores::place(session.pid, &cores);
                // The first round starts the runners.
                if round > 0 {
                    ours.push(our_rate);
                    theirs.push(their_rate);
                }
            }
            (median(&ours), median(&theirs))
        })
    }

    /// The same inserts through a queue library on node, if that is there.
    fn graphile(&mut self, ours: f64) {
        let directory = std::env::temp_dir().join(format!("pgbg-graphile-{}", std::process::id()));
        let measured = graphile_rate(&directory, &self.cluster, self.pick(20_000, 1000), self.pick(600, 60));
        let _ = std::fs::remove_dir_all(&directory);
        match measured {
            Ok(theirs) => self.line(
                "waiting tasks that insert a row, 2 runners".to_owned(),
                Unit::PerSecond,
                ours,
                format!("{}, local queue", GRAPHILE.replace('@', " ")),
                theirs,
                Goal::at_least(5.0, 10.0),
            ),
            Err(why) => println!("{GRAPHILE} is not measured: {why}"),
        }
    }

    fn enqueue(&mut self) {
        let (count, rounds) = (self.pick(100_000, 1000), self.pick(5, 1));
        let (ours, theirs) = self.within("enqueue", |session| {
            session.exec("SELECT background.set_queue('default', paused => true)");
            session.exec("CREATE TABLE plain (LIKE background.task, PRIMARY KEY (id))");
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                session.exec("TRUNCATE background.task, plain; CHECKPOINT");
                let started = Instant::now();
                enqueue(session, count, "queue => 'default'");
                ours.push(rate(count, started.elapsed()));
                session.exec("CHECKPOINT");
                let started = Instant::now();
                session.exec("INSERT INTO plain SELECT * FROM background.task");
                theirs.push(rate(count, started.elapsed()));
            }
            (median(&ours), median(&theirs))
        });
        self.line(
            "enqueue in bulk".to_owned(),
            Unit::PerSecond,
            ours,
            "INSERT ... SELECT of the same rows".to_owned(),
            theirs,
            Goal::at_least(0.08, 0.2),
        );
    }

    /// The time from the end of the commit of an enqueue to the task's own statement, while a runner waits.
    fn latency(&mut self) {
        let count = self.pick(2000, 20);
        let samples = self.within("latency", |session| {
            session.exec(
                "CREATE TABLE enqueued (id int8, at timestamptz);
                 CREATE TABLE started (id int8, at timestamptz);
                 CREATE PROCEDURE enqueue_one_by_one(n int) LANGUAGE plpgsql AS $$
                 DECLARE
                     ids int8[];
                     ends timestamptz[];
                 BEGIN
                     FOR i IN 1..n LOOP
                         ids[i] := background.enqueue('INSERT INTO started VALUES (background.current_task(), clock_timestamp())');
                         COMMIT;
                         ends[i] := clock_timestamp();
                         PERFORM pg_sleep(0.005);
                     END LOOP;
                     INSERT INTO enqueued SELECT * FROM ROWS FROM (unnest(ids), unnest(ends)) AS _ (id, at);
                 END $$",
            );
            // The first ones start the runners.
            session.exec(&format!("CALL enqueue_one_by_one({})", count / 10));
            session.wait_until("(SELECT count(*) FROM started) = (SELECT count(*) FROM enqueued)");
            session.exec("TRUNCATE started, enqueued");
            session.exec(&format!("CALL enqueue_one_by_one({count})"));
            session.wait_until("(SELECT count(*) FROM started) = (SELECT count(*) FROM enqueued)");
            let rows = session.rows(
                "SELECT greatest(extract(epoch FROM started.at - enqueued.at) * 1000, 0) FROM started JOIN enqueued USING (id)",
            );
            let ms = rows.into_iter().flatten().flatten();
            ms.map(|ms| ms.parse().expect("milliseconds")).collect::<Vec<f64>>()
        });
        for (statistic, part, must, aim) in [("", 0.5, 1.0, 0.2), (", p99", 0.99, 5.0, 1.0)] {
            self.line(
                format!("from the commit of an enqueue to the run{statistic}"),
                Unit::Milliseconds,
                percentile(&samples, part),
                "a millisecond".to_owned(),
                1.0,
                Goal::at_most(must, aim),
            );
        }
    }

    fn many_waiting(&mut self) {
        let (count, burst, rounds) = (self.pick(1_000_000, 10_000), self.burst(), self.rounds());
        let mut few = Vec::new();
        let some_bursts = |few: &mut Vec<f64>| {
            few.extend(self.within("few", |session| bursts(session, "default", burst, rounds / 2)));
        };
        some_bursts(&mut few);
        let many = self.within("many", |session| {
            session.exec("BEGIN");
            enqueue_with_marks(session, count, burst, "queue => 'default'");
            session.exec("COMMIT");
            session.notifications(1);
            let mut rates = Vec::new();
            for _ in 0..rounds {
                let started = Instant::now();
                session.notifications(1);
                rates.push(rate(burst, started.elapsed()));
            }
            session.exec("SELECT background.set_queue('default', paused => true)");
            rates
        });
        some_bursts(&mut few);
        self.line(
            format!("tasks while {} wait", grouped(count)),
            Unit::PerSecond,
            median(&many),
            format!("while {} wait", grouped(burst)),
            median(&few),
            Goal::at_least(0.8, 1.0),
        );
    }

    fn under_a_snapshot(&mut self) {
        let count = self.pick(500_000, 5000);
        self.compare(
            format!("tasks after {} under an old snapshot", grouped(count)),
            "default",
            "without them",
            |all, special, _| {
                let mut holder = all.cluster.session_in("special", "postgres");
                holder.exec("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM written");
                for _ in 0..10 {
                    burst(special, "default", count / 10);
                }
                Some(holder)
            },
            Goal::at_least(0.8, 1.0),
        );
    }

    fn held_back(&mut self) {
        let count = self.pick(100_000, 2000);
        let goal = Goal::at_least(0.9, 1.0);
        self.compare(
            format!("tasks while a limit holds {} back", grouped(count)),
            "default",
            "without them",
            |_, special, _| {
                special.exec("SELECT background.set_queue('held', max_running => 0)");
                enqueue(special, count, "queue => 'held'");
                None
            },
            goal,
        );
        // They are in the same queue. One of the key runs all the time, and so does one in the other database: both have one runner for the rest.
        let mut session = self.cluster.session();
        for sql in [
            "LOAD 'pg_background'",
            "ALTER SYSTEM SET pg_background.max_task_workers = 3",
            "SELECT pg_reload_conf()",
        ] {
            session.exec(sql);
        }
        self.compare(
            format!("tasks while a key holds {} back", grouped(count)),
            "keyed",
            "without them",
            |_, special, plain| {
                for session in [&mut *special, plain] {
                    session.exec("SELECT background.set_queue('keyed', max_running_per_key => 1)");
                    session.exec(
                        "SELECT background.enqueue('SELECT pg_sleep(600)', queue => 'keyed', concurrency_key => 'one')",
                    );
                    session.wait_until("EXISTS (SELECT FROM background.tasks WHERE state = 'running')");
                }
                enqueue(special, count, "queue => 'keyed', concurrency_key => 'one'");
                None
            },
            goal,
        );
    }

    /// An UPDATE of a whole table in chunks, and as one statement. Both tables are as new before each.
    fn operation(&mut self) {
        let (count, rounds) = (self.pick(2_000_000, 20_000), self.pick(3, 1));
        let (ours, theirs) = self.within("operation", |session| {
            // One of them is left to other tasks.
            session.exec("ALTER SYSTEM SET pg_background.max_task_workers = 3");
            session.exec("SELECT pg_reload_conf()");
            let prepare = |session: &mut Session| {
                session.exec("DROP TABLE IF EXISTS large; CREATE TABLE large (id int PRIMARY KEY, n int NOT NULL)");
                session.exec(&format!("INSERT INTO large SELECT i, 0 FROM generate_series(1, {count}) AS i"));
                session.exec("VACUUM ANALYZE large");
                session.exec("CHECKPOINT");
            };
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                prepare(session);
                let started = Instant::now();
                let id: i64 = session.value(
                    "SELECT background.parallel_execute('UPDATE large SET n = n + 1 WHERE id BETWEEN $1 AND $2', 'large', 'id', parallelism => 2)",
                );
                let state: String = session.value(&format!("SELECT background.wait_operation({id})"));
                assert_eq!(state, "done");
                ours.push(rate(count, started.elapsed()));
                prepare(session);
                let started = Instant::now();
                session.exec("UPDATE large SET n = n + 1");
                theirs.push(rate(count, started.elapsed()));
            }
            (median(&ours), median(&theirs))
        });
        self.line(
            format!(
                "parallel_execute of an UPDATE of {} rows, parallelism 2",
                grouped(count)
            ),
            Unit::PerSecond,
            ours,
            "one UPDATE of all".to_owned(),
            theirs,
            Goal::at_least(1.0, 1.5),
        );
    }

    fn wakes(&mut self, idle: &[Counting]) {
        let enough = if self.quick { Duration::ZERO } else { MINUTE };
        for counting in idle {
            std::thread::sleep(enough.saturating_sub(counting.since.elapsed()));
            self.line(
                format!("wake-ups in a minute, no task due, {}", counting.idle.what),
                Unit::Count,
                counting.wakes_in_a_minute(),
                "one".to_owned(),
                1.0,
                Goal::at_most(6.0, 1.0),
            );
        }
    }
}

fn rate(count: u32, time: Duration) -> f64 {
    f64::from(count) / time.as_secs_f64()
}

/// `1000000` as `1,000,000`.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn enqueue(session: &mut Session, count: u32, options: &str) {
    session.exec(&format!(
        "SELECT count(background.enqueue({}, {options})) FROM generate_series(1, {count})",
        quoted(INSERT)
    ));
}

/// The same, but the last one of each `every` tasks notifies the session.
fn enqueue_with_marks(session: &mut Session, count: u32, every: u32, options: &str) {
    session.exec(&format!(
        "SELECT count(background.enqueue(CASE WHEN n % {every} = 0 THEN 'NOTIFY over' ELSE {} END, {options}))
         FROM generate_series(1, {count}) AS n",
        quoted(INSERT)
    ));
}

/// Has so many tasks run. Returns tasks per second.
fn burst(session: &mut Session, queue: &str, count: u32) -> f64 {
    session.exec("BEGIN");
    enqueue_with_marks(session, count, count, &format!("queue => {}", quoted(queue)));
    let started = Instant::now();
    session.exec("COMMIT");
    session.notifications(1);
    rate(count, started.elapsed())
}

/// The rates of some bursts, after one that does not count.
fn bursts(session: &mut Session, queue: &str, count: u32, rounds: u32) -> Vec<f64> {
    burst(session, queue, count);
    (0..rounds).map(|_| burst(session, queue, count)).collect()
}

/// Installs the library into the directory, and has it run so many jobs, with its own settings for measurements and the local queue. Returns jobs per
/// second. Each of its programs has `limit` seconds: npm waits for a registry that it cannot reach.
fn graphile_rate(directory: &Path, cluster: &Cluster, count: u32, limit: u32) -> Result<f64, String> {
    let output = |program: &str, arguments: &[&str]| -> Result<String, String> {
        let output = Command::new("timeout")
            .args([&limit.to_string(), program])
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{program}: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        if output.status.code() == Some(TIMED_OUT) {
            return Err(format!("{program} has not ended after {limit} s"));
        }
        let errors = text(&output.stderr);
        let first = errors.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        Err(format!("{program}: {first}"))
    };
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    output("node", &["--version"])?;
    let install = [
        "install",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
        ".",
        GRAPHILE,
    ];
    output("npm", &install)?;
    std::fs::write(directory.join("measure.js"), SCRIPT).map_err(|error| error.to_string())?;
    let mut session = cluster.session();
    session.exec("CREATE DATABASE graphile");
    session.exec("ALTER DATABASE graphile SET synchronous_commit = off");
    cluster
        .session_in("graphile", "postgres")
        .exec("CREATE TABLE written (n int)");
    let url = format!(
        "postgres:///graphile?host={}&user=postgres",
        cluster.socket_dir().display()
    );
    let measured = output("node", &["measure.js", &url, &count.to_string(), INSERT]);
    session.exec("DROP DATABASE graphile WITH (FORCE)");
    let measured = measured?;
    let last = measured.lines().last().unwrap_or_default();
    last.parse().map_err(|_| format!("it printed {last:?}"))
}

/// Prints jobs per second, from the first job's call to the last one's end.
const SCRIPT: &str = r#"
const { makeWorkerUtils, run, WorkerPreset, Logger } = require("graphile-worker");
const [connectionString, count, sql] = process.argv.slice(2);
const preset = {
  extends: [WorkerPreset],
  worker: {
    connectionString,
    concurrentJobs: 24,
    maxPoolSize: 25,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    logger: new Logger(() => () => {}),
  },
};
async function main() {
  const utils = await makeWorkerUtils({ preset });
  await utils.migrate();
  await utils.withPgClient((client) =>
    client.query("SELECT graphile_worker.add_job('insert', '{}') FROM generate_series(1, $1::int)", [count]),
  );
  await utils.release();
  let started, done, left = Number(count);
  const over = new Promise((resolve) => { done = resolve; });
  const insert = async (_payload, helpers) => {
    started ??= performance.now();
    await helpers.query(sql);
    if (--left === 0) done(performance.now());
  };
  const runner = await run({ preset, taskList: { insert }, noHandleSignals: true });
  const ended = await over;
  console.log(count / ((ended - started) / 1000));
  await runner.stop();
  process.exit(0);
}
main().catch((error) => { console.error(error); process.exit(1); });
"#;

const MINUTE: Duration = Duration::from_secs(60);

/// A preloaded cluster in which a task has run, and nothing more is due.
struct Idle {
    what: &'static str,
    cluster: Cluster,
}

impl Idle {
    fn start(is_expecting: bool) -> Self {
        let cluster = Cluster::start_with_defaults(&[
            "shared_preload_libraries = 'pg_background'",
            "pg_background.worker_idle_timeout = '1s'",
        ]);
        let mut session = cluster.session();
        session.exec("CREATE EXTENSION pg_background_tasks CASCADE");
        if is_expecting {
            session.exec("SELECT background.enqueue('SELECT 1', run_at => now() + '1 day')");
        }
        session.exec("SELECT background.enqueue('SELECT 1')");
        session.wait_until("EXISTS (SELECT FROM background.tasks WHERE state = 'done')");
        Self {
            what: if is_expecting {
                "one for tomorrow"
            } else {
                "none that waits"
            },
            cluster,
        }
    }

    fn processes(&self) -> Vec<(i32, u64)> {
        let pids = self.cluster.worker_processes().into_iter();
        pids.filter_map(|pid| Some((pid, try_process_status(pid, "voluntary_ctxt_switches")?)))
            .collect()
    }

    fn begin_counting(self) -> Counting {
        Counting {
            before: self.processes(),
            since: Instant::now(),
            idle: self,
        }
    }
}

/// How often the extension's processes of an idle cluster had slept by when.
struct Counting {
    idle: Idle,
    before: Vec<(i32, u64)>,
    since: Instant,
}

impl Counting {
    /// How often its processes slept since then, which is how often they were woken; the ends of processes count, too.
    fn wakes_in_a_minute(&self) -> f64 {
        let after = self.idle.processes();
        let slept = |list: &[(i32, u64)], pid: i32| list.iter().find(|(other, _)| *other == pid).map(|(_, n)| *n);
        let of_new = after
            .iter()
            .map(|(pid, n)| n - slept(&self.before, *pid).unwrap_or(0))
            .sum::<u64>();
        let ended = self
            .before
            .iter()
            .filter(|(pid, _)| slept(&after, *pid).is_none())
            .count() as u64;
        let minutes = self.since.elapsed().as_secs_f64() / MINUTE.as_secs_f64();
        (of_new + ended) as f64 / minutes
    }
}
