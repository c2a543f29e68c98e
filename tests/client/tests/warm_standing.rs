//! An idle worker is not used if a new connection would get something else: roles, databases, their settings, their rights and the
//! extension change between jobs.

use harness::order::Step::{Admin, Connect, Job};
use harness::order::{Order, Step, compare};
use harness::{Cluster, KEPT, wait_for};

const SETUP: &str = "
    CREATE ROLE alice LOGIN;
    CREATE ROLE chief LOGIN SUPERUSER;
    GRANT pgbackground_role TO alice, chief;
    CREATE TABLE secret (owner name, n int);
    INSERT INTO secret VALUES ('postgres', 1), ('alice', 10);
    ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON secret USING (owner = current_user);
    GRANT SELECT ON secret TO alice;
    CREATE EXTENSION dblink;
";

const fn order(name: &'static str, role: &'static str, steps: &'static [Step]) -> Order {
    Order {
        name,
        role,
        steps,
        keeps_worker: false,
        shows: false,
    }
}

const fn alice(name: &'static str, steps: &'static [Step]) -> Order {
    order(name, "alice", steps)
}

const SHOW: &str = "SELECT current_setting('work_mem') || current_setting('search_path') || coalesce(current_setting('a.b', true), '-')";
const RESET: &str =
    "RESET work_mem; RESET search_path; SELECT current_setting('work_mem') || current_setting('search_path')";
const RIGHTS: &str =
    "SELECT session_user || current_user || current_setting('is_superuser') || (SELECT sum(n) FROM secret)";
const HASHES: &str = "SELECT count(rolpassword)::text FROM pg_authid";

#[test]
fn what_a_new_connection_would_get() {
    let start = |workers| {
        let cluster = Cluster::start(&[workers]);
        cluster.session().exec(SETUP);
        cluster
    };
    let warm = start(KEPT);
    let fresh = start("pg_background.worker_idle_timeout = 0");
    let plain = start("pg_background.worker_idle_timeout = 0");
    compare(
        &warm,
        &fresh,
        &plain,
        &[
            alice(
                "ALTER ROLE SET",
                &[
                    Job(RESET),
                    Admin("ALTER ROLE alice SET work_mem = '7MB'; ALTER ROLE alice SET a.b = 'role'"),
                    Job(SHOW),
                    Job(RESET),
                    Connect("alice"),
                    Job(SHOW),
                    Job(RESET),
                    Admin("ALTER ROLE alice SET work_mem = '8MB'; ALTER ROLE alice SET a.b = 'other'"),
                    Connect("alice"),
                    Job(SHOW),
                    Job(RESET),
                    Admin("ALTER ROLE alice RESET ALL"),
                    Connect("alice"),
                    Job(SHOW),
                    Job(RESET),
                ],
            ),
            alice(
                "ALTER DATABASE SET",
                &[
                    Job(RESET),
                    Admin(
                        "ALTER DATABASE postgres SET work_mem = '7MB'; ALTER DATABASE postgres SET search_path = pg_catalog, public",
                    ),
                    Job(SHOW),
                    Job(RESET),
                    Connect("alice"),
                    Job(SHOW),
                    Job(RESET),
                    Admin("ALTER DATABASE postgres RESET ALL"),
                    Connect("alice"),
                    Job(SHOW),
                    Job(RESET),
                ],
            ),
            alice(
                "ALTER ROLE ALL SET, ALTER ROLE IN DATABASE SET",
                &[
                    Job(RESET),
                    Admin("ALTER ROLE ALL SET work_mem = '7MB'"),
                    Connect("alice"),
                    Job(RESET),
                    Admin("ALTER ROLE alice IN DATABASE postgres SET work_mem = '8MB'"),
                    Connect("alice"),
                    Job(RESET),
                    Admin("ALTER ROLE ALL RESET ALL; ALTER ROLE alice IN DATABASE postgres RESET ALL"),
                    Connect("alice"),
                    Job(RESET),
                ],
            ),
            alice(
                "libraries that a new connection loads",
                &[
                    Job("SELECT coalesce(current_setting('auto_explain.log_format', true), 'none')"),
                    Admin("ALTER ROLE alice SET session_preload_libraries = 'auto_explain'"),
                    Connect("alice"),
                    Job("SELECT coalesce(current_setting('auto_explain.log_format', true), 'none')"),
                    Admin("ALTER ROLE alice RESET ALL"),
                    Connect("alice"),
                    Job("SELECT coalesce(current_setting('auto_explain.log_format', true), 'none')"),
                ],
            ),
            order(
                "SUPERUSER taken",
                "chief",
                &[
                    Job(RIGHTS),
                    Job(HASHES),
                    Admin("ALTER ROLE chief NOSUPERUSER"),
                    Job(HASHES),
                    Job("SELECT session_user || current_user || current_setting('is_superuser')"),
                    Connect("chief"),
                    Job(HASHES),
                    Job("SET session_replication_role = replica"),
                    Job("SET SESSION AUTHORIZATION postgres; SELECT current_user::text"),
                    Admin("ALTER ROLE chief SUPERUSER"),
                    Job(HASHES),
                    Connect("chief"),
                    Job(RIGHTS),
                    Job("SET SESSION AUTHORIZATION alice; SELECT current_user::text"),
                ],
            ),
            alice(
                "SUPERUSER and BYPASSRLS given",
                &[
                    Job(RIGHTS),
                    Admin("ALTER ROLE alice BYPASSRLS"),
                    Job(RIGHTS),
                    Admin("ALTER ROLE alice NOBYPASSRLS SUPERUSER"),
                    Job(RIGHTS),
                    Job("SET SESSION AUTHORIZATION chief; SELECT current_user::text"),
                    Admin("ALTER ROLE alice NOSUPERUSER"),
                    Job(RIGHTS),
                    Job(HASHES),
                ],
            ),
            alice(
                "CONNECT revoked",
                &[
                    Job(RIGHTS),
                    Admin("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC"),
                    Job(RIGHTS),
                    Admin("GRANT CONNECT ON DATABASE postgres TO PUBLIC"),
                    Job(RIGHTS),
                ],
            ),
            alice(
                "NOLOGIN",
                &[
                    Job(RIGHTS),
                    Admin("ALTER ROLE alice NOLOGIN"),
                    Job(RIGHTS),
                    Admin("ALTER ROLE alice LOGIN"),
                    Job(RIGHTS),
                ],
            ),
            alice(
                "connection limits",
                &[
                    Job(RIGHTS),
                    Admin("ALTER ROLE alice CONNECTION LIMIT 0"),
                    Job(RIGHTS),
                    Admin("ALTER ROLE alice CONNECTION LIMIT -1; ALTER DATABASE postgres CONNECTION LIMIT 0"),
                    Job(RIGHTS),
                    Admin("ALTER DATABASE postgres CONNECTION LIMIT -1"),
                    Job(RIGHTS),
                ],
            ),
            alice(
                "a role with another name",
                &[
                    Job(RIGHTS),
                    Admin("ALTER ROLE alice RENAME TO anna"),
                    Job(RIGHTS),
                    Job("RESET ROLE; SELECT current_user::text"),
                    Admin("ALTER ROLE anna RENAME TO alice"),
                    Job(RIGHTS),
                ],
            ),
            order(
                "a role that is dropped",
                "postgres",
                &[
                    Admin("CREATE ROLE gone LOGIN; GRANT pgbackground_role TO gone"),
                    Connect("gone"),
                    Job("SELECT current_user::text"),
                    Admin("DROP ROLE gone"),
                    Job("SELECT current_user::text"),
                    Admin("CREATE ROLE gone LOGIN; GRANT pgbackground_role TO gone"),
                    Connect("gone"),
                    Job("SELECT current_user::text"),
                ],
            ),
            alice(
                "the extension made anew",
                &[
                    Job("SELECT pg_background_report_progress(1); SELECT 'one'"),
                    Admin("DROP EXTENSION pg_background; CREATE EXTENSION pg_background"),
                    Job("SELECT pg_background_report_progress(2); SELECT 'two'"),
                ],
            ),
        ],
    );
}

/// Reloaded configuration files apply to the next job too.
#[test]
fn the_configuration_is_read_again() {
    let cluster = Cluster::start(&[KEPT]);
    let mut session = cluster.session();
    for value in ["321ms", "322ms", "323ms"] {
        session.exec("SELECT pg_background_run('SELECT 1')");
        session.exec(&format!("ALTER SYSTEM SET bgwriter_delay = '{value}'"));
        session.exec("SELECT pg_reload_conf()");
        wait_for("the new configuration in a job", || {
            let job = session.launch("SHOW bgwriter_delay");
            session.value::<String>(&format!("SELECT x FROM pg_background_result({job}) AS (x text)")) == value
        });
    }
}
