//! `octostore restore`: makes a copy the database again.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use super::{approve, data, fail, path, print, summary};
use crate::clock::Clock;
use crate::domain::TOKEN_MAX;
use crate::journal::{FloorOrigin, restore};

pub(super) fn command() -> Command {
    Command::new("restore")
        .about("Makes the copy in FILE the database; does not overwrite one, and not beside a server")
        .arg(Arg::new("file").value_name("FILE").required(true).help("A copy that octostore backup has made"))
        .arg(data())
        .arg(
            Arg::new("token-floor")
                .long("token-floor")
                .value_name("N")
                .value_parser(clap::value_parser!(i64).range(1..=TOKEN_MAX / 2))
                .help("A fencing token above all that were issued, if it is higher than the one that the time of this machine leads to"),
        )
}

pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let (file, database) = (path(matches, "file"), path(matches, "data"));
    let floor = matches.get_one::<i64>("token-floor").copied();
    let mut examined = None;
    let clock = Clock::system();
    let restored = match restore(&file, &database, floor, &clock, &mut |state| approve(state, &mut examined))
    {
        Ok(restored) => restored,
        Err(error) => return fail(1, format!("nothing was restored: {error}")),
    };
    if let Some(examined) = examined {
        print(format!("{}: {}", database.display(), summary(&examined)));
    }
    let reason = match restored.origin {
        FloorOrigin::Operator => "",
        FloorOrigin::Clock => ", more than were issued until now, if the clock of this machine is right",
        FloorOrigin::Copy => {
            ", far above those of the copy, which are higher than the clock of this machine leads to; if it is \
             behind, correct it and restore again"
        }
    };
    print(format!("tokens go on above {}{reason}", restored.tokens_above));
    ExitCode::SUCCESS
}
