//! Two builds of the library in one server, as there are after its file was replaced while the server ran.

use harness::{Cluster, Shutdown, give_to_server, pg_config, wait_for};
use std::path::{Path, PathBuf};

/// A directory with this build of the library, and one with the same under another number.
fn builds(cluster: &Cluster) -> [PathBuf; 2] {
    const NAME: &[u8] = b"pg_background ";
    let library = std::fs::read(PathBuf::from(pg_config("pkglibdir")).join("pg_background.so")).unwrap();
    let digits = |at: usize| library[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (at, len) = (0..library.len() - 64)
        .filter(|at| library[*at..].starts_with(NAME))
        .map(|at| (at + NAME.len(), digits(at + NAME.len())))
        .find(|(at, len)| *len > 9 && library[at + len] == 0)
        .expect("the name of the shared memory");
    // As a text and as a number.
    let text = library[at..at + len].to_vec();
    let number: u64 = std::str::from_utf8(&text).unwrap().parse().unwrap();
    let mut other_text = text.clone();
    other_text[len - 1] ^= 1;
    let other_number: u64 = std::str::from_utf8(&other_text).unwrap().parse().unwrap();
    let mut other = library.clone();
    for (from, to) in [
        (text, other_text),
        (number.to_le_bytes().to_vec(), other_number.to_le_bytes().to_vec()),
    ] {
        for place in 0..library.len() - from.len() {
            if library[place..].starts_with(&from) {
                other[place..place + from.len()].copy_from_slice(&to);
            }
        }
    }
    assert_ne!(library, other);
    [("before", &library), ("after", &other)].map(|(name, bytes)| {
        let directory = cluster.socket_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("pg_background.so"), bytes).unwrap();
        give_to_server(&directory);
        directory
    })
}

/// From now on processes find the library in this directory.
fn install(cluster: &Cluster, directory: &Path) {
    let mut session = cluster.session();
    session.exec(&format!(
        "ALTER SYSTEM SET dynamic_library_path = '{}:$libdir'",
        directory.display()
    ));
    session.exec("SELECT pg_reload_conf()");
    wait_for("the new path", || {
        cluster
            .session()
            .text("SHOW dynamic_library_path")
            .unwrap()
            .starts_with(directory.to_str().unwrap())
    });
}

/// No two tasks of one key run at once, and each runs once: the runners of one build are gone before those of the other come.
#[test]
fn the_library_is_replaced_while_tasks_run() {
    let cluster = Cluster::start(&["pg_background.max_task_workers = 3"]);
    let [before, after] = builds(&cluster);
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION pg_background_tasks");
    session.exec("UPDATE pg_proc SET probin = 'pg_background' WHERE probin = '$libdir/pg_background'");
    session.exec(
        "CREATE TABLE done (n int, pid int DEFAULT pg_backend_pid(), began timestamptz DEFAULT clock_timestamp(), ended timestamptz);
         CREATE TABLE gate ();
         CREATE FUNCTION step(n int) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO done VALUES (n);
             PERFORM pg_sleep(0.02);
             UPDATE done SET ended = clock_timestamp() WHERE done.n = step.n;
         END $$",
    );
    drop(session);
    install(&cluster, &before);
    let mut old = cluster.session();
    old.exec("SELECT background.set_queue('ordered', max_running_per_key => 1)");
    let mut holder = cluster.session();
    holder.exec("BEGIN; LOCK TABLE gate");
    // This one is in the middle when the file is replaced, and stays for a while.
    let long = old.enqueue("'SELECT FROM gate', mode => 'statement'");
    old.wait_until("EXISTS (SELECT FROM pg_locks WHERE relation = 'gate'::regclass AND NOT granted)");
    old.exec("SELECT background.enqueue('SELECT step($1)', row(n), queue => 'ordered', concurrency_key => 'k') FROM generate_series(1, 50) AS n");
    old.wait_until("(SELECT count(*) > 5 FROM done)");
    install(&cluster, &after);
    let mut new = cluster.session();
    new.exec("SELECT background.enqueue('SELECT step($1)', row(n), queue => 'ordered', concurrency_key => 'k') FROM generate_series(51, 100) AS n");
    let last = new.enqueue("'SELECT 1'");
    // What runs is waited for, and nothing else runs meanwhile: there is one clock in charge.
    assert_eq!(new.text(&format!("SELECT background.wait({last}, 1000)")), None);
    let locks =
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = 0 AND objsubid = 1 AND granted";
    assert_eq!(new.value::<i64>(locks), 1);
    assert!(new.holds(&format!(
        "(SELECT attempt = 1 FROM background.tasks WHERE id = {long}) AND NOT EXISTS (SELECT FROM background.runs WHERE task_id = {long})"
    )));
    holder.exec("COMMIT");
    assert_eq!(new.wait_task(last), "done");
    assert_eq!(new.wait_task(long), "done");
    new.wait_until("(SELECT count(*) = 100 AND count(ended) = 100 FROM done)");
    assert!(new.holds("(SELECT count(DISTINCT n) = 100 FROM done)"));
    assert!(new.holds(
        "NOT EXISTS (SELECT FROM done AS a JOIN done AS b ON a.n < b.n AND (a.began, a.ended) OVERLAPS (b.began, b.ended))"
    ));
    assert!(new.holds("NOT EXISTS (SELECT FROM background.runs WHERE state <> 'done')"));
    assert_eq!(new.value::<i64>(locks), 1);
    // A session that still has the library of before cannot start anything itself. Its tasks are found all the same.
    for n in 101..104 {
        let id = old.enqueue(&format!("'SELECT step({n})'"));
        assert_eq!(new.wait_task(id), "done");
    }
    cluster.stop(Shutdown::Fast);
}

/// A clock that has nothing to do, and would stay for a minute, goes at once.
#[test]
fn an_idle_clock_of_the_library_of_before_gives_way() {
    let cluster = Cluster::start(&[]);
    let [before, after] = builds(&cluster);
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION pg_background_tasks");
    session.exec("UPDATE pg_proc SET probin = 'pg_background' WHERE probin = '$libdir/pg_background'");
    drop(session);
    install(&cluster, &before);
    let mut old = cluster.session();
    let id = old.enqueue("'SELECT 1'");
    assert_eq!(old.wait_task(id), "done");
    install(&cluster, &after);
    let mut new = cluster.session();
    for _ in 0..3 {
        let id = new.enqueue("'SELECT 1'");
        assert_eq!(
            new.text(&format!("SELECT background.wait({id}, 20000)")).as_deref(),
            Some("done")
        );
    }
}
