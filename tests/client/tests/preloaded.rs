//! Tests with the library in `shared_preload_libraries`.

use harness::Cluster;

/// The lock table grows into the free part of the main shared memory until none is left.
#[test]
fn an_overflow_of_the_lock_table_leaves_the_extension_its_room() {
    let cluster = Cluster::start(&[
        "shared_preload_libraries = 'pg_background'",
        "max_locks_per_transaction = 10",
        "max_connections = 10",
        "max_worker_processes = 4",
    ]);
    let mut glutton = cluster.session();
    // Before the first use of the extension.
    assert!(glutton.holds("count(*) = 1 FROM pg_shmem_allocations WHERE name LIKE 'pg_background %'"));
    glutton.exec(
        "CREATE FUNCTION take_all() RETURNS int LANGUAGE plpgsql AS $$
        DECLARE n int := 0;
        BEGIN
            LOOP
                PERFORM pg_advisory_lock(n);
                n := n + 1;
            END LOOP;
        EXCEPTION WHEN out_of_memory THEN
            RETURN n;
        END $$",
    );
    assert!(glutton.value::<i32>("SELECT take_all()") > 100);
    glutton.exec("SELECT pg_advisory_unlock_all()");

    let mut session = cluster.session();
    assert_eq!(
        session.value::<String>("SELECT state FROM pg_background_run('SELECT 1')"),
        "stopped"
    );
}
