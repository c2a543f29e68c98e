//! A PgBouncer in front of a cluster: its own directory, its own unix socket, removed when dropped.

use std::path::{Path, PathBuf};
use std::process::Child;

use crate::cluster::Cluster;
use crate::process::{as_server, run};
use crate::session::Session;

pub struct Pooler {
    dir: PathBuf,
    process: Child,
}

impl Pooler {
    /// Starts PgBouncer for all databases of a cluster with these settings (`name = value`). It trusts the users postgres, app and tenant.
    pub fn start(cluster: &Cluster, settings: &[&str]) -> Self {
        let dir = run(as_server("mktemp").args(["-d", "/tmp/pgbg.XXXXXX"])).stdout;
        let dir = PathBuf::from(String::from_utf8(dir).unwrap().trim());
        let ini = dir.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={}\n[pgbouncer]\nunix_socket_dir = {}\nlisten_addr =\nlisten_port = 5432\nauth_type = trust\nauth_file = {}/users\n\
             ignore_startup_parameters = extra_float_digits\nlogfile = {}/log\n{}\n",
            cluster.socket_dir().display(),
            dir.display(),
            dir.display(),
            dir.display(),
            settings.join("\n")
        );
        std::fs::write(&ini, text).unwrap();
        std::fs::write(dir.join("users"), "\"postgres\" \"\"\n\"app\" \"\"\n\"tenant\" \"\"\n").unwrap();
        let process = as_server(program())
            .arg("-q")
            .arg(&ini)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot run pgbouncer, which `make setup` installs: {e}"));
        let pooler = Self { dir, process };
        crate::wait_for("the start of the pooler", || {
            Session::connect(&pooler.dir, "postgres", "postgres", "").is_ok()
        });
        pooler
    }

    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    pub fn session_as(&self, role: &str) -> Session {
        Session::connect(&self.dir, "postgres", role, "").unwrap_or_else(|e| panic!("cannot connect: {e}"))
    }
}

fn program() -> &'static str {
    let places = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
    places
        .into_iter()
        .find(|place| std::path::Path::new(place).exists())
        .unwrap_or("pgbouncer")
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.dir.join("log")).unwrap_or_default());
        }
        let _ = run(as_server("rm").arg("-rf").arg(&self.dir));
    }
}
