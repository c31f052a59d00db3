//! Hosts of endpoints, checked before anything is sent to them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::KmsError;
use super::text::is_segment;

/// Host and port of an endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address<'a> {
    /// Without the brackets of an IPv6 address.
    pub host: &'a str,
    pub port: Option<&'a str>,
    /// Both, as they were given.
    authority: &'a str,
}

const BAD_HOST: KmsError =
    KmsError::Endpoint("its host is not a name, an IPv4 address or an IPv6 address in brackets");

const PLAIN: KmsError = KmsError::Endpoint("plain http is for loopback addresses only; use https");

impl<'a> Address<'a> {
    /// From `host` or `host:port`.
    pub fn parse(authority: &'a str) -> Result<Self, KmsError> {
        if authority.contains('@') {
            return Err(KmsError::Endpoint("it must not hold credentials"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => bracketed(rest)?,
            None => named(authority)?,
        };
        if port.is_some_and(|port| !is_port(port)) {
            return Err(KmsError::Endpoint("its port is not a number from 1 to 65535"));
        }
        Ok(Address { host, port, authority })
    }

    /// Whether what is sent there stays on this machine.
    pub fn is_loopback(&self) -> bool {
        let v4 = self.host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
        let v6 = self.host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
        v4 || v6 || self.host == "localhost"
    }

    /// `scheme://host:port`; `plain` is the error where plain http would leave this machine.
    pub fn origin(&self, tls: bool, plain: KmsError) -> Result<String, KmsError> {
        if !tls && !self.is_loopback() {
            return Err(plain);
        }
        Ok(format!("{}://{}", if tls { "https" } else { "http" }, self.authority))
    }

    /// Whether it is an IPv4 address that no router forwards, such as that of a metadata service.
    pub fn is_link_local(&self) -> bool {
        self.host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_link_local())
    }
}

/// An address that came from a setting.
pub(super) struct Url<'a> {
    pub tls: bool,
    pub address: Address<'a>,
    /// With the query.
    pub path: &'a str,
}

impl<'a> Url<'a> {
    /// `wrong` is the error where it is not http or https and a host.
    pub fn parse(text: &'a str, wrong: KmsError) -> Result<Self, KmsError> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong.clone())?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(wrong),
        };
        if !path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\')) {
            return Err(wrong);
        }
        Ok(Url { tls, address: Address::parse(authority)?, path })
    }

    /// `scheme://host:port`, where nothing else was given and plain http stays on this machine.
    pub fn origin(text: &'a str, wrong: KmsError) -> Result<String, KmsError> {
        let url = Url::parse(text, wrong.clone())?;
        if !matches!(url.path, "" | "/") {
            return Err(wrong);
        }
        url.address.origin(url.tls, PLAIN)
    }
}

fn bracketed(rest: &str) -> Result<(&str, Option<&str>), KmsError> {
    let (host, after) = rest.split_once(']').ok_or(BAD_HOST)?;
    let port = after.strip_prefix(':');
    if host.parse::<Ipv6Addr>().is_err() || (port.is_none() && !after.is_empty()) {
        return Err(BAD_HOST);
    }
    Ok((host, port))
}

fn named(authority: &str) -> Result<(&str, Option<&str>), KmsError> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let safe = is_segment(host) && !host.contains("..") && !host.contains('_');
    safe.then_some((host, port)).ok_or(BAD_HOST)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == text)
}
