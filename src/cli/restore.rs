//! `octostore restore`: makes a copy the database again.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use super::{approve, data, fail, path, print, summary};
use crate::clock::Clock;
use crate::domain::TOKEN_MAX;
use crate::journal::{FloorOrigin, restore};

pub(super) fn command() -> Command {
    Command::new("restore")
        .about("Makes the copy in FILE the database, if there is none and no server runs")
        .arg(Arg::new("file").value_name("FILE").required(true).help("A copy that octostore backup has made"))
        .arg(data())
        .arg(
            Arg::new("token-floor")
                .long("token-floor")
                .value_name("N")
                .value_parser(clap::value_parser!(i64).range(1..=TOKEN_MAX / 2))
                .help(
                    "A fencing token above all that were issued; needed only if they are ahead of what the clock of \
                     this machine leads to",
                ),
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
        FloorOrigin::Clock => {
            "more than were issued until now, if the clock of this machine is not behind that of an earlier \
             restore, and fewer than a million tokens per second were issued since"
        }
        FloorOrigin::Operator => {
            "ahead of what the clock of this machine leads to; until it has caught up, later restores need a \
             --token-floor as well"
        }
    };
    print(format!("tokens go on above {}, {reason}", restored.tokens_above));
    ExitCode::SUCCESS
}
