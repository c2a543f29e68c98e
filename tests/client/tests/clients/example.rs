use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, NoTls};

async fn example(config: &str) -> Result<(), Error> {
    let (mut client, connection) = tokio_postgres::connect(config, NoTls).await?;
    tokio::spawn(connection);

    let task = order(&mut client, 7, 99.5).await?;
    assert_eq!(wait(&client, task).await?.as_deref(), Some("done"));
    assert_eq!(rows_of_a_task(&client).await?, 1);
    assert_eq!(rows_of_a_job(&mut client).await?.len(), 1000);
    Ok(())
}

/// Stores an order and enqueues its mail in the same transaction. Returns the task's id.
async fn order(client: &mut Client, customer: i32, total: f64) -> Result<i64, Error> {
    let transaction = client.transaction().await?;
    let insert = "INSERT INTO orders (customer, total) VALUES ($1, $2) RETURNING id";
    let order = transaction
        .query_typed_one(insert, &[(&customer, Type::INT4), (&total, Type::FLOAT8)])
        .await?;
    let text = format!("order {} has arrived", order.get::<_, i32>(0));
    let enqueue = "SELECT background.enqueue('INSERT INTO mail (customer, text) VALUES ($1, $2)', \
                   ROW($1, $2), label => 'mail')";
    let task = transaction
        .query_typed_one(enqueue, &[(&customer, Type::INT4), (&text, Type::TEXT)])
        .await?;
    transaction.commit().await?;
    Ok(task.get(0))
}

/// Returns the state in which a task has ended, or None if it has not ended within a minute.
async fn wait(client: &Client, task: i64) -> Result<Option<String>, Error> {
    let wait = "SELECT background.wait($1, 60000)";
    let row = client.query_typed_one(wait, &[(&task, Type::INT8)]).await?;
    Ok(row.get(0))
}

/// Counts the orders in a task whose rows are kept.
async fn rows_of_a_task(client: &Client) -> Result<i64, Error> {
    let enqueue = "SELECT background.enqueue('SELECT count(*) AS n FROM orders', keep_result => true)";
    let task: i64 = client.query_typed_one(enqueue, &[]).await?.get(0);
    wait(client, task).await?;
    let result = "SELECT (kept ->> 'n')::int8 FROM background.result($1) AS kept";
    let row = client.query_typed_one(result, &[(&task, Type::INT8)]).await?;
    Ok(row.get(0))
}

/// Launches a job and reads its rows.
async fn rows_of_a_job(client: &mut Client) -> Result<Vec<(i32, f64)>, Error> {
    let transaction = client.transaction().await?;
    transaction
        .batch_execute("SET LOCAL pg_background.result_retention = '10min'")
        .await?;
    let sql = "SELECT n, sqrt(n) FROM generate_series(1, 1000) AS n";
    let launch = "SELECT pid, cookie FROM pg_background_launch($1)";
    let job = transaction.query_typed_one(launch, &[(&sql, Type::TEXT)]).await?;
    transaction.commit().await?;

    let (pid, cookie): (i32, i64) = (job.get(0), job.get(1));
    let result = "SELECT n, root FROM pg_background_result($1, $2) AS (n int, root float8)";
    let rows = client
        .query_typed(result, &[(&pid, Type::INT4), (&cookie, Type::INT8)])
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
