//! Tokens that are cut short in rows and filters, so that those of different values meet all the time: what then still keeps
//! the answers exact.
//!
//! Cut after they are made, with the tag made over what is left, as a build with such tokens would store them; no build has
//! to have them.

use std::ops::AddAssign;

use pgseal::core::groups::Group;
use pgseal::core::header::TOKEN_BIT;
use pgseal::core::text_query::{Accessor, TextQuery};

use super::values::assembled;
use super::*;

const VALUES: usize = 100;
/// Sixteen keys for a hundred values.
const KEY_BITS: u32 = 4;
/// All of what checks a token, hardly any of it, and nothing.
const CHECK_BITS: [u32; 3] = [64, 4, 0];

const WHOLE: &str = "$.a";
const SHORT: &str = r#"{"path": "$.a", "bits": 8}"#;

/// How a token is cut: bits that are left of what checks it.
#[derive(Clone, Copy)]
struct Cut(u32);

/// Of pairs of a filter and a row. What is opened is compared, and that is exact.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Outcome {
    /// Rows that the index finds and that are no answers.
    found_only: usize,
    decided: usize,
    /// Answers that jsonb would not give, where tokens decide.
    wrong: usize,
    /// The same where every row that is found is opened.
    wrong_if_opened: usize,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.found_only += other.found_only;
        self.decided += other.decided;
        self.wrong += other.wrong;
        self.wrong_if_opened += other.wrong_if_opened;
    }
}

impl Cut {
    fn key(self, key: u64) -> u64 {
        // Markers stay.
        if key & TOKEN_BIT == 0 { key } else { TOKEN_BIT | key & ((1 << KEY_BITS) - 1) }
    }

    fn tokens(self, tokens: impl IntoIterator<Item = u128>) -> Vec<u128> {
        let check = (1u128 << self.0) - 1;
        let cut = |token: u128| u128::from(self.key((token >> 64) as u64)) << 64 | token & check;
        let mut tokens: Vec<_> = tokens.into_iter().map(cut).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    fn row(self, policy: &Policy, document: &Json) -> Vec<u8> {
        let whole = row(1, policy, document);
        let tokens = whole[parse_head(&whole).unwrap().1.tokens()].as_chunks().0;
        let tokens = self.tokens(tokens.iter().map(|token| u128::from_be_bytes(*token)));
        let row = assembled(Content::Jsonb, &tokens, &jsonb(document));
        let opened = Envelope::parse(&row).unwrap().open(data_key(), &KEYRING).unwrap();
        assert_eq!(opened.content(), jsonb(document));
        row
    }

    fn filter(self, policy: &Policy, question: &Question<Vec<u8>>) -> Vec<u8> {
        let versions = [QueryVersion { version: 1, tokenizer: Some(tokenizer(1, policy)) }];
        let groups = question.groups(KEYRING_ID, &versions).unwrap();
        let decide = groups.decide();
        let cut = groups.all.into_iter().map(|group| {
            let mut keys: Vec<_> = group.keys.into_iter().map(|key| self.key(key)).collect();
            keys.sort_unstable();
            keys.dedup();
            Group { keys, deciding: self.tokens(group.deciding) }
        });
        filter_of(question, &Groups::new(cut.collect(), decide), 1)
    }

    /// Asks every row about every value in each way.
    fn outcome(self, declared: &str) -> Outcome {
        let policy = policy(&[declared]);
        let rows: Vec<_> = (0..VALUES).map(|value| self.row(&policy, &document(value))).collect();
        let mut all = Outcome::default();
        for asked in 0..VALUES {
            for question in questions(asked) {
                let filter = self.filter(&policy, &question);
                rows.iter().enumerate().for_each(|(value, row)| all += outcome(&filter, row, value == asked));
            }
        }
        all
    }
}

fn outcome(filter: &[u8], row: &[u8], is_so: bool) -> Outcome {
    let (found, decided) = (is_admitted(filter, row), is_decided(filter, row));
    Outcome {
        found_only: usize::from(found && !is_so),
        decided: usize::from(decided),
        wrong: usize::from((found && (decided || is_so)) != is_so),
        wrong_if_opened: usize::from((found && is_so) != is_so),
    }
}

fn document(value: usize) -> Json {
    parse(&format!(r#"{{"a":"value {value}"}}"#))
}

/// Ways to ask for the document of a value.
fn questions(value: usize) -> [Question<Vec<u8>>; 3] {
    let text = format!("value {value}").into_bytes();
    [
        Question::Contains(jsonb(&document(value))),
        Question::ContainsAny(vec![Some(jsonb(&document(value)))]),
        Question::Text(TextQuery::of_one(Accessor::Field, vec![b"a".to_vec()], text)),
    ]
}

#[test]
fn what_checks_a_token_tells_values_whose_keys_meet() {
    let [all, few, none] = CHECK_BITS.map(|bits| Cut(bits).outcome(WHOLE));
    let so = 3 * VALUES;
    assert!(all.found_only > 1_000, "{all:?}");
    assert_eq!((all.decided, all.wrong), (so, 0), "{all:?}");
    // Nothing else does: what meets as a whole is decided, and wrong.
    assert!(few.wrong > 30 && few.decided == so + few.wrong, "{few:?}");
    assert_eq!((none.wrong, none.decided), (none.found_only, so + none.found_only), "{none:?}");
}

#[test]
fn paths_with_bits_are_exact_whatever_checks_their_tokens() {
    for bits in CHECK_BITS {
        let outcome = Cut(bits).outcome(SHORT);
        assert!(outcome.found_only > 1_000, "{bits}: {outcome:?}");
        assert_eq!((outcome.decided, outcome.wrong), (0, 0), "{bits}: {outcome:?}");
    }
}

/// As `pgseal.recheck = always` has it.
#[test]
fn rows_that_are_all_opened_are_exact_whatever_checks_tokens() {
    for bits in CHECK_BITS {
        let outcome = Cut(bits).outcome(WHOLE);
        assert!(outcome.found_only > 1_000, "{bits}: {outcome:?}");
        assert_eq!(outcome.wrong_if_opened, 0, "{bits}: {outcome:?}");
    }
}
