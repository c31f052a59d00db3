//! ISO 8601 dates and times as PostgreSQL's timestamptz reads them where the time zone is UTC: extended and basic form,
//! days of the year, the hour 24, the second 60, offsets with minutes or seconds, blanks around each part.

/// Microseconds of a day.
const DAY: i128 = 86_400_000_000;
/// The year 294277, which timestamptz does not reach.
const END: i128 = 9_224_318_016_000_000_000;
/// Longer texts are no times.
const MAX_BYTES: usize = 100;

/// Microseconds since 1970-01-01 UTC; without an offset it counts as UTC. `None` for any other text.
pub fn micros(text: &str) -> Option<i128> {
    let text = text.trim_matches(is_blank);
    if text.len() > MAX_BYTES {
        return None;
    }
    let (days, rest) = date(text)?;
    let (time, rest) = clock(rest)?;
    let micros = i128::from(days) * DAY + time.unwrap_or(0) - offset(rest, time.is_some())?;
    (micros < END).then_some(micros)
}

/// What isspace() takes for one.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t'..='\r')
}

/// The digits at the start, of which there must be `least` to `most`, as text and number.
fn digits(text: &str, least: usize, most: usize) -> Option<(&str, i64, &str)> {
    let count = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(count);
    (least..=most).contains(&count).then_some(())?;
    Some((digits, digits.parse().ok()?, rest))
}

fn in_range(number: i64, low: i64, high: i64) -> Option<i64> {
    (low..=high).contains(&number).then_some(number)
}

/// Days since 1970-01-01, and what follows.
fn date(text: &str) -> Option<(i64, &str)> {
    let (year_digits, year, rest) = digits(text, 4, 10)?;
    let Some(rest) = rest.strip_prefix('-') else {
        in_range(year_digits.len() as i64, 8, 10)?;
        return Some((civil(year / 10_000, year / 100 % 100, year % 100)?, rest));
    };
    let (second_digits, second, rest) = digits(rest, 1, 3)?;
    let year = if year_digits.len() <= 6 { year } else { return None };
    match (second_digits.len(), rest.strip_prefix('-')) {
        (3, None) => Some((civil(year, 1, 1)? + in_range(second, 1, 366)? - 1, rest)),
        (1 | 2, Some(rest)) => {
            let (_, day, rest) = digits(rest, 1, 2)?;
            Some((civil(year, second, day)?, rest))
        }
        _ => None,
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar.
fn civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = if leap { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    in_range(year, 1, 999_999)?;
    let month = in_range(month, 1, 12)? as usize;
    in_range(day, 1, lengths[month - 1])?;
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400;
    let in_year = lengths[..month - 1].iter().sum::<i64>() + day - 1;
    // 719162 days lie between the first day of the year 1 and 1970.
    Some(before * 365 + leap_days + in_year - 719_162)
}

/// Microseconds since midnight where a time is given, and what follows.
fn clock(text: &str) -> Option<(Option<i128>, &str)> {
    let blank = text.starts_with(is_blank);
    let text = text.trim_start_matches(is_blank);
    let time = match text.strip_prefix(['T', 't']) {
        Some(time) => time.trim_start_matches(is_blank),
        None if blank && text.starts_with(|first: char| first.is_ascii_digit()) => text,
        None => return Some((None, text)),
    };
    let (first_digits, first, rest) = digits(time, 1, 6)?;
    let (hour, minute, second, rest) = match (first_digits.len(), rest.strip_prefix(':')) {
        (1 | 2, Some(rest)) => {
            let (_, minute, rest) = digits(rest, 1, 2)?;
            match rest.strip_prefix(':') {
                Some(rest) => {
                    let (_, second, rest) = digits(rest, 1, 2)?;
                    (first, minute, second, rest)
                }
                // As timestamptz has it: minutes and seconds.
                None if rest.starts_with('.') => (0, first, minute, rest),
                None => (first, minute, 0, rest),
            }
        }
        // timestamptz takes this for a date, and ISO 8601 does not mix the forms.
        (4 | 6, None) if rest.starts_with('-') && rest.contains(':') => return None,
        (4, None) if !rest.starts_with('.') => (first / 100, first % 100, 0, rest),
        (6, None) => (first / 10_000, first / 100 % 100, first % 100, rest),
        _ => return None,
    };
    let (fraction, rest) = fraction(rest)?;
    let seconds = in_range(hour, 0, 24)? * 3_600 + in_range(minute, 0, 59)? * 60 + in_range(second, 0, 60)?;
    let micros = i128::from(seconds) * 1_000_000 + fraction;
    (micros <= DAY).then_some((Some(micros), rest))
}

/// Microseconds behind a point, rounded as timestamptz does.
fn fraction(text: &str) -> Option<(i128, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let (digits, rest) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
    let fraction: f64 = format!("0.{digits}0").parse().ok()?;
    Some(((fraction * 1_000_000.0).round_ties_even() as i128, rest))
}

/// Microseconds east of UTC; nothing may follow.
fn offset(text: &str, after_time: bool) -> Option<i128> {
    let bare = text.trim_start_matches(is_blank);
    if matches!(bare, "" | "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match bare.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        // Right behind a date it would be one more field of it.
        ("-", rest) if after_time => (-1, rest),
        _ => return None,
    };
    let (digits_given, number, rest) = digits(rest, 1, 4)?;
    let (hour, minute, rest) = match (digits_given.len(), rest.strip_prefix(':')) {
        (1 | 2, Some(rest)) => digits(rest, 1, 2).map(|(_, minute, rest)| (number, minute, rest))?,
        (1 | 2, None) => (number, 0, rest),
        (3 | 4, None) => (number / 100, number % 100, rest),
        _ => return None,
    };
    let second = match (digits_given.len(), rest.strip_prefix(':')) {
        (1 | 2, Some(rest)) => digits(rest, 1, 2).filter(|(_, _, rest)| rest.is_empty())?.1,
        _ if rest.is_empty() => 0,
        _ => return None,
    };
    let seconds = in_range(hour, 0, 15)? * 3_600 + in_range(minute, 0, 59)? * 60 + in_range(second, 0, 59)?;
    Some(sign * i128::from(seconds) * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i128 = DAY / 24;

    #[test]
    fn every_form_of_a_time_is_the_same_time() {
        let expected = 10 * HOUR + DAY;
        for text in [
            "1970-01-02T10:00:00Z",
            "1970-01-02 10:00",
            " 1970-01-02t10:00z ",
            "1970-01-02T1000",
            "19700102T100000.000Z",
            "1970-002T10:00Z",
            "1970-1-2T12:00:00+2",
            "1970-01-02T09:59:60Z",
            "1970-01-02 05:30 -0430",
            "1970-01-02T10:00:30+00:00:30",
            "1970-01-02 T 10:00:00.",
        ] {
            assert_eq!(micros(text), Some(expected), "{text}");
        }
        assert_eq!(micros("1970-01-01T24:00Z"), Some(DAY));
        assert_eq!(micros("1970-01-01T23:59:60Z"), Some(DAY));
        assert_eq!(micros("1970-01-01T00:00:00.0000005Z"), Some(0));
        assert_eq!(micros("1970-01-01T00:00:00.0000015Z"), Some(2));
        assert_eq!(micros("1969-12-31+01"), Some(-DAY - HOUR));
        assert_eq!(micros("294276-12-31T23:59:59.999999Z"), Some(END - 1));
    }

    #[test]
    fn what_timestamptz_refuses_or_is_not_iso_is_no_time() {
        for text in [
            "",
            "2020",
            "2020-01",
            "2020-02-30",
            "2021-000",
            "0000-01-01",
            "20-01-02",
            "2020-01-02T",
            "2020-01-02T10Z",
            "2020-01-02T25:00",
            "2020-01-02T24:00:01Z",
            "2020-01-02T10:60Z",
            "2020-01-02T10:00:61Z",
            "2020-01-02-02",
            "2020-01-02T10:00:00,5Z",
            "2020-01-02T10:00:00+16:00",
            "2020-01-02T10:00:00+",
            "2020-W01-1",
            "yesterday",
            "2020-01-02T10:00:00+020030",
            "2020-12-31T23:59:60.9Z",
            "294277-01-01",
            "2020-01-02T10:00\u{a0}Z",
        ] {
            assert_eq!(micros(text), None, "{text}");
        }
    }
}
