//! The AWS KMS client against moto, a stand-in for AWS that checks signatures and policies with AWS's own library and
//! encrypts for real; PGSEAL_MOTO names its program. What moto lacks comes from small HTTP servers in this process:
//! instance metadata, a container's agent, errors on demand. Not run against AWS itself.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/guard.rs"]
mod guard;
#[path = "support/port.rs"]
mod port;
#[path = "support/stub.rs"]
mod stub;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::TcpListener;
use std::process::Command;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guard::Guard;
use pgseal::core::rng;
use pgseal::keys::context::{Purpose, WrapContext};
use pgseal::kms::{Class, Environment, Kms, KmsError, Settings, open};
use serde_json::{Value, json};
use stub::{Call, Stub};
use tempfile::NamedTempFile;
use time::OffsetDateTime;

const CONTEXT: WrapContext =
    WrapContext { keyring: *b"0123456789abcdef", purpose: Purpose::Data, version: 1 };
const OTHER: WrapContext = WrapContext { purpose: Purpose::Index, ..CONTEXT };
const KEY: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

thread_local! {
    static VARIABLES: RefCell<HashMap<String, String>> = RefCell::default();
}

fn variable(name: &str) -> Option<String> {
    VARIABLES.with_borrow(|all| all.get(name).cloned())
}

/// The environment of this test from here on: these variables alone.
fn environment(variables: &[(&str, &str)]) {
    VARIABLES.set(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
}

fn kms_at(url: &str, milliseconds: u64) -> Rc<dyn Kms> {
    let settings = Settings {
        environment: Environment::new(variable),
        ..Settings::new(Duration::from_millis(milliseconds), || false)
    };
    open(&format!("aws-kms://eu-west-1?endpoint={url}"), &settings).unwrap()
}

fn is_denied<T>(result: Result<T, KmsError>) -> bool {
    result.is_err_and(|error| error.class() == Class::Denied)
}

/// A file that goes when dropped.
struct File(NamedTempFile);

impl File {
    fn new(text: &str) -> Self {
        let file = File(NamedTempFile::new().unwrap());
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}

/// A moto of its own, which checks every signature but an administrator's.
struct Moto {
    port: u16,
    _guard: Guard,
}

/// What the client's user or role may do with every key.
const ALL_OF_IT: &str = r#"["kms:Encrypt","kms:Decrypt","kms:ReEncrypt"]"#;

impl Moto {
    fn start() -> Self {
        let program =
            std::env::var("PGSEAL_MOTO").expect("set PGSEAL_MOTO to moto_server (pip: moto[server])");
        let port = port::free_port();
        let script = r#""$1" -H 127.0.0.1 -p "$2" & cat; kill -9 $!; wait"#;
        let moto =
            Moto { port, _guard: Guard::new(Command::new("sh"), script, &[program, port.to_string()]) };
        let end = Instant::now() + Duration::from_secs(60);
        while agent().get(format!("{}/moto-api/data.json", moto.url())).call().is_err() {
            assert!(Instant::now() < end, "moto did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        moto.check_after("0");
        moto
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sets INITIAL_NO_AUTH_ACTION_COUNT: after so many requests moto checks signatures.
    fn check_after(&self, count: &str) {
        agent().post(format!("{}/moto-api/reset-auth", self.url())).send(count).unwrap();
    }

    fn send(&self, service: &str, kind: &str, target: &str, body: &str) -> String {
        self.check_after("1");
        let scope = format!("Credential=admin/20260101/eu-west-1/{service}/aws4_request");
        let request = agent()
            .post(self.url())
            .header("authorization", format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"))
            .header("content-type", kind)
            .header("x-amz-target", target);
        let text = request.send(body).unwrap().body_mut().read_to_string().unwrap();
        self.check_after("0");
        text
    }

    /// As an administrator.
    fn kms_admin(&self, operation: &str, body: &Value) -> Value {
        let target = format!("TrentService.{operation}");
        let text = self.send("kms", "application/x-amz-json-1.1", &target, &body.to_string());
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// As an administrator; `fields` need no escaping but for the policies in them.
    fn iam_admin(&self, action: &str, fields: &[(&str, &str)]) -> String {
        let mut body = format!("Action={action}&Version=2010-05-08");
        for (name, value) in fields {
            let escaped: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            body.push_str(&format!("&{name}={escaped}"));
        }
        self.send("iam", "application/x-www-form-urlencoded", "", &body)
    }

    fn create_key(&self) -> String {
        let made = self.kms_admin("CreateKey", &json!({}));
        made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
    }

    /// A user who may do `actions`, and the access key.
    fn create_user(&self, name: &str, actions: &str) -> (String, String) {
        self.iam_admin("CreateUser", &[("UserName", name)]);
        let policy = allow(actions);
        self.iam_admin(
            "PutUserPolicy",
            &[("UserName", name), ("PolicyName", "p"), ("PolicyDocument", &policy)],
        );
        let made = self.iam_admin("CreateAccessKey", &[("UserName", name)]);
        (element(&made, "AccessKeyId"), element(&made, "SecretAccessKey"))
    }

    fn kms(&self, (id, secret): &(String, String)) -> Rc<dyn Kms> {
        environment(&[("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret)]);
        kms_at(&self.url(), 20_000)
    }
}

fn allow(actions: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":{actions},"Resource":"*"}}]}}"#
    )
}

fn element(text: &str, name: &str) -> String {
    let (_, rest) = text.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("{name} in {text}"));
    rest.split('<').next().unwrap().to_owned()
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().proxy(None).build().new_agent()
}

#[test]
fn keys_go_and_come_back_bound_to_key_and_context() {
    let moto = Moto::start();
    let (main, other) = (moto.create_key(), moto.create_key());
    let arn = |resource: &str| format!("arn:aws:kms:eu-west-1:123456789012:{resource}");
    moto.kms_admin("CreateAlias", &json!({ "AliasName": "alias/team/pgseal", "TargetKeyId": main }));
    let kms = moto.kms(&moto.create_user("app", ALL_OF_IT));
    let root = rng::root_key().unwrap();

    let names =
        [main.clone(), arn(&format!("key/{main}")), "alias/team/pgseal".into(), arn("alias/team/pgseal")];
    for name in &names {
        kms.ensure_key(name).unwrap();
        let wrapped = kms.wrap(name, &CONTEXT, &root).unwrap();
        for reader in &names {
            assert_eq!(
                kms.unwrap(reader, &CONTEXT, &wrapped).unwrap().expose(),
                root.expose(),
                "{name} {reader}"
            );
        }
    }

    let wrapped = kms.wrap(&main, &CONTEXT, &root).unwrap();
    assert!(is_denied(kms.unwrap(&main, &OTHER, &wrapped)));
    assert!(is_denied(kms.rewrap(&main, &OTHER, &wrapped)));
    assert!(is_denied(kms.unwrap(&other, &CONTEXT, &wrapped)));
    let mut flipped = wrapped.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(is_denied(kms.unwrap(&main, &CONTEXT, &flipped)));

    moto.kms_admin("RotateKeyOnDemand", &json!({ "KeyId": main }));
    let anew = kms.rewrap(&main, &CONTEXT, &wrapped).unwrap();
    assert_ne!(anew, wrapped);
    for wrapped in [&wrapped, &anew] {
        assert_eq!(kms.unwrap(&main, &CONTEXT, wrapped).unwrap().expose(), root.expose());
    }

    moto.kms_admin("UpdateAlias", &json!({ "AliasName": "alias/team/pgseal", "TargetKeyId": other }));
    assert!(
        is_denied(kms.unwrap("alias/team/pgseal", &CONTEXT, &wrapped)),
        "its alias names another key now"
    );
}

#[test]
fn what_aws_denies_is_denied() {
    let moto = Moto::start();
    let key = moto.create_key();
    let user = moto.create_user("app", ALL_OF_IT);
    let root = rng::root_key().unwrap();
    let wrapped = moto.kms(&user).wrap(&key, &CONTEXT, &root).unwrap();

    let wrong_secret = (user.0.clone(), format!("{}x", &user.1[..39]));
    let error = moto.kms(&wrong_secret).unwrap(&key, &CONTEXT, &wrapped).err().unwrap();
    assert!(error.to_string().contains("secret access key"), "{error}");
    let unknown = ("AKIAXXXXXXXXXXXXXXXX".into(), user.1.clone());
    let error = moto.kms(&unknown).unwrap(&key, &CONTEXT, &wrapped).err().unwrap();
    assert!(error.to_string().contains("does not know the access key"), "{error}");

    let kms = moto.kms(&user);
    let error = kms.ensure_key(KEY).err().unwrap();
    assert_eq!(error, KmsError::Denied("there is no such key"));
    assert_eq!(kms.unwrap("alias/missing", &CONTEXT, &wrapped).err(), Some(error));

    let writer = moto.kms(&moto.create_user("writer", r#"["kms:Encrypt"]"#));
    writer.ensure_key(&key).unwrap();
    writer.wrap(&key, &CONTEXT, &root).unwrap();
    let error = writer.unwrap(&key, &CONTEXT, &wrapped).err().unwrap();
    assert!(error.to_string().contains("do not allow"), "{error}");
    assert!(is_denied(writer.rewrap(&key, &CONTEXT, &wrapped)));
}

#[test]
fn a_role_assumed_with_a_web_identity_signs_what_follows() {
    let moto = Moto::start();
    let key = moto.create_key();
    let role = [("RoleName", "pgseal"), ("AssumeRolePolicyDocument", "{}")];
    let arn = element(&moto.iam_admin("CreateRole", &role), "Arn");
    let policy = allow(ALL_OF_IT);
    moto.iam_admin(
        "PutRolePolicy",
        &[("RoleName", "pgseal"), ("PolicyName", "p"), ("PolicyDocument", &policy)],
    );
    let token = File::new("header.payload.signature\n");
    environment(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.path()),
        ("AWS_ROLE_ARN", &arn),
        ("AWS_ENDPOINT_URL", &moto.url()),
    ]);
    let settings = Settings {
        environment: Environment::new(variable),
        ..Settings::new(Duration::from_secs(20), || false)
    };
    let kms = open("aws-kms://eu-west-1", &settings).unwrap();
    let root = rng::root_key().unwrap();

    // The log-in, which nobody signs, passes unchecked; after it moto checks.
    moto.check_after("1");
    let wrapped = kms.wrap(&key, &CONTEXT, &root).unwrap();
    // Another log-in would fail now.
    assert_eq!(kms.unwrap(&key, &CONTEXT, &wrapped).unwrap().expose(), root.expose());
}

/// A KMS that answers as in AWS's reference, with the key 7777... and the ciphertext 0, 1, 2.
fn kms_answer() -> String {
    json!({ "CiphertextBlob": "AAEC", "Plaintext": STANDARD.encode([7; 32]), "KeyId": KEY }).to_string()
}

fn aws_error(code: &str) -> String {
    json!({ "__type": code, "message": "in words" }).to_string()
}

/// The access key that signed `call`.
fn signer(call: &Call) -> String {
    let (_, rest) = call.header("authorization").split_once("Credential=").unwrap();
    rest.split('/').next().unwrap().to_owned()
}

fn with_static_keys() {
    environment(&[("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "secret")]);
}

/// Credentials as a container's agent and the metadata service write them.
fn credentials(id: &str, minutes_left: i64) -> String {
    let expires = OffsetDateTime::now_utc() + time::Duration::minutes(minutes_left);
    let (date, (hour, minute, second)) = (expires.date(), expires.time().as_hms());
    let month = u8::from(date.month());
    let expires = format!("{}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", date.year(), date.day());
    json!({ "Code": "Success", "AccessKeyId": id, "SecretAccessKey": "secret", "Token": "session", "Expiration": expires })
        .to_string()
}

#[test]
fn every_request_names_the_key_and_binds_the_context() {
    let stub = Stub::new(|_| (200, kms_answer()));
    with_static_keys();
    let kms = kms_at(&stub.url(), 60_000);
    let context = json!({
        "app": "pgseal",
        "v": "1",
        "keyring": "30313233-3435-3637-3839-616263646566",
        "purpose": "data",
        "version": "1",
    });
    let mut root = pgseal::core::secret::RootKey::zeroed();
    root.expose_mut().fill(7);
    assert_eq!(kms.wrap(KEY, &CONTEXT, &root), Ok(vec![0, 1, 2]));
    assert_eq!(kms.unwrap(KEY, &CONTEXT, &[0, 1, 2]).unwrap().expose(), root.expose());
    assert_eq!(kms.rewrap(KEY, &CONTEXT, &[3]), Ok(vec![0, 1, 2]));
    kms.ensure_key(KEY).unwrap();

    let expected = [
        (
            "Encrypt",
            json!({ "KeyId": KEY, "EncryptionContext": context, "Plaintext": STANDARD.encode([7; 32]) }),
        ),
        ("Decrypt", json!({ "KeyId": KEY, "EncryptionContext": context, "CiphertextBlob": "AAEC" })),
        (
            "ReEncrypt",
            json!({
                "SourceKeyId": KEY,
                "SourceEncryptionContext": context,
                "DestinationKeyId": KEY,
                "DestinationEncryptionContext": context,
                "CiphertextBlob": "Aw==",
            }),
        ),
        (
            "Encrypt",
            json!({
                "KeyId": KEY,
                "EncryptionContext": { "app": "pgseal", "v": "1" },
                "Plaintext": STANDARD.encode([0; 32]),
            }),
        ),
    ];
    let calls = stub.take();
    assert_eq!(calls.len(), expected.len());
    for (call, (operation, body)) in calls.iter().zip(expected) {
        assert_eq!(call.line, "POST /");
        assert_eq!(call.header("x-amz-target"), format!("TrentService.{operation}"));
        assert_eq!(call.header("content-type"), "application/x-amz-json-1.1");
        assert_eq!(call.header("host"), format!("127.0.0.1:{}", stub.port));
        assert_eq!(call.header("x-amz-security-token"), "");
        assert_eq!(serde_json::from_str::<Value>(&call.body).unwrap(), body);
    }
}

// moto decrypts with a disabled key and with one whose deletion is pending, so these come from a stand-in.
#[test]
fn a_disabled_key_is_denied_and_a_busy_service_asked_again() {
    let cases = [
        (400, "DisabledException", 1),
        (400, "KMSInvalidStateException", 1),
        (400, "NotFoundException", 1),
        (400, "AccessDeniedException", 1),
        (400, "com.amazonaws.kms#IncorrectKeyException", 1),
        (400, "InvalidKeyUsageException", 1),
        (400, "ExpiredTokenException", 1),
        (400, "ThrottlingException", 3),
        (500, "KMSInternalException", 3),
        (500, "KeyUnavailableException", 3),
        (503, "DependencyTimeoutException", 3),
    ];
    with_static_keys();
    for (status, code, attempts) in cases {
        let stub = Stub::new(move |_| (status, aws_error(code)));
        let kms = kms_at(&stub.url(), 60_000);
        let error = kms.unwrap(KEY, &CONTEXT, &[0]).err().unwrap();
        let class = if attempts == 1 { Class::Denied } else { Class::Unavailable };
        assert_eq!(error.class(), class, "{code}: {error}");
        assert!(!error.to_string().contains("in words"), "{error}");
        assert_eq!(stub.take().len(), attempts, "{code}");
        assert_eq!(kms.ensure_key(KEY).err().unwrap(), error, "the check says what use will say");
    }
}

#[test]
fn garbage_is_refused() {
    with_static_keys();
    for body in ["", "{", "null", "{}", r#"{"Plaintext":"AAAA"}"#, r#"{"Plaintext":{}}"#, "<html>"] {
        let stub = Stub::new(move |_| (200, body.to_owned()));
        let error = kms_at(&stub.url(), 60_000).unwrap(KEY, &CONTEXT, &[0]).err().unwrap();
        assert!(matches!(error, KmsError::Response(_)), "{body}: {error}");
    }
    let stub = Stub::new(|_| (200, kms_answer()));
    let error = kms_at(&stub.url(), 60_000).unwrap(KEY, &CONTEXT, &[]).err().unwrap();
    assert!(error.is_foreign(), "{error}");
    assert!(stub.take().is_empty(), "an empty ciphertext was sent");
}

/// A metadata service with the role `pgseal`, as IMDSv2: without a token of its own it tells nothing.
fn metadata(call: &Call, minutes_left: i64) -> (u16, String) {
    let roles = "/latest/meta-data/iam/security-credentials/";
    let known = call.header("x-aws-ec2-metadata-token") == "imds-token";
    match call.line.split_once(' ') {
        Some(("PUT", "/latest/api/token"))
            if call.header("x-aws-ec2-metadata-token-ttl-seconds") == "21600" =>
        {
            (200, "imds-token".into())
        }
        Some(("GET", path)) if known && path == roles => (200, "pgseal\n".into()),
        Some(("GET", path)) if known && path.strip_prefix(roles) == Some("pgseal") => {
            (200, credentials("ASIAIMDS", minutes_left))
        }
        _ => (401, String::new()),
    }
}

#[test]
fn instance_metadata_is_asked_once_while_its_credentials_last() {
    let imds = Stub::new(|call| metadata(call, 6 * 60));
    let kms = Stub::new(|_| (200, kms_answer()));
    environment(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &format!("{}/", imds.url()))]);
    let client = kms_at(&kms.url(), 60_000);
    for _ in 0..3 {
        client.unwrap(KEY, &CONTEXT, &[0]).unwrap();
    }
    let lines: Vec<_> = imds.take().into_iter().map(|call| call.line).collect();
    let roles = "GET /latest/meta-data/iam/security-credentials/";
    assert_eq!(lines, ["PUT /latest/api/token".to_owned(), roles.into(), format!("{roles}pgseal")]);
    let calls = kms.take();
    assert_eq!(calls.len(), 3);
    for call in calls {
        assert_eq!(signer(&call), "ASIAIMDS");
        assert_eq!(call.header("x-amz-security-token"), "session");
        let signed = "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target,";
        assert!(call.header("authorization").contains(signed), "{call:?}");
    }
}

#[test]
fn credentials_are_fetched_anew_five_minutes_before_they_expire() {
    for (minutes_left, fetches) in [(4, 3), (6, 1)] {
        let imds = Stub::new(move |call| metadata(call, minutes_left));
        let kms = Stub::new(|_| (200, kms_answer()));
        environment(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &imds.url())]);
        let client = kms_at(&kms.url(), 60_000);
        for _ in 0..3 {
            client.unwrap(KEY, &CONTEXT, &[0]).unwrap();
        }
        assert_eq!(imds.take().len(), 3 * fetches, "{minutes_left} minutes");
    }
}

#[test]
fn kept_credentials_that_are_refused_are_replaced_once() {
    for code in ["ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId"] {
        let agent = Stub::new(|_| (200, credentials("ASIA", 60)));
        let fail = std::sync::Arc::new(Mutex::new(0));
        let left = fail.clone();
        let kms = Stub::new(move |_| {
            let mut left = left.lock().unwrap();
            let refuse = *left > 0;
            *left -= i32::from(refuse);
            if refuse { (400, aws_error(code)) } else { (200, kms_answer()) }
        });
        environment(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &agent.url())]);
        let client = kms_at(&kms.url(), 60_000);
        client.unwrap(KEY, &CONTEXT, &[0]).unwrap();
        assert_eq!(agent.take().len(), 1);

        *fail.lock().unwrap() = 1;
        client.unwrap(KEY, &CONTEXT, &[0]).unwrap();
        assert_eq!((agent.take().len(), kms.take().len()), (1, 3), "{code}");

        *fail.lock().unwrap() = i32::MAX;
        assert!(is_denied(client.unwrap(KEY, &CONTEXT, &[0])));
        assert_eq!((agent.take().len(), kms.take().len()), (1, 2), "{code}");
    }
}

#[test]
fn a_container_s_agent_is_shown_the_token_of_its_file() {
    let agent = Stub::new(|call| match call.header("authorization") {
        "from-file" | "from-variable" | "changed" => (200, credentials("ASIA", 4)),
        _ => (401, String::new()),
    });
    let kms = Stub::new(|_| (200, kms_answer()));
    let file = File::new("from-file\n");
    let url = format!("{}/v1/credentials?id=7", agent.url());
    environment(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "from-variable"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.path()),
    ]);
    let client = kms_at(&kms.url(), 60_000);
    client.unwrap(KEY, &CONTEXT, &[0]).unwrap();
    std::fs::write(file.path(), "changed").unwrap();
    client.unwrap(KEY, &CONTEXT, &[0]).unwrap();
    environment(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "from-variable"),
    ]);
    client.unwrap(KEY, &CONTEXT, &[0]).unwrap();
    environment(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)]);
    assert!(is_denied(client.unwrap(KEY, &CONTEXT, &[0])), "the agent wants a token");

    let calls = agent.take();
    let tokens: Vec<_> = calls.iter().map(|call| call.header("authorization")).collect();
    assert_eq!(tokens, ["from-file", "changed", "from-variable", ""]);
    assert!(calls.iter().all(|call| call.line == "GET /v1/credentials?id=7"));

    environment(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://10.0.0.1/credentials")]);
    let error = client.unwrap(KEY, &CONTEXT, &[0]).err().unwrap();
    assert!(matches!(error, KmsError::Endpoint(_)), "{error}");
}

#[test]
fn a_web_identity_goes_to_sts_unsigned() {
    let sts = Stub::new(|_| {
        let expires = serde_json::from_str::<Value>(&credentials("", 60)).unwrap()["Expiration"].to_string();
        let expires = expires.trim_matches('"');
        let body = format!(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
             <AccessKeyId>ASIAWEB</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
             <SessionToken>session</SessionToken><Expiration>{expires}</Expiration></Credentials>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        );
        (200, body)
    });
    let kms = Stub::new(|_| (200, kms_answer()));
    let token = File::new("header.payload.signature");
    environment(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.path()),
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/pgseal"),
        ("AWS_ENDPOINT_URL_STS", &sts.url()),
    ]);
    let client = kms_at(&kms.url(), 60_000);
    client.unwrap(KEY, &CONTEXT, &[0]).unwrap();
    client.unwrap(KEY, &CONTEXT, &[0]).unwrap();
    let calls = sts.take();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].header("authorization"), "");
    assert_eq!(
        calls[0].body,
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15\
         &RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fpgseal&RoleSessionName=pgseal\
         &WebIdentityToken=header.payload.signature"
    );
    assert!(kms.take().iter().all(|call| signer(call) == "ASIAWEB"));

    environment(&[("AWS_WEB_IDENTITY_TOKEN_FILE", token.path())]);
    let error = kms_at(&kms.url(), 60_000).unwrap(KEY, &CONTEXT, &[0]).err().unwrap();
    assert!(matches!(error, KmsError::Setting(_)), "{error}");
}

#[test]
fn the_first_source_that_is_configured_is_the_one() {
    let sts = Stub::new(|_| (403, "<Error><Code>AccessDenied</Code></Error>".into()));
    let agent = Stub::new(|_| (200, credentials("ASIACONTAINER", 60)));
    let imds = Stub::new(|call| metadata(call, 60));
    let kms = Stub::new(|_| (200, kms_answer()));
    let (token, file) =
        (File::new("t"), File::new("[default]\naws_access_key_id=AKIAFILE\naws_secret_access_key=s"));
    let (sts_url, agent_url, imds_url) = (sts.url(), agent.url(), imds.url());
    let places = [
        &[("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "s")][..],
        &[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.path()),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x"),
            ("AWS_ENDPOINT_URL_STS", sts_url.as_str()),
        ],
        &[("AWS_SHARED_CREDENTIALS_FILE", file.path())],
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent_url.as_str())],
        &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds_url.as_str())],
    ];
    let signer_from = |first: usize| {
        environment(&places[first..].concat());
        kms_at(&kms.url(), 60_000).unwrap(KEY, &CONTEXT, &[0]).map(|_| signer(&kms.take()[0]))
    };
    assert_eq!(signer_from(0).unwrap(), "AKIAENV");
    // A web identity that is refused is not passed over.
    assert!(is_denied(signer_from(1)));
    assert_eq!(signer_from(2).unwrap(), "AKIAFILE");
    assert_eq!(signer_from(3).unwrap(), "ASIACONTAINER");
    assert_eq!(signer_from(4).unwrap(), "ASIAIMDS");
}

#[test]
fn a_changed_credentials_file_counts_at_once() {
    let kms = Stub::new(|_| (200, kms_answer()));
    let text = |id: &str| format!("[default]\naws_access_key_id={id}\naws_secret_access_key=s\n");
    let file = File::new(&text("AKIAOLD"));
    environment(&[("AWS_SHARED_CREDENTIALS_FILE", file.path())]);
    let client = kms_at(&kms.url(), 60_000);
    client.unwrap(KEY, &CONTEXT, &[0]).unwrap();
    std::fs::write(file.path(), text("AKIANEW")).unwrap();
    client.unwrap(KEY, &CONTEXT, &[0]).unwrap();
    let signers: Vec<_> = kms.take().iter().map(signer).collect();
    assert_eq!(signers, ["AKIAOLD", "AKIANEW"]);
}

#[test]
fn missing_credentials_are_said_to_be_missing_and_soon() {
    let kms = Stub::new(|_| (200, kms_answer()));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let closed = "http://127.0.0.1:1".to_owned();
    for (name, value) in [
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", closed),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", silent),
    ] {
        environment(&[(name, &value)]);
        let start = Instant::now();
        let error = kms_at(&kms.url(), 60_000).unwrap(KEY, &CONTEXT, &[0]).err().unwrap();
        assert!(error.to_string().contains("no AWS credentials"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20), "{value}: {:?}", start.elapsed());
    }
    assert!(kms.take().is_empty());
}

#[test]
fn a_broken_source_is_not_called_a_denial() {
    let kms = Stub::new(|_| (200, kms_answer()));
    let failing = Stub::new(|_| (500, String::new()));
    for url in [failing.url(), "http://127.0.0.1:1".to_owned()] {
        environment(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)]);
        let error = kms_at(&kms.url(), 60_000).unwrap(KEY, &CONTEXT, &[0]).err().unwrap();
        assert!(matches!(error, KmsError::Unreachable(text) if text.contains("credentials")), "{error}");
    }
    assert_eq!(failing.take().len(), 3);
}

#[test]
fn one_time_holds_for_credentials_and_call() {
    let slow = Stub::new(|_| {
        std::thread::sleep(Duration::from_millis(700));
        (200, credentials("ASIA", 60))
    });
    let kms = Stub::new(|_| {
        std::thread::sleep(Duration::from_secs(30));
        (200, kms_answer())
    });
    environment(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &slow.url())]);
    let start = Instant::now();
    let error = kms_at(&kms.url(), 1000).unwrap(KEY, &CONTEXT, &[0]).err().unwrap();
    assert_eq!(error, KmsError::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}
