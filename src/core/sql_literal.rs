//! Literals and parameters in the text of an SQL statement, as far as finding their end takes.

/// Does COLLATE follow the literal or parameter that begins at `start`?
pub fn is_collated(sql: &[u8], start: usize) -> bool {
    let Some(mut rest) = sql.get(start..).and_then(after_literal) else { return false };
    loop {
        rest = after_space(rest);
        match rest.strip_prefix(b")") {
            Some(outside) => rest = outside,
            None => break,
        }
    }
    let (word, after) = rest.split_at(rest.len().min(b"collate".len()));
    word.eq_ignore_ascii_case(b"collate") && !after.first().is_some_and(|next| is_in_word(*next))
}

/// Has the statement a type behind the parameter at `start`, as in `($1)::text`? Of CAST the parser says that the parameter
/// starts there.
pub fn is_cast(sql: &[u8], start: usize) -> bool {
    let Some((before, from)) = sql.split_at_checked(start) else { return true };
    let Some(number) = from.strip_prefix(b"$") else { return true };
    let around = before.iter().rev().take_while(|byte| **byte == b'(' || byte.is_ascii_whitespace());
    let mut opened = around.filter(|byte| **byte == b'(').count();
    let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = after_space(&number[digits..]);
    while let Some(outside) = rest.strip_prefix(b")").filter(|_| opened > 0) {
        rest = after_space(outside);
        opened -= 1;
    }
    rest.starts_with(b"::")
}

fn is_in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// What comes after a quoted string or `$1`; `None` for anything else.
fn after_literal(sql: &[u8]) -> Option<&[u8]> {
    if let Some(dollar) = sql.strip_prefix(b"$") {
        return after_dollar(sql, dollar);
    }
    let quote = sql.iter().position(|byte| *byte == b'\'').filter(|at| *at <= 2)?;
    let escapes = sql[..quote].eq_ignore_ascii_case(b"e");
    let mut rest = after_quoted(&sql[quote + 1..], escapes)?;
    // A string goes on on the next line.
    loop {
        let next = after_space(rest);
        let on_next_line = rest[..rest.len() - next.len()].contains(&b'\n');
        match next.strip_prefix(b"'") {
            Some(more) if on_next_line => rest = after_quoted(more, escapes)?,
            _ => return Some(rest),
        }
    }
}

fn after_dollar<'a>(sql: &'a [u8], dollar: &'a [u8]) -> Option<&'a [u8]> {
    let digits = dollar.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 0 {
        return Some(&dollar[digits..]);
    }
    let tag = &sql[..dollar.iter().position(|byte| *byte == b'$')? + 2];
    let body = &sql[tag.len()..];
    let end = body.windows(tag.len()).position(|window| window == tag)?;
    Some(&body[end + tag.len()..])
}

/// What comes after the quote that ends a string.
fn after_quoted(mut rest: &[u8], escapes: bool) -> Option<&[u8]> {
    loop {
        let at = rest.iter().position(|byte| *byte == b'\'' || (escapes && *byte == b'\\'))?;
        let (found, after) = (rest[at], rest.get(at + 1..)?);
        if found == b'\'' && after.first() != Some(&b'\'') {
            return Some(after);
        }
        rest = after.get(1..)?;
    }
}

/// What comes after blanks and comments.
fn after_space(mut rest: &[u8]) -> &[u8] {
    loop {
        let trimmed = rest.trim_ascii_start();
        let after = match trimmed {
            [b'-', b'-', ..] => {
                let end = trimmed.iter().position(|byte| *byte == b'\n').unwrap_or(trimmed.len());
                &trimmed[end..]
            }
            [b'/', b'*', inside @ ..] => {
                let end = inside.windows(2).position(|window| window == b"*/");
                end.map_or(&[][..], |end| &inside[end + 2..])
            }
            _ => return trimmed,
        };
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::{is_cast, is_collated};

    #[test]
    fn a_type_behind_a_parameter_is_found() {
        for (text, cast) in [
            ("a = $1", false),
            ("a = $1::text", true),
            ("a = $12 /* as */ :: text", true),
            ("a = ($1)::text", true),
            ("a = ( ($1) )::text", true),
            ("(a = $1)::text", false),
            ("a IN ($1, 2)", false),
            ("VALUES ($1) RETURNING id", false),
            ("SELECT a = $1 AS b", false),
        ] {
            assert_eq!(is_cast(text.as_bytes(), text.find('$').unwrap()), cast, "{text}");
        }
        assert!(is_cast(b"CAST($1 AS text)", 0));
        assert!(is_cast(b"$1", 9));
    }

    #[test]
    fn collate_is_found_behind_a_literal_of_any_form() {
        for collated in [
            "'a' COLLATE ci",
            "'a'COLLATE\"C\"",
            "'it''s' collate ci",
            r"e'\'' Collate ci",
            "U&'a' COLLATE ci",
            "$1 COLLATE ci",
            "$12) COLLATE ci",
            "$$a$$ COLLATE ci",
            "$t$a$$'$t$ COLLATE ci",
            "'a' /* here */ -- there\n COLLATE ci",
            "'a'\n 'b' COLLATE ci",
        ] {
            assert!(is_collated(collated.as_bytes(), 0), "{collated}");
        }
    }

    #[test]
    fn collate_elsewhere_is_not_taken_for_it() {
        for other in [
            "'a' AND x COLLATE ci",
            "' COLLATE ci'",
            "'a', b COLLATE ci",
            "'a' collated",
            "'a",
            "$1 + 1",
            "$$a COLLATE ci",
            "a COLLATE ci",
            "e'\\' COLLATE ci",
            "",
        ] {
            assert!(!is_collated(other.as_bytes(), 0), "{other}");
        }
        assert!(!is_collated(b"'a'", 7));
    }
}
