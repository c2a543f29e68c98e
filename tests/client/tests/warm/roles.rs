//! The role of a job, and plans and rights that depend on it.

use harness::order::Step::{Admin, Job, Session};
use harness::quoted;

use crate::{SETUP, alice, cleared, cluster, left, run, silent};

#[test]
fn roles() {
    const WHO_AM_I: &str = "SELECT session_user || ' ' || current_user || ' ' || current_setting('role') || ' ' || current_setting('is_superuser')";
    run(&[
        cleared("SET ROLE", &[Job("SET ROLE alice"), Job(WHO_AM_I)]),
        cleared(
            "SET SESSION AUTHORIZATION",
            &[Job("SET SESSION AUTHORIZATION alice"), Job(WHO_AM_I)],
        ),
        alice(cleared(
            "SET ROLE of a plain user",
            &[Job("SET ROLE bob"), Job(WHO_AM_I)],
        )),
        silent(cleared(
            "the session's role",
            &[
                Session("SET ROLE alice"),
                Job(WHO_AM_I),
                Session("SET ROLE bob"),
                Job(WHO_AM_I),
                Job("RESET ROLE"),
                Job(WHO_AM_I),
                Session("RESET ROLE"),
                Job(WHO_AM_I),
            ],
        )),
        silent(left(
            "the session's authorization",
            &[
                Job(WHO_AM_I),
                Session("SET SESSION AUTHORIZATION alice"),
                Job(WHO_AM_I),
                Job("RESET SESSION AUTHORIZATION"),
                Session("RESET SESSION AUTHORIZATION"),
                Job(WHO_AM_I),
            ],
        )),
        silent(alice(cleared(
            "a job of a SECURITY DEFINER function, then the caller's own",
            &[
                Job(WHO_AM_I),
                Session("SELECT run_as_owner('CREATE TABLE of_the_owner (n int)')"),
                Job(WHO_AM_I),
                Job("SELECT n::text FROM of_the_owner"),
                Job("SET ROLE bob; SELECT current_user::text"),
                Job("RESET ROLE; SELECT current_user::text"),
                Session("SELECT run_as_owner('SET ROLE bob')"),
                Job("SET SESSION AUTHORIZATION postgres"),
                Job(WHO_AM_I),
            ],
        ))),
        silent(left(
            "a plan that depends on row level security",
            &[
                Job("SELECT seen()::text"),
                Session("SET ROLE alice"),
                Job("SELECT seen()::text"),
                Session("SET ROLE bob"),
                Job("SELECT seen()::text"),
                Job("SELECT seen_as_owner()::text"),
                Session("RESET ROLE"),
                Job("SELECT seen()::text"),
                Session("SET row_security = off; SET ROLE alice"),
                Job("SELECT seen()::text"),
            ],
        )),
        left(
            "a plan after SET ROLE in the job",
            &[Job("SET ROLE alice; SELECT seen()::text"), Job("SELECT seen()::text")],
        ),
        silent(alice(left(
            "rights that are taken between jobs",
            &[
                Job("SELECT seen()::text"),
                Admin("REVOKE SELECT ON secret FROM alice"),
                Job("SELECT seen()::text"),
                Admin("GRANT SELECT ON secret TO alice"),
                Job("SELECT seen()::text"),
                Job("SET ROLE bob; SELECT current_user::text"),
                Admin("REVOKE bob FROM alice"),
                Job("SET ROLE bob; SELECT current_user::text"),
                Admin("GRANT bob TO alice"),
                Job("SET ROLE bob; SELECT current_user::text"),
            ],
        ))),
    ]);
}

/// A job that resets its roles becomes what its session would become, whatever the worker has done before.
#[test]
fn what_resets_return_to() {
    const WHO: &str = "SELECT session_user || ' ' || current_user || ' ' || current_setting('role') || ' ' || current_setting('is_superuser')";
    const STATES: [&str; 5] = [
        "SELECT 1",
        "SET ROLE alice",
        "SET ROLE none",
        "SET SESSION AUTHORIZATION alice",
        "SET SESSION AUTHORIZATION bob; SET work_mem = '5MB'; SET datestyle = german",
    ];
    const TEXTS: [&str; 6] = [
        "RESET SESSION AUTHORIZATION",
        "RESET ROLE",
        "RESET SESSION AUTHORIZATION; RESET ROLE",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SET work_mem = '6MB'",
        "RESET ALL",
    ];
    let cluster = cluster(SETUP, "pg_background.worker_idle_timeout = '10min'");
    for of_role in ["RESET role", "SET role = bob"] {
        cluster.session().exec(&format!(
            "SET ROLE none; GRANT pgbackground_role TO bob; ALTER ROLE postgres {of_role}"
        ));
        let expected = STATES.map(|state| {
            TEXTS.map(|text| {
                let mut session = cluster.session();
                session.exec(&format!("{state}; {text}"));
                session.text(WHO)
            })
        });
        let mut session = cluster.session();
        for before in STATES {
            for (state, expected) in STATES.iter().zip(&expected) {
                for (text, expected) in TEXTS.iter().zip(expected) {
                    let mut job = |state: &str, text: &str| {
                        session.exec(&format!("RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; {state}"));
                        session.text(&format!(
                            "SELECT r FROM pg_background_run_query({}, col_def => 'r text') AS (r text)",
                            quoted(&format!("{text}; {WHO}"))
                        ))
                    };
                    job(before, "SELECT 1");
                    assert_eq!(&job(state, text), expected, "{of_role}; {before}; then {state}: {text}");
                }
            }
        }
    }
}
