//! Bearer tokens as Google and Microsoft give them out: kept until shortly before they expire, and fetched anew once
//! where the service refuses one that was kept.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use zeroize::Zeroizing;

use super::address::Url;
use super::http::{Answer, Client, Failure, Request, Watch, passing};
use super::text::take;
use super::{KmsError, Token};

/// This long before it expires, a token is fetched anew.
const MARGIN: Duration = Duration::from_secs(60);
/// The longest time that a token is kept, whatever its giver says.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What a client's judge says on 401.
pub(super) const REFUSED: KmsError = KmsError::Denied("the access token is not valid");
const NOT_GIVEN: KmsError =
    KmsError::Denied("no token for the credentials of this server; are they valid, and is its clock right?");
const SOURCE_DOWN: KmsError =
    KmsError::Unreachable("where its access tokens come from fails or does not answer");
const NO_TOKEN: KmsError = KmsError::Response("it holds no access token");

/// A token as it was given out.
pub(super) struct Fresh {
    token: Token,
    lifetime: Duration,
}

struct KeptToken {
    token: Rc<Token>,
    renew: Instant,
}

/// The token of one client.
pub(super) struct Bearer {
    brought: Option<Rc<Token>>,
    held: RefCell<Option<KeptToken>>,
}

impl Bearer {
    /// `brought` is a session's own token, in place of all others.
    pub fn new(brought: Option<Rc<Token>>) -> Self {
        Bearer { brought, held: RefCell::new(None) }
    }

    /// Calls `act` with the value of the header `authorization`, and again with a new token where a kept one is
    /// refused.
    pub fn with<T>(
        &self,
        fetch: impl Fn() -> Result<Fresh, KmsError>,
        act: impl Fn(&str) -> Result<T, KmsError>,
    ) -> Result<T, KmsError> {
        if let Some(token) = &self.brought {
            return act(&header(token));
        }
        if let Some(token) = self.kept() {
            let outcome = act(&header(&token));
            if !matches!(outcome, Err(REFUSED)) {
                return outcome;
            }
        }
        self.held.replace(None);
        let token = self.keep(fetch()?);
        act(&header(&token))
    }

    fn kept(&self) -> Option<Rc<Token>> {
        let held = self.held.borrow();
        held.as_ref().filter(|held| held.renew > Instant::now()).map(|held| held.token.clone())
    }

    fn keep(&self, fresh: Fresh) -> Rc<Token> {
        let token = Rc::new(fresh.token);
        let renew = Instant::now() + fresh.lifetime.min(LONGEST).saturating_sub(MARGIN);
        self.held.replace(Some(KeptToken { token: token.clone(), renew }));
        token
    }
}

fn header(token: &Token) -> Zeroizing<String> {
    Zeroizing::new(["Bearer ", token.as_str()].concat())
}

/// Sends a request for a token. That nobody answers it says nothing about the KMS.
pub(super) fn ask(client: &Client, watch: Watch, request: &Request) -> Result<Fresh, KmsError> {
    client.call(watch, request, judge).map_err(|error| match error {
        KmsError::Unreachable(_) => SOURCE_DOWN,
        error => error,
    })
}

/// RFC 6749, 5.1; the metadata services answer in the same way. Azure's says 404 and 410 while it is being updated,
/// and its clients try again.
fn judge(answer: Answer) -> Result<Fresh, Failure> {
    if passing(answer.status, &[404, 410]).is_some() {
        return Err(Failure::Transient(SOURCE_DOWN));
    }
    match answer.status {
        200 => fresh(&answer.body).ok_or(Failure::Final(NO_TOKEN)),
        400..=499 => Err(Failure::Final(NOT_GIVEN)),
        _ => Err(Failure::Final(NO_TOKEN)),
    }
}

fn fresh(body: &[u8]) -> Option<Fresh> {
    let mut data: Value = serde_json::from_slice(body).ok()?;
    let token = Token::parse(&take(&mut data, "access_token")?)?;
    // App Service says only when, in seconds since 1970.
    let until = |moment: u64| moment.saturating_sub(unix_time());
    let seconds = number(&mut data, "expires_in").or_else(|| number(&mut data, "expires_on").map(until));
    Some(Fresh { token, lifetime: Duration::from_secs(seconds?) })
}

/// What a service that takes such tokens answers: its JSON, or what its status means. `own` are statuses of its own
/// that may pass, `other` is the error where the answer is not of its API, `refusal` reads the body of all the rest.
pub(super) fn judge_service(
    answer: Answer,
    own: &[u16],
    other: KmsError,
    refusal: impl FnOnce(&Value) -> KmsError,
) -> Result<Value, Failure> {
    if let Some(error) = passing(answer.status, own) {
        return Err(Failure::Transient(error));
    }
    let data = serde_json::from_slice(&answer.body);
    match answer.status {
        200 => data.map_err(|_| Failure::Final(other)),
        300..=399 => Err(Failure::Final(KmsError::Response("it is a redirect, which is not followed"))),
        401 => Err(Failure::Final(REFUSED)),
        _ => Err(Failure::Final(data.map_or(other, |data| refusal(&data)))),
    }
}

/// A number that JSON holds as such or as a string; taken out, so that it is wiped.
pub(super) fn number(data: &mut Value, name: &str) -> Option<u64> {
    match data.get(name)? {
        Value::Number(number) => number.as_u64(),
        _ => take(data, name)?.parse().ok(),
    }
}

/// Seconds since 1970.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// The address for requests for tokens. Passes https, and plain http that does not leave the host.
pub(super) fn check_source(url: &str, wrong: KmsError) -> Result<(), KmsError> {
    let url = Url::parse(url, wrong)?;
    if url.tls || url.address.is_loopback() || url.address.is_link_local() {
        return Ok(());
    }
    Err(KmsError::Setting("plain http for access tokens is for loopback and link-local addresses only"))
}

#[cfg(test)]
#[path = "oauth_tests.rs"]
mod tests;
