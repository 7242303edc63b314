//! The page in a real browser: headless Chromium, driven over WebDriver.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::shared::programs::program;
use crate::support::Host;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// ChromeDriver on a port of its choice, and its URL.
async fn driver(program: PathBuf) -> (Child, String) {
    let mut driver = Command::new(program)
        .arg("--port=0")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, port)) = line.rsplit_once("on port ") {
            let port = port.trim_end_matches('.');
            if port.parse::<u16>().is_ok_and(|port| port != 0) {
                return (driver, format!("http://127.0.0.1:{port}"));
            }
        }
    }
    panic!("ChromeDriver did not say on which port it listens");
}

async fn button(client: &Client) -> String {
    let buttons = client.find_all(Locator::Css("button")).await.unwrap();
    assert_eq!(buttons.len(), 1);
    buttons[0].text().await.unwrap()
}

/// Waits until the button says this. The page is loaded again after a click.
async fn button_says(client: &Client, text: &str) {
    let button = format!("//button[normalize-space()='{text}']");
    client
        .wait()
        .at_most(Duration::from_secs(20))
        .for_element(Locator::XPath(&button))
        .await
        .unwrap_or_else(|error| panic!("no button says {text:?}: {error}"));
}

async fn click(client: &Client) {
    let button = client.find(Locator::Css("button")).await.unwrap();
    button.click().await.unwrap();
}

/// A browser, and its ChromeDriver, which ends with this.
struct Browser {
    client: Client,
    _driver: Child,
}

/// Starts a browser with its profile in this directory. Where there is none, says so; but CI must have one.
async fn browser(directory: &Path) -> Option<Browser> {
    let chromium = program(&["chromium", "chromium-browser", "google-chrome"]);
    let (Some(chromium), Some(chromedriver)) = (chromium, program(&["chromedriver"])) else {
        return None;
    };
    let (driver, url) = driver(chromedriver).await;
    let profile = directory.join("profile");
    let options = serde_json::json!({
        "goog:chromeOptions": {
            "binary": chromium,
            "args": [
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
                format!("--user-data-dir={}", profile.display()),
            ],
        },
    });
    let client = ClientBuilder::new(HttpConnector::new())
        .capabilities(options.as_object().unwrap().clone())
        .connect(&url)
        .await
        .unwrap();
    Some(Browser {
        client,
        _driver: driver,
    })
}

#[tokio::test]
async fn clicking_set_offers_clear_and_clicking_clear_offers_set() {
    let directory = tempfile::tempdir().unwrap();
    let Some(Browser { client, _driver }) = browser(directory.path()).await else {
        return;
    };
    let host = Host::start(directory.path(), &[]).await;

    client.goto(&host.url).await.unwrap();
    assert_eq!(button(&client).await, "Set");
    click(&client).await;
    button_says(&client, "Clear").await;
    let state = client.find(Locator::Css("strong")).await.unwrap();
    assert_eq!(state.text().await.unwrap(), "set");

    // It is the server that knows, not the page.
    let (_, page) = host.send("GET", "/", "", false).await;
    assert!(page.contains(">Clear<"), "{page}");
    client.refresh().await.unwrap();
    assert_eq!(button(&client).await, "Clear");

    click(&client).await;
    button_says(&client, "Set").await;
    let (_, page) = host.send("GET", "/", "", false).await;
    assert!(page.contains(">Set<"), "{page}");

    // The page of a named event changes that event.
    client
        .goto(&format!("{}/events/door", host.url))
        .await
        .unwrap();
    assert_eq!(button(&client).await, "Set");
    click(&client).await;
    button_says(&client, "Clear").await;
    let (_, shown) = host.send("GET", "/events/door", "", false).await;
    assert!(shown.contains("\"set\":true"), "{shown}");
    let (_, page) = host.send("GET", "/", "", false).await;
    assert!(page.contains(">Set<"), "{page}");

    client.close().await.unwrap();
}

/// What the page of the gotcha says when a story is over, and the rows of its table.
async fn story(client: &Client, button: &str) -> (String, Vec<String>) {
    let button = client.find(Locator::Css(button)).await.unwrap();
    button.click().await.unwrap();
    let verdict = Locator::XPath("//*[@id='verdict'][normalize-space()]");
    let wait = client.wait().at_most(Duration::from_secs(20));
    let verdict = wait.for_element(verdict).await.unwrap();
    let mut rows = Vec::new();
    for row in client.find_all(Locator::Css("tbody tr")).await.unwrap() {
        rows.push(row.text().await.unwrap());
    }
    (verdict.text().await.unwrap(), rows)
}

#[tokio::test]
async fn the_gotchas_page_shows_both_ways_to_lose_an_event() {
    let directory = tempfile::tempdir().unwrap();
    let Some(Browser { client, _driver }) = browser(directory.path()).await else {
        return;
    };
    let host = Host::start(directory.path(), &["--store", "memory", "--gotcha"]).await;
    client.goto(&format!("{}/gotcha", host.url)).await.unwrap();

    let (verdict, rows) = story(&client, "#lose").await;
    assert!(verdict.contains("200, and is lost"), "{verdict} {rows:?}");
    let expected = ["POST clear 200", "POST set 200", "GET event 200"];
    let begins = |(row, expected): (&String, &&str)| row.starts_with(*expected);
    assert!(rows.iter().zip(&expected).all(begins), "{rows:?}");

    let (verdict, rows) = story(&client, "#trap").await;
    assert!(verdict.contains("woke a future"), "{verdict} {rows:?}");
    let expected = [
        "POST clear 200",
        "GET bystander 500",
        "GET wait 500",
        "POST set 500",
        "GET event 200",
    ];
    assert_eq!(rows.len(), expected.len(), "{rows:?}");
    assert!(rows.iter().zip(&expected).all(begins), "{rows:?}");

    // The way out leads to the event that works.
    client
        .find(Locator::LinkText("does not do this"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    button_says(&client, "Set").await;
    client.close().await.unwrap();
}
