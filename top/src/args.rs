//! The command line.

use std::time::Duration;

use crate::conninfo::{Parameters, insert, is_conninfo, parse};
use crate::views::Tab;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Screen,
    Table,
    Json,
}

/// When a password is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Never,
    IfNeeded,
    Always,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    /// What the command line says about the connection.
    pub connection: Parameters,
    pub ask: Ask,
    pub output: Output,
    pub interval: Duration,
    pub tab: Tab,
    pub filter: String,
    pub unfinished: bool,
    /// A column of the tab, and whether the greatest value comes first.
    pub sort: Option<(usize, bool)>,
    /// Rows that `--once` and `--json` show; None: all.
    pub rows: Option<usize>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Run(Args),
    Help,
    Version,
}

pub const HELP: &str = "\
pg_background_top shows what pg_background does: jobs, tasks, queues, schedules and operations.

Usage:
  pg_background_top [OPTION]... [DBNAME [USERNAME]]

What is shown:
      --once               print a table once, and end
      --json               print all columns as one JSON document, and end
  -t, --tab=TAB            jobs, tasks, queues, schedules or operations (default: jobs)
  -f, --filter=TEXT        only rows that contain the text
  -u, --unfinished         only what has not ended
  -s, --sort=COLUMN        sort by the column; -COLUMN: the greatest first
  -n, --rows=N             rows of --once and --json, 0: all (default: 100)
  -i, --interval=SECONDS   time between two looks (default: 2)
  -V, --version            print the version, and end
  -?, --help               print this help, and end

Connection, as with psql; libpq's environment variables, service file and
password file are used:
  -h, --host=HOSTNAME      server's host, or the directory of its socket
  -p, --port=PORT          server's port
  -U, --username=USERNAME  role
  -d, --dbname=DBNAME      database, or a connection string or URI
  -w, --no-password        never ask for a password
  -W, --password           ask for a password first

On the screen, the key ? explains the others.
";

/// Long name, short name, whether a value follows.
const OPTIONS: [(&str, char, bool); 16] = [
    ("once", '\0', false),
    ("json", '\0', false),
    ("tab", 't', true),
    ("filter", 'f', true),
    ("unfinished", 'u', false),
    ("sort", 's', true),
    ("rows", 'n', true),
    ("interval", 'i', true),
    ("version", 'V', false),
    ("help", '?', false),
    ("host", 'h', true),
    ("port", 'p', true),
    ("username", 'U', true),
    ("dbname", 'd', true),
    ("no-password", 'w', false),
    ("password", 'W', false),
];

/// Options by their long names with their values, and what is no option.
type Words = (Vec<(&'static str, String)>, Vec<String>);

/// Splits the arguments into options, by their long names, and others. As with getopt, `-hHOST`, `-h HOST`, `--host=HOST` and `--host HOST`
/// are alike, short options may be joined, long ones be shortened, and `--` ends them.
fn split(arguments: &[String]) -> Result<Words, String> {
    let (mut options, mut others) = (Vec::new(), Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut following = |name: &str| {
            arguments
                .next()
                .cloned()
                .ok_or_else(|| format!("option \"{name}\" requires an argument"))
        };
        if argument == "--" {
            others.extend(arguments.cloned());
            break;
        } else if let Some(long) = argument.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let exact = OPTIONS.iter().find(|option| option.0 == name);
            let mut candidates = OPTIONS.iter().filter(|option| option.0.starts_with(name));
            let option = match (exact, candidates.next(), candidates.next()) {
                (Some(option), ..) | (None, Some(option), None) => option,
                (None, Some(_), Some(_)) => return Err(format!("option \"--{name}\" is ambiguous")),
                _ => return Err(format!("unrecognized option \"--{name}\"")),
            };
            let value = match (option.2, value) {
                (true, Some(value)) => value,
                (true, None) => following(argument)?,
                (false, None) => String::new(),
                (false, Some(_)) => return Err(format!("option \"--{}\" doesn't allow an argument", option.0)),
            };
            options.push((option.0, value));
        } else if argument.len() > 1 && argument.starts_with('-') {
            let mut letters = argument[1..].chars();
            while let Some(letter) = letters.next() {
                let option = OPTIONS
                    .iter()
                    .find(|option| option.1 == letter && letter != '\0')
                    .ok_or_else(|| format!("invalid option \"-{letter}\""))?;
                if !option.2 {
                    options.push((option.0, String::new()));
                    continue;
                }
                let joined = letters.as_str();
                options.push((
                    option.0,
                    if joined.is_empty() {
                        following(&format!("-{letter}"))?
                    } else {
                        joined.to_owned()
                    },
                ));
                break;
            }
        } else {
            others.push(argument.clone());
        }
    }
    Ok((options, others))
}

/// Reads the arguments, without the program's name.
pub fn read(arguments: &[String]) -> Result<Command, String> {
    let (options, others) = split(arguments)?;
    let mut args = Args {
        connection: Parameters::new(),
        ask: Ask::IfNeeded,
        output: Output::Screen,
        interval: Duration::from_secs(2),
        tab: Tab::Jobs,
        filter: String::new(),
        unfinished: false,
        sort: None,
        rows: Some(100),
    };
    let (mut database, mut user, mut sort) = (None, None, None);
    for (name, value) in options {
        match name {
            "help" => return Ok(Command::Help),
            "version" => return Ok(Command::Version),
            "once" => args.output = Output::Table,
            "json" => args.output = Output::Json,
            "tab" => args.tab = Tab::named(&value).ok_or_else(|| format!("there is no tab \"{value}\""))?,
            "filter" => args.filter = value,
            "unfinished" => args.unfinished = true,
            "sort" => sort = Some(value),
            "rows" => {
                let rows: usize = value
                    .parse()
                    .map_err(|_| format!("invalid number of rows: \"{value}\""))?;
                args.rows = Some(rows).filter(|rows| *rows > 0);
            }
            "interval" => {
                let seconds = value
                    .parse()
                    .ok()
                    .filter(|seconds: &f64| (0.1..=86_400.0).contains(seconds));
                let seconds =
                    seconds.ok_or_else(|| format!("interval \"{value}\" is not between 0.1 and 86400 seconds"))?;
                args.interval = Duration::from_secs_f64(seconds);
            }
            "host" | "port" => insert(&mut args.connection, name, &value)?,
            "username" => user = Some(value),
            "dbname" => database = Some(value),
            "no-password" => args.ask = Ask::Never,
            _ => args.ask = Ask::Always,
        }
    }
    // As with psql, a place that an option has taken is free for the next argument.
    for other in others {
        if database.is_none() {
            database = Some(other);
        } else if user.is_none() {
            user = Some(other);
        } else {
            return Err(format!("too many arguments: \"{other}\""));
        }
    }
    if let Some(user) = user {
        insert(&mut args.connection, "user", &user)?;
    }
    match database {
        Some(text) if is_conninfo(&text) => args.connection.extend(parse(&text)?),
        Some(name) => insert(&mut args.connection, "dbname", &name)?,
        None => {}
    }
    if let Some(sort) = sort {
        let (name, descending) = sort
            .strip_prefix('-')
            .map_or((sort.as_str(), false), |name| (name, true));
        let view = args.tab.view();
        let column = view.columns.iter().position(|column| column.name == name);
        args.sort = Some((
            column.ok_or_else(|| format!("tab \"{}\" has no column \"{name}\"", view.name))?,
            descending,
        ));
    }
    Ok(Command::Run(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_read(line: &[&str]) -> Result<Command, String> {
        read(&line.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[track_caller]
    fn args(line: &[&str]) -> Args {
        match try_read(line) {
            Ok(Command::Run(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_in_every_form() {
        for line in [
            ["-h", "a", "-p", "1"].as_slice(),
            &["-ha", "-p1"],
            &["--host=a", "--port", "1"],
            &["--hos=a", "--po=1"],
        ] {
            let args = args(line);
            assert_eq!(args.connection["host"], "a");
            assert_eq!(args.connection["port"], "1");
        }
        let args = args(&["-wuttasks", "--once", "-s", "-time", "-n0", "-i", "0.5", "-f", "x"]);
        assert_eq!(
            (args.ask, args.unfinished, args.tab, args.output),
            (Ask::Never, true, Tab::Tasks, Output::Table)
        );
        assert_eq!(
            (args.sort, args.rows, args.filter.as_str()),
            (Some((6, true)), None, "x")
        );
        assert_eq!(args.interval, Duration::from_millis(500));
    }

    #[test]
    fn database_and_user() {
        let of = |line: &[&str]| {
            let connection = args(line).connection;
            (connection.get("dbname").cloned(), connection.get("user").cloned())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of(&[]), (None, None));
        assert_eq!(of(&["d", "u"]), (some("d"), some("u")));
        assert_eq!(of(&["-d", "d", "u"]), (some("d"), some("u")));
        assert_eq!(of(&["-U", "u", "d"]), (some("d"), some("u")));
        assert_eq!(of(&["--", "-d"]), (some("-d"), None));
        assert_eq!(of(&["-U", "u", "postgres://v@h/d"]), (some("d"), some("v")));
        assert_eq!(of(&["dbname=x user=y"]), (some("x"), some("y")));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, message) in [
            (["-x"].as_slice(), "invalid option \"-x\""),
            (&["--p=1"], "ambiguous"),
            (&["--nothing"], "unrecognized option"),
            (&["--once=1"], "doesn't allow"),
            (&["-h"], "requires an argument"),
            (&["a", "b", "c"], "too many arguments"),
            (&["-i", "0"], "interval"),
            (&["-i", "NaN"], "interval"),
            (&["-n", "-1"], "number of rows"),
            (&["-t", "x"], "no tab"),
            (&["-s", "x"], "no column \"x\""),
            (&["hots=x"], "invalid connection option"),
        ] {
            assert!(try_read(line).unwrap_err().contains(message), "{line:?}");
        }
    }

    #[test]
    fn help_and_manual_name_every_option() {
        let manual = include_str!("../pg_background_top.1");
        for (long, short, _) in OPTIONS {
            assert!(HELP.contains(&format!("--{long}")), "{long}");
            assert!(manual.contains(&format!("Fl -{long}")), "{long}");
            assert!(
                short == '\0' || HELP.contains(&format!("-{short}, --{long}")),
                "{short}"
            );
        }
        assert_eq!(try_read(&["-?"]), Ok(Command::Help));
        assert_eq!(try_read(&["--version"]), Ok(Command::Version));
    }
}
