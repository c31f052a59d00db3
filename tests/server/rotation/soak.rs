//! Eight clients that insert, update, search and delete while keys are rotated all the time: no error, no wrong answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use crate::server::rotation::in_place::Stopping;
use crate::server::search::oracle::Random;
use crate::support::{Cluster, Sql};

const CLIENTS: u64 = 8;
const ROWS: i32 = 2000;
const NAMES: usize = 50;

/// How long each half takes, the one without rotations and the one with them: seconds in `PGSEAL_SOAK_SECONDS`, or a few.
fn half() -> Duration {
    let seconds = std::env::var("PGSEAL_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(6))
}

fn set_up(client: &mut Client) {
    client.run("SELECT pgseal.create_keyring('k', ARRAY['$.name'])");
    client.run(
        "CREATE TABLE docs (id int PRIMARY KEY, m encrypted_jsonb(k), plain jsonb, embedding vector(8));
         CREATE SEQUENCE ids;
         CREATE FUNCTION document(n int8) RETURNS jsonb IMMUTABLE LANGUAGE sql AS
             $$ SELECT jsonb_build_object('name', 'n' || n % 50, 'n', n, 'note', repeat('x', (n % 400)::int)) $$;
         CREATE FUNCTION place(n int8) RETURNS vector IMMUTABLE LANGUAGE sql AS
             $$ SELECT array_agg((n * i * 7919 % 1009)::real)::vector FROM generate_series(1, 8) i $$",
    );
    client.run(&format!(
        "INSERT INTO docs SELECT n, d, d, place(n) FROM (SELECT nextval('ids') AS n FROM generate_series(1, {ROWS})) s, document(n) d"
    ));
    client.run("CREATE INDEX ON docs USING gin (m); CREATE INDEX ON docs USING hnsw (embedding vector_l2_ops); ANALYZE docs");
}

/// One client's work until told to stop; adds what each search took.
fn work(mut client: Client, mut numbers: Random, stop: &AtomicBool, reads: &Mutex<Vec<Duration>>) {
    let _stopping = Stopping(stop);
    let search = client
        .prepare(
            "SELECT coalesce(bool_and(right_one), true) FROM (SELECT pgseal.decrypt(m) = plain AND plain @> jsonb_build_object('name', $1::text) AS right_one
               FROM docs WHERE m @> jsonb_build_object('name', $1::text) ORDER BY embedding <-> place($2::int8) LIMIT 10) s",
        )
        .unwrap();
    let compare = client
        .prepare(
            "SELECT (SELECT array_agg(id ORDER BY id) FROM docs WHERE m @> jsonb_build_object('name', $1::text))
                IS NOT DISTINCT FROM (SELECT array_agg(id ORDER BY id) FROM docs WHERE plain @> jsonb_build_object('name', $1::text))",
        )
        .unwrap();
    let insert = client
        .prepare("INSERT INTO docs SELECT n, d, d, place(n) FROM nextval('ids') n, document(n) d")
        .unwrap();
    let update = client
        .prepare("UPDATE docs SET m = document($2::int8), plain = document($2::int8) WHERE id = $1::int4")
        .unwrap();
    let delete = client.prepare("DELETE FROM docs WHERE id = $1::int4").unwrap();
    while !stop.load(Ordering::Relaxed) {
        let row = numbers.below(2 * ROWS as usize) as i32;
        let number = numbers.below(1_000_000) as i64;
        let name = format!("n{}", numbers.below(NAMES));
        match numbers.below(20) {
            0..2 => assert_eq!(client.execute(&insert, &[]).unwrap(), 1),
            2..6 => drop(client.execute(&update, &[&row, &number]).unwrap()),
            6..8 => drop(client.execute(&delete, &[&row]).unwrap()),
            8 => assert!(client.query_one(&compare, &[&name]).unwrap().get::<_, bool>(0), "{name}"),
            _ => {
                let start = Instant::now();
                let right: bool = client.query_one(&search, &[&name, &number]).unwrap().get(0);
                reads.lock().unwrap().push(start.elapsed());
                assert!(right, "{name}");
            }
        }
    }
}

/// Every kind of rotation in turn, and an end of the data keys that are not needed any more.
fn rotate(client: &mut Client, round: usize) {
    match round % 3 {
        2 => client.run("SELECT pgseal.rotate_index_key('k')"),
        _ => client.run("SELECT pgseal.rotate_key('k')"),
    }
    let way = if round.is_multiple_of(3) { "in_place" } else { "update" };
    client.run(&format!("CALL pgseal.reencrypt('docs', 'm', rotation => '{way}', pace => 'full')"));
    let old: Vec<i32> =
        client.column("SELECT version FROM pgseal.keys WHERE purpose = 'data' AND state = 'decrypt-only'");
    for version in old {
        client.run(&format!("SELECT pgseal.retire_key('k', {version})"));
    }
}

/// The 50th and 99th percentile in milliseconds.
fn percentiles(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort();
    [50, 99].map(|percent| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3)
}

#[test]
fn eight_clients_get_right_answers_during_many_rotations() {
    let cluster = Cluster::with_pgseal(&["shared_buffers = 128MB"]);
    let mut client = cluster.connect("postgres");
    set_up(&mut client);
    let rotations = AtomicUsize::new(0);
    let [without, with] = [false, true].map(|rotating| {
        let (stop, reads) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let end = Instant::now() + half();
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let client = cluster.config("postgres", "postgres").connect(NoTls).unwrap();
                let numbers = Random::new(number + 100 * u64::from(rotating));
                scope.spawn(|| work(client, numbers, &stop, &reads));
            }
            let _stopping = Stopping(&stop);
            let searched = || reads.lock().unwrap().len() > 100;
            let enough = || searched() && (!rotating || rotations.load(Ordering::Relaxed) >= 3);
            while (Instant::now() < end || !enough()) && !stop.load(Ordering::Relaxed) {
                if rotating {
                    rotate(&mut client, rotations.fetch_add(1, Ordering::Relaxed))
                } else {
                    std::thread::sleep(Duration::from_millis(20))
                }
            }
        });
        let reads = reads.into_inner().unwrap();
        assert!(reads.len() > 100, "{} searches", reads.len());
        (reads.len(), percentiles(reads))
    });
    for (what, (searches, [p50, p99])) in [("without", without), ("with", with)] {
        println!("{what} rotation: {searches} searches, p50 {p50:.1} ms, p99 {p99:.1} ms");
    }
    let (done, ratio) = (rotations.into_inner(), with.1[1] / without.1[1]);
    println!("{done} rotations; p99 with them is {ratio:.2} times that without");
    assert!(done >= 3, "{done} rotations");
    assert_eq!(
        client.one::<i64>("SELECT count(*) FROM docs WHERE pgseal.decrypt(m) IS DISTINCT FROM plain"),
        0
    );
    let rows: i64 = client.one("SELECT count(*) FROM docs");
    let verdicts = "SELECT format('%s %s', result, sum(number_of_values)) FROM pgseal.verify('docs', 'm') GROUP BY result";
    assert_eq!(client.column::<String>(verdicts), [format!("authentic {rows}")]);
}
