//! The program: arguments, logging, signals, exit code.

use anyhow::{Context as _, anyhow};
use clap::{Parser, Subcommand, ValueEnum};
use fanlight::access::{self, Auth, Role, password};
use fanlight::app::{App, Options, StartError, healthcheck};
use fanlight::config::{self, Config};
use fanlight::ingest;
use fanlight::simulate;
use fanlight::simulate::demo::{Demo, Reach};
use fanlight::transcode::{self, Pipelines};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::Level;
use tracing_subscriber::filter::{self, LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

/// Self-hosted gateway for doorbells and cameras: opens each device once, gives its picture to everyone.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Arguments {
    /// How to write the log, which goes to standard error; RUST_LOG sets its level.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 stopped as asked, 1 configuration, 2 usage, 3 a port could not be bound.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or Ctrl-C; SIGHUP reads the configuration again.
    Run(Run),
    /// Read the configuration only; exit 0, or 1 with every mistake as FILE:LINE:COLUMN: text.
    Check {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Two simulated cameras and an ordinary gateway in front of them; prints what to open.
    Demo {
        /// Let everybody in the local network watch, not only this machine.
        #[arg(long)]
        lan: bool,
    },
    /// Look for devices on the local network; prints lines ready for the configuration.
    Discover {
        /// How long to wait for answers, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
        seconds: u64,
    },
    /// One simulated device in the foreground; what happens to it goes to standard output as JSON.
    Simulate(simulate::Args),
    /// Read a password from the terminal or standard input and print a whole line for `users:`.
    Password {
        /// The user's name.
        name: String,
        /// May see, but not command.
        #[arg(long)]
        viewer: bool,
    },
    /// An encoder's own process, started by `run`.
    #[command(hide = true)]
    Rendition,
    /// Exit 0 if the running gateway answers /readyz; for containers.
    Healthcheck {
        #[command(flatten)]
        config: ConfigFile,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    config: ConfigFile,
    /// Write the addresses really bound to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
    /// For containers and services: if the configuration names no users, the first start makes an `admin`, shows its
    /// password once, and keeps its hash in this directory. Everything else that must survive a restart is kept there,
    /// too, unless the configuration has a `store: path`.
    #[arg(long, value_name = "DIRECTORY", env = "STATE_DIRECTORY")]
    state_directory: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
struct ConfigFile {
    /// The configuration; without it ./fanlight.yaml, then /etc/fanlight/fanlight.yaml; `run` goes without cameras if
    /// there is neither.
    #[arg(long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl ConfigFile {
    fn find(&self) -> Option<PathBuf> {
        config::find(self.file.as_deref())
    }

    /// The folder whose pipelines replace those of the program.
    fn pipelines(&self) -> Option<PathBuf> {
        self.find().map(|file| file.parent().unwrap_or(Path::new("")).join("pipelines"))
    }
}

const CONFIGURATION: u8 = 1;
const PORT: u8 = 3;
/// Exit code of a usage mistake, as clap gives it too.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let Arguments { log_format, command } = Arguments::parse();
    let result = match command {
        Command::Run(arguments) => {
            start_log(log_format);
            run(arguments, || {})
        }
        Command::Demo { lan } => {
            start_log(log_format);
            demo(if lan { Reach::Lan } else { Reach::Loopback })
        }
        Command::Simulate(arguments) => {
            start_log(log_format);
            simulate(arguments)
        }
        Command::Discover { seconds } => discover(Duration::from_secs(seconds)),
        Command::Check { config } => check(&config),
        Command::Password { name, viewer } => print_user(&name, viewer),
        Command::Rendition => transcode::child::run().map_err(Into::into),
        Command::Healthcheck { config } => health(&config).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        // Not the chain of causes: our errors tell theirs themselves.
        complain(&format!("fanlight: {error}"));
        ExitCode::from(CONFIGURATION)
    })
}

/// Asks the gateway that runs with this configuration.
fn health(config: &ConfigFile) -> anyhow::Result<()> {
    let config = match config.find() {
        None => Config::default(),
        Some(file) => config::load(&file).map_err(|_| {
            anyhow!(
                "{} cannot be used, so it is not known where the gateway listens; see fanlight check",
                file.display()
            )
        })?,
    };
    Ok(healthcheck::check(&config)?)
}

/// Says something to whoever reads standard output.
fn say(text: &str) {
    // Nobody reading is no reason to stop.
    let _ = writeln!(io::stdout(), "{text}");
}

/// Says something to the person at the terminal, where there is no log.
fn complain(text: &str) {
    // Standard error may be closed, and then nobody wants to know.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Levels as in `debug` or `info,retina=debug`. An `EnvFilter` could do more, but brings a regex engine of half a
/// megabyte.
fn levels(text: &str) -> Result<Targets, filter::ParseError> {
    let text = if text.is_empty() { "info" } else { text };
    let mut levels: Targets = text.parse()?;
    let quiet = levels.default_level().unwrap_or(LevelFilter::OFF).min(LevelFilter::ERROR);
    for talkative in TALKATIVE {
        if !text.contains(talkative) {
            levels = levels.with_target(talkative, quiet);
        }
    }
    Ok(levels)
}

/// Libraries that are heard only where `RUST_LOG` names them. What matters of what they say stands in our own words.
const TALKATIVE: [&str; 4] = [
    // Tells the details of every session as INFO, and as WARN what it would like cameras to do better, at every
    // reconnection again.
    "retina", // Warns of every player that sends an address as the name of the host.
    "rustls", // Warns of datagrams that anybody can send, a line for each.
    "rtc",    // Tells every command of every client.
    "libunftp",
];

fn start_log(format: LogFormat) {
    let (levels, mistake) = match levels(&std::env::var("RUST_LOG").unwrap_or_default()) {
        Ok(levels) => (levels, None),
        Err(mistake) => (Targets::new().with_default(Level::INFO), Some(mistake)),
    };
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // For the whole log, not by `with_filter` for its one layer: such a filter remembers what it was last asked, so that
    // a question without a record, as retina's through the `log` crate, swallows the next line of ours.
    tracing_subscriber::registry().with(levels).with(lines).init();
    if let Some(mistake) = mistake {
        tracing::warn!("RUST_LOG is not understood: {mistake}");
    }
    std::panic::set_hook(Box::new(|panic| tracing::error!("a defect in this program: {panic}")));
}

/// As many file descriptors as we may have: each viewer takes one, and the usual limit of 1024 is for `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of file descriptors stays");
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(4))
        // For look-ups of names and for password hashes; idle ones end after 10 s.
        .max_blocking_threads(32)
        .enable_all()
        .build()
}

/// Reads the configuration, at start and again on SIGHUP. Mistakes and warnings are logged; `None` if there are
/// mistakes.
fn load(arguments: &Run) -> Option<Config> {
    let Some(file) = arguments.config.find() else {
        tracing::warn!("no fanlight.yaml here or in /etc/fanlight, so there are no cameras; the page says what to do");
        return Some(with_state(Config::default(), arguments.state_directory.as_deref()));
    };
    let name = file.display().to_string();
    let pipelines = Pipelines::load(arguments.config.pipelines().as_deref());
    for mistakes in pipelines.as_ref().err().into_iter().flatten() {
        for mistake in &mistakes.list {
            tracing::error!("{}", mistake.in_file(&mistakes.file));
        }
    }
    match config::load(&file) {
        Ok(_) if pipelines.is_err() => None,
        Ok(config) => {
            tracing::info!(file = name, cameras = config.cameras.len(), users = config.users.len(), "configuration");
            for warning in &config.warnings {
                tracing::warn!("{}", warning.in_file(&name));
            }
            Some(with_state(config, arguments.state_directory.as_deref()))
        }
        Err(mistakes) => {
            for mistake in &mistakes.list {
                tracing::error!("{}", mistake.in_file(&name));
            }
            None
        }
    }
}

/// Keeps everything in the state directory unless the configuration names another place, and adds the user made at the
/// first start, if one is needed.
fn with_state(mut config: Config, state: Option<&Path>) -> Config {
    let Some(state) = state else { return config };
    if !config.store.named {
        config.store.path = state.to_owned();
    }
    if config.auth == Auth::None || !config.users.is_empty() {
        return config;
    }
    match access::first_start(state) {
        Ok((users, made)) => {
            config.users = users;
            if let Some(made) = made {
                // The only time that a secret is shown, as nobody could know it otherwise; and not in the log.
                say(&format!(
                    "\nFirst start: a user was made. This is shown once; of the password only a hash is kept.\n\
                     \n    user name   {}\n    password    {}\n    stream key  {}    (the password in rtsp:// addresses)\n",
                    made.name,
                    made.password.reveal(),
                    made.stream_key.reveal(),
                ));
            }
        }
        // Without users everything listens on this machine only, which is safe.
        Err(error) => tracing::error!("no first user: {error}"),
    }
    config
}

/// Serves until a signal ends it; `started` is called once everything listens.
fn run(arguments: Run, started: impl FnOnce()) -> anyhow::Result<ExitCode> {
    raise_descriptor_limit();
    let Some(config) = load(&arguments) else {
        return Ok(ExitCode::from(CONFIGURATION));
    };
    let runtime = runtime().context("cannot start threads")?;
    let code = runtime.block_on(serve(config, &arguments, started));
    // Look-ups of names and the like that still hang must not hold us up. And nothing is taken apart behind the back of
    // what still runs: retina panics where its goodbye is dropped before whoever waits for it.
    std::mem::forget(runtime);
    code
}

async fn serve(config: Config, arguments: &Run, started: impl FnOnce()) -> anyhow::Result<ExitCode> {
    let mut signals = EndSignals::new()?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let pipelines = arguments.config.pipelines();
    let options = Options { ports_file: arguments.ports_file.clone(), pipelines, ..Options::default() };
    let mut app = match App::start(config, options).await {
        Ok(app) => app,
        Err(error @ StartError::Port(_)) => {
            tracing::error!("{error}");
            return Ok(ExitCode::from(PORT));
        }
        Err(error @ StartError::Certificate(_)) => {
            tracing::error!("{error}");
            return Ok(ExitCode::from(CONFIGURATION));
        }
        Err(error @ StartError::PortsFile { .. }) => {
            tracing::error!("{error}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    started();
    loop {
        tokio::select! {
            () = signals.end() => break,
            _ = hang_up.recv() => {}
        }
        let Some(config) = load(arguments) else {
            tracing::error!("the configuration has mistakes, so nothing was changed");
            app.keep();
            continue;
        };
        // Ending must not wait for devices that are slow to say goodbye to a changed configuration.
        tokio::select! {
            () = app.reload(config) => {}
            () = signals.end() => break,
        }
    }
    tracing::info!("stopping; a second signal leaves at once");
    tokio::select! {
        () = app.stop() => {}
        () = signals.end() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The signals that end the program.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for SIGTERM or Ctrl-C.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn demo(reach: Reach) -> anyhow::Result<ExitCode> {
    let demo = Demo::start(reach)?;
    let config = ConfigFile { file: Some(demo.config().to_owned()) };
    run(Run { config, ports_file: None, state_directory: None }, || {
        say(&demo.guide());
    })
}

fn simulate(arguments: simulate::Args) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let mut signals = EndSignals::new()?;
        let cancel = CancellationToken::new();
        let running = simulate::run(arguments, cancel.clone());
        tokio::pin!(running);
        tokio::select! {
            result = running.as_mut() => result?,
            () = signals.end() => {
                cancel.cancel();
                tokio::select! {
                    result = running => result?,
                    () = signals.end() => {}
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn discover(time: Duration) -> anyhow::Result<ExitCode> {
    complain(&format!("Asking the local network for {} s …", time.as_secs()));
    let found = runtime()?.block_on(ingest::discover::discover(time))?;
    if found.is_empty() {
        complain(
            "Nobody answered. RTSP cameras, and those that are polled or push their pictures, cannot be found this way; a \
             firewall or another network segment keeps the others' answers out.",
        );
        return Ok(ExitCode::SUCCESS);
    }
    say("cameras:");
    found.iter().for_each(|found| say(&found.to_string()));
    Ok(ExitCode::SUCCESS)
}

fn check(config: &ConfigFile) -> anyhow::Result<ExitCode> {
    let Some(file) = config.find() else {
        return Err(anyhow!("there is no ./fanlight.yaml and no /etc/fanlight/fanlight.yaml; name one with --config"));
    };
    let pipelines = Pipelines::load(config.pipelines().as_deref());
    let config = config::load(&file);
    match &config {
        Ok(config) => {
            for warning in &config.warnings {
                complain(&warning.in_file(&file.display().to_string()).to_string());
            }
        }
        Err(mistakes) => complain(&mistakes.to_string()),
    }
    let sound = match pipelines {
        Ok(pipelines) => check_pipelines(&pipelines)?,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistakes| complain(&mistakes.to_string()));
            false
        }
    };
    let Ok(config) = config else { return Ok(ExitCode::from(CONFIGURATION)) };
    if !sound {
        return Ok(ExitCode::from(CONFIGURATION));
    }
    let count = config.cameras.len();
    writeln!(io::stdout(), "{}: no mistakes, {count} camera{}", file.display(), if count == 1 { "" } else { "s" })?;
    Ok(ExitCode::SUCCESS)
}

/// Builds all pipelines and tells what is wrong; false if something is that cannot work anywhere.
fn check_pipelines(pipelines: &Pipelines) -> anyhow::Result<bool> {
    let program = transcode::own_program();
    let findings = runtime()?.block_on(transcode::check(&program, pipelines)).map_err(|text| anyhow!(text))?;
    for finding in &findings {
        complain(&format!("{}: {}", finding.place, finding.text));
    }
    Ok(findings.iter().all(|finding| !finding.mistake))
}

fn print_user(name: &str, viewer: bool) -> anyhow::Result<ExitCode> {
    if !password::is_user_name(name) {
        return Err(password::PasswordError::Name.into());
    }
    let role = if viewer { Role::Viewer } else { Role::Admin };
    let line = password::line(name, role, &password::read()?)?;
    writeln!(io::stdout(), "{line}")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_asked_for() {
        let enabled = |text: &str, target: &str, level: Level| levels(text).unwrap().would_enable(target, &level);
        assert!(enabled("", "fanlight::app", Level::INFO) && !enabled("", "fanlight::app", Level::DEBUG));
        assert!(enabled("debug", "fanlight", Level::DEBUG) && !enabled("debug", "retina::client", Level::INFO));
        assert!(enabled("", "retina", Level::ERROR) && !enabled("", "retina", Level::WARN));
        assert!(!enabled("debug", "rustls::msgs", Level::WARN) && enabled("rustls=debug", "rustls", Level::DEBUG));
        assert!(enabled("info,retina=debug", "retina::client", Level::DEBUG));
        assert!(levels("info,=nonsense=").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
