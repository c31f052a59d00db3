//! Which paths of a document are searchable, and how: the policy that belongs to an index key version.

use serde_json::{Value, json};

use super::jsonb::{JsonbError, walk_with_empties};
use super::token::MAX_PATH_BYTES;

/// The only token scheme so far: [`super::token`].
pub const SCHEME: u8 = 1;
/// Declared paths of one policy, at most.
pub const MAX_PATHS: usize = 256;
/// Value bits of a token when a path declares none: all but the top bit.
pub const FULL_BITS: u8 = 63;

const MIN_BITS: u8 = 8;
const MAX_SPREAD: u16 = 64;

/// A path or stored policy that cannot be used; the text says where and never quotes data.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The path does not follow the grammar.
    #[error("searchable path {0:?} is not valid: {1}")]
    Path(String, &'static str),
    /// Too many paths.
    #[error("more than {MAX_PATHS} searchable paths")]
    TooManyPaths,
    /// The stored policy is not one of ours.
    #[error("the stored search policy is not valid: {0}")]
    Stored(&'static str),
}

/// One declared path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    text: String,
    steps: Vec<Step>,
    /// Bits of the token that depend on the value, 8 to 63; fewer hide values among one another.
    pub bits: u8,
    /// Tokens that one value is spread over, 1 to 64.
    pub spread: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(Vec<u8>),
    AnyKey,
    AnyDepth,
}

/// The searchable paths of one index key version, in the order they were declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<PathRule>,
}

impl Policy {
    /// Reads paths such as `$`, `$.a.b`, `$."odd key"`, `$.*` and `$.**`.
    pub fn from_paths<S: AsRef<str>>(paths: &[S]) -> Result<Self, PolicyError> {
        if paths.len() > MAX_PATHS {
            return Err(PolicyError::TooManyPaths);
        }
        let rules = paths.iter().map(|path| PathRule::parse(path.as_ref())).collect::<Result<_, _>>()?;
        Ok(Policy { rules })
    }

    /// The form that the catalog stores.
    pub fn to_json(&self) -> Value {
        let paths: Vec<Value> = self
            .rules
            .iter()
            .map(|rule| json!({ "path": rule.text, "bits": rule.bits, "spread": rule.spread }))
            .collect();
        json!({ "scheme": SCHEME, "paths": paths })
    }

    /// Reads what [`Policy::to_json`] wrote; an option it does not know is an error, never ignored.
    pub fn from_json(stored: &Value) -> Result<Self, PolicyError> {
        let fields = stored.as_object().ok_or(PolicyError::Stored("not an object"))?;
        if stored["scheme"].as_u64() != Some(SCHEME.into()) {
            return Err(PolicyError::Stored("unknown scheme"));
        }
        if fields.keys().any(|key| !["scheme", "paths"].contains(&key.as_str())) {
            return Err(PolicyError::Stored("unknown option"));
        }
        let paths = stored["paths"].as_array().ok_or(PolicyError::Stored("no paths"))?;
        if paths.len() > MAX_PATHS {
            return Err(PolicyError::TooManyPaths);
        }
        let rules = paths.iter().map(PathRule::from_json).collect::<Result<_, _>>()?;
        Ok(Policy { rules })
    }

    /// The first declared rule that covers a scalar below these object keys; array steps do not count.
    pub fn rule_for(&self, keys: &[&[u8]]) -> Option<&PathRule> {
        self.rules.iter().find(|rule| covers(&rule.steps, keys))
    }

    /// Is a scalar below these object keys searchable? `path_bytes` is the length of its path in a token.
    pub fn covers_scalar(&self, keys: &[&[u8]], path_bytes: usize) -> bool {
        path_bytes <= MAX_PATH_BYTES && self.rule_for(keys).is_some()
    }

    /// Every scalar is searchable.
    pub fn covers_everything(&self) -> bool {
        self.rules.iter().any(|rule| rule.steps == [Step::AnyDepth])
    }

    /// Does a query for this document ask about searchable paths only? An empty container asks what is at
    /// its path; at the top it tells an object from an array, nothing else.
    pub fn declares(&self, query: &[u8]) -> Result<bool, JsonbError> {
        let mut declared = true;
        walk_with_empties(query, |leaf| {
            let top = leaf.keys.is_empty() && !leaf.kind.is_scalar();
            declared &= top || self.covers_scalar(leaf.keys, leaf.path.len());
            Ok::<(), JsonbError>(())
        })?;
        Ok(declared)
    }

    /// Nothing is searchable.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl PathRule {
    fn parse(text: &str) -> Result<Self, PolicyError> {
        let fault = |why| PolicyError::Path(text.to_owned(), why);
        let rest = text.strip_prefix('$').ok_or_else(|| fault("a path starts with $"))?;
        let steps = parse_steps(rest).map_err(fault)?;
        Ok(PathRule { text: text.to_owned(), steps, bits: FULL_BITS, spread: 1 })
    }

    fn from_json(stored: &Value) -> Result<Self, PolicyError> {
        let fields = stored.as_object().ok_or(PolicyError::Stored("a path is not an object"))?;
        if fields.keys().any(|key| !["path", "bits", "spread"].contains(&key.as_str())) {
            return Err(PolicyError::Stored("unknown option"));
        }
        let mut rule = Self::parse(stored["path"].as_str().ok_or(PolicyError::Stored("no path"))?)?;
        rule.bits = bounded(fields.get("bits"), FULL_BITS.into(), MIN_BITS.into(), FULL_BITS.into())? as u8;
        rule.spread = bounded(fields.get("spread"), 1, 1, MAX_SPREAD.into())? as u16;
        Ok(rule)
    }
}

fn bounded(value: Option<&Value>, absent: u64, low: u64, high: u64) -> Result<u64, PolicyError> {
    let Some(value) = value else { return Ok(absent) };
    let number = value.as_u64().filter(|number| (low..=high).contains(number));
    number.ok_or(PolicyError::Stored("an option is out of range"))
}

fn parse_steps(mut rest: &str) -> Result<Vec<Step>, &'static str> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if steps.last() == Some(&Step::AnyDepth) {
            return Err("nothing may follow .**");
        }
        let after_dot = rest.strip_prefix('.').ok_or("a step starts with a dot")?;
        let (step, tail) = parse_step(after_dot)?;
        steps.push(step);
        rest = tail;
    }
    Ok(steps)
}

fn parse_step(text: &str) -> Result<(Step, &str), &'static str> {
    if let Some(tail) = text.strip_prefix("**") {
        return Ok((Step::AnyDepth, tail));
    }
    if let Some(tail) = text.strip_prefix('*') {
        return Ok((Step::AnyKey, tail));
    }
    if text.starts_with('"') {
        return parse_quoted(text);
    }
    let end = text.find(['.', '"', '*', '$', '[', ']', ' ']).unwrap_or(text.len());
    match end {
        0 => Err("a key is empty or needs double quotes"),
        _ => Ok((Step::Key(text[..end].into()), &text[end..])),
    }
}

/// A JSON string, so that every key can be written.
fn parse_quoted(text: &str) -> Result<(Step, &str), &'static str> {
    let mut keys = serde_json::Deserializer::from_str(text).into_iter::<String>();
    match keys.next() {
        Some(Ok(key)) => Ok((Step::Key(key.into_bytes()), &text[keys.byte_offset()..])),
        _ => Err("a quoted key does not end or has a bad escape"),
    }
}

fn covers(steps: &[Step], keys: &[&[u8]]) -> bool {
    match (steps.split_first(), keys.split_first()) {
        (None, None) => true,
        (Some((Step::AnyDepth, _)), _) => true,
        (Some((Step::AnyKey, steps)), Some((_, keys))) => covers(steps, keys),
        (Some((Step::Key(key), steps)), Some((first, keys))) => key == first && covers(steps, keys),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(path: &str, keys: &[&str]) -> bool {
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        Policy::from_paths(&[path]).unwrap().rule_for(&keys).is_some()
    }

    #[test]
    fn a_path_covers_scalars_exactly_there() {
        assert!(covered("$.a.b", &["a", "b"]));
        assert!(!covered("$.a.b", &["a"]));
        assert!(!covered("$.a.b", &["a", "b", "c"]));
        assert!(!covered("$.a.b", &["a.b"]));
        assert!(covered("$", &[]));
        assert!(!covered("$", &["a"]));
    }

    #[test]
    fn wildcards_cover_one_step_or_everything_below() {
        assert!(covered("$.*", &["a"]));
        assert!(!covered("$.*", &["a", "b"]));
        assert!(covered("$.a.*.c", &["a", "b", "c"]));
        assert!(covered("$.**", &[]));
        assert!(covered("$.a.**", &["a", "b", "c"]));
        assert!(!covered("$.a.**", &["b"]));
    }

    #[test]
    fn quoted_keys_name_anything() {
        assert!(covered(r#"$."odd key"."a.b""#, &["odd key", "a.b"]));
        assert!(covered(r#"$."\u00e9\"""#, &["é\""]));
        assert!(covered("$.naïve-key_1", &["naïve-key_1"]));
    }

    #[test]
    fn malformed_paths_are_refused_with_a_reason() {
        for bad in ["", "a", "$a", "$.", "$..a", "$.a[0]", "$.**.a", "$.\"a", "$.a b", "$.a\"b\"", "$.\"a\"b"]
        {
            assert!(matches!(Policy::from_paths(&[bad]), Err(PolicyError::Path(..))), "{bad}");
        }
        assert_eq!(Policy::from_paths(&vec!["$"; MAX_PATHS + 1]), Err(PolicyError::TooManyPaths));
    }

    #[test]
    fn the_stored_form_reads_back_and_unknown_options_are_refused() {
        let policy = Policy::from_paths(&["$.a", "$.**"]).unwrap();
        assert_eq!(Policy::from_json(&policy.to_json()), Ok(policy));
        for bad in [
            json!({}),
            json!({"scheme": 2, "paths": []}),
            json!({"scheme": 1, "paths": [], "fold": true}),
            json!({"scheme": 1, "paths": [{"path": "$", "bits": 7}]}),
            json!({"scheme": 1, "paths": [{"path": "$", "spread": 0}]}),
            json!({"scheme": 1, "paths": [{"path": "$", "fold": true}]}),
        ] {
            assert!(Policy::from_json(&bad).is_err(), "{bad}");
        }
    }
}
