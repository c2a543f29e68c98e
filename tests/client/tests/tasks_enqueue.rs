//! Durable tasks before they run: two sessions at once, copies of a database, publications.

use harness::{Cluster, Session, give_to_server, process_status, psql, server_program};

fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::start(&[&["pg_background.tasks = off"], settings].concat());
    cluster.session().exec("CREATE EXTENSION pg_background_tasks");
    cluster
}

#[test]
fn one_of_two_with_the_same_key_waits_for_the_others_commit() {
    let cluster = cluster(&[]);
    for (end, kept) in [("COMMIT", true), ("ROLLBACK", false)] {
        let (mut first, second, mut watcher) = (cluster.session(), cluster.session(), cluster.session());
        let waits = second.pid;
        first.exec("BEGIN");
        let id = first.enqueue(&format!("'SELECT 1', key => '{end}'"));
        let pending = second.start(&format!("SELECT background.enqueue('SELECT 2', key => '{end}')"));
        watcher.wait_blocked(waits);
        first.exec(end);
        let rows = pending.join().1.unwrap();
        assert_eq!(rows[0][0].as_deref() == Some(id.to_string().as_str()), kept, "{end}");
        assert_eq!(
            watcher.value::<i64>(&format!("SELECT count(*) FROM background.tasks WHERE key = '{end}'")),
            1
        );
    }
}

#[test]
fn a_task_that_is_replaced_or_kept_is_locked() {
    let cluster = cluster(&[]);
    let (mut first, second, mut watcher) = (cluster.session(), cluster.session(), cluster.session());
    let id = first.enqueue("'SELECT 1', key => 'k'");
    let waits = second.pid;
    first.exec("BEGIN");
    assert_eq!(first.enqueue("'SELECT 2', key => 'k', on_conflict => 'replace'"), id);
    let pending = second.start("SELECT background.enqueue('SELECT 3', key => 'k', on_conflict => 'replace')");
    watcher.wait_blocked(waits);
    first.exec("COMMIT");
    let (mut second, rows) = pending.join();
    assert_eq!(rows.unwrap()[0][0].as_deref(), Some(id.to_string().as_str()));
    assert_eq!(watcher.value::<String>("SELECT sql FROM background.tasks"), "SELECT 3");
    // Those that keep it do not wait for each other.
    first.exec("BEGIN");
    assert_eq!(first.enqueue("'SELECT 4', key => 'k'"), id);
    assert_eq!(second.enqueue("'SELECT 4', key => 'k'"), id);
    // Who cancels it does: it is not gone before the other's commit.
    let waits = second.pid;
    let pending = second.start(&format!("SELECT background.cancel({id})"));
    watcher.wait_blocked(waits);
    first.exec("COMMIT");
    assert_eq!(pending.join().1.unwrap()[0][0].as_deref(), Some("t"));
}

#[test]
fn a_parent_that_has_not_committed_is_waited_for() {
    let cluster = cluster(&["max_prepared_transactions = 5"]);
    let (mut first, mut second) = (cluster.session(), cluster.session());
    first.exec("BEGIN");
    let parent = first.enqueue("'SELECT 1'");
    let child = second.enqueue(&format!("'SELECT 2', after => ARRAY[{parent}]"));
    let state = format!("SELECT state FROM background.tasks WHERE id = {child}");
    assert_eq!(second.value::<String>(&state), "blocked");
    assert_eq!(second.text(&format!("SELECT background.wait({parent}, 1)")), None);
    first.exec("PREPARE TRANSACTION 'parent'");
    let other = second.enqueue(&format!("'SELECT 3', after => ARRAY[{parent}]"));
    assert_eq!(
        second.value::<String>(&format!("SELECT state FROM background.tasks WHERE id = {other}")),
        "blocked"
    );
    second.exec("COMMIT PREPARED 'parent'");
    assert!(second.holds(&format!("EXISTS (SELECT FROM background.tasks WHERE id = {parent})")));
}

#[test]
fn drop_queue_waits_for_those_who_enqueue() {
    let cluster = cluster(&[]);
    let (mut first, second, mut watcher) = (cluster.session(), cluster.session(), cluster.session());
    first.exec("SELECT background.set_queue('q')");
    let waits = second.pid;
    first.exec("BEGIN");
    first.enqueue("'SELECT 1', queue => 'q'");
    let pending = second.start("SELECT background.drop_queue('q')");
    watcher.wait_blocked(waits);
    // Nobody else is held up meanwhile.
    watcher.enqueue("'SELECT 2'");
    first.exec("COMMIT");
    assert_eq!(pending.join().1.unwrap_err().sqlstate, "55006");
}

fn dump(cluster: &Cluster, database: &str) -> String {
    let output = server_program("pg_dump")
        .args(["-U", "postgres", "-h"])
        .arg(cluster.socket_dir())
        .arg(database)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn restore(cluster: &Cluster, database: &str, dump: &str) {
    let path = cluster.socket_dir().join("dump.sql");
    std::fs::write(&path, dump).unwrap();
    give_to_server(&path);
    let output = psql()
        .args([
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            database,
            "-h",
        ])
        .arg(cluster.socket_dir())
        .arg("-f")
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const CONTENT: &str = "SELECT string_agg(concat_ws('|', id, queue, state, mode, priority, owner, sql, max_attempts, run_at, key, after), ';' ORDER BY id) \
    FROM background.tasks";

#[test]
fn dump_and_restore() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE ROLE alice LOGIN; CREATE ROLE gone LOGIN; GRANT pgbackground_role TO alice, gone; SELECT background.set_queue('q', 1, roles => '{alice,gone}')",
    );
    for role in ["alice", "gone", "postgres"] {
        session.exec(&format!("SET ROLE {role}"));
        let id = session.enqueue("'SELECT $1', row(1, 'x'::text, now()), queue => 'q', key => 'k', priority => 3");
        session.enqueue(&format!("'VACUUM', after => ARRAY[{id}]"));
        session.enqueue("'SELECT 1', run_at => '2100-01-01 00:00:00+00', settings => '{\"a.b\": 1}'");
        let canceled = session.enqueue("'SELECT 2'");
        session.exec(&format!("SELECT background.cancel({canceled})"));
        session.exec("RESET ROLE");
    }
    session.exec("ALTER ROLE alice RENAME TO \"Ally B\"");
    let text = dump(&cluster, "postgres");
    let before: String = session.value(CONTENT);
    assert!(before.contains("Ally B"));

    // The same cluster: roles are the same ones, the database is another.
    session.exec("CREATE DATABASE restored");
    restore(&cluster, "restored", &text);
    let mut copy = cluster.session_in("restored", "postgres");
    assert_eq!(copy.value::<String>(CONTENT), before);
    assert!(copy.holds("(SELECT count(*) FROM background.dependency) = 3"));
    copy.exec("SET pg_background.tasks = auto");
    assert!(copy.holds("(SELECT NOT enabled AND note LIKE '%activate%' FROM background.status())"));
    // Enqueue goes on, with the next id, and what was there and what comes belong to the same.
    let next = copy.enqueue("'SELECT 3'");
    assert!(copy.holds(&format!(
        "(SELECT max(task_id) < {next} AND count(*) = 3 FROM background.run_failed)"
    )));
    assert!(copy.holds("(SELECT count(DISTINCT home) = 1 FROM background.task)"));
    copy.exec("SELECT background.activate()");
    assert!(copy.holds("(SELECT enabled AND note IS NULL FROM background.status())"));
    assert!(copy.holds("(SELECT count(DISTINCT home) = 1 FROM background.task)"));
    drop(copy);

    // A cluster where a role is missing, which comes later.
    let other = Cluster::start_plain(&["pg_background.tasks = off"]);
    let mut session = other.session();
    session.exec("CREATE ROLE \"Ally B\" LOGIN");
    restore(&other, "postgres", &text);
    assert_eq!(session.value::<String>(CONTENT), before);
    assert!(
        session.holds(
            "(SELECT count(*) = 3 FROM background.task WHERE background.role_oid(owner) = '\"Ally B\"'::regrole)"
        )
    );
    assert!(session.holds("(SELECT count(*) = 3 FROM background.task WHERE background.role_oid(owner) IS NULL)"));
    session.exec("CREATE ROLE gone LOGIN");
    assert!(
        session.holds("(SELECT count(*) = 3 FROM background.task WHERE background.role_oid(owner) = 'gone'::regrole)")
    );
    // A dump of what was restored is the same again, and the former database is no copy.
    assert!(dump(&other, "postgres").contains("Ally B"));
    let mut first = cluster.session();
    first.exec("SET pg_background.tasks = auto");
    assert!(first.holds("(SELECT enabled FROM background.status())"));
}

#[test]
fn a_database_made_of_a_template_is_a_copy() {
    let cluster = cluster(&[]);
    let mut session = cluster.session_in("template1", "postgres");
    session.exec("CREATE DATABASE original");
    drop(session);
    let mut session = cluster.session_in("original", "postgres");
    session.exec("CREATE EXTENSION pg_background_tasks CASCADE");
    session.enqueue("'SELECT 1'");
    drop(session);
    let mut session = cluster.session();
    session.wait_until("NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'original')");
    session.exec("CREATE DATABASE copied TEMPLATE original");
    let mut copy = cluster.session_in("copied", "postgres");
    copy.exec("SET pg_background.tasks = auto");
    assert!(copy.holds("(SELECT NOT enabled FROM background.status())"));
    copy.enqueue("'SELECT 2'");
    copy.exec("SELECT background.activate()");
    assert!(copy.holds("(SELECT enabled FROM background.status())"));
    let mut session = cluster.session_in("original", "postgres");
    session.exec("SET pg_background.tasks = auto");
    assert!(session.holds("(SELECT enabled FROM background.status())"));
}

#[test]
fn a_publication_of_all_tables_refuses_nothing() {
    let cluster = cluster(&["wal_level = logical"]);
    let mut session = cluster.session();
    session.exec("CREATE PUBLICATION everything FOR ALL TABLES");
    session.exec("SELECT background.set_queue('q'); SELECT background.set_queue('q', max_running => 1)");
    let id = session.enqueue("'SELECT 1', key => 'k', queue => 'q'");
    session.enqueue("'SELECT 2', key => 'k', on_conflict => 'replace', queue => 'q'");
    session.enqueue(&format!("'SELECT 3', after => ARRAY[{id}]"));
    for _ in 0..2 {
        assert!(session.holds(&format!("background.cancel({id})")));
        assert!(session.holds(&format!("background.retry({id})")));
    }
    assert!(session.holds(&format!("background.cancel({id})")));
    session.exec("SELECT background.drop_queue('q')");
}

#[test]
fn a_standby_shows_tasks_and_takes_none() {
    let primary = cluster(&["max_wal_senders = 4", "wal_level = replica"]);
    let id = primary.session().enqueue("'SELECT 1'");
    let standby = Cluster::standby_of(&primary, &[]);
    let mut session = standby.session();
    assert_eq!(session.error("SELECT background.enqueue('SELECT 1')").sqlstate, "25006");
    assert_eq!(
        session.error(&format!("SELECT background.cancel({id})")).sqlstate,
        "25006"
    );
    assert_eq!(session.value::<String>("SELECT state FROM background.tasks"), "waiting");
    assert_eq!(session.text(&format!("SELECT background.wait({id}, 1)")), None);
    assert!(session.holds("(SELECT waiting = 1 FROM background.queues)"));
    assert!(session.holds("(SELECT note IS NOT NULL FROM background.status())"));
}

#[test]
fn the_extension_is_dropped_and_made_again() {
    let cluster = cluster(&[]);
    let (mut first, mut second) = (cluster.session(), cluster.session());
    for _ in 0..2 {
        assert_eq!(first.enqueue("'SELECT 1', key => 'k'"), 1);
        assert_eq!(second.enqueue("'SELECT 2', key => 'k', on_conflict => 'replace'"), 1);
        assert!(first.holds("background.cancel(1)"));
        second.exec("DROP EXTENSION pg_background_tasks");
        second.exec("CREATE EXTENSION pg_background_tasks");
    }
}

#[test]
fn a_role_without_login() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE ROLE alice; GRANT pgbackground_role TO alice; SET ROLE alice");
    if session.holds("current_setting('server_version_num')::int >= 170000") {
        session.enqueue("'SELECT 1'");
    } else {
        assert_eq!(session.error("SELECT background.enqueue('SELECT 1')").sqlstate, "0A000");
    }
}

/// A row is put into the indexes without their conditions being computed. They have what a condition says, no less and no more, also while an
/// administrator's index is there.
#[test]
fn each_index_has_what_belongs_into_it() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION amcheck; CREATE EXTENSION pageinspect");
    let options = [
        "priority => 3",
        "concurrency_key => 'one'",
        "run_at => now() + '1 hour'",
        "run_at => now() + '1 hour', concurrency_key => 'one'",
        "expires_at => now() + '1 day'",
        "expires_at => now() + '1 day', run_at => now() + '1 hour', concurrency_key => 'two'",
        "after => ARRAY[1]::int8[]",
        "after => ARRAY[1]::int8[], run_at => now() + '1 hour', expires_at => now() + '1 day'",
        "key => 'mine'",
        "key => 'other', run_at => now() + '1 hour'",
    ];
    let enqueue_all = |session: &mut Session| {
        for options in options {
            session.enqueue(&format!("'SELECT 1', {options}"));
        }
    };
    let check = |session: &mut Session| {
        for (index, condition) in [
            ("task_pkey", "true"),
            ("task_ready", "phase = 'w'"),
            ("task_concurrency_key", "phase = 'w' AND concurrency_key IS NOT NULL"),
            ("task_blocked", "phase = 'b'"),
            ("task_due", "phase = 'd'"),
            ("task_expires", "expires_at IS NOT NULL"),
            ("task_key", "key IS NOT NULL"),
        ] {
            session.exec(&format!("SELECT bt_index_check('background.{index}', true)"));
            let counts = session.rows(&format!(
                "SELECT (SELECT count(*) FROM bt_page_items('background.{index}', 1)), (SELECT count(*) FROM background.task WHERE {condition})"
            ));
            assert_eq!(counts[0][0], counts[0][1], "{index}");
        }
        session.exec("SELECT bt_index_check('background.task_attempted', true)");
    };
    enqueue_all(&mut session);
    check(&mut session);
    session.exec("CREATE INDEX more ON background.task (label) WHERE priority > 2");
    session.exec("DELETE FROM background.task WHERE key IS NOT NULL");
    session.exec("VACUUM background.task");
    enqueue_all(&mut session);
    check(&mut session);
    session.exec("SELECT bt_index_check('background.more', true)");
    assert!(session.holds("(SELECT count(*) = 2 FROM bt_page_items('background.more', 1))"));
    // An id that is there already is refused.
    session.exec("DROP INDEX background.more; SELECT setval('background.task_id', 1, false)");
    assert_eq!(session.error("SELECT background.enqueue('SELECT 1')").sqlstate, "23505");
}

#[test]
fn memory_does_not_grow_with_the_number_of_tasks() {
    let cluster = cluster(&["max_wal_size = 1GB"]);
    let mut session = cluster.session();
    let pid = session.pid;
    session.exec(
        "BEGIN; SELECT count(background.enqueue('SELECT $1', row(g, 'x'::text))) FROM generate_series(1, 20000) g",
    );
    let before = process_status(pid, "RssAnon");
    session.exec("SELECT count(background.enqueue('SELECT $1', row(g, 'x'::text), key => 'k' || g)) FROM generate_series(1, 60000) g");
    let after = process_status(pid, "RssAnon");
    session.exec("ROLLBACK");
    assert!(after < before + 4096, "{before} kB, then {after} kB");
    // Much SQL and many parameters.
    session.enqueue("'SELECT 1 -- ' || repeat('x', 100000000)");
    session.enqueue("'SELECT $1', row(repeat('x', 100000000))");
    assert!(session.holds("(SELECT max(length(sql)) > 100000000 FROM background.tasks)"));
}
