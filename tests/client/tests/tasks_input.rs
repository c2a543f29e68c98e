//! Much, odd and hostile input, and where an enqueue comes from.

use harness::{Cluster, process_status, wait_for};

fn cluster(settings: &[&str]) -> Cluster {
    let cluster = Cluster::start(settings);
    cluster.session().exec("CREATE EXTENSION pg_background_tasks");
    cluster
}

#[test]
fn ten_thousand_queues() {
    let cluster = cluster(&["max_locks_per_transaction = 64"]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE done (queue text)");
    session.exec(
        "DO $$ BEGIN FOR n IN 1 .. 10000 LOOP PERFORM background.set_queue('queue ' || n, max_running_per_key => 1); \
         IF n % 1000 = 0 THEN COMMIT; END IF; END LOOP; END $$",
    );
    assert_eq!(session.value::<i64>("SELECT count(*) FROM background.queues"), 10_001);
    session.exec(
        "DO $$ BEGIN FOR n IN 1 .. 10000 LOOP PERFORM background.enqueue('INSERT INTO done VALUES ($1)', row('queue ' || n), \
         queue => 'queue ' || n, concurrency_key => 'k'); IF n % 1000 = 0 THEN COMMIT; END IF; END LOOP; END $$",
    );
    session.wait_until("(SELECT count(*) = 10000 FROM done)");
    assert!(session.holds("(SELECT count(DISTINCT queue) = 10000 FROM done)"));
    session.wait_until("(SELECT sum(done_total) = 10000 FROM background.queues)");
    session.exec(
        "DO $$ BEGIN FOR n IN 1 .. 10000 LOOP PERFORM background.drop_queue('queue ' || n); \
         IF n % 1000 = 0 THEN COMMIT; END IF; END LOOP; END $$",
    );
    assert_eq!(session.value::<i64>("SELECT count(*) FROM background.queues"), 1);
}

/// Many queues that run nothing take no room from the others.
#[test]
fn queues_that_run_nothing_hold_up_no_others() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE done (n int)");
    session.exec(
        "SELECT background.set_queue('a' || n, paused => n % 2 = 0, max_running => CASE WHEN n % 2 = 1 THEN 0 END) FROM generate_series(1, 100) AS n",
    );
    session.exec("SELECT background.enqueue('INSERT INTO done VALUES ($1)', row(n), queue => 'a' || n) FROM generate_series(1, 100) AS n");
    session.exec("SELECT background.set_queue('b' || n) FROM generate_series(1, 50) AS n");
    session.exec("SELECT background.enqueue('INSERT INTO done VALUES ($1)', row(1000 + n), queue => 'b' || n) FROM generate_series(1, 50) AS n");
    session.wait_until("(SELECT count(*) = 50 FROM done)");
    assert!(session.holds("(SELECT min(n) = 1001 FROM done)"));
    // One of them, then all.
    session.exec("SELECT background.set_queue('a50', paused => false)");
    session.wait_until("EXISTS (SELECT FROM done WHERE n = 50)");
    session.exec(
        "SELECT background.set_queue('a' || n, paused => false, max_running => -1) FROM generate_series(1, 100) AS n",
    );
    session.wait_until("(SELECT count(*) = 150 FROM done)");
    // Paused while tasks wait in them.
    session.exec("SELECT background.set_queue('a' || n, max_running => 1) FROM generate_series(1, 100) AS n");
    session.exec("BEGIN");
    session.exec("SELECT background.enqueue('INSERT INTO done VALUES ($1)', row(2000 + n), queue => 'a' || n) FROM generate_series(1, 100) AS n");
    session.exec("SELECT background.set_queue('a' || n, paused => true) FROM generate_series(1, 100) AS n");
    session.exec("COMMIT");
    let id = session.enqueue("'INSERT INTO done VALUES (3000)'");
    assert_eq!(session.wait_task(id), "done");
    assert!(session.holds("(SELECT count(*) = 151 FROM done)"));
    session.exec("SELECT background.set_queue('a' || n, paused => false) FROM generate_series(1, 100) AS n");
    session.wait_until("(SELECT count(*) = 251 FROM done)");
}

/// All of it runs, and neither the session nor the runner keeps it.
#[test]
fn sql_and_parameters_of_100_mb_run() {
    let cluster = cluster(&["max_wal_size = 2GB", "pg_background.max_task_workers = 1"]);
    let mut session = cluster.session();
    session.exec("CREATE TABLE done (n int, length int, pid int DEFAULT pg_backend_pid())");
    for arguments in [
        "'INSERT INTO done VALUES (1, length($$' || repeat('x', 100000000) || '$$))'",
        "'INSERT INTO done VALUES (2, length($1))', row(repeat('x', 100000000))",
        "'INSERT INTO done VALUES (3, length(current_setting(''app.much'')))', settings => jsonb_build_object('app.much', repeat('x', 100000000))",
        "'INSERT INTO done VALUES (4, length($1))', row(repeat('x', 100000000)), database => 'postgres', mode => 'statement'",
    ] {
        let id = session.enqueue(arguments);
        assert_eq!(session.wait_task(id), "done", "{arguments}");
    }
    assert_eq!(
        session
            .text("SELECT string_agg(n || ' ' || length, ', ' ORDER BY n) FROM done")
            .as_deref(),
        Some("1 100000000, 2 100000000, 3 100000000, 4 100000000")
    );
    let pid = session.value::<i32>("SELECT pid FROM done ORDER BY n DESC LIMIT 1");
    let id = session.enqueue("'INSERT INTO done VALUES (5, 0)'");
    assert_eq!(session.wait_task(id), "done");
    if session.holds(&format!("(SELECT pid = {pid} FROM done WHERE n = 5)")) {
        let memory = process_status(pid, "RssAnon");
        assert!(memory < 100_000, "{memory} kB");
    }
    let memory = process_status(session.pid, "RssAnon");
    assert!(memory < 200_000, "{memory} kB");
    // What no row can hold is the server's own error, and the session goes on.
    let row = "row(repeat('x', 600000000), repeat('y', 600000000))";
    let own = session.error(&format!("SELECT count({row})"));
    let error = session.error(&format!("SELECT background.enqueue('SELECT $1, $2', {row})"));
    assert_eq!(error.sqlstate, own.sqlstate, "{error:?}");
    let id = session.enqueue("'INSERT INTO done VALUES (6, 0)'");
    assert_eq!(session.wait_task(id), "done");
}

/// Bytes above 127 mean something else in each encoding, or nothing.
#[test]
fn labels_and_keys_of_odd_bytes() {
    let cluster = cluster(&[]);
    let mut session = cluster.session();
    for (database, encoding) in [("latin1", "LATIN1"), ("ascii", "SQL_ASCII"), ("eucjp", "EUC_JP")] {
        session.exec(&format!(
            "CREATE DATABASE {database} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        ));
        let mut there = cluster.session_in(database, "postgres");
        there.exec("CREATE EXTENSION pg_background_tasks CASCADE");
        there.exec("CREATE TABLE done (n int)");
        there.exec("SET client_encoding = 'SQL_ASCII'");
        // Whatever bytes are a text of the database.
        there.exec(
            "CREATE FUNCTION odd(n int) RETURNS text LANGUAGE plpgsql AS $$ \
             BEGIN RETURN convert_from(decode(to_hex(n), 'hex'), getdatabaseencoding()); \
             EXCEPTION WHEN OTHERS THEN RETURN 'no text ' || n; END $$",
        );
        there.exec("SELECT background.set_queue(odd(n), max_running_per_key => 1) FROM generate_series(160, 164) AS n");
        let last: i64 = there.value(
            "SELECT max(background.enqueue('INSERT INTO done VALUES (' || n || ') /* ' || odd(n) || ' */', label => odd(n), key => odd(n), \
             concurrency_key => odd(n), queue => odd(160 + n % 5), settings => jsonb_build_object('a.b', odd(n)))) \
             FROM generate_series(33025, 43024) AS n",
        );
        there.wait_until("(SELECT count(*) = 10000 FROM done)");
        assert!(
            there.holds("(SELECT count(DISTINCT n) = 10000 FROM done)"),
            "{encoding}"
        );
        assert_eq!(there.wait_task(last), "done");
        assert!(
            there
                .holds("NOT EXISTS (SELECT FROM background.tasks WHERE label IS DISTINCT FROM key OR state <> 'done')"),
            "{encoding}"
        );
        // Others of the cluster see the labels of jobs as far as they can.
        session.exec("SELECT count(label) FROM pg_background_jobs");
        // A label of 64 bytes whose last character is longer than its room.
        let error = there.error("SELECT background.enqueue('SELECT 1', label => repeat('x', 63) || odd(41377))");
        assert_eq!(error.sqlstate, "22001", "{encoding}");
    }
}

/// A trigger of a subscriber enqueues, in a process that is no session.
#[test]
fn an_apply_worker_enqueues() {
    let cluster = cluster(&["wal_level = logical", "max_worker_processes = 12"]);
    let mut session = cluster.session();
    session.exec("CREATE DATABASE there");
    let mut there = cluster.session_in("there", "postgres");
    session.exec("CREATE TABLE source (n int PRIMARY KEY); CREATE TABLE more (n int PRIMARY KEY)");
    session.exec("CREATE PUBLICATION p FOR TABLE source");
    session.exec("SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
    there.exec("CREATE EXTENSION pg_background_tasks CASCADE");
    there.exec(
        "CREATE TABLE source (n int PRIMARY KEY); CREATE TABLE done (n int, task int8 DEFAULT background.current_task(), who text DEFAULT session_user);
         CREATE FUNCTION enqueues() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN PERFORM background.enqueue('INSERT INTO public.done VALUES ($1)', row(NEW.n), key => 'k' || NEW.n); RETURN NULL; END $$;
         CREATE TRIGGER t AFTER INSERT ON source FOR EACH ROW EXECUTE FUNCTION enqueues();
         ALTER TABLE source ENABLE ALWAYS TRIGGER t",
    );
    there.exec(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={} dbname=postgres user=postgres' PUBLICATION p WITH (create_slot = false, copy_data = false)",
        cluster.socket_dir().display()
    ));
    session.exec("INSERT INTO source SELECT generate_series(1, 100)");
    there.wait_until("(SELECT count(*) = 100 FROM done)");
    // A transaction that fails there is applied again, and its tasks exist once.
    there.exec("ALTER TABLE source ADD CONSTRAINT small CHECK (n < 200)");
    session.exec("INSERT INTO source SELECT generate_series(150, 250)");
    wait_for("the error", || {
        cluster.log().contains("violates check constraint \"small\"")
    });
    there.exec("ALTER TABLE source DROP CONSTRAINT small");
    there.wait_until("(SELECT count(*) = 201 FROM done)");
    assert!(there.holds("(SELECT count(DISTINCT n) = 201 AND count(DISTINCT task) = 201 FROM done)"));
    there.exec("DROP SUBSCRIPTION s");
}
