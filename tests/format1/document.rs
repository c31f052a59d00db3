//! JSON documents, what PostgreSQL's jsonb makes of them, and `@>`, each in the plainest way.

use super::{Kind, Value};

#[derive(Debug, Clone)]
pub enum Json {
    Null,
    Bool(bool),
    /// As it was written.
    Number(String),
    String(String),
    Array(Vec<Json>),
    /// Of a repeated key the last one counts.
    Object(Vec<(String, Json)>),
}

/// serde_json rounds numbers to f64, so they pass through it as marked strings.
pub fn parse(text: &str) -> Json {
    let mut marked = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, number) = match first {
            '"' => (string_length(rest), false),
            '-' | '0'..='9' => (rest.find(|c| !"+-.eE0123456789".contains(c)).unwrap_or(rest.len()), true),
            other => (other.len_utf8(), false),
        };
        let piece = &rest[..length];
        marked += &if number { format!("\"\\u0001{piece}\"") } else { piece.to_owned() };
        rest = &rest[length..];
    }
    from_value(serde_json::from_str(&marked).unwrap())
}

fn string_length(text: &str) -> usize {
    let mut escaped = true;
    let end = text.bytes().position(|byte| {
        let end = byte == b'"' && !escaped;
        // The opening quote counts as escaped.
        escaped = byte == b'\\' && !escaped;
        end
    });
    end.unwrap() + 1
}

fn from_value(value: Value) -> Json {
    match value {
        Value::String(text) => match text.strip_prefix('\u{1}') {
            Some(number) => Json::Number(number.into()),
            None => Json::String(text),
        },
        Value::Array(elements) => Json::Array(elements.into_iter().map(from_value).collect()),
        Value::Object(members) => {
            Json::Object(members.into_iter().map(|(k, v)| (k, from_value(v))).collect())
        }
        Value::Bool(value) => Json::Bool(value),
        _ => Json::Null,
    }
}

/// Sign, exponent of ten and digits without zeros at either end.
pub fn decimal(text: &str) -> (bool, i32, String) {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let negative = whole.starts_with('-');
    let digits = [whole.trim_start_matches('-'), fraction].concat();
    let trimmed = digits.trim_end_matches('0');
    if trimmed.trim_start_matches('0').is_empty() {
        return (false, 0, String::new());
    }
    let exponent =
        exponent.parse::<i32>().unwrap() - fraction.len() as i32 + (digits.len() - trimmed.len()) as i32;
    (negative, exponent, trimmed.trim_start_matches('0').into())
}

fn canonical(text: &str) -> Vec<u8> {
    let (negative, exponent, digits) = decimal(text);
    [&[u8::from(negative)][..], &exponent.to_be_bytes(), digits.as_bytes()].concat()
}

/// Members as jsonb keeps them: the last of a repeated key, shorter keys first.
pub fn members(object: &[(String, Json)]) -> Vec<(&str, &Json)> {
    let last =
        |(at, (key, _)): &(usize, &(String, Json))| !object[at + 1..].iter().any(|(later, _)| later == key);
    let mut kept: Vec<_> =
        object.iter().enumerate().filter(last).map(|(_, (k, v))| (k.as_str(), v)).collect();
    kept.sort_by_key(|(key, _)| (key.len(), key.as_bytes()));
    kept
}

#[derive(Clone)]
pub struct Leaf {
    pub keys: Vec<Vec<u8>>,
    pub path: Vec<u8>,
    pub kind: Kind,
    pub value: Vec<u8>,
}

pub fn leaves(document: &Json) -> Vec<Leaf> {
    let root = Leaf { keys: vec![], path: vec![], kind: Kind::Null, value: vec![] };
    let mut found = Vec::new();
    match document {
        Json::Array(_) | Json::Object(_) => visit(document, &root, &mut found),
        scalar => visit(scalar, &Leaf { path: vec![2], ..root }, &mut found),
    }
    found
}

fn visit(json: &Json, at: &Leaf, found: &mut Vec<Leaf>) {
    let mut leaf = |kind, value: &[u8]| found.push(Leaf { kind, value: value.to_vec(), ..at.clone() });
    match json {
        Json::Null => leaf(Kind::Null, b""),
        Json::Bool(value) => leaf(if *value { Kind::True } else { Kind::False }, b""),
        Json::Number(text) => leaf(Kind::Number, &canonical(text)),
        Json::String(text) => leaf(Kind::String, text.as_bytes()),
        Json::Array(elements) => {
            let below = Leaf { path: [&at.path[..], &[2]].concat(), ..at.clone() };
            elements.iter().for_each(|element| visit(element, &below, found));
        }
        Json::Object(object) => members(object).into_iter().for_each(|(key, value)| {
            let path = [&at.path[..], &[1], &(key.len() as u32).to_be_bytes(), key.as_bytes()].concat();
            let keys = at.keys.iter().cloned().chain([key.into()]).collect();
            visit(value, &Leaf { path, keys, ..at.clone() }, found);
        }),
    }
}

/// `document @> query`: at the top an array also contains a bare scalar.
pub fn contains(document: &Json, query: &Json) -> bool {
    match (document, query) {
        (Json::Array(elements), query) if !query.is_container() => elements.iter().any(|e| below(e, query)),
        _ => below(document, query),
    }
}

fn below(document: &Json, query: &Json) -> bool {
    match (document, query) {
        (Json::Object(has), Json::Object(asks)) => {
            let has = members(has);
            members(asks)
                .into_iter()
                .all(|(key, asked)| has.iter().any(|(k, v)| *k == key && below(v, asked)))
        }
        (Json::Array(has), Json::Array(asks)) => asks.iter().all(|asked| has.iter().any(|e| below(e, asked))),
        (Json::Number(a), Json::Number(b)) => decimal(a) == decimal(b),
        (Json::String(a), Json::String(b)) => a == b,
        (Json::Bool(a), Json::Bool(b)) => a == b,
        (Json::Null, Json::Null) => true,
        _ => false,
    }
}

impl Json {
    pub fn is_container(&self) -> bool {
        matches!(self, Json::Array(_) | Json::Object(_))
    }
}
