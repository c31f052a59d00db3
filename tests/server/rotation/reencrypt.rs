//! Re-encryption of tables in use: progress, several workers, interruptions, and what other sessions write meanwhile.

use std::process::Command;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::error::DbError;

use crate::support::{
    Cluster, Sql, beside, fresh_database, rotated_docs, run, shared, start, start_waiting, wait_for,
};

const OLD_ROWS: &str = "SELECT count(*) FROM docs WHERE pgseal.key_version(m) = 1";
const PROGRESS: &str = "SELECT format('%s %s', state, rows_done) FROM pgseal.rotation_progress";
/// Every row holds its own number, whatever its key.
const WRONG: &str = "SELECT count(*) FROM docs WHERE (pgseal.decrypt(m) ->> 'n')::int <> id";

/// About ten rows a page.
fn set_up(client: &mut Client, rows: usize) {
    rotated_docs(client, rows, 600);
}

fn database(rows: usize) -> Client {
    let mut client = fresh_database();
    set_up(&mut client, rows);
    client
}

fn wait_for_progress(client: &mut Client, rows: i64) {
    let enough = format!("SELECT count(*) > 0 FROM pgseal.rotation_progress WHERE rows_done >= {rows}");
    wait_for("re-encrypted rows", Duration::from_secs(60), || client.one(&enough));
}

#[test]
fn progress_is_seen_while_it_runs_and_afterwards() {
    let mut client = database(700);
    assert_eq!(client.column::<String>(PROGRESS), [] as [&str; 0]);
    let mut session = beside(&mut client);
    let pid: i32 = session.one("SELECT pg_backend_pid()");
    let thread = start(session, "CALL pgseal.reencrypt('docs', 'm', 20, max_rate => 200)");
    wait_for_progress(&mut client, 100);
    let seen = client
        .query_one(
            "SELECT table_name::text, column_name::text, state, pages_done, pages, rows_done, rows_per_second::float8, \
             extract(epoch FROM remaining)::float8, pids FROM pgseal.rotation_progress",
            &[],
        )
        .unwrap();
    assert_eq!(
        (seen.get::<_, &str>(0), seen.get::<_, &str>(1), seen.get::<_, &str>(2)),
        ("docs", "m", "running")
    );
    let (done, pages, rows): (i64, i64, i64) = (seen.get(3), seen.get(4), seen.get(5));
    assert!(0 < done && done < pages && rows < 700, "{done} of {pages} pages, {rows} rows");
    let (rate, remaining): (f64, f64) = (seen.get(6), seen.get(7));
    assert!((100.0..300.0).contains(&rate), "{rate} rows a second");
    assert!((0.5..10.0).contains(&remaining), "{remaining} s");
    assert_eq!(seen.get::<_, Vec<i32>>(8), [pid]);
    assert!(thread.join().unwrap().is_none());
    assert_eq!(client.column::<String>(PROGRESS), ["finished 700"]);
    assert_eq!(client.one::<i64>(OLD_ROWS), 0);
}

#[test]
fn max_rate_is_kept_and_notices_tell_rate_and_remaining_time() {
    let mut client = database(600);
    let name = client.database();
    let began = Instant::now();
    let output = shared().psql(&name, &[] as &[&str], "CALL pgseal.reencrypt('docs', 'm', max_rate => 60)");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let seconds = began.elapsed().as_secs_f64();
    assert!((8.5..15.0).contains(&seconds), "600 rows at 60 a second took {seconds} s");
    let notice = told.lines().find(|line| line.contains("rows/s")).unwrap_or_else(|| panic!("{told}"));
    assert!(notice.contains("docs: pass 1, page ") && notice.contains(" rows re-encrypted, "), "{notice}");
    assert!(notice.ends_with(" remaining") && notice.contains("00:00:0"), "{notice}");
    assert!(told.contains("600 rows of docs.m re-encrypted"), "{told}");
    for bad in ["0", "-1", "'NaN'"] {
        assert_eq!(client.state(&format!("CALL pgseal.reencrypt('docs', 'm', max_rate => {bad})")), "22023");
    }
}

#[test]
fn workers_side_by_side_share_the_table() {
    let mut client = database(600);
    let workers: Vec<_> = (0..3)
        .map(|_| start(beside(&mut client), "CALL pgseal.reencrypt('docs', 'm', 10, max_rate => 100)"))
        .collect();
    wait_for_progress(&mut client, 200);
    assert_eq!(client.one::<i32>("SELECT cardinality(pids) FROM pgseal.rotation_progress"), 3);
    for worker in workers {
        assert!(worker.join().unwrap().is_none());
    }
    // Each row once: what one has done is current for the others.
    assert_eq!(client.column::<String>(PROGRESS), ["finished 600"]);
    assert_eq!(client.one::<i64>(OLD_ROWS) + client.one::<i64>(WRONG), 0);
}

#[test]
fn a_cancelled_run_goes_on_where_it_was() {
    let mut client = database(600);
    let session = beside(&mut client);
    let cancel = session.cancel_token();
    let thread = start(session, "CALL pgseal.reencrypt('docs', 'm', 20, max_rate => 50)");
    wait_for_progress(&mut client, 60);
    cancel.cancel_query(postgres::NoTls).unwrap();
    assert_eq!(thread.join().unwrap().expect("a cancel").code().code(), "57014");
    let state = "SELECT format('%s %s', state, started) FROM pgseal.rotation_progress";
    let interrupted: String = client.one(state);
    assert!(interrupted.starts_with("interrupted "), "{interrupted}");
    let (done, page): (i64, i64) = {
        let row =
            client.query_one("SELECT rows_done, pages_done FROM pgseal.rotation_progress", &[]).unwrap();
        (row.get(0), row.get(1))
    };
    assert!(0 < done && done < 600 && page > 0);
    // Old rows on pages that were done show that these are not looked at again in this pass, only in the next.
    let thread = start(beside(&mut client), "CALL pgseal.reencrypt('docs', 'm', 20, max_rate => 60)");
    wait_for_progress(&mut client, done + 40);
    let again: i64 = client.one("SELECT pages_done FROM pgseal.rotation_progress WHERE pass = 1");
    assert!(again > page, "{again} after {page}");
    assert!(thread.join().unwrap().is_none());
    assert_eq!(client.column::<String>(PROGRESS), ["finished 600"]);
    let finished: String = client.one(state);
    assert_eq!(finished.replace("finished", "interrupted"), interrupted);
    assert_eq!(client.one::<i64>(OLD_ROWS), 0);
}

#[test]
fn a_killed_backend_or_server_loses_nothing() {
    let cluster = Cluster::with_pgseal(&["fsync = on"]);
    let mut client = cluster.connect("postgres");
    let kills = crate::server::rotation::in_place::kills().max(6);
    let rows = 170 * kills as i64;
    set_up(&mut client, rows as usize);
    let mut done = 0;
    for round in 0..kills as u64 {
        let mut session = cluster.connect("postgres");
        let pid: i32 = session.one("SELECT pg_backend_pid()");
        let thread = std::thread::spawn(move || {
            session
                .batch_execute("CALL pgseal.reencrypt('docs', 'm', 10, max_rate => 500, pace => 'full')")
                .is_err()
        });
        wait_for_progress(&mut client, done + 50);
        std::thread::sleep(Duration::from_millis(37 * (round % 6)));
        if round % 2 == 0 {
            let restarts =
                || cluster.log().matches("all server processes terminated; reinitializing").count();
            let before = restarts();
            run(Command::new("kill").args(["-9", &pid.to_string()]));
            // Until the server has noticed, it still takes connections, and ends them then.
            wait_for("the restart", Duration::from_secs(60), || restarts() > before);
        } else {
            cluster.kill();
            cluster.start_again();
        }
        assert!(thread.join().unwrap());
        wait_for("the server", Duration::from_secs(60), || {
            cluster
                .config("postgres", "postgres")
                .connect(postgres::NoTls)
                .is_ok_and(|mut c| c.simple_query("SELECT").is_ok())
        });
        client = cluster.connect("postgres");
        assert_eq!(client.one::<i64>(WRONG), 0, "round {round}");
        assert_eq!(client.one::<i64>("SELECT count(*) FROM docs"), rows);
        // What was committed is known, and nothing else.
        let known: i64 = client.one("SELECT rows_done FROM pgseal.rotation_progress");
        assert_eq!(rows - known, client.one::<i64>(OLD_ROWS), "round {round}");
        assert_eq!(client.one::<String>("SELECT state FROM pgseal.rotation_progress"), "interrupted");
        assert!(known >= done, "{known} after {done}");
        done = known;
    }
    client.run("CALL pgseal.reencrypt('docs', 'm')");
    assert_eq!(client.column::<String>(PROGRESS), [format!("finished {rows}")]);
    assert_eq!(client.one::<i64>(OLD_ROWS) + client.one::<i64>(WRONG), 0);
}

/// The row that another session has changed, once re-encryption that waited for it has gone on.
fn after_waiting(other: &str, end: &str) -> (Client, Option<DbError>) {
    let mut client = database(3);
    client.run("CREATE TABLE saved AS SELECT pgseal.encrypt('{\"n\": 77}'::jsonb, 'k') AS m; SELECT pgseal.rotate_key('k')");
    let mut writer = beside(&mut client);
    writer.run(&format!("BEGIN; {other}"));
    let thread = start_waiting(&mut client, "CALL pgseal.reencrypt('docs', 'm')", &["Lock"]);
    writer.run(end);
    let error = thread.join().unwrap();
    (client, error)
}

#[test]
fn what_others_write_is_neither_lost_nor_overwritten() {
    let second =
        "SELECT format('%s %s', pgseal.key_version(m), pgseal.decrypt(m) ->> 'n') FROM docs WHERE id = 2";
    let update = r#"UPDATE docs SET m = '{"n": 5}' WHERE id = 2"#;
    let write_older_bytes = "UPDATE docs SET m = saved.m FROM saved WHERE id = 2";
    for (other, end, expected) in [
        (update, "COMMIT", vec!["3 5"]),
        (update, "ROLLBACK", vec!["3 2"]),
        // A new value under an older key: the new value is kept, under the newest key.
        (write_older_bytes, "COMMIT", vec!["3 77"]),
        ("UPDATE docs SET m = NULL WHERE id = 2", "COMMIT", vec![" "]),
        ("DELETE FROM docs WHERE id = 2", "COMMIT", vec![]),
        ("SELECT FROM docs WHERE id = 2 FOR UPDATE", "COMMIT", vec!["3 2"]),
        (
            "UPDATE docs SET id = id + 10 WHERE id = 2; UPDATE docs SET id = id - 10 WHERE id = 12",
            "COMMIT",
            vec!["3 2"],
        ),
    ] {
        let (mut client, error) = after_waiting(other, end);
        assert!(error.is_none(), "{other}: {error:?}");
        assert_eq!(client.column::<String>(second), expected, "{other}; {end}");
        let old = "SELECT count(*) FROM docs WHERE pgseal.key_version(m) < 3";
        assert_eq!(client.one::<i64>(old), 0, "{other}; {end}");
    }
}

#[test]
fn a_writer_that_waits_for_a_batch_writes_on_top_of_it() {
    let mut client = database(3);
    // Holds the batch up at its last row, when the rows before are re-encrypted but not committed.
    let mut holder = beside(&mut client);
    holder.run("BEGIN; SELECT FROM docs WHERE id = 3 FOR UPDATE");
    let rotation = start_waiting(&mut client, "CALL pgseal.reencrypt('docs', 'm')", &["Lock"]);
    let writer =
        start_waiting(&mut client, r#"UPDATE docs SET m = m || '{"n": 50}' WHERE id = 1"#, &["Lock"]);
    // Readers go on.
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE pgseal.decrypt(m) ->> 'n' = id::text"), 3);
    holder.run("COMMIT");
    assert!(rotation.join().unwrap().is_none());
    assert!(writer.join().unwrap().is_none());
    assert_eq!(
        client.column::<String>("SELECT pgseal.decrypt(m) ->> 'n' FROM docs ORDER BY id"),
        ["50", "2", "3"]
    );
    assert_eq!(client.one::<i64>(OLD_ROWS), 0);
}

#[test]
fn a_deadlock_with_another_transaction_ends_a_batch_only() {
    let mut client = database(3);
    let name = client.database();
    // Whoever looks for deadlocks gives way: the batch, once, after this time, or on a busy machine the writer later.
    client.run(&format!("ALTER DATABASE {name} SET deadlock_timeout = '5s'"));
    let mut writer = beside(&mut client);
    writer.run("SET deadlock_timeout = '20s'");
    writer.run(r#"BEGIN; UPDATE docs SET m = m || '{"b": 2}' WHERE id = 2"#);
    let rotation = start_waiting(&mut client, "CALL pgseal.reencrypt('docs', 'm')", &["Lock"]);
    // The batch holds row 1 and waits for row 2.
    let both = r#"UPDATE docs SET m = m || '{"b": 1}' WHERE id = 1; COMMIT"#;
    if let Err(error) = writer.batch_execute(both) {
        assert_eq!(error.code().map(|code| code.code()), Some("40P01"), "{error}");
        writer
            .run(&format!(r#"ROLLBACK; BEGIN; UPDATE docs SET m = m || '{{"b": 2}}' WHERE id = 2; {both}"#));
    }
    assert!(rotation.join().unwrap().is_none());
    assert_eq!(
        client.column::<String>("SELECT pgseal.decrypt(m) ->> 'b' FROM docs WHERE id < 3 ORDER BY id"),
        ["1", "2"]
    );
    assert_eq!(client.one::<i64>(OLD_ROWS) + client.one::<i64>(WRONG), 0);
}

#[test]
fn tokens_stay_and_current_data_keys_are_left_without_index() {
    let mut client = database(50);
    let versions = "SELECT format('%s %s %s', key_version, index_key_version, number_of_values) FROM pgseal.key_usage('docs', 'm')";
    let tokens = "SELECT encode(substr(pgseal.encrypted_jsonb_send(m), 11, 38), 'hex') FROM docs ORDER BY id";
    let before: Vec<String> = client.column(tokens);
    client.run("SELECT pgseal.rotate_index_key('k')");
    client.run("CALL pgseal.reencrypt('docs', 'm', index => false)");
    assert_eq!(client.column::<String>(versions), ["2 1 50"]);
    assert_eq!(client.column::<String>(tokens), before);
    let found = r#"SELECT count(*) FROM docs WHERE m @> '{"a": 1}'"#;
    assert_eq!((client.one::<i64>(found), client.one::<i64>(WRONG)), (50, 0));
    client.run("CALL pgseal.reencrypt('docs', 'm', index => false)");
    assert_eq!(client.column::<String>(PROGRESS), ["finished 0"]);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE pgseal.is_current(m)"), 0);
    assert_eq!(client.one::<i64>("SELECT count(*) FROM docs WHERE pgseal.is_current(m, index => false)"), 50);
    client.run("CALL pgseal.reencrypt('docs', 'm')");
    assert_eq!(client.column::<String>(versions), ["2 2 50"]);
    assert_eq!((client.one::<i64>(found), client.one::<i64>(WRONG)), (50, 0));
}

#[test]
fn a_run_with_other_options_waits_its_turn() {
    let mut client = database(200);
    let thread = start(beside(&mut client), "CALL pgseal.reencrypt('docs', 'm', 10, max_rate => 100)");
    wait_for_progress(&mut client, 20);
    assert_eq!(client.state("CALL pgseal.reencrypt('docs', 'm', index => false)"), "55006");
    assert!(thread.join().unwrap().is_none());
    client.run("CALL pgseal.reencrypt('docs', 'm', index => false)");
}

#[test]
fn a_key_rotated_meanwhile_is_the_aim_of_the_next_run() {
    let mut client = database(300);
    let thread = start(beside(&mut client), "CALL pgseal.reencrypt('docs', 'm', 10, max_rate => 150)");
    wait_for_progress(&mut client, 50);
    client.run("SELECT pgseal.rotate_key('k')");
    client.run("CALL pgseal.reencrypt('docs', 'm')");
    assert_eq!(thread.join().unwrap(), None);
    assert_eq!(client.column::<i32>("SELECT DISTINCT pgseal.key_version(m) FROM docs"), [3]);
    assert_eq!(client.one::<i64>(WRONG), 0);
}

#[test]
fn other_sessions_keep_their_keys_meanwhile() {
    let mut client = database(300);
    let mut reader = beside(&mut client);
    // Both versions.
    reader.run("UPDATE docs SET m = m || '{}' WHERE id = 1");
    reader.run("SELECT pgseal.decrypt(m) FROM docs");
    let calls = "SELECT kms_calls FROM pgseal.stat";
    let before: i64 = reader.one(calls);
    let thread = start(beside(&mut client), "CALL pgseal.reencrypt('docs', 'm', 10)");
    while !thread.is_finished() {
        assert_eq!(reader.one::<i64>(WRONG), 0);
    }
    assert!(thread.join().unwrap().is_none());
    assert_eq!(reader.one::<i64>(WRONG), 0);
    assert_eq!(reader.one::<i64>(calls), before);
}

#[test]
fn a_stricter_default_isolation_does_not_end_it() {
    let mut client = database(3);
    let name = client.database();
    client.run(&format!("ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"));
    let mut writer = beside(&mut client);
    writer.run(r#"BEGIN; UPDATE docs SET m = m || '{"b": 2}' WHERE id = 2"#);
    let rotation = start_waiting(&mut client, "CALL pgseal.reencrypt('docs', 'm')", &["Lock"]);
    writer.run("COMMIT");
    assert!(rotation.join().unwrap().is_none());
    assert_eq!(client.one::<i64>(OLD_ROWS), 0);
}

#[test]
fn partitions_show_progress_each_to_who_may_select_from_them() {
    let mut client = database(0);
    client.run(
        "CREATE TABLE parted (id int, m encrypted_jsonb(k)) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10);
         CREATE TABLE high PARTITION OF parted FOR VALUES FROM (10) TO (100);
         INSERT INTO parted SELECT n, '{\"a\": 1}'::jsonb FROM generate_series(0, 49) n;
         SELECT pgseal.rotate_key('k')",
    );
    client.run("CALL pgseal.reencrypt('parted', 'm')");
    let progress =
        "SELECT format('%s %s %s', table_name, state, rows_done) FROM pgseal.rotation_progress ORDER BY 1";
    assert_eq!(client.column::<String>(progress), ["high finished 40", "low finished 10"]);
    let name = client.database();
    let role = format!("{name}_reader");
    client.run(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE ON low TO {role}"));
    let mut session = shared().connect_as(&role, &name);
    assert_eq!(session.column::<String>(progress), ["low finished 10"]);
    assert_eq!(session.state("SELECT FROM pgseal.rotation"), "42501");
    // Nobody moves the state of a table of others, not even with UPDATE.
    for call in [
        "rotation_join('low', 'm', true, 1)",
        "rotation_claim('low', 'm', '')",
        "rotation_advance('low', 'm', 0, 1, 1)",
        "rotation_end_pass('low', 'm', 1, 1, false)",
        "rotation_start_pass('low'::regclass, 2::int2, 1)",
    ] {
        assert_eq!(session.state(&format!("SELECT pgseal.{call}")), "42501", "{call}");
    }
    client.run("DROP TABLE low");
    assert_eq!(client.column::<String>(progress), ["high finished 40"]);
}
