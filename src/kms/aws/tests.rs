use std::time::Duration;

use zeroize::Zeroizing;

use super::*;
use crate::keys::context::Purpose;
use crate::kms::Token;

const CONTEXT: WrapContext =
    WrapContext { keyring: *b"0123456789abcdef", purpose: Purpose::Data, version: 1 };
const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

fn nothing_set(_: &str) -> Option<String> {
    None
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, body: Zeroizing::new(body.as_bytes().to_vec()) }
}

fn verdict(status: u16, code: &str) -> Failure {
    judge(answer(status, &serde_json::json!({ "__type": code, "message": "m" }).to_string())).unwrap_err()
}

fn open(rest: &str) -> Result<AwsKms, KmsError> {
    let settings = Settings {
        environment: Environment::new(nothing_set),
        ..Settings::new(Duration::from_secs(1), || false)
    };
    AwsKms::open(rest, &settings)
}

#[test]
fn endpoints_are_a_region_and_perhaps_an_address() {
    let good = [
        ("eu-central-1", "https://kms.eu-central-1.amazonaws.com/"),
        ("us-gov-west-1", "https://kms.us-gov-west-1.amazonaws.com/"),
        ("cn-north-1", "https://kms.cn-north-1.amazonaws.com.cn/"),
        (
            "eu-west-1?endpoint=https://vpce-0.kms.eu-west-1.vpce.amazonaws.com",
            "https://vpce-0.kms.eu-west-1.vpce.amazonaws.com/",
        ),
        ("eu-west-1?endpoint=https://[fd00::1]:8443/", "https://[fd00::1]:8443/"),
        ("eu-west-1?endpoint=http://127.0.0.1:4566", "http://127.0.0.1:4566/"),
    ];
    for (rest, url) in good {
        let service = open(rest).unwrap().service;
        assert_eq!(service.url, url);
        assert_eq!(format!("/{}/", service.host), url[url.find("//").unwrap() + 1..]);
    }
}

#[test]
fn other_endpoints_are_refused_without_an_echo() {
    let bad = [
        "",
        "EU-WEST-1",
        "eu-west-1/",
        "eu-west-1.evil.example",
        "eu-west-1:443",
        "-eu",
        "hunter2@eu-west-1",
        "eu-west-1?region=hunter2",
        "eu-west-1?endpoint=",
        "eu-west-1?endpoint=hunter2",
        "eu-west-1?endpoint=ftp://hunter2",
        "eu-west-1?endpoint=https://user:hunter2@h",
        "eu-west-1?endpoint=https://h/hunter2",
        "eu-west-1?endpoint=https://h?hunter2",
        "eu-west-1?endpoint=https://h#hunter2",
        "eu-west-1?endpoint=https://h:0",
        "eu-west-1?endpoint=https://h h",
        "eu-west-1?endpoint=http://10.0.0.1:4566",
        "eu-west-1?endpoint=http://localhost.evil:4566",
        "eu-west-1?endpoint=http://169.254.169.254",
    ];
    for rest in bad {
        let error = open(rest).err().unwrap();
        assert!(matches!(error, KmsError::Endpoint(_)), "{rest} {error}");
        assert!(!error.to_string().contains("hunter2"), "{rest}");
    }
}

#[test]
fn an_address_comes_from_endpoint_then_own_then_shared_variable() {
    fn both(name: &str) -> Option<String> {
        match name {
            "AWS_ENDPOINT_URL_KMS" => Some("https://own.example".into()),
            "AWS_ENDPOINT_URL" => Some("https://all.example".into()),
            _ => None,
        }
    }
    let host = |name, given| Service::locate(name, "eu-west-1", given, Environment::new(both)).unwrap().host;
    assert_eq!(host("kms", Some("https://given.example")), "given.example");
    assert_eq!(host("kms", None), "own.example");
    assert_eq!(host("sts", None), "all.example");
    let unset = Service::locate("sts", "eu-west-1", None, Environment::new(|_| Some(String::new()))).unwrap();
    assert_eq!(unset.host, "sts.eu-west-1.amazonaws.com");
}

#[test]
fn a_session_s_token_is_no_use_here() {
    let token = Token::parse("s.token").map(std::rc::Rc::new);
    let settings = Settings { token, ..Settings::new(Duration::from_secs(1), || false) };
    assert!(matches!(AwsKms::open("eu-west-1", &settings), Err(KmsError::Setting(_))));
}

#[test]
fn keys_are_ids_aliases_and_arns_of_the_region() {
    let long = format!("alias/{}", "a".repeat(251));
    let of = |resource: &str| format!("arn:aws:kms:eu-west-1:111122223333:{resource}");
    let good = [
        ID.to_owned(),
        "mrk-1234abcd12ab34cd56ef1234567890ab".into(),
        "alias/pgseal".into(),
        "alias/team-a/tenant_7".into(),
        of(&format!("key/{ID}")),
        of("alias/pgseal"),
        format!("arn:aws-us-gov:kms:eu-west-1:111122223333:key/{ID}"),
    ];
    for key in good {
        assert_eq!(check_key(&key, "eu-west-1"), Ok(()), "{key}");
    }
    let bad = [
        String::new(),
        "pgseal".into(),
        "alias/".into(),
        "alias/a\"b".into(),
        "alias/a\\b".into(),
        "alias/schl\u{fc}ssel".into(),
        "ALIAS/a".into(),
        long,
        format!("{ID}\n"),
        of(ID),
        of("key/"),
        of("key/x\",\"y"),
        of("alias/"),
        "arn:aws:kms".into(),
        "arn:aws:s3:eu-west-1:111122223333:key/x".into(),
        format!("arn:aws:kms:eu-west-1::key/{ID}"),
        format!("arn:aws:kms:us-east-1:111122223333:key/{ID}"),
    ];
    for key in bad {
        assert!(matches!(check_key(&key, "eu-west-1"), Err(KmsError::Setting(_))), "{key:?}");
    }
}

#[test]
fn refusals_are_told_from_what_passes() {
    for code in [
        "DisabledException",
        "com.amazonaws.kms#DisabledException",
        "KMSInvalidStateException",
        "NotFoundException",
        "AccessDeniedException",
        "InvalidCiphertextException",
        "IncorrectKeyException",
        "InvalidKeyUsageException",
        "InvalidGrantTokenException",
        "IncompleteSignature",
        "InvalidSignatureException",
        "UnrecognizedClientException",
        "ExpiredTokenException",
        "SomethingNewException",
    ] {
        assert!(matches!(verdict(400, code), Failure::Final(KmsError::Denied(_))), "{code}");
    }
    for (status, code) in [
        (400, "ThrottlingException"),
        (400, "com.amazonaws.kms#ThrottlingException"),
        (500, "KMSInternalException"),
        (500, "KeyUnavailableException"),
        (503, "DependencyTimeoutException"),
        (429, "SomethingNew"),
        (502, "SomethingNew"),
    ] {
        assert!(matches!(verdict(status, code), Failure::Transient(KmsError::Unreachable(_))), "{code}");
    }
    // A key that is disabled stays so, whatever the status.
    assert_eq!(verdict(500, "DisabledException"), verdict(400, "DisabledException"));
}

#[test]
fn a_wrong_clock_is_told_from_a_wrong_secret() {
    let said = |message: &str| {
        let body = serde_json::json!({ "__type": "InvalidSignatureException", "message": message });
        judge(answer(400, &body.to_string())).unwrap_err()
    };
    let wrong = "The request signature we calculated does not match the signature you provided.";
    assert_eq!(said(wrong), Failure::Final(BAD_SECRET));
    for skewed in [
        "Signature expired: 20261125T120000Z is now earlier than 20261125T121500Z",
        "Signature not yet current: 20261125T123000Z is still later than 20261125T120500Z",
    ] {
        assert_eq!(said(skewed), Failure::Final(BAD_CLOCK), "{skewed}");
    }
}

#[test]
fn errors_in_xml_are_read_too() {
    let body = "<?xml version=\"1.0\"?><ErrorResponse><Errors><Error><Code>SignatureDoesNotMatch</Code>\
                <Message>The request</Message></Error></Errors></ErrorResponse>";
    assert_eq!(judge(answer(403, body)).unwrap_err(), Failure::Final(BAD_SECRET));
}

#[test]
fn answers_of_others_are_no_denial() {
    for (status, body) in [(400, "not HTTP to you"), (403, "<html>"), (404, ""), (301, "{}"), (204, "")] {
        let error = judge(answer(status, body)).unwrap_err();
        assert!(matches!(error, Failure::Final(KmsError::Response(_))), "{status}");
    }
    for body in ["", "{", "[]", "null", "\"key\""] {
        let error = judge(answer(200, body)).unwrap_err();
        assert!(matches!(error, Failure::Final(KmsError::Response(_))), "{body}");
    }
}

#[test]
fn only_whole_keys_and_ciphertexts_are_taken() {
    let json = |name: &str, value: &str| serde_json::json!({ name: value });
    assert!(plaintext(json("Plaintext", &STANDARD.encode([7; 32]))).is_ok());
    for bad in [json("Plaintext", "AAAA"), json("plaintext", "AAAA"), serde_json::json!({ "Plaintext": 7 })] {
        assert!(matches!(plaintext(bad), Err(KmsError::Response(_))));
    }
    assert_eq!(ciphertext(json("CiphertextBlob", "AAEC")), Ok(vec![0, 1, 2]));
    let long = STANDARD.encode(vec![0; WRAPPED_LIMIT + 1]);
    for bad in ["", "A", "AA\"A", "AAAA\n", &long] {
        assert!(matches!(ciphertext(json("CiphertextBlob", bad)), Err(KmsError::Response(_))), "{bad:.9}");
    }
    assert!(stored(&[]).is_err());
    assert!(stored(&[0; WRAPPED_LIMIT + 1]).is_err());
    assert_eq!(stored(&[0, 1, 2]).as_deref(), Ok("AAEC"));
}

#[test]
fn the_context_goes_as_pairs() {
    let body = json_with(&[], &[("C", &texts(&CONTEXT.pairs()))]).unwrap();
    let pairs = r#"{"app":"pgseal","v":"1","keyring":"30313233-3435-3637-3839-616263646566","purpose":"data","version":"1"}"#;
    assert_eq!(std::str::from_utf8(&body), Ok(format!(r#"{{"C":{pairs}}}"#).as_str()));
}
