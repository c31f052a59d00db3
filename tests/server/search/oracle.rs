//! Answers are those of plain jsonb. Every row holds the same document plain and sealed, and whatever is asked of
//! the one is asked of the other.

use std::fmt::{self, Display};
use std::time::Duration;

use postgres::{Client, Statement};

use crate::support::{fresh_database, shared, wait_for};

const ROWS: usize = 1000;
/// Pairs of random queries in each phase; `make test-long` asks for more.
fn queries() -> usize {
    std::env::var("PGSEAL_QUERIES").map_or(8, |number| number.parse().expect("PGSEAL_QUERIES"))
}

#[test]
fn random_queries_without_searchable_paths() {
    compare_with_jsonb(1, &[], false, Tokens::Decide);
}

#[test]
fn random_queries_with_some_searchable_paths() {
    let paths = ["$.a", "$.b.a", r#"$."k.d""#, r#"$."sp ace""#, r#"$."q\"t""#, r#"$."é""#, r#"$."""#];
    compare_with_jsonb(2, &paths, true, Tokens::Decide);
}

#[test]
fn random_queries_with_everything_searchable() {
    compare_with_jsonb(3, &["$.**"], false, Tokens::Decide);
}

#[test]
fn random_queries_with_searchable_scalars_and_arrays() {
    compare_with_jsonb(4, &["$"], true, Tokens::Decide);
}

#[test]
fn random_queries_with_one_searchable_level() {
    compare_with_jsonb(5, &["$.*"], false, Tokens::Decide);
}

const WITH_OPTIONS: [&str; 5] = [
    r#"{"path": "$.a", "bits": 8}"#,
    r#"{"path": "$.b.a", "spread": 4}"#,
    r#"{"path": "$.\"k.d\"", "range": {"min": 0, "max": 2, "step": 0.05}}"#,
    r#"{"path": "$.\"sp ace\"", "casefold": true}"#,
    r#"{"path": "$.**", "casefold": true, "bits": 20, "spread": 2}"#,
];

#[test]
fn random_queries_with_paths_that_have_options() {
    compare_with_jsonb(6, &WITH_OPTIONS, true, Tokens::Decide);
}

#[test]
fn random_queries_by_narrow_tokens() {
    compare_with_jsonb(7, &["$.**"], true, Tokens::Narrow);
}

#[test]
fn random_queries_while_tokens_begin_to_decide() {
    compare_with_jsonb(8, &["$.**"], false, Tokens::Mixed);
}

#[test]
fn random_queries_with_options_while_tokens_begin_to_decide() {
    compare_with_jsonb(9, &WITH_OPTIONS, true, Tokens::Mixed);
}

/// What the tokens of keyring a are for.
#[derive(Clone, Copy, PartialEq)]
enum Tokens {
    Narrow,
    Decide,
    /// Narrow ones at first, and rows of both kinds beside one another.
    Mixed,
}

impl Tokens {
    fn at_first(self) -> &'static str {
        if self == Tokens::Decide { "SET pgseal.tokens = decide" } else { "SET pgseal.tokens = narrow" }
    }

    fn later(self) -> &'static str {
        if self == Tokens::Narrow { "SET pgseal.tokens = narrow" } else { "SET pgseal.tokens = decide" }
    }
}

/// Before, during and after a rotation by another session, with statements that were prepared before it.
fn compare_with_jsonb(number: u64, searchable: &[&str], second_keyring: bool, tokens: Tokens) {
    let mut oracle = Oracle::new(number, searchable, second_keyring, tokens);
    oracle.compare("before rotation");

    let mut other = oracle.other_session();
    other.batch_execute(tokens.later()).unwrap();
    let rotate = "SELECT pgseal.rotate_key('a'), pgseal.rotate_index_key('a')";
    other.batch_execute(rotate).unwrap();
    oracle.compare("after rotation, nothing re-encrypted");

    // Two index key versions ahead of what the other sessions know, and rows under all of them.
    match tokens {
        // Rows whose tokens decide other paths, and others again.
        Tokens::Mixed => {
            other.batch_execute("SELECT pgseal.set_searchable('a', '{$.a, $.b.**}')").unwrap();
            oracle.insert(&mut other, 50);
            other.execute("SELECT pgseal.set_searchable('a', $1)", &[&searchable]).unwrap();
        }
        _ => other.batch_execute("SELECT pgseal.rotate_index_key('a')").unwrap(),
    }
    other.batch_execute(rotate).unwrap();
    other
        .batch_execute(
            "UPDATE t SET sealed = plain, loose = pgseal.encrypt(plain, pgseal_keyring(id)) WHERE id % 2 = 0",
        )
        .unwrap();
    oracle.insert(&mut other, 50);
    oracle.compare("half the rows written again");

    other.batch_execute("CALL pgseal.reencrypt('t', 'sealed')").unwrap();
    other.batch_execute("CALL pgseal.reencrypt('t', 'loose')").unwrap();
    oracle.compare("re-encrypted");
    other.batch_execute("VACUUM t").unwrap();
    oracle.compare("re-encrypted, without a pending list");
    let decided: i64 = oracle.client.query_one("SELECT values_decided FROM pgseal.stat", &[]).unwrap().get(0);
    eprintln!("seed {}: {decided} values decided", oracle.seed);
    let may_decide = tokens != Tokens::Narrow && !searchable.is_empty();
    // Short tokens never decide, and few of the questions are about the one path of the options that could.
    assert!(may_decide || decided == 0, "{decided} decided");
    assert!(decided > 0 || !may_decide || searchable == WITH_OPTIONS, "none decided");
}

/// One database with the table `t (id, plain, sealed, loose)`, its random source, and what was prepared there.
struct Oracle {
    seed: u64,
    random: Random,
    client: Client,
    documents: Vec<Doc>,
    prepared: Vec<Prepared>,
}

/// A statement on one sealed column, with the documents it asks for as parameters or constants.
struct Prepared {
    text: String,
    statement: Statement,
    parameters: usize,
    /// What to ask of plain jsonb instead.
    plain: String,
}

impl Oracle {
    fn new(number: u64, searchable: &[&str], second_keyring: bool, tokens: Tokens) -> Oracle {
        let seed = std::env::var("PGSEAL_SEED").map_or(number, |seed| seed.parse().expect("PGSEAL_SEED"));
        let mut client = fresh_database();
        // Disabled scans look so costly that every plan would be compiled.
        client.batch_execute("SET jit = off").unwrap();
        client.batch_execute(tokens.at_first()).unwrap();
        client.execute("SELECT pgseal.create_keyring('a', $1)", &[&searchable]).unwrap();
        let mut keyring = "SELECT 'a'";
        if second_keyring {
            client.batch_execute("SELECT pgseal.create_keyring('b', '{$.a, $.*}')").unwrap();
            keyring = "SELECT CASE id % 3 WHEN 0 THEN 'b' ELSE 'a' END";
        }
        client.batch_execute(&format!(
            "CREATE FUNCTION pgseal_keyring(id int) RETURNS text LANGUAGE sql IMMUTABLE AS $$ {keyring} $$;
             CREATE TABLE t (id serial PRIMARY KEY, plain jsonb, v vector(3) DEFAULT '[1,2,3]',
                             sealed encrypted_jsonb(a), loose encrypted_jsonb) WITH (autovacuum_enabled = off)",
        )).unwrap();
        let mut oracle =
            Oracle { seed, random: Random::new(seed), client, documents: Vec::new(), prepared: Vec::new() };
        let mut other = oracle.other_session();
        oracle.insert(&mut other, ROWS / 2);
        other
            .batch_execute("CREATE INDEX ON t USING gin (sealed); CREATE INDEX ON t USING gin (loose)")
            .unwrap();
        // These stay in the pending list.
        oracle.insert(&mut other, ROWS / 2);
        other
            .batch_execute("INSERT INTO t (plain) SELECT NULL FROM generate_series(1, 5); ANALYZE t")
            .unwrap();
        oracle.prepare_with_parameters();
        oracle
    }

    fn other_session(&mut self) -> Client {
        let database: String = self.client.query_one("SELECT current_database()::text", &[]).unwrap().get(0);
        shared().connect(&database)
    }

    fn insert(&mut self, client: &mut Client, rows: usize) {
        let documents: Vec<Doc> = (0..rows).map(|_| self.random.document(3)).collect();
        let texts: Vec<String> = documents.iter().map(Doc::to_string).collect();
        client
            .execute(
                "INSERT INTO t (id, plain, sealed, loose)
             SELECT id, j, j, pgseal.encrypt(j, pgseal_keyring(id))
               FROM (SELECT nextval('t_id_seq')::int AS id, text::jsonb AS j FROM unnest($1::text[]) text) d",
                &[&texts],
            )
            .unwrap();
        self.documents.extend(documents);
    }

    fn prepare_with_parameters(&mut self) {
        let (first, second) = ("$1::text::jsonb", "$2::text::jsonb");
        for shape in SHAPES {
            for (column, operator) in sealed_conditions() {
                let text = shape.statement(column, operator, first, second);
                let parameters = if text.contains("$2") { 2 } else { 1 };
                let plain = shape.statement("plain", operator.as_jsonb(), first, second);
                self.prepare(text, parameters, plain);
            }
        }
    }

    fn prepare(&mut self, text: String, parameters: usize, plain: String) {
        let statement = self.client.prepare(&text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        self.prepared.push(Prepared { text, statement, parameters, plain });
    }

    /// New random queries in random contexts, and everything that was prepared in earlier phases.
    fn compare(&mut self, phase: &str) {
        let rows: i64 = self.client.query_one("SELECT count(*) FROM t", &[]).unwrap().get(0);
        let mut statements = 0;
        for _ in 0..queries() {
            let (first, second) = (self.query(), self.query());
            for scan in SCANS {
                self.client.batch_execute(scan).unwrap();
                statements += self.compare_texts(phase, scan, &first, &second);
                statements += self.compare_prepared(phase, scan, &first, &second);
            }
        }
        self.prepare_constants();
        let pairs = statements as i64 * rows;
        eprintln!("seed {}, {phase}: {statements} statements, {pairs} pairs", self.seed);
        assert!(pairs > 20_000);
    }

    fn compare_texts(&mut self, phase: &str, scan: &str, first: &str, second: &str) -> usize {
        let mut compared = 0;
        let (first, second) = (literal(first), literal(second));
        for shape in SHAPES {
            for (column, operator) in sealed_conditions() {
                if !self.random.one_in(20) {
                    continue;
                }
                let text = shape.statement(column, operator, &first, &second);
                let plain = shape.statement("plain", operator.as_jsonb(), &first, &second);
                let expected = answer(&mut self.client, &plain);
                let found = answer(&mut self.client, &text);
                assert_eq!(found, expected, "seed {}, {phase}, {scan}: {text}", self.seed);
                compared += 1;
            }
        }
        compared
    }

    fn compare_prepared(&mut self, phase: &str, scan: &str, first: &str, second: &str) -> usize {
        let mut compared = 0;
        for prepared in &self.prepared {
            if !self.random.one_in(30) {
                continue;
            }
            let mode = *self.random.pick(&["force_generic_plan", "force_custom_plan"]);
            self.client.batch_execute(&format!("SET plan_cache_mode = {mode}")).unwrap();
            let arguments = [&first as &(dyn postgres::types::ToSql + Sync), &second];
            let row = self.client.query_one(&prepared.statement, &arguments[..prepared.parameters]);
            let found: Option<String> = row
                .unwrap_or_else(|error| panic!("seed {}, {phase}: {}: {error:?}", self.seed, prepared.text))
                .get(0);
            let plain = prepared
                .plain
                .replace("$1::text::jsonb", &literal(first))
                .replace("$2::text::jsonb", &literal(second));
            let expected = answer(&mut self.client, &plain);
            let context = format!("{phase}, {scan}, {mode}: {} with {first} and {second}", prepared.text);
            assert_eq!(found, expected, "seed {}, {context}", self.seed);
            compared += 1;
        }
        compared
    }

    /// Their filters are made now and must answer for keys that do not exist yet.
    fn prepare_constants(&mut self) {
        for _ in 0..10 {
            let (first, second) = (literal(&self.query()), literal(&self.query()));
            let shape = *self.random.pick(&SHAPES);
            let (column, operator) = *self.random.pick(&sealed_conditions().collect::<Vec<_>>());
            let plain = shape.statement("plain", operator.as_jsonb(), &first, &second);
            self.prepare(shape.statement(column, operator, &first, &second), 0, plain);
            // A generic plan of today, not of the next phase.
            self.client.batch_execute("SET plan_cache_mode = force_generic_plan").unwrap();
            let last = self.prepared.last().expect("just prepared");
            self.client.query_one(&last.statement, &[]).unwrap();
        }
    }

    /// Mostly a part of some document, so that it matches, at times with a change.
    fn query(&mut self) -> String {
        if self.random.one_in(5) {
            return self.random.document(2).to_string();
        }
        let document = self.random.pick(&self.documents).clone();
        let part = self.random.part(&document, true);
        if self.random.one_in(4) { self.random.changed(part) } else { part }.to_string()
    }
}

const SCANS: [&str; 2] = [
    "SET enable_seqscan = on; SET enable_bitmapscan = off",
    "SET enable_seqscan = off; SET enable_bitmapscan = on",
];

/// Where a condition stands.
#[derive(Clone, Copy)]
enum Shape {
    Where,
    Not,
    IsNull,
    Or,
    And,
    AndNull,
    SelectList,
    Case,
}

const SHAPES: [Shape; 8] = [
    Shape::Where,
    Shape::Not,
    Shape::IsNull,
    Shape::Or,
    Shape::And,
    Shape::AndNull,
    Shape::SelectList,
    Shape::Case,
];

#[derive(Clone, Copy)]
enum Operator {
    Contains,
    Filter,
    FilterAny,
    PlainAny,
    /// The text that this reads is equal to that in the document asked about.
    Text(&'static str),
    TextDiffers,
    TextIn,
    /// The text that this reads is one of a list with a NULL, or none of it.
    TextAny(&'static str),
    TextAll(&'static str),
    TextInQuery,
    ContainsAny,
}

const TEXTS: [&str; 14] = [
    "->> 'a'",
    "->> 'é'",
    "->> 0",
    "#>> '{a,0}'",
    "#>> '{b,a}'",
    "#>> '{}'",
    "-> 'b' ->> 'a'",
    "-> 'a' ->> 0",
    "-> 'a' -> 0 ->> -1",
    "-> 0 ->> 'a'",
    "-> 0 ->> 0",
    "#> '{a,0}' ->> 'a'",
    "-> 'b' -> 'a' #>> '{0}'",
    "-> 'a' #>> '{}'",
];

fn sealed_conditions() -> impl Iterator<Item = (&'static str, Operator)> {
    use Operator::{
        Contains, ContainsAny, Filter, FilterAny, Text, TextAll, TextAny, TextDiffers, TextIn, TextInQuery,
    };
    let operators = [Contains, Filter, FilterAny, TextDiffers, TextIn, TextInQuery, ContainsAny];
    let lists = [TEXTS[0], TEXTS[6], TEXTS[7]].into_iter().flat_map(|read| [TextAny(read), TextAll(read)]);
    let operators = operators.into_iter().chain(TEXTS.map(Text)).chain(lists);
    operators.flat_map(|operator| ["sealed", "loose"].map(|column| (column, operator)))
}

impl Operator {
    fn as_jsonb(self) -> Operator {
        match self {
            Operator::Contains | Operator::Filter => Operator::Contains,
            Operator::FilterAny | Operator::PlainAny => Operator::PlainAny,
            _ => self,
        }
    }

    fn condition(self, column: &str, first: &str, second: &str) -> String {
        match self {
            Operator::Contains => format!("({column} @> {first})"),
            Operator::Filter => format!("({column} @@ pgseal.filter({first}))"),
            Operator::FilterAny => format!("({column} @@ pgseal.filter_any(ARRAY[{first}, {second}]))"),
            Operator::PlainAny => format!("({column} @> {first} OR {column} @> {second})"),
            Operator::Text(read) => format!("(({column} {read}) = ({first} {read}))"),
            Operator::TextDiffers => format!("(({column} ->> 'a') <> ({first} ->> 'a'))"),
            Operator::TextAny(read) => {
                format!("(({column} {read}) = ANY (ARRAY[({first} {read})::text, ({second} {read})::text]))")
            }
            Operator::TextAll(read) => {
                format!(
                    "(({column} {read}) <> ALL (ARRAY[({first} {read})::text, ({second} ->> 'a')::text]))"
                )
            }
            Operator::TextInQuery => {
                format!("(({column} ->> 'a') IN (SELECT q ->> 'a' FROM unnest(ARRAY[{first}, {second}]) q))")
            }
            Operator::ContainsAny => format!("({column} @> ANY (ARRAY[{first}, {second}]))"),
            Operator::TextIn => {
                format!("(({column} ->> 'a') IN (({first} ->> 'a'), ({second} #>> '{{a}}')))")
            }
        }
    }
}

impl Shape {
    fn statement(self, column: &str, operator: Operator, first: &str, second: &str) -> String {
        let one = operator.condition(column, first, second);
        let other = operator.condition(column, second, first);
        let ids = |condition: String| {
            format!("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t WHERE {condition}")
        };
        match self {
            Shape::Where => ids(one),
            Shape::Not => ids(format!("NOT {one}")),
            Shape::IsNull => ids(format!("{one} IS NULL")),
            Shape::Or => ids(format!("{one} OR {other}")),
            Shape::And => ids(format!("{one} AND NOT {other}")),
            Shape::AndNull => ids(format!("({one} AND NULL) IS NULL")),
            Shape::SelectList => {
                format!("SELECT string_agg(coalesce({one}::text, 'null'), ' ' ORDER BY id) FROM t")
            }
            Shape::Case => format!(
                "SELECT string_agg(CASE WHEN {one} THEN 'one' WHEN NOT {other} THEN 'not other' END, ' ' ORDER BY id) FROM t"
            ),
        }
    }
}

/// The rows of two keyrings: `bound` says which keyring, `loose` has odd rows of b and even rows of a.
fn two_keyrings() -> Client {
    let mut client = fresh_database();
    client
        .batch_execute(
            "SELECT pgseal.create_keyring('a', '{$.k}'), pgseal.create_keyring('b', '{$.k}');
         CREATE TABLE t (id int, plain jsonb, bound encrypted_jsonb(a), loose encrypted_jsonb);
         INSERT INTO t SELECT i, j, j, pgseal.encrypt(j, CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END)
           FROM generate_series(1, 12) i, jsonb_build_object('k', i % 3) j;
         CREATE INDEX ON t USING gin (bound); CREATE INDEX ON t USING gin (loose); SET jit = off",
        )
        .unwrap();
    client
}

/// Every way to ask whether `column` contains `{"k": 1}`, as far as plans and operators go.
const WAYS: [&str; 11] = [
    r#"{c} @> '{"k": 1}'"#,
    r#"{c} @> $1::text::jsonb"#,
    r#"{c} @> (SELECT '{"k": 1}'::jsonb)"#,
    r#"{c} @> ANY (ARRAY['{"k": 1}']::jsonb[])"#,
    r#"{c} @@ pgseal.filter('{"k": 1}')"#,
    r#"{c} @@ pgseal.filter($1::text::jsonb)"#,
    r#"{c} @@ pgseal.filter_any(ARRAY['{"k": 1}']::jsonb[])"#,
    "({c} ->> 'k') = '1'",
    "'1'::text = ({c} #>> '{k}')",
    "({c} ->> 'k') = ($1::text::jsonb ->> 'k')",
    "({c} ->> 'k') IN ('1', 'one')",
];
const ONE: &str = r#"{"k": 1}"#;
const MODES: [&str; 2] =
    ["SET plan_cache_mode = force_generic_plan", "SET plan_cache_mode = force_custom_plan"];

/// Statements for rows where the condition is true, and where it is false, each with what it was made from.
fn prepare_ways(client: &mut Client, column: &str) -> Vec<(String, bool, Statement)> {
    prepare(client, column, &WAYS.map(str::to_owned))
}

fn prepare(client: &mut Client, column: &str, ways: &[String]) -> Vec<(String, bool, Statement)> {
    let mut prepared = Vec::new();
    for way in ways {
        for truth in [true, false] {
            let condition = way.replace("{c}", column);
            let not = if truth { "" } else { "NOT" };
            let sql = format!(
                "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM t WHERE {not} ({condition})"
            );
            let statement = client.prepare(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            prepared.push((sql, truth, statement));
        }
    }
    prepared
}

/// The statements that answer otherwise than `matching` and `others`, or not at all.
fn wrong(
    client: &mut Client,
    prepared: &[(String, bool, Statement)],
    matching: &str,
    others: &str,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for mode in MODES {
        for scan in SCANS {
            client.batch_execute(&format!("{mode}; {scan}")).unwrap();
            for (sql, truth, statement) in prepared {
                let arguments: &[&(dyn postgres::types::ToSql + Sync)] =
                    if sql.contains("$1") { &[&ONE] } else { &[] };
                let found = client.query_one(statement, arguments).map(|row| row.get::<_, String>(0));
                let found = found.unwrap_or_else(|error| {
                    error.as_db_error().map_or(error.to_string(), |e| e.message().to_owned())
                });
                if found != (if *truth { matching } else { others }) {
                    wrong.push(format!("{found:?}: {sql}; {mode}; {scan}"));
                }
            }
        }
    }
    wrong
}

fn assert_none(wrong: Vec<String>, situation: &str) {
    assert!(wrong.is_empty(), "{situation}: {} answers differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_bound_column_answers_by_its_keyring_in_every_session() {
    let mut client = two_keyrings();
    let prepared = prepare_ways(&mut client, "bound");
    for setting in ["RESET pgseal.keyring", "SET pgseal.keyring = b", "SET pgseal.keyring = a"] {
        client.batch_execute(setting).unwrap();
        assert_none(wrong(&mut client, &prepared, "1 4 7 10", "2 3 5 6 8 9 11 12"), setting);
        let fresh = prepare_ways(&mut client, "bound");
        assert_none(wrong(&mut client, &fresh, "1 4 7 10", "2 3 5 6 8 9 11 12"), setting);
    }
}

#[test]
fn an_unbound_column_answers_by_the_keyring_of_each_execution() {
    let mut client = two_keyrings();
    let answers = [
        ("RESET pgseal.keyring", "1 4 7 10", "2 3 5 6 8 9 11 12"),
        ("SET pgseal.keyring = a", "4 10", "2 6 8 12"),
        ("SET pgseal.keyring = b", "1 7", "3 5 9 11"),
    ];
    for (prepare_under, ..) in answers {
        client.batch_execute(prepare_under).unwrap();
        let prepared = prepare_ways(&mut client, "loose");
        for (setting, matching, others) in answers.iter().chain(answers.iter().rev()) {
            client.batch_execute(setting).unwrap();
            let situation = format!("prepared under {prepare_under}, executed under {setting}");
            assert_none(wrong(&mut client, &prepared, matching, others), &situation);
        }
    }
}

#[test]
fn values_of_other_keyrings_are_null_in_the_select_list() {
    let mut client = two_keyrings();
    client.batch_execute("SET pgseal.keyring = a").unwrap();
    for way in WAYS.iter().filter(|way| !way.contains('$')) {
        let condition = way.replace("{c}", "loose");
        let sql = format!(
            "SELECT string_agg(coalesce(({condition})::text, 'null'), ' ' ORDER BY id) FROM t WHERE id <= 4"
        );
        assert_eq!(answer(&mut client, &sql).as_deref(), Some("null false null true"), "{condition}");
    }
}

#[test]
fn no_default_keyring_is_needed_to_search() {
    let mut client = two_keyrings();
    client.batch_execute("SELECT pgseal.set_default_keyring(NULL)").unwrap();
    for column in ["bound", "loose"] {
        let prepared = prepare(&mut client, column, &WAYS.map(String::from));
        assert_none(wrong(&mut client, &prepared, "1 4 7 10", "2 3 5 6 8 9 11 12"), column);
    }
}

#[test]
fn plans_show_no_plaintext_of_constants() {
    let mut client = two_keyrings();
    for way in WAYS.iter().filter(|way| way.contains("filter") && !way.contains('$')) {
        let sql = format!("EXPLAIN (VERBOSE, COSTS OFF) SELECT FROM t WHERE {}", way.replace("{c}", "bound"));
        let plan: Vec<String> = client.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
        assert!(!plan.join("\n").contains(r#""k"#) && !plan.join("\n").contains(r#"\"k"#), "{plan:#?}");
    }
}

/// A transaction that has searched already, and then another session's work, after which `expected` rows match.
fn open_transaction(column: &str, others_work: &str, expected: &str) {
    let mut failed = Vec::new();
    for way in WAYS {
        let mut client = fresh_database();
        client
            .batch_execute(
                "SELECT pgseal.create_keyring('a', '{$.k}');
             CREATE TABLE t (id int, bound encrypted_jsonb(a), loose encrypted_jsonb);
             INSERT INTO t VALUES (1, '{\"k\": 1}', '{\"k\": 1}');
             CREATE INDEX ON t USING gin (bound); CREATE INDEX ON t USING gin (loose); SET jit = off",
            )
            .unwrap();
        client.batch_execute(MODES[0]).unwrap();
        let database = answer(&mut client, "SELECT current_database()::text").unwrap();
        let mut other = shared().connect(&database);
        let condition = way.replace("{c}", column);
        let sql = format!("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t WHERE {condition}");
        let statement = client.prepare(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let arguments: &[&(dyn postgres::types::ToSql + Sync)] =
            if sql.contains("$1") { &[&ONE] } else { &[] };
        client.batch_execute("BEGIN").unwrap();
        client.query_one(&statement, arguments).unwrap();
        other.batch_execute(others_work).unwrap();
        let found = client.query_one(&statement, arguments).map(|row| row.get::<_, Option<String>>(0));
        match found {
            Ok(found) if found.as_deref() == Some(expected) => (),
            Ok(found) => failed.push(format!("{found:?}: {condition}")),
            Err(error) => {
                failed.push(format!("{:?}: {condition}", error.as_db_error().map(|e| e.message().to_owned())))
            }
        }
    }
    assert_none(failed, others_work);
}

const INSERT: &str = r#"INSERT INTO t VALUES (2, '{"k": 1}', '{"k": 1}')"#;

#[test]
fn an_open_transaction_finds_rows_of_two_index_rotations_since() {
    let rotate = "SELECT pgseal.rotate_index_key('a')";
    open_transaction("bound", &format!("{rotate}; {rotate}; {INSERT}"), "1 2");
}

#[test]
fn an_open_transaction_reads_rows_under_a_data_key_made_since() {
    open_transaction("bound", &format!("SELECT pgseal.rotate_key('a'); {INSERT}"), "1 2");
}

#[test]
fn an_open_transaction_finds_rows_of_a_keyring_made_since() {
    let insert = r#"INSERT INTO t VALUES (2, NULL, pgseal.encrypt('{"k": 1}'::jsonb, 'b'))"#;
    open_transaction("loose", &format!("SELECT pgseal.create_keyring('b', '{{$.k}}'); {insert}"), "1 2");
}

#[test]
fn an_update_that_waited_for_a_rotation_sees_the_new_row() {
    let mut client = fresh_database();
    client
        .batch_execute(
            "SELECT pgseal.create_keyring('a', '{$.k}'); CREATE TABLE t (id int, bound encrypted_jsonb(a));
         INSERT INTO t VALUES (1, '{\"k\": 1}'); SET plan_cache_mode = force_generic_plan",
        )
        .unwrap();
    let database = answer(&mut client, "SELECT current_database()::text").unwrap();
    let mut other = shared().connect(&database);
    let update = client.prepare("UPDATE t SET id = id WHERE bound @> $1::text::jsonb").unwrap();
    assert_eq!(client.execute(&update, &[&ONE]).unwrap(), 1);
    other
        .batch_execute(
            "BEGIN; SELECT pgseal.rotate_index_key('a'); SELECT pgseal.rotate_index_key('a');
         UPDATE t SET bound = '{\"k\": 1}'",
        )
        .unwrap();
    let waiting = std::thread::spawn(move || client.execute(&update, &[&ONE]).unwrap());
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut third = shared().connect(&database);
    wait_for("the update to wait", Duration::from_secs(60), || third.query_one(waits, &[]).unwrap().get(0));
    other.batch_execute("COMMIT").unwrap();
    assert_eq!(waiting.join().unwrap(), 1);
}

fn literal(document: &str) -> String {
    format!("'{}'::jsonb", document.replace('\'', "''"))
}

fn answer(client: &mut Client, sql: &str) -> Option<String> {
    client.query_one(sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// A JSON document with its scalars and keys as they are written.
#[derive(Clone)]
enum Doc {
    Scalar(String),
    Array(Vec<Doc>),
    Object(Vec<(&'static str, Doc)>),
}

impl Display for Doc {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |items: Vec<String>| items.join(", ");
        match self {
            Doc::Scalar(text) => out.write_str(text),
            Doc::Array(items) => write!(out, "[{}]", list(items.iter().map(Doc::to_string).collect())),
            Doc::Object(fields) => {
                write!(
                    out,
                    "{{{}}}",
                    list(fields.iter().map(|(key, value)| format!("{key}: {value}")).collect())
                )
            }
        }
    }
}

// Few enough that documents share them; some with an accent as one character and as two.
const KEYS: [&str; 9] =
    [r#""a""#, r#""a""#, r#""b""#, r#""k.d""#, r#""sp ace""#, r#""q\"t""#, r#""é""#, r#""e\u0301""#, r#""""#];
const SCALARS: [&str; 24] = [
    "1",
    "1.0",
    "1e0",
    "0",
    "-0",
    "0.00",
    "1.10",
    "1.1",
    "-1.10",
    "1e400",
    "10.0e399",
    "123456789012345678901234567890.5",
    "1e-30",
    "true",
    "false",
    "null",
    "null",
    r#""""#,
    r#""x""#,
    r#""1""#,
    r#""null""#,
    r#""é""#,
    r#""e\u0301""#,
    r#""😀 \\ ' \"""#,
];

/// Numbers that look random, and are the same for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn scalar(&mut self) -> Doc {
        // Long enough to be stored out of line.
        if self.one_in(200) {
            Doc::Scalar(format!("\"{}\"", "long ".repeat(600 + self.below(2))))
        } else {
            Doc::Scalar((*self.pick(&SCALARS)).to_owned())
        }
    }

    fn document(&mut self, depth: usize) -> Doc {
        let size = self.below(4);
        match self.below(if depth == 0 { 1 } else { 8 }) {
            0 => self.scalar(),
            1 | 2 => Doc::Array((0..size).map(|_| self.document(depth - 1)).collect()),
            _ => Doc::Object((0..size).map(|_| (*self.pick(&KEYS), self.document(depth - 1))).collect()),
        }
    }

    /// What `document` contains, mostly: of a repeated key only the last value counts.
    fn part(&mut self, document: &Doc, top: bool) -> Doc {
        match document {
            Doc::Scalar(text) => Doc::Scalar(self.respelled(text)),
            // A document that is an array contains its scalars, but only at the top.
            Doc::Array(items) if top && !items.is_empty() && self.one_in(4) => {
                let item = self.pick(items).clone();
                self.part(&item, false)
            }
            Doc::Array(items) => {
                let mut kept: Vec<Doc> = Vec::new();
                for item in items {
                    for _ in 0..self.below(3) {
                        kept.insert(self.below(kept.len() + 1), self.part(item, false));
                    }
                }
                Doc::Array(kept)
            }
            Doc::Object(fields) => {
                let mut kept = Vec::new();
                for (key, value) in fields {
                    if !self.one_in(3) {
                        kept.push((*key, self.part(value, false)));
                    }
                }
                Doc::Object(kept.into_iter().collect())
            }
        }
    }

    fn respelled(&mut self, text: &str) -> String {
        let same: &[&str] = match text {
            "1" | "1.0" | "1e0" => &["1", "1.000", "10e-1"],
            "0" | "-0" | "0.00" => &["0", "-0", "0e5"],
            "1.1" | "1.10" => &["1.1", "1.100", "11e-1"],
            "1e400" | "10.0e399" => &["1e400", "1.0e400", "100e398"],
            _ => return text.to_owned(),
        };
        (*self.pick(same)).to_owned()
    }

    /// The same but for one place.
    fn changed(&mut self, document: Doc) -> Doc {
        match document {
            Doc::Array(mut items) if !items.is_empty() => {
                let at = self.below(items.len());
                items[at] = self.changed(items[at].clone());
                Doc::Array(items)
            }
            Doc::Object(mut fields) if !fields.is_empty() => {
                let at = self.below(fields.len());
                if self.one_in(3) {
                    fields[at].0 = *self.pick(&KEYS)
                } else {
                    fields[at].1 = self.changed(fields[at].1.clone())
                }
                Doc::Object(fields)
            }
            _ => self.document(1),
        }
    }
}
