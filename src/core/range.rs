//! Ranges of numbers and of times: exact comparison, and the buckets that make them searchable.
//!
//! A declared range is cut into steps, and the steps are grouped by fours, those groups by fours, and so on. A
//! value has a token for its bucket on every level; a query asks for the few buckets that cover it. What
//! lies below or above the declared range has a bucket of its own on each side.

use std::cmp::Ordering;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::bytes::UnknownCode;
use super::canonical::{Kind, NUMBER_HEAD_BYTES, printed_number};
use super::iso8601;

/// Steps of one range, at most: 16 levels.
const MAX_STEPS: i128 = 1 << 32;
/// Decimal places of a declared bound or step, at most.
const MAX_SCALE: i32 = 12;
/// Digits of a declared bound or step, at most.
const MAX_DIGITS: usize = 18;
/// Levels are numbered from the finest; these two stand beside them.
const BELOW: u8 = 0xFE;
const ABOVE: u8 = 0xFF;

/// Why a range cannot be declared so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RangeError(pub &'static str);

/// What a range is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Domain {
    /// JSON numbers.
    Numbers = 1,
    /// JSON strings that are a date or time, see [`Reading`].
    Times = 2,
}

impl TryFrom<u8> for Domain {
    type Error = UnknownCode;

    fn try_from(code: u8) -> Result<Self, UnknownCode> {
        match code {
            1 => Ok(Domain::Numbers),
            2 => Ok(Domain::Times),
            _ => Err(UnknownCode),
        }
    }
}

/// Which strings are times; what has tokens is found by the reading that made them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// [`micros`], by policies of 0.2.0 and before.
    Rfc3339,
    /// [`iso8601::micros`].
    Iso8601,
}

impl Reading {
    fn micros(self, text: &str) -> Option<i128> {
        match self {
            Reading::Rfc3339 => micros(text),
            Reading::Iso8601 => iso8601::micros(text),
        }
    }
}

/// A range as a policy declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// What it is of.
    pub domain: Domain,
    /// How a string is read.
    pub reading: Reading,
    declared: Value,
    scale: i32,
    min: i128,
    max: i128,
    step: i128,
}

/// A bucket: level and number.
pub type Bucket = (u8, u64);

/// A finite decimal number: sign, exponent of ten, digits; as [`super::canonical::number`] writes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Decimal(Vec<u8>);

/// Something that a range can be asked about.
#[derive(Clone, PartialEq, Eq)]
pub enum Scalar {
    /// A number.
    Number(Decimal),
    /// Microseconds since 1970-01-01 UTC.
    Time(i128),
}

/// Bounds of a query, both included; `None` is open.
#[derive(Clone, PartialEq, Eq)]
pub struct Bounds {
    /// What is compared.
    pub domain: Domain,
    /// The lower bound.
    pub low: Option<Scalar>,
    /// The upper bound.
    pub high: Option<Scalar>,
}

impl Decimal {
    /// Takes canonical bytes; `None` for what is cut short or has other bytes than digits behind its head.
    pub fn new(canonical: Vec<u8>) -> Option<Self> {
        let digits = canonical.get(NUMBER_HEAD_BYTES..)?;
        digits.iter().all(u8::is_ascii_digit).then_some(Decimal(canonical))
    }

    fn parts(&self) -> (bool, i64, &[u8]) {
        let exponent = i32::from_be_bytes([self.0[1], self.0[2], self.0[3], self.0[4]]);
        (self.0[0] != 0, exponent.into(), &self.0[NUMBER_HEAD_BYTES..])
    }

    /// Rounded down to an integer after ten to the power `scale` times it; saturates far outside any range.
    fn scaled_floor(&self, scale: i32) -> i128 {
        const FAR: i128 = i128::MAX / 4;
        /// Ten to this power, and any number of so many digits, is nearer than [`FAR`].
        const MOST_DIGITS: i64 = 36;
        let (negative, exponent, digits) = self.parts();
        let shift = exponent + i64::from(scale);
        let whole = digits.len() as i64 + shift;
        if whole > MOST_DIGITS {
            return if negative { -FAR } else { FAR };
        }
        let kept = &digits[..digits.len().min(whole.max(0) as usize)];
        let mut integer = kept.iter().fold(0, |number: i128, digit| number * 10 + i128::from(digit - b'0'));
        integer *= 10i128.pow(shift.clamp(0, MOST_DIGITS) as u32);
        if negative { -integer - i128::from(kept.len() < digits.len()) } else { integer }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((negative, exponent, digits), (other_negative, other_exponent, other_digits)) =
            (self.parts(), other.parts());
        let sign = |negative: bool, digits: &[u8]| match (digits.is_empty(), negative) {
            (true, _) => 0,
            (_, true) => -1,
            _ => 1,
        };
        let (left, right) = (sign(negative, digits), sign(other_negative, other_digits));
        if left != right || left == 0 {
            return left.cmp(&right);
        }
        let magnitude = (exponent + digits.len() as i64)
            .cmp(&(other_exponent + other_digits.len() as i64))
            .then_with(|| digits.cmp(other_digits));
        if negative { magnitude.reverse() } else { magnitude }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Scalar {
    /// The scalar of a leaf, where it is one of `domain`.
    pub fn of(domain: Domain, reading: Reading, kind: Kind, value: &[u8]) -> Option<Self> {
        match (domain, kind) {
            (Domain::Numbers, Kind::Number) => Decimal::new(value.to_vec()).map(Scalar::Number),
            (Domain::Times, Kind::String) => {
                reading.micros(std::str::from_utf8(value).ok()?).map(Scalar::Time)
            }
            _ => None,
        }
    }

    /// As a filter keeps it: a number's canonical bytes, or microseconds as i128: PostgreSQL's last times, counted from
    /// 1970, are beyond i64.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Scalar::Number(number) => number.0.clone(),
            Scalar::Time(micros) => micros.to_be_bytes().to_vec(),
        }
    }

    fn compare(&self, other: &Scalar) -> Option<Ordering> {
        match (self, other) {
            (Scalar::Number(left), Scalar::Number(right)) => Some(left.cmp(right)),
            (Scalar::Time(left), Scalar::Time(right)) => Some(left.cmp(right)),
            _ => None,
        }
    }

    fn scaled(&self, scale: i32) -> i128 {
        match self {
            Scalar::Number(number) => number.scaled_floor(scale),
            Scalar::Time(micros) => *micros,
        }
    }
}

impl Bounds {
    /// Does the scalar lie between the bounds?
    pub fn contain(&self, scalar: &Scalar) -> bool {
        let above = self.low.as_ref().is_none_or(|low| scalar.compare(low).is_some_and(Ordering::is_ge));
        let below = self.high.as_ref().is_none_or(|high| scalar.compare(high).is_some_and(Ordering::is_le));
        above && below
    }
}

impl Range {
    /// Reads `{"min": .., "max": .., "step": ..}`: three numbers, or two times and a step such as "1 day".
    pub fn from_json(stored: &Value) -> Result<Self, RangeError> {
        let fault = RangeError;
        let fields = stored.as_object().ok_or(fault("a range is an object with min, max and step"))?;
        if fields.len() != 3 || !["min", "max", "step"].iter().all(|name| fields.contains_key(*name)) {
            return Err(fault("a range has min, max and step, and nothing else"));
        }
        let (min, max, step) = (&stored["min"], &stored["max"], &stored["step"]);
        let (domain, scale, [min, max, step]) = if min.is_string() {
            (Domain::Times, 0, [time_bound(min)?, time_bound(max)?, duration(step)?])
        } else {
            numbers(min, max, step)?
        };
        if step <= 0 || max <= min {
            return Err(fault("a range has min below max, and a positive step"));
        }
        if (max - min) / step >= MAX_STEPS {
            return Err(fault("a range has more than 4294967296 steps: choose a larger step"));
        }
        let reading = Reading::Rfc3339;
        Ok(Range { domain, reading, declared: stored.clone(), scale, min, max, step })
    }

    /// What [`Range::from_json`] read.
    pub fn to_json(&self) -> Value {
        self.declared.clone()
    }

    /// Steps in the range.
    pub fn steps(&self) -> u64 {
        ((self.max - self.min) / self.step + 1) as u64
    }

    /// The levels of buckets: on the coarsest there are at most four.
    fn levels(&self) -> u8 {
        let mut buckets = self.steps();
        let mut levels = 1;
        while buckets > 4 {
            buckets = buckets.div_ceil(4);
            levels += 1;
        }
        levels
    }

    /// The finest bucket of a scalar.
    pub fn bucket(&self, scalar: &Scalar) -> Bucket {
        let scaled = scalar.scaled(self.scale);
        if scaled < self.min {
            return (BELOW, 0);
        }
        match (scaled - self.min) / self.step {
            step if step >= i128::from(self.steps()) => (ABOVE, 0),
            step => (0, step as u64),
        }
    }

    /// The buckets of a scalar on every level.
    pub fn buckets(&self, scalar: &Scalar) -> Vec<Bucket> {
        match self.bucket(scalar) {
            (0, step) => (0..self.levels()).map(|level| (level, step >> (2 * level))).collect(),
            outside => vec![outside],
        }
    }

    /// Buckets of which every scalar between the bounds has one.
    pub fn cover(&self, bounds: &Bounds) -> Vec<Bucket> {
        let edge = |bound: &Option<Scalar>, open| bound.as_ref().map_or(open, |scalar| self.bucket(scalar));
        let (low, high) = (edge(&bounds.low, (BELOW, 0)), edge(&bounds.high, (ABOVE, 0)));
        let mut cover = Vec::new();
        if low.0 == BELOW {
            cover.push((BELOW, 0));
        }
        if high.0 == ABOVE {
            cover.push((ABOVE, 0));
        }
        let first = match low.0 {
            BELOW => 0,
            ABOVE => self.steps(),
            _ => low.1,
        };
        let end = match high.0 {
            BELOW => 0,
            ABOVE => self.steps(),
            _ => high.1 + 1,
        };
        self.cover_steps(first, end, &mut cover);
        cover
    }

    /// From the finest level up: what does not fill a bucket of the next level stays, on either side.
    fn cover_steps(&self, mut first: u64, mut end: u64, cover: &mut Vec<Bucket>) {
        for level in 0..self.levels() {
            let last = level + 1 == self.levels();
            while first < end && (last || !first.is_multiple_of(4)) {
                cover.push((level, first));
                first += 1;
            }
            while first < end && !end.is_multiple_of(4) {
                end -= 1;
                cover.push((level, end));
            }
            (first, end) = (first / 4, end / 4);
        }
    }
}

/// Bucket as it goes into a token.
pub fn bucket_bytes((level, number): Bucket) -> [u8; 9] {
    let mut bytes = [0; 9];
    bytes[0] = level;
    bytes[1..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Microseconds since 1970-01-01 UTC of an RFC 3339 time, of one without an offset, which counts as UTC, or of a
/// date, which counts as its midnight in UTC; a space may stand for the T. `None` for any other text.
pub fn micros(text: &str) -> Option<i128> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 10 || bytes.len() > 40 {
        return None;
    }
    let (date, clock) = text.split_at(10);
    let clock = match clock.strip_prefix(['T', 't', ' ']) {
        Some(clock) => clock,
        None if clock.is_empty() => "00:00:00",
        None => return None,
    };
    let has_offset = clock.ends_with(['Z', 'z']) || clock.contains(['+', '-']);
    let offset = if has_offset { "" } else { "Z" };
    let parsed = OffsetDateTime::parse(&format!("{date}T{clock}{offset}"), &Rfc3339).ok()?;
    Some(parsed.unix_timestamp_nanos().div_euclid(1000))
}

fn time_bound(bound: &Value) -> Result<i128, RangeError> {
    let time = bound.as_str().and_then(|text| micros(text).or_else(|| iso8601::micros(text)));
    time.ok_or(RangeError("min and max are both numbers or both times such as \"2020-01-01\""))
}

fn duration(step: &Value) -> Result<i128, RangeError> {
    let fault = || RangeError("the step of a range of times is a text such as \"1 day\" or \"6 hours\"");
    let (count, unit) = step.as_str().and_then(|text| text.split_once(' ')).ok_or_else(fault)?;
    let seconds = match unit.trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        "week" => 604_800,
        _ => return Err(fault()),
    };
    let count: u32 = count.parse().map_err(|_| fault())?;
    Ok(i128::from(count) * seconds * 1_000_000)
}

type Numbers = (Domain, i32, [i128; 3]);

fn numbers(min: &Value, max: &Value, step: &Value) -> Result<Numbers, RangeError> {
    let decimals = [min, max, step].map(decimal);
    let [Some(min), Some(max), Some(step)] = decimals else {
        return Err(RangeError(
            "min, max and step of a range are numbers of at most 18 digits, 12 after the point",
        ));
    };
    let places = [&min, &max, &step].map(|number| (-number.parts().1).max(0) as i32);
    let scale = places.into_iter().max().unwrap_or(0);
    Ok((Domain::Numbers, scale, [min, max, step].map(|number| number.scaled_floor(scale))))
}

fn decimal(value: &Value) -> Option<Decimal> {
    let decimal = Decimal::new(printed_number(&value.as_number()?.to_string())?)?;
    let (_, exponent, digits) = decimal.parts();
    let fits =
        digits.len() <= MAX_DIGITS && exponent >= i64::from(-MAX_SCALE) && exponent <= MAX_DIGITS as i64;
    fits.then_some(decimal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn range(stored: Value) -> Range {
        Range::from_json(&stored).unwrap()
    }

    fn number(text: impl AsRef<str>) -> Scalar {
        Scalar::Number(Decimal::new(printed_number(text.as_ref()).unwrap()).unwrap())
    }

    fn bounds(low: Option<&str>, high: Option<&str>) -> Bounds {
        Bounds { domain: Domain::Numbers, low: low.map(number), high: high.map(number) }
    }

    #[test]
    fn numbers_are_ordered_exactly() {
        let ordered =
            ["-1000", "-10.5", "-10.05", "-0.1", "0", "0.00001", "0.1", "0.11", "2", "10", "99.999", "100"];
        for pair in ordered.windows(2) {
            assert_eq!(number(pair[0]).compare(&number(pair[1])), Some(Ordering::Less), "{pair:?}");
        }
        assert_eq!(number("1.0").compare(&number("1")), Some(Ordering::Equal));
        assert_eq!(number("-0").compare(&number("0.00")), Some(Ordering::Equal));
    }

    #[test]
    fn a_number_has_a_head_and_digits_alone() {
        assert!(Decimal::new(vec![0; NUMBER_HEAD_BYTES - 1]).is_none());
        assert!(Decimal::new(vec![0; NUMBER_HEAD_BYTES]).is_some());
        for byte in [0, b'0' - 1, b'9' + 1, 0xFF] {
            assert!(Decimal::new(vec![0, 0, 0, 0, 0, b'7', byte]).is_none(), "{byte}");
        }
    }

    #[test]
    fn a_value_falls_into_the_step_it_reaches() {
        let tenths = range(json!({ "min": -1, "max": 1, "step": 0.1 }));
        let step = |text: &str| tenths.bucket(&number(text));
        assert_eq!(step("-1"), (0, 0));
        assert_eq!(step("-0.90000001"), (0, 0));
        assert_eq!(step("-0.9"), (0, 1));
        assert_eq!(step("0"), (0, 10));
        assert_eq!(step("1"), (0, 20));
        assert_eq!(step("1.05"), (0, 20));
        assert_eq!(step("1.1"), (ABOVE, 0));
        assert_eq!(step("-1.0000001"), (BELOW, 0));
        assert_eq!(step(&format!("1{}", "0".repeat(400))), (ABOVE, 0));
        assert_eq!(step(&format!("-1{}", "0".repeat(400))), (BELOW, 0));
    }

    #[test]
    fn times_are_read_in_one_way_whatever_the_session() {
        let day = 86_400_000_000;
        assert_eq!(micros("1970-01-02"), Some(day));
        assert_eq!(micros("1970-01-02T00:00:00Z"), Some(day));
        assert_eq!(micros("1970-01-02 00:00:00"), Some(day));
        assert_eq!(micros("1970-01-02T02:00:00.000001+02:00"), Some(day + 1));
        assert_eq!(micros("1969-12-31T23:59:59.9999999Z"), Some(-1));
        for not in ["", "yesterday", "1970-13-01", "01.02.1970", "1970-01-02T25:00:00Z", "1970-01-02x"] {
            assert_eq!(micros(not), None, "{not}");
        }
        let days = range(json!({ "min": "2020-01-01", "max": "2029-12-31", "step": "1 day" }));
        assert_eq!(days.bucket(&Scalar::Time(micros("2020-01-03T23:00:00Z").unwrap())), (0, 2));
    }

    #[test]
    fn declarations_that_cannot_be_used_are_refused() {
        for bad in [
            json!({ "min": 0, "max": 1 }),
            json!({ "min": 0, "max": 1, "step": 0 }),
            json!({ "min": 1, "max": 1, "step": 1 }),
            json!({ "min": 0, "max": 1, "step": "1 day" }),
            json!({ "min": "2020-01-01", "max": 5, "step": "1 day" }),
            json!({ "min": "2020-01-01", "max": "2021-01-01", "step": "1 month" }),
            json!({ "min": 0, "max": 1, "step": 1e-13 }),
            json!({ "min": 0, "max": 4294967296u64, "step": 1 }),
            json!({ "min": 0, "max": 1, "step": 1, "more": 1 }),
            json!(7),
        ] {
            assert!(Range::from_json(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cover_is_small() {
        let wide = range(json!({ "min": 0, "max": 4294967295u64, "step": 1 }));
        let most = wide.cover(&bounds(Some("1"), Some("4294967294"))).len();
        assert!(most <= 100, "{most}");
        assert_eq!(wide.buckets(&number("77")).len(), 16);
        assert_eq!(wide.cover(&bounds(None, None)).len(), 2 + 4);
    }

    proptest! {
        #[test]
        fn a_cover_has_a_bucket_of_exactly_the_steps_between(
            max in 1u64..3000, low in -100i64..3100, length in -10i64..3200, value in -200i64..3300
        ) {
            let range = range(json!({ "min": 0, "max": max, "step": 1 }));
            let (low, high) = (low, low + length);
            let bounds = bounds(Some(&low.to_string()), Some(&high.to_string()));
            let scalar = number(value.to_string());
            let cover = range.cover(&bounds);
            let hit = range.buckets(&scalar).iter().any(|bucket| cover.contains(bucket));
            if bounds.contain(&scalar) {
                prop_assert!(hit);
            }
            // Inside the declared range whole steps are told apart.
            if (0..=max as i64).contains(&value) && !bounds.contain(&scalar) {
                prop_assert!(!hit);
            }
        }

        #[test]
        fn fractions_are_never_missed(low in -50.0f64..50.0, length in 0.0f64..100.0, value in -60.0f64..60.0) {
            let range = range(json!({ "min": -20.5, "max": 33.25, "step": 0.25 }));
            let text = |number: f64| format!("{number:.6}");
            let bounds = bounds(Some(&text(low)), Some(&text(low + length)));
            let scalar = number(text(value));
            if bounds.contain(&scalar) {
                let cover = range.cover(&bounds);
                prop_assert!(range.buckets(&scalar).iter().any(|bucket| cover.contains(bucket)));
            }
        }
    }
}
