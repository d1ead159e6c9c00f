//! The program: arguments, logging, signals, exit code.

use anyhow::{Context as _, anyhow};
use clap::{Parser, Subcommand, ValueEnum};
use fanlight::access::password;
use fanlight::app::{App, Options, StartError, healthcheck};
use fanlight::config::{self, Config, Mistakes, Role};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

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
    Run {
        #[command(flatten)]
        config: ConfigFile,
        /// Write the addresses really bound to this file, as JSON.
        #[arg(long, value_name = "FILE")]
        ports_file: Option<PathBuf>,
    },
    /// Read the configuration only; exit 0, or 1 with every mistake as FILE:LINE:COLUMN: text.
    Check {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Read a password from the terminal or standard input and print a whole line for `users:`.
    Password {
        /// The user's name.
        name: String,
        /// May see, but not command.
        #[arg(long)]
        viewer: bool,
    },
    /// Exit 0 if the running gateway answers /readyz; for containers.
    Healthcheck {
        #[command(flatten)]
        config: ConfigFile,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct ConfigFile {
    /// The configuration; without it ./fanlight.yaml, then /etc/fanlight/fanlight.yaml, then no cameras.
    #[arg(long = "config", value_name = "FILE", env = "FANLIGHT_CONFIG")]
    file: Option<PathBuf>,
}

impl ConfigFile {
    fn find(&self) -> Option<PathBuf> {
        config::find(self.file.as_deref())
    }
}

/// Reads the configuration that was found, or none.
fn load(file: Option<&Path>) -> Result<Config, Mistakes> {
    file.map_or_else(|| Ok(Config::default()), config::load)
}

const CONFIGURATION: u8 = 1;
const PORT: u8 = 3;

fn main() -> ExitCode {
    let Arguments { log_format, command } = Arguments::parse();
    let result = match command {
        Command::Run { config, ports_file } => {
            start_log(log_format);
            run(&config, Options { ports_file, ..Options::default() })
        }
        Command::Check { config } => check(&config),
        Command::Password { name, viewer } => print_user(&name, viewer),
        Command::Healthcheck { config } => {
            // A file with a mistake in it does not make the running gateway ill.
            let config = load(config.find().as_deref()).unwrap_or_default();
            healthcheck::check(&config).map(|()| ExitCode::SUCCESS).map_err(anyhow::Error::from)
        }
    };
    result.unwrap_or_else(|error| {
        complain(&format!("fanlight: {error:#}"));
        ExitCode::from(CONFIGURATION)
    })
}

/// Says something to the person at the terminal, where there is no log.
fn complain(text: &str) {
    // Standard error may be closed, and then nobody wants to know.
    let _ = writeln!(io::stderr(), "{text}");
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).from_env_lossy();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
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
    tokio::runtime::Builder::new_multi_thread().worker_threads(cores.min(4)).enable_all().build()
}

fn run(config: &ConfigFile, options: Options) -> anyhow::Result<ExitCode> {
    raise_descriptor_limit();
    let file = config.find();
    match &file {
        Some(file) => tracing::info!(file = %file.display(), version = env!("CARGO_PKG_VERSION"), "configuration"),
        None => tracing::warn!("no fanlight.yaml here or in /etc/fanlight, so there are no cameras; the page says more"),
    }
    let config = match load(file.as_deref()) {
        Ok(config) => config,
        Err(mistakes) => {
            complain(&mistakes.to_string());
            return Ok(ExitCode::from(CONFIGURATION));
        }
    };
    let runtime = runtime().context("cannot start threads")?;
    let code = runtime.block_on(serve(config, file.as_deref(), options));
    // Look-ups of names and the like that still hang must not hold us up.
    runtime.shutdown_background();
    code
}

/// Serves until a signal ends it.
async fn serve(config: Config, file: Option<&Path>, options: Options) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut app = match App::start(config, options).await {
        Ok(app) => app,
        Err(error @ StartError::Port(_)) => {
            tracing::error!("{error}");
            return Ok(ExitCode::from(PORT));
        }
        Err(error) => return Err(error.into()),
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {}
        }
        // Ending must not wait for devices that are slow to say goodbye to a changed configuration.
        tokio::select! {
            () = app.reload(load(file)) => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping; a second signal leaves at once");
    tokio::select! {
        () = app.stop() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn check(config: &ConfigFile) -> anyhow::Result<ExitCode> {
    let Some(file) = config.find() else {
        return Err(anyhow!("there is no ./fanlight.yaml and no /etc/fanlight/fanlight.yaml; name one with --config"));
    };
    match config::load(&file) {
        Ok(config) => {
            for warning in &config.warnings {
                complain(&format!("{}:{warning}", file.display()));
            }
            let count = config.cameras.len();
            writeln!(io::stdout(), "{}: no mistakes, {count} camera{}", file.display(), if count == 1 { "" } else { "s" })?;
            Ok(ExitCode::SUCCESS)
        }
        Err(mistakes) => {
            complain(&mistakes.to_string());
            Ok(ExitCode::from(CONFIGURATION))
        }
    }
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
