//! Values: bytes from anywhere parse or are refused, and a value that was changed in any way does not open.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgseal::core::envelope::{Envelope, Opened, Options, reseal, seal};
use pgseal::core::header::{Content, Head, TOKEN_BIT, TokenSet, parse_head};
use pgseal_fuzz::{Input, KEYRING, KEYRING_ID, change, data_key, tokenizers};

const CONTENTS: [Content; 4] = [Content::Jsonb, Content::JsonText, Content::Vector, Content::Text];

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.byte() % 2 {
        0 => from_anywhere(input.rest()),
        _ => changed(input),
    }
});

fn from_anywhere(bytes: &[u8]) {
    let head = parse_head(bytes);
    let Ok(value) = Envelope::parse(bytes) else { return };
    assert!(head.is_ok_and(|(head, section)| head == value.head() && section.count() == value.keys().len()));
    assert!(value.keys().is_sorted() && value.keys().all(|key| key & TOKEN_BIT != 0));
    assert!(value.content_length().is_none_or(|length| length < bytes.len()));
    if let Ok(opened) = value.open(data_key(1), &KEYRING) {
        comes_back(&value, &opened);
    }
}

/// What a sealed value holds is the same after it was sealed anew.
fn comes_back(value: &Envelope<'_>, opened: &Opened) {
    let (old, new) = (data_key(1), data_key(2));
    let again = reseal(new, &KEYRING, value.head(), &TokenSet::NONE, opened, opened.content()).unwrap();
    same(&Envelope::parse(&again).unwrap().open(new, &KEYRING).unwrap(), opened);
    let mut renewed = Vec::new();
    value.renew(old, new, &KEYRING, 2, &mut renewed).unwrap();
    let renewed = Envelope::parse(&renewed).unwrap();
    assert_eq!(renewed.head(), Head { data_version: 2, ..value.head() });
    assert!(renewed.keys().eq(value.keys()));
    same(&renewed.open(new, &KEYRING).unwrap(), opened);
}

fn same(one: &Opened, other: &Opened) {
    assert_eq!((one.content(), one.is_bound()), (other.content(), other.is_bound()));
    assert!(one.require_same_context(other).is_ok());
}

/// Options, content and tokens of a value, what is sealed, how long it is afterwards, and what is changed.
fn changed(mut input: Input<'_>) {
    let [options, content, tokens] = input.array();
    let context = (options & 1 != 0).then_some(&b"row 7"[..]);
    let maker = (options & 8 != 0).then_some(&b"maker"[..]);
    let options = Options {
        context,
        compress: options & 2 != 0,
        pad: options & 4 != 0,
        deterministic: true,
        maker,
        compared: options & 16 != 0,
    };
    let plaintext = input.part();
    let tokens = match tokens % 3 {
        0 => TokenSet::NONE,
        scheme => tokenizers()[usize::from(scheme) - 1].text(plaintext).unwrap(),
    };
    let content = CONTENTS[usize::from(content) % CONTENTS.len()];
    let head = Head { content, keyring: KEYRING_ID, data_version: 1, index_version: 1, transit: false };
    let key = data_key(1);
    let sealed = seal(key, &KEYRING, head, &tokens, plaintext, options).unwrap();
    opens(&sealed, head, plaintext, options);
    let mut other = sealed.clone();
    other.resize(usize::from(input.half()).min(sealed.len() + 32), 0);
    change(&mut other, input.rest());
    if let Ok(value) = Envelope::parse(&other)
        && other != sealed
    {
        assert!(value.open(key, &KEYRING).is_err() && value.open_compared(key, &KEYRING).is_err());
    }
}

fn opens(sealed: &[u8], head: Head, plaintext: &[u8], options: Options<'_>) {
    let (value, key) = (Envelope::parse(sealed).unwrap(), data_key(1));
    assert_eq!(value.head(), head);
    let (by_value, by_comparison) = (value.open(key, &KEYRING), value.open_compared(key, &KEYRING));
    let (opened, refused) =
        if options.compared { (by_comparison, by_value) } else { (by_value, by_comparison) };
    let opened = opened.unwrap();
    assert!(refused.is_err() && opened.content() == plaintext);
    assert!(opened.require_context(key, options.context).is_ok());
    assert!(opened.require_context(key, Some(b"row 8")).is_err());
    if !options.compared {
        comes_back(&value, &opened);
    }
}
