//! Compares one session with dblink and with local execution.

use crate::measure::{Bench, Effort, Samples, median, percentile};
use crate::report::{Goal, Line, Unit, Workers};
use crate::side::Side;

const MILLION: &str = "SELECT g, 'row number ' || g, now() FROM generate_series(1, 1000000) g";
/// A million rows, with more to compute for each.
pub const COMPUTED: &str = "SELECT g::int, 'row number ' || g, timestamptz '2026-01-01 00:00+00' + g * interval '1 s' \
                       FROM generate_series(1, 1000000) g";
/// The rows of [`COMPUTED`], read from a table.
const STORED: &str = "SELECT a, b, c FROM stored";
const MILLION_COLUMNS: &str = "AS (a int, b text, c timestamptz)";
const WIDE: &str = "SELECT g::int, repeat(md5(g::text), 32) FROM generate_series(1, 200000) g";
const WIDE_COLUMNS: &str = "AS (a int, b text)";
const ONE: &str = "SELECT 1";
const ONE_COLUMN: &str = "AS (x int)";
const INSERT: &str = "INSERT INTO written VALUES (1)";

const MANY: Effort = Effort { rounds: 30, batch: 100 };
const SOME: Effort = Effort { rounds: 25, batch: 20 };
const FEW: Effort = Effort { rounds: 7, batch: 1 };

/// Median and p99 of a comparison with warm workers.
fn lines(what: &str, theirs: &Side, samples: &Samples, goal: Goal, p99: Option<Goal>) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut add = |statistic: &str, part: f64, goal: Goal| {
        lines.push(Line {
            what: format!("{what}{statistic}"),
            unit: Unit::Milliseconds,
            judged: Workers::Warm,
            warm: Some(percentile(&samples.warm, part)),
            fresh: Some(percentile(&samples.fresh, part)),
            against: theirs.name.to_owned(),
            theirs: percentile(&samples.theirs, part),
            goal,
        });
    };
    add("", 0.5, goal);
    if let Some(goal) = p99 {
        add(", p99", 0.99, goal);
    }
    lines
}

pub fn measure(bench: &mut Bench, lines_of_all: &mut Vec<Line>) {
    let mut report = |lines: Vec<Line>| {
        for line in lines {
            line.print();
            lines_of_all.push(line);
        }
    };
    let launch = Side::launch_and_result(ONE, ONE_COLUMN);
    let run = Side::run(ONE);
    let kept = Side::kept(ONE, ONE_COLUMN);
    let p99 = Some(Goal::at_most(1.2, 1.0));

    let samples = bench.duel(&launch, &kept, MANY);
    report(lines(
        "launch + result of SELECT 1",
        &kept,
        &samples,
        Goal::at_most(0.75, 0.6),
        p99,
    ));
    let samples = bench.duel(&run, &kept, MANY);
    report(lines("run of SELECT 1", &kept, &samples, Goal::at_most(0.75, 0.5), p99));

    let plain = Side::new("a plain INSERT and COMMIT", &format!("{INSERT}; COMMIT;"));
    let samples = bench.duel_of_commits(&Side::run(INSERT), &plain, MANY);
    report(lines(
        "run of an INSERT, fsync on",
        &plain,
        &samples,
        Goal::at_most(1.35, 1.2),
        None,
    ));

    // A process for each job, compared with a connection for each statement.
    let connecting = Side::new_connection(ONE, ONE_COLUMN);
    for (side, goal) in [(&launch, Goal::at_most(0.9, 0.7)), (&run, Goal::None)] {
        let samples = bench.duel(side, &connecting, SOME);
        report(vec![Line {
            what: format!("{} of SELECT 1, cold", side.name),
            unit: Unit::Milliseconds,
            judged: Workers::Fresh,
            warm: None,
            fresh: Some(median(&samples.fresh)),
            against: connecting.name.to_owned(),
            theirs: median(&samples.theirs),
            goal,
        }]);
    }

    let rows = [
        (
            "1,000,000 rows",
            MILLION,
            MILLION_COLUMNS,
            &["a", "b", "c"][..],
            Goal::at_least(3.0, 5.0),
        ),
        (
            "1,000,000 rows with computed times",
            COMPUTED,
            MILLION_COLUMNS,
            &["a", "b", "c"],
            Goal::at_least(3.0, 5.0),
        ),
        (
            "1,000,000 rows of a table",
            STORED,
            MILLION_COLUMNS,
            &["a", "b", "c"],
            Goal::at_least(3.0, 5.0),
        ),
        (
            "200,000 rows of 1 kB",
            WIDE,
            WIDE_COLUMNS,
            &["a", "b"],
            Goal::at_least(2.0, 4.0),
        ),
    ];
    for (what, query, columns, names, goal) in rows {
        let ours = Side::launch_and_result(query, columns);
        let goals = [
            (Side::kept(query, columns), goal),
            (Side::local(query, names), Goal::at_least(0.4, 0.6)),
        ];
        for (theirs, goal) in goals {
            let samples = bench.duel(&ours, &theirs, FEW);
            report(lines(
                &format!("launch + result of {what}"),
                &theirs,
                &samples,
                goal,
                None,
            ));
        }
    }
    for (what, query) in [
        ("1,000,000 rows", MILLION),
        ("1,000,000 rows with computed times", COMPUTED),
    ] {
        let ours = Side::new(
            "run_query",
            &format!(
                "PERFORM count(*) FROM pg_background_run_query({}, col_def => {}) {MILLION_COLUMNS};",
                harness::quoted(query),
                harness::quoted(MILLION_COLUMNS.trim_start_matches("AS (").trim_end_matches(')'))
            ),
        );
        let theirs = Side::kept(query, MILLION_COLUMNS);
        let samples = bench.duel(&ours, &theirs, FEW);
        report(lines(
            &format!("run_query of {what}"),
            &theirs,
            &samples,
            Goal::at_least(3.0, 5.0),
            None,
        ));
    }
}
