//! A real terminal of a given size: tmux, without a screen of its own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use harness::{Cluster, PATIENCE, run};

/// The program, without the environment's settings for connections.
pub fn program(cluster: &Cluster) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pg_background_top"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
        command.env_remove(name);
    }
    command
        .env_remove("NO_COLOR")
        .env("HOME", cluster.socket_dir())
        .env("PGHOST", cluster.socket_dir())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", "postgres");
    command
}

/// Ends of the program: status, output, errors.
pub fn answer(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (
        output.status.code().expect("an exit"),
        text(&output.stdout),
        text(&output.stderr),
    )
}

pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Starts the program in a terminal of 80 columns and 24 lines.
    pub fn start(cluster: &Cluster, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let terminal = Self {
            socket: cluster.socket_dir().join(format!("tmux.{number}")),
        };
        // tmux's server passes its own environment on.
        let given = program(cluster);
        let mut tmux = terminal.tmux();
        for (name, value) in given.get_envs() {
            match value {
                Some(value) => tmux.env(name, value),
                None => tmux.env_remove(name),
            };
        }
        tmux.envs(variables.iter().copied());
        tmux.args(["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24"]);
        let words: Vec<_> = arguments
            .iter()
            .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
            .collect();
        tmux.arg(format!(
            // A job of its own, which the next line continues after a stop: in the middle of a line, or of an escape sequence, which CAN ends. The
            // terminal stays when the program has ended.
            "set -m; '{}' {}; s=$?; while [ $s -gt 128 ]; do printf '\\030\\nstopped with %s\\n' $s; read line; fg; s=$?; done; \
             echo ended with $s; exec sleep 600",
            env!("CARGO_BIN_EXE_pg_background_top"),
            words.join(" ")
        ));
        run(&mut tmux);
        terminal
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .arg("-u")
            .arg("-S")
            .arg(&self.socket);
        command
    }

    /// Types keys, by tmux's names.
    pub fn keys(&self, keys: &[&str]) {
        run(self.tmux().arg("send-keys").args(keys));
    }

    /// Sends a signal to the program.
    pub fn signal(&self, cluster: &Cluster, signal: &str) {
        let shell = run(self.tmux().args(["display-message", "-p", "#{pane_pid}"])).stdout;
        let shell = String::from_utf8(shell).expect("text").trim().to_owned();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).expect("a process");
        cluster.signal(children.trim().parse().expect("one child"), signal);
    }

    /// Whether the terminal shows its usual screen, with a cursor.
    pub fn is_restored(&self) -> bool {
        let state = run(self
            .tmux()
            .args(["display-message", "-p", "#{alternate_on} #{cursor_flag}"]))
        .stdout;
        state == b"0 1\n"
    }

    pub fn resize(&self, columns: u32, lines: u32) {
        run(self
            .tmux()
            .args(["resize-window", "-x", &columns.to_string(), "-y", &lines.to_string()]));
    }

    fn capture(&self, options: &[&str]) -> String {
        String::from_utf8(run(self.tmux().args(["capture-pane", "-p"]).args(options)).stdout).expect("text")
    }

    pub fn screen(&self) -> String {
        self.capture(&[])
    }

    /// The screen with its colours.
    pub fn colours(&self) -> String {
        self.capture(&["-e"])
    }

    /// Waits until the screen satisfies a condition, and returns it.
    #[track_caller]
    pub fn wait(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if condition(&screen) {
                return screen;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: not within {PATIENCE:?}; the screen:\n{screen}"
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    #[track_caller]
    pub fn see(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }

    /// Types keys and waits for what they show.
    #[track_caller]
    pub fn press(&self, keys: &[&str], text: &str) -> String {
        self.keys(keys);
        self.see(text)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux().arg("kill-server").output();
    }
}
