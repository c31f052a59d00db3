//! Documents: any bytes are walked or refused, and a filter for a document lets that document through.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgseal::core::filter::{Binding, Filter, Parts, seal};
use pgseal::core::groups::QueryVersion;
use pgseal::core::jsonb::{JsonbError, all_strings, is_empty, is_scalar, is_utf8, walk, walk_with_empties};
use pgseal::core::question::Question;
use pgseal::core::token::{Tokenizer, marker, query_leaves};
use pgseal_fuzz::{KEYRING, KEYRING_ID, index_key, tokenizers};

fuzz_target!(|document: &[u8]| {
    let (mut scalars, mut leaves) = (0, 0);
    let walked = walk(document, |leaf| {
        scalars += 1;
        assert!(leaf.kind.is_scalar() && leaf.is_itself == is_scalar(document));
        // Two decimal digits of a number for each byte, and what comes before them.
        assert!(leaf.value.len() <= 2 * document.len() + 5);
        assert!(leaf.path.len() <= 9 * document.len());
        Ok::<(), JsonbError>(())
    });
    let with_empties = walk_with_empties(document, |_| {
        leaves += 1;
        Ok::<(), JsonbError>(())
    });
    assert_eq!(walked, with_empties);
    // Each has a word that says what it is, and so has the document.
    assert!(scalars <= leaves && 4 * leaves <= document.len().max(4));
    let strings = all_strings(document, |_| true);
    if let (Ok(one_by_one), Ok(as_runs)) =
        (all_strings(document, |text| str::from_utf8(text).is_ok()), is_utf8(document))
    {
        assert_eq!(one_by_one, as_runs);
    }
    if walked.is_ok() {
        assert_eq!(strings, Ok(true));
        assert!(!is_empty(document) || (scalars, leaves) == (0, 1));
        tokenizers().into_iter().for_each(|tokenizer| is_found(document, tokenizer));
    }
});

/// No filter may leave out a document that contains what it asks for, and each document contains itself.
fn is_found(document: &[u8], tokenizer: Tokenizer<'_>) {
    assert!(query_leaves(document).is_ok());
    let Ok(tokens) = tokenizer.document(document) else { return };
    let keys: Vec<u64> = tokens.keys().collect();
    let _ = tokenizer.values(document);
    let versions = [QueryVersion { version: 1, tokenizer: Some(tokenizer) }];
    let questions = [
        Question::Contains(document),
        Question::Casefold(document),
        Question::ContainsAny(vec![Some(document), None]),
    ];
    for question in questions {
        let groups = question.groups(KEYRING_ID, &versions).unwrap();
        let parts = Parts {
            keyring: KEYRING_ID,
            binding: Binding::Session,
            sealed_by: 1,
            newest_index: 1,
            groups: &groups,
        };
        let sealed = seal(index_key(), &KEYRING, &question, &parts).unwrap();
        let filter = Filter::parse(&sealed).unwrap();
        assert!(filter.admits(marker(KEYRING_ID, 1), |key| keys.binary_search(&key).is_ok()));
    }
}
