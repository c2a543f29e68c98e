//! From the catalogs of older versions to this one: an updated catalog is the fresh one, and what users built on it stays.

use harness::{Cluster, Session};

/// All that belongs to the extension: what it is, who may use it, what is said of it, what it was created with.
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

/// Makes the catalog of the C release's 2.0 out of this version's: without what is new, some functions in SQL, other comments and
/// grants.
const VERSION_2_0: &str = "
    DO $$
    DECLARE member record;
    BEGIN
        FOR member IN
            SELECT object.* FROM pg_depend JOIN pg_extension AS extension ON refobjid = extension.oid
            CROSS JOIN pg_identify_object(classid, objid, 0) AS object
            WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND extname = 'pg_background'
            AND object.identity ~ '(_params|pg_background_do|_jobs|cluster_stats)\\M' AND object.type <> 'type'
            ORDER BY object.type = 'view' DESC
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
    CREATE OR REPLACE VIEW pg_background_activity AS SELECT job.pid, job.cookie, job.launched_at, job.user_id, job.queue_size,
        job.state AS pgbg_state, job.sql_preview, job.last_error, job.consumed, job.label, backend.state AS backend_state,
        backend.wait_event_type, backend.wait_event, backend.xact_start, backend.query_start, backend.backend_start, backend.query
        FROM pg_background_list AS job LEFT JOIN pg_stat_activity AS backend USING (pid);
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

/// A user's objects and grants; and a job through each afterwards.
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
