//! Committed values: each opens, and is read as it was written.

use super::*;

type Wanted = (String, Box<dyn Fn() -> String>);

/// Every content with every combination of flags, with and without tokens.
fn wanted_combinations() -> Vec<Wanted> {
    let vector: Vec<u8> =
        [0.5f32, -1.0, 0.0, f32::MIN_POSITIVE].repeat(6).iter().flat_map(|x| x.to_le_bytes()).collect();
    let text = "diabetes mellitus type 2, ".repeat(3);
    let json_text = format!(r#"{{"diagnosis": "{text}", "patient_name": "Zoë"}}"#);
    let tokenizer = |document: &[u8]| tokens_of(1, &policy(1), document);
    let contents = [
        ("jsonb", Content::Jsonb, patient(), tokenizer(&patient())),
        (
            "json text",
            Content::JsonText,
            json_text.clone().into_bytes(),
            tokenizer(&jsonb(&parse(&json_text))),
        ),
        ("vector", Content::Vector, vector, vec![TOKEN_BIT, TOKEN_BIT | 1, u64::MAX]),
        ("text", Content::Text, text.clone().into_bytes(), text_tokens(text.as_bytes())),
    ];
    let mut wanted = Vec::new();
    for (label, content, plaintext, tokens) in contents {
        for bits in 0u8..32 {
            wanted.push(combination(label, content, &plaintext, &tokens, bits));
        }
    }
    wanted
}

fn text_tokens(text: &[u8]) -> Vec<u64> {
    tokenizer(&index_key(1), &policy(1)).text(text).unwrap().keys().collect()
}

fn combination(label: &str, content: Content, plaintext: &[u8], tokens: &[u64], bits: u8) -> Wanted {
    let on = |bit: u8| bits >> bit & 1 == 1;
    let names = ["bound", "compressed", "padded", "transit", "tokens"];
    let set: Vec<_> = (0..5u8).filter(|bit| on(*bit)).map(|bit| names[usize::from(bit)]).collect();
    let head = Head { transit: on(3), ..head(content, on(4).into()) };
    let options =
        Options { context: on(0).then_some(CONTEXT), compress: on(1), pad: on(2), ..Options::default() };
    let tokens = if on(4) { tokens.to_vec() } else { Vec::new() };
    let plaintext = plaintext.to_vec();
    let name = format!("{label}: {}", if set.is_empty() { "plain".into() } else { set.join(" ") });
    (name, Box::new(move || line(head, &tokens, &plaintext, options)))
}

fn wanted_edges() -> Vec<Wanted> {
    let text = head(Content::Text, 0);
    let pad = Options { pad: true, ..Options::default() };
    let empty_context = Options { context: Some(b""), ..Options::default() };
    let edges: [(&str, Head, &'static [u8], Options<'static>); 8] = [
        ("edge: empty text", text, b"", Options::default()),
        ("edge: empty text padded", text, b"", pad),
        ("edge: empty text of an empty context", text, b"", empty_context),
        ("edge: padded text that ends like padding", text, b"x\x80\0\0", pad),
        ("edge: empty vector", head(Content::Vector, 0), b"", Options::default()),
        ("edge: tokenised without tokens", head(Content::Text, u16::MAX), b"x", Options::default()),
        ("edge: last data key version", Head { data_version: u16::MAX, ..text }, b"x", Options::default()),
        ("edge: last keyring id", Head { keyring: i32::MAX, ..text }, b"x", Options::default()),
    ];
    let edge = |(name, head, plaintext, options): (&str, Head, &'static [u8], Options<'static>)| -> Wanted {
        (name.into(), Box::new(move || line(head, &[], plaintext, options)))
    };
    edges.into_iter().map(edge).collect()
}

/// Every real document, with spread and shortened tokens.
fn wanted_documents() -> Vec<Wanted> {
    let document = |(at, (_, document)): (usize, (String, Vec<u8>))| -> Wanted {
        let line = move || {
            let tokens = tokens_of(2, &policy(2), &document);
            line(head(Content::Jsonb, 2), &tokens, &document, Options::default())
        };
        (format!("document {at}"), Box::new(line))
    };
    samples().into_iter().enumerate().filter(|(_, (_, bytes))| bytes.len() < 500).map(document).collect()
}

#[test]
fn the_committed_values_are_complete() {
    let wanted = [wanted_combinations(), wanted_edges(), wanted_documents()];
    complete("format1.txt", wanted.into_iter().flatten());
}

#[test]
fn every_committed_value_opens_to_its_plaintext() {
    for made in committed() {
        let value = Envelope::parse(&made.sealed).unwrap();
        let key = data_key(made.data_version);
        let opened = value.open(&key, &KEYRING).unwrap_or_else(|e| panic!("{}: {e}", made.name));
        assert_eq!(opened.content(), made.plaintext, "{}", made.name);
        assert_eq!(opened.require_context(&key, made.context.as_deref()), Ok(()), "{}", made.name);
        assert_eq!(opened.require_context(&key, Some(b"another")), Err(OpenError::Context), "{}", made.name);
    }
}

#[test]
fn every_committed_header_reads_as_it_was_written() {
    for made in committed() {
        let value = Envelope::parse(&made.sealed).unwrap();
        let head = value.head();
        assert_eq!((head.content as u8, made.sealed[2]), (made.content, made.flags), "{}", made.name);
        assert_eq!((head.data_version, head.index_version), (made.data_version, made.index_version));
        assert_eq!((value.is_bound(), head.transit), (made.flags & 1 != 0, made.flags & 0x80 != 0));
        assert_eq!(value.is_bound(), made.context.is_some());
        assert_eq!(value.keys().collect::<Vec<_>>(), made.tokens, "{}", made.name);
    }
}

#[test]
fn all_flags_and_contents_are_committed() {
    let made = committed();
    for content in 1..=4 {
        for flags in (0..16u8).map(|bits| bits & 7 | bits >> 3 << 7) {
            let both = [0, 1].map(|tokens| {
                let alike = |made: &&Committed| made.name.contains(':') && made.index_version == tokens;
                made.iter().filter(alike).any(|m| m.content == content && m.flags == flags)
            });
            assert_eq!(both, [true; 2], "content {content} flags {flags:02x}");
        }
    }
}

#[test]
fn committed_tokens_are_what_the_plaintext_gives_today() {
    let exact = |made: &&Committed| made.content == 1 && made.index_version == 1;
    for made in committed().iter().filter(exact) {
        let tokens = tokens_of(1, &policy(1), &made.plaintext);
        assert_eq!(tokens, made.tokens, "{}", made.name);
        assert!(!tokens.is_empty());
    }
}

#[test]
fn committed_spread_tokens_are_those_that_queries_find() {
    for made in committed().iter().filter(|made| made.index_version == 2) {
        let (key, policy) = (index_key(2), policy(2));
        let tokenizer = Tokenizer { version: 2, key: &key, policy: &policy };
        let leaves = query_leaves(&made.plaintext).unwrap().leaves;
        let asked: Vec<_> = leaves.iter().filter_map(|l| Some(asked(&tokenizer.query(l)?))).collect();
        assert!(
            asked.iter().all(|tokens| tokens.iter().any(|token| made.tokens.contains(token))),
            "{}",
            made.name
        );
        assert!(made.tokens.iter().all(|token| asked.iter().flatten().any(|a| a == token)), "{}", made.name);
    }
}

/// The format written down a second time, straight from its description.
fn assemble(flags: u8, tokens: &[u64], inner: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 1, flags, 4, 0x01, 0x23, 0x45, 0x67, 0, 1, 0, 1];
    bytes.extend((tokens.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(tokens.iter().flat_map(|token| token.to_be_bytes()));
    let mut aad = Vec::new();
    for part in [&b"pgseal/v1/aad/value"[..], &bytes[..16], &KEYRING, &bytes[16..]] {
        aad.extend((part.len() as u32).to_be_bytes());
        aad.extend(part);
    }
    let nonce = [[0; 8], [5; 8], [6; 8]].concat();
    let mut body = inner.to_vec();
    let tag = data_key(1).aead.seal(nonce[..].try_into().unwrap(), &aad, &mut body).unwrap();
    [&bytes, &nonce[8..], &body, &tag].concat()
}

#[test]
fn a_value_assembled_by_hand_opens() {
    assert_eq!(open(&assemble(0, &[TOKEN_BIT, u64::MAX], b"text")).unwrap(), b"text");
    assert_eq!(open(&assemble(4, &[], b"text\x80\0\0")).unwrap(), b"text");
    let bound = [&data_key(1).context_tag(CONTEXT)[..], b"text"].concat();
    assert_eq!(open(&assemble(1, &[], &bound)).unwrap(), b"text");
    // RFC 1951 stored block: final, length 4, its complement.
    assert_eq!(open(&assemble(2, &[], b"\0\0\0\x04\x01\x04\0\xfb\xfftext")).unwrap(), b"text");
}

#[test]
fn authentic_values_with_an_impossible_inside_are_refused() {
    let bomb = [&[0xff; 4][..], b"\x01\x04\0\xfb\xfftext"].concat();
    let cases: [(u8, &[u8]); 9] = [
        (2, b""),
        (2, b"\0\0\0"),
        (2, b"\0\0\0\x05\x01\x04\0\xfb\xfftext"),
        (2, b"\0\0\0\x03\x01\x04\0\xfb\xfftext"),
        (2, b"\0\0\0\x04not deflate"),
        (2, &bomb),
        (4, b""),
        (4, b"text\0\0"),
        (5, b"shorter than 16\x80"),
    ];
    for (flags, inner) in cases {
        assert_eq!(open(&assemble(flags, &[], inner)), Err(OpenError::Authentication), "{flags} {inner:?}");
    }
}
