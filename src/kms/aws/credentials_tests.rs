use std::cell::RefCell;
use std::collections::HashMap;

use zeroize::Zeroizing;

use super::*;

thread_local! {
    static VARIABLES: RefCell<HashMap<&'static str, String>> = RefCell::default();
}

fn variable(name: &str) -> Option<String> {
    VARIABLES.with_borrow(|all| all.get(name).cloned())
}

/// A chain in an environment of these variables alone.
fn chain(variables: &[(&'static str, &str)]) -> Chain {
    let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned()));
    VARIABLES.set(variables.collect());
    Chain::new(Environment::new(variable), "eu-west-1")
}

fn parts(credentials: &Credentials) -> (&str, &str, Option<&str>) {
    let session = credentials.session.as_ref().map(Token::as_str);
    (credentials.id.as_str(), credentials.secret.as_str(), session)
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, body: Zeroizing::new(body.as_bytes().to_vec()) }
}

const INI: &str = "\
; the owner's
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key=se/cr+et=
# aws_session_token = commented

[ other ]
AWS_ACCESS_KEY_ID=AKIAOTHER
aws_secret_access_key = other
aws_session_token = session
[role]
role_arn = arn:aws:iam::111122223333:role/x
";

#[test]
fn the_environment_gives_both_halves_or_none() {
    let fixed =
        chain(&[("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SESSION_TOKEN", "")]);
    let found = fixed.environment().unwrap().unwrap();
    assert_eq!(parts(&found), ("AKIA", "s", None));
    let session =
        chain(&[("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SESSION_TOKEN", "t")]);
    assert_eq!(parts(&session.environment().unwrap().unwrap()), ("AKIA", "s", Some("t")));
    assert!(chain(&[("AWS_ACCESS_KEY_ID", "")]).environment().unwrap().is_none());
    for half in [
        &[("AWS_ACCESS_KEY_ID", "AKIA")][..],
        &[("AWS_SECRET_ACCESS_KEY", "s")],
        &[("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "two words")],
    ] {
        assert!(matches!(chain(half).environment(), Err(KmsError::Setting(_))));
    }
}

#[test]
fn a_credentials_file_has_profiles() {
    let found = credentials_of(INI.as_bytes(), "default").unwrap();
    assert_eq!(parts(&found), ("AKIADEFAULT", "se/cr+et=", None));
    let found = credentials_of(INI.as_bytes(), "other").unwrap();
    assert_eq!(parts(&found), ("AKIAOTHER", "other", Some("session")));
    for profile in ["role", "missing", ""] {
        assert_eq!(credentials_of(INI.as_bytes(), profile).err(), Some(NO_PROFILE), "{profile}");
    }
    for file in [&b""[..], b"\xff", b"aws_access_key_id=a\naws_secret_access_key=b"] {
        assert_eq!(credentials_of(file, "default").err(), Some(NO_PROFILE));
    }
}

#[test]
fn only_a_file_or_profile_that_is_asked_for_must_be_there() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, INI).unwrap();
    let path = file.path().to_str().unwrap();
    let found = chain(&[("AWS_SHARED_CREDENTIALS_FILE", path)]).shared_file().unwrap().unwrap();
    assert_eq!(found.id.as_str(), "AKIADEFAULT");
    let named = chain(&[("AWS_SHARED_CREDENTIALS_FILE", path), ("AWS_PROFILE", "other")]);
    assert_eq!(named.shared_file().unwrap().unwrap().id.as_str(), "AKIAOTHER");

    assert!(chain(&[]).shared_file().unwrap().is_none());
    assert!(chain(&[("HOME", "/nonexistent")]).shared_file().unwrap().is_none());
    for asked in [
        &[("HOME", "/nonexistent"), ("AWS_PROFILE", "other")][..],
        &[("AWS_PROFILE", "other")],
        &[("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")],
        &[("AWS_SHARED_CREDENTIALS_FILE", "/dev/zero")],
    ] {
        let refused = chain(asked).shared_file().err().unwrap().to_string();
        // Then it says which file, where there is one.
        assert!(refused.starts_with(&NO_PROFILE.to_string()), "{refused}");
    }
}

#[test]
fn credentials_come_over_https_or_from_this_host() {
    for good in [
        "https://creds.example/x",
        "http://127.0.0.1:51679/v1?id=7",
        "http://localhost/get",
        "http://169.254.169.254",
        "http://169.254.170.2/v2/credentials/x",
        "http://169.254.170.23/v1/credentials",
        "http://[fd00:ec2::23]/v1/credentials",
    ] {
        assert_eq!(check_source(good), Ok(()), "{good}");
    }
    for bad in [
        "http://creds.example/x",
        "http://169.254.170.2.evil/x",
        "http://169.254.170.2@evil/x",
        "http://169.254.1.1/",
        "ftp://127.0.0.1/",
        "/relative",
        "https://h/a b",
    ] {
        assert!(matches!(check_source(bad), Err(KmsError::Endpoint(_))), "{bad}");
    }
}

#[test]
fn a_container_s_own_path_goes_before_an_address() {
    let (path, url) = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let address = |variables: &[_]| chain(variables).container_url();
    let both = [(path, "/v2/credentials/x"), (url, "http://127.0.0.1/y")];
    assert_eq!(address(&both), Ok(Some("http://169.254.170.2/v2/credentials/x".into())));
    assert_eq!(address(&both[1..]), Ok(Some("http://127.0.0.1/y".into())));
    assert_eq!(address(&[]), Ok(None));
    for outside in ["@evil.example/x", ":80/x", "x"] {
        assert!(matches!(address(&[(path, outside)]), Err(KmsError::Setting(_))), "{outside}");
    }
}

#[test]
fn what_a_source_writes_is_taken_whole_or_not_at_all() {
    let whole = r#"{"Code":"Success","AccessKeyId":"ASIA","SecretAccessKey":"s\/x","Token":"t",
                    "Expiration":"2026-11-25T15:00:00Z"}"#;
    let lease = judge_source(answer(200, whole)).ok().unwrap();
    assert_eq!(parts(&lease.credentials), ("ASIA", "s/x", Some("t")));
    assert_eq!(lease.expires.unix_timestamp(), 1_795_618_800);
    for part in ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"] {
        let less = whole.replace(part, "Else");
        assert_eq!(judge_source(answer(200, &less)).err(), Some(Failure::Final(NO_CREDENTIALS)), "{part}");
    }
    for status in [400, 401, 403, 404, 301] {
        let error = judge_source(answer(status, "{}")).err().unwrap();
        assert!(matches!(error, Failure::Final(KmsError::Denied(_))), "{status}");
    }
    for status in [429, 500, 503] {
        assert_eq!(judge_source(answer(status, "")).err(), Some(Failure::Transient(SOURCE_DOWN)));
    }
}

#[test]
fn sts_answers_in_xml() {
    let body = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
                <AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>s+/</SecretAccessKey>\
                <SessionToken>t==</SessionToken><Expiration>2026-11-25T15:00:00Z</Expiration>\
                </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
    let lease = judge_sts(answer(200, body)).ok().unwrap();
    assert_eq!(parts(&lease.credentials), ("ASIA", "s+/", Some("t==")));
    assert_eq!(judge_sts(answer(200, "<a/>")).err(), Some(Failure::Final(NO_CREDENTIALS)));

    let refused = |status, code: &str| {
        let body = format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>");
        judge_sts(answer(status, &body)).err().unwrap()
    };
    for (status, code) in
        [(400, "ExpiredTokenException"), (403, "AccessDenied"), (400, "InvalidIdentityToken")]
    {
        assert!(matches!(refused(status, code), Failure::Final(KmsError::Denied(_))), "{code}");
    }
    for (status, code) in [(400, "IDPCommunicationError"), (400, "Throttling"), (503, "Else")] {
        assert_eq!(refused(status, code), Failure::Transient(SOURCE_DOWN), "{code}");
    }
}

#[test]
fn a_form_escapes_everything_special_and_never_grows() {
    let text = form("Action=A", &[("Token", "a.b-c_d~"), ("Arn", "a:b/c +&=%\u{fc}")]);
    assert_eq!(text.as_str(), "Action=A&Token=a.b-c_d~&Arn=a%3Ab%2Fc%20%2B%26%3D%25%C3%BC");
    let room = "Action=A".len() + ("Token".len() + 2 + 3 * 8) + ("Arn".len() + 2 + 3 * 12);
    assert_eq!(text.capacity(), room);
}

#[test]
fn a_role_s_name_stays_in_its_place() {
    for good in ["pgseal", "a_b+c=d,e.f@g-h"] {
        assert!(is_role(good), "{good}");
    }
    for bad in ["..", "a/b", "a?b", "a%2f", "a#b", &"r".repeat(65)] {
        assert!(!is_role(bad), "{bad}");
    }
}
