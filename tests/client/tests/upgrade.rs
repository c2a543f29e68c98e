//! Updates from the catalogs of older versions: an updated catalog is the same as a fresh one, and users' objects on it stay.

use harness::{Cluster, Session, plant, server_program};

/// All members of the extension: definition, privileges, comment, initial privileges.
const CATALOG: &str = "
    WITH member AS (
        SELECT classid, objid FROM pg_depend JOIN pg_extension AS extension ON refobjid = extension.oid
        WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND extname = 'pg_background'
    ), granted AS (
        SELECT 'pg_proc'::regclass AS classid, oid AS objid, proacl AS acl FROM pg_proc
        UNION ALL SELECT 'pg_class'::regclass, oid, relacl FROM pg_class
        UNION ALL SELECT 'pg_type'::regclass, oid, typacl FROM pg_type
    )
    SELECT object.type, object.identity,
        coalesce(pg_get_functiondef(proc.oid), pg_get_viewdef(class.oid), ''),
        (SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
         FROM pg_attribute WHERE attrelid = coalesce(class.oid, type.typrelid) AND attnum > 0),
        (SELECT string_agg(grantee::regrole || ' ' || privilege_type, ', ' ORDER BY grantee::regrole::text, privilege_type)
         FROM granted, aclexplode(acl) WHERE granted.classid = member.classid AND granted.objid = member.objid),
        (SELECT string_agg(grantee::regrole || ' ' || privilege_type, ', ' ORDER BY grantee::regrole::text, privilege_type)
         FROM pg_init_privs, aclexplode(initprivs) WHERE classoid = member.classid AND objoid = member.objid),
        obj_description(member.objid, member.classid::regclass::name)
    FROM member CROSS JOIN pg_identify_object(classid, objid, 0) AS object
    LEFT JOIN pg_proc AS proc ON classid = 'pg_proc'::regclass AND proc.oid = objid
    LEFT JOIN pg_class AS class ON classid = 'pg_class'::regclass AND class.oid = objid
    LEFT JOIN pg_type AS type ON classid = 'pg_type'::regclass AND type.oid = objid
    ORDER BY object.type, object.identity COLLATE \"C\"";

/// Turns this version's catalog into that of the C release's 2.0: without the new objects, with some functions in SQL, with other comments
/// and grants.
const VERSION_2_0: &str = "
    CREATE OR REPLACE VIEW pg_background_activity AS SELECT job.pid, job.cookie, job.launched_at, job.user_id, job.queue_size,
        job.state AS pgbg_state, job.sql_preview, job.last_error, job.consumed, job.label, backend.state AS backend_state,
        backend.wait_event_type, backend.wait_event, backend.xact_start, backend.query_start, backend.backend_start, backend.query
        FROM pg_background_list AS job LEFT JOIN pg_stat_activity AS backend USING (pid);
    DO $$
    DECLARE member record;
    BEGIN
        FOR member IN
            SELECT object.* FROM pg_depend JOIN pg_extension AS extension ON refobjid = extension.oid
            CROSS JOIN pg_identify_object(classid, objid, 0) AS object
            WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND extname = 'pg_background'
            AND object.identity ~ '(_params|pg_background_do|_jobs|_job_of|cluster_stats|metrics|_gauges|_printable)\\M' AND object.type <> 'type'
            ORDER BY object.identity ~ 'openmetrics' DESC, object.identity ~ 'metrics' DESC, object.type = 'view' DESC
        LOOP
            EXECUTE format('ALTER EXTENSION pg_background DROP %s %s', member.type, member.identity);
            EXECUTE format('DROP %s %s', member.type, member.identity);
        END LOOP;
        FOR member IN
            SELECT proname, oid::regprocedure AS identity, pg_get_function_arguments(oid) AS arguments,
                pg_get_function_result(oid) AS result, proname ~ 'privileges|executor' AS is_helper
            FROM pg_proc WHERE proname ~ '^pg_background_'
        LOOP
            IF member.proname ~ '_(outcome|run|run_query|drain|wait_any|cancel_by_label|purge)(_v2)?$' THEN
                EXECUTE format('CREATE OR REPLACE FUNCTION %I(%s) RETURNS %s LANGUAGE plpgsql PARALLEL RESTRICTED AS
                    ''BEGIN RAISE ''''the old one''''; END''', member.proname, member.arguments, member.result);
            ELSIF member.is_helper THEN
                EXECUTE format('CREATE OR REPLACE FUNCTION %I(%s) RETURNS %s LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS
                    ''BEGIN RAISE ''''the old one''''; END''', member.proname, member.arguments, member.result);
            END IF;
            EXECUTE format('COMMENT ON FUNCTION %s IS %L', member.identity, 'as it was');
        END LOOP;
    END
    $$;
    COMMENT ON VIEW pg_background_list IS NULL;
    COMMENT ON TYPE pg_background_error IS NULL;
    UPDATE pg_extension SET extversion = '2.0' WHERE extname = 'pg_background'";

/// The catalog of a fresh installation, in a database of its own.
fn fresh(cluster: &Cluster) -> Vec<String> {
    cluster.session().exec("CREATE DATABASE fresh");
    let mut session = cluster.session_in("fresh", "postgres");
    session.exec("CREATE EXTENSION pg_background");
    catalog(&mut session)
}

fn catalog(session: &mut Session) -> Vec<String> {
    session
        .rows(CATALOG)
        .into_iter()
        .map(|row| {
            let columns: Vec<_> = row.into_iter().map(|column| column.unwrap_or_default()).collect();
            columns.join("\n")
        })
        .collect()
}

#[track_caller]
fn assert_same(updated: Vec<String>, fresh: Vec<String>) {
    let lacking: Vec<_> = fresh.iter().filter(|object| !updated.contains(object)).collect();
    let surplus: Vec<_> = updated.iter().filter(|object| !fresh.contains(object)).collect();
    assert!(
        lacking.is_empty() && surplus.is_empty(),
        "lacking: {lacking:#?}\nsurplus: {surplus:#?}"
    );
}

/// A user's objects and grants, and a job through each of them afterwards.
const USE: &str = "
    CREATE ROLE app; CREATE ROLE member IN ROLE pgbackground_role;
    GRANT EXECUTE ON FUNCTION pg_background_launch(text, int) TO app;
    CREATE VIEW my_jobs AS SELECT pid, label FROM pg_background_list;
    CREATE FUNCTION my_outcome(job pg_background_handle) RETURNS pg_background_outcome LANGUAGE sql
        BEGIN ATOMIC SELECT pg_background_outcome((job).pid, (job).cookie); END;
    CREATE TABLE my_handles (job pg_background_handle)";

#[track_caller]
fn assert_usable(session: &mut Session) {
    session.exec(
        "INSERT INTO my_handles SELECT pg_background_launch('SELECT 1', 0, 'kept');
         SELECT pg_background_wait((job).pid, (job).cookie) FROM my_handles",
    );
    assert_eq!(session.value::<String>("SELECT label FROM my_jobs"), "kept");
    assert_eq!(
        session.value::<String>("SELECT (my_outcome(job)).state FROM my_handles"),
        "stopped"
    );
    assert!(session.holds("has_function_privilege('app', 'pg_background_launch(text, int)', 'EXECUTE')"));
    assert!(session.holds("NOT has_function_privilege('app', 'pg_background_purge()', 'EXECUTE')"));
    session.exec("REVOKE EXECUTE ON FUNCTION pg_background_launch(text, int) FROM app");
}

#[test]
fn from_2_0() {
    let cluster = Cluster::start(&[]);
    let fresh = fresh(&cluster);
    let mut session = cluster.session();
    session.exec(VERSION_2_0);
    session.exec(USE);
    assert_ne!(catalog(&mut session), fresh, "the older catalog is another one");
    session.exec("ALTER EXTENSION pg_background UPDATE");
    assert_usable(&mut session);
    assert_same(catalog(&mut session), fresh);
}

/// Replaces the catalog of `version`. Its members are the objects of the given statements: functions whose C symbols this library lacks,
/// with other arguments and results.
fn replace_catalog(session: &mut Session, version: &str, statements: &[&str]) {
    session.exec(
        "DO $$
        DECLARE member record;
        BEGIN
            FOR member IN
                SELECT object.* FROM pg_depend JOIN pg_extension AS extension ON refobjid = extension.oid
                CROSS JOIN pg_identify_object(classid, objid, 0) AS object
                WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND extname = 'pg_background'
                AND object.identity !~ '\\[\\]$' AND NOT EXISTS (SELECT FROM pg_type JOIN pg_class ON pg_class.oid = typrelid
                    WHERE classid = 'pg_type'::regclass AND pg_type.oid = objid AND relkind <> 'c')
                ORDER BY object.identity ~ 'openmetrics' DESC, object.identity ~ 'metrics' DESC,
                    object.type = 'view' DESC, object.type <> 'type' DESC, objid DESC
            LOOP
                EXECUTE format('ALTER EXTENSION pg_background DROP %s %s', member.type, member.identity);
                EXECUTE format('DROP %s %s', member.type, member.identity);
            END LOOP;
        END
        $$",
    );
    session.exec("SET check_function_bodies = off");
    for statement in statements {
        session.exec(statement);
    }
    session.exec(&format!(
        "RESET check_function_bodies;
        DO $$
        DECLARE member record;
        BEGIN
            FOR member IN
                SELECT 'TYPE' AS kind, typname::text AS name FROM pg_type JOIN pg_class ON pg_class.oid = typrelid
                WHERE typname ~ '^pg_background' AND relkind = 'c'
                UNION ALL SELECT 'VIEW', relname FROM pg_class WHERE relname ~ '^pg_background' AND relkind = 'v'
                UNION ALL SELECT 'FUNCTION', oid::regprocedure::text FROM pg_proc WHERE proname ~ '^(pg_background|grant_pg|revoke_pg)'
            LOOP
                EXECUTE format('ALTER EXTENSION pg_background ADD %s %s', member.kind, member.name);
            END LOOP;
        END
        $$;
        UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'pg_background'"
    ));
}

const OLD_HANDLES: &[&str] = &[
    "CREATE TYPE pg_background_handle AS (pid int4, cookie int8)",
    "CREATE FUNCTION pg_background_launch(sql text, queue_size int4 DEFAULT 65536) RETURNS int4 STRICT LANGUAGE c
        AS '$libdir/pg_background'",
    "CREATE FUNCTION pg_background_result(pid int4) RETURNS SETOF record STRICT LANGUAGE c AS '$libdir/pg_background'",
    "CREATE FUNCTION pg_background_detach(pid int4) RETURNS void STRICT LANGUAGE c AS '$libdir/pg_background'",
    "CREATE FUNCTION pg_background_detach_v2(pid int4, cookie int8) RETURNS void LANGUAGE c AS '$libdir/pg_background'",
    "CREATE FUNCTION pg_background_list_v2() RETURNS SETOF record LANGUAGE c AS '$libdir/pg_background'",
    "CREATE FUNCTION grant_pg_background_privileges(role_name text, print_commands bool DEFAULT false) RETURNS bool
        LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN true; END'",
];

/// `launch_v2` of 1.9 and 1.10.
const LAUNCH_1_10: &str =
    "CREATE FUNCTION pg_background_launch_v2(sql text, queue_size int4 DEFAULT 0) RETURNS pg_background_handle
    STRICT LANGUAGE c AS '$libdir/pg_background'";

/// Others could create in the extension's schema before its update.
#[test]
fn in_a_schema_of_others() {
    let cluster = Cluster::start(&[]);
    for (database, version) in [("from_2_0", "2.0"), ("from_1_10", "1.10")] {
        cluster.session().exec(&format!("CREATE DATABASE {database}"));
        let mut session = cluster.session_in(database, "postgres");
        session.exec("CREATE EXTENSION pg_background");
        match version {
            "2.0" => session.exec(VERSION_2_0),
            _ => {
                let mut statements = OLD_HANDLES.to_vec();
                statements.extend([LAUNCH_1_10, "CREATE VIEW pg_background_list AS SELECT 1 AS pid"]);
                replace_catalog(&mut session, version, &statements);
            }
        }
        plant(&mut session, "public");
        session.exec("ALTER EXTENSION pg_background UPDATE");
        assert!(session.holds("(SELECT extversion = '2.1' FROM pg_extension WHERE extname = 'pg_background')"));
        assert!(session.holds("(SELECT count(*) > 10 FROM public.pg_background_metrics())"));
        session.rows("SELECT public.pg_background_openmetrics()");
    }
}

#[test]
fn from_1_x() {
    let cluster = Cluster::start(&[]);
    let fresh = fresh(&cluster);
    for (version, launch, more) in [
        (
            "1.8",
            "CREATE FUNCTION pg_background_launch_v2(sql text, queue_size int4 DEFAULT 65536) RETURNS pg_background_handle
                STRICT LANGUAGE c AS '$libdir/pg_background'",
            "SELECT",
        ),
        (
            "1.9",
            LAUNCH_1_10,
            "CREATE TYPE pg_background_result_info AS (row_count int8, command_tag text, completed bool, has_error bool)",
        ),
        (
            "1.10",
            LAUNCH_1_10,
            "CREATE VIEW pg_background_list AS SELECT 1 AS pid",
        ),
    ] {
        let name = version.replace('.', "_");
        cluster
            .session()
            .exec(&format!("CREATE DATABASE from_{name}"));
        let mut session = cluster.session_in(&format!("from_{name}"), "postgres");
        session.exec("CREATE EXTENSION pg_background");
        let mut statements = OLD_HANDLES.to_vec();
        statements.extend([launch, more]);
        replace_catalog(&mut session, version, &statements);
        session.exec(
            "CREATE TABLE my_handles (job pg_background_handle);
             CREATE FUNCTION my_detach(pg_background_handle) RETURNS void LANGUAGE sql
                BEGIN ATOMIC SELECT pg_background_detach_v2(($1).pid, ($1).cookie); END",
        );
        session.exec("ALTER EXTENSION pg_background UPDATE");
        assert_same(catalog(&mut session), fresh.clone());
        session.exec("INSERT INTO my_handles SELECT pg_background_launch_v2('SELECT 1')");
        session.exec("SELECT my_detach(job) FROM my_handles");
        assert_eq!(session.value::<i32>("SELECT count(*) FROM pg_background_list"), 0);
    }
}

#[test]
fn what_would_take_a_users_object_along_is_refused() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    replace_catalog(&mut session, "1.8", OLD_HANDLES);
    session.exec(
        "CREATE FUNCTION my_launch() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT pg_background_launch('SELECT 1'); END",
    );
    let error = session.error("ALTER EXTENSION pg_background UPDATE");
    assert_eq!(error.sqlstate, "2BP01", "{error:?}");
    assert!(error.detail.contains("my_launch"), "{error:?}");
    assert_eq!(
        session.value::<String>("SELECT extversion FROM pg_extension WHERE extname = 'pg_background'"),
        "1.8"
    );
}

#[test]
fn dump_and_restore() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec(USE);
    let before = catalog(&mut session);
    let dump = |database: &str| {
        let output = server_program("pg_dump")
            .args(["--inserts", "-U", "postgres", "-d", database, "-h"])
            .arg(cluster.socket_dir())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Each dump has a random word that protects a restoring psql from commands in the data.
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    let text = dump("postgres");
    session.exec("CREATE DATABASE restored");
    let mut restored = cluster.session_in("restored", "postgres");
    restored.exec(&text);
    // The dump has emptied the search path.
    let mut restored = cluster.session_in("restored", "postgres");
    assert_same(catalog(&mut restored), before);
    assert_eq!(dump("restored"), text);
    assert_usable(&mut restored);
}

#[test]
fn grants_survive_update_and_dump() {
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec(VERSION_2_0);
    session.exec(USE);
    session.exec("ALTER EXTENSION pg_background UPDATE");
    let output = server_program("pg_dump")
        .args(["-U", "postgres", "-d", "postgres", "-h"])
        .arg(cluster.socket_dir())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("GRANT ALL ON FUNCTION public.pg_background_launch(sql text, queue_size integer) TO app"),
        "{text}"
    );
}

/// A role that had all of 2.0 has all of this version, even after a dump. A role that had a part has that part, and what a view in it
/// calls.
#[test]
fn who_had_all_of_2_0_gets_what_is_new() {
    const NEW: [&str; 2] = [
        "SELECT count(*) FROM pg_background_jobs",
        "CALL pg_background_do('SELECT 1')",
    ];
    let cluster = Cluster::start(&[]);
    let mut session = cluster.session();
    session.exec(
        "CREATE ROLE whole LOGIN; CREATE ROLE \"Odd, one\" LOGIN; CREATE ROLE nearly LOGIN; CREATE ROLE watcher LOGIN; CREATE ROLE nobody LOGIN;
         SELECT pg_background_grant_privileges(role) FROM unnest(ARRAY['whole', 'Odd, one', 'nearly']) AS role;
         REVOKE EXECUTE ON FUNCTION pg_background_purge_v2() FROM nearly;
         GRANT EXECUTE ON FUNCTION pg_background_list() TO watcher;
         GRANT SELECT ON pg_background_list, pg_background_activity TO watcher",
    );
    session.exec("CREATE DATABASE restored");
    session.exec(VERSION_2_0);
    session.exec("ALTER EXTENSION pg_background UPDATE");
    let output = server_program("pg_dump")
        .args(["-U", "postgres", "-d", "postgres", "-h"])
        .arg(cluster.socket_dir())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dump: String = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with("\\"))
        .map(|line| format!("{line}\n"))
        .collect();
    cluster.session_in("restored", "postgres").exec(&dump);

    for database in ["postgres", "restored"] {
        for role in ["whole", "Odd, one"] {
            let mut user = cluster.session_in(database, role);
            for sql in NEW {
                user.exec(sql);
            }
            user.exec("SELECT * FROM pg_background_activity; SELECT pg_background_purge_v2()");
            for helper in [
                "reset_cluster_stats()",
                "drop_executor_role()",
                "grant_privileges('nobody')",
            ] {
                assert_eq!(user.error(&format!("SELECT pg_background_{helper}")).sqlstate, "42501");
            }
        }
        for role in ["nearly", "watcher", "nobody"] {
            let mut user = cluster.session_in(database, role);
            for sql in NEW {
                assert_eq!(user.error(sql).sqlstate, "42501", "{role}: {sql}");
            }
        }
        for role in ["nearly", "watcher"] {
            cluster
                .session_in(database, role)
                .exec("SELECT * FROM pg_background_activity");
        }
        // What the update granted is revoked like the rest, and then nothing depends on the role.
        let mut superuser = cluster.session_in(database, "postgres");
        for role in ["whole", "Odd, one", "nearly"] {
            assert!(superuser.holds(&format!("pg_background_revoke_privileges('{role}')")));
        }
    }
    session.exec("DROP ROLE whole, \"Odd, one\", nearly, nobody");
}
