//! Cancels and time limits that come when a job is about to end and the same worker already has the next one.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use harness::{Cluster, Handle, KEPT, Random, Session, quoted};

const SESSIONS: u64 = 4;
const PAIRS: u64 = 600;

#[derive(Default, Debug)]
struct Seen {
    stopped: u64,
    canceled: u64,
    timed_out: u64,
    /// Innocent jobs that ran in the same worker after a victim.
    followed: u64,
    workers: HashSet<i32>,
}

#[test]
fn no_cancel_hits_the_next_job() {
    let cluster = Arc::new(Cluster::start(&[KEPT, "max_worker_processes = 64"]));
    cluster.session().exec("CREATE TABLE innocent (id bigint PRIMARY KEY)");
    let threads: Vec<_> = (1..=SESSIONS)
        .map(|number| {
            let cluster = Arc::clone(&cluster);
            thread::spawn(move || work(&mut cluster.session(), number))
        })
        .collect();
    let mut all = Seen::default();
    for thread in threads {
        let seen = thread.join().expect("every session is well");
        all.stopped += seen.stopped;
        all.canceled += seen.canceled;
        all.timed_out += seen.timed_out;
        all.followed += seen.followed;
        all.workers.extend(seen.workers);
    }
    println!("{all:?}");
    assert_eq!(
        cluster.session().value::<u64>("SELECT count(*) FROM innocent"),
        SESSIONS * PAIRS
    );
    assert!(
        all.stopped > 0 && all.canceled > 0 && all.timed_out > 0 && all.followed > PAIRS,
        "the storm had no wind: {all:?}"
    );
}

/// Launches a victim, ends it by one way or another at about the time of its own end, and launches an innocent job at once.
fn work(session: &mut Session, number: u64) -> Seen {
    let mut random = Random::new(number);
    let mut seen = Seen::default();
    for n in 0..PAIRS {
        let id = number * 1_000_000 + n;
        let limited = random.below(4) == 0;
        if limited {
            session.exec(&format!("SET pg_background.worker_timeout = {}", 1 + random.below(4)));
        }
        let victim = session.launch(&format!("SELECT pg_sleep({})", random.below(4000) as f64 / 1e6));
        if limited {
            session.exec("RESET pg_background.worker_timeout");
        } else {
            // The delay is in the server: only one statement lies between the cancel and the launch of the innocent job.
            let delay = random.below(4000) as f64 / 1e6;
            session.exec(&format!("SELECT pg_sleep({delay}), pg_background_cancel({victim})"));
        }
        if random.below(2) == 0 {
            session.wait(victim);
        }
        let innocent = launch_innocent(session, id);
        // A second cancel for the victim, which has ended or is about to.
        session.exec(&format!("SELECT pg_background_cancel({victim})"));
        session.wait(innocent);
        assert_eq!(
            session.state(innocent),
            "stopped",
            "job {id} was innocent: {}",
            session.sqlstate(innocent)
        );
        session.wait(victim);
        match session.state(victim).as_str() {
            "stopped" => seen.stopped += 1,
            "canceled" if limited => seen.timed_out += 1,
            "canceled" => seen.canceled += 1,
            other => panic!("the victim is {other}: {}", session.sqlstate(victim)),
        }
        seen.followed += u64::from(victim.pid == innocent.pid);
        seen.workers.extend([victim.pid, innocent.pid]);
        session.exec("SELECT pg_background_detach_all()");
    }
    let counters = session.counters();
    assert_eq!(counters.launched as u64, 2 * PAIRS);
    assert_eq!((counters.failed, counters.active), (0, 0), "{counters:?}");
    seen
}

fn launch_innocent(session: &mut Session, id: u64) -> Handle {
    session.launch(&format!(
        "INSERT INTO innocent VALUES ({id}); SELECT pg_sleep(0.002); SELECT count(*) FROM pg_class"
    ))
}

/// `run` cancels its job at the timeout; the next job is not affected.
#[test]
fn no_timeout_of_run_hits_the_next_job() {
    let cluster = Cluster::start(&[KEPT]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE innocent (id bigint PRIMARY KEY)");
    let mut random = Random::new(7);
    let (mut timed_out, mut in_time) = (0, 0);
    for id in 0..600 {
        let rows = session.rows(&format!(
            "SELECT timed_out FROM pg_background_run({}, timeout_ms => {});
             SELECT state, error_message FROM pg_background_run('INSERT INTO innocent VALUES ({id}); SELECT pg_sleep(0.002)')",
            quoted(&format!("SELECT pg_sleep({})", random.below(4000) as f64 / 1e6)),
            1 + random.below(3),
        ));
        match rows[0][0].as_deref() {
            Some("t") => timed_out += 1,
            _ => in_time += 1,
        }
        assert_eq!(rows[1], vec![Some("stopped".to_owned()), None], "job {id}");
    }
    assert!(timed_out > 0 && in_time > 0, "{timed_out} timed out, {in_time} in time");
    assert_eq!(session.value::<i32>("SELECT count(*) FROM innocent"), 600);
}

/// A worker that exits, for whatever reason, loses no job: its idle time ends at about the time of the next launch, its slot is needed, its
/// configuration, its role's settings or its database change.
#[test]
fn no_job_goes_with_a_worker_that_goes() {
    among_leaving_workers("max_worker_processes = 32");
}

/// The slots of exiting workers serve the new ones; each session has one at a time.
#[test]
fn no_slot_is_missing_while_workers_go() {
    // Three slots for jobs: one more is that of logical replication.
    among_leaving_workers("max_worker_processes = 4");
}

fn among_leaving_workers(slots: &str) {
    let cluster = Arc::new(Cluster::start(&[
        "pg_background.worker_idle_timeout = '3ms'",
        slots,
        "pg_background.max_idle_workers = 4",
    ]));
    let mut administrator = cluster.session();
    administrator.exec(
        "CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; GRANT pgbackground_role TO alice, bob;
         CREATE TABLE done (id bigint PRIMARY KEY); GRANT INSERT ON done TO PUBLIC",
    );
    let over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (1..)
        .zip(["postgres", "alice", "bob"])
        .map(|(number, role)| {
            let cluster = Arc::clone(&cluster);
            thread::spawn(move || run_and_pause(&mut cluster.session_as(role), number))
        })
        .collect();
    let noise = thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let mut turns = 0;
            while !over.load(Ordering::Relaxed) {
                administrator.exec(&format!("ALTER ROLE alice SET work_mem = '{}MB'", 1 + turns % 2));
                administrator.exec("SELECT pg_reload_conf()");
                // Without a pause the postmaster only reloads: it handles that signal before all others.
                administrator.exec("SELECT pg_sleep(0.02)");
                // Other sessions use it, so it cannot be copied. But its lock is held for five seconds, and no process can connect to it.
                if turns == 20 {
                    let _ = administrator.try_rows("CREATE DATABASE copied TEMPLATE postgres");
                }
                turns += 1;
            }
            turns
        }
    });
    let workers: Vec<_> = threads.into_iter().map(thread::JoinHandle::join).collect();
    over.store(true, Ordering::Relaxed);
    let turns = noise.join().expect("the administrator is well");
    let workers: usize = workers
        .into_iter()
        .map(|worker| worker.expect("every session is well"))
        .sum();
    println!("{workers} workers, {turns} turns of the administrator");
    assert_eq!(cluster.session().value::<u64>("SELECT count(*) FROM done"), 3 * PAIRS);
    assert!(turns > 10 && workers > 30, "{turns} turns, {workers} workers");
}

/// Runs jobs with pauses of about the idle timeout. Returns how many workers there were.
fn run_and_pause(session: &mut Session, number: u64) -> usize {
    let mut random = Random::new(number);
    let mut workers = HashSet::new();
    for n in 0..PAIRS {
        let id = number * 1_000_000 + n;
        let row = session
            .rows(&format!(
                "SELECT state, error_message, pid FROM pg_background_run('INSERT INTO done VALUES ({id})')"
            ))
            .remove(0);
        assert_eq!(row[0].as_deref(), Some("stopped"), "job {id}: {row:?}");
        workers.insert(row[2].clone());
        thread::sleep(Duration::from_micros(random.below(6000)));
    }
    workers.len()
}
