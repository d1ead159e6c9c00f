//! Debian's Chromium, driven through its chromedriver.

use super::PATIENCE;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};

/// One browser at a time: each wants a core of its own.
static TURN: Mutex<()> = Mutex::const_new(());

/// Needed in containers, or for video that plays without a click. All media stays on this machine.
const FLAGS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// A window, and the browser behind it, until it is closed.
pub(crate) struct Browser {
    client: Client,
    driver: Driver,
    _turn: MutexGuard<'static, ()>,
}

/// Ends with the test, with the browser that it started: both are in one process group.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// Which colours the page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

impl Browser {
    /// A new browser with nothing remembered. Panics if the packages are not installed.
    pub(crate) async fn start() -> Self {
        use std::os::unix::process::CommandExt as _;
        let turn = TURN.lock().await;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        // Killed with this test, should somebody kill that; and the browser ends with the pipe between the two.
        let mut driver = Command::new("setpriv");
        driver
            .args(["--pdeathsig", "KILL", "chromedriver"])
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let driver = driver.spawn().unwrap();
        let driver = Driver(driver);
        let options = json!({ "args": FLAGS });
        let capabilities = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let Value::Object(capabilities) = capabilities else { unreachable!() };
        let address = format!("http://127.0.0.1:{port}");
        let begin = Instant::now();
        let client = loop {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            match builder.capabilities(capabilities.clone()).connect(&address).await {
                Ok(client) => break client,
                Err(error) if begin.elapsed() > PATIENCE => {
                    panic!("no browser (the Debian packages chromium and chromium-driver bring it): {error}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let browser = Self { client, driver, _turn: turn };
        browser.view(1280, 800, Scheme::Light).await;
        browser
    }

    /// The size of the window in CSS pixels, and the colours.
    pub(crate) async fn view(&self, width: u32, height: u32, scheme: Scheme) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let value = if scheme == Scheme::Dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// Runs that script before anything else in each page to come.
    pub(crate) async fn before_pages(&self, script: &str) {
        self.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })).await;
    }

    /// Goes to a page.
    pub(crate) async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// The address of the page.
    pub(crate) async fn address(&self) -> String {
        self.client.current_url().await.unwrap().to_string()
    }

    /// What a function body gives; its arguments are in `arguments`.
    pub(crate) async fn run(&self, script: &str, arguments: &[Value]) -> Value {
        self.client.execute(script, arguments.to_vec()).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// What a promise resolves to. The script calls the last of its arguments with it.
    pub(crate) async fn wait(&self, script: &str, arguments: &[Value]) -> Value {
        self.client.execute_async(script, arguments.to_vec()).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Until the function body gives something that is true; gives that.
    pub(crate) async fn until(&self, what: &str, script: &str) -> Value {
        let begin = Instant::now();
        loop {
            let value = self.run(script, &[]).await;
            let nothing = matches!(&value, Value::Null | Value::Bool(false)) || value == json!(0) || value == json!("");
            if !nothing {
                return value;
            }
            if begin.elapsed() > 2 * PATIENCE {
                let shown = self.run("return document.body.innerText", &[]).await;
                panic!("waited too long until {what}; the page shows {shown}; console: {:?}", self.console().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Presses keys, one after the other, as a keyboard does.
    pub(crate) async fn press(&self, keys: &[char]) {
        use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
        let press =
            |actions: KeyActions, &value: &char| actions.then(KeyAction::Down { value }).then(KeyAction::Up { value });
        let actions = keys.iter().fold(KeyActions::new("keyboard".into()), press);
        self.client.perform_actions(actions).await.unwrap();
    }

    /// Clicks what the selector finds, as a pointer does.
    pub(crate) async fn click(&self, selector: &str) {
        self.client.find(fantoccini::Locator::Css(selector)).await.unwrap().click().await.unwrap();
    }

    /// Types into what the selector finds.
    pub(crate) async fn write(&self, selector: &str, text: &str) {
        self.client.find(fantoccini::Locator::Css(selector)).await.unwrap().send_keys(text).await.unwrap();
    }

    /// Errors and warnings on the console since the last call.
    pub(crate) async fn console(&self) -> Vec<String> {
        let log = self.issue("se/log", json!({ "type": "browser" })).await;
        let serious = |entry: &&Value| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING"));
        let entries = log.as_array().unwrap().iter().filter(serious);
        entries.map(|entry| format!("{}: {}", entry["level"].as_str().unwrap(), entry["message"])).collect()
    }

    /// Keeps a picture of the page below `target/screenshots/`, for people to look at.
    pub(crate) async fn screenshot(&self, name: &str) {
        use base64::Engine as _;
        let shot = self.devtools("Page.captureScreenshot", json!({ "format": "png" })).await;
        let png = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), png).unwrap();
    }

    /// Ends the browser in order.
    pub(crate) async fn close(self) {
        let _ = self.client.close().await;
        drop(self.driver);
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.issue("goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    async fn issue(&self, path: &'static str, body: Value) -> Value {
        self.client.issue_cmd(Extension { path, body }).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

/// What chromedriver has beyond the standard.
#[derive(Debug)]
struct Extension {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Extension {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (axum::http::Method, Option<String>) {
        (axum::http::Method::POST, Some(self.body.to_string()))
    }
}
