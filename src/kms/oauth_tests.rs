use super::*;

fn given(status: u16, body: &str) -> Result<Fresh, Failure> {
    judge(Answer { status, body: Zeroizing::new(body.as_bytes().to_vec()) })
}

#[test]
fn a_token_and_its_time_are_read_as_each_service_writes_them() {
    let later = unix_time() + 100;
    for (body, seconds) in [
        (r#"{"access_token":"t","expires_in":3599,"token_type":"Bearer"}"#.to_owned(), 3599..=3599),
        (r#"{"access_token":"t","expires_in":"3599","expires_on":"1"}"#.to_owned(), 3599..=3599),
        (format!(r#"{{"access_token":"t","expires_on":"{later}"}}"#), 98..=100),
        (r#"{"access_token":"t","expires_on":"1"}"#.to_owned(), 0..=0),
    ] {
        let fresh = given(200, &body).expect(&body);
        assert_eq!(fresh.token.as_str(), "t");
        assert!(seconds.contains(&fresh.lifetime.as_secs()), "{body}");
    }
}

#[test]
fn what_holds_no_token_is_refused() {
    for body in [
        "",
        "[]",
        "{}",
        r#"{"access_token":"t"}"#,
        r#"{"access_token":"t","expires_in":-1}"#,
        r#"{"access_token":"t","expires_in":"soon"}"#,
        r#"{"access_token":"two words","expires_in":1}"#,
        r#"{"access_token":"","expires_in":1}"#,
        r#"{"access_token":7,"expires_in":1}"#,
    ] {
        assert_eq!(given(200, body).err(), Some(Failure::Final(NO_TOKEN)), "{body}");
    }
    assert_eq!(given(302, "").err(), Some(Failure::Final(NO_TOKEN)));
    for status in [400, 401, 403] {
        assert_eq!(given(status, "{}").err(), Some(Failure::Final(NOT_GIVEN)), "{status}");
    }
    for status in [404, 410, 429, 500, 503] {
        assert_eq!(given(status, "{}").err(), Some(Failure::Transient(SOURCE_DOWN)), "{status}");
    }
}

#[test]
fn a_token_lives_no_longer_than_a_day() {
    let bearer = Bearer::new(None);
    let token = || Token::parse("t").unwrap();
    bearer.keep(Fresh { token: token(), lifetime: Duration::MAX });
    let renew = bearer.held.borrow().as_ref().unwrap().renew;
    assert!(renew <= Instant::now() + LONGEST);
    assert!(bearer.kept().is_some());
    bearer.keep(Fresh { token: token(), lifetime: MARGIN });
    assert!(bearer.kept().is_none(), "one that is about to expire is not used again");
}

#[test]
fn tokens_are_asked_for_over_https_or_on_this_host() {
    for good in ["https://login.example/x", "http://127.0.0.1:1/x", "http://[::1]", "http://169.254.169.254"]
    {
        assert_eq!(check_source(good, NO_TOKEN), Ok(()), "{good}");
    }
    for bad in [
        "",
        "login.example",
        "ftp://login.example",
        "http://login.example",
        "http://169.254.169.254.example",
        "http://10.0.0.1",
        "https://user:canary@login.example",
        "https://login.example/a b",
        "https://login.example/#a",
    ] {
        let error = check_source(bad, NO_TOKEN).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{bad}");
    }
}
