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
        reason: "Control characters of a request are spaces in an error",
        keeps_state: true,
        matches: |words, ours, theirs| {
            let mut bytes = words.iter().flatten();
            let without = |text: &str| text.replace(|c: char| c.is_control() || c == ' ', "");
            let text = |reply: &Reply| reply.error().map(without);
            text(ours).is_some() && text(ours) == text(theirs) && bytes.any(u8::is_ascii_control)
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
            let arity = theirs
                .error()
                .is_some_and(|error| error.to_ascii_lowercase().contains("wrong number of arg"));
            words.len() == 4 && arity
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
        commands: &["zscan"],
        reason: "A score of 1e17 or more has an exponent. Redis writes it so in large sorted sets only",
        keeps_state: true,
        matches: |_, ours, theirs| {
            let numbers = |reply: &Reply| {
                let text = reply.to_string();
                let words = text.split('"').map(|word| word.parse::<f64>().map_err(|_| word.to_owned()));
                words.collect::<Vec<_>>()
            };
            numbers(ours) == numbers(theirs)
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
        reason: "`OBJECT IDLETIME` is an error: access times would cost every read a write, and every lock memory",
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
