//! No state of one job reaches the next: the same jobs in the same order, on reused workers and on fresh ones.

use harness::Cluster;
use harness::order::{Order, Step, compare};

mod compiled;
mod objects;
mod roles;
mod settings;
mod texts;
mod transactions;

const SETUP: &str = "
    CREATE ROLE alice LOGIN;
    CREATE ROLE bob;
    GRANT bob TO alice;
    GRANT pgbackground_role TO alice;
    GRANT CREATE ON SCHEMA public TO alice;
    CREATE TABLE kept (n int);
    GRANT ALL ON kept TO PUBLIC;
    CREATE TABLE checked (n int UNIQUE DEFERRABLE INITIALLY DEFERRED);
    CREATE SEQUENCE counter;
    CREATE SEQUENCE cached CACHE 10;
    SELECT setseed(0.5);
    CREATE TABLE seeded AS SELECT random() AS first;
    CREATE SCHEMA other;
    CREATE TABLE shade AS SELECT 'public' AS x;
    CREATE TABLE other.shade AS SELECT 'other' AS x;
    GRANT USAGE ON SCHEMA other TO PUBLIC;
    GRANT SELECT ON shade, other.shade TO PUBLIC;
    CREATE FUNCTION shaded() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT x FROM shade); END $$;
    CREATE TABLE secret (owner name, n int);
    INSERT INTO secret VALUES ('postgres', 1), ('alice', 10), ('bob', 100);
    ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON secret USING (owner = current_user);
    GRANT SELECT ON secret TO alice, bob;
    CREATE FUNCTION seen() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT sum(n) FROM secret); END $$;
    CREATE FUNCTION seen_as_owner() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN RETURN (SELECT sum(n) FROM secret); END $$;
    CREATE FUNCTION run_as_owner(statement text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN RETURN (SELECT state || coalesce(sqlstate, '') FROM pg_background_run(statement)); END $$;
    CREATE EXTENSION dblink;
    CREATE EXTENSION pg_trgm;
";

/// A worker that has compiled anything exits when a table was analysed.
const SETTINGS: [&str; 3] = [
    "max_prepared_transactions = 4",
    "max_wal_senders = 4",
    "autovacuum = off",
];

fn cluster(setup: &str, workers: &str) -> Cluster {
    let cluster = Cluster::start(&[&SETTINGS[..], &[workers]].concat());
    cluster.session().exec(setup);
    cluster
}

/// Three clusters: in the first workers wait for the next job, in the second each job has a fresh one, in the third a session executes the
/// steps itself.
fn clusters(setup: &str) -> [Cluster; 3] {
    ["'10min'", "0", "0"].map(|time| cluster(setup, &format!("pg_background.worker_idle_timeout = {time}")))
}

/// An order after which a worker is certainly reusable.
const fn cleared(name: &'static str, steps: &'static [Step]) -> Order {
    Order {
        name,
        role: "postgres",
        steps,
        keeps_worker: true,
        shows: true,
    }
}

/// An order after which a worker may exit.
const fn left(name: &'static str, steps: &'static [Step]) -> Order {
    Order {
        keeps_worker: false,
        ..cleared(name, steps)
    }
}

/// An order whose steps show nothing when one session executes them itself.
const fn silent(order: Order) -> Order {
    Order { shows: false, ..order }
}

const fn alice(order: Order) -> Order {
    Order { role: "alice", ..order }
}

fn run(orders: &[Order]) {
    run_in(SETUP, orders);
}

fn run_in(setup: &str, orders: &[Order]) {
    // A worker that exits must log nothing; the clusters check the log at their end.
    let [warm, fresh, plain] = clusters(setup);
    compare(&warm, &fresh, &plain, orders);
}
