//! The addresses to which a component may connect: `allowed_outbound_hosts` of a manifest, with Spin's rules.

use std::net::IpAddr;
use std::ops::Range;

use anyhow::{Context, bail, ensure};
use ipnet::IpNet;
use url::{Host, Url};

/// The addresses to which a component may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// All addresses.
    #[default]
    All,
    /// The addresses that match one of these.
    Hosts(Vec<Pattern>),
}

impl Allowed {
    /// No address.
    pub const NONE: Self = Self::Hosts(Vec::new());

    /// Parses `allowed_outbound_hosts` after its templates are filled in. An empty entry grants nothing.
    ///
    /// # Errors
    ///
    /// If an entry is not `SCHEME://HOST[:PORT]`, as on Spin.
    pub fn parse<'a>(hosts: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Self> {
        let hosts = hosts.into_iter().map(str::trim);
        let patterns = hosts.filter(|host| !host.is_empty()).map(|host| {
            Pattern::parse(host)
                .with_context(|| format!("cannot use {host:?} in allowed_outbound_hosts"))
        });
        Ok(Self::Hosts(patterns.collect::<anyhow::Result<_>>()?))
    }

    /// Whether the component may connect to `url`. If that has no scheme, it is `scheme`.
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

/// An entry of `allowed_outbound_hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// `None`: any scheme.
    scheme: Option<String>,
    host: Hosts,
    /// `None`: any port.
    ports: Option<Range<u32>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Any,
    /// `*.example.org`, without the asterisk.
    Below(String),
    One(Host),
    Network(IpNet),
    /// The application itself, which is never a Redis.
    Own,
}

impl Pattern {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            bail!("expected SCHEME://HOST[:PORT], with * for any");
        };
        let scheme = match scheme {
            "*" => None,
            scheme if scheme.chars().all(char::is_alphabetic) => Some(scheme.to_owned()),
            _ => bail!("the scheme {scheme:?} may have letters only"),
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
        let is_scheme = self
            .scheme
            .as_ref()
            .is_none_or(|scheme| scheme == url.scheme());
        let port = url.port().or_else(|| default_port(url.scheme()));
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
            ensure!(!domain.contains('*'), "{text:?} is not a host");
            return Ok(Self::Below(format!(".{domain}")));
        }
        ensure!(
            !text.contains('*'),
            "* can stand only for a whole host, or for its subdomains"
        );
        let host = Host::parse(text).with_context(|| format!("{text:?} is not a host"))?;
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
        number.with_context(|| format!("the port {text:?} is not a number"))
    };
    if text.is_empty() {
        let known = scheme.and_then(default_port);
        let port = known.context("it has no port, and its scheme has no default port")?;
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

/// The default port of a scheme.
fn default_port(scheme: &str) -> Option<u16> {
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
    fn an_invalid_address_is_an_error_that_repeats_it() {
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
