//! Somebody writes to the files of an index: an error, the right rows, or fewer of them, never a wrong row.

use std::fs;

use postgres::Client;

use super::{BY_INDEX, BY_TABLE, COLUMNS, assert_exact, insert, set_up};
use crate::support::{Cluster, Sql};

const PAGE: usize = 8192;
/// Where the special area of a page begins, and in it the kind of page.
const SPECIAL: usize = 8160;
const KIND: usize = SPECIAL + 16;
/// Rows of a list page of 8 dimensions; their marks and addresses stand where they do on every page.
const CAPACITY: usize = 480;
const MARKS: usize = 36;
const ADDRESSES: usize = MARKS + CAPACITY / 8;
/// Where the marks of an unassigned page end and its addresses begin.
const ASIDE: usize = 24 + (SPECIAL - 24) * 8 / 49 / 8;

const TABLES: usize = 48;

/// An index's file, now and as it was.
struct Forged {
    bytes: Vec<u8>,
    before: Vec<u8>,
}

impl Forged {
    /// Pages of a kind.
    fn blocks(&self, kind: u8) -> Vec<usize> {
        (0..self.bytes.len() / PAGE).filter(|block| self.bytes[block * PAGE + KIND] == kind).collect()
    }

    fn page(&mut self, block: usize) -> &mut [u8] {
        &mut self.bytes[block * PAGE..(block + 1) * PAGE]
    }

    /// The pages that hold rows of lists.
    fn each_list(&mut self, change: impl Fn(&mut [u8], usize)) {
        for block in self.blocks(2) {
            change(self.page(block), block);
        }
    }

    /// One bit of a page of each kind in turn, in its special area for every third.
    fn flip(&mut self, number: usize) {
        let block = self.blocks((number % 4 + 1) as u8)[0];
        let at = if number.is_multiple_of(3) { SPECIAL + number * 7 % 32 } else { number * 677 % PAGE };
        self.page(block)[at] ^= 1 << (number % 8);
    }
}

type Attack = fn(&mut Forged);

/// What somebody does who knows the format; the rest of the tables get a changed bit.
const ATTACKS: [(&str, Attack); 10] = [
    ("two pages of lists change places", |file| {
        let blocks = file.blocks(2);
        let (one, other) = (file.page(blocks[0]).to_vec(), file.page(blocks[1]).to_vec());
        file.page(blocks[0]).copy_from_slice(&other);
        file.page(blocks[1]).copy_from_slice(&one);
    }),
    ("one page is rolled back", |file| {
        let block = file.blocks(2)[0];
        let old = file.before[block * PAGE..(block + 1) * PAGE].to_vec();
        file.page(block).copy_from_slice(&old);
    }),
    ("all pages are rolled back", |file| {
        let old = file.before.clone();
        file.bytes[..old.len()].copy_from_slice(&old);
    }),
    ("a row has the address of another", |file| {
        file.each_list(|page, _| page.copy_within(ADDRESSES + 6..ADDRESSES + 12, ADDRESSES));
    }),
    ("no row is marked dead", |file| file.each_list(|page, _| page[MARKS..ADDRESSES].fill(0))),
    ("every row is marked dead", |file| file.each_list(|page, _| page[MARKS..ADDRESSES].fill(255))),
    ("rows put aside have the address of one", |file| {
        let block = file.blocks(3)[0];
        let page = file.page(block);
        (0..10).for_each(|row| page[ASIDE + 6 * row..][..6].copy_from_slice(&[0, 0, 0, 0, 1, 0]));
    }),
    ("rows put aside are where no row is", |file| {
        let block = file.blocks(3)[0];
        let page = file.page(block);
        (0..10).for_each(|row| page[ASIDE + 6 * row..][..6].copy_from_slice(&[0, 0, 0, 0, 250, 0]));
    }),
    ("a chain goes round", |file| {
        file.each_list(|page, block| page[SPECIAL..][..4].copy_from_slice(&(block as u32).to_le_bytes()));
    }),
    ("pages of lists are free", |file| file.each_list(|page, _| page[KIND] = 5)),
];

/// Rows in the order of the distance.
fn rows(client: &mut Client, settings: &str, table: &str) -> Result<Vec<(f64, i32)>, String> {
    let query = format!("SELECT embedding <-> made(-1), id FROM {table} ORDER BY embedding <-> made(-1)");
    client.batch_execute(&format!("ROLLBACK; BEGIN; {settings}")).unwrap();
    let rows = client.query(&query, &[]);
    client.batch_execute("ROLLBACK").unwrap();
    let code = |error: postgres::Error| error.code().unwrap().code().to_owned();
    Ok(rows.map_err(code)?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Tables with rows that have come, gone and been put aside; and what files were before the last of that.
fn prepare(cluster: &Cluster, client: &mut Client) -> Vec<Vec<u8>> {
    set_up(client);
    insert(client, "docs", 200..210);
    let each = |client: &mut Client, work: &dyn Fn(&mut Client, &str)| {
        (0..TABLES).for_each(|table| work(client, &format!("t{table}")));
        client.run("CHECKPOINT");
    };
    each(client, &|client, table| {
        client.run(&format!("CREATE TABLE {table} {COLUMNS}"));
        insert(client, table, 0..50);
        client.run(&format!("CREATE INDEX {table}_near ON {table} USING sealed_ivf (embedding encrypted_vector_l2_ops) WITH (lists = 3)"));
    });
    let before = (0..TABLES).map(|table| fs::read(path(cluster, client, table)).unwrap()).collect();
    each(client, &|client, table| {
        client.run(&format!("DELETE FROM {table} WHERE id < 10"));
        client.run(&format!("VACUUM (INDEX_CLEANUP ON) {table}"));
        insert(client, table, 100..130);
    });
    let away = cluster.key_dir().with_extension("away");
    fs::rename(cluster.key_dir(), &away).unwrap();
    // A session that has no key yet.
    let mut other = cluster.connect("postgres");
    each(&mut other, &|other, table| other.run(&format!("INSERT INTO {table} SELECT * FROM docs")));
    fs::rename(&away, cluster.key_dir()).unwrap();
    before
}

fn path(cluster: &Cluster, client: &mut Client, table: usize) -> std::path::PathBuf {
    let file = client.one::<String>(&format!("SELECT pg_relation_filepath('t{table}_near')"));
    cluster.data_dir().join(file)
}

#[test]
fn a_forged_file_gives_an_error_or_fewer_rows_but_no_wrong_one() {
    let cluster = Cluster::with_pgseal(&["ignore_checksum_failure = on"]);
    let mut client = cluster.connect("postgres");
    let before = prepare(&cluster, &mut client);
    let paths: Vec<_> = (0..TABLES).map(|table| path(&cluster, &mut client, table)).collect();
    drop(client);
    cluster.stop();
    for (number, (path, before)) in paths.iter().zip(before).enumerate() {
        let mut file = Forged { bytes: fs::read(path).unwrap(), before };
        match ATTACKS.get(number) {
            Some((_, attack)) => attack(&mut file),
            None => file.flip(number),
        }
        fs::write(path, file.bytes).unwrap();
    }
    cluster.start_again();
    let mut client = cluster.connect("postgres");
    client.run("SET pgseal.ivf_patience = 10000; SET pgseal.ivf_epsilon = 1000");
    let mut outcomes = Vec::new();
    for number in 0..TABLES {
        let (table, name) = (format!("t{number}"), ATTACKS.get(number).map_or("a bit", |attack| attack.0));
        let right = rows(&mut client, BY_TABLE, &table).unwrap();
        let found = rows(&mut client, BY_INDEX, &table);
        if let Ok(found) = &found {
            assert!(found.is_sorted_by(|a, b| a.0 < b.0), "{table}, {name}: {found:?}");
            assert!(found.iter().all(|row| right.contains(row)), "{table}, {name}: {found:?}");
        }
        outcomes.push((name, found.map(|found| right.len() - found.len())));
        // Neither of these brings the server down.
        let verified = client.query(&format!("SELECT pgseal.verify_index('{table}_near')"), &[]);
        let vacuumed = client.batch_execute(&format!("VACUUM (INDEX_CLEANUP ON) {table}"));
        for error in [verified.err(), vacuumed.err()].into_iter().flatten() {
            assert!(error.code().is_some(), "{table}, {name}: {error}");
        }
        client.run(&format!("REINDEX INDEX {table}_near"));
        assert_exact(&mut client, &table, "true", 1);
    }
    let of = |name| &outcomes.iter().find(|outcome| outcome.0 == name).unwrap().1;
    for name in ["two pages of lists change places", "a row has the address of another", "a chain goes round"]
    {
        assert!(of(name).is_err(), "{name}: {outcomes:?}");
    }
    // Nothing is lost: what is found twice is known again.
    assert_eq!(of("no row is marked dead"), &Ok(0));
    assert!(of("every row is marked dead").as_ref().is_ok_and(|hidden| *hidden > 0), "{outcomes:?}");
    assert!(outcomes.iter().filter(|outcome| outcome.1.is_err()).count() > TABLES / 4, "{outcomes:?}");
}
