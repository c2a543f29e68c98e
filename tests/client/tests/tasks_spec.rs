//! The times of schedules against another computation: SQL that looks at each minute or second of a stretch of time, and asks the server what
//! the clock of the zone shows there.

use std::collections::HashMap;

use harness::{Cluster, Random, Session, quoted};

/// The seed of the random specs; `SPEC_SEED` sets another one.
fn seed() -> u64 {
    let seed = std::env::var("SPEC_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(20_270_131);
    eprintln!("SPEC_SEED={seed}");
    seed
}

fn session(cluster: &Cluster) -> Session {
    let mut session = cluster.session();
    session.exec(
        "CREATE EXTENSION pg_background_tasks CASCADE; SET datestyle = 'ISO'; SET timezone = 'UTC'; SET jit = off",
    );
    session
}

fn cluster() -> Cluster {
    Cluster::start(&["pg_background.tasks = off"])
}

/// A field as cron writes it, and what it says of `value`, an SQL expression.
struct Field {
    text: String,
    sql: String,
}

impl Field {
    fn begins_with_star(&self) -> bool {
        self.text.starts_with(['*', '?'])
    }
}

/// An element of numbers from `low` to `high`.
fn element(random: &mut Random, low: u64, high: u64, names: &[&str], value: &str) -> (String, String) {
    let span = high - low + 1;
    let name = |random: &mut Random, number: u64| match names.get((number - low) as usize) {
        Some(name) if random.below(2) == 0 => (*name).to_owned(),
        _ => number.to_string(),
    };
    let a = low + random.below(span);
    let b = a + random.below(high - a + 1);
    match random.below(4) {
        0 => {
            let step = 1 + random.below(span);
            (
                format!("{}-{}/{step}", name(random, a), name(random, b)),
                format!("({value} BETWEEN {a} AND {b} AND ({value} - {a}) % {step} = 0)"),
            )
        }
        1 => (
            format!("{}-{}", name(random, a), name(random, b)),
            format!("({value} BETWEEN {a} AND {b})"),
        ),
        _ => (name(random, a), format!("({value} = {a})")),
    }
}

fn star(random: &mut Random, low: u64, high: u64, value: &str) -> (String, String) {
    match random.below(3) {
        0 => {
            let step = 1 + random.below((high - low + 1).min(12));
            (format!("*/{step}"), format!("(({value} - {low}) % {step} = 0)"))
        }
        _ => ("*".to_owned(), "true".to_owned()),
    }
}

/// Elements with commas between them. One in `stars` fields begins with `*`.
fn field(
    random: &mut Random,
    stars: u64,
    mut element: impl FnMut(&mut Random) -> (String, String),
    mut star: impl FnMut(&mut Random) -> (String, String),
) -> Field {
    let mut elements = vec![if random.below(stars) == 0 {
        star(random)
    } else {
        element(random)
    }];
    for _ in 0..random.below(3).saturating_sub(random.below(2)) {
        elements.push(element(random));
    }
    let (texts, conditions): (Vec<_>, Vec<_>) = elements.into_iter().unzip();
    Field {
        text: texts.join(","),
        sql: format!("({})", conditions.join(" OR ")),
    }
}

const MONTHS: [&str; 12] = [
    "JAN", "feb", "Mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "MON", "tue", "Wed", "thu", "fri", "sat"];

/// The weekday of the month of `l` that is nearest to its day `day`, NULL if it has none of that number.
fn nearest(day: &str) -> String {
    format!(
        "(SELECT near::date FROM generate_series(date_trunc('month', l), date_trunc('month', l) + interval '1 month - 1 day', '1 day') AS near
          WHERE extract(isodow FROM near) < 6 AND {day} <= extract(day FROM date_trunc('month', l) + interval '1 month - 1 day')
          ORDER BY abs(near::date - (date_trunc('month', l)::date + ({day})::int - 1)) LIMIT 1)"
    )
}

const LAST: &str = "extract(day FROM date_trunc('month', l) + interval '1 month - 1 day')";

fn day(random: &mut Random) -> (String, String) {
    let n = 1 + random.below(31);
    match random.below(8) {
        0 => ("L".into(), format!("(extract(day FROM l) = {LAST})")),
        1 => ("$".into(), "(extract(day FROM l + interval '1 day') = 1)".into()),
        2 => (
            format!("L-{}", n.min(30)),
            format!("(extract(day FROM l) = {LAST} - {})", n.min(30)),
        ),
        3 => (format!("{n}W"), format!("(l::date = {})", nearest(&n.to_string()))),
        4 => ("LW".into(), format!("(l::date = {})", nearest(LAST))),
        _ => element(random, 1, 31, &[], "extract(day FROM l)::int"),
    }
}

fn weekday(random: &mut Random) -> (String, String) {
    let day = random.below(7);
    let text = if random.below(2) == 0 {
        DAYS[day as usize].to_owned()
    } else {
        day.to_string()
    };
    match random.below(6) {
        0 => (
            format!("{text}L"),
            format!(
                "(extract(dow FROM l) = {day} AND extract(month FROM l) <> extract(month FROM l + interval '7 days'))"
            ),
        ),
        1 => {
            let n = 1 + random.below(5);
            (
                format!("{text}#{n}"),
                format!("(extract(dow FROM l) = {day} AND ceil(extract(day FROM l) / 7.0) = {n})"),
            )
        }
        2 => ("7".into(), "(extract(dow FROM l) = 0)".into()),
        _ => element(random, 0, 6, &DAYS, "extract(dow FROM l)::int"),
    }
}

/// A spec, with what it says of `l`, the time that the clock shows: of the day, and of the time of day.
struct Spec {
    text: String,
    day: String,
    time: String,
    follows_clock: bool,
}

impl Spec {
    fn random(random: &mut Random, with_seconds: bool, any_month: bool) -> Self {
        let number = |part: &str| format!("extract({part} FROM l)::int");
        let simple = |random: &mut Random, part: &str, high: u64, stars: u64| {
            let value = number(part);
            field(
                random,
                stars,
                |random| element(random, 0, high, &[], &value),
                |random| star(random, 0, high, &value),
            )
        };
        let second = simple(random, "second", 59, 3);
        let minute = simple(random, "minute", 59, 3);
        let hour = simple(random, "hour", 23, 3);
        let month = number("month");
        let months = field(
            random,
            if any_month { 1 } else { 3 },
            |random| element(random, 1, 12, &MONTHS, &month),
            |random| {
                if any_month {
                    ("*".into(), "true".into())
                } else {
                    star(random, 1, 12, &month)
                }
            },
        );
        let day_of_month = number("day");
        let mut days = field(random, 2, day, |random| star(random, 1, 31, &day_of_month));
        let day_of_week = number("dow");
        let mut weekdays = field(random, 2, weekday, |random| star(random, 0, 6, &day_of_week));
        for field in [&mut days, &mut weekdays] {
            if field.text == "*" && random.below(2) == 0 {
                field.text = "?".into();
            }
        }
        let either = if days.begins_with_star() || weekdays.begins_with_star() {
            "AND"
        } else {
            "OR"
        };
        let mut text = format!(
            "{} {} {} {} {}",
            minute.text, hour.text, days.text, months.text, weekdays.text
        );
        let mut time = format!("{} AND {}", minute.sql, hour.sql);
        if with_seconds {
            text = format!("{} {text}", second.text);
            time = format!("{time} AND {}", second.sql);
        }
        Self {
            text,
            day: format!("({} AND ({} {either} {}))", months.sql, days.sql, weekdays.sql),
            time: format!("({time})"),
            follows_clock: hour.begins_with_star(),
        }
    }

    fn matches(&self) -> String {
        format!("({} AND {})", self.time, self.day)
    }
}

/// The instants from `from` to `to`, both excluded, at which a spec is due: a look at what the clock shows at each `step`. What is not to follow the clock is
/// due when it shows, for the first time, the time or a later one; so the look begins earlier.
fn due(spec: &Spec, zone: &str, from: &str, to: &str, step: &str) -> String {
    let (zone, matches) = (quoted(zone), spec.matches());
    let shown = if spec.follows_clock {
        matches
    } else {
        format!(
            "CASE WHEN l <= before THEN false WHEN l = before + '{step}' THEN {matches}
                ELSE EXISTS (SELECT FROM generate_series(before + '{step}', l, '{step}') AS gap (l) WHERE {}) END",
            matches
        )
    };
    format!(
        "SELECT t FROM (
            SELECT t, l, max(l) OVER (ORDER BY t ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
            FROM (SELECT t, t AT TIME ZONE {zone} AS l
                FROM generate_series(date_trunc('minute', timestamptz '{from}') - interval '27 hours', '{to}', '{step}') AS t) AS clock
        ) AS clock WHERE t > '{from}' AND t < '{to}' AND {shown} ORDER BY t"
    )
}

fn column(session: &mut Session, sql: &str) -> Vec<String> {
    session
        .rows(sql)
        .into_iter()
        .map(|row| row[0].clone().unwrap())
        .collect()
}

/// Changes of clocks, and zones with nothing of that kind.
const ZONES: [&str; 22] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Asia/Kolkata",
    "Pacific/Apia",
    "Europe/Dublin",
    "Africa/Casablanca",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Pacific/Chatham",
    "America/Sao_Paulo",
    "Asia/Gaza",
    "Asia/Tehran",
    "Europe/Moscow",
    "Pacific/Kwajalein",
    "Asia/Pyongyang",
    "America/Caracas",
    "Antarctica/Troll",
    "UTC",
    "America/Nuuk",
    "<+0330>-3:30<+0430>,M3.2.0/0,M11.1.0/0",
];

/// The changes of the clocks that were looked for.
#[derive(Default)]
struct Changes(HashMap<String, Vec<String>>);

impl Changes {
    /// One of a zone's changes, None if it has none.
    fn any(&mut self, session: &mut Session, random: &mut Random, zone: &str) -> Option<String> {
        let changes = self.0.entry(zone.to_owned()).or_insert_with(|| changes(session, zone));
        changes.get(random.below(changes.len().max(1) as u64) as usize).cloned()
    }
}

/// The changes of a zone's clock from 1975 on, found by looking at each day, and at each minute of a day in which there is one.
fn changes(session: &mut Session, zone: &str) -> Vec<String> {
    let offset = format!("t AT TIME ZONE {} - t AT TIME ZONE 'UTC'", quoted(zone));
    let looked = |times: &str| {
        format!(
            "SELECT t, before FROM (SELECT t, o, lag(o) OVER (ORDER BY t) AS o_before, lag(t) OVER (ORDER BY t) AS before
                FROM (SELECT t, {offset} AS o FROM {times} AS t) AS _) AS _ WHERE o <> o_before"
        )
    };
    let days = looked("generate_series(timestamptz '1975-01-01', '2045-01-01', '1 day')");
    let minutes = looked("generate_series(day.before, day.t, '1 minute')");
    column(
        session,
        &format!("SELECT minute.t FROM ({days}) AS day CROSS JOIN LATERAL ({minutes}) AS minute ORDER BY 1"),
    )
}

fn compare(
    session: &mut Session,
    random: &mut Random,
    spec: &Spec,
    zone: &str,
    around: &str,
    length: &str,
    step: &str,
) -> usize {
    let from: String = session.value(&format!(
        "SELECT timestamptz '{around}' - interval '{length}' * {}::float8 / 1000",
        random.below(1000)
    ));
    let to: String = session.value(&format!("SELECT timestamptz '{from}' + interval '{length}'"));
    let expected = column(session, &due(spec, zone, &from, &to, step));
    let found = column(
        session,
        &format!(
            "SELECT t FROM background.preview_schedule({}, {}, {}, '{from}') AS t WHERE t < '{to}'",
            quoted(&spec.text),
            quoted(zone),
            expected.len() + 1
        ),
    );
    assert_eq!(found, expected, "{} in {zone} from {from} to {to}", spec.text);
    found.len()
}

#[test]
fn the_next_time_is_the_first_that_fits_and_none_is_between() {
    let cluster = cluster();
    let mut session = session(&cluster);
    let mut random = Random::new(seed());
    let zones = column(
        &mut session,
        "SELECT name FROM pg_timezone_names WHERE name !~ '^(posix|right)/|^localtime$|^posixrules$' ORDER BY name COLLATE \"C\"",
    );
    let (mut changes, mut all, mut compared) = (Changes::default(), 0, 0);
    while compared < 120 {
        let zone = if compared % 4 == 3 {
            zones[random.below(zones.len() as u64) as usize].clone()
        } else {
            ZONES[random.below(ZONES.len() as u64) as usize].to_owned()
        };
        let around = match changes.any(&mut session, &mut random, &zone) {
            Some(change) if random.below(5) > 0 => change,
            _ => session.value(&format!(
                "SELECT timestamptz '1975-01-01' + interval '1 minute' * {}",
                random.below(70 * 525_600)
            )),
        };
        let spec = Spec::random(&mut random, false, true);
        // The server refuses what never is.
        match session.try_rows(&format!(
            "SELECT background.preview_schedule({}, n => 0)",
            quoted(&spec.text)
        )) {
            Ok(_) => all += compare(&mut session, &mut random, &spec, &zone, &around, "6 days", "1 minute"),
            Err(error) => {
                assert_eq!(error.sqlstate, "22023", "{}: {error:?}", spec.text);
                assert!(!exists(&mut session, &spec), "{}: {error:?}", spec.text);
            }
        }
        compared += 1;
    }
    assert!(all > 500, "{all} times were compared");
}

#[test]
fn the_same_by_seconds() {
    let cluster = cluster();
    let mut session = session(&cluster);
    let mut random = Random::new(seed() + 1);
    let (mut changes, mut all) = (Changes::default(), 0);
    for _ in 0..20 {
        let zone = ZONES[random.below(ZONES.len() as u64) as usize];
        let Some(around) = changes.any(&mut session, &mut random, zone) else {
            continue;
        };
        let mut spec = Spec::random(&mut random, true, true);
        // Days are for the other test.
        if random.below(3) > 0 {
            let fields: Vec<_> = spec.text.split(' ').map(str::to_owned).collect();
            spec.text = format!("{} * * *", fields[..3].join(" "));
            spec.day = "true".into();
        }
        if session
            .try_rows(&format!(
                "SELECT background.preview_schedule({}, n => 0)",
                quoted(&spec.text)
            ))
            .is_ok()
        {
            all += compare(&mut session, &mut random, &spec, zone, &around, "6 hours", "1 second");
        }
    }
    assert!(all > 500, "{all} times were compared");
}

/// Whether a day is named in any year: 28 years have each kind.
fn exists(session: &mut Session, spec: &Spec) -> bool {
    session.holds(&format!(
        "EXISTS (SELECT FROM generate_series(timestamp '2001-01-01', '2028-12-31', '1 day') AS l WHERE {})",
        spec.day
    ))
}

/// The next time can be years away: a look at each day of 45 years, and at each minute of a day.
#[test]
fn a_time_that_is_far_away() {
    let cluster = cluster();
    let mut session = session(&cluster);
    let mut random = Random::new(seed() + 2);
    for _ in 0..120 {
        let spec = Spec::random(&mut random, false, false);
        let from: String = session.value(&format!(
            "SELECT timestamptz '1600-01-01' + interval '1 second' * {}",
            random.below(1000) * 31_556_952 + random.below(31_556_952)
        ));
        let found = session.try_rows(&format!(
            "SELECT * FROM background.preview_schedule({}, 'UTC', 1, '{from}')",
            quoted(&spec.text)
        ));
        let expected = session.rows(&format!(
            "WITH times AS MATERIALIZED (SELECT l - timestamp '2000-01-01' AS time
                FROM generate_series(timestamp '2000-01-01', '2000-01-01 23:59', '1 minute') AS l WHERE {}),
            days AS MATERIALIZED (SELECT l AS day FROM generate_series(date_trunc('day', timestamp '{from}'), timestamp '{from}' + interval '45 years', '1 day') AS l
                WHERE {})
            SELECT (day + time) AT TIME ZONE 'UTC' FROM days, times WHERE day + time > timestamp '{from}' ORDER BY 1 LIMIT 1",
            spec.time, spec.day
        ));
        match found {
            Ok(rows) => assert_eq!(rows, expected, "{} from {from}", spec.text),
            Err(error) => {
                assert_eq!(error.sqlstate, "22023", "{}: {error:?}", spec.text);
                assert!(
                    expected.is_empty() && !exists(&mut session, &spec),
                    "{}: {error:?}",
                    spec.text
                );
            }
        }
    }
}

/// `every` is the server's own addition of the multiplied interval, in the session's zone.
#[test]
fn intervals_are_added_as_sql_adds_them() {
    let cluster = cluster();
    let mut session = session(&cluster);
    let mut random = Random::new(seed() + 3);
    for _ in 0..200 {
        let zone = ZONES[random.below(ZONES.len() as u64) as usize];
        let interval = match random.below(5) {
            0 => format!("{} seconds", 1 + random.below(100_000)),
            1 => format!("{} days", 1 + random.below(40)),
            2 => format!("{} months", 1 + random.below(30)),
            3 => format!(
                "{} months {} days {} seconds",
                random.below(20),
                1 + random.below(40),
                random.below(100_000)
            ),
            _ => format!("{}.{} hours", 1 + random.below(50), random.below(100)),
        };
        let anchor = random.below(70 * 525_600);
        session.exec(&format!("SET timezone = {}", quoted(zone)));
        let anchor: String = session.value(&format!(
            "SELECT timestamptz '1975-01-01 UTC' + interval '1 minute' * {anchor}"
        ));
        let expected = column(
            &mut session,
            &format!(
                "SELECT DISTINCT timestamptz '{anchor}' + interval '{interval}' * k AS t FROM generate_series(1, 200) AS k ORDER BY t"
            ),
        );
        let found = column(
            &mut session,
            &format!(
                "SELECT * FROM background.preview_schedule('every {interval}', n => {}, from_time => '{anchor}')",
                expected.len()
            ),
        );
        assert_eq!(found, expected, "every {interval} from {anchor} in {zone}");
    }
}

/// A single time is due when the clock shows it, or a later time, for the first time.
#[test]
fn single_times_in_gaps_and_overlaps() {
    let cluster = cluster();
    let mut session = session(&cluster);
    let mut random = Random::new(seed() + 4);
    let mut changes = Changes::default();
    for _ in 0..60 {
        let zone = ZONES[random.below(ZONES.len() as u64) as usize];
        let Some(change) = changes.any(&mut session, &mut random, zone) else {
            continue;
        };
        let time: String = session.value(&format!(
            "SELECT timestamptz '{change}' AT TIME ZONE {} + interval '1 minute' * {} - interval '2 hours'",
            quoted(zone),
            random.below(240)
        ));
        let expected = session.rows(&format!(
            "SELECT min(t) FROM generate_series(timestamptz '{change}' - interval '30 hours', timestamptz '{change}' + interval '30 hours', '1 minute') AS t
             WHERE t AT TIME ZONE {} >= timestamp '{time}'", quoted(zone)
        ));
        let found = session.rows(&format!(
            "SELECT * FROM background.preview_schedule('at {time}', {}, 2, timestamptz '{change}' - interval '60 hours')", quoted(zone)
        ));
        assert_eq!(found, expected, "at {time} in {zone}");
    }
}
