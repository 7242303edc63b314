//! Where a component may connect to: `allowed_outbound_hosts` of a manifest, with Spin's rules.

use std::net::IpAddr;
use std::ops::Range;

use anyhow::{Context, bail, ensure};
use ipnet::IpNet;
use url::{Host, Url};

/// The addresses that a component may connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// Every one.
    #[default]
    All,
    /// Those of a list.
    Hosts(Vec<Pattern>),
}

impl Allowed {
    /// No address.
    pub const NONE: Self = Self::Hosts(Vec::new());

    /// Those that a manifest grants, its templates filled in. One that is empty grants nothing.
    ///
    /// # Errors
    ///
    /// Where one is not `SCHEME://HOST[:PORT]`, as on Spin.
    pub fn parse<'a>(hosts: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Self> {
        let hosts = hosts.into_iter().map(str::trim);
        let patterns = hosts.filter(|host| !host.is_empty()).map(|host| {
            Pattern::parse(host)
                .with_context(|| format!("allowed_outbound_hosts has {host:?} in it"))
        });
        Ok(Self::Hosts(patterns.collect::<anyhow::Result<_>>()?))
    }

    /// Whether it has this URL. One without a scheme has this `scheme`.
    pub fn allows(&self, url: &str, scheme: &str) -> bool {
        let Self::Hosts(patterns) = self else {
            return true;
        };
        let has_host = |url: &Url| url.has_host();
        let parsed = Url::parse(url).ok().filter(has_host);
        let parsed = parsed.or_else(|| Url::parse(&format!("{scheme}://{url}")).ok());
        parsed.is_some_and(|url| patterns.iter().any(|pattern| pattern.allows(&url)))
    }
}

/// An address of the list, or several of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// `None`: any.
    scheme: Option<String>,
    host: Hosts,
    /// `None`: any.
    ports: Option<Range<u32>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Any,
    /// `*.example.org`, without the asterisk.
    Below(String),
    One(Host),
    Network(IpNet),
    /// The application itself, which no connection to a Redis leads to.
    Own,
}

impl Pattern {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            bail!("expected SCHEME://HOST[:PORT], and * for any");
        };
        let scheme = match scheme {
            "*" => None,
            scheme if scheme.chars().all(char::is_alphabetic) => Some(scheme.to_owned()),
            _ => bail!("the scheme {scheme:?} has more than letters in it"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // The colons of an IPv6 address are in brackets.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (rest, ""),
        };
        Ok(Self {
            host: Hosts::parse(host)?,
            ports: ports(port, scheme.as_deref())?,
            scheme,
        })
    }

    fn allows(&self, url: &Url) -> bool {
        let is_scheme = self.scheme.as_deref().is_none_or(|it| it == url.scheme());
        let port = url.port().or_else(|| known_port(url.scheme()));
        let is_port = match (&self.ports, port) {
            (None, _) => true,
            (Some(ports), Some(port)) => ports.contains(&port.into()),
            (Some(_), None) => false,
        };
        let host = url.host_str().and_then(|host| Host::parse(host).ok());
        is_scheme && is_port && host.is_some_and(|host| self.host.allows(&host))
    }
}

impl Hosts {
    fn parse(text: &str) -> anyhow::Result<Self> {
        match text {
            "*" => return Ok(Self::Any),
            "self" | "self.alt" => return Ok(Self::Own),
            _ => {}
        }
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::Network(network.trunc()));
        }
        ensure!(!text.contains('/'), "it has a path");
        if let Some(domain) = text.strip_prefix("*.") {
            ensure!(!domain.contains('*'), "{text:?} is no host");
            return Ok(Self::Below(format!(".{domain}")));
        }
        ensure!(!text.contains('*'), "only a whole subdomain can be any");
        let host = Host::parse(text).with_context(|| format!("{text:?} is no host"))?;
        Ok(Self::One(host))
    }

    fn allows(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Below(suffix), Host::Domain(domain)) => domain.ends_with(suffix),
            (Self::One(one), host) => one == host,
            (Self::Network(network), Host::Ipv4(address)) => {
                network.contains(&IpAddr::from(*address))
            }
            (Self::Network(network), Host::Ipv6(address)) => {
                network.contains(&IpAddr::from(*address))
            }
            (Self::Below(_) | Self::Network(_) | Self::Own, _) => false,
        }
    }
}

fn ports(text: &str, scheme: Option<&str>) -> anyhow::Result<Option<Range<u32>>> {
    if text == "*" {
        return Ok(None);
    }
    let number = |text: &str| {
        let number = text.parse::<u16>();
        number.with_context(|| format!("the port {text:?} is no number"))
    };
    if text.is_empty() {
        let known = scheme.and_then(known_port);
        let port = known.context("it has no port, and its scheme has no known one")?;
        return Ok(Some(port.into()..u32::from(port) + 1));
    }
    let ports = match text.split_once("..") {
        Some((first, end)) => number(first)?.into()..number(end)?.into(),
        None => {
            let port = u32::from(number(text)?);
            port..port + 1
        }
    };
    Ok(Some(ports))
}

/// The port that a URL of this scheme has without naming one.
fn known_port(scheme: &str) -> Option<u16> {
    match scheme {
        "redis" => Some(6379),
        "http" => Some(80),
        "https" => Some(443),
        "postgres" => Some(5432),
        "mysql" => Some(3306),
        "mqtt" => Some(1883),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, url: &str) -> bool {
        Allowed::parse([pattern]).unwrap().allows(url, "redis")
    }

    #[test]
    fn an_address_is_allowed_if_scheme_host_and_port_are() {
        for (pattern, url, is_allowed) in [
            ("redis://localhost:6379", "redis://localhost", true),
            ("redis://localhost", "redis://localhost:6379/1", true),
            ("redis://localhost", "localhost:6379", true),
            ("redis://localhost", "redis://:secret@localhost/0", true),
            ("redis://localhost", "redis://localhost:6380", false),
            ("redis://localhost", "rediss://localhost:6379", false),
            ("redis://localhost", "redis://localhost@other:6379", false),
            ("rediss://*:*", "rediss://host:6380", true),
            ("*://localhost:*", "rediss://localhost:1", true),
            ("redis://*.example.org", "redis://a.example.org", true),
            ("redis://*.example.org", "redis://example.org", false),
            ("redis://127.0.0.1:6379", "redis://127.0.0.1", true),
            ("redis://127.0.0.0/8:6379", "redis://127.1.2.3", true),
            ("redis://127.0.0.0/8:6379", "redis://128.1.2.3", false),
            ("redis://[::1]:6379", "redis://[::1]:6379", true),
            (
                "redis://localhost:6379..6381",
                "redis://localhost:6380",
                true,
            ),
            (
                "redis://localhost:6379..6381",
                "redis://localhost:6381",
                false,
            ),
            ("redis://self", "redis://self", false),
            ("redis://localhost", "unix:///tmp/redis.sock", false),
            ("redis://localhost", "no address", false),
            ("", "redis://localhost", false),
        ] {
            assert_eq!(allows(pattern, url), is_allowed, "{pattern} {url}");
        }
        assert!(!Allowed::NONE.allows("redis://localhost", "redis"));
        assert!(Allowed::All.allows("redis://localhost", "redis"));
    }

    #[test]
    fn what_is_no_address_is_an_error_that_repeats_it() {
        for wrong in [
            "localhost",
            "*",
            "rediss://localhost",
            "redis://localhost:port",
            "redis://localhost/path",
            "redis://:secret@localhost:6379",
            "redis://a.*.example.org",
            "{redis,rediss}://localhost:6379",
        ] {
            let error = format!("{:#}", Allowed::parse([wrong]).unwrap_err());
            assert!(error.contains(wrong), "{error}");
        }
    }
}
