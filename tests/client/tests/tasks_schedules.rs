//! Schedules that fire.

use harness::{Cluster, Random, Session, Shutdown, give_to_server, run, server_program};
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::start(settings);
    prepare(&cluster);
    cluster
}

fn prepare(cluster: &Cluster) {
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION pg_background_tasks");
    session.exec("CREATE TABLE done (name text, task int8 DEFAULT background.current_task())");
    session.exec("GRANT ALL ON done TO PUBLIC");
}

/// Makes a schedule whose tasks note that they were there.
fn schedule(session: &mut Session, name: &str, spec: &str, more: &str) -> i64 {
    session.value(&format!(
        "SELECT background.schedule('{name}', '{spec}', 'INSERT INTO done VALUES (''{name}'')'{more})"
    ))
}

/// A column of a schedule.
fn of(session: &mut Session, name: &str, column: &str) -> i64 {
    session.value(&format!(
        "SELECT {column} FROM background.schedules WHERE name = '{name}'"
    ))
}

/// Disables all schedules, which are due each second, and waits until their tasks are done. The table `occurrences` then has how many each has had:
/// they count from their creation.
fn fire_no_more(session: &mut Session) {
    session.exec(
        "BEGIN; LOCK TABLE background.firing; \
         CREATE TABLE occurrences AS SELECT name, round(extract(epoch FROM occurs_at - created_at)) - 1 AS count \
             FROM background.firing JOIN background.schedule ON id = schedule",
    );
    session.exec("SELECT background.alter_schedule(name, enabled => false) FROM background.schedules; COMMIT");
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state <> 'done')");
}

/// Stops the server for so long.
fn down(cluster: &Cluster, seconds: u64) -> Session {
    cluster.stop(Shutdown::Fast);
    // What happens in this time is that it passes.
    std::thread::sleep(std::time::Duration::from_secs(seconds));
    cluster.restart();
    let mut session = cluster.session();
    session.exec("SELECT background.status()");
    session
}

#[test]
fn each_second_one_task() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    schedule(&mut session, "s", "every 1 second", "");
    session.wait_until("(SELECT count(*) >= 6 FROM done)");
    // As many as there were seconds, and none before its time.
    assert!(session.holds(
        "(SELECT count(*) = count(DISTINCT run_at) AND min(started_at - run_at) >= '0' AND max(run_at) - min(run_at) = make_interval(secs => count(*) - 1) \
          FROM background.tasks WHERE schedule = 's' AND state = 'done')"
    ));
    let late: f64 = session.value(
        "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - run_at)) FROM background.tasks WHERE schedule = 's' AND state = 'done'",
    );
    assert!(late < 0.5, "{late} s late");
    assert!(session.holds(
        "(SELECT bool_and(label = 's' AND attempt = 1 AND max_attempts = 1 AND schedule = 's') FROM background.tasks)"
    ));
    assert!(session.holds("(SELECT bool_and(schedule = 's' AND state = 'done') FROM background.runs)"));
    // One keeper stays, and is not started each time.
    assert!(session.holds(
        "EXISTS (SELECT FROM pg_stat_activity WHERE backend_type LIKE 'pg_background%' AND datname IS NOT NULL AND now() - backend_start > '3 s')"
    ));
    assert!(session.holds(
        "(SELECT runs_total >= 6 AND skipped_total + missed_total + failures_total = 0 AND next_at > last_at FROM background.schedules)"
    ));
    assert!(
        session.holds(
            "(SELECT next_due BETWEEN now() - interval '1 s' AND now() + interval '1 s' FROM background.status())"
        )
    );
    session.exec("SELECT background.unschedule('s')");
    let count: i64 = session.value("SELECT count(*) FROM background.tasks");
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state <> 'done')");
    session.exec("SELECT pg_sleep(1.5)");
    assert!(session.value::<i64>("SELECT count(*) FROM background.tasks") <= count + 1);
}

#[test]
fn a_cold_start_is_in_time() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    for (name, offset) in [("first", 3), ("second", 17)] {
        session.exec(&format!(
            "SELECT background.schedule('{name}', 'at ' || clock_timestamp() + interval '{offset} s', 'INSERT INTO done VALUES (''{name}'')')"
        ));
    }
    // The second one finds no idle worker any more.
    for name in ["first", "second"] {
        session.wait_until(&format!("EXISTS (SELECT FROM done WHERE name = '{name}')"));
        let late: f64 = session.value(&format!(
            "SELECT extract(epoch FROM started_at - run_at) FROM background.tasks WHERE schedule = '{name}'"
        ));
        assert!((0.0..0.5).contains(&late), "{name} is {late} s late");
        session.wait_until("(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'pg_background%' AND datname IS NOT NULL)");
    }
    assert!(session.holds("(SELECT bool_and(next_at IS NULL AND enabled) FROM background.schedules)"));
    assert!(session.holds("(SELECT next_due IS NULL FROM background.status())"));
}

#[test]
fn what_overlaps() {
    let cluster = cluster(&["pg_background.max_task_workers = 16"]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE gate (n int); INSERT INTO gate VALUES (1)");
    let mut holder = cluster.session();
    holder.exec("BEGIN; LOCK TABLE gate");
    for overlap in ["skip", "queue", "allow"] {
        session.exec(&format!(
            "SELECT background.schedule('{overlap}', 'every 1 second', 'SELECT n FROM gate', overlap => '{overlap}')"
        ));
    }
    session.wait_until("(SELECT count(*) = 3 FROM background.schedules WHERE runs_total + skipped_total >= 5)");
    assert_eq!(of(&mut session, "skip", "runs_total"), 1);
    assert_eq!(of(&mut session, "queue", "runs_total"), 2);
    assert_eq!(of(&mut session, "allow", "skipped_total"), 0);
    assert!(session.holds(
        "(SELECT array_agg(state ORDER BY id) = '{running,blocked}' FROM background.tasks WHERE schedule = 'queue')"
    ));
    // The newest task of `allow` may not have begun.
    session.wait_until(
        "(SELECT array_agg(last_state ORDER BY name) = '{running,blocked,running}' FROM background.schedules)",
    );
    // A task now, whatever overlap says.
    session.exec("SELECT background.run_schedule('skip')");
    assert!(session.holds("(SELECT count(*) = 2 FROM background.tasks WHERE schedule = 'skip')"));
    holder.exec("COMMIT");
    session.wait_until("(SELECT count(*) >= 4 FROM background.runs WHERE schedule = 'skip' AND state = 'done')");
    session.wait_until("(SELECT count(*) >= 4 FROM background.runs WHERE schedule = 'queue' AND state = 'done')");
    // Those of `queue` followed each other.
    assert!(session.holds(
        "NOT EXISTS (SELECT FROM background.runs AS a JOIN background.runs AS b ON b.task_id > a.task_id AND b.started_at < a.finished_at \
          WHERE a.schedule = 'queue' AND b.schedule = 'queue')"
    ));
}

/// The tasks of the schedule, which wait for each other, have its occurrences as `run_at`, and wait from the end of the one before on.
fn know_their_occurrences(session: &mut Session, name: &str, seconds: i64) {
    let holds = format!(
        "(SELECT bool_and(run_at = created_at + round(extract(epoch FROM run_at - created_at) / {seconds}) * interval '{seconds} s' \
              AND ready_at >= run_at AND started_at >= ready_at AND started_at - ready_at < '1 s') \
            AND count(*) = count(DISTINCT run_at) AND max(ready_at - run_at) > '1 s' \
          FROM background.history AS t JOIN background.schedules AS s ON s.name = t.schedule WHERE t.schedule = '{name}' AND t.state = 'done')"
    );
    let shown =
        format!("SELECT task_id, run_at, ready_at, started_at FROM background.history WHERE schedule = '{name}'");
    assert!(session.holds(&holds), "{:?}", session.rows(&shown));
}

#[test]
fn tasks_that_wait_for_others_know_their_occurrence() {
    let cluster = cluster(&["shared_preload_libraries = 'pg_background'"]);
    let mut session = cluster.session();
    session.exec("SELECT background.schedule('q', 'every 2 seconds', 'SELECT pg_sleep(2.7)', overlap => 'queue')");
    session.exec("SELECT background.schedule('all', 'every 1 second', 'SELECT pg_sleep(0.5)', catch_up => 'all')");
    session.wait_until("(SELECT count(*) >= 4 FROM background.tasks WHERE schedule = 'q' AND state = 'done')");
    know_their_occurrences(&mut session, "q", 2);
    session.exec("SELECT background.unschedule('q')");
    let mut session = down(&cluster, 4);
    let missed = "schedule = 'all' AND started_at - run_at > '1 s' AND state = 'done'";
    session.wait_until(&format!("(SELECT count(*) >= 3 FROM background.tasks WHERE {missed})"));
    session.exec("SELECT background.alter_schedule('all', enabled => false)");
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state <> 'done' AND schedule = 'all')");
    know_their_occurrences(&mut session, "all", 1);
    // A retry keeps it, too.
    session.exec("SELECT background.schedule('fails', 'every 1 second', 'SELECT 1 / 0')");
    session.wait_until("EXISTS (SELECT FROM background.tasks WHERE schedule = 'fails' AND state = 'failed')");
    session.exec("SELECT background.alter_schedule('fails', enabled => false)");
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state <> 'failed' AND schedule = 'fails')");
    session.exec("CREATE TABLE before AS SELECT id, run_at, started_at FROM background.tasks WHERE schedule = 'fails'");
    session.exec("SELECT background.retry(id) FROM before");
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state <> 'failed' AND schedule = 'fails')");
    assert!(session.holds(
        "(SELECT bool_and(t.run_at = before.run_at AND t.started_at > before.started_at AND t.ready_at > t.run_at) \
          FROM background.history AS t JOIN before ON id = task_id WHERE ended)"
    ));
}

#[test]
fn what_was_missed_while_the_server_was_down() {
    let cluster = cluster(&[
        "shared_preload_libraries = 'pg_background'",
        "pg_background.max_task_workers = 6",
    ]);
    let mut session = cluster.session();
    for catch_up in ["none", "one", "all"] {
        schedule(
            &mut session,
            catch_up,
            "every 1 second",
            &format!(", catch_up => '{catch_up}'"),
        );
    }
    schedule(
        &mut session,
        "disabled",
        "every 1 second",
        ", catch_up => 'all', enabled => false",
    );
    session.wait_until("(SELECT count(*) = 3 FROM background.schedules WHERE runs_total >= 2)");
    let mut session = down(&cluster, 5);
    session.exec("SELECT background.alter_schedule('disabled', enabled => true)");
    session.wait_until("(SELECT count(*) = 4 FROM background.schedules WHERE runs_total >= 4)");
    for name in ["none", "one", "all", "disabled"] {
        session.exec(&format!("SELECT background.alter_schedule('{name}', enabled => false)"));
    }
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state <> 'done')");
    let missed = |session: &mut Session, name: &str| of(session, name, "missed_total");
    let none = missed(&mut session, "none");
    assert!((4..=8).contains(&none), "{none} missed");
    assert!((none - 3..=none).contains(&missed(&mut session, "one")));
    assert_eq!(missed(&mut session, "all"), 0);
    assert_eq!(missed(&mut session, "disabled"), 0);
    // Each occurrence has become one task or was counted.
    for name in ["none", "one", "all"] {
        assert!(
            session.holds(&format!(
                "(SELECT count(*) = count(DISTINCT run_at) AND count(*) = (SELECT runs_total FROM background.schedules WHERE name = '{name}') \
                  AND round(extract(epoch FROM max(run_at) - min(run_at)) + 1) \
                      = (SELECT runs_total + skipped_total + missed_total FROM background.schedules WHERE name = '{name}') \
                  FROM background.tasks WHERE schedule = '{name}')"
            )),
            "{name}: {:?}",
            session.rows(&format!(
                "SELECT runs_total, skipped_total, missed_total, (SELECT array_agg(run_at) FROM background.tasks WHERE schedule = name) FROM background.schedules WHERE name = '{name}'"
            ))
        );
    }
    // Those that were made up for one after the other.
    assert!(session.holds(
        "NOT EXISTS (SELECT FROM background.runs AS a JOIN background.runs AS b ON b.task_id > a.task_id AND b.started_at < a.finished_at \
          WHERE a.schedule = 'all' AND b.schedule = 'all')"
    ));
}

#[test]
fn what_was_missed_while_tasks_did_not_run() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    schedule(&mut session, "s", "every 1 second", ", catch_up => 'none'");
    session.wait_until("(SELECT runs_total >= 1 FROM background.schedules)");
    session.exec("ALTER DATABASE postgres SET pg_background.tasks = off");
    let mut other = cluster.session();
    assert!(other.holds("NOT enabled FROM background.status()"));
    // The keeper that stays sees it when it goes.
    other.wait_until("(SELECT next_at < now() - interval '3 s' FROM background.schedules)");
    let runs = of(&mut session, "s", "runs_total");
    session.exec("ALTER DATABASE postgres RESET pg_background.tasks");
    cluster.session().exec("SELECT background.status()");
    session.wait_until(&format!("(SELECT runs_total > {runs} FROM background.schedules)"));
    assert!(of(&mut session, "s", "missed_total") >= 2);
}

/// However processes and the server end, and whatever sessions do meanwhile, each occurrence becomes one task.
#[test]
fn exactly_once_in_a_storm() {
    let cluster = cluster(&["restart_after_crash = on", "pg_background.max_task_workers = 5"]);
    cluster.expect_crash();
    let mut random = Random::new(11);
    let mut session = cluster.session();
    for name in ["a", "b", "c"] {
        schedule(
            &mut session,
            name,
            "every 1 second",
            ", overlap => 'allow', catch_up => 'all', max_attempts => 1000, retry_delay => '1 ms'",
        );
    }
    drop(session);
    let connect = || {
        loop {
            match cluster.try_session_in("postgres", "postgres") {
                Ok(session) => break session,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        }
    };
    for round in 0..12 {
        let (mut session, mut other) = (connect(), connect());
        let _ = session.try_rows("SELECT background.status()");
        for n in 0..6 {
            // None of this changes the times.
            let _ = session.try_rows(&format!("SELECT background.alter_schedule('a', priority => {n})"));
            let _ = other.try_rows(&format!(
                "SELECT background.schedule('b', 'every 1 second', 'INSERT INTO done VALUES (''b'')', priority => {n}, overlap => 'allow', catch_up => 'all', \
                  max_attempts => 1000, retry_delay => '1 ms')"
            ));
            let _ = session.try_rows("SELECT background.schedule('d', 'every 1 second', 'SELECT 1')");
            let _ = other.try_rows("SELECT background.unschedule('d')");
            let _ = session.try_rows(&format!("SELECT pg_sleep({} / 1000.0)", random.below(300)));
            let _ = session.try_rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'pg_background%' ORDER BY random() LIMIT 1",
            );
        }
        let workers = cluster.worker_processes();
        match round % 4 {
            1 => {
                if let Some(pid) = workers.get(random.below(workers.len().max(1) as u64) as usize) {
                    cluster.try_signal(*pid, "KILL");
                    for _ in 0..100 {
                        if session.try_rows("SELECT pg_sleep(0.005)").is_err() {
                            break;
                        }
                    }
                }
            }
            3 => {
                drop(session);
                drop(other);
                cluster.stop(Shutdown::Immediate);
                cluster.restart();
            }
            _ => {
                for pid in workers {
                    let _ = session.try_rows(&format!("SELECT pg_terminate_backend({pid})"));
                }
            }
        }
    }
    let mut session = connect();
    session.exec("SELECT background.status()");
    session.wait_until(
        "(SELECT bool_and(next_at > now() - interval '0.5 s') FROM background.schedules WHERE name IN ('a', 'b', 'c'))",
    );
    session.exec("SELECT background.unschedule(name) FROM background.schedules WHERE name = 'd'");
    fire_no_more(&mut session);
    for name in ["a", "b", "c"] {
        assert_eq!(
            session.value::<String>(&format!(
                "SELECT concat_ws(' ', runs_total, missed_total + skipped_total, (SELECT count(*) FROM background.tasks WHERE schedule = '{name}'), \
                     (SELECT count(*) FROM done WHERE name = '{name}')) FROM background.schedules WHERE name = '{name}'"
            )),
            session.value::<String>(&format!(
                "SELECT concat_ws(' ', count, 0, count, count) FROM occurrences WHERE name = '{name}'"
            )),
            "{name}"
        );
    }
    assert!(session.holds("(SELECT count(*) = count(DISTINCT task) FROM done)"));
}

/// A clock that is new knows nothing of the keeper that the one before has ordered, which stays.
#[test]
fn two_keepers_at_once() {
    let cluster = cluster(&["pg_background.max_task_workers = 4"]);
    let mut session = cluster.session();
    session.exec("CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice; SET ROLE alice");
    for n in 0..20 {
        schedule(
            &mut session,
            &format!("s{n}"),
            "every 1 second",
            ", overlap => 'allow', catch_up => 'all'",
        );
    }
    session.exec("RESET ROLE");
    let (mut most, mut rounds) = (0, 0);
    while rounds < 100 || most < 2 {
        rounds += 1;
        assert!(rounds < 1000, "there was one keeper at a time");
        // The clock has no database, so it is not shown there. A worker that has just started is not, either.
        let shown = session.rows("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_background%'");
        let shown: Vec<_> = shown.into_iter().map(|row| row[0].clone()).collect();
        for pid in cluster.worker_processes() {
            if !shown.contains(&Some(pid.to_string())) {
                cluster.try_signal(pid, "TERM");
            }
        }
        session.exec("SELECT pg_sleep(0.08)");
        most = most.max(session.value(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_background%' AND usename = 'postgres' AND application_name <> 'pg_background:idle'",
        ));
    }
    fire_no_more(&mut session);
    let expected: i64 = session.value("SELECT sum(count) FROM occurrences");
    assert!(session.holds("(SELECT count(*) = count(DISTINCT (schedule, run_at)) FROM background.tasks)"));
    assert_eq!(session.value::<i64>("SELECT count(*) FROM background.tasks"), expected);
    assert_eq!(session.value::<i64>("SELECT count(*) FROM done"), expected);
    assert_eq!(
        session.value::<i64>("SELECT sum(runs_total) FROM background.schedules"),
        expected
    );
}

#[test]
fn a_thousand_in_one_second() {
    let cluster = cluster(&["pg_background.max_task_workers = 4"]);
    let mut session = cluster.session();
    session.exec("CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice");
    session.exec(
        "SELECT background.schedule('s' || n, 'at ' || at + n * interval '1 ms', 'SELECT 1') FROM (SELECT clock_timestamp() + interval '8 s') AS _ (at), generate_series(0, 999) AS n",
    );
    session.wait_until("EXISTS (SELECT FROM background.tasks)");
    // Others are not put off until all are through.
    let mut alice = cluster.session_as("alice");
    let task = alice.enqueue("'SELECT 1'");
    assert_eq!(alice.wait_task(task), "done");
    session.wait_until("(SELECT count(*) = 1000 FROM background.runs WHERE schedule IS NOT NULL)");
    assert!(session.holds("(SELECT sum(runs_total) = 1000 AND count(next_at) = 0 FROM background.schedules)"));
    // Oldest first.
    assert!(session.holds(
        "(SELECT array_agg(schedule ORDER BY id) = array_agg(schedule ORDER BY run_at) FROM background.tasks WHERE schedule IS NOT NULL)"
    ));
    let late: f64 = session
        .value("SELECT max(extract(epoch FROM started_at - run_at)) FROM background.tasks WHERE schedule IS NOT NULL");
    assert!(late < 10.0, "{late} s late");
}

#[test]
fn many_that_are_not_due_cost_nothing() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    schedule(&mut session, "model", "every 1000 days", "");
    schedule(&mut session, "s", "every 1 second", "");
    session.exec(
        "INSERT INTO background.schedule SELECT (r).* FROM (SELECT jsonb_populate_record(s, jsonb_build_object('id', 1000 + n, 'name', 'n' || n)) AS r \
           FROM background.schedule AS s, generate_series(1, 100000) AS n WHERE name = 'model') AS _;
         INSERT INTO background.firing (schedule, home, occurs_at, next_at) SELECT 1000 + n, home, occurs_at, next_at FROM background.firing, generate_series(1, 100000) AS n \
           WHERE schedule = (SELECT id FROM background.schedule WHERE name = 'model');
         ANALYZE",
    );
    session.exec("DELETE FROM done");
    session.wait_until("(SELECT count(*) >= 5 FROM done)");
    let late: f64 = session.value(
        "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - run_at)) FROM (SELECT * FROM background.tasks WHERE schedule = 's' AND state = 'done' ORDER BY id DESC LIMIT 5) AS _",
    );
    assert!(late < 0.5, "{late} s late");
    assert_eq!(
        session.value::<i64>("SELECT count(*) FROM background.schedules"),
        100_002
    );
    session.exec("SELECT background.unschedule('s')");
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state <> 'done')");
    session.wait_until(
        "(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'pg_background%' AND datname IS NOT NULL)",
    );
}

#[test]
fn one_that_is_wrong_fails_alone() {
    let cluster = cluster(&["shared_preload_libraries = 'pg_background'"]);
    let mut session = cluster.session();
    session.exec("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT pgbackground_role TO alice, bob");
    for role in ["alice", "bob"] {
        session.exec(&format!("SET ROLE {role}"));
        schedule(&mut session, role, "every 1 second", "");
    }
    session.exec("RESET ROLE");
    for name in ["zone", "spec", "good"] {
        schedule(&mut session, name, "every 1 second", "");
    }
    session.wait_until("(SELECT count(*) = 5 FROM background.schedules WHERE runs_total > 0)");
    session.exec("REVOKE pgbackground_role FROM alice; DROP ROLE alice");
    session.exec("UPDATE background.schedule SET time_zone = 'No/Where' WHERE name = 'zone'");
    session.exec("UPDATE background.schedule SET spec = 'now and then' WHERE name = 'spec'");
    session.wait_until("(SELECT count(*) = 3 FROM background.schedules WHERE next_at IS NULL AND error IS NOT NULL)");
    assert_eq!(
        session.value::<String>("SELECT error FROM background.schedules WHERE name = 'alice'"),
        "role \"alice\" does not exist"
    );
    // The occurrence that could not be enqueued is a failure. So is a task of the role that had not run yet.
    assert!(session.holds(
        "(SELECT bool_and(failures_total = 1 OR name = 'alice' AND failures_total = 2) FROM background.schedules WHERE error IS NOT NULL)"
    ));
    assert!(session.holds("(SELECT error LIKE '%No/Where%' FROM background.schedules WHERE name = 'zone')"));
    assert!(session.holds("(SELECT error LIKE 'invalid schedule%' FROM background.schedules WHERE name = 'spec')"));
    for name in ["good", "bob"] {
        let runs = of(&mut session, name, "runs_total");
        session.wait_until(&format!(
            "(SELECT runs_total > {runs} + 1 AND error IS NULL FROM background.schedules WHERE name = '{name}')"
        ));
    }
    // Who comes to know better goes on.
    session.exec("SELECT background.alter_schedule('zone', time_zone => 'UTC')");
    session.exec("SELECT background.alter_schedule('alice', enabled => false)");
    assert!(session.holds("(SELECT error IS NULL AND next_at IS NULL FROM background.schedules WHERE name = 'alice')"));
    assert_eq!(
        session.error("SELECT background.run_schedule('alice')").sqlstate,
        "42704"
    );
    assert!(session.holds("background.unschedule('alice')"));
    session.wait_until(
        "(SELECT error IS NULL AND next_at > now() - interval '1 s' FROM background.schedules WHERE name = 'zone')",
    );
    // A new server may know a zone that the old one did not.
    session.exec("UPDATE background.schedule SET spec = 'every 1 second' WHERE name = 'spec'");
    let runs = of(&mut session, "spec", "runs_total");
    cluster.stop(Shutdown::Fast);
    cluster.restart();
    let mut session = cluster.session();
    session.wait_until(&format!(
        "(SELECT runs_total > {runs} AND error IS NULL FROM background.schedules WHERE name = 'spec')"
    ));
}

#[test]
fn a_lost_right_is_an_error_of_each_occurrence() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice; SELECT background.set_queue('q')");
    session.exec("SET ROLE alice");
    schedule(&mut session, "s", "every 1 second", ", queue => 'q'");
    session.exec("RESET ROLE");
    session.wait_until("(SELECT runs_total > 0 FROM background.schedules)");
    session.exec("SELECT background.set_queue('q', roles => '{pg_monitor}')");
    session.wait_until("(SELECT failures_total > 1 AND last_state = 'failed' AND error LIKE 'permission denied%' FROM background.schedules)");
    session.exec("SELECT background.set_queue('q', roles => '{}')");
    let runs = of(&mut session, "s", "runs_total");
    session.wait_until(&format!(
        "(SELECT runs_total > {runs} AND error IS NULL FROM background.schedules)"
    ));
}

#[test]
fn how_tasks_of_schedules_end() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "SELECT background.set_queue('full', max_running => 0, max_waiting => 1); SELECT background.set_queue('none', keep_done => '0');
         SELECT background.schedule('fails', 'every 1 second', 'SELECT 1 / 0');
         SELECT background.schedule('full', 'every 1 second', 'SELECT 1', queue => 'full', overlap => 'allow');
         SELECT background.schedule('expires', 'every 1 second', 'SELECT 1', queue => 'full', overlap => 'allow', expires_after => '0.2 s');
         SELECT background.schedule('kept', 'every 1 second', 'SELECT pg_sleep(0.01)', queue => 'none')",
    );
    session.wait_until("(SELECT failures_total >= 2 AND last_state = 'failed' AND last_duration > '0' FROM background.schedules WHERE name = 'fails')");
    session.wait_until("(SELECT skipped_total >= 2 FROM background.schedules WHERE name = 'full')");
    session.wait_until("(SELECT runs_total + skipped_total >= 4 FROM background.schedules WHERE name = 'expires')");
    // The history keeps nothing of it.
    session.wait_until("(SELECT runs_total >= 2 AND last_state = 'done' AND last_duration >= '10 ms' FROM background.schedules WHERE name = 'kept')");
    assert!(session.holds("NOT EXISTS (SELECT FROM background.runs WHERE schedule = 'kept')"));
    session.exec("SELECT background.alter_schedule(name, enabled => false) FROM background.schedules");
    session.wait_until("(SELECT failures_total = runs_total FROM background.schedules WHERE name = 'fails')");
    assert!(session.holds(
        "(SELECT count(*) = (SELECT failures_total FROM background.schedules WHERE name = 'fails') FROM background.runs WHERE schedule = 'fails' AND sqlstate = '22012')"
    ));
    // One of the role's own that expires.
    session.exec("SELECT background.cancel(id) FROM background.tasks WHERE state = 'waiting'");
    let task: i64 = session.value("SELECT background.run_schedule('expires')");
    assert_eq!(session.wait_task(task), "expired");
    session.wait_until(
        "(SELECT failures_total >= 1 AND last_state = 'expired' FROM background.schedules WHERE name = 'expires')",
    );
}

#[test]
fn later_by_a_random_part() {
    let cluster = cluster(&["pg_background.max_task_workers = 4"]);
    let mut session = cluster.session();
    session.exec(
        "SELECT background.schedule('s' || n, 'at ' || at, 'SELECT 1', jitter => '3 s') FROM (SELECT clock_timestamp() + interval '2 s') AS _ (at), generate_series(1, 30) AS n",
    );
    assert!(session.holds(
        "(SELECT count(DISTINCT next_at) > 20 AND min(next_at) >= min(occurs_at) AND max(next_at) <= max(occurs_at) + interval '3 s' AND count(DISTINCT occurs_at) = 1 FROM background.firing)"
    ));
    schedule(
        &mut session,
        "often",
        "every 1 second",
        ", jitter => '3 s', overlap => 'allow'",
    );
    session.wait_until("(SELECT count(*) >= 5 FROM done)");
    session.wait_until("(SELECT count(*) = 30 FROM background.runs WHERE schedule <> 'often')");
    // Each occurrence, in order, and none before its time.
    assert!(session.holds(
        "(SELECT count(*) = round(extract(epoch FROM max(run_at) - min(run_at)) + 1) AND min(enqueued_at - run_at) >= '0' \
            AND array_agg(id ORDER BY id) = array_agg(id ORDER BY run_at) FROM background.tasks WHERE schedule = 'often')"
    ));
}

#[test]
fn two_phases_and_long_transactions() {
    let cluster = cluster(&["max_prepared_transactions = 5"]);
    let mut session = cluster.session();
    session.exec("BEGIN");
    schedule(&mut session, "prepared", "every 1 second", "");
    session.exec("PREPARE TRANSACTION 'p'");
    session.exec("COMMIT PREPARED 'p'");
    session.wait_until("EXISTS (SELECT FROM done WHERE name = 'prepared')");
    // Who has a schedule in an open transaction holds up that one only, and what it says counts from the commit on.
    let mut holder = cluster.session();
    holder.exec("BEGIN; SELECT background.alter_schedule('prepared', spec => 'every 1000 days')");
    schedule(&mut session, "s", "every 1 second", "");
    session.wait_until("(SELECT count(*) >= 3 FROM done WHERE name = 's')");
    holder.exec("ROLLBACK");
    session.exec("DELETE FROM done");
    session.wait_until("(SELECT count(*) >= 2 FROM done WHERE name = 'prepared')");
    holder.exec("BEGIN; SELECT background.unschedule('prepared'); COMMIT");
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state <> 'done')");
    session.exec("DELETE FROM done");
    session.wait_until("(SELECT count(*) >= 2 FROM done WHERE name = 's')");
    assert!(session.holds("NOT EXISTS (SELECT FROM done WHERE name = 'prepared')"));
}

#[test]
fn a_restored_database_is_quiet_until_it_is_activated() {
    let cluster = cluster(&["shared_preload_libraries = 'pg_background'"]);
    let mut session = cluster.session();
    session.exec("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT pgbackground_role TO alice, bob; GRANT ALL ON SCHEMA public TO alice, bob");
    for role in ["alice", "bob"] {
        session.exec(&format!("SET ROLE {role}"));
        schedule(&mut session, role, "every 1 second", "");
    }
    session.exec("RESET ROLE");
    session.wait_until("(SELECT bool_and(runs_total > 0) FROM background.schedules)");
    let dump = cluster.data().join("dump");
    let program = |name: &str, arguments: &[&str]| {
        run(server_program(name)
            .args(["-U", "postgres", "-h"])
            .arg(cluster.socket_dir())
            .args(arguments));
    };
    program("pg_dump", &["-Fc", "-f", dump.to_str().unwrap(), "postgres"]);
    session.exec("SELECT background.unschedule(name) FROM background.schedules");
    session.exec("REVOKE ALL ON SCHEMA public FROM bob; REVOKE ALL ON done FROM bob; DROP OWNED BY bob; DROP ROLE bob; ALTER ROLE alice RENAME TO alicia; CREATE ROLE alice LOGIN; GRANT pgbackground_role TO alice");
    session.exec("CREATE DATABASE restored");
    let _ = server_program("pg_restore")
        .args(["-U", "postgres", "-h"])
        .arg(cluster.socket_dir())
        .args(["-d", "restored"])
        .arg(&dump)
        .stderr(Stdio::null())
        .status();
    let mut copy = cluster.session_in("restored", "postgres");
    assert!(copy.holds("NOT enabled FROM background.status()"));
    let runs: i64 = copy.value("SELECT sum(runs_total) FROM background.schedules");
    assert!(runs > 0);
    assert!(copy.holds("(SELECT array_agg(owner ORDER BY name) = '{alice,bob}' FROM background.schedules)"));
    schedule(&mut copy, "new", "every 1 second", "");
    copy.exec("SELECT pg_sleep(2)");
    assert_eq!(
        copy.value::<i64>("SELECT sum(runs_total) FROM background.schedules"),
        runs
    );
    copy.exec("SELECT background.activate()");
    copy.wait_until(&format!(
        "(SELECT sum(runs_total) > {runs} + 4 FROM background.schedules WHERE name IN ('alice', 'new'))"
    ));
    // The role of that name here; the one that is missing holds up nothing.
    copy.wait_until("(SELECT error = 'role \"bob\" does not exist' FROM background.schedules WHERE name = 'bob')");
    assert!(copy.holds("(SELECT bool_and(owner IN ('alice', 'postgres')) FROM background.tasks WHERE state = 'done' AND enqueued_at > now() - interval '1 s')"));
    assert!(
        copy.holds(
            "(SELECT max(id) < background.schedule('last', 'every 1 day', 'SELECT 1') FROM background.schedules)"
        )
    );
}

#[test]
fn a_schedule_that_fires_often_leaves_nothing_behind() {
    let cluster = cluster(&["autovacuum = off"]);
    let mut session = cluster.session();
    for n in 0..40 {
        schedule(&mut session, &format!("s{n}"), "every 1 second", "");
    }
    // What is left between two vacuums is used again.
    let relations = ["firing", "firing_next_at", "firing_pkey", "schedule", "task"];
    let mut pages = Vec::new();
    for round in 1..=4 {
        session.wait_until(&format!(
            "(SELECT sum(runs_total) >= {round} * 250 FROM background.schedules)"
        ));
        for table in ["firing", "schedule", "task"] {
            session.exec(&format!("VACUUM background.{table}"));
        }
        pages.push(
            relations.map(|relation| {
                session.value::<i64>(&format!("SELECT pg_relation_size('background.{relation}') / 8192"))
            }),
        );
    }
    for (n, relation) in relations.iter().enumerate() {
        let (first, last) = (pages[0][n], pages[3][n]);
        assert!(last <= 2 * first + 20, "{relation}: {pages:?}");
    }
}

/// A library for the server that moves its clock by what a file says, in seconds.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long offset(void) {
    long seconds = 0;
    FILE *file = fopen(getenv("CLOCK_OFFSET"), "r");
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec real;
    int (*next)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    next(CLOCK_REALTIME, &real);
    now->tv_sec = real.tv_sec + offset();
    now->tv_usec = real.tv_nsec / 1000;
    return 0;
}
"#;

struct Clock {
    offset: PathBuf,
}

impl Clock {
    fn new(cluster: &Cluster) -> Self {
        let dir = cluster.socket_dir();
        let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
        std::fs::write(&source, CLOCK).unwrap();
        run(Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(&source)
            .arg("-ldl"));
        let clock = Self {
            offset: dir.join("offset"),
        };
        clock.set(0);
        cluster.stop(Shutdown::Fast);
        cluster.restart_with(&[("LD_PRELOAD", &library), ("CLOCK_OFFSET", &clock.offset)]);
        clock
    }

    fn set(&self, seconds: i64) {
        let new = self.offset.with_extension("new");
        std::fs::write(&new, seconds.to_string()).unwrap();
        give_to_server(&new);
        std::fs::rename(&new, &self.offset).unwrap();
    }
}

#[test]
fn a_clock_that_jumps() {
    let cluster = cluster(&["shared_preload_libraries = 'pg_background'"]);
    let clock = Clock::new(&cluster);
    let mut session = cluster.session();
    for catch_up in ["none", "one", "all"] {
        schedule(
            &mut session,
            catch_up,
            "every 1 second",
            &format!(", catch_up => '{catch_up}', overlap => 'allow'"),
        );
    }
    session.wait_until("(SELECT bool_and(runs_total >= 2) FROM background.schedules)");
    // An hour forward: the hour was missed.
    clock.set(3600);
    session.wait_until(
        "(SELECT missed_total >= 3595 AND missed_total < 3610 FROM background.schedules WHERE name = 'none')",
    );
    session.wait_until(
        "(SELECT missed_total >= 3594 AND missed_total < 3609 FROM background.schedules WHERE name = 'one')",
    );
    session.wait_until("(SELECT missed_total >= 2595 AND missed_total < 2610 AND runs_total >= 1000 FROM background.schedules WHERE name = 'all')");
    let runs = of(&mut session, "none", "runs_total");
    assert!(runs < 100, "{runs} runs");
    session.wait_until(&format!(
        "(SELECT runs_total > {runs} + 1 FROM background.schedules WHERE name = 'none')"
    ));
    session.wait_until("(SELECT count(*) = 0 FROM background.tasks WHERE state <> 'done' AND schedule = 'all')");
    // Half a minute back: nothing is done twice, and when the clock is there again, it goes on.
    let next: String = session.value("SELECT next_at FROM background.schedules WHERE name = 'none'");
    clock.set(3600 - 10);
    session.exec("SELECT pg_sleep(2)");
    schedule(&mut session, "new", "every 1 second", ", catch_up => 'none'");
    session.wait_until("(SELECT count(*) >= 2 FROM done WHERE name = 'new')");
    assert_eq!(of(&mut session, "new", "missed_total"), 0);
    assert!(session.holds(&format!(
        "(SELECT next_at < timestamptz '{next}' + interval '2 s' FROM background.schedules WHERE name = 'none')"
    )));
    session.wait_until(&format!(
        "(SELECT next_at > timestamptz '{next}' + interval '3 s' FROM background.schedules WHERE name = 'none')"
    ));
    assert!(session.holds("(SELECT count(*) = count(DISTINCT (schedule, run_at)) FROM background.tasks)"));
}

/// The keeper that stays is not in the way.
#[test]
fn a_database_can_be_copied_and_dropped() {
    let cluster = cluster(&["shared_preload_libraries = 'pg_background'"]);
    let mut session = cluster.session();
    session.exec("CREATE DATABASE other");
    let mut other = cluster.session_in("other", "postgres");
    other.exec("CREATE EXTENSION pg_background_tasks CASCADE; CREATE TABLE done (name text)");
    schedule(&mut other, "s", "every 1 second", "");
    other.wait_until("(SELECT runs_total >= 2 FROM background.schedules)");
    drop(other);
    session.wait_until(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'other' AND backend_type = 'client backend')",
    );
    session.exec("CREATE DATABASE copy TEMPLATE other");
    let mut copy = cluster.session_in("copy", "postgres");
    assert!(copy.holds("NOT enabled FROM background.status()"));
    let runs = of(&mut copy, "s", "runs_total");
    let mut other = cluster.session_in("other", "postgres");
    other.wait_until(&format!("(SELECT runs_total >= {runs} + 2 FROM background.schedules)"));
    assert_eq!(of(&mut copy, "s", "runs_total"), runs);
    // Nor does DROP EXTENSION wait, and a new one knows nothing of the old one.
    other.exec("SET lock_timeout = '5 s'; DROP EXTENSION pg_background_tasks; CREATE EXTENSION pg_background_tasks; DELETE FROM done");
    schedule(&mut other, "t", "every 1 second", "");
    other.wait_until("(SELECT count(*) >= 2 FROM done)");
    assert!(other.holds("(SELECT bool_and(name = 't') FROM done)"));
    drop(other);
    session.wait_until(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'other' AND backend_type = 'client backend')",
    );
    session.exec("DROP DATABASE other");
}

/// Which of two servers fires is decided by the promotion.
#[test]
fn a_promoted_standby_goes_on() {
    let primary = cluster(&[
        "shared_preload_libraries = 'pg_background'",
        "wal_level = replica",
        "max_wal_senders = 3",
    ]);
    let mut session = primary.session();
    schedule(
        &mut session,
        "s",
        "every 1 second",
        ", catch_up => 'all', overlap => 'allow'",
    );
    let standby = Cluster::standby_of(&primary, &["shared_preload_libraries = 'pg_background'"]);
    session.wait_until("(SELECT runs_total >= 3 FROM background.schedules)");
    primary.stop(Shutdown::Immediate);
    let mut session = standby.session();
    for call in [
        "run_schedule('s')",
        "activate()",
        "enqueue('SELECT 1')",
        "retry(1)",
        "set_queue('q')",
        "schedule('t', '@daily', 'SELECT 1')",
        "alter_schedule('s', enabled => false)",
        "unschedule('s')",
        "parallel_execute('SELECT $1, $2', 'done')",
    ] {
        let error = session.error(&format!("SELECT background.{call}"));
        assert_eq!(error.sqlstate, "25006", "{call}: {}", error.message);
    }
    session.exec("SELECT background.status(), background.wait(1, 1)");
    // A clock that was started now would sleep through the promotion.
    assert!(session.holds("NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type LIKE 'pg_background%')"));
    assert_eq!(standby.worker_processes(), []);
    let runs = of(&mut session, "s", "runs_total");
    session.exec("SELECT pg_promote()");
    let promoted = std::time::Instant::now();
    session.wait_until(&format!("(SELECT runs_total > {runs} + 2 FROM background.schedules)"));
    assert!(promoted.elapsed().as_secs() < 10, "{:?}", promoted.elapsed());
    session.exec("SELECT background.alter_schedule('s', enabled => false)");
    session.wait_until("NOT EXISTS (SELECT FROM background.tasks WHERE state <> 'done')");
    assert!(session.holds(
        "(SELECT count(*) = count(DISTINCT run_at) AND count(*) = round(extract(epoch FROM max(run_at) - min(run_at)) + 1) \
            AND count(*) = (SELECT count(*) FROM done) FROM background.tasks)"
    ));
}
