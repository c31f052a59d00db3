//! Which paths of a document are searchable, and how: the policy that belongs to an index key version.

use serde_json::{Value, json};

use super::bytes::UnknownCode;
use super::jsonb::{JsonbError, walk_with_empties};
use super::range::{Range, RangeError, Reading};

/// How tokens are made: [`super::token`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Scheme {
    /// 8 bytes, which say where to look.
    Narrow = 1,
    /// 16 bytes, which say what is there.
    Decide = 2,
}

impl TryFrom<u64> for Scheme {
    type Error = UnknownCode;

    fn try_from(code: u64) -> Result<Self, UnknownCode> {
        match code {
            1 => Ok(Scheme::Narrow),
            2 => Ok(Scheme::Decide),
            _ => Err(UnknownCode),
        }
    }
}

/// A path of more bytes is never searchable: every leaf below it would hash all of them again.
pub const MAX_PATH_BYTES: usize = 1024;
/// Declared paths of one policy, at most.
pub const MAX_PATHS: usize = 256;
/// Value bits of a token when a path declares none: all but the top bit.
pub const FULL_BITS: u8 = 63;

/// How a stored policy names [`Reading::Iso8601`].
const ISO: &str = "iso8601";
/// Text of a path with its options: a key of [`MAX_PATH_BYTES`], each byte escaped, fits.
const MAX_TEXT_BYTES: usize = 8 * MAX_PATH_BYTES;
const MIN_BITS: u8 = 8;
const MAX_SPREAD: u16 = 64;

/// A path or stored policy that cannot be used; the text says where and never quotes data.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The path does not follow the grammar.
    #[error("searchable path {0:?} is not valid: {1}")]
    Path(String, &'static str),
    /// The options of a path cannot be used.
    #[error("{0}")]
    Option(&'static str),
    /// More text than any path that can be searchable needs.
    #[error("a path has more than {MAX_TEXT_BYTES} bytes")]
    TooLong,
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
    /// Strings have the token of their case-folded form.
    pub casefold: bool,
    /// Numbers or times have tokens of buckets in place of one of their own.
    pub range: Option<Range>,
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
    /// How its tokens are made.
    pub scheme: Scheme,
    rules: Vec<PathRule>,
    reading: Reading,
}

impl From<RangeError> for PolicyError {
    fn from(RangeError(why): RangeError) -> Self {
        PolicyError::Option(why)
    }
}

impl Policy {
    /// Reads paths such as `$`, `$.a.b`, `$."odd key"`, `$.*` and `$.**`, and objects of a path and its options.
    pub fn from_paths<S: AsRef<str>>(scheme: Scheme, paths: &[S]) -> Result<Self, PolicyError> {
        if paths.len() > MAX_PATHS {
            return Err(PolicyError::TooManyPaths);
        }
        let rules = paths.iter().map(|path| PathRule::declared(path.as_ref())).collect::<Result<_, _>>()?;
        Ok(Policy { scheme, rules, reading: Reading::Rfc3339 }.renewed(scheme))
    }

    /// The form that the catalog stores.
    pub fn to_json(&self) -> Value {
        let paths: Vec<Value> = self.rules.iter().map(PathRule::to_json).collect();
        let scheme = self.scheme as u8;
        match self.reading {
            Reading::Rfc3339 => json!({ "scheme": scheme, "paths": paths }),
            Reading::Iso8601 => json!({ "scheme": scheme, "times": ISO, "paths": paths }),
        }
    }

    /// The same paths for a new index key version.
    pub fn renewed(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self.reading = Reading::Iso8601;
        for range in self.rules.iter_mut().filter_map(|rule| rule.range.as_mut()) {
            range.reading = Reading::Iso8601;
        }
        self
    }

    /// How strings below these object keys are read as times.
    pub fn reading(&self, keys: &[&[u8]]) -> Reading {
        let range = self.rule_for(keys).and_then(|rule| rule.range.as_ref());
        range.map_or(Reading::Iso8601, |range| range.reading)
    }

    /// Reads what [`Policy::to_json`] wrote; an option it does not know is an error, never ignored.
    pub fn from_json(stored: &Value) -> Result<Self, PolicyError> {
        let fields = stored.as_object().ok_or(PolicyError::Stored("not an object"))?;
        let scheme = stored["scheme"].as_u64().and_then(|scheme| Scheme::try_from(scheme).ok());
        let scheme = scheme.ok_or(PolicyError::Stored("unknown scheme"))?;
        if fields.keys().any(|key| !["scheme", "times", "paths"].contains(&key.as_str())) {
            return Err(PolicyError::Stored("unknown option"));
        }
        let paths = stored["paths"].as_array().ok_or(PolicyError::Stored("no paths"))?;
        if paths.len() > MAX_PATHS {
            return Err(PolicyError::TooManyPaths);
        }
        let rules = paths.iter().map(PathRule::from_json).collect::<Result<_, _>>()?;
        let policy = Policy { scheme, rules, reading: Reading::Rfc3339 };
        match stored.get("times").map(Value::as_str) {
            None => Ok(policy),
            Some(Some(ISO)) => Ok(policy.renewed(scheme)),
            Some(_) => Err(PolicyError::Stored("unknown reading of times")),
        }
    }

    /// The first declared rule that covers a scalar below these object keys; array steps do not count.
    pub fn rule_for(&self, keys: &[&[u8]]) -> Option<&PathRule> {
        self.rules.iter().find(|rule| covers(&rule.steps, keys))
    }

    /// Is a scalar below these object keys searchable? `path_bytes` is the length of its path in a token.
    pub fn covers_scalar(&self, keys: &[&[u8]], path_bytes: usize) -> bool {
        path_bytes <= MAX_PATH_BYTES && self.rule_for(keys).is_some()
    }

    /// Is every value of this declared path spread over several tokens, or cut into buckets?
    pub fn hides_frequency(&self, path: &str) -> bool {
        self.rules.iter().any(|rule| rule.text == path && (rule.spread > 1 || rule.range.is_some()))
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
        let text = text.to_owned();
        Ok(PathRule { text, steps, bits: FULL_BITS, spread: 1, casefold: false, range: None })
    }

    /// A path as users write it, alone or in a JSON object with options.
    fn declared(text: &str) -> Result<Self, PolicyError> {
        require_length(text)?;
        if !text.trim_start().starts_with('{') {
            return Self::parse(text);
        }
        let fault = PolicyError::Option(
            "a path with options is a JSON object such as {\"path\": \"$.a\", \"bits\": 12}",
        );
        let declared: Value = serde_json::from_str(text).map_err(|_| fault)?;
        Self::from_json(&declared)
    }

    fn to_json(&self) -> Value {
        let mut stored = json!({ "path": self.text });
        if self.bits != FULL_BITS {
            stored["bits"] = json!(self.bits);
        }
        if self.spread != 1 {
            stored["spread"] = json!(self.spread);
        }
        if self.casefold {
            stored["casefold"] = json!(true);
        }
        if let Some(range) = &self.range {
            stored["range"] = range.to_json();
        }
        stored
    }

    fn from_json(stored: &Value) -> Result<Self, PolicyError> {
        let fields = stored.as_object().ok_or(PolicyError::Option("a path with options is a JSON object"))?;
        let known = ["path", "bits", "spread", "casefold", "range"];
        if fields.keys().any(|key| !known.contains(&key.as_str())) {
            return Err(PolicyError::Option("the options of a path are bits, spread, casefold and range"));
        }
        let path = stored["path"]
            .as_str()
            .ok_or(PolicyError::Option("the options are of no path: \"path\" is missing"))?;
        let mut rule = Self::parse(path)?;
        let bits = fields.get("bits").map(|bits| bounded(bits, MIN_BITS.into(), FULL_BITS.into()));
        let bits = bits.unwrap_or(Some(FULL_BITS.into()));
        rule.bits = bits.ok_or(PolicyError::Option("bits is a whole number from 8 to 63"))? as u8;
        let spread = fields.get("spread").map_or(Some(1), |spread| bounded(spread, 1, MAX_SPREAD.into()));
        rule.spread = spread.ok_or(PolicyError::Option("spread is a whole number from 1 to 64"))? as u16;
        let casefold = fields.get("casefold").map_or(Some(false), Value::as_bool);
        rule.casefold = casefold.ok_or(PolicyError::Option("casefold is true or false"))?;
        rule.range = fields.get("range").map(Range::from_json).transpose()?;
        if rule.range.is_some() && (rule.bits != FULL_BITS || rule.spread != 1 || rule.casefold) {
            return Err(PolicyError::Option("range does not go together with bits, spread or casefold"));
        }
        Ok(rule)
    }

    /// The path as it was declared.
    pub fn path(&self) -> &str {
        &self.text
    }
}

/// The object keys of a path without wildcards, as a range filter names it.
pub fn plain_path(text: &str) -> Result<Vec<Vec<u8>>, PolicyError> {
    require_length(text)?;
    let keys = PathRule::parse(text)?.steps.into_iter().map(|step| match step {
        Step::Key(key) => Some(key),
        _ => None,
    });
    keys.collect::<Option<_>>()
        .ok_or_else(|| PolicyError::Path(text.to_owned(), "a wildcard cannot be asked about"))
}

fn require_length(text: &str) -> Result<(), PolicyError> {
    (text.len() <= MAX_TEXT_BYTES).then_some(()).ok_or(PolicyError::TooLong)
}

fn bounded(value: &Value, low: u64, high: u64) -> Option<u64> {
    value.as_u64().filter(|number| (low..=high).contains(number))
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
        Policy::from_paths(Scheme::Narrow, &[path]).unwrap().rule_for(&keys).is_some()
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
            assert!(
                matches!(Policy::from_paths(Scheme::Decide, &[bad]), Err(PolicyError::Path(..))),
                "{bad}"
            );
        }
        let many = vec!["$"; MAX_PATHS + 1];
        assert_eq!(Policy::from_paths(Scheme::Decide, &many), Err(PolicyError::TooManyPaths));
    }

    #[test]
    fn the_stored_form_reads_back_and_unknown_options_are_refused() {
        let range = r#"{"path": "$.age", "range": {"min": 0.5, "max": 150, "step": 0.5}}"#;
        let options = r#"{"path": "$.b", "bits": 12, "spread": 8, "casefold": true}"#;
        for scheme in [Scheme::Narrow, Scheme::Decide] {
            let policy = Policy::from_paths(scheme, &["$.a", range, options, "$.**"]).unwrap();
            assert_eq!(Policy::from_json(&policy.to_json()), Ok(policy));
        }
        for bad in [
            json!({}),
            json!({"scheme": 0, "paths": []}),
            json!({"scheme": 3, "paths": []}),
            json!({"scheme": 1, "paths": [], "fold": true}),
            json!({"scheme": 1, "paths": [{"path": "$", "bits": 7}]}),
            json!({"scheme": 1, "paths": [{"path": "$", "spread": 0}]}),
            json!({"scheme": 1, "paths": [{"path": "$", "fold": true}]}),
            json!({"scheme": 1, "paths": [{"path": "$", "casefold": 1}]}),
            json!({"scheme": 1, "paths": [{"path": "$", "spread": 2, "range": {"min": 0, "max": 9, "step": 1}}]}),
        ] {
            assert!(Policy::from_json(&bad).is_err(), "{bad}");
        }
    }
}
