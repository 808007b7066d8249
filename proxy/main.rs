//! The command line: arguments, logging, signals, exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use toolgate::cli;

/// glibc's keeps what was freed between what is held, and its arenas for each thread; a static build has musl's otherwise,
/// which is slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A reverse proxy that puts many MCP servers behind one URL.
#[derive(Parser)]
#[command(version = cli::version())]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Where the operator's listener is unless the configuration puts it elsewhere.
const ADMIN: &str = "127.0.0.1:9464";

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Run {
        /// The configuration
        #[arg(long, short)]
        config: PathBuf,
    },
    /// Run a gateway in front of two small MCP servers inside this binary
    Demo,
    /// Say everything that is wrong with a configuration
    Check {
        /// The configuration
        file: PathBuf,
        /// Ask every backend, too: what it is, what it has, and what of that clients are not shown
        #[arg(long)]
        live: bool,
    },
    /// Say what a reload would change in a gateway that runs; exits with 78 when it would be rejected, 1 when that cannot be said
    Plan {
        /// The configuration to reload with
        file: PathBuf,
        /// The gateway, by the URL of its operator's listener
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9464")]
        against: cli::Operator,
    },
    /// Print the merged tools of all backends as a client would see them; exits with 1 when a backend could not be listed
    Tools {
        /// The configuration
        #[arg(long, short)]
        config: PathBuf,
    },
    /// Write down how all tools are defined now, as what `pin:` holds backends to; exits with 1 when a backend could not be listed
    Pin {
        /// The configuration
        #[arg(long, short)]
        config: PathBuf,
        /// Pin the tools of these backends only; of all when none is named
        #[arg(value_name = "BACKEND")]
        backends: Vec<String>,
    },
    /// Say whether the gateway on this machine takes calls; exits with 1 when it does not
    Health {
        /// Where its operator's listener is
        #[arg(long, default_value = ADMIN)]
        admin: cli::Operator,
        /// Only whether it runs
        #[arg(long)]
        alive: bool,
    },
    /// Have the gateway on this machine hand over to the binary that is now where its own was, without losing a call
    Upgrade {
        /// Where its operator's listener is
        #[arg(long, default_value = ADMIN)]
        admin: cli::Operator,
    },
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print a dashboard for Grafana, as JSON to import
    Dashboard,
    /// Print recording and alert rules for Prometheus
    Alerts,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(problem) => {
            // Help and version are no problems, and clap prints them to the right place.
            let _ = problem.print();
            return ExitCode::from(if problem.use_stderr() { cli::USAGE } else { 0 });
        }
    };
    let outcome = match arguments.command {
        Command::Run { config } => cli::run(config),
        Command::Demo => cli::demo(),
        Command::Check { file, live } => cli::check(&file, live),
        Command::Plan { file, against } => cli::plan(&file, &against),
        Command::Tools { config } => cli::tools(&config),
        Command::Pin { config, backends } => cli::pin(&config, &backends),
        Command::Health { admin, alive } => cli::health(&admin, alive),
        Command::Upgrade { admin } => cli::upgrade(&admin),
        Command::Schema => cli::schema(),
        Command::Dashboard => cli::dashboard(),
        Command::Alerts => cli::alerts(),
    };
    ExitCode::from(outcome)
}
