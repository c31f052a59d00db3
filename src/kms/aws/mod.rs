//! `aws-kms://region[?endpoint=https://host:port]`: AWS Key Management Service.
//!
//! A root key is made here and encrypted there; the pairs of its context are the encryption context, which
//! CloudTrail keeps. What is stored is the service's own ciphertext. Every request names the KMS key, so that a
//! ciphertext made under another one, even one this server may use, is refused. An alias that is moved to another
//! key therefore takes the stored keys out of reach until it is moved back; a key that is rotated in place does not.

mod credentials;
mod sigv4;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use time::OffsetDateTime;

use self::credentials::{Chain, Credentials};
use self::sigv4::{Scope, authorization, stamp};
use super::address::Url;
use super::body::{Pairs, json_with};
use super::error::{FOREIGN, OF_ANOTHER_KMS};
use super::http::{Answer, Client, FAILING, Failure, LATER, Method, Request, Watch, passing};
use super::text::{is_segment, key_from_text, key_text, take};
use super::{Environment, Kms, KmsError, Settings};
use crate::core::secret::RootKey;
use crate::keys::context::WrapContext;

/// Bytes of the longest ciphertext that the service makes.
const WRAPPED_LIMIT: usize = 6144;
const JSON: (&str, &str) = ("content-type", "application/x-amz-json-1.1");

const OVERRIDE: KmsError =
    KmsError::Endpoint("an address in place of AWS's own is http:// or https:// and a host, without a path");
const REGION: KmsError = KmsError::Endpoint("after aws-kms:// stands a region, such as eu-central-1");
const BAD_KEY: KmsError = KmsError::Setting(
    "an AWS KMS key is a key id, alias/NAME or the ARN of either, of letters, digits, hyphens, underscores and slashes",
);

/// The service in one region.
pub struct AwsKms {
    region: String,
    service: Service,
    chain: Chain,
    client: Client,
}

impl AwsKms {
    /// `rest` is the endpoint after `://`.
    pub fn open(rest: &str, settings: &Settings) -> Result<Self, KmsError> {
        let (region, given) = match rest.split_once("?endpoint=") {
            Some((region, given)) => (region, Some(given)),
            None => (rest, None),
        };
        if !is_region(region) {
            return Err(REGION);
        }
        if settings.token.is_some() {
            return Err(KmsError::Setting("a session's own KMS token cannot be used with AWS KMS"));
        }
        Ok(AwsKms {
            region: region.to_owned(),
            service: Service::locate("kms", region, given, settings.environment)?,
            chain: Chain::new(settings.environment, region),
            client: Client::new(settings)?,
        })
    }

    /// One operation; kept credentials that are refused as old or unknown are replaced once.
    fn call(&self, watch: Watch, operation: &str, body: &[u8]) -> Result<Value, KmsError> {
        let Some(held) = self.chain.held() else {
            let credentials = self.chain.fetch(&self.client, watch)?;
            return self.post(watch, &credentials, operation, body);
        };
        let outcome = self.post(watch, &held, operation, body);
        if !matches!(outcome, Err(EXPIRED | UNKNOWN)) {
            return outcome;
        }
        let credentials = self.chain.fetch(&self.client, watch)?;
        self.post(watch, &credentials, operation, body)
    }

    fn post(
        &self,
        watch: Watch,
        credentials: &Credentials,
        operation: &str,
        body: &[u8],
    ) -> Result<Value, KmsError> {
        let target = format!("TrentService.{operation}");
        let time = stamp(OffsetDateTime::now_utc());
        let mut headers =
            vec![JSON, ("host", &self.service.host), ("x-amz-date", &time), ("x-amz-target", &target)];
        headers.extend(credentials.session.iter().map(|token| ("x-amz-security-token", token.as_str())));
        let scope = Scope { region: &self.region, service: "kms", time: &time };
        let signature = authorization(credentials, &scope, "POST", &headers, body)?;
        headers.push(("authorization", &signature));
        let request = Request { method: Method::POST, url: &self.service.url, headers: &headers, body };
        self.client.call(watch, &request, judge)
    }

    fn encrypt(&self, key: &str, context: Pairs, plaintext: &str) -> Result<Vec<u8>, KmsError> {
        check_key(key, &self.region)?;
        let body = json_with(&[("KeyId", key), ("Plaintext", plaintext)], &[("EncryptionContext", context)])?;
        ciphertext(self.call(self.client.begin(), "Encrypt", &body)?)
    }
}

impl Kms for AwsKms {
    /// Encrypts nothing of value: of all calls that tell whether the key is there, enabled and of the right kind, this
    /// is the one that needs no right that [`Kms::wrap`] does not need. A policy may ask for `app` in the context.
    fn ensure_key(&self, key: &str) -> Result<(), KmsError> {
        self.encrypt(key, &[("app", "pgseal"), ("v", "1")], &STANDARD.encode([0; 32])).map(|_| ())
    }

    fn wrap(&self, key: &str, context: &WrapContext, root: &RootKey) -> Result<Vec<u8>, KmsError> {
        self.encrypt(key, &texts(&context.pairs()), &key_text(root)?)
    }

    fn unwrap(&self, key: &str, context: &WrapContext, wrapped: &[u8]) -> Result<RootKey, KmsError> {
        check_key(key, &self.region)?;
        let blob = stored(wrapped)?;
        let pairs = context.pairs();
        let fields = [("KeyId", key), ("CiphertextBlob", blob.as_str())];
        let body = json_with(&fields, &[("EncryptionContext", &texts(&pairs))])?;
        plaintext(self.call(self.client.begin(), "Decrypt", &body)?)
    }

    /// The key does not leave the service for this.
    fn rewrap(&self, key: &str, context: &WrapContext, wrapped: &[u8]) -> Result<Vec<u8>, KmsError> {
        check_key(key, &self.region)?;
        let blob = stored(wrapped)?;
        let fields = [("SourceKeyId", key), ("DestinationKeyId", key), ("CiphertextBlob", blob.as_str())];
        let pairs = context.pairs();
        let context: Pairs = &texts(&pairs);
        let contexts = [("SourceEncryptionContext", context), ("DestinationEncryptionContext", context)];
        let body = json_with(&fields, &contexts)?;
        ciphertext(self.call(self.client.begin(), "ReEncrypt", &body)?)
    }
}

/// Where a service of AWS is reached.
struct Service {
    /// `https://host/`
    url: String,
    /// Host and port as they are signed.
    host: String,
}

impl Service {
    /// `given` goes before the variables of the SDKs, and those before AWS's own address in `region`.
    fn locate(
        name: &str,
        region: &str,
        given: Option<&str>,
        environment: Environment,
    ) -> Result<Self, KmsError> {
        let own = format!("AWS_ENDPOINT_URL_{}", name.to_ascii_uppercase());
        let set = environment.variable(&own).or_else(|| environment.variable("AWS_ENDPOINT_URL"));
        let Some(url) = given.or(set.as_ref().map(|url| url.as_str())) else {
            let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            let host = format!("{name}.{region}.{suffix}");
            return Ok(Service { url: format!("https://{host}/"), host });
        };
        let origin = Url::origin(url, OVERRIDE)?;
        let host = origin.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Service { url: origin + "/", host })
    }
}

fn is_region(text: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 32 && !text.starts_with('-') && text.bytes().all(safe)
}

/// Passes what names a KMS key in `region`.
fn check_key(key: &str, region: &str) -> Result<(), KmsError> {
    let Some(arn) = key.strip_prefix("arn:") else {
        return if is_alias(key) || is_key_id(key) { Ok(()) } else { Err(BAD_KEY) };
    };
    let parts: Vec<&str> = arn.split(':').collect();
    let &[partition, "kms", place, account, resource] = parts.as_slice() else { return Err(BAD_KEY) };
    let numbered = !account.is_empty() && account.bytes().all(|byte| byte.is_ascii_digit());
    let fits = is_alias(resource) || resource.strip_prefix("key/").is_some_and(is_key_id);
    if !is_segment(partition) || !numbered || !fits {
        return Err(BAD_KEY);
    }
    if place != region {
        return Err(KmsError::Setting("the KMS key's ARN is of another region than the endpoint"));
    }
    Ok(())
}

/// A UUID, or the id of a key that several regions share.
fn is_key_id(text: &str) -> bool {
    let hex = text.strip_prefix("mrk-").unwrap_or(text);
    (32..=36).contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn is_alias(text: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-');
    text.strip_prefix("alias/").is_some_and(|name| !name.is_empty() && name.bytes().all(safe))
        && text.len() <= 256
}

/// A context's pairs as JSON takes them.
fn texts<'a>(pairs: &'a [(&'static str, String); 5]) -> [(&'a str, &'a str); 5] {
    pairs.each_ref().map(|(name, value)| (*name, value.as_str()))
}

fn stored(wrapped: &[u8]) -> Result<String, KmsError> {
    match wrapped.len() {
        1..=WRAPPED_LIMIT => Ok(STANDARD.encode(wrapped)),
        _ => Err(OF_ANOTHER_KMS),
    }
}

fn plaintext(mut answer: Value) -> Result<RootKey, KmsError> {
    let text = take(&mut answer, "Plaintext");
    text.and_then(|text| key_from_text(&text)).ok_or(KmsError::Response("its plaintext is not 32 bytes"))
}

fn ciphertext(mut answer: Value) -> Result<Vec<u8>, KmsError> {
    let text = take(&mut answer, "CiphertextBlob");
    let bytes = text.and_then(|text| STANDARD.decode(text.as_bytes()).ok());
    let bytes = bytes.filter(|bytes| (1..=WRAPPED_LIMIT).contains(&bytes.len()));
    bytes.ok_or(KmsError::Response("its ciphertext is not 1 to 6144 bytes of base64"))
}

const EXPIRED: KmsError = KmsError::Denied("the AWS credentials have expired");
const UNKNOWN: KmsError = KmsError::Denied("AWS does not know the access key or the session token");
const NO_ACCESS: KmsError =
    KmsError::Denied("the policies of the key and of this server's identity do not allow this");
const BAD_SECRET: KmsError = KmsError::Denied("the secret access key is not that of the access key");
const BAD_CLOCK: KmsError = KmsError::Denied("this server's clock is wrong by minutes");
const BAD_SIGNATURE: KmsError =
    KmsError::Denied("AWS cannot read the signature; does something alter requests?");

/// What the service calls its refusals for good, and what they mean.
const REFUSALS: [(&str, KmsError); 22] = [
    ("DisabledException", KmsError::Denied("the KMS key is disabled")),
    (
        "KMSInvalidStateException",
        KmsError::Denied(
            "the KMS key is to be deleted, has no key material or its key store is disconnected",
        ),
    ),
    ("NotFoundException", KmsError::Denied("there is no such key")),
    ("AccessDeniedException", NO_ACCESS),
    ("AccessDenied", NO_ACCESS),
    ("InvalidCiphertextException", FOREIGN),
    (
        "IncorrectKeyException",
        KmsError::Denied("the stored key was made under another KMS key; was its alias moved?"),
    ),
    ("InvalidKeyUsageException", KmsError::Denied("the KMS key is not a symmetric one for encryption")),
    ("InvalidGrantTokenException", KmsError::Denied("a grant token is not valid")),
    ("InvalidArnException", KmsError::Denied("the key's ARN is not one of this region")),
    ("SignatureDoesNotMatch", BAD_SECRET),
    ("InvalidSignatureException", BAD_SECRET),
    ("IncompleteSignature", BAD_SIGNATURE),
    ("IncompleteSignatureException", BAD_SIGNATURE),
    ("MissingAuthenticationTokenException", BAD_SIGNATURE),
    ("RequestExpired", BAD_CLOCK),
    ("RequestTimeTooSkewed", BAD_CLOCK),
    ("ExpiredTokenException", EXPIRED),
    ("ExpiredToken", EXPIRED),
    ("UnrecognizedClientException", UNKNOWN),
    ("InvalidClientTokenId", UNKNOWN),
    ("OptInRequired", KmsError::Denied("the account has not subscribed to AWS KMS")),
];

/// What it says where another attempt may help, with whatever status.
const PASSING: [(&str, KmsError); 9] = [
    ("ThrottlingException", LATER),
    ("Throttling", LATER),
    ("TooManyRequestsException", LATER),
    ("RequestLimitExceeded", LATER),
    ("KMSInternalException", FAILING),
    ("InternalFailure", FAILING),
    ("DependencyTimeoutException", FAILING),
    ("KeyUnavailableException", KmsError::Unreachable("the key is not available for now")),
    ("ServiceUnavailable", LATER),
];

/// The answer's object, or what its error means.
fn judge(answer: Answer) -> Result<Value, Failure> {
    // First and alone: looking for errors would leave a copy of a key behind.
    if answer.status == 200 {
        let object = serde_json::from_slice(&answer.body).ok().filter(Value::is_object);
        return object.ok_or(Failure::Final(KmsError::Response("it is not a JSON object")));
    }
    let code = error_code(&answer.body);
    let known = |list: &[(&str, KmsError)]| {
        list.iter().find(|(name, _)| code.as_deref() == Some(name)).map(|(_, error)| error.clone())
    };
    if let Some(error) = known(&PASSING) {
        return Err(Failure::Transient(error));
    }
    if let Some(error) = known(&REFUSALS) {
        let skewed = error == BAD_SECRET && speaks_of_time(&answer.body);
        return Err(Failure::Final(if skewed { BAD_CLOCK } else { error }));
    }
    if let Some(error) = passing(answer.status, &[]) {
        return Err(Failure::Transient(error));
    }
    match answer.status {
        400..=499 if code.is_some() => Err(Failure::Final(KmsError::Denied(
            "it refused the request for another reason; CloudTrail tells",
        ))),
        _ => Err(Failure::Final(KmsError::Response("it does not come from the API of AWS KMS"))),
    }
}

/// A signature that is too old or too young is an invalid one to the service; only its message tells.
fn speaks_of_time(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("Signature expired") || text.contains("Signature not yet current")
}

/// The error's name in an answer of KMS (JSON, with or without a namespace before it) or of STS (XML).
fn error_code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return xml_text(text, "Code").map(str::to_owned);
    };
    let name = value.get("__type")?.as_str()?.rsplit('#').next()?;
    Some(name.to_owned())
}

/// What stands in the first element `name` that has no attributes.
fn xml_text<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests;
