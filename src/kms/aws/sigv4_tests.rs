use super::*;
use crate::kms::Token;

const SUITE: &str = include_str!("../../../tests/vectors/sigv4.txt");

fn token(text: &str) -> Token {
    Token::parse(text).unwrap()
}

/// Signs a case of the suite anew and gives its name, the header in it and ours.
fn signed_again(case: &str) -> (&str, String, String) {
    let (name, request) = case.split_once('\n').unwrap();
    let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
    let (first, head) = head.split_once('\n').unwrap();
    let method = first.split(' ').next().unwrap();
    // A line that begins with a space goes on with the header before it.
    let folded = head.trim_end().replace("\n ", "\r ");
    let mut headers: Vec<_> = folded.lines().map(|line| line.split_once(':').unwrap()).collect();
    let (_, expected) = headers.pop().unwrap();
    let session = headers.iter().find(|(name, _)| *name == "X-Amz-Security-Token");
    let credentials = Credentials {
        id: token("AKIDEXAMPLE"),
        secret: token("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        session: session.map(|(_, value)| token(value)),
    };
    let scope = Scope { region: "us-east-1", service: "service", time: "20150830T123600Z" };
    let body = body.trim_end_matches('\n').as_bytes();
    let ours = authorization(&credentials, &scope, method, &headers, body).unwrap();
    (name, expected.to_owned(), ours)
}

#[test]
fn signatures_are_those_of_the_published_suite() {
    let cases: Vec<_> = SUITE.split("== ").skip(1).map(signed_again).collect();
    assert_eq!(cases.len(), 14);
    for (name, expected, ours) in cases {
        assert_eq!(ours, expected, "{name}");
    }
}

#[test]
fn the_time_is_written_in_digits_alone() {
    let suite = OffsetDateTime::from_unix_timestamp(1_440_938_160).unwrap();
    assert_eq!(stamp(suite), "20150830T123600Z");
    assert_eq!(stamp(OffsetDateTime::UNIX_EPOCH), "19700101T000000Z");
}

#[test]
fn the_request_with_a_session_token_is_written_without_growing() {
    let headers = [("host", "h"), ("x-amz-date", "20150830T123600Z"), ("x-amz-security-token", "t  t")];
    let names = names(&headers);
    let room: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let text = canonical_request("POST", &headers, &names, b"body");
    assert_eq!(text.capacity(), room + "POST".len() + names.join(";").len() + 80);
}
