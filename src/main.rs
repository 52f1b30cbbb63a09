//! The octostore server. Everything is in the library; this turns arguments into an exit code.
//!
//! Guarantees: the banner is printed once the server listens, and what the log has by then stands
//! before it. Not here: what a server does.

use std::io::Write;
use std::process::ExitCode;

use octostore::config::{Config, ConfigError};
#[cfg(feature = "etcd")]
use octostore::server::Member;
use octostore::server::logging;
use octostore::server::{self, Server, StartError};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = octostore::cli::run(std::env::args_os()) {
        return code;
    }
    let read = || Config::read(octostore::cli::server_arguments(std::env::args_os()));
    let mut config = match read() {
        Ok(config) => config,
        // --help and --version.
        Err(ConfigError::Usage(error)) if !error.use_stderr() => error.exit(),
        Err(error) => return fail(2, &error.to_string()),
    };
    // Written in full when it is dropped, behind everything else.
    let log = match logging::to_stderr(config.log) {
        Ok(log) => log,
        Err(error) => return fail(1, &format!("cannot start threads: {error}")),
    };
    server::keep_files_private();
    server::avoid_huge_pages();
    let fewer_connections = server::fit_file_limit(&mut config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.threads)
        .on_thread_park(octostore::journal::commit_before_park)
        .enable_all()
        .build();
    let served = runtime.map(|runtime| {
        runtime.block_on(async {
            let hangups = server::Hangups::catch();
            #[cfg(feature = "etcd")]
            if let Some(store) = &config.store {
                let member = Member::start(&config, store).await?;
                warn_of_few_connections(&config, fewer_connections.as_deref());
                tokio::spawn(hangups.reload(member.reloader(), read));
                let stop = server::asked_to_stop();
                announce(&log, &member.banner());
                member.run(stop).await;
                return Ok(());
            }
            let server = Server::start(&config).await?;
            warn_of_few_connections(&config, fewer_connections.as_deref());
            tokio::spawn(hangups.reload(server.reloader(), read));
            // Before the banner: a supervisor that has read it may send SIGTERM at once.
            let stop = server::asked_to_stop();
            announce(&log, &server.banner());
            server.run(stop).await;
            Ok::<(), StartError>(())
        })
    });
    match served {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => log.print(&format!("octostore: {error}")),
        Err(error) => log.print(&format!("octostore: cannot start threads: {error}")),
    }
    ExitCode::FAILURE
}

/// Most systems allow fewer connections than the default; that is a concern only if few are left.
fn warn_of_few_connections(config: &Config, fewer: Option<&str>) {
    let Some(fewer) = fewer else { return };
    match config.listener.connections_max < server::FEW_CONNECTIONS {
        true => tracing::warn!("{fewer}"),
        false => tracing::info!("{fewer}"),
    }
}

/// Prints the banner, and notifies the supervisor that the server serves.
fn announce(log: &logging::Log, banner: &str) {
    // Where stdout and stderr are one pipe, no line of the log interrupts the banner: those before it
    // are written, and the banner is one write.
    log.flush();
    // If stdout is closed, the server serves all the same.
    let _ = std::io::stdout().write_all(format!("{banner}\n").as_bytes());
    server::notify_ready();
}

/// Says why nothing was started.
fn fail(code: u8, reason: &str) -> ExitCode {
    // If stderr is closed, the exit code is all there is.
    let _ = writeln!(std::io::stderr(), "octostore: {reason}");
    ExitCode::from(code)
}
