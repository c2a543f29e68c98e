//! Repeated texts, whose parse trees a worker retains.

use harness::order::Step::{Admin, Job, Session};

use crate::{cleared, left, run, silent};

const LONG_NAME: &str = "SELECT '1' AS a_name_that_is_longer_than_the_sixty_three_bytes_that_postgresql_keeps_of_it";

const ESCAPES: &str = r"SELECT 'a\\b' || length('\\')";

/// The same text from a session in which a backslash in a string is an escape character.
const ESCAPES_ESCAPED: &str = r"SELECT 'a\\\\b' || length('\\\\')";

const SHADE: &str = "SELECT x FROM shade";

const SHADES: &str = "SELECT s::text FROM (SELECT * FROM shades) s";

/// Statements whose trees analysis rewrites.
const MADE_AND_DROPPED: &str = "
    CREATE TABLE made (a serial PRIMARY KEY, b int DEFAULT 1 + 1 CHECK (b > 0), c text COLLATE \"C\" UNIQUE,
        LIKE shade INCLUDING ALL);
    CREATE INDEX ON made ((b + 1)) WHERE a > 0;
    CREATE VIEW seen_of_made AS SELECT a, b FROM made WHERE c IN ('x', 'y') AND a BETWEEN 1 AND 9;
    CREATE RULE added AS ON INSERT TO made DO ALSO SELECT NEW.a;
    ALTER TABLE made ADD d int GENERATED ALWAYS AS IDENTITY, ALTER b TYPE bigint USING b + 1;
    INSERT INTO made (c) VALUES ('x'), (DEFAULT) RETURNING a, b, c;
    WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3) SELECT n FROM t;
    DROP TABLE made CASCADE";

#[test]
fn texts() {
    run(&[
        silent(cleared(
            "the parser says what it has to say each time",
            &[Job(LONG_NAME), Job(LONG_NAME), Job(LONG_NAME), Job(LONG_NAME)],
        )),
        silent(cleared(
            "the settings of the parser change",
            &[
                Job(ESCAPES),
                Job(ESCAPES),
                Job(ESCAPES),
                Session("SET escape_string_warning = off; SET standard_conforming_strings = off"),
                Job(ESCAPES_ESCAPED),
                Job(ESCAPES_ESCAPED),
                Job(ESCAPES_ESCAPED),
                Session("SET escape_string_warning = on"),
                Job(ESCAPES_ESCAPED),
                Job(ESCAPES_ESCAPED),
                Job(ESCAPES_ESCAPED),
                Session("RESET standard_conforming_strings"),
                Job(ESCAPES),
                Job(ESCAPES),
            ],
        )),
        silent(cleared(
            "a job changes them for what it says itself",
            &[
                Job(ESCAPES),
                Job(ESCAPES),
                Job("SET standard_conforming_strings = off"),
                Job(ESCAPES),
                Job(ESCAPES),
            ],
        )),
        silent(cleared(
            "names mean something else",
            &[
                Job(SHADE),
                Job(SHADE),
                Job(SHADE),
                Session("SET search_path = other"),
                Job(SHADE),
                Job(SHADE),
                Session("RESET search_path"),
                Job(SHADE),
            ],
        )),
        silent(left(
            "a table comes, changes and goes",
            &[
                Job(SHADES),
                Job(SHADES),
                Admin("CREATE TABLE shades AS SELECT 1 AS a; GRANT ALL ON shades TO PUBLIC"),
                Job(SHADES),
                Job(SHADES),
                Admin("ALTER TABLE shades ADD b text DEFAULT 'b', ALTER a TYPE numeric USING a + 0.5"),
                Job(SHADES),
                Admin("DROP TABLE shades"),
                Job(SHADES),
            ],
        )),
        silent(cleared(
            "texts take turns",
            &[
                Job("SELECT '1'"),
                Job("SELECT '1'"),
                Job("SELECT '12'"),
                Job("SELECT '12'"),
                Job("SELECT '13'"),
                Job("SELECT '1'"),
                Job("SELECT '1' "),
                Job("SELECT '1' "),
                Job(""),
                Job(""),
                Job("SELECT '1'; SELECT '2'"),
                Job("SELECT '1'; SELECT '2'"),
                Job("SELECT '1'; SELECT '2'"),
            ],
        )),
        silent(cleared(
            "what analysis rewrites",
            &[
                Job(MADE_AND_DROPPED),
                Job(MADE_AND_DROPPED),
                Job(MADE_AND_DROPPED),
                Job(MADE_AND_DROPPED),
            ],
        )),
        silent(left(
            "an error, and where it is",
            &[
                Job("SELEC 1"),
                Job("SELEC 1"),
                Job("SELECT '1', nothing"),
                Job("SELECT '1', nothing"),
                Job("SELECT '1', nothing"),
            ],
        )),
    ]);
}
