//! Rotation at a pace: it gives way to others, says what it waits for, and ends at once where it is told to.

use std::thread::available_parallelism;
use std::time::Duration;

use postgres::{CancelToken, Client, NoTls};

use crate::server::rotation::in_place::{OLD, WRONG, database};
use crate::support::{Sql, beside, shared, start, wait_for, wait_until_active};

const LIMIT: Duration = Duration::from_secs(60);
const CALLS: [&str; 2] = [
    "CALL pgseal.reencrypt('docs', 'm', pace => 'gentle')",
    "CALL pgseal.reencrypt('docs', 'm', rotation => 'in_place', pace => 'gentle')",
];
/// It has about 50 seconds to go.
const SLOW: &str = "CALL pgseal.reencrypt('docs', 'm', 1, max_rate => 1)";

fn wait_for_reason(client: &mut Client, reason: &str) {
    let waits = format!(
        "SELECT count(*) > 0 FROM pgseal.rotation_progress WHERE state = 'running' AND waits_for LIKE '{reason}'"
    );
    wait_for(reason, LIMIT, || client.one(&waits));
}

/// Sessions that work until they are dropped.
struct Busy(Vec<CancelToken>);

impl Busy {
    /// One for each processor.
    fn start(client: &mut Client) -> Busy {
        let number = available_parallelism().map_or(1, |number| number.get()).min(16);
        let sessions = (0..number).map(|_| {
            let mut session = beside(client);
            let pid: i32 = session.one("SELECT pg_backend_pid()");
            let cancel = session.cancel_token();
            start(
                session,
                "DO 'BEGIN LOOP PERFORM count(*) FROM generate_series(1, 10000); COMMIT; END LOOP; END'",
            );
            wait_until_active(client, pid);
            cancel
        });
        Busy(sessions.collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for session in &self.0 {
            session.cancel_query(NoTls).unwrap();
        }
    }
}

#[test]
fn either_pace_renews_every_row() {
    for pace in ["gentle", "full"] {
        for rotation in ["update", "in_place"] {
            let mut client = database(300);
            client.run(&format!(
                "CALL pgseal.reencrypt('docs', 'm', rotation => '{rotation}', pace => '{pace}')"
            ));
            assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0, "{rotation}, {pace}");
            let done = "SELECT format('%s %s %s', state, rows_done, waits_for) FROM pgseal.rotation_progress";
            assert_eq!(client.one::<String>(done), "finished 300 ", "{rotation}, {pace}");
        }
    }
}

#[test]
fn it_rests_while_others_work_and_goes_on() {
    for call in CALLS {
        let mut client = database(2000);
        let busy = Busy::start(&mut client);
        let run = start(beside(&mut client), call);
        wait_for_reason(&mut client, "pace");
        drop(busy);
        assert!(run.join().unwrap().is_none(), "{call}");
        assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0, "{call}");
    }
}

#[test]
fn two_at_a_gentle_pace_share_the_table() {
    for call in CALLS {
        // So many that the first has not ended before the second begins, whatever else the machine does.
        let mut client = database(20_000);
        let busy = Busy::start(&mut client);
        let runs = [(); 2].map(|()| start(beside(&mut client), call));
        wait_for("both", LIMIT, || {
            client.one("SELECT count(*) > 0 FROM pgseal.rotation_progress WHERE cardinality(pids) = 2")
        });
        drop(busy);
        for run in runs {
            assert!(run.join().unwrap().is_none(), "{call}");
        }
        assert_eq!(client.one::<i64>("SELECT rows_done FROM pgseal.rotation_progress"), 20_000, "{call}");
        assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0, "{call}");
    }
}

#[test]
fn an_unknown_pace_is_refused_before_a_run_begins() {
    let mut client = database(10);
    for pace in ["'x'", "''", "NULL", "'Gentle'"] {
        let error = client.refused(&format!("CALL pgseal.reencrypt('docs', 'm', pace => {pace})"), "22023");
        assert_eq!(error.message(), "pace must be gentle or full");
        assert!(error.hint().is_some_and(|hint| hint.starts_with("gentle, the default")), "{error:?}");
        client.refused(&format!("CALL pgseal.reencrypt_index('docs_pkey', pace => {pace})"), "22023");
    }
    assert_eq!(client.one::<i64>("SELECT count(*) FROM pgseal.rotation_progress"), 0);
    client.refused("SELECT pgseal.nap('boredom', 1)", "22023");
}

#[test]
fn what_it_waits_for_is_told() {
    let mut client = database(50);
    let mut writer = beside(&mut client);
    let pid: i32 = writer.one("SELECT pg_backend_pid()");
    writer.run("BEGIN; UPDATE docs SET id = id WHERE id = 30");
    let run = start(beside(&mut client), "CALL pgseal.reencrypt('docs', 'm')");
    wait_for_reason(&mut client, &format!("lock of {pid}"));
    writer.run("COMMIT");
    assert!(run.join().unwrap().is_none());
    client.run("SELECT pgseal.rotate_key('k')");
    writer.run("BEGIN; SELECT count(*) FROM docs");
    let run = start(beside(&mut client), "CALL pgseal.reencrypt('docs', 'm', 1, 1, rotation => 'in_place')");
    wait_for_reason(&mut client, "older transactions");
    writer.run("COMMIT");
    wait_for_reason(&mut client, "max_rate");
    // Whoever may select from the table sees as much.
    let name = client.database();
    client.run(&format!("CREATE ROLE {name}_reader LOGIN; GRANT SELECT ON docs TO {name}_reader"));
    wait_for_reason(&mut shared().connect_as(&format!("{name}_reader"), &name), "max_rate");
    let pid: i32 = client.one("SELECT pids[1] FROM pgseal.rotation_progress");
    client.run(&format!("SELECT pg_cancel_backend({pid})"));
    assert_eq!(run.join().unwrap().expect("a cancel").code().code(), "57014");
}

/// A nap would last for an hour.
#[test]
fn a_nap_ends_when_it_is_cancelled() {
    let mut client = database(0);
    let session = beside(&mut client);
    let cancel = session.cancel_token();
    let nap = start(session, "SELECT pgseal.nap('pace', 3600)");
    let marked = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND classid = 0
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND pgseal.reason_of_nap(objsubid, objid::int8::int4) = 'pace'";
    wait_for("a nap", LIMIT, || client.one(marked));
    cancel.cancel_query(NoTls).unwrap();
    assert_eq!(nap.join().unwrap().expect("a cancel").code().code(), "57014");
    assert!(!client.one::<bool>(marked));
    assert_eq!(client.state("SET statement_timeout = 50; SELECT pgseal.nap('pace', 3600)"), "57014");
}

#[test]
fn a_run_that_rests_ends_when_it_is_told_to() {
    for end in ["cancel", "terminate"] {
        let mut client = database(50);
        let mut session = beside(&mut client);
        let run = std::thread::spawn(move || session.batch_execute(SLOW).is_err());
        wait_for_reason(&mut client, "max_rate");
        client.run(&format!("SELECT pg_{end}_backend(pids[1]) FROM pgseal.rotation_progress"));
        assert!(run.join().unwrap(), "{end}");
        // A backend tells of its end a moment before it is gone.
        let gone = "SELECT state = 'interrupted' AND waits_for IS NULL FROM pgseal.rotation_progress";
        wait_for("its end", LIMIT, || client.one(gone));
        client.run("CALL pgseal.reencrypt('docs', 'm')");
        assert_eq!(client.one::<i64>(OLD) + client.one::<i64>(WRONG), 0);
    }
    let mut client = database(50);
    client.run("SET statement_timeout = 500");
    assert_eq!(client.state(SLOW), "57014");
    client.run("RESET statement_timeout");
    client.run("CALL pgseal.reencrypt('docs', 'm')");
    assert_eq!(client.one::<i64>(OLD), 0);
}
