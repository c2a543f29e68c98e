//! Prints the results of a measurement, as a line of text and as a row of the table in the documentation.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use harness::Session;

/// What a measurement must reach, and what it aims at.
#[derive(Clone, Copy)]
pub enum Goal {
    /// An upper limit of our time (or memory) over the other's.
    AtMost {
        must: f64,
        aim: f64,
    },
    /// A lower limit of our speed over the other's.
    AtLeast {
        must: f64,
        aim: f64,
    },
    None,
}

impl Goal {
    pub fn at_most(must: f64, aim: f64) -> Self {
        Self::AtMost { must, aim }
    }

    pub fn at_least(must: f64, aim: f64) -> Self {
        Self::AtLeast { must, aim }
    }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Unit {
    Milliseconds,
    PerSecond,
    Kilobytes,
    Count,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Milliseconds if value >= 100.0 => format!("{value:.0} ms"),
            Self::Milliseconds if value >= 10.0 => format!("{value:.1} ms"),
            Self::Milliseconds => format!("{value:.3} ms"),
            Self::PerSecond => format!("{value:.0} /s"),
            Self::Kilobytes => format!("{value:.0} kB"),
            Self::Count => format!("{value:.1}"),
        }
    }
}

/// Which workers' number is compared with the goal.
#[derive(Clone, Copy, PartialEq)]
pub enum Workers {
    Warm,
    Fresh,
}

/// One measurement: pg_background with warm workers, with fresh ones, and the other side.
pub struct Line {
    pub what: String,
    pub unit: Unit,
    pub judged: Workers,
    pub warm: Option<f64>,
    pub fresh: Option<f64>,
    pub against: String,
    pub theirs: f64,
    pub goal: Goal,
}

impl Line {
    fn ours(&self) -> f64 {
        match self.judged {
            Workers::Warm => self.warm,
            Workers::Fresh => self.fresh,
        }
        .expect("the judged number was measured")
    }

    /// The ratio of times if less is better, of speeds if more is better.
    fn ratio(&self) -> f64 {
        match (self.goal, self.unit) {
            (Goal::AtLeast { .. }, Unit::Milliseconds) => self.theirs / self.ours(),
            _ => self.ours() / self.theirs,
        }
    }

    fn is_missed(&self) -> bool {
        match self.goal {
            Goal::AtMost { must, .. } => self.ratio() > must,
            Goal::AtLeast { must, .. } => self.ratio() < must,
            Goal::None => false,
        }
    }

    fn verdict(&self) -> &'static str {
        let reaches_aim = match self.goal {
            Goal::AtMost { aim, .. } => self.ratio() <= aim,
            Goal::AtLeast { aim, .. } => self.ratio() >= aim,
            Goal::None => return "-",
        };
        match (self.is_missed(), reaches_aim) {
            (true, _) => "goal missed",
            (false, false) => "goal reached",
            (false, true) => "aim reached",
        }
    }

    fn bounds(&self) -> (String, String) {
        match self.goal {
            Goal::AtMost { must, aim } => (format!("≤ {must}"), format!("≤ {aim}")),
            Goal::AtLeast { must, aim } => (format!("≥ {must}"), format!("≥ {aim}")),
            Goal::None => ("-".into(), "-".into()),
        }
    }

    /// The cells of a row, as [`HEAD`] names them.
    fn cells(&self) -> [String; 9] {
        let show = |value: Option<f64>| value.map_or("-".into(), |value| self.unit.show(value));
        let (must, aim) = self.bounds();
        [
            self.what.clone(),
            show(self.warm),
            show(self.fresh),
            self.against.clone(),
            self.unit.show(self.theirs),
            format!("{:.2}", self.ratio()),
            must,
            aim,
            self.verdict().to_owned(),
        ]
    }

    pub fn print(&self) {
        print_row(&self.cells());
    }
}

const HEAD: [&str; 9] = [
    "measured", "warm", "fresh", "against", "takes", "ratio", "must", "aim", "verdict",
];

pub fn print_head() {
    print_row(&HEAD.map(str::to_owned));
}

fn print_row(cells: &[String; 9]) {
    let [what, warm, fresh, against, theirs, ratio, must, aim, verdict] = cells;
    println!("{what:<40} {warm:>12} {fresh:>12}   {against:<38} {theirs:>12} {ratio:>6} {must:>7} {aim:>7}  {verdict}");
}

/// How many goals are missed, and which.
pub fn summary(lines: &[Line]) -> String {
    let missed: Vec<_> = lines.iter().filter(|line| line.is_missed()).collect();
    if missed.is_empty() {
        return "no goal is missed".into();
    }
    let mut text = format!("{} goals are missed:", missed.len());
    for line in missed {
        let _ = write!(
            text,
            "\n  {} against {}: {:.2}, must be {}",
            line.what,
            line.against,
            line.ratio(),
            line.bounds().0
        );
    }
    text
}

/// The machine, the server and its settings.
pub fn environment(session: &mut Session) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?
                .split(':')
                .nth(1)
                .map(str::trim)
                .map(str::to_owned)
        })
        .unwrap_or_else(|| "an unknown processor".into());
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        })
        .unwrap_or(0);
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let version: String = session.value("SHOW server_version");
    let settings: String = session.value(
        "SELECT string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY name) FROM pg_settings WHERE name IN
         ('shared_buffers', 'work_mem', 'fsync', 'synchronous_commit', 'jit', 'max_worker_processes')",
    );
    format!(
        "PostgreSQL {version} on {cpus} cores ({cpu}), {} GB of memory, Linux {}.\nSettings: {settings}; all others are PostgreSQL's defaults.",
        (memory + (512 << 10)) >> 20,
        kernel.trim()
    )
}

/// What a table of the page has before and behind it.
pub type Marks = [&'static str; 2];

pub const JOBS: Marks = ["<!-- made by make bench: begin -->", "<!-- made by make bench: end -->"];
pub const TASKS: Marks = [
    "<!-- made by make bench, tasks: begin -->",
    "<!-- made by make bench, tasks: end -->",
];

/// Replaces the table between its marks in a page, and leaves the rest of the page. Creates a page that does not exist.
pub fn write_table(path: &Path, marks: Marks, environment: &str, lines: &[Line]) {
    let [begin, end] = marks;
    let page = fs::read_to_string(path).unwrap_or_else(|_| {
        let tables = [JOBS, TASKS].map(|[begin, end]| format!("{begin}\n{end}\n"));
        tables.join("\n")
    });
    let (before, rest) = page.split_once(begin).expect("the page marks where the table begins");
    let (_, after) = rest.split_once(end).expect("the page marks where the table ends");
    let mut table = format!("{environment}\n\n");
    let mut row = |cells: &[String]| {
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    };
    row(&HEAD.map(str::to_owned));
    row(&HEAD.map(|_| "---".to_owned()));
    for line in lines {
        row(&line.cells());
    }
    let _ = write!(table, "\n{}", summary(lines).replace("\n  ", "\n- "));
    fs::write(path, format!("{before}{begin}\n\n{table}\n\n{end}{after}")).expect("the page can be written");
}
