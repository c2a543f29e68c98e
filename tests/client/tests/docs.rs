//! Every example of the documentation runs, and every `make` target that it names exists.
//!
//! A block ```` ```sql ```` is run by psql, the blocks of a file one after another in a database of their own;
//! ```` ```sql error=SQLSTATE ```` has to fail with that SQLSTATE, and ```` ```sql needs=EXTENSION ```` is left out if that extension of others is
//! not installed. `\watch` would never end, so its query is run once more instead. A page that does not say `CREATE EXTENSION pg_background` finds both extensions. In
//! ```` ```sh ```` blocks, `make` targets are looked up.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{Cluster, has_extension, pg_config, psql};

struct Block {
    line: usize,
    info: String,
    text: String,
}

impl Block {
    /// What follows `name=` in the line that begins the block.
    fn word(&self, name: &str) -> Option<&str> {
        self.info
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// README.md, and what is below docs/.
fn files() -> Vec<PathBuf> {
    fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
    }
    let mut files = vec![root().join("README.md")];
    collect(&root().join("docs"), &mut files);
    files.sort();
    files
}

fn blocks(file: &Path) -> Vec<Block> {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(info)) => {
                open = Some(Block {
                    line: number + 1,
                    info: info.trim().to_owned(),
                    text: String::new(),
                })
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a block is not closed", file.display());
    blocks
}

#[test]
fn sql_examples_run() {
    let cluster = Cluster::start_plain(&["max_worker_processes = 32", "max_prepared_transactions = 5"]);
    let mut administrator = cluster.session();
    let (mut examples, mut failures) = (0, Vec::new());
    for (number, file) in files().iter().enumerate() {
        let database = format!("docs_{number}");
        administrator.exec(&format!("CREATE DATABASE {database}"));
        let blocks: Vec<_> = blocks(file)
            .into_iter()
            .filter(|b| b.info.split_whitespace().next() == Some("sql"))
            .filter(|b| b.word("needs").is_none_or(has_extension))
            .collect();
        if !blocks
            .iter()
            .any(|block| block.text.contains("CREATE EXTENSION pg_background"))
        {
            cluster
                .session_in(&database, "postgres")
                .exec("CREATE EXTENSION pg_background_tasks CASCADE");
        }
        examples += blocks.len();
        if let Err(failure) = run_file(&cluster, &database, &blocks) {
            failures.push(format!("{}: {failure}", file.display()));
        }
    }
    assert!(examples > 0, "no example was found");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    println!("{examples} examples");
}

/// A line without `\watch`.
fn once(line: &str) -> String {
    match line.split_once("\\watch") {
        Some((query, _)) => format!("{query}\\g"),
        None => line.to_owned(),
    }
}

/// One psql session for the blocks of a file: later blocks can use the settings and handles of earlier ones.
fn run_file(cluster: &Cluster, database: &str, blocks: &[Block]) -> Result<(), String> {
    let mut script = String::from("\\set VERBOSITY verbose\n");
    for block in blocks {
        let text: String = block.text.lines().map(|line| once(line) + "\n").collect();
        match block.word("error") {
            None => script.push_str(&format!(
                "\\set ON_ERROR_STOP 1\n\\echo BLOCK {}\n{}\n",
                block.line, text
            )),
            Some(sqlstate) => script.push_str(&format!(
                "\\set ON_ERROR_STOP 0\n\\echo BLOCK {}\n{}\n\\set ON_ERROR_STOP 1\n\
                 SELECT :'LAST_ERROR_SQLSTATE' = '{sqlstate}' AS expected \\gset\n\\if :expected\n\\else\n\
                 \\warn expected error {sqlstate}, but the last one is :LAST_ERROR_SQLSTATE\n\
                 DO $$ BEGIN RAISE 'the example did not fail as it says'; END $$;\n\\endif\n\
                 SELECT 'none' AS \"LAST_ERROR_SQLSTATE\" \\gset\n",
                block.line, text
            )),
        }
    }
    let mut child = psql()
        .arg("-h")
        .arg(cluster.socket_dir())
        .args(["-U", "postgres", "-d", database, "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        // psql stops reading its input early if an example fails.
        let _ = input.write_all(script.as_bytes());
    });
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    writer.join().unwrap();
    if output.status.success() {
        return Ok(());
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("BLOCK "))
        .next_back()
        .unwrap_or("?");
    Err(format!(
        "the block at line {last} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// The first block of docs/psql.md is a start-up file: psql reads it without a word, and each of its names is a query.
#[test]
fn the_start_up_file_of_psql_is_quiet_and_complete() {
    let page = root().join("docs/psql.md");
    let text = &blocks(&page)[0].text;
    let cluster = Cluster::start_plain(&[]);
    let mut session = cluster.session();
    session.exec("CREATE EXTENSION pg_background_tasks CASCADE");
    let file = std::env::temp_dir().join(format!("psqlrc-{}", std::process::id()));
    fs::write(&file, text).unwrap();
    let mut names = Vec::new();
    for line in text.lines() {
        let rest = line
            .strip_prefix("\\set ")
            .unwrap_or_else(|| panic!("not a definition: {line}"));
        let (name, query) = rest.split_once(' ').unwrap();
        let view = query.split(" FROM ").nth(1).unwrap().split(' ').next().unwrap();
        if session.holds(&format!("to_regclass('{view}') IS NOT NULL")) {
            names.push(name);
        } else {
            println!("{view} is not there: {name} is not tested");
        }
    }
    for needed in ["bg", "tasks", "queues", "schedules"] {
        assert!(names.contains(&needed), "{names:?}");
    }
    let script: String = names
        .iter()
        .map(|name| format!(":{name}\n\\echo {name} :ROW_COUNT\n"))
        .collect();
    let input = file.with_extension("sql");
    fs::write(&input, &script).unwrap();
    // The harness's psql reads no start-up file.
    let output = Command::new(PathBuf::from(pg_config("bindir")).join("psql"))
        .env("PSQLRC", &file)
        .arg("-h")
        .arg(cluster.socket_dir())
        .args(["-U", "postgres", "-d", "postgres", "-v", "ON_ERROR_STOP=1"])
        .stdin(fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    fs::remove_file(&file).unwrap();
    fs::remove_file(&input).unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for name in names {
        assert!(
            printed.lines().any(|line| line.starts_with(&format!("{name} "))),
            "{name}: {printed}"
        );
    }
}

#[test]
fn make_targets_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let exists = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    let mut seen = 0;
    let mut pages = files();
    pages.push(root().join("CONTRIBUTING.md"));
    for file in pages {
        for block in blocks(&file).iter().filter(|block| block.info == "sh") {
            for line in block.text.lines() {
                let command = line.split('#').next().unwrap().trim();
                let Some(arguments) = command.strip_prefix("sudo ").unwrap_or(command).strip_prefix("make") else {
                    continue;
                };
                for target in arguments
                    .split_whitespace()
                    .filter(|word| !word.contains('=') && !word.starts_with('-'))
                {
                    assert!(
                        exists(target),
                        "{}: line {}: there is no target {target}",
                        file.display(),
                        block.line
                    );
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 0, "no make command was found");
}

/// A page's headings, as the last part of a link names them.
fn anchors(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let mut is_inside = false;
    let mut anchors = Vec::new();
    for line in text.lines() {
        is_inside ^= line.trim_start().starts_with("```");
        if !is_inside && line.starts_with('#') {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            anchors.push(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    anchors
}

/// Every link to a file of this tree leads to a file, and to a heading if it names one. The map, docs/README.md, leads to every page.
#[test]
fn links_lead_somewhere() {
    let mut pages = files();
    pages.extend(["CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let mut broken = Vec::new();
    let mut of_the_map = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for part in text.split("](").skip(1) {
            let link = part.split(')').next().unwrap();
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(path)
            };
            let is_there = target.exists() && (anchor.is_empty() || anchors(&target).iter().any(|a| a == anchor));
            if !is_there {
                broken.push(format!("{}: {link}", page.display()));
            } else if page.ends_with("docs/README.md") {
                of_the_map.push(target.canonicalize().unwrap());
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
    for page in pages.iter().filter(|page| !page.ends_with("docs/README.md")) {
        assert!(
            of_the_map.contains(page),
            "docs/README.md does not lead to {}",
            page.display()
        );
    }
}

#[test]
fn a_wrong_example_is_noticed() {
    let cluster = Cluster::start_plain(&[]);
    let run = |examples: &[(&str, &str)]| {
        let blocks: Vec<_> = examples
            .iter()
            .map(|(info, text)| Block {
                line: 7,
                info: (*info).to_owned(),
                text: (*text).to_owned(),
            })
            .collect();
        run_file(&cluster, "postgres", &blocks)
    };
    let fails = ("sql error=22012", "SELECT 1 / 0;");
    assert_eq!(
        run(&[("sql", "SELECT 1 AS one \\gset"), fails, ("sql", "SELECT :one;")]),
        Ok(())
    );
    assert!(run(&[("sql", "SELECT 1 / 0;")]).unwrap_err().contains("22012"));
    assert!(run(&[("sql error=22012", "SELECT 1;")]).is_err());
    assert!(run(&[("sql error=42704", "SELECT 1 / 0;")]).is_err());
    assert!(
        run(&[fails, ("sql error=22012", "SELECT 1;")]).is_err(),
        "an error counts once"
    );
}
