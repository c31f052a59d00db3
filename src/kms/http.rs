//! With [`super::transport`] the one place that names ureq: a blocking request that is bounded in time and size and notices a cancel.
//!
//! Every wait is cut into slices of at most 50 ms, under TLS too, because the transport below rustls is ours.
//! One wait is not: the name lookup, which is the C library's and bounded by resolv.conf alone. No thread, no pool,
//! no redirect, no proxy from the environment.
//!
//! Wiped after use: the request body, the answer, ureq's buffers. rustls's own buffers and ureq's copy of the header
//! values are wiped when they are freed, by the allocator of `src/pg`.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use ureq::http::{self, HeaderValue};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use zeroize::Zeroizing;

use super::files::{read_bounded, read_file};
use super::transport::{Interrupted, agent};
use super::{KmsError, Settings};
use crate::core::rng;

pub(super) use super::transport::Watch;
pub(super) use ureq::http::Method;

const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const BODY_LIMIT: usize = 64 * 1024;
const CA_LIMIT: usize = 1024 * 1024;

/// Makes calls; holds no connection.
pub(super) struct Client {
    timeout: Duration,
    interrupted: fn() -> bool,
    tls: TlsConfig,
}

/// What to send.
pub(super) struct Request<'a> {
    pub method: Method,
    pub url: &'a str,
    /// Names in lower case; values may be secret. `host` and `content-length` come by themselves where not given.
    pub headers: &'a [(&'static str, &'a str)],
    /// Empty with [`Method::GET`].
    pub body: &'a [u8],
}

/// What came back, whatever its status.
pub(super) struct Answer {
    pub status: u16,
    pub body: Zeroizing<Vec<u8>>,
}

/// A failure and whether another attempt may help.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Final(KmsError),
    Transient(KmsError),
}

impl Client {
    pub fn new(settings: &Settings) -> Result<Self, KmsError> {
        if settings.timeout.is_zero() {
            return Err(KmsError::Setting("the KMS timeout must be more than zero"));
        }
        let roots = settings.ca_file.as_deref().map_or(Ok(RootCerts::WebPki), authorities)?;
        let tls = TlsConfig::builder().root_certs(roots).build();
        Ok(Client { timeout: settings.timeout, interrupted: settings.interrupted, tls })
    }

    /// Begins an operation that may take several requests: they share its time.
    pub fn begin(&self) -> Watch {
        Watch { deadline: Instant::now() + self.timeout, interrupted: self.interrupted }
    }

    /// Sends `request` until `judge` is content or calls a failure final, the attempts are used up or the time is.
    pub fn call<T>(
        &self,
        watch: Watch,
        request: &Request,
        judge: impl Fn(Answer) -> Result<T, Failure>,
    ) -> Result<T, KmsError> {
        let mut attempt = 1;
        loop {
            let error = match self.once(request, watch).and_then(&judge) {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Transient(error)) => error,
            };
            let pause = jittered(FIRST_PAUSE * 2u32.pow(attempt - 1));
            let in_time = Instant::now() + pause < watch.deadline;
            if attempt == ATTEMPTS || !in_time {
                return Err(error);
            }
            watch.sleep(pause)?;
            attempt += 1;
        }
    }

    fn once(&self, request: &Request, watch: Watch) -> Result<Answer, Failure> {
        let mut sent = http::Request::builder().method(request.method.clone()).uri(request.url);
        for (name, value) in request.headers {
            let mut value = HeaderValue::from_str(value).map_err(|_| UNUSABLE)?;
            value.set_sensitive(true);
            sent = sent.header(*name, value);
        }
        let agent = self.agent(watch);
        let response = match request.body {
            [] => agent.run(sent.body(()).map_err(|_| UNUSABLE)?),
            body => agent.run(sent.body(body).map_err(|_| UNUSABLE)?),
        };
        let response = response.map_err(failure)?;
        let status = response.status().as_u16();
        let body = read_bounded(&mut response.into_body().into_reader(), BODY_LIMIT);
        let too_large = Failure::Final(KmsError::Response("it is larger than 64 KiB"));
        let body = body.map_err(|error| failure(error.into()))?.ok_or(too_large)?;
        Ok(Answer { status, body })
    }

    /// An agent for one attempt: nothing outlives it that a forked child could share. ureq's own timeouts stay
    /// unset, because with them it looks names up in a thread; [`Watch`] bounds everything else.
    fn agent(&self, watch: Watch) -> ureq::Agent {
        let config = ureq::Agent::config_builder()
            .tls_config(self.tls.clone())
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_idle_connections(0)
            .input_buffer_size(BODY_LIMIT)
            .output_buffer_size(BODY_LIMIT / 4)
            .max_response_header_size(BODY_LIMIT / 4)
            .user_agent("pgseal")
            .build();
        agent(config, watch)
    }
}

pub(super) const LATER: KmsError = KmsError::Unreachable("it asks to come back later");
pub(super) const FAILING: KmsError = KmsError::Unreachable("it reports an internal error");

/// What a status means that may pass by itself, `own` at this service alone; `None` for any other.
pub(super) fn passing(status: u16, own: &[u16]) -> Option<KmsError> {
    match status {
        408 | 425 | 429 => Some(LATER),
        500..=599 => Some(FAILING),
        _ => own.contains(&status).then_some(LATER),
    }
}

const UNUSABLE: Failure =
    Failure::Final(KmsError::Local("a credential or an address is not one line of printable ASCII"));

fn authorities(path: &Path) -> Result<RootCerts, KmsError> {
    let unusable = KmsError::Local("the CA file cannot be read or is not PEM with at least one certificate");
    let pem = read_file(path, CA_LIMIT, unusable.clone())?;
    let unusable = unusable.at(path, None);
    let items: Result<Vec<PemItem>, _> = parse_pem(&pem).collect();
    let certificates: Vec<Certificate> =
        items.map_err(|_| unusable.clone())?.into_iter().filter_map(certificate).collect();
    if certificates.is_empty() {
        return Err(unusable);
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

fn certificate(item: PemItem<'static>) -> Option<Certificate<'static>> {
    match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    }
}

/// Between half of `pause` and all of it, so that backends do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let share = rng::bytes::<1>().map_or(0, |[byte]| u32::from(byte));
    pause / 2 + pause / 2 * share / 255
}

/// ureq's error as ours. Its texts can hold the URL or the server's words and are dropped.
fn failure(error: ureq::Error) -> Failure {
    use ureq::Error;
    match error {
        Error::Other(other) if other.is::<Interrupted>() => Failure::Final(KmsError::Cancelled),
        Error::Timeout(_) => Failure::Final(KmsError::TimedOut),
        // Not tried again: a lookup cannot be cancelled and may have taken many seconds.
        Error::HostNotFound => Failure::Final(KmsError::Unreachable("its host name was not found")),
        // How rustls says through std::io that it does not trust the other side.
        Error::Io(error) if error.kind() == ErrorKind::InvalidData => Failure::Final(NO_TLS),
        Error::Rustls(_) | Error::Tls(_) | Error::Pem(_) | Error::TlsRequired => Failure::Final(NO_TLS),
        Error::Io(error) => Failure::Transient(KmsError::Unreachable(connection_text(error.kind()))),
        _ => Failure::Final(KmsError::Response("it is not HTTP as it should be")),
    }
}

const NO_TLS: KmsError =
    KmsError::Unreachable("no trusted TLS connection; compare the CA file and the certificate's names");

fn connection_text(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ConnectionRefused => "the connection was refused",
        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => {
            "the connection broke"
        }
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "there is no route to its host",
        _ => "the connection failed",
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
