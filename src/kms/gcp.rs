//! `gcp-kms://projects/P/locations/L/keyRings/R[?endpoint=https://host:port]`: Google Cloud Key Management Service.
//!
//! A root key is made here and encrypted there under the key's primary version, with its context as additional
//! authenticated data. Checksums (CRC32C) go along both ways, as the service asks for. What is stored is its own
//! ciphertext. There is no rewrap, so that decrypts and encrypts.
//!
//! Requests and answers are EncryptRequest, EncryptResponse, DecryptRequest and DecryptResponse of
//! googleapis/googleapis, google/cloud/kms/v1/service.proto, in the JSON of protocol buffers: bytes are base64,
//! an Int64Value is a string.
//!
//! Credentials, the first that is there: a session's own token; the service account that the file of
//! GOOGLE_APPLICATION_CREDENTIALS holds (a signed request for a token, RFC 7523); the metadata server.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::Value;
use zeroize::Zeroizing;

use super::address::{Address, Url};
use super::body::{FORM, JSON, form, json};
use super::error::{FOREIGN, OF_ANOTHER_KMS};
use super::files::read_file;
use super::http::{Answer, Client, Failure, Method, Request, Watch};
use super::oauth::{Bearer, Fresh, ask, check_source, judge_service, number, unix_time};
use super::text::{is_segment, key_from_text, key_text, take};
use super::{Cipher, Environment, KmsError, Settings};
use crate::core::secret::RootKey;

/// Bytes of the longest ciphertext that is taken; 32 bytes take about 110, more under an external key.
const WRAPPED_LIMIT: usize = 4096;
const FILE_LIMIT: usize = 64 * 1024;
/// Characters of the longest name of a key ring or key.
const NAME_LIMIT: usize = 63;
const SERVICE: &str = "https://cloudkms.googleapis.com";
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
const METADATA_HOST: &str = "metadata.google.internal";
const METADATA_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
const SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
const GRANT: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
/// Seconds that a signed request for a token is good for; Google allows no more.
const ASSERTION_SECONDS: u64 = 3600;

const BAD_RING: KmsError =
    KmsError::Endpoint("after gcp-kms:// stands projects/NAME/locations/NAME/keyRings/NAME");
const OVERRIDE: KmsError = KmsError::Endpoint(
    "an address in place of Google's own is http:// or https:// and a host, without a path",
);
const BAD_KEY: KmsError = KmsError::Setting(
    "the name of a key of Google Cloud KMS has 1 to 63 letters, digits, underscores and hyphens",
);
const ACCOUNT: KmsError = KmsError::Local(
    "the file of GOOGLE_APPLICATION_CREDENTIALS cannot be read or does not hold the key of a service account",
);
const TOKEN_URL: KmsError = KmsError::Local("the service account's token_uri is not a URL");
const NO_ACCOUNT: KmsError =
    KmsError::Unreachable("GOOGLE_APPLICATION_CREDENTIALS is not set and no metadata server gives a token");

/// A key ring and how to reach it.
pub struct GcpKms {
    /// `https://host/v1/`
    base: String,
    /// `projects/P/locations/L/keyRings/R`
    ring: String,
    environment: Environment,
    bearer: Bearer,
    client: Client,
}

impl GcpKms {
    /// `rest` is the endpoint after `://`.
    pub fn open(rest: &str, settings: &Settings) -> Result<Self, KmsError> {
        let (ring, server) = match rest.split_once("?endpoint=") {
            Some((ring, given)) => (ring, Url::origin(given, OVERRIDE)?),
            None => (rest, SERVICE.to_owned()),
        };
        check_ring(ring)?;
        Ok(GcpKms {
            base: format!("{server}/v1/"),
            ring: ring.to_owned(),
            environment: settings.environment,
            bearer: Bearer::new(settings.token.clone()),
            client: Client::new(settings)?,
        })
    }

    fn call<T>(
        &self,
        watch: Watch,
        key: &str,
        operation: &str,
        body: &[u8],
        judge: impl Fn(Answer) -> Result<T, Failure>,
    ) -> Result<T, KmsError> {
        let url = format!("{}{}/cryptoKeys/{key}:{operation}", self.base, self.ring);
        self.bearer.with(
            || self.fetch(watch),
            |bearer| {
                let headers = [JSON, ("authorization", bearer)];
                let request = Request { method: Method::POST, url: &url, headers: &headers, body };
                self.client.call(watch, &request, &judge)
            },
        )
    }

    fn fetch(&self, watch: Watch) -> Result<Fresh, KmsError> {
        match self.environment.variable("GOOGLE_APPLICATION_CREDENTIALS") {
            Some(file) => self.log_in(watch, &file),
            None => self.ask_metadata(watch),
        }
    }

    /// The file is read each time, so that a changed one counts and no private key is kept.
    fn log_in(&self, watch: Watch, file: &str) -> Result<Fresh, KmsError> {
        let account = Account::read(file)?;
        let assertion = account.assertion(unix_time())?;
        let body = form(GRANT, &[("assertion", &assertion)]);
        let request = Request {
            method: Method::POST,
            url: &account.token_uri,
            headers: &[FORM],
            body: body.as_bytes(),
        };
        ask(&self.client, watch, &request)
    }

    fn ask_metadata(&self, watch: Watch) -> Result<Fresh, KmsError> {
        let host = self.environment.variable("GCE_METADATA_HOST");
        let host = host.as_ref().map_or(METADATA_HOST, |host| host.as_str());
        Address::parse(host).map_err(|_| KmsError::Setting("GCE_METADATA_HOST is not a host"))?;
        let url = format!("http://{host}{METADATA_PATH}");
        let headers = [("metadata-flavor", "Google")];
        let request = Request { method: Method::GET, url: &url, headers: &headers, body: &[] };
        ask(&self.client, watch, &request).map_err(|error| match error {
            KmsError::Unreachable(_) | KmsError::TimedOut => NO_ACCOUNT,
            error => error,
        })
    }
}

impl Cipher for GcpKms {
    fn begin(&self) -> Watch {
        self.client.begin()
    }

    fn encrypt(&self, watch: Watch, key: &str, data: &[u8], root: &RootKey) -> Result<Vec<u8>, KmsError> {
        check_key(key)?;
        // The checksum goes along because the service asks for one, under TLS as the key itself.
        let body = json(&[
            ("plaintext", &key_text(root)?),
            ("plaintextCrc32c", &checksum(root.expose())),
            ("additionalAuthenticatedData", &STANDARD.encode(data)),
            ("additionalAuthenticatedDataCrc32c", &checksum(data)),
        ])?;
        let version = format!("{}/cryptoKeys/{key}/cryptoKeyVersions/", below_project(&self.ring));
        self.call(watch, key, "encrypt", &body, |answer| encrypted(judge(answer, NO_CIPHER)?, &version))
    }

    fn decrypt(&self, watch: Watch, key: &str, data: &[u8], wrapped: &[u8]) -> Result<RootKey, KmsError> {
        check_key(key)?;
        if !(1..=WRAPPED_LIMIT).contains(&wrapped.len()) {
            return Err(OF_ANOTHER_KMS);
        }
        let body = json(&[
            ("ciphertext", &STANDARD.encode(wrapped)),
            ("ciphertextCrc32c", &checksum(wrapped)),
            ("additionalAuthenticatedData", &STANDARD.encode(data)),
            ("additionalAuthenticatedDataCrc32c", &checksum(data)),
        ])?;
        self.call(watch, key, "decrypt", &body, |answer| decrypted(judge(answer, FOREIGN)?))
    }
}

/// The key of a service account. Wiped when dropped, but for what ring copies while it signs.
struct Account {
    email: String,
    key_id: String,
    token_uri: String,
    /// PKCS #8.
    key: Zeroizing<Vec<u8>>,
}

impl Account {
    fn read(file: &str) -> Result<Self, KmsError> {
        let bytes = read_file(file.as_ref(), FILE_LIMIT, ACCOUNT)?;
        let mut data: Value = serde_json::from_slice(&bytes).map_err(|_| ACCOUNT)?;
        let pem = take(&mut data, "private_key");
        let text = |name: &str| data.get(name).and_then(Value::as_str).map(str::to_owned);
        if text("type").as_deref() != Some("service_account") {
            return Err(ACCOUNT);
        }
        let key = pem.and_then(|pem| pkcs8(&pem)).ok_or(ACCOUNT)?;
        let token_uri = text("token_uri").unwrap_or_else(|| TOKEN_URI.to_owned());
        check_source(&token_uri, TOKEN_URL)?;
        let email = text("client_email").ok_or(ACCOUNT)?;
        Ok(Account { email, key_id: text("private_key_id").unwrap_or_default(), token_uri, key })
    }

    /// The signed request for a token.
    fn assertion(&self, now: u64) -> Result<Zeroizing<String>, KmsError> {
        let head = serde_json::json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id }).to_string();
        let claims = serde_json::json!({
            "iss": self.email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
        });
        let signed = [URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims.to_string())].join(".");
        let pair = RsaKeyPair::from_pkcs8(&self.key).map_err(|_| ACCOUNT)?;
        let mut signature = Zeroizing::new(vec![0; pair.public().modulus_len()]);
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| KmsError::Local("the request for a token could not be signed"))?;
        // With room for all, so that growing leaves no copy behind.
        let mut assertion = Zeroizing::new(String::with_capacity(signed.len() + 2 * signature.len()));
        assertion.push_str(&signed);
        assertion.push('.');
        URL_SAFE_NO_PAD.encode_string(&*signature, &mut assertion);
        Ok(assertion)
    }
}

/// The bytes of a private key in PEM (RFC 7468). By hand: what `ureq::tls::PrivateKey::from_pem` keeps is not wiped.
fn pkcs8(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let inside = pem.trim().strip_prefix("-----BEGIN PRIVATE KEY-----")?;
    let inside = inside.strip_suffix("-----END PRIVATE KEY-----")?;
    let mut text = Zeroizing::new(String::with_capacity(inside.len()));
    text.extend(inside.chars().filter(|character| !character.is_ascii_whitespace()));
    let mut bytes = Zeroizing::new(vec![0; text.len()]);
    let length = STANDARD.decode_slice(text.as_bytes(), &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

const NO_CIPHER: KmsError = KmsError::Denied("the KMS key is not for symmetric encryption");
/// Worth another attempt, as the service's definition asks for.
const GARBLED: Failure = Failure::Transient(KmsError::Response(
    "its checksums do not match; something alters requests or answers",
));

/// What the service calls its refusals for good (google.rpc.Code), and what they mean.
const REFUSALS: [(&str, KmsError); 3] = [
    ("FAILED_PRECONDITION", KmsError::Denied("the version of the KMS key is disabled or destroyed")),
    (
        "PERMISSION_DENIED",
        KmsError::Denied("this server's identity may not use the key, or the API is off for the project"),
    ),
    ("NOT_FOUND", KmsError::Denied("there is no such key, key ring or project")),
];

/// A good answer as JSON, or what its status means; `argument` is what INVALID_ARGUMENT means.
fn judge(answer: Answer, argument: KmsError) -> Result<Value, Failure> {
    judge_service(answer, &[499], NOT_JSON, |data| refusal(data, argument))
}

const NOT_JSON: KmsError = KmsError::Response("it does not come from the Cloud KMS API");

/// By `status` of a google.rpc.Status.
fn refusal(data: &Value, argument: KmsError) -> KmsError {
    let Some(status) = data.pointer("/error/status").and_then(Value::as_str) else { return NOT_JSON };
    if status == "INVALID_ARGUMENT" {
        return argument;
    }
    let known = REFUSALS.iter().find(|(name, _)| *name == status).map(|(_, error)| error.clone());
    known.unwrap_or(KmsError::Denied("it refused the request for another reason; its audit log tells"))
}

/// Checks what came back for a plaintext that has only been sent.
fn encrypted(mut data: Value, version: &str) -> Result<Vec<u8>, Failure> {
    let is_true = |name: &str| data.get(name).and_then(Value::as_bool) == Some(true);
    if !is_true("verifiedPlaintextCrc32c") || !is_true("verifiedAdditionalAuthenticatedDataCrc32c") {
        return Err(GARBLED);
    }
    let name = data.get("name").and_then(Value::as_str).map(below_project);
    if !name.is_some_and(|name| name.starts_with(version)) {
        return Err(Failure::Final(KmsError::Response("it was encrypted under another key than asked for")));
    }
    let bytes = take(&mut data, "ciphertext").and_then(|text| STANDARD.decode(text.as_bytes()).ok());
    let bytes = bytes.filter(|bytes| (1..=WRAPPED_LIMIT).contains(&bytes.len()));
    let bytes = bytes.ok_or(KmsError::Response("its ciphertext is not 1 to 4096 bytes of base64"));
    let bytes = bytes.map_err(Failure::Final)?;
    if number(&mut data, "ciphertextCrc32c") != Some(crc32c::crc32c(&bytes).into()) {
        return Err(GARBLED);
    }
    Ok(bytes)
}

fn decrypted(mut data: Value) -> Result<RootKey, Failure> {
    let text = take(&mut data, "plaintext");
    let claimed = number(&mut data, "plaintextCrc32c");
    let root = text.and_then(|text| key_from_text(&text));
    let root = root.ok_or(Failure::Final(KmsError::Response("its plaintext is not 32 bytes")))?;
    // The service asks that its answer be checked.
    if claimed != Some(crc32c::crc32c(root.expose()).into()) {
        return Err(GARBLED);
    }
    Ok(root)
}

/// As an Int64Value stands in JSON. Wiped, because that of a key says something about it.
fn checksum(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(crc32c::crc32c(bytes).to_string())
}

/// A name without its project, which has an id and a number, and either may come back.
fn below_project(name: &str) -> &str {
    name.find("/locations/").map_or("", |at| &name[at..])
}

fn check_ring(ring: &str) -> Result<(), KmsError> {
    let parts: Vec<&str> = ring.split('/').collect();
    let &["projects", project, "locations", location, "keyRings", name] = parts.as_slice() else {
        return Err(BAD_RING);
    };
    // An old project has its domain before its name.
    let (domain, project) = project.split_once(':').unwrap_or(("d", project));
    let named = [domain, project, location].into_iter().all(is_segment);
    if named && is_name(name) { Ok(()) } else { Err(BAD_RING) }
}

fn check_key(key: &str) -> Result<(), KmsError> {
    if is_name(key) { Ok(()) } else { Err(BAD_KEY) }
}

/// As CreateKeyRingRequest and CreateCryptoKeyRequest allow.
fn is_name(text: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=NAME_LIMIT).contains(&text.len()) && text.bytes().all(safe)
}

#[cfg(test)]
#[path = "gcp_tests.rs"]
mod tests;
