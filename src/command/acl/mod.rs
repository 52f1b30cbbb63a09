//! `ACL ...`: users and their rules.
//!
//! Guarantees: replies and errors are those of Redis 7.2; no reply has a password, except for a rule that is refused. Not here: the
//! rules themselves, checking requests.

mod edit;
mod show;

use super::{Command, Flags, Group};

pub(super) const COMMANDS: &[Command] = &[ACL];

const ACL: Command = Command::container(
    "acl",
    -2,
    &[
        Command::new("acl|whoami", 2, show::who_am_i)
            .flags(Flags::NOSCRIPT)
            .summary("Returns the name of the user of the connection.")
            .example("ACL WHOAMI"),
        Command::new("acl|list", 2, show::list)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .summary("Returns all users, each as a line of a users file.")
            .example("ACL LIST"),
        Command::new("acl|users", 2, show::users)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .summary("Returns the names of all users.")
            .example("ACL USERS"),
        Command::new("acl|getuser", 3, show::get_user)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("username")
            .summary("Returns the flags, the hashes of the passwords and the rules of a user, or Null.")
            .example("ACL GETUSER default"),
        Command::new("acl|setuser", -3, edit::set_user)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("username [rule [rule ...]]")
            .summary("Creates a user, or applies rules to one.")
            .example("ACL SETUSER worker on >secret ~jobs:* +@lock"),
        Command::new("acl|deluser", -3, edit::del_user)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("username [username ...]")
            .summary("Deletes users and closes their connections. Returns the number of users deleted.")
            .example("ACL DELUSER worker"),
        Command::new("acl|cat", -2, show::cat)
            .flags(Flags::NOSCRIPT)
            .syntax("[category]")
            .summary("Returns the categories of commands, or the commands in a category.")
            .example("ACL CAT lock"),
        Command::new("acl|genpass", -2, show::gen_pass)
            .flags(Flags::NOSCRIPT)
            .syntax("[bits]")
            .summary("Returns a random password of 256 or this many bits, as hexadecimal digits.")
            .example("ACL GENPASS"),
        Command::new("acl|log", -2, show::log)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("[count | RESET]")
            .summary(
                "Returns the newest refusals of passwords, commands, keys and channels, or removes them.",
            )
            .example("ACL LOG 10"),
        Command::new("acl|dryrun", -4, show::dry_run)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .syntax("username command [arg [arg ...]]")
            .summary("Returns OK if a user may run a command, else the reason why not. Does not run it.")
            .example("ACL DRYRUN default GET jobs:import"),
        Command::new("acl|load", 2, edit::load)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .summary("Reads the users file (--users) again. After an error, nothing has changed.")
            .example("ACL LOAD"),
        Command::new("acl|save", 2, edit::save)
            .flags(Flags::ADMIN | Flags::NOSCRIPT)
            .summary("Writes all users to the users file (--users).")
            .example("ACL SAVE"),
    ],
)
.group(Group::Server)
.summary("A container for commands about users and their permissions.");
