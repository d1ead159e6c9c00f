//! As much of WebDriver (W3C) as driving Chromium needs, and the one command of chromedriver's that goes beyond.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::child::Process;
use crate::rtsp; // HTTP's messages have the form of RTSP's

/// A Chromium without a window, with a profile of its own. Dropped = ended.
#[derive(Debug)]
pub struct Browser {
    driver: Process,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts chromedriver, and Chromium by it.
    ///
    /// # Errors
    /// They are not installed or do not start.
    pub fn start(folder: &Path) -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let program = Path::new("/usr/bin/chromedriver");
        let log = folder.join(format!("chromedriver-{}.log", address.port()));
        let driver = Process::start(program, &[&format!("--port={}", address.port())], &log)
            .context("packages chromium and chromium-driver")?;
        let mut browser = Self { driver, address, session: String::new() };
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(begin.elapsed() < Duration::from_secs(10), "chromedriver: {}", browser.driver.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        // root, as in containers, cannot have the sandbox
        let arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,1000"];
        let options = json!({ "args": arguments });
        let body =
            json!({ "capabilities": { "alwaysMatch": { "browserName": "chrome", "goog:chromeOptions": options } } });
        let answer = browser.ask("POST", "/session", &body)?;
        browser.session = format!("/session/{}", answer["sessionId"].as_str().context("no session")?);
        Ok(browser)
    }

    /// Runs `script` in every page from now on, before the page's own.
    ///
    /// # Errors
    /// The browser says no.
    pub fn before_pages(&self, script: &str) -> Result<()> {
        let params = json!({ "source": script });
        let body = json!({ "cmd": "Page.addScriptToEvaluateOnNewDocument", "params": params });
        self.command("/goog/cdp/execute", &body).map(drop)
    }

    /// Goes to a page; returns when it is loaded.
    ///
    /// # Errors
    /// The browser says no.
    pub fn go(&self, url: &str) -> Result<()> {
        self.command("/url", &json!({ "url": url })).map(drop)
    }

    /// What the body of a function returns.
    ///
    /// # Errors
    /// The script throws.
    pub fn run(&self, body: &str) -> Result<Value> {
        self.command("/execute/sync", &json!({ "script": body, "args": [] }))
    }

    fn command(&self, path: &str, body: &Value) -> Result<Value> {
        self.ask("POST", &format!("{}{path}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let body = body.to_string();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        write!(stream, "{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut bytes = Vec::new();
        let mut chunk = [0; 16 << 10];
        let answer = loop {
            if let Some((message, _)) = rtsp::parse(&bytes)? {
                break message;
            }
            match stream.read(&mut chunk)? {
                0 => bail!("chromedriver closed: {}", self.driver.log_tail()),
                n => bytes.extend_from_slice(&chunk[..n]),
            }
        };
        let mut value: Value = serde_json::from_slice(&answer.body)?;
        ensure!(answer.status() == 200, "{path}: {}", value["value"]["message"]);
        Ok(value["value"].take())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.ask("DELETE", &self.session, &json!({})); // ends Chromium; the driver is ended after this
    }
}
