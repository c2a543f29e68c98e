//! Processes that get no more shared memory, or cannot map more of it.

use harness::{Cluster, Handle, Session, as_server, wait_for};
use std::process::Command;

const SLEEP: &str = "SELECT pg_sleep(3600)";

/// A cluster whose dynamic shared memory has 24 MB. None if the test may not mount it.
struct Small {
    cluster: Option<Cluster>,
    directory: std::path::PathBuf,
}

impl Small {
    fn start(settings: &[&str]) -> Option<Self> {
        let mut all = vec!["dynamic_shared_memory_type = mmap", "shared_buffers = 16MB"];
        all.extend(settings);
        let cluster = Cluster::start(&all);
        cluster.stop(harness::Shutdown::Fast);
        let directory = cluster.data().join("pg_dynshmem");
        let owner = as_server("id").arg("-u").output().unwrap().stdout;
        let options = format!("size=24m,mode=700,uid={}", String::from_utf8(owner).unwrap().trim());
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&directory)
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("cannot mount a small file system: not tested");
            return None;
        }
        cluster.restart();
        Some(Self {
            cluster: Some(cluster),
            directory,
        })
    }

    fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().unwrap()
    }

    /// Makes unread results until shared memory is full.
    fn fill(&self) -> Session {
        let mut glutton = self.cluster().session();
        glutton.exec("SET pg_background.max_workers = 1000");
        // Large results first, then small ones for the remaining space.
        for size in [8_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1] {
            for _ in 0..2000 {
                let launch =
                    format!("SELECT pid, cookie FROM pg_background_launch('SELECT repeat(''x'', {size})', 16777216)");
                let Ok(rows) = glutton.try_rows(&launch) else { break };
                let job = Handle::of(&rows[0]);
                glutton.wait(job);
                if glutton.state(job) != "stopped" {
                    break;
                }
            }
        }
        let small = format!("SELECT pg_background_launch('SELECT 1 --{}')", "x".repeat(4000));
        (0..900)
            .find_map(|_| glutton.try_rows(&small).err())
            .expect("memory is full in the end");
        glutton
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Some(cluster) = &self.cluster {
            cluster.stop(harness::Shutdown::Immediate);
            let _ = Command::new("umount").arg("-l").arg(&self.directory).status();
        }
    }
}

#[track_caller]
fn assert_lost(session: &mut Session, job: Handle) {
    let error = session.lost(job);
    assert_eq!(
        error.message,
        format!("background worker with PID {} ended before its job did", job.pid)
    );
    assert_eq!(
        error.detail,
        "terminating background worker \"pg_background\" due to administrator command"
    );
    assert!(
        error.context.contains(&format!("background worker, pid {}", job.pid)),
        "{error:?}"
    );
    assert_eq!(session.counters().active, 0);
}

#[test]
fn a_worker_that_dies_while_shared_memory_is_full_is_noticed() {
    let Some(small) = Small::start(&[]) else { return };
    let mut session = small.cluster().session();
    let mut other = small.cluster().session();
    let job = session.launch_in_used_worker("launch", SLEEP);
    let glutton = small.fill();
    let waiting = session.start(&format!("SELECT pg_background_wait({job}, 60000)"));
    other.exec(&format!("SELECT pg_terminate_backend({})", job.pid));
    let (mut session, waited) = waiting.join();
    assert_eq!(waited.unwrap()[0][0].as_deref(), Some("t"));
    assert!(other.holds(&format!(
        "(state, sqlstate) = ('error', '08006') FROM pg_background_jobs WHERE cookie = {}",
        job.cookie
    )));
    assert_lost(&mut session, job);
    drop(glutton);
    session.exec("SET pg_background.max_workers = 1");
    wait_for("room", || {
        session.try_rows("SELECT pg_background_run('SELECT 1')").is_ok()
    });
}

#[test]
fn the_error_of_a_job_outlives_full_shared_memory() {
    let Some(small) = Small::start(&[]) else { return };
    let mut session = small.cluster().session();
    session.exec("SELECT pg_advisory_lock(1)");
    let message = "m".repeat(2000);
    let job = session.launch_in_used_worker(
        "launch",
        "DO $$BEGIN PERFORM pg_advisory_xact_lock(1);
         RAISE '%', repeat('m', 2000) USING ERRCODE = 'ZZ001', DETAIL = repeat('d', 100000); END$$",
    );
    let _glutton = small.fill();
    session.exec("SELECT pg_advisory_unlock(1)");
    session.wait(job);
    assert_eq!(session.sqlstate(job), "ZZ001");
    let error = session.error(&format!("SELECT * FROM pg_background_result({job}) AS (x text)"));
    assert_eq!(error.sqlstate, "ZZ001");
    assert!(
        error.message.len() >= 200 && message.starts_with(&error.message),
        "{error:?}"
    );
    assert_eq!(error.detail, "There was no memory to keep more of the error.");
    assert_eq!(session.counters().failed, 1);
}

/// Sets limits of the process that are reached at once: it can open no file, so it maps no segment, or it gets no memory at all.
fn exhaust(pid: i32, limits: &[&str]) {
    for limit in limits {
        let set = as_server("prlimit")
            .arg(format!("{limit}:"))
            .arg(format!("--pid={pid}"))
            .status();
        assert!(set.unwrap().success());
    }
}

/// Makes more segments than any process has mapped.
fn add_segments(session: &mut Session) -> Vec<Handle> {
    session.exec("SET pg_background.max_workers = 100");
    (0..4)
        .map(|_| {
            let job = session.launch("SELECT repeat('x', 3000000)");
            session.wait(job);
            job
        })
        .collect()
}

#[test]
fn a_worker_that_can_map_nothing_publishes_its_end() {
    let cluster = Cluster::start(&[
        "pg_background.max_role_workers = 6",
        "pg_background.default_queue_size = '16MB'",
    ]);
    let mut session = cluster.session();
    let mut other = cluster.session();
    for (way, verb) in [("terminated", "launch"), ("ended", "submit")] {
        session.exec("SELECT pg_advisory_lock(1)");
        let job = session.launch_in_used_worker(verb, "SELECT pg_advisory_xact_lock(1)");
        exhaust(job.pid, &["--nofile=3", "--as=1"]);
        let parts = add_segments(&mut other);
        // Sessions that the worker has not served, with requests in segments that it has not mapped.
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                cluster
                    .session()
                    .start(&format!("SELECT pg_background_wait({job}, 60000)"))
            })
            .collect();
        for waiter in &waiting {
            other.wait_until(&format!(
                "wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = {}",
                waiter.pid
            ));
        }
        if way == "terminated" {
            other.exec(&format!("SELECT pg_terminate_backend({})", job.pid));
        }
        session.exec("SELECT pg_advisory_unlock(1)");
        for waiter in waiting {
            assert_eq!(waiter.join().1.unwrap()[0][0].as_deref(), Some("t"));
        }
        if way == "terminated" {
            assert_lost(&mut session, job);
        } else {
            assert_eq!(session.state(job), "stopped");
        }
        assert!(other.holds(&format!(
            "count(*) = 1 FROM pg_background_jobs WHERE cookie = {}",
            job.cookie
        )));
        for part in parts {
            other.exec(&format!(
                "SELECT length(x) FROM pg_background_result({part}) AS (x text)"
            ));
        }
        session.exec("SELECT pg_background_detach_all()");
        other
            .exec("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'pg_background'");
    }
}

/// Runs `sql` in a session that can map nothing. Returns whether it failed; any other failure than that of mapping fails the test.
#[track_caller]
fn is_refused(poor: &mut Session, sql: &str) -> bool {
    let Err(error) = poor.try_rows(sql) else { return false };
    let said = format!("{} {}", error.message, error.detail);
    // From version 17 on the server tries to map a segment only once.
    assert!(
        ["53000", "53200"].contains(&error.sqlstate.as_str())
            && [
                "shared memory segment",
                "segment of shared memory could not be attached"
            ]
            .iter()
            .any(|words| said.contains(words)),
        "{sql}: {error:?}"
    );
    true
}

/// Sessions that can map no new segment fail, and no others: a session that has not mapped the jobs' slots, and one that has mapped the
/// slots but not the results.
#[test]
fn a_session_that_can_map_nothing_harms_nobody() {
    let cluster = Cluster::start(&["pg_background.default_queue_size = '16MB'"]);
    let mut others: Vec<_> = (0..3).map(|_| cluster.session()).collect();
    let [mut poor, mut half] = [cluster.session(), cluster.session()];
    for session in [&mut poor, &mut half] {
        // Everything it needs except shared memory is open already.
        session.exec(
            "SELECT count(*) FROM pg_background_jobs; SELECT pg_background_run('SELECT 1');
             SELECT pg_background_outcome(pid, cookie), pg_background_detach(pid, cookie) FROM pg_background_launch('SELECT 1');
             SELECT * FROM pg_background_launch('SELECT 1') h, pg_background_result(h.pid, h.cookie) AS (n int);
             SELECT length(x) FROM pg_background_launch('SELECT ''x''::text') h, pg_background_result(h.pid, h.cookie) AS (x text)",
        );
    }
    exhaust(poor.pid, &["--nofile=3"]);
    // The segments that it has mapped are full, so slots beyond the first block lie in others.
    others[0].exec(&format!(
        "SET pg_background.max_workers = 1000;
         SELECT pg_background_submit('SELECT 1 --{}') FROM generate_series(1, 40)",
        "x".repeat(50_000)
    ));
    for other in &mut others {
        other.exec("SET pg_background.max_workers = 1000");
        other.exec(
            "SELECT pg_background_run(''), pg_background_submit('SELECT 1', 0, 'small') FROM generate_series(1, 100)",
        );
        other.wait_until("workers_active = 0 FROM pg_background_stats()");
    }
    half.exec("SELECT pg_background_run('SELECT 1')");
    exhaust(half.pid, &["--nofile=3"]);
    let jobs: Vec<_> = others.iter_mut().flat_map(add_segments).collect();
    for job in &jobs {
        let read = format!("SELECT length(x) FROM pg_background_result({job}) AS (x text)");
        // A function that is made to be polled returns NULL instead.
        is_refused(&mut poor, &format!("SELECT pg_background_outcome({job})"));
        for call in [
            &format!("SELECT pg_background_wait({job})"),
            &format!("SELECT pg_background_error_info({job})"),
            &format!("SELECT pg_background_full_sql({job})"),
            &format!("SELECT pg_background_wait_any(ARRAY[ROW({job})::pg_background_handle])"),
            &read,
            "SELECT count(*) FROM pg_background_jobs",
            "SELECT pg_background_launch('SELECT 1')",
            "SELECT pg_background_run('SELECT 1')",
            &format!("SELECT pg_background_detach({job})"),
        ] {
            assert!(is_refused(&mut poor, call), "{call}");
            if call != read && !call.contains("detach") {
                is_refused(&mut half, call);
            }
        }
        assert!(is_refused(&mut half, &read), "{read}");
        assert!(half.holds(&format!("pg_background_wait({job})")));
        is_refused(&mut half, &format!("SELECT pg_background_detach({job})"));
    }
    for other in &mut others {
        assert_eq!(
            other.value::<String>("SELECT state FROM pg_background_run('SELECT 1')"),
            "stopped"
        );
        assert!(other.holds("count(*) = 0 FROM pg_background_jobs WHERE finished_at IS NULL"));
        assert!(other.holds("count(*) = count(DISTINCT cookie) FROM pg_background_jobs"));
        other.exec("SELECT pg_background_submit('SELECT 1') FROM generate_series(1, 100)");
        other.wait_until("workers_active = 0 FROM pg_background_stats()");
        // Every cookie is found.
        assert!(other.holds("count(*) >= 200 AND bool_and((o).state = 'stopped') FROM
             (SELECT pg_background_outcome(pid, cookie) AS o FROM pg_background_list WHERE label IS NOT DISTINCT FROM label) AS found"));
        other.exec("SELECT pg_background_detach_all()");
    }
    drop((poor, half));
    // Nothing that they had worked with is retained.
    others[0].exec("SET pg_background.max_role_handles = 1");
    wait_for("the end of what they held", || {
        others[0].try_rows("SELECT pg_background_run('SELECT 1')").is_ok()
    });
}
