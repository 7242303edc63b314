//! The service, the lifespan, and health. The service may be running, so these checks do not start or stop it.

use http::Method;

use crate::conformance::client::Target;
use crate::conformance::report::{Failure, Outcome, equal};

pub async fn look(target: &Target) -> Outcome {
    let answer = target.get("/service").await?.status(200)?;
    let answer = answer.media_type("application/json")?.not_stored()?;
    let body = answer.json()?;
    let states = ["stopped", "running", "stopping", "lost"];
    let is_state = body["state"]
        .as_str()
        .is_some_and(|state| states.contains(&state));
    if is_state && body["ticks"].is_u64() {
        Ok(())
    } else {
        Err(Failure::new("a state and ticks", answer.body))
    }
}

pub async fn nonsense(target: &Target) -> Outcome {
    for timeout in ["-1", "soon", "1e9", ""] {
        let path = format!("/service/stop?timeout={timeout}");
        let answer = target.send(Method::POST, &path, &[], "").await?;
        answer.problem(400)?;
    }
    Ok(())
}

pub async fn lacking(target: &Target) -> Outcome {
    for (method, path) in [
        (Method::GET, "/service"),
        (Method::GET, "/service/stream"),
        (Method::POST, "/service/start"),
        (Method::POST, "/service/stop"),
    ] {
        target.send(method, path, &[], "").await?.problem(501)?;
    }
    Ok(())
}

pub async fn lifespan(target: &Target) -> Outcome {
    for path in ["/lifespan/startup", "/lifespan/shutdown"] {
        for headers in [&[][..], &[("authorization", "Bearer wrong")]] {
            let answer = target.send(Method::POST, path, headers, "").await?;
            let expected = if answer.status == 403 { 403 } else { 401 };
            answer.problem(expected)?;
        }
    }
    Ok(())
}

pub async fn health(target: &Target) -> Outcome {
    let answer = target.get("/healthz").await?.status(200)?.not_stored()?;
    let body = answer.json()?;
    equal("status", Some("ok"), body["status"].as_str())?;
    if body["store_ms"].as_f64().is_some_and(|took| took >= 0.0) {
        Ok(())
    } else {
        Err(Failure::new("store_ms", answer.body))
    }
}
