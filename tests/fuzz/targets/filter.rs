//! Filters and the questions in them: what parses is consistent, and what was sealed comes back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgseal::core::filter::{Binding, Filter, Parts, seal};
use pgseal::core::groups::{MAX_LIST_KEYS, QueryVersion};
use pgseal::core::header::TOKEN_BYTES;
use pgseal::core::question::{Question, QuestionKind};
use pgseal_fuzz::{Input, KEYRING, KEYRING_ID, change, index_key, tokenizers};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.byte() % 2 {
        0 => from_anywhere(input.rest()),
        _ => asked(input),
    }
});

fn from_anywhere(bytes: &[u8]) {
    let Ok(filter) = Filter::parse(bytes) else { return };
    is_consistent(&filter, bytes.len());
    if let Ok(opened) = filter.open(index_key(), &KEYRING) {
        reads_back(filter.kind(), &opened);
    }
}

fn is_consistent(filter: &Filter<'_>, length: usize) {
    assert_eq!(filter.groups().count(), filter.group_count());
    let keys: Vec<u64> = filter.groups().flatten().collect();
    assert!(8 * keys.len() <= length);
    let parts = filter.parts().unwrap();
    let parts = parts.iter().map(|part| Filter::parse(part).unwrap()).collect::<Vec<_>>();
    assert_eq!(parts.iter().flat_map(|part| part.groups().flatten()).collect::<Vec<_>>(), keys);
    // What lets a value through does so in one of its parts too.
    for wanted in keys.iter().take(8) {
        let admits = |filter: &Filter<'_>| filter.admits(*wanted, |key| key == *wanted);
        assert_eq!(admits(filter), parts.iter().any(admits));
    }
    let every = filter.for_every_keyring().unwrap();
    let every = Filter::parse(&every).unwrap();
    assert!(every.every_keyring() && !every.decides() && every.group_count() == 0);
    assert!(every.admits(0, |_| false) && every.kind() == filter.kind());
    assert!(!filter.is_decided_by(&[]) && !filter.is_decided_by(&[0xFF; TOKEN_BYTES - 1]));
    let _ = filter.is_decided_by(&[0xFF; 2 * TOKEN_BYTES]);
}

fn reads_back(kind: QuestionKind, bytes: &[u8]) {
    let Ok(Some(question)) = Question::decode(kind, bytes) else { return };
    assert!(question.kind() == kind);
    let encoded = question.encode().unwrap();
    assert!(Question::decode(kind, &encoded).unwrap() == Some(question));
}

/// The kind of a question, its bytes, and what of the filter is changed.
fn asked(mut input: Input<'_>) {
    let (kind, scheme) = (input.byte() % 5 + 1, input.byte() % 2);
    let kind = QuestionKind::try_from(kind).unwrap();
    let bytes = input.part();
    reads_back(kind, bytes);
    let Ok(Some(question)) = Question::decode(kind, bytes) else { return };
    let [narrow, decide] = tokenizers();
    let tokenizer = if scheme == 0 { narrow } else { decide };
    let _ = question.is_declared(tokenizer.policy);
    let versions = [QueryVersion { version: 1, tokenizer: Some(tokenizer) }];
    let Ok(groups) = question.groups(KEYRING_ID, &versions) else { return };
    assert!(groups.all.iter().map(|group| group.keys.len()).sum::<usize>() <= MAX_LIST_KEYS);
    assert!(groups.all.iter().all(|group| group.keys.is_sorted() && group.deciding.is_sorted()));
    let parts = Parts {
        keyring: KEYRING_ID,
        binding: Binding::Fixed,
        sealed_by: 1,
        newest_index: 1,
        groups: &groups,
    };
    let sealed = seal(index_key(), &KEYRING, &question, &parts).unwrap();
    assert_eq!(sealed, seal(index_key(), &KEYRING, &question, &parts).unwrap());
    let filter = Filter::parse(&sealed).unwrap();
    let groups_of = |filter: Filter<'_>| filter.groups().map(Iterator::collect).collect::<Vec<Vec<_>>>();
    assert!(groups_of(filter).iter().eq(groups.all.iter().map(|group| &group.keys)));
    assert_eq!(filter.decides(), groups.decide());
    is_consistent(&filter, sealed.len());
    assert!(filter.open(index_key(), &KEYRING).unwrap() == question.encode().unwrap());
    let mut other = sealed.clone();
    change(&mut other, input.rest());
    from_anywhere(&other);
}
