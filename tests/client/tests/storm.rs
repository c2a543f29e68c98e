//! Sessions that launch, cancel, read, wait and detach at random, with an administrator's signals in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use harness::{Cluster, Handle, Random, Session};

const SESSIONS: u64 = 8;
const JOBS: u64 = 300;

#[test]
fn eight_sessions_and_an_administrator() {
    let cluster = Arc::new(Cluster::start(&["max_worker_processes = 64", "max_connections = 100"]));
    let mut observer = cluster.session();
    observer.exec("CREATE TABLE storm (id bigint PRIMARY KEY)");
    let over = Arc::new(AtomicBool::new(false));

    let administrator = thread::spawn({
        let (cluster, over) = (Arc::clone(&cluster), Arc::clone(&over));
        move || administrate(&mut cluster.session(), &over)
    });
    let bystander = thread::spawn({
        let (cluster, over) = (Arc::clone(&cluster), Arc::clone(&over));
        move || stand_by(&mut cluster.session(), &over)
    });
    let sessions: Vec<_> = (1..=SESSIONS)
        .map(|number| {
            let cluster = Arc::clone(&cluster);
            thread::spawn(move || work(&mut cluster.session(), number))
        })
        .collect();
    let results: Vec<_> = sessions.into_iter().map(thread::JoinHandle::join).collect();
    over.store(true, Ordering::Relaxed);
    let signals = administrator.join().expect("the administrator is well");
    let statements = bystander.join().expect("no bystander is hurt");
    let reasons: u64 = results
        .into_iter()
        .map(|result| result.expect("every session is well"))
        .sum();

    assert!(
        signals > 0 && statements > 0,
        "the storm had no wind: {signals} signals, {statements} statements"
    );
    observer.wait_until(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_background' AND state = 'active')",
    );
    println!("{signals} signals, {statements} statements of a bystander, {reasons} refused launches");
    drop(observer);
    let cluster = Arc::into_inner(cluster).expect("all threads are done");
    assert!(!cluster.log().contains("terminating connection because of crash"));
}

/// Cancels and terminates busy workers. Returns the number of signals.
fn administrate(session: &mut Session, over: &AtomicBool) -> u64 {
    let mut random = Random::new(99);
    let mut signals = 0;
    while !over.load(Ordering::Relaxed) {
        let function = if random.below(3) == 0 {
            "pg_terminate_backend"
        } else {
            "pg_cancel_backend"
        };
        // A worker may have exited before its signal is sent: that returns false with a warning.
        signals += session.value::<u64>(&format!(
            "SELECT count(*) FILTER (WHERE {function}(pid)) FROM (SELECT pid FROM pg_stat_activity
             WHERE backend_type = 'pg_background' ORDER BY random() LIMIT 1) s"
        ));
        session.exec(&format!("SELECT pg_sleep({})", random.below(20) as f64 / 1000.0));
    }
    signals
}

/// Runs statements that have nothing to do with jobs. Returns how many.
fn stand_by(session: &mut Session, over: &AtomicBool) -> u64 {
    let mut statements = 0;
    while !over.load(Ordering::Relaxed) {
        assert_eq!(
            session.value::<i64>("SELECT sum(g) FROM generate_series(1, 1000) g"),
            500_500
        );
        statements += 1;
    }
    statements
}

struct Job {
    handle: Handle,
    id: u64,
}

/// Launches jobs and does something with each of them. Returns how many launches were refused.
fn work(session: &mut Session, number: u64) -> u64 {
    let mut random = Random::new(number);
    let mut pending: Vec<Job> = Vec::new();
    let (mut launched, mut refused) = (0, 0);
    while launched < JOBS {
        let id = number * 1_000_000 + launched;
        let sql = match random.below(5) {
            0 => format!(
                "INSERT INTO storm VALUES ({id}); SELECT pg_sleep({})",
                random.below(30) as f64 / 1000.0
            ),
            1 => format!("INSERT INTO storm VALUES ({id}); SELECT 1 / 0"),
            2 => format!("INSERT INTO storm VALUES ({id}); SELECT g, repeat('x', 500) FROM generate_series(1, 2000) g"),
            3 => format!("INSERT INTO storm VALUES ({id}); SELECT pg_sleep(3600)"),
            _ => format!("INSERT INTO storm VALUES ({id})"),
        };
        let endless = sql.contains("3600");
        match session.try_rows(&format!(
            "SELECT pid, cookie FROM pg_background_launch({})",
            harness::quoted(&sql)
        )) {
            Ok(rows) => {
                let field = |i: usize| rows[0][i].as_deref().unwrap();
                let handle = Handle {
                    pid: field(0).parse().unwrap(),
                    cookie: field(1).parse().unwrap(),
                };
                launched += 1;
                if endless || random.below(3) == 0 {
                    session.exec(&format!(
                        "SELECT pg_sleep({}), pg_background_cancel({handle})",
                        random.below(10) as f64 / 1000.0
                    ));
                }
                pending.push(Job { handle, id });
            }
            // All slots are taken, or the worker was terminated before it had the job.
            Err(error) => {
                assert!(
                    ["53000", "53400", "08006"].contains(&error.sqlstate.as_str()),
                    "{error:?}"
                );
                refused += 1;
                session.exec("SELECT pg_sleep(0.002)");
            }
        }
        while pending.len() > random.below(10) as usize {
            let job = pending.swap_remove(random.below(pending.len() as u64) as usize);
            finish(session, &mut random, &job);
        }
    }
    for job in pending {
        finish(session, &mut random, &job);
    }
    session.wait_until("(SELECT workers_active = 0 FROM pg_background_stats())");
    let counters = session.counters();
    // A launch whose worker was terminated meanwhile may or may not count as a job.
    assert!(
        counters.launched >= JOBS as i64 && counters.launched <= (JOBS + refused) as i64,
        "{counters:?}"
    );
    refused
}

fn finish(session: &mut Session, random: &mut Random, job: &Job) {
    let Job { handle, id } = job;
    match random.below(3) {
        0 => session.exec(&format!("SELECT pg_background_detach({handle})")),
        1 => {
            // Reading releases the handle in all cases: rows, a wrong row type and errors.
            let result = session.try_rows(&format!(
                "SELECT count(*) FROM pg_background_result({handle}) AS (x text)"
            ));
            if let Err(error) = result {
                assert!(
                    ["57014", "08006", "22012", "42804"].contains(&error.sqlstate.as_str()),
                    "{error:?}"
                );
            }
            let _ = session.try_rows(&format!("SELECT pg_background_detach({handle})"));
        }
        _ => {
            session.wait(*handle);
            let state = session.state(*handle);
            let effects: i32 = session.value(&format!("SELECT count(*) FROM storm WHERE id = {id}"));
            match state.as_str() {
                "stopped" => assert_eq!(effects, 1, "job {id} has succeeded"),
                "canceled" | "error" => assert_eq!(effects, 0, "job {id} is {state}"),
                other => panic!("job {id} has ended and is {other}"),
            }
            session.exec(&format!("SELECT pg_background_detach({handle})"));
        }
    }
}
