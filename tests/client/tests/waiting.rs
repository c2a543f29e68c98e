//! Waits end at once, obey their time limits and can be interrupted.

use std::time::{Duration, Instant};

use harness::{Cluster, Handle, process_status};

const GATED: &str = "SELECT pg_advisory_xact_lock_shared(1)";

/// The ways to wait for a job that is `{job}`.
const WAITS: [&str; 4] = [
    "SELECT pg_background_wait({job})",
    "SELECT pg_background_wait({job}, 3600000)",
    "SELECT pg_background_wait_any(ARRAY[ROW({job})::pg_background_handle])",
    "SELECT * FROM pg_background_drain(ARRAY[ROW({job})::pg_background_handle], 3600000)",
];

#[test]
fn wakes_at_the_end_and_not_before() {
    let cluster = Cluster::start(&["deadlock_timeout = 10s"]);
    let mut session = cluster.session();
    let mut gate = cluster.session();
    for wait in WAITS {
        let mut delays = Vec::new();
        for round in 0..11 {
            gate.exec("SELECT pg_advisory_lock(1)");
            let job = session.launch(GATED);
            gate.wait_blocked(job.pid);
            let waiting = session.start(&wait.replace("{job}", &job.to_string()));
            gate.wait_until(&format!(
                "wait_event_type IS NOT NULL AND wait_event_type <> 'Client' AND state = 'active' FROM pg_stat_activity WHERE pid = {}",
                waiting.pid
            ));
            if round == 0 {
                // A wait that polls would be seen to wake up.
                let before = process_status(waiting.pid, "voluntary_ctxt_switches");
                std::thread::sleep(Duration::from_secs(1));
                let switches = process_status(waiting.pid, "voluntary_ctxt_switches") - before;
                assert!(switches <= 5, "{wait} woke up {switches} times in a second");
            }
            let released = Instant::now();
            gate.exec("SELECT pg_advisory_unlock(1)");
            let (back, result) = waiting.join();
            delays.push(released.elapsed());
            assert!(result.is_ok(), "{result:?}");
            session = back;
            session.exec("SELECT pg_background_detach_all()");
        }
        delays.sort();
        assert!(
            delays[5] < Duration::from_millis(50),
            "{wait} took {:?} to see the end",
            delays[5]
        );
    }
}

#[test]
fn ended_means_visible() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE effects (n int)");
    for n in 0..100 {
        let job = session.launch(&format!("INSERT INTO effects VALUES ({n})"));
        session.wait(job);
        assert!(
            session.holds(&format!("EXISTS (SELECT FROM effects WHERE n = {n})")),
            "job {n} has not committed"
        );
        session.exec("SELECT pg_background_purge()");
    }
}

#[test]
fn time_limits_are_kept() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    let jobs: Vec<Handle> = (0..3).map(|_| session.launch("SELECT pg_sleep(3600)")).collect();
    let handles = Handle::array(&jobs);
    let mut timed = |sql: &str| {
        let started = Instant::now();
        let rows = session.rows(sql);
        (rows, started.elapsed())
    };
    let limit = Duration::from_millis(300)..Duration::from_secs(10);

    let (rows, took) = timed(&format!("SELECT pg_background_wait({}, 300)", jobs[0]));
    assert_eq!(rows[0][0].as_deref(), Some("f"));
    assert!(limit.contains(&took), "{took:?}");
    let (rows, took) = timed(&format!("SELECT pg_background_wait_any({handles}, 300) IS NULL"));
    assert_eq!(rows[0][0].as_deref(), Some("t"));
    assert!(limit.contains(&took), "{took:?}");
    // One time limit for all of them.
    let (rows, took) = timed(&format!(
        "SELECT pid, completed, state FROM pg_background_drain({handles}, 2000)"
    ));
    let pids: Vec<_> = rows.iter().map(|row| row[0].clone().unwrap()).collect();
    assert_eq!(
        pids,
        jobs.iter().map(|job| job.pid.to_string()).collect::<Vec<_>>(),
        "in the order of the handles"
    );
    assert!(
        rows.iter()
            .all(|row| row[1].as_deref() == Some("f") && row[2].as_deref() == Some("running")),
        "{rows:?}"
    );
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(4)).contains(&took),
        "{took:?}"
    );
    assert_eq!(
        session.value::<i32>("SELECT count(*) FROM pg_background_list"),
        3,
        "jobs that run on keep their handles"
    );
}

#[test]
fn first_to_end() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    let mut gate = cluster.session();
    gate.exec("SELECT pg_advisory_lock(2)");
    let slow = session.launch("SELECT pg_sleep(3600)");
    let quick = session.launch("SELECT pg_advisory_xact_lock(2)");
    gate.wait_blocked(quick.pid);
    let waiting = session.start(&format!(
        "SELECT pid, cookie FROM pg_background_wait_any({})",
        Handle::array(&[slow, quick])
    ));
    gate.wait_until(&format!(
        "state = 'active' FROM pg_stat_activity WHERE pid = {}",
        waiting.pid
    ));
    gate.exec("SELECT pg_advisory_unlock(2)");
    let (mut session, rows) = waiting.join();
    let first = rows.unwrap();
    assert_eq!(first[0][0].as_deref(), Some(quick.pid.to_string().as_str()));
    // wait_any consumes nothing.
    assert_eq!(session.value::<i32>("SELECT count(*) FROM pg_background_list"), 2);

    // drain detaches the handles of ended jobs and no others.
    let states = session.rows(&format!(
        "SELECT state FROM pg_background_drain({}, 100)",
        Handle::array(&[slow, quick])
    ));
    assert_eq!(states, [[Some("running".to_owned())], [Some("stopped".to_owned())]]);
    assert_eq!(session.value::<i32>("SELECT pid FROM pg_background_list"), slow.pid);
}

#[test]
fn waiting_is_seen_by_others() {
    let cluster = Cluster::start(&[]);
    let session = cluster.session();
    let mut observer = cluster.session();
    let waiting = session.start("SELECT pg_background_run('SELECT pg_sleep(3600)')");
    observer.wait_until(&format!(
        "state = 'active' AND wait_event_type IS NOT NULL AND wait_event_type NOT IN ('Client', 'Activity') FROM pg_stat_activity WHERE pid = {}",
        waiting.pid
    ));
    waiting.cancel();
    assert_eq!(waiting.join().1.unwrap_err().sqlstate, "57014");
}

#[test]
fn statement_timeout_ends_a_wait() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec("SET statement_timeout = 0");
    let job = session.launch("SELECT pg_sleep(3600)");
    session.exec("SET statement_timeout = '200ms'");
    for wait in WAITS {
        assert_eq!(
            session.error(&wait.replace("{job}", &job.to_string())).sqlstate,
            "57014",
            "{wait}"
        );
    }
    session.exec("RESET statement_timeout");
    assert_eq!(session.state(job), "running");
}
