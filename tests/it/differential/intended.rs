//! The replies that differ from those of Redis 7.0 on purpose.

use super::reply::{Reply, Words};

/// A difference that is intended.
pub(crate) struct Intended {
    /// The names of the commands, in lower case; none: all commands.
    pub(crate) commands: &'static [&'static str],
    /// What is different, and why.
    pub(crate) reason: &'static str,
    /// Whether both servers hold the same data afterwards.
    pub(super) keeps_state: bool,
    matches: fn(&[Vec<u8>], &Reply, &Reply) -> bool,
}

/// All intended differences.
pub(crate) const INTENDED: &[Intended] = &[
    Intended {
        commands: &[],
        reason: "A request with several errors can get the error of another one: ours checks the \
                 options before it reads keys",
        keeps_state: true,
        matches: |_, ours, theirs| {
            let is_type = |reply: &Reply| reply.error().is_some_and(|error| error.starts_with("WRONGTYPE"));
            is_type(theirs) && ours.error().is_some()
        },
    },
    Intended {
        commands: &[],
        reason: "Control characters of a request are escaped in an error",
        keeps_state: true,
        matches: |words, ours, theirs| {
            let mut bytes = words.iter().flatten();
            let code = |reply: &Reply| reply.error().map(|error| error.split(' ').next().map(str::to_owned));
            code(ours).is_some() && code(ours) == code(theirs) && bytes.any(u8::is_ascii_control)
        },
    },
    Intended {
        commands: &[],
        reason: "A score of -0 is 0",
        keeps_state: true,
        matches: |_, ours, theirs| {
            let zero = theirs.to_string().replace("\"-0\"", "\"0\"").replace(",-0", ",0");
            zero == ours.to_string()
        },
    },
    Intended {
        commands: &["zrank", "zrevrank"],
        reason: "`WITHSCORE`, as in Redis 7.2",
        keeps_state: false,
        matches: |words, _, theirs| {
            let arity = theirs.error().is_some_and(|error| error.contains("wrong number of arguments"));
            words.len() == 4 && arity
        },
    },
    Intended {
        commands: &["scan", "hscan", "sscan", "zscan"],
        reason: "An empty cursor is invalid. Redis takes it as 0",
        keeps_state: true,
        matches: |_, ours, _| is_error(ours, "ERR invalid cursor"),
    },
    Intended {
        commands: &[
            "zrange",
            "zrangestore",
            "zrangebyscore",
            "zrevrangebyscore",
            "zcount",
            "zremrangebyscore",
        ],
        reason: "A bound is a decimal number. Redis takes an empty one as 0",
        keeps_state: false,
        matches: |_, ours, theirs| {
            is_error(ours, "ERR min or max is not a float") && theirs.error().is_none()
        },
    },
    Intended {
        commands: &[],
        reason: "A score is a decimal number. Redis accepts hexadecimal",
        keeps_state: false,
        matches: |words, ours, _| {
            let is_refused = ours.error().is_some_and(|error| error.contains("not a valid float"));
            is_refused && words.iter().any(|word| word.starts_with(b"0x"))
        },
    },
    Intended {
        commands: &["incrbyfloat", "hincrbyfloat"],
        reason: "Sums are exact to 17 places. Redis computes with 80 bits",
        keeps_state: false,
        matches: |_, ours, theirs| {
            let number = |reply: &Reply| match reply {
                Reply::Bulk(text) => std::str::from_utf8(text).ok()?.parse::<f64>().ok(),
                _ => None,
            };
            // They differ in places that a double does not have.
            number(ours).is_some() && number(ours) == number(theirs)
        },
    },
    Intended {
        commands: &["lpos"],
        reason: "`RANK` -9223372036854775808 finds nothing. Redis 7.0 cannot negate it",
        keeps_state: true,
        matches: |words, _, _| words.iter().any(|word| word == b"-9223372036854775808"),
    },
    Intended {
        commands: &["object idletime"],
        reason: "`OBJECT IDLETIME` is an error: access times are not tracked",
        keeps_state: true,
        matches: |_, ours, _| is_error(ours, "ERR idle time not tracked"),
    },
];

/// Whether a reply is this error. Errors of scripts go on behind it.
fn is_error(reply: &Reply, error: &str) -> bool {
    reply.error().is_some_and(|text| text.starts_with(error))
}

/// The intended difference that explains these replies.
pub(super) fn find(words: &Words, ours: &Reply, theirs: &Reply) -> Option<&'static Intended> {
    // The command that a script calls stands behind the number of keys.
    let is_eval = words.get(1).is_some_and(|script| script.ends_with(b"call(unpack(ARGV))"));
    let words = if is_eval { &words[3..] } else { words };
    find_for(words, ours, theirs)
}

fn find_for(words: &[Vec<u8>], ours: &Reply, theirs: &Reply) -> Option<&'static Intended> {
    let lower = |word: &Vec<u8>| String::from_utf8_lossy(word).to_ascii_lowercase();
    let name = lower(words.first()?);
    let with_subcommand = words.get(1).map(|word| format!("{name} {}", lower(word))).unwrap_or_default();
    INTENDED.iter().find(|intended| {
        let is_named = |command: &&str| *command == name || *command == with_subcommand;
        let is_meant = intended.commands.is_empty() || intended.commands.iter().any(is_named);
        is_meant && (intended.matches)(words, ours, theirs)
    })
}
