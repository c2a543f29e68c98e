//! Connections: server after server, with the password and the TLS that each needs.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation, TargetSessionAttrs};
use tokio_postgres::{Config, NoTls};

use crate::args::Ask;
use crate::conninfo::Parameters;
use crate::parameters::{Environment, SOCKET_DIRECTORIES, Server, complete, home, servers};
use crate::session::Session;
use crate::{files, tls};

/// Everything that a connection needs, also the next one after this one is lost.
pub struct Connector {
    parameters: Parameters,
    servers: Vec<Server>,
    home: Option<PathBuf>,
    /// What the user typed.
    typed: Option<String>,
    /// The server of the last connection.
    chosen: AtomicUsize,
}

/// Why there is no connection.
pub struct Failure {
    pub message: String,
    /// Whether another password may help.
    pub wants_password: bool,
    /// Whether another `sslmode` cannot help.
    settled: bool,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self {
            message,
            wants_password: false,
            settled: true,
        }
    }
}

impl Connector {
    pub fn new(parameters: Parameters, environment: Environment) -> Result<Self, String> {
        let parameters = complete(parameters, environment)?;
        let servers = servers(&parameters)?;
        let home = home(&|name| environment(name).filter(|value| !value.is_empty()));
        Ok(Self {
            parameters,
            servers,
            home,
            typed: None,
            chosen: AtomicUsize::new(0),
        })
    }

    /// Connects, and asks for a password if that is wanted or needed.
    pub fn connect_asking(&mut self, ask: Ask) -> Result<Session, String> {
        let prompt = format!("Password for user {}: ", self.parameters["user"]);
        if ask == Ask::Always {
            self.typed = Some(crate::terminal::read_password(&prompt)?);
        }
        match self.connect() {
            Err(failure) if failure.wants_password && ask == Ask::IfNeeded => {
                self.typed = Some(crate::terminal::read_password(&prompt).map_err(|_| failure.message)?);
                self.connect().map_err(|failure| failure.message)
            }
            answer => answer.map_err(|failure| failure.message),
        }
    }

    /// Connects to the first of the servers that accepts.
    pub fn connect(&self) -> Result<Session, Failure> {
        let mut failures = Vec::new();
        let mut wants_password = false;
        let kinds: &[&str] = match self.get("target_session_attrs") {
            Some("prefer-standby") => &["standby", "any"],
            Some(kind) => &[kind],
            None => &["any"],
        };
        let candidates = kinds
            .iter()
            .flat_map(|kind| self.servers.iter().enumerate().map(move |server| (kind, server)));
        for (kind, (n, server)) in candidates {
            match self.connect_to(server, kind) {
                Ok(client) => {
                    self.chosen.store(n, Ordering::Relaxed);
                    return Ok(client);
                }
                Err(failure) => {
                    wants_password |= failure.wants_password;
                    let place = if server.host.is_empty() {
                        &server.address
                    } else {
                        &server.host
                    };
                    failures.push(format!(
                        "connection to server at \"{place}\", port {} failed: {}",
                        server.port, failure.message
                    ));
                }
            }
        }
        failures.dedup();
        Err(Failure {
            message: failures.join("\n"),
            wants_password,
            settled: true,
        })
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.parameters
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Connects to the first address of a server that accepts. Each has the whole of the time to connect.
    fn connect_to(&self, server: &Server, kind: &str) -> Result<Session, Failure> {
        if server.is_socket() || !server.address.is_empty() {
            return self.connect_at(server, None, kind);
        }
        let unknown = |error: &dyn std::fmt::Display| {
            Failure::from(format!(
                "could not translate host name \"{}\" to address: {error}",
                server.host
            ))
        };
        let addresses = (server.host.as_str(), server.port.parse().unwrap_or(5432))
            .to_socket_addrs()
            .map_err(|error| unknown(&error))?;
        let mut messages = Vec::new();
        let mut answer = Err(unknown(&"it has none"));
        for address in addresses {
            answer = self.connect_at(server, Some(address.ip()), kind);
            match &mut answer {
                Err(failure) => {
                    messages.push(failure.message.clone());
                    messages.dedup();
                    failure.message = messages.join("\n");
                    if failure.wants_password {
                        break;
                    }
                }
                Ok(_) => break,
            }
        }
        answer
    }

    fn connect_at(&self, server: &Server, address: Option<IpAddr>, kind: &str) -> Result<Session, Failure> {
        let (password, warning) = self.password(server);
        let mode = if server.is_socket() {
            "disable"
        } else {
            self.get("sslmode").unwrap_or("prefer")
        };
        let attempts: &[SslMode] = match mode {
            "disable" => &[SslMode::Disable],
            "allow" => &[SslMode::Disable, SslMode::Require],
            "prefer" => &[SslMode::Prefer, SslMode::Disable],
            "require" | "verify-ca" | "verify-full" => &[SslMode::Require],
            _ => return Err(format!("invalid sslmode value: \"{mode}\"").into()),
        };
        let timeout = self.timeout()?;
        let mut config = self.config(server, kind)?;
        if let Some(address) = address {
            config.hostaddr(address);
        }
        if let Some(password) = &password {
            config.password(password);
        }
        let mut failures = Vec::new();
        let mut answer = Err(Failure::from(String::new()));
        for attempt in attempts {
            config.ssl_mode(*attempt);
            let connected = match attempt {
                SslMode::Disable => Session::connect(&config, NoTls, timeout),
                _ => Session::connect(
                    &config,
                    tls::connector(mode, &self.parameters, self.home.as_deref())?,
                    timeout,
                ),
            }
            .map_err(|error| format!("could not set up a connection: {error}"))?;
            answer = connected
                .map_err(|error| {
                    let code = error.code().map(tokio_postgres::error::SqlState::code);
                    let missing = describe(&error).contains("password missing");
                    let mut message = if missing {
                        "fe_sendauth: no password supplied".to_owned()
                    } else {
                        describe(&error)
                    };
                    if let (Some(warning), true) = (&warning, missing || code == Some("28P01")) {
                        message = format!("{message}\n{warning}");
                    }
                    // An error of the server that TLS has nothing to do with.
                    let settled = missing || (code.is_some() && code != Some("28000"));
                    Failure {
                        message,
                        wants_password: missing,
                        settled,
                    }
                })
                .and_then(|session| session.ok_or_else(|| Failure::from("timeout expired".to_owned())));
            match &mut answer {
                Err(failure) => {
                    failures.push(failure.message.clone());
                    failures.dedup();
                    failure.message = failures.join("\n");
                    if failure.settled {
                        break;
                    }
                }
                Ok(_) => break,
            }
        }
        answer
    }

    /// The password for a server, and why a password file was not used.
    fn password(&self, server: &Server) -> (Option<String>, Option<String>) {
        if let Some(password) = self.typed.clone().or_else(|| self.get("password").map(str::to_owned)) {
            return (Some(password), None);
        }
        let file = match (self.get("passfile"), &self.home) {
            (Some(file), _) => PathBuf::from(file),
            (None, Some(home)) => home.join(".pgpass"),
            (None, None) => return (None, None),
        };
        let default_socket = SOCKET_DIRECTORIES.contains(&server.host.as_str());
        let host = match server.host.as_str() {
            "" => &server.address,
            _ if default_socket => "localhost",
            host => host,
        };
        match files::password(
            &file,
            host,
            &server.port,
            &self.parameters["dbname"],
            &self.parameters["user"],
        ) {
            Ok(password) => (password, None),
            Err(warning) => (None, Some(warning)),
        }
    }

    fn seconds(&self, key: &str, default: u64) -> Result<u64, String> {
        let Some(text) = self.get(key) else { return Ok(default) };
        let number: i64 = text
            .trim()
            .parse()
            .map_err(|_| format!("invalid integer value \"{text}\" for connection option \"{key}\""))?;
        Ok(u64::try_from(number).unwrap_or(0))
    }

    /// The time to connect to one address, until the server is ready for a query.
    fn timeout(&self) -> Result<Option<Duration>, String> {
        let timeout = self.seconds("connect_timeout", 0)?;
        // As in libpq, which never waits for less than two seconds.
        Ok((timeout > 0).then(|| Duration::from_secs(timeout.max(2))))
    }

    fn config(&self, server: &Server, kind: &str) -> Result<Config, String> {
        let mut config = Config::new();
        if !server.host.is_empty() {
            config.host(&server.host);
        }
        if !server.address.is_empty() {
            config.hostaddr(
                server
                    .address
                    .parse()
                    .map_err(|_| format!("could not parse network address \"{}\"", server.address))?,
            );
        }
        config.port(server.port.parse().unwrap_or(5432));
        config.user(&self.parameters["user"]).dbname(&self.parameters["dbname"]);
        if let Some(name) = self
            .get("application_name")
            .or_else(|| self.get("fallback_application_name"))
        {
            config.application_name(name);
        }
        if let Some(options) = self.get("options") {
            config.options(options);
        }
        let seconds = |key: &str, default: u64| self.seconds(key, default);
        // A server that is gone without a word is noticed within a minute.
        config.keepalives(seconds("keepalives", 1)? != 0);
        config.keepalives_idle(Duration::from_secs(seconds("keepalives_idle", 30)?.max(1)));
        config.keepalives_interval(Duration::from_secs(seconds("keepalives_interval", 10)?.max(1)));
        config.keepalives_retries(u32::try_from(seconds("keepalives_count", 3)?.max(1)).unwrap_or(3));
        config.tcp_user_timeout(Duration::from_millis(seconds("tcp_user_timeout", 30_000)?));
        let choice = |key: &str| self.get(key).unwrap_or_default();
        let invalid = |key: &str| format!("invalid {key} value: \"{}\"", choice(key));
        config.target_session_attrs(match kind {
            "any" => TargetSessionAttrs::Any,
            "read-write" | "primary" => TargetSessionAttrs::ReadWrite,
            "read-only" | "standby" => TargetSessionAttrs::ReadOnly,
            _ => return Err(invalid("target_session_attrs")),
        });
        config.channel_binding(match choice("channel_binding") {
            "" | "prefer" => ChannelBinding::Prefer,
            "disable" => ChannelBinding::Disable,
            "require" => ChannelBinding::Require,
            _ => return Err(invalid("channel_binding")),
        });
        config.ssl_negotiation(match choice("sslnegotiation") {
            "" | "postgres" => SslNegotiation::Postgres,
            "direct" => SslNegotiation::Direct,
            _ => return Err(invalid("sslnegotiation")),
        });
        Ok(config)
    }

    /// Where the connection goes, for the screen.
    pub fn place(&self) -> String {
        let server = &self.servers[self.chosen.load(Ordering::Relaxed)];
        let host = if server.host.is_empty() {
            &server.address
        } else {
            &server.host
        };
        format!("{host}:{}", server.port)
    }
}

/// An error in one line: the server's message with its SQLSTATE, or what failed and why.
pub fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        let more = error
            .detail()
            .or(error.hint())
            .map_or(String::new(), |text| format!(" ({text})"));
        return format!(
            "{}: {} {}{more}",
            error.severity(),
            error.code().code(),
            error.message()
        );
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
