//! Rejected requests, security headers, and the OpenAPI description.

use http::Method;
use serde_json::Value;

use super::TOO_LONG;
use crate::conformance::client::Target;
use crate::conformance::report::{Failure, Outcome, equal};

pub async fn cross_site(target: &Target) -> Outcome {
    let name = target.name("cross-site");
    let path = format!("/events/{name}");
    let origin = ("origin", "https://conformance.invalid");
    for headers in [
        &[origin][..],
        &[("sec-fetch-site", "cross-site"), origin],
        &[("sec-fetch-site", "same-site"), origin],
    ] {
        let change = target.send(Method::PUT, &path, headers, "{\"set\": true}");
        change.await?.problem(403)?;
        let change = target.send(Method::POST, "/change_event", headers, "True");
        change.await?.problem(403)?;
    }
    target.get(&path).await?.state(0).map(drop)
}

pub async fn headers(target: &Target) -> Outcome {
    for path in ["/", "/events", "/nothing"] {
        let answer = target.get(path).await?;
        equal(
            "X-Content-Type-Options",
            "nosniff",
            answer.header("x-content-type-options"),
        )?;
        let policy = answer.header("content-security-policy");
        let is_strict = policy.contains("frame-ancestors 'none'")
            && policy.contains("default-src 'none'")
            && !policy.contains("unsafe");
        if !is_strict {
            let policy = format!("{policy:?}");
            return Err(Failure::new("a strict Content-Security-Policy", policy));
        }
    }
    Ok(())
}

pub async fn names(target: &Target) -> Outcome {
    let long = "x".repeat(65);
    for name in [long.as_str(), "%2E", "%2E%2E", "a%20b", "%C3%A4", "a:b"] {
        for path in ["", "/wait", "/stream"] {
            let path = format!("/events/{name}{path}");
            target.get(&path).await?.problem(400)?;
        }
    }
    Ok(())
}

pub async fn bodies(target: &Target) -> Outcome {
    let name = target.name("bodies");
    let path = format!("/events/{name}");
    for body in [
        "",
        "{",
        "true",
        "{}",
        "{\"set\": 1}",
        "{\"set\": true, \"x\": 1}",
    ] {
        let answer = target.send(Method::PUT, &path, &[], body).await?;
        answer.problem(400)?;
    }
    target.get(&path).await?.state(0).map(drop)
}

pub async fn long(target: &Target) -> Outcome {
    let path = format!("/events/{}", target.name("long"));
    let body = format!("{{\"set\": true{}}}", " ".repeat(TOO_LONG));
    let answer = target.send(Method::PUT, &path, &[], &body).await?;
    answer.problem(413)?;
    target.get(&path).await?.state(0).map(drop)
}

pub async fn parameters(target: &Target) -> Outcome {
    let name = target.name("parameters");
    target
        .get(&format!("/events/{name}?x=1"))
        .await?
        .problem(400)?;
    let path = format!("/events/{name}?set=true");
    let answer = target
        .send(Method::PUT, &path, &[], "{\"set\": true}")
        .await?;
    answer.problem(400)?;
    target
        .get(&format!("/events/{name}"))
        .await?
        .state(0)
        .map(drop)
}

pub async fn unknown(target: &Target) -> Outcome {
    for path in ["/nothing", "/events/a/b", "/events/a/wait/b", "/index.html"] {
        target.get(path).await?.problem(404)?;
    }
    Ok(())
}

pub async fn methods(target: &Target) -> Outcome {
    for (method, path, allowed) in [
        (Method::POST, "/", &["GET"][..]),
        (Method::GET, "/change_event", &["POST"]),
        (Method::DELETE, "/events", &["GET"]),
        (Method::PATCH, "/events/a", &["GET", "PUT", "DELETE"]),
        (Method::PUT, "/events/a/wait", &["GET"]),
        (Method::PUT, "/events/a/stream", &["GET"]),
        (Method::POST, "/service", &["GET"]),
        (Method::GET, "/service/start", &["POST"]),
        (Method::GET, "/service/stop", &["POST"]),
        (Method::PUT, "/openapi.json", &["GET"]),
    ] {
        let answer = target.send(method, path, &[], "").await?.problem(405)?;
        let allow = answer.header("allow");
        for method in allowed {
            if !allow.split(',').any(|allowed| allowed.trim() == *method) {
                return Err(Failure::new(
                    format_args!("Allow with {method} at {path}"),
                    format_args!("{allow:?}"),
                ));
            }
        }
    }
    Ok(())
}

pub async fn routes(target: &Target) -> Outcome {
    let answer = target.get("/openapi.json").await?.status(200)?;
    let document = answer
        .media_type("application/json")?
        .not_stored()?
        .json()?;
    let version = document["openapi"].as_str().unwrap_or_default();
    if !version.starts_with("3.1.") {
        return Err(Failure::new("OpenAPI 3.1", format_args!("{version:?}")));
    }
    for (path, methods) in [
        ("/", &["get"][..]),
        ("/change_event", &["post"]),
        ("/events", &["get"]),
        ("/events/{name}", &["get", "put", "delete"]),
        ("/events/{name}/wait", &["get"]),
        ("/events/{name}/stream", &["get"]),
        ("/service", &["get"]),
        ("/service/start", &["post"]),
        ("/service/stop", &["post"]),
        ("/service/stream", &["get"]),
        ("/lifespan/startup", &["post"]),
        ("/lifespan/shutdown", &["post"]),
        ("/healthz", &["get"]),
        ("/openapi.json", &["get"]),
    ] {
        for method in methods {
            if !matches!(document["paths"][path][method], Value::Object(_)) {
                return Err(Failure::new(format_args!("{method} {path}"), "none"));
            }
        }
    }
    Ok(())
}
