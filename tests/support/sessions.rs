//! Sessions beside a test's own.

use std::thread::JoinHandle;
use std::time::Duration;

use postgres::Client;
use postgres::error::DbError;

use super::{Sql, shared, wait_for};

/// Another session in the same database of the shared cluster.
pub fn beside(client: &mut Client) -> Client {
    shared().connect(&client.database())
}

/// Runs `sql` in its session on a thread of its own; gives the error it ended with.
pub fn start(mut session: Client, sql: &'static str) -> JoinHandle<Option<DbError>> {
    std::thread::spawn(move || {
        let error = session.batch_execute(sql).err()?;
        Some(error.as_db_error().cloned().expect("an error of the server"))
    })
}

/// The same in a session beside `client`, which waits when this returns, for one of `events` of pg_stat_activity.
pub fn start_waiting(client: &mut Client, sql: &'static str, events: &[&str]) -> JoinHandle<Option<DbError>> {
    let mut session = beside(client);
    let pid: i32 = session.one("SELECT pg_backend_pid()");
    let thread = start(session, sql);
    let event = format!("SELECT coalesce(wait_event_type, '') FROM pg_stat_activity WHERE pid = {pid}");
    wait_for("a session that waits", Duration::from_secs(60), || {
        events.contains(&client.one::<String>(&event).as_str())
    });
    thread
}

/// Waits until the session of this process runs a statement, which a cancel would otherwise miss.
pub fn wait_until_active(client: &mut Client, pid: i32) {
    let active = format!("SELECT state = 'active' FROM pg_stat_activity WHERE pid = {pid}");
    wait_for("a statement that runs", Duration::from_secs(60), || client.one(&active));
}
