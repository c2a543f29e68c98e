//! A used worker answers as a new process does: PostgreSQL's own regression files, statement by statement as jobs, on reused workers and on
//! fresh ones, with jobs of other sessions under other settings, roles and search paths in between.
//!
//! `make differential` and `make differential-all` run it; `REGRESSION_FILES` is where the files are (scripts/get-regression-files).
//! `TESTS` selects some of them.

mod actions;
mod harmless;
mod play;
mod script;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

use harness::{Cluster, as_server, give_to_server, pg_config};
use play::{Answer, DIRECTORY, File, Played, Player};

/// Settings of a cluster whose answers depend only on the statements.
const SETTINGS: [&str; 10] = [
    "autovacuum = off",
    "synchronize_seqscans = off",
    "max_parallel_workers_per_gather = 0",
    "jit = off",
    // Temporary tables are permanent ones here, and a transaction prepared with them would hold its locks.
    "max_prepared_transactions = 0",
    "pg_background.worker_timeout = '60s'",
    "wal_level = logical",
    "log_min_messages = fatal",
    "log_min_error_statement = panic",
    "max_locks_per_transaction = 256",
];

/// The files that `make test` runs: those that compile, plan and depend on settings, roles and names most. The first ones create what the
/// others need, and are not jobs.
const NEEDED: [&str; 1] = ["test_setup"];
const SOME: [&str; 11] = [
    "create_function_sql",
    "create_procedure",
    "rowsecurity",
    "guc",
    "plancache",
    "temp",
    "domain",
    "rangefuncs",
    "prepare",
    "polymorphism",
    "rowtypes",
];

/// The part of a file's statements that must end without an error, in percent, since otherwise mostly errors would be compared; and the
/// part of all statements. Some files are about errors.
const LEAST_OF_FILE: usize = 25;
const LEAST: usize = 60;

#[test]
#[ignore = "make differential"]
fn some_files_of_postgresql() {
    differential(|name| SOME.contains(&name));
}

#[test]
#[ignore = "make differential-all"]
fn all_files_of_postgresql() {
    differential(|_| true);
}

fn differential(chosen: impl Fn(&str) -> bool) {
    let source = PathBuf::from(
        std::env::var("REGRESSION_FILES").expect("REGRESSION_FILES names the files: see scripts/get-regression-files"),
    );
    let data = Directory::new();
    let files = files(&source, &data, chosen);
    let mut faults = Vec::new();
    let (mut jobs, mut good) = (0, 0);
    let (mut all_warm, mut all_fresh) = (Vec::new(), Vec::new());
    let (mut last_of, mut taken_over) = (HashMap::new(), 0);
    std::thread::scope(|scope| {
        let side = |idle_timeout| {
            let (played, answers) = channel();
            let files = &files;
            scope.spawn(move || play(files, idle_timeout, &played));
            answers
        };
        let (warm, fresh) = (side("10min"), side("0"));
        for (warm, fresh) in warm.iter().zip(fresh) {
            let of_file: Vec<_> = fresh.answers.iter().filter(|answer| answer.who == "script").collect();
            let good_of_file = of_file.iter().filter(|answer| !answer.failed).count();
            let differences = differences(&warm, &fresh);
            println!(
                "{:24} {good_of_file:5} of {:5} statements without error, {:5} answers, {:3} differences, {:3} s warm, {:3} s fresh",
                fresh.name,
                of_file.len(),
                fresh.answers.len(),
                differences.len(),
                warm.took.as_secs(),
                fresh.took.as_secs()
            );
            for difference in &differences {
                println!("{difference}");
            }
            faults.extend(differences);
            if good_of_file * 100 < of_file.len() * LEAST_OF_FILE {
                faults.push(format!(
                    "{}: only {good_of_file} of {} statements end without an error",
                    fresh.name,
                    of_file.len()
                ));
            }
            jobs += of_file.len();
            good += good_of_file;
            for answer in warm.answers.iter().filter(|answer| answer.worker != 0) {
                let before = last_of.insert(answer.worker, answer.who);
                taken_over += usize::from(before.is_some_and(|before| before != answer.who));
            }
            all_warm.extend(play::workers(&warm));
            all_fresh.extend(play::workers(&fresh));
        }
    });
    let used = all_warm.iter().collect::<HashSet<_>>().len();
    let again = all_fresh.windows(2).filter(|pair| pair[0] == pair[1]).count();
    let answered = all_warm.len();
    println!(
        "{good} of {jobs} statements end without an error; {answered} jobs on {used} used workers, \
         {taken_over} of them after a job of another session"
    );
    assert!(jobs > 0, "no file was played");
    if good * 100 < jobs * LEAST {
        faults.push(format!("only {good} of {jobs} statements end without an error"));
    }
    if used * 4 > answered || taken_over * 20 < answered || again > 0 {
        faults.push(format!(
            "{answered} jobs had {used} used workers, {taken_over} one of another session; {again} times a new one was the one before"
        ));
    }
    assert!(
        faults.is_empty(),
        "{} differences\n\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// Returns the files to run, in the order of PostgreSQL's own schedule.
fn files(source: &Path, data: &Directory, chosen: impl Fn(&str) -> bool) -> Vec<File> {
    let wanted = std::env::var("TESTS").unwrap_or_default();
    let wanted: Vec<_> = wanted.split_whitespace().collect();
    let mut count = 0;
    actions::scheduled(&source.join("parallel_schedule"))
        .into_iter()
        .filter(|name| !harmless::LEFT_OUT.iter().any(|(left_out, _)| left_out == name))
        .filter_map(|name| {
            let plain = NEEDED.contains(&name.as_str());
            let is_wanted = wanted.is_empty() || wanted.contains(&name.as_str());
            if !(plain || chosen(&name) && is_wanted) {
                return None;
            }
            // Some files have another encoding than UTF8.
            let text = std::fs::read(source.join(format!("sql/{name}.sql"))).ok()?;
            let text = String::from_utf8_lossy(&text);
            let mut variables = HashMap::from([
                ("PG_ABS_SRCDIR".to_owned(), source.display().to_string()),
                ("PG_ABS_BUILDDIR".to_owned(), DIRECTORY.to_owned()),
                ("PG_LIBDIR".to_owned(), pg_config("pkglibdir")),
                ("PG_DLSUFFIX".to_owned(), ".so".to_owned()),
            ]);
            let pieces = script::split(&text, &mut variables);
            let (actions, dropped) = actions::actions(&pieces, |lines| {
                count += 1;
                data.keep(&format!("{name}-{count}"), lines)
            });
            Some(File {
                name,
                actions,
                dropped,
                plain,
            })
        })
        .collect()
}

fn play(files: &[File], idle_timeout: &str, played: &Sender<Played>) {
    let idle_timeout = format!("pg_background.worker_idle_timeout = {idle_timeout}");
    let cluster = Cluster::start_plain(&[&SETTINGS[..], &[&idle_timeout]].concat());
    play::prepare(&cluster);
    let directory = Directory::new();
    for name in ["results", "testtablespace"] {
        directory.make(name);
    }
    let mut player = Player::new(&cluster, directory.path());
    for file in files {
        played.send(player.play(file)).expect("the answers are compared");
    }
}

/// Returns the differences of one file, each with the preceding steps on the same worker.
fn differences(warm: &Played, fresh: &Played) -> Vec<String> {
    const SHOWN: usize = 15;
    let mut differences = Vec::new();
    for (n, (used, new)) in warm.answers.iter().zip(&fresh.answers).enumerate() {
        // PostgreSQL itself says 08006 of a publisher.
        let lost = |answer: &Answer| {
            let end = &answer.end;
            let of_worker = end.contains(" 08006 ") || end.contains("| 08006 |") || end.contains("lost");
            of_worker && !end.contains("could not connect to the publisher")
        };
        if harmless::same(used, new) && !lost(used) && !lost(new) {
            continue;
        }
        let before = warm.answers[..n]
            .iter()
            .rev()
            .find(|answer| answer.worker == used.worker);
        let before = before.map_or(String::new(), |before| {
            format!("after {} ({})\n", shortened(&before.sql), before.who)
        });
        differences.push(format!(
            "{}, {}: {}\n{before}--- used\n{}--- new\n{}",
            warm.name,
            used.who,
            shortened(&used.sql),
            shown(used),
            shown(new)
        ));
    }
    if warm.answers.len() != fresh.answers.len() {
        differences.push(format!(
            "{}: {} answers and {}",
            warm.name,
            warm.answers.len(),
            fresh.answers.len()
        ));
    }
    if differences.len() > SHOWN {
        let left = differences.len() - SHOWN;
        differences.truncate(SHOWN);
        differences.push(format!("{}: and {left} more", warm.name));
    }
    differences
}

fn shown(answer: &Answer) -> String {
    const SHOWN: usize = 10;
    let mut text = format!("  {}\n", answer.end.replace('\n', "\n  "));
    for line in answer.rows.iter().take(SHOWN).chain(answer.messages.iter().take(SHOWN)) {
        text += &format!("  {}\n", shortened(line));
    }
    text
}

fn shortened(sql: &str) -> String {
    const LEN: usize = 400;
    let mut text: String = sql.chars().take(LEN).collect();
    if text.len() < sql.len() {
        text += "...";
    }
    text
}

/// A directory that the server may read and write, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let made = as_server("mktemp")
            .args(["-d", "/tmp/pgbg-files.XXXXXX"])
            .output()
            .expect("mktemp runs");
        assert!(made.status.success(), "no directory can be made");
        Self(String::from_utf8(made.stdout).expect("a path").trim().into())
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }

    fn make(&self, name: &str) {
        let path = self.0.join(name);
        std::fs::create_dir(&path).expect("a directory can be made");
        give_to_server(&path);
    }

    fn keep(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file can be written");
        give_to_server(&path);
        path.display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = as_server("rm").arg("-rf").arg(&self.0).output();
    }
}
