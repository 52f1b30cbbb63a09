//! The octostore server. Everything is in the library; this turns arguments into an exit code.

use std::io::Write;
use std::process::ExitCode;

use octostore::config::{Config, ConfigError};
use octostore::server::Server;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = match Config::read(std::env::args_os()) {
        Ok(config) => config,
        Err(ConfigError::Usage(error)) => error.exit(),
        Err(error) => {
            eprintln!("octostore: {error}");
            return ExitCode::from(2);
        }
    };
    octostore::server::log_to_stderr(config.log);
    octostore::server::keep_files_private();
    octostore::server::raise_file_limit(config.listener.connections_max, config.http.is_some());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(config.threads).enable_all().build();
    let served = runtime.map(|runtime| {
        runtime.block_on(async {
            let server = Server::start(&config).await?;
            // Nobody may be there to read it; that is no reason not to serve.
            let _ = writeln!(std::io::stdout(), "{}", server.banner());
            server.run(octostore::server::asked_to_stop()).await;
            Ok::<(), octostore::server::StartError>(())
        })
    });
    match served {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("octostore: {error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("octostore: cannot start threads: {error}");
            ExitCode::FAILURE
        }
    }
}
