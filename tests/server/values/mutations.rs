//! Binary input of which some bytes are changed: it is taken or refused by a state of its own, and the session goes on.

use std::io::Write;

use postgres::Client;

use crate::server::search::oracle::Random;
use crate::server::values::kinds::two_keyrings;
use crate::support::Sql as _;

/// Inputs for each type.
const INPUTS: usize = 400;

/// What input may end with: malformed bytes or text, a character that is none, a keyring or key that is not there or is not the
/// column's, a vector of other dimensions or with more than there can be.
const STATES: [&str; 9] = ["22P02", "22P03", "22021", "22023", "22000", "22003", "42704", "42804", "54000"];
/// What a value that was taken may end with when it is opened.
const OPENED: [&str; 3] = ["22000", "42704", "22P03"];

#[test]
fn changed_documents_are_taken_or_refused() {
    let plain = b"\x01{\"a\": \"x\", \"b\": [1.50, null, {\"c\": true}], \"d\": \"\\u00e9\"}";
    survives("encrypted_jsonb(k)", r#"'{"a": "x", "b": [1.5, null]}'::jsonb"#, plain);
}

#[test]
fn changed_texts_are_taken_or_refused() {
    survives("encrypted_text(k)", "'a text'::text", "a text, \u{e9}\u{6771}".as_bytes());
}

#[test]
fn changed_vectors_are_taken_or_refused() {
    let plain = [0, 3, 0, 0, 0x3f, 0x80, 0, 0, 0x40, 0, 0, 0, 0x40, 0x40, 0, 0];
    survives("encrypted_vector(k, 3)", "'[1,2,3]'::vector", &plain);
}

fn survives(column: &str, sealed: &str, plain: &[u8]) {
    let client = &mut two_keyrings();
    client.run(&format!("CREATE TABLE t (v {column})"));
    let name = column.split('(').next().unwrap();
    let send = |keyring: &str| format!("SELECT pgseal.{name}_send(pgseal.encrypt({sealed}, '{keyring}'))");
    let inputs = [client.one(&send("k")), client.one(&send("other")), plain.to_vec()];
    let seed = std::env::var("PGSEAL_SEED").map_or(11, |seed| seed.parse().unwrap());
    let (mut random, mut taken) = (Random::new(seed), 0);
    for number in 0..INPUTS {
        let input = changed(&inputs[number % inputs.len()], &mut random);
        let state = copied(client, &input);
        let known = state.as_deref().is_none_or(|state| STATES.contains(&state));
        assert!(known, "PGSEAL_SEED={seed}: {state:?} of {input:02x?}");
        taken += usize::from(state.is_none());
    }
    assert!(taken > INPUTS / 20 && taken < INPUTS, "PGSEAL_SEED={seed}: {taken} taken");
    open_all(client, seed);
}

/// One to four changes.
fn changed(input: &[u8], random: &mut Random) -> Vec<u8> {
    let mut input = input.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 => input.truncate(at),
            1 => input.insert(at, random.below(256) as u8),
            2 => input.extend_from_within(at..),
            // The header more often than the rest.
            3 => change(&mut input, at % 16, random),
            _ => change(&mut input, at, random),
        }
    }
    input
}

fn change(input: &mut [u8], at: usize, random: &mut Random) {
    if let Some(byte) = input.get_mut(at) {
        *byte = [0, 1, 2, 0x7F, 0x80, 0xFF, *byte ^ 1 << random.below(8)][random.below(7)];
    }
}

/// The SQLSTATE of COPY of one value, or `None` where it was taken.
fn copied(client: &mut Client, value: &[u8]) -> Option<String> {
    let length = (value.len() as i32).to_be_bytes();
    let data = [b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01", &length[..], value, b"\xff\xff"].concat();
    let mut copy = client.copy_in("COPY t FROM STDIN (FORMAT binary)").unwrap();
    copy.write_all(&data).unwrap();
    let error = copy.finish().err()?;
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?} of {value:02x?}"));
    Some(error.code().code().to_owned())
}

/// Each value that was taken opens or is refused; all of them can be looked into without a key.
fn open_all(client: &mut Client, seed: u64) {
    client.run("ANALYZE t");
    client.run("VACUUM t");
    let rows = client.one::<i64>("SELECT count(*) FROM t WHERE pgseal.key_version(v) > 0");
    for row in 0..rows {
        let opened =
            client.query(&format!("SELECT pgseal.decrypt(v)::text FROM t OFFSET {row} LIMIT 1"), &[]);
        let state = opened.err().map(|error| error.as_db_error().unwrap().code().code().to_owned());
        let known = state.as_deref().is_none_or(|state| OPENED.contains(&state));
        assert!(known, "PGSEAL_SEED={seed}: {state:?} of row {row}");
    }
}
