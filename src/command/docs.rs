//! `COMMAND COUNT | INFO | DOCS | LIST`, and `HELP` of every command that has subcommands: all from the table.

use super::glob::Glob;
use super::steps::Words;
use super::{Args, COMMANDS, Command, CommandError, Context, Flags, Group, Progress, Run, Steps, args};
use crate::reply::Reply;

const fn subcommand(
    name: &'static str,
    syntax: &'static str,
    arity: i8,
    summary: &'static str,
    run: super::Handler,
) -> Command {
    let (group, keys) = (Group::Server, (0, 0, 0));
    Command { name, syntax, summary, group, arity, flags: Flags::NONE, keys, run: Run::Handler(run) }
}

pub(super) const COMMAND: Command = Command {
    name: "command",
    syntax: "",
    summary: "Answers what commands there are. redis-cli's hints come from it.",
    group: Group::Server,
    arity: -1,
    flags: Flags::NONE,
    keys: (0, 0, 0),
    run: Run::Subcommands(&[
        subcommand(
            "command|info",
            "[command-name [command-name ...]]",
            -2,
            "Answers how to call commands.",
            info,
        ),
        subcommand("command|count", "", 2, "Answers how many commands there are.", |_, _| {
            Ok(Reply::count(COMMANDS.len()))
        }),
        subcommand(
            "command|docs",
            "[command-name [command-name ...]]",
            -2,
            "Answers what commands do and what they take.",
            docs,
        ),
        subcommand(
            "command|list",
            "[FILTERBY PATTERN pattern]",
            -2,
            "Answers the names of all commands.",
            list,
        ),
    ]),
};

fn bulk(text: &str) -> Reply {
    Reply::bulk(text)
}

/// A command by the name that clients use, `client|id` for subcommands.
fn by_full_name(name: &[u8]) -> Option<&'static Command> {
    let mut parts = name.splitn(2, |byte| *byte == b'|');
    let command = Command::find(parts.next()?)?;
    match parts.next() {
        None => Some(command),
        Some(own) => command.subcommands().iter().find(|subcommand| args::is(own, subcommand.own_name())),
    }
}

fn info(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    if words.len() <= 2 {
        context.spend(DESCRIBE_WORK * COMMANDS.len());
        return Ok(Reply::Array(COMMANDS.iter().map(describe).collect()));
    }
    let words = few_names(words)?;
    context.in_turns(Describing { words, found: Vec::new() })
}

/// Names in one request: each reply is some thousand times longer than a name.
const NAMES_MAX: usize = 1000;
/// What the description of a command costs, and its documentation.
const DESCRIBE_WORK: usize = 32;
const DOCUMENT_WORK: usize = 128;

fn few_names(words: Args<'_>) -> Result<Words, CommandError> {
    match words.len() - 2 > NAMES_MAX {
        true => {
            Err(CommandError::new(format!("ERR at most {NAMES_MAX} names; without any, all are described")))
        }
        false => Ok(Words::new(words, 2)),
    }
}

/// A COMMAND INFO with names.
struct Describing {
    words: Words,
    found: Vec<Reply>,
}

impl Steps for Describing {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let is_done = self.words.each(context, |context, name| {
            context.spend(DESCRIBE_WORK);
            self.found.push(by_full_name(name).map_or(Reply::Null, describe));
            Ok(())
        })?;
        Ok(if is_done {
            Progress::Done(Reply::Array(std::mem::take(&mut self.found)))
        } else {
            Progress::More
        })
    }
}

fn describe(command: &Command) -> Reply {
    let (first, last, step) = command.keys;
    let number = |n: i8| Reply::Integer(i64::from(n));
    let flags = Flags::names(command.flags).into_iter().map(Reply::Simple).collect();
    Reply::Array(vec![
        bulk(command.name),
        number(command.arity),
        Reply::Set(flags),
        number(first),
        number(last),
        number(step),
        Reply::Set(vec![]),
        Reply::Array(vec![]),
        Reply::Array(key_specs(command)),
        Reply::Array(command.subcommands().iter().map(describe).collect()),
    ])
}

fn key_specs(command: &Command) -> Vec<Reply> {
    let (first, last, step) = command.keys;
    if first == 0 {
        return vec![];
    }
    let pair = |key: &str, value: Reply| (bulk(key), value);
    let is_write = command.flags & Flags::WRITE != 0;
    let flags = vec![Reply::Simple(if is_write { "RW" } else { "RO" })];
    // Relative to the first key.
    let last = if last > 0 { last - first } else { last };
    vec![Reply::Map(vec![
        pair("flags", Reply::Set(flags)),
        pair(
            "begin_search",
            Reply::Map(vec![
                pair("type", bulk("index")),
                pair("spec", Reply::Map(vec![pair("index", Reply::Integer(i64::from(first)))])),
            ]),
        ),
        pair(
            "find_keys",
            Reply::Map(vec![
                pair("type", bulk("range")),
                pair(
                    "spec",
                    Reply::Map(vec![
                        pair("lastkey", Reply::Integer(i64::from(last))),
                        pair("keystep", Reply::Integer(i64::from(step))),
                        pair("limit", Reply::Integer(0)),
                    ]),
                ),
            ]),
        ),
    ])]
}

fn docs(context: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    if words.len() == 2 {
        context.spend(DOCUMENT_WORK * COMMANDS.len());
        return Ok(Reply::Map(
            COMMANDS.iter().map(|command| (bulk(command.name), document(command))).collect(),
        ));
    }
    let words = few_names(words)?;
    context.in_turns(Documenting { words, found: Vec::new() })
}

/// A COMMAND DOCS with names.
struct Documenting {
    words: Words,
    found: Vec<(Reply, Reply)>,
}

impl Steps for Documenting {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let is_done = self.words.each(context, |context, name| {
            context.spend(DOCUMENT_WORK);
            let found = by_full_name(name).map(|command| (bulk(command.name), document(command)));
            self.found.extend(found);
            Ok(())
        })?;
        Ok(if is_done { Progress::Done(Reply::Map(std::mem::take(&mut self.found))) } else { Progress::More })
    }
}

fn document(command: &Command) -> Reply {
    let mut fields = vec![
        (bulk("summary"), bulk(command.summary)),
        (bulk("since"), bulk("0.1.0")),
        (bulk("group"), bulk(command.group.as_str())),
    ];
    let arguments = arguments_of(command.syntax);
    if !arguments.is_empty() {
        fields.push((bulk("arguments"), Reply::Array(arguments.iter().map(Argument::reply).collect())));
    }
    if !command.subcommands().is_empty() {
        let all = command.subcommands().iter();
        let all = all.map(|subcommand| (bulk(subcommand.name), document(subcommand)));
        fields.push((bulk("subcommands"), Reply::Map(all.collect())));
    }
    Reply::Map(fields)
}

fn list(_: &mut Context<'_>, words: Args<'_>) -> Result<Reply, CommandError> {
    let pattern = match words.len() {
        2 => b"*".to_vec(),
        5 if args::is(words.word(2), "filterby") && args::is(words.word(3), "pattern") => {
            words.word(4).to_ascii_lowercase()
        }
        _ => return Err(CommandError::SYNTAX),
    };
    let pattern = Glob::new(&pattern)?;
    let names = COMMANDS.iter().map(|command| command.name);
    Ok(Reply::Array(names.filter(|name| pattern.matches(name.as_bytes())).map(bulk).collect()))
}

/// The lines of `HELP`.
pub(super) fn help(command: &Command) -> Reply {
    let name = command.name.to_ascii_uppercase();
    let mut lines = vec![bulk(&format!("{name} <subcommand> [<arg> ...]. Subcommands are:"))];
    for subcommand in command.subcommands() {
        let own = subcommand.own_name().to_ascii_uppercase();
        lines.push(bulk(format!("{own} {}", subcommand.syntax).trim_end()));
        lines.push(bulk(&format!("    {}", subcommand.summary)));
    }
    lines.extend([bulk("HELP"), bulk("    Answers this.")]);
    Reply::Array(lines)
}

/// One argument of a command, as `COMMAND DOCS` describes it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Argument {
    name: String,
    kind: &'static str,
    token: Option<String>,
    is_optional: bool,
    is_multiple: bool,
    children: Vec<Argument>,
}

impl Argument {
    fn reply(&self) -> Reply {
        let mut fields = vec![(bulk("name"), bulk(&self.name)), (bulk("type"), bulk(self.kind))];
        if self.children.is_empty() && self.kind != "pure-token" {
            fields.push((bulk("display_text"), bulk(&self.name)));
        }
        if self.kind == "key" {
            fields.push((bulk("key_spec_index"), Reply::Integer(0)));
        }
        if let Some(token) = &self.token {
            fields.push((bulk("token"), bulk(token)));
        }
        let mut flags = Vec::new();
        flags.extend(self.is_optional.then_some(Reply::Simple("optional")));
        flags.extend(self.is_multiple.then_some(Reply::Simple("multiple")));
        if !flags.is_empty() {
            fields.push((bulk("flags"), Reply::Set(flags)));
        }
        if !self.children.is_empty() {
            fields
                .push((bulk("arguments"), Reply::Array(self.children.iter().map(Argument::reply).collect())));
        }
        Reply::Map(fields)
    }
}

fn arguments_of(syntax: &str) -> Vec<Argument> {
    let spaced = syntax.replace('[', " [ ").replace(']', " ] ").replace('|', " | ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    alternatives(&mut words.as_slice())
}

/// Reads up to the closing bracket or the end; several alternatives become one argument.
fn alternatives(words: &mut &[&str]) -> Vec<Argument> {
    let mut all = vec![sequence(words)];
    while words.first() == Some(&"|") {
        *words = &words[1..];
        all.push(sequence(words));
    }
    match all.len() {
        1 => all.remove(0),
        _ => {
            let children: Vec<Argument> = all.into_iter().map(as_one).collect();
            let name = children.iter().map(|child| child.name.as_str()).collect::<Vec<_>>().join("-or-");
            vec![Argument { name, kind: "oneof", children, ..Argument::default() }]
        }
    }
}

fn as_one(mut arguments: Vec<Argument>) -> Argument {
    match arguments.len() {
        1 => arguments.remove(0),
        _ => {
            let name = arguments.first().map_or_else(String::new, |first| first.name.clone());
            Argument { name, kind: "block", children: arguments, ..Argument::default() }
        }
    }
}

fn sequence(words: &mut &[&str]) -> Vec<Argument> {
    let mut found: Vec<Argument> = Vec::new();
    while let Some((word, rest)) = words.split_first() {
        match *word {
            "]" | "|" => break,
            "[" => {
                *words = rest;
                let inside = alternatives(words);
                *words = words.get(1..).unwrap_or(&[]);
                let argument = Argument { is_optional: true, ..as_one(inside) };
                match found.last_mut() {
                    // `key [key ...]` is one argument that may be repeated.
                    Some(last) if argument.is_multiple && last.name == argument.name => {
                        last.is_multiple = true
                    }
                    _ => found.push(argument),
                }
            }
            "..." => {
                *words = rest;
                match found.len() {
                    0 => {}
                    _ => {
                        let repeated = as_one(std::mem::take(&mut found));
                        found.push(Argument { is_multiple: true, ..repeated });
                    }
                }
            }
            token if token.starts_with(|c: char| c.is_ascii_uppercase()) => {
                *words = rest;
                let mut values = Vec::new();
                while let Some((word, rest)) = words.split_first() {
                    if !word.starts_with(|c: char| c.is_ascii_lowercase()) {
                        break;
                    }
                    values.push(value(word));
                    *words = rest;
                }
                let name = token.to_ascii_lowercase();
                let token = Some(token.to_owned());
                found.push(match values.len() {
                    0 => Argument { name, kind: "pure-token", token, ..Argument::default() },
                    1 => Argument { token, ..values.remove(0) },
                    _ => Argument { name, kind: "block", token, children: values, ..Argument::default() },
                });
            }
            word => {
                *words = rest;
                found.push(value(word));
            }
        }
    }
    found
}

fn value(name: &str) -> Argument {
    let kind = match name {
        "key" => "key",
        "pattern" => "pattern",
        "seconds" | "milliseconds" | "n" | "token" | "count" | "cursor" | "index" | "protover"
        | "numreplicas" | "timeout" | "client-id" => "integer",
        "unix-time-seconds" | "unix-time-milliseconds" => "unix-time",
        _ => "string",
    };
    Argument { name: name.to_owned(), kind, ..Argument::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least number of words that the arguments need.
    fn required(arguments: &[Argument]) -> usize {
        let needs = |argument: &Argument| match argument {
            Argument { is_optional: true, .. } => 0,
            Argument { kind: "oneof", children, .. } => {
                children.iter().map(|child| required(std::slice::from_ref(child))).min().unwrap_or(0)
            }
            Argument { token, children, kind, .. } => {
                let own = usize::from(token.is_some() && *kind != "pure-token");
                own + if children.is_empty() { 1 } else { required(children) }
            }
        };
        arguments.iter().map(needs).sum()
    }

    fn is_open(arguments: &[Argument]) -> bool {
        arguments
            .iter()
            .any(|argument| argument.is_optional || argument.is_multiple || is_open(&argument.children))
    }

    #[test]
    fn the_syntax_of_every_command_agrees_with_its_arity() {
        let all = COMMANDS
            .iter()
            .flat_map(|command| [std::slice::from_ref(command), command.subcommands()].concat_all());
        for command in all {
            if !command.subcommands().is_empty() {
                continue;
            }
            let arguments = arguments_of(command.syntax);
            let words = 1 + usize::from(command.name.contains('|')) + required(&arguments);
            let expected = if is_open(&arguments) { -(words as i64) } else { words as i64 };
            let found = i64::from(command.arity);
            // QUIT and HELLO take what they take; AUTH's user comes first.
            assert!(
                found == expected || ["quit"].contains(&command.name),
                "{}: {found} {expected}",
                command.name
            );
        }
    }

    trait ConcatAll<'a> {
        fn concat_all(self) -> Vec<&'a Command>;
    }

    impl<'a> ConcatAll<'a> for [&'a [Command]; 2] {
        fn concat_all(self) -> Vec<&'a Command> {
            self.into_iter().flatten().collect()
        }
    }

    #[test]
    fn lock_is_described_for_hints() {
        let arguments = arguments_of(super::super::lock::LOCK.syntax);
        let summary: Vec<String> = arguments
            .iter()
            .map(|a| {
                format!("{}:{}{}{}", a.name, a.kind, if a.is_optional { "?" } else { "" }, a.children.len())
            })
            .collect();
        assert_eq!(
            summary.join(" "),
            "key:key0 owner:string0 seconds-or-milliseconds:oneof?2 milliseconds:integer?0 shared-or-n:oneof?2 \
             milliseconds:integer?0 milliseconds:integer?0 id-or-conn:oneof?2 text:string?0"
        );
    }
}
