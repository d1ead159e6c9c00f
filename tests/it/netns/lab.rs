//! Network namespaces that are held by a process each: nothing has a name, so nothing clashes and nothing is left behind,
//! however a test ends.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

/// Where namespaces can be made.
pub(super) struct Lab {
    /// Without root: owns the user namespace in which we may do everything.
    user: Option<Holder>,
}

/// A process that sleeps in a namespace until its standard input ends, which it does with us.
#[derive(Debug)]
struct Holder {
    _child: Child,
    id: u32,
}

/// A network namespace; gone with the last clone and what runs in it.
#[derive(Clone, Debug)]
pub(super) struct Space {
    holder: Arc<Holder>,
    /// It belongs to a user namespace of ours.
    mapped: bool,
}

/// What every command of a test is started with: it must not outlive us.
fn prefixed(words: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).args(words).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs `words` and then `cat` in what they have made; an error says why that cannot be.
async fn hold(words: &[&str]) -> Result<Holder, String> {
    let mut command = prefixed(words);
    // It answers when it is there.
    command.args(["sh", "-c", "echo here && exec cat"]);
    let shown = words.join(" ");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("setpriv: {error}"))?;
    let id = child.id().ok_or("ended at once")?;
    let mut answer = [0; 5];
    let out = child.stdout.as_mut().expect("it is piped");
    if out.read_exact(&mut answer).await.is_err() {
        let mut said = String::new();
        let _ = child.stderr.as_mut().expect("it is piped").read_to_string(&mut said).await;
        return Err(format!("`{shown}`: {}", said.trim()));
    }
    Ok(Holder { _child: child, id })
}

impl Lab {
    /// None where namespaces, veth pairs or nftables cannot be had: says so, and the test has to end.
    pub(super) async fn or_skip() -> Option<Self> {
        match Self::open().await {
            Ok(lab) => Some(lab),
            Err(reason) => {
                let required = std::env::var_os("FANLIGHT_NETNS").is_some_and(|value| value == "required");
                assert!(!required, "no network namespaces: {reason}");
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                // Past the test runner, which keeps what passing tests print to itself.
                let _ = writeln!(
                    std::io::stderr(),
                    "\nSKIPPED, NOTHING WAS TESTED: {name}: no network namespaces: {reason}"
                );
                None
            }
        }
    }

    async fn open() -> Result<Self, String> {
        let root = rustix::process::geteuid().is_root();
        let user = match hold(&["unshare", "--net"]).await {
            Ok(_) if root => None,
            _ => Some(hold(&["unshare", "--user", "--map-root-user"]).await?),
        };
        let lab = Self { user };
        let [one, other] = [lab.try_space().await?, lab.try_space().await?];
        one.try_link("wan", "192.0.2.1/24", &other, "eth0", "192.0.2.2/24").await?;
        one.try_forwards().await?;
        one.try_nft("table ip nat { chain out { type nat hook postrouting priority 100; masquerade; }; }").await?;
        one.try_nft(
            "table inet t { counter c {}; chain in { type filter hook input priority 0; ct status dnat accept; }; }",
        )
        .await?;
        Ok(lab)
    }

    /// A namespace more, with loopback up.
    pub(super) async fn space(&self) -> Space {
        self.try_space().await.unwrap()
    }

    async fn try_space(&self) -> Result<Space, String> {
        let holder = match &self.user {
            None => hold(&["unshare", "--net"]).await?,
            Some(user) => {
                let id = user.id.to_string();
                hold(&["nsenter", "--target", &id, "--user", "--preserve-credentials", "unshare", "--net"]).await?
            }
        };
        let space = Space { holder: Arc::new(holder), mapped: self.user.is_some() };
        space.try_run("ip link set lo up", "").await?;
        Ok(space)
    }
}

impl Space {
    /// A program that is to run in this namespace.
    pub(super) fn command(&self, program: &str) -> Command {
        let id = self.holder.id.to_string();
        let mut words = vec!["nsenter", "--target", &id, "--net"];
        if self.mapped {
            words.extend(["--user", "--preserve-credentials"]);
        }
        words.push(program);
        prefixed(&words)
    }

    async fn try_run(&self, line: &str, input: &str) -> Result<String, String> {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().unwrap_or_default());
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("setpriv: {error}"))?;
        let mut pipe = child.stdin.take().expect("it is piped");
        let _ = pipe.write_all(input.as_bytes()).await; // it may have ended
        drop(pipe);
        let output = child.wait_with_output().await.map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("`{line}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// Runs a command that has to succeed.
    pub(super) async fn run(&self, line: &str) -> String {
        self.try_run(line, "").await.unwrap()
    }

    async fn try_link(&self, here: &str, ours: &str, there: &Self, name: &str, theirs: &str) -> Result<(), String> {
        let id = there.holder.id;
        self.try_run(&format!("ip link add name {here} type veth peer name {name} netns {id}"), "").await?;
        for (space, name, address) in [(self, here, ours), (there, name, theirs)] {
            space.try_run(&format!("ip address add {address} dev {name}"), "").await?;
            space.try_run(&format!("ip link set dev {name} up"), "").await?;
        }
        Ok(())
    }

    /// A cable from here to there, with an interface and an address at each end.
    pub(super) async fn link(&self, here: &str, ours: &str, there: &Self, name: &str, theirs: &str) {
        self.try_link(here, ours, there, name, theirs).await.unwrap();
    }

    async fn try_forwards(&self) -> Result<(), String> {
        self.try_run("tee /proc/sys/net/ipv4/ip_forward", "1").await.map(drop)
    }

    /// Makes it a router.
    pub(super) async fn forwards(&self) {
        self.try_forwards().await.unwrap();
    }

    async fn try_nft(&self, rules: &str) -> Result<(), String> {
        self.try_run("nft --file -", rules).await.map(drop)
    }

    /// Adds rules of nftables.
    pub(super) async fn nft(&self, rules: &str) {
        self.try_nft(rules).await.unwrap();
    }

    /// Bytes in a counter of an `inet` table.
    pub(super) async fn counted(&self, table: &str, counter: &str) -> u64 {
        let text = self.run(&format!("nft list counter inet {table} {counter}")).await;
        let mut words = text.split_whitespace().skip_while(|word| *word != "bytes");
        words.nth(1).unwrap_or_else(|| panic!("no counter in {text}")).parse().unwrap()
    }
}
