//! [`Routes`]: several components behind one address.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};

use crate::harness::{Harness, whole};

/// Gives each request to a host, by the beginning of its path.
///
/// For a single [`Harness`], use `harness.into()`.
#[derive(Clone, Debug)]
pub struct Routes {
    root: Harness,
    /// Prefixes, which begin with a slash and do not end with one, and their hosts. The longest prefix comes first.
    mounts: Vec<(String, Harness)>,
}

impl From<Harness> for Routes {
    fn from(root: Harness) -> Self {
        Self {
            root,
            mounts: Vec::new(),
        }
    }
}

impl Routes {
    /// Gives the paths below `prefix` to another host. If several prefixes match, the longest one applies.
    ///
    /// The component sees paths without the prefix: with `/shop`, a request for `/shop/cart?full` becomes `/cart?full`. Its pages
    /// should use relative URLs. To make these work, `/shop` itself is redirected to `/shop/` (308).
    pub fn mount(mut self, prefix: &str, host: Harness) -> Self {
        let prefix = format!("/{}", prefix.trim_matches('/'));
        self.mounts.push((prefix, host));
        self.mounts
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        self
    }

    /// The same routes for another thread: see [`Harness::apart`].
    pub(crate) fn apart(&self) -> Self {
        let mounts = self.mounts.iter();
        Self {
            root: self.root.apart(),
            mounts: mounts
                .map(|(prefix, host)| (prefix.clone(), host.apart()))
                .collect(),
        }
    }

    /// Gives a request to its host. Rejects it with 503 if that host already serves as many requests as it may. Otherwise like
    /// [`Harness::handle`], also in cancel safety.
    pub async fn handle<B>(&self, mut request: Request<B>) -> Response<crate::Body>
    where
        B: http_body::Body<Data = Bytes, Error: Into<wasmtime_wasi_http::Error>> + Send + 'static,
    {
        for (prefix, host) in &self.mounts {
            let Some(rest) = request.uri().path().strip_prefix(prefix.as_str()) else {
                continue;
            };
            let query = request.uri().query().map(|query| format!("?{query}"));
            let query = query.unwrap_or_default();
            if rest.is_empty() {
                return redirect(&format!("{prefix}/{query}"));
            }
            if rest.starts_with('/')
                && let Some(uri) = with_path(request.uri(), &format!("{rest}{query}"))
            {
                *request.uri_mut() = uri;
                return host.admit(request).await;
            }
        }
        self.root.admit(request).await
    }
}

/// This URI with another path and query.
fn with_path(uri: &Uri, path_and_query: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).ok()?);
    Uri::from_parts(parts).ok()
}

fn redirect(location: &str) -> Response<crate::Body> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    whole(response)
}
