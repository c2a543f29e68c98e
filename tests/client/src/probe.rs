//! The library that has what tests ask and SQL cannot, and the moments at which faults happen (`src/pg/moment.rs`).

use crate::cluster::Cluster;
use crate::process::{give_to_server, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// Builds and installs the library of the probe, once for each program of tests.
pub fn install_probe() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        run(Command::new("make")
            .args(["-s", "probe-installed"])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")));
    });
}

/// The moments of a cluster. They last when the server starts again.
pub struct Moments(PathBuf);

impl Moments {
    pub fn of(cluster: &Cluster) -> Self {
        let directory = cluster.data().join("pg_background.moments");
        std::fs::create_dir(&directory).expect("the directory is made");
        give_to_server(&directory);
        Self(directory)
    }

    /// The next process that comes by has this fault.
    pub fn arm(&self, moment: &str, fault: &str) {
        let _ = std::fs::remove_file(self.reached(moment));
        let new = self.0.join("new");
        std::fs::write(&new, fault).expect("the file is written");
        std::fs::rename(&new, self.0.join(moment)).expect("the file is renamed");
    }

    fn reached(&self, moment: &str) -> PathBuf {
        self.0.join(format!("{moment}.reached"))
    }

    /// Whether a process has come by since the moment was armed.
    pub fn is_reached(&self, moment: &str) -> bool {
        self.reached(moment).exists()
    }

    /// The process that was stopped there goes on.
    pub fn go_on(&self, moment: &str) {
        std::fs::remove_file(self.reached(moment)).expect("the moment was reached");
    }

    /// Nothing happens there any more. Tells whether it has happened.
    pub fn disarm(&self, moment: &str) -> bool {
        let was_reached = std::fs::remove_file(self.0.join(moment)).is_err();
        let _ = std::fs::remove_file(self.reached(moment));
        was_reached
    }
}
