//! Where AWS credentials come from, in the order of the SDKs: environment, web identity, shared credentials file,
//! container, instance metadata (IMDSv2). The first that is configured is the one; if it fails, no other is tried.
//!
//! Temporary ones are kept until five minutes before they expire. The others are looked up at each call, so that a
//! changed file counts at once.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{OVERRIDE, Service, error_code, xml_text};
use crate::kms::address::Url;
use crate::kms::body::{FORM, form};
use crate::kms::files::{read_file, read_token};
use crate::kms::http::{Answer, Client, Failure, Method, Request, Watch, passing};
use crate::kms::text::take;
use crate::kms::{Environment, KmsError, Token};

/// This long before they expire, temporary credentials are fetched anew.
const MARGIN: time::Duration = time::Duration::minutes(5);
/// Longest wait for the metadata service, which does not answer where there is none.
const PROBE: Duration = Duration::from_secs(1);
const FILE_LIMIT: usize = 64 * 1024;
/// Where an instance and a container ask, over plain http because the answer does not leave the host.
const LINK_LOCAL: [&str; 5] =
    ["169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"];
const METADATA: &str = "http://169.254.169.254";
const CONTAINER: &str = "http://169.254.170.2";

const NONE: KmsError = KmsError::Local(
    "there are no AWS credentials in the environment or a file, from a web identity or a container, \
     and no instance metadata service answers",
);
const NO_PROFILE: KmsError =
    KmsError::Local("the AWS credentials file cannot be read or its profile has no access key");
const NO_WEB_TOKEN: KmsError =
    KmsError::Local("the web identity token file cannot be read or does not hold one token");
const NO_CONTAINER_TOKEN: KmsError =
    KmsError::Local("the container's authorization token cannot be read or is not one word");
const SOURCE_DOWN: KmsError = KmsError::Unreachable(
    "the source of its credentials (STS, the container's agent or instance metadata) fails or does not answer",
);
const NO_CREDENTIALS: KmsError = KmsError::Response("it holds no AWS credentials");

/// What signs a request.
pub(super) struct Credentials {
    pub id: Token,
    pub secret: Token,
    pub session: Option<Token>,
}

impl Credentials {
    fn parse(id: &str, secret: &str, session: Option<&str>) -> Option<Self> {
        let session = match session {
            Some(text) => Some(Token::parse(text)?),
            None => None,
        };
        Some(Credentials { id: Token::parse(id)?, secret: Token::parse(secret)?, session })
    }
}

/// Credentials that expire.
struct Temporary {
    credentials: Credentials,
    expires: OffsetDateTime,
}

/// Temporary credentials and when to fetch others.
struct KeptCredentials {
    credentials: Rc<Credentials>,
    renew: OffsetDateTime,
}

/// All the places.
pub(super) struct Chain {
    environment: Environment,
    region: String,
    held: RefCell<Option<KeptCredentials>>,
}

impl Chain {
    pub fn new(environment: Environment, region: &str) -> Self {
        Chain { environment, region: region.to_owned(), held: RefCell::new(None) }
    }

    /// What is kept from an earlier call, unless it expires soon.
    pub fn held(&self) -> Option<Rc<Credentials>> {
        let held = self.held.borrow();
        let fresh = held.as_ref().filter(|held| held.renew > OffsetDateTime::now_utc());
        fresh.map(|held| held.credentials.clone())
    }

    /// Credentials from where they come from, in place of what is kept.
    pub fn fetch(&self, client: &Client, watch: Watch) -> Result<Rc<Credentials>, KmsError> {
        self.held.replace(None);
        if let Some(credentials) = self.environment()? {
            return Ok(Rc::new(credentials));
        }
        if let Some(lease) = self.web_identity(client, watch)? {
            return Ok(self.keep(lease));
        }
        if let Some(credentials) = self.shared_file()? {
            return Ok(Rc::new(credentials));
        }
        let lease = match self.container(client, watch)? {
            Some(lease) => lease,
            None => self.instance(client, watch)?,
        };
        Ok(self.keep(lease))
    }

    fn keep(&self, lease: Temporary) -> Rc<Credentials> {
        let credentials = Rc::new(lease.credentials);
        let renew = lease.expires.saturating_sub(MARGIN);
        self.held.replace(Some(KeptCredentials { credentials: credentials.clone(), renew }));
        credentials
    }

    fn environment(&self) -> Result<Option<Credentials>, KmsError> {
        let [id, secret, session] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
            .map(|name| self.environment.variable(name));
        let unusable = KmsError::Setting(
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together, and each is one word of printable ASCII",
        );
        match (id, secret) {
            (None, None) => Ok(None),
            (Some(id), Some(secret)) => {
                let session = session.as_ref().map(|text| text.as_str());
                Credentials::parse(&id, &secret, session).map(Some).ok_or(unusable)
            }
            _ => Err(unusable),
        }
    }

    /// AssumeRoleWithWebIdentity at the region's STS, which is not signed: the token is the credential.
    fn web_identity(&self, client: &Client, watch: Watch) -> Result<Option<Temporary>, KmsError> {
        let Some(file) = self.environment.variable("AWS_WEB_IDENTITY_TOKEN_FILE") else { return Ok(None) };
        let role = self.environment.variable("AWS_ROLE_ARN");
        let role = role.ok_or(KmsError::Setting("AWS_WEB_IDENTITY_TOKEN_FILE needs AWS_ROLE_ARN"))?;
        let session = self.environment.variable("AWS_ROLE_SESSION_NAME");
        let session = session.as_ref().map_or("pgseal", |name| name.as_str());
        let token = read_token(file.as_str().as_ref(), NO_WEB_TOKEN)?;
        let service = Service::locate("sts", &self.region, None, self.environment)?;
        let fields =
            [("RoleArn", role.as_str()), ("RoleSessionName", session), ("WebIdentityToken", token.as_str())];
        let body = form("Action=AssumeRoleWithWebIdentity&Version=2011-06-15", &fields);
        let request =
            Request { method: Method::POST, url: &service.url, headers: &[FORM], body: body.as_bytes() };
        ask(client, watch, &request, judge_sts).map(Some)
    }

    fn shared_file(&self) -> Result<Option<Credentials>, KmsError> {
        let named_file = self.environment.variable("AWS_SHARED_CREDENTIALS_FILE");
        let named_profile = self.environment.variable("AWS_PROFILE");
        let file = match (&named_file, self.environment.variable("HOME")) {
            (Some(file), _) => PathBuf::from(file.as_str()),
            (None, Some(home)) => PathBuf::from(home.as_str()).join(".aws/credentials"),
            (None, None) if named_profile.is_none() => return Ok(None),
            (None, None) => return Err(NO_PROFILE),
        };
        let profile = named_profile.as_ref().map_or("default", |name| name.as_str());
        let bytes = read_file(&file, FILE_LIMIT, NO_PROFILE);
        let found = bytes.and_then(|bytes| credentials_of(&bytes, profile));
        // Nobody asked for the file: then it need not be there.
        if named_file.is_none() && named_profile.is_none() {
            return Ok(found.ok());
        }
        found.map(Some)
    }

    fn container(&self, client: &Client, watch: Watch) -> Result<Option<Temporary>, KmsError> {
        let Some(url) = self.container_url()? else { return Ok(None) };
        let token = self.container_token()?;
        let headers: Vec<_> = token.iter().map(|token| ("authorization", token.as_str())).collect();
        let request = Request { method: Method::GET, url: &url, headers: &headers, body: &[] };
        ask(client, watch, &request, judge_source).map(Some)
    }

    fn container_url(&self) -> Result<Option<String>, KmsError> {
        let relative = self.environment.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let full = self.environment.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
        let url = match (relative, full) {
            (Some(path), _) if path.starts_with('/') => [CONTAINER, &path].concat(),
            (Some(_), _) => {
                return Err(KmsError::Setting(
                    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not start with a slash",
                ));
            }
            (None, Some(url)) => url.to_string(),
            (None, None) => return Ok(None),
        };
        check_source(&url).map(|()| Some(url))
    }

    fn container_token(&self) -> Result<Option<Token>, KmsError> {
        if let Some(file) = self.environment.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            return read_token(file.as_str().as_ref(), NO_CONTAINER_TOKEN).map(Some);
        }
        let token = self.environment.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
        token.map(|text| Token::parse(&text).ok_or(NO_CONTAINER_TOKEN)).transpose()
    }

    /// IMDSv2 alone: a session's token first, which a forwarding proxy cannot get.
    fn instance(&self, client: &Client, watch: Watch) -> Result<Temporary, KmsError> {
        if self
            .environment
            .variable("AWS_EC2_METADATA_DISABLED")
            .is_some_and(|text| text.eq_ignore_ascii_case("true"))
        {
            return Err(NONE);
        }
        let base = self.environment.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let base = base.as_ref().map_or(METADATA, |url| url.trim_end_matches('/'));
        check_source(base)?;

        let probe = Watch { deadline: watch.deadline.min(Instant::now() + PROBE), ..watch };
        let url = format!("{base}/latest/api/token");
        // Its length is said because the service wants to hear it, though it is zero.
        let headers = [("x-aws-ec2-metadata-token-ttl-seconds", "21600"), ("content-length", "0")];
        let request = Request { method: Method::PUT, url: &url, headers: &headers, body: &[] };
        let token = client.call(probe, &request, judge_word).map_err(|error| match error {
            KmsError::Unreachable(_) | KmsError::TimedOut => NONE,
            error => error,
        })?;

        let headers = [("x-aws-ec2-metadata-token", token.as_str())];
        let roles = format!("{base}/latest/meta-data/iam/security-credentials/");
        let request = Request { method: Method::GET, url: &roles, headers: &headers, body: &[] };
        let role = ask(client, watch, &request, judge_word)?;
        if !is_role(role.as_str()) {
            return Err(KmsError::Response("its first line is not the name of a role"));
        }
        let url = [&roles, role.as_str()].concat();
        let request = Request { method: Method::GET, url: &url, headers: &headers, body: &[] };
        ask(client, watch, &request, judge_source)
    }
}

/// Passes https, and plain http that does not leave the host.
fn check_source(url: &str) -> Result<(), KmsError> {
    let url = Url::parse(url, OVERRIDE)?;
    if url.tls || url.address.is_loopback() || LINK_LOCAL.contains(&url.address.host) {
        return Ok(());
    }
    Err(KmsError::Endpoint("plain http for AWS credentials is for loopback and link-local addresses only"))
}

/// As AWS allows a role's name.
fn is_role(text: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    text.len() <= 64 && text.bytes().all(safe) && !text.starts_with('.')
}

/// The access key of a profile in a credentials file.
fn credentials_of(file: &[u8], profile: &str) -> Result<Credentials, KmsError> {
    let text = std::str::from_utf8(file).map_err(|_| NO_PROFILE)?;
    let value = |name: &str| ini_value(text, profile, name);
    let (id, secret) = (value("aws_access_key_id"), value("aws_secret_access_key"));
    let (Some(id), Some(secret)) = (id, secret) else { return Err(NO_PROFILE) };
    Credentials::parse(id, secret, value("aws_session_token")).ok_or(NO_PROFILE)
}

/// `name` under `[section]`; an empty one counts as none. Comments are lines that begin with # or ;.
fn ini_value<'a>(text: &'a str, section: &str, name: &str) -> Option<&'a str> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(title) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = title.trim() == section;
            continue;
        }
        let pair = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        match pair {
            Some((found, value)) if inside && found.eq_ignore_ascii_case(name) && !value.is_empty() => {
                return Some(value);
            }
            _ => {}
        }
    }
    None
}

/// Sends a request for credentials. That nobody answers it says nothing about the KMS.
fn ask<T>(
    client: &Client,
    watch: Watch,
    request: &Request,
    judge: fn(Answer) -> Result<T, Failure>,
) -> Result<T, KmsError> {
    client.call(watch, request, judge).map_err(|error| match error {
        KmsError::Unreachable(_) => SOURCE_DOWN,
        error => error,
    })
}

/// The first line, as the metadata service answers.
fn judge_word(answer: Answer) -> Result<Token, Failure> {
    if passing(answer.status, &[]).is_some() {
        return Err(Failure::Transient(SOURCE_DOWN));
    }
    if answer.status != 200 {
        return Err(Failure::Final(KmsError::Denied("the instance has no role or does not give it out")));
    }
    let text = std::str::from_utf8(&answer.body).ok();
    let word = text.and_then(|text| text.lines().next()).and_then(Token::parse);
    word.ok_or(Failure::Final(NO_CREDENTIALS))
}

/// Credentials as a container's agent and the metadata service write them.
fn judge_source(answer: Answer) -> Result<Temporary, Failure> {
    if passing(answer.status, &[]).is_some() {
        return Err(Failure::Transient(SOURCE_DOWN));
    }
    match answer.status {
        200 => lease_of(&answer.body).ok_or(Failure::Final(NO_CREDENTIALS)),
        _ => Err(Failure::Final(KmsError::Denied("the source of AWS credentials refuses to give them out"))),
    }
}

fn lease_of(body: &[u8]) -> Option<Temporary> {
    let mut value: Value = serde_json::from_slice(body).ok()?;
    let [id, secret, session, expires] =
        ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"].map(|name| take(&mut value, name));
    let credentials = Credentials::parse(&id?, &secret?, Some(&session?))?;
    Some(Temporary { credentials, expires: OffsetDateTime::parse(&expires?, &Rfc3339).ok()? })
}

fn judge_sts(answer: Answer) -> Result<Temporary, Failure> {
    if answer.status == 200 {
        return lease_of_sts(&answer.body).ok_or(Failure::Final(NO_CREDENTIALS));
    }
    let denied = |why| Err(Failure::Final(KmsError::Denied(why)));
    match error_code(&answer.body).as_deref() {
        Some("IDPCommunicationError" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded") => {
            Err(Failure::Transient(SOURCE_DOWN))
        }
        Some("ExpiredTokenException" | "ExpiredToken") => denied("the web identity token has expired"),
        Some("AccessDenied" | "AccessDeniedException") => denied("the web identity may not assume the role"),
        _ if passing(answer.status, &[]).is_some() => Err(Failure::Transient(SOURCE_DOWN)),
        _ => denied("STS refuses the web identity token or the role; CloudTrail tells why"),
    }
}

fn lease_of_sts(body: &[u8]) -> Option<Temporary> {
    let text = xml_text(std::str::from_utf8(body).ok()?, "Credentials")?;
    let value = |name| xml_text(text, name);
    let session = value("SessionToken")?;
    let credentials = Credentials::parse(value("AccessKeyId")?, value("SecretAccessKey")?, Some(session))?;
    Some(Temporary { credentials, expires: OffsetDateTime::parse(value("Expiration")?, &Rfc3339).ok()? })
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
