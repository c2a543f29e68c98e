//! Whoever may create in a schema of the path plants functions and operators there: what the library runs as somebody else calls none of them.

use harness::{Cluster, plant};

/// Everything that runs as the owner of the tables, in sessions and in the processes that run tasks.
#[test]
fn statements_of_the_engine() {
    let cluster = Cluster::start(&[]);
    let mut superuser = cluster.session();
    superuser.exec("CREATE EXTENSION pg_background_tasks; CREATE ROLE mallory LOGIN; GRANT pgbackground_role TO mallory; CREATE TABLE public.rows AS SELECT 1 AS n, NULL::int AS m");
    superuser.exec("ALTER TABLE rows ADD PRIMARY KEY (n); ALTER TABLE rows OWNER TO mallory; SELECT background.set_queue('default', max_attempts => 3, max_running_per_key => 2)");
    plant(&mut superuser, "planted");
    superuser.exec("ALTER DATABASE postgres SET search_path = planted, pg_catalog");
    for role in ["mallory", "postgres"] {
        let mut session = cluster.session_as(role);
        let first = session.enqueue("'SELECT 1', key => 'u', run_at => '2100-01-01'");
        for call in [
            "SELECT background.schedule('a', '0 0 1 1 *', 'SELECT 1', label => 'x', concurrency_key => 'k', enabled => false)",
            "SELECT background.schedule('a', '0 0 1 1 *', 'SELECT 2', label => 'x', concurrency_key => 'k')",
            "SELECT background.alter_schedule('a', label => 'y', concurrency_key => 'l', enabled => true)",
            "SELECT background.alter_schedule('a', label => '')",
            "SELECT background.run_schedule('a')",
            "SELECT background.preview_schedule('* * * * *')",
            "SELECT background.schedule('b', 'every 1 s', 'SELECT 1', ends_at => '2030-01-01')",
            "SELECT background.enqueue('SELECT 2', key => 'u', on_conflict => 'replace', run_at => '2100-01-01')",
            "SELECT background.enqueue('SELECT 3', expires_at => '2100-01-01', run_at => '2099-01-01', after => ARRAY[FIRST]::int8[])",
            "SELECT background.cancel(FIRST)",
            "SELECT background.retry(FIRST)",
            "SELECT background.wait(FIRST, 1)",
            "SELECT background.result(FIRST)",
            "SELECT background.status()",
            "SELECT background.unschedule('a')",
            "SELECT background.unschedule('b')",
        ] {
            session.exec(&call.replace("FIRST", &first.to_string()));
        }
        for mode in ["transaction", "statement"] {
            let id = session.enqueue(&format!(
                "'SELECT 1', mode => '{mode}', concurrency_key => 'k', keep_result => true, max_attempts => 2"
            ));
            assert_eq!(session.wait_task(id), "done");
            session.exec(&format!("CALL background.wait_for({id})"));
            let child = session.enqueue(&format!(
                "'TABLE nowhere', mode => '{mode}', after => ARRAY[{id}]::int8[], max_attempts => 1"
            ));
            assert_eq!(session.wait_task(child), "failed");
            session.exec(&format!("SELECT background.retry({child})"));
            session.wait_task(child);
        }
        for view in [
            "tasks",
            "runs",
            "queues",
            "schedules",
            "operations",
            "running_now()",
            "metrics()",
        ] {
            if let Err(error) = session.try_rows(&format!("SELECT * FROM background.{view}")) {
                assert_eq!(error.sqlstate, "42501", "{role}: {view}: {error:?}");
            }
        }
    }
    let mut mallory = cluster.session_as("mallory");
    let id: i64 =
        mallory.value("SELECT background.parallel_execute('UPDATE public.rows SET m = 1', 'public.rows', 'n')");
    assert_eq!(
        mallory.value::<String>(&format!("SELECT background.wait_operation({id}, 30000)")),
        "done"
    );
    // Nor has a process that no session waits for. The one line is of the check that there is something to meet.
    assert_eq!(
        cluster.log().matches("ERROR:  shadowed").count(),
        1,
        "{}",
        cluster.log()
    );
    superuser.exec("ALTER DATABASE postgres RESET search_path");
    assert!(superuser.holds("NOT (SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory')"));
}

/// The scripts of the extension, in a schema that others could create in before.
#[test]
fn the_extension_in_a_schema_of_others() {
    let cluster = Cluster::start(&[]);
    let mut superuser = cluster.session();
    superuser.exec("DROP EXTENSION IF EXISTS pg_background CASCADE");
    plant(&mut superuser, "planted");
    superuser.exec("CREATE FUNCTION planted.pg_background_printable(name) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''shadowed''; END'");
    superuser.exec("CREATE EXTENSION pg_background SCHEMA planted");
    superuser.exec("SELECT planted.pg_background_run('SELECT 1')");
    assert!(superuser.holds("(SELECT count(*) > 10 FROM planted.pg_background_metrics())"));
    assert!(superuser.holds("(SELECT length(planted.pg_background_openmetrics()) > 100)"));
    for view in ["list", "activity", "jobs", "cluster_stats"] {
        superuser.rows(&format!("SELECT * FROM planted.pg_background_{view}"));
    }
    superuser.exec("CREATE EXTENSION pg_background_tasks; SELECT background.status()");
    superuser.exec("CREATE ROLE alice; SELECT planted.pg_background_grant_privileges('alice'), planted.pg_background_revoke_privileges('alice')");
}
