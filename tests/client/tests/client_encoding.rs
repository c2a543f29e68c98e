//! The client encoding of a job is that of its session, or the one that the job sets. The job's messages and errors arrive complete,
//! whatever characters that encoding lacks.

use harness::{Cluster, Session, give_to_server, quoted};
use std::path::Path;

/// A table and procedures that load a file into it, in the client's encoding.
fn start(settings: &[&str]) -> (Cluster, Session) {
    let cluster = Cluster::start(settings);
    let mut session = cluster.session();
    let file = |name: &str, bytes: &[u8]| {
        let path = cluster.data().join(name);
        std::fs::write(&path, bytes).unwrap();
        give_to_server(&path);
        text(&path)
    };
    let latin = file("latin", b"caf\xe9\n");
    let japanese = file("japanese", b"\xa4\xa2\n");
    session.exec(&format!(
        "CREATE EXTENSION file_fdw;
         CREATE TABLE loaded (t text);
         CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
         CREATE FOREIGN TABLE latin (t text) SERVER files OPTIONS (filename '{latin}');
         CREATE PROCEDURE load() LANGUAGE plpgsql AS $$ BEGIN COPY loaded FROM '{latin}'; COMMIT; END $$;
         CREATE PROCEDURE load_japanese() LANGUAGE plpgsql AS $$ BEGIN COPY loaded FROM '{japanese}'; END $$;"
    ));
    (cluster, session)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Returns the loaded text as code points, and empties the table.
fn loaded(session: &mut Session) -> String {
    let found = session
        .value("SELECT string_agg(ascii(c)::text, ' ') FROM (SELECT regexp_split_to_table(t, '') c FROM loaded) s");
    session.exec("TRUNCATE loaded");
    found
}

const CAFE: &str = "99 97 102 233";

#[track_caller]
fn run(session: &mut Session, sql: &str) -> (String, Option<String>) {
    let mut rows = session.rows(&format!(
        "SELECT state, sqlstate FROM pg_background_run({})",
        quoted(sql)
    ));
    let mut row = rows.remove(0);
    (row[0].take().unwrap(), row[1].take())
}

#[track_caller]
fn assert_runs(session: &mut Session, sql: &str) {
    assert_eq!(run(session, sql), ("stopped".into(), None), "{sql}");
}

#[test]
fn what_reads_in_the_clients_encoding() {
    let (_cluster, mut session) = start(&[]);
    for _ in 0..2 {
        session.exec("SET client_encoding = 'LATIN1'");
        for job in [
            "CALL load()",
            "DO $$ BEGIN COMMIT; CALL load(); END $$",
            "INSERT INTO loaded SELECT * FROM latin",
        ] {
            assert_runs(&mut session, job);
            assert_eq!(loaded(&mut session), CAFE, "{job}");
        }
        let shown: String = session.value(
            "SELECT * FROM pg_background_run_query('SELECT pg_client_encoding()::text', col_def => 'n text') AS (n text)",
        );
        assert_eq!(shown, "LATIN1");
        // A caught error, a message and a discarded message do not change it.
        for level in ["notice", "error"] {
            let job = format!(
                "SET client_min_messages = {level};
                 DO $$ BEGIN
                     BEGIN RAISE EXCEPTION '%', chr(12354); EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%', SQLERRM; END;
                     RAISE WARNING '%', chr(233);
                     COPY loaded FROM '{}';
                 END $$",
                session.value::<String>(
                    "SELECT option_value FROM pg_options_to_table((SELECT ftoptions FROM pg_foreign_table))"
                )
            );
            assert_runs(&mut session, &job);
            assert_eq!(loaded(&mut session), CAFE, "{job}");
        }
        // What the job sets applies from then on.
        assert_runs(&mut session, "SET client_encoding = 'EUC_JP'; CALL load_japanese()");
        assert_eq!(loaded(&mut session), "12354");
        assert_runs(
            &mut session,
            "DO $$ BEGIN PERFORM set_config('client_encoding', 'EUC_JP', true); CALL load_japanese(); END $$",
        );
        assert_eq!(loaded(&mut session), "12354");
        assert_runs(&mut session, "CALL load()");
        assert_eq!(loaded(&mut session), CAFE);
        // It does not apply to the next job, which has the session's encoding.
        session.exec("SET client_encoding = 'UTF8'");
        assert_eq!(run(&mut session, "CALL load()"), ("error".into(), Some("22021".into())));
        // Text for this encoding is neither converted nor verified.
        session.exec("SET client_encoding = 'SQL_ASCII'");
        assert_eq!(
            run(&mut session, "CALL load()").1,
            session.try_rows("CALL load()").err().map(|error| error.sqlstate)
        );
        session.exec("TRUNCATE loaded");
        session.exec("SET client_encoding = 'UTF8'");
    }
}

/// Launches a job with this client encoding, and reads it in another session, whose encoding has all characters.
fn said(cluster: &Cluster, encoding: &str, job: &str) -> (Vec<String>, Option<(String, String)>) {
    let mut session = cluster.session();
    session.exec(&format!("SET client_encoding = '{encoding}'"));
    let job = session.launch(job);
    session.wait(job);
    let mut reader = cluster.session();
    let result = reader.try_rows(&format!("SELECT * FROM pg_background_result({job}) AS (t text)"));
    let notices = reader.take_notices().iter().map(|n| n.message().to_owned()).collect();
    (notices, result.err().map(|error| (error.sqlstate, error.message)))
}

#[test]
fn messages_arrive_whole() {
    let (cluster, _session) = start(&[]);
    for encoding in ["LATIN1", "EUC_JP", "SQL_ASCII", "UTF8", "KOI8R"] {
        let job = "DO $$ BEGIN
                RAISE NOTICE 'one %', chr(233);
                RAISE WARNING 'two %', chr(12354) || chr(233) || chr(128512);
                COMMIT;
                RAISE NOTICE 'three %', chr(128512);
            END $$";
        let all = ["one é", "two あé😀", "three 😀"].map(str::to_owned).to_vec();
        assert_eq!(said(&cluster, encoding, job), (all, None), "{encoding}");
        let job = "DO $$ BEGIN RAISE NOTICE '%', chr(12354); RAISE EXCEPTION '%', chr(233) || chr(12354); END $$";
        let error = Some(("P0001".to_owned(), "éあ".to_owned()));
        assert_eq!(
            said(&cluster, encoding, job),
            (vec!["あ".to_owned()], error),
            "{encoding}"
        );
        // The same for the last message of a process that exits.
        let job = "DO $$ BEGIN RAISE NOTICE '%', chr(12354); PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(60); END $$";
        let (_, error) = said(&cluster, encoding, job);
        assert_eq!(error.unwrap().0, "08006", "{encoding}");
    }
}

#[test]
fn in_a_database_without_an_encoding() {
    let (cluster, mut session) = start(&[]);
    session.exec("CREATE DATABASE plain ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    let mut other = cluster.session_in("plain", "postgres");
    other.exec("CREATE EXTENSION pg_background");
    // Bytes that are not valid UTF8, which could not be sent to a client of that encoding.
    for encoding in ["UTF8", "SQL_ASCII"] {
        other.exec(&format!("SET client_encoding = '{encoding}'"));
        assert_runs(
            &mut other,
            "DO $$ BEGIN RAISE NOTICE E'\\xff'; COMMIT; RAISE NOTICE E'\\xfe'; END $$",
        );
        assert_eq!(
            run(&mut other, "DO $$ BEGIN RAISE EXCEPTION E'\\xff'; END $$"),
            ("error".into(), Some("P0001".into()))
        );
    }
}
