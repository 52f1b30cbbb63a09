//! The syntax line of every command is well formed.

use super::*;
use crate::command::{Command, commands_and_subcommands};

/// The smallest number of arguments that a request needs.
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
    for command in commands_and_subcommands() {
        if !command.subcommands().is_empty() {
            continue;
        }
        let arguments = arguments_of(command.syntax);
        let words = 1 + usize::from(command.name.contains('|')) + required(&arguments);
        let expected = if is_open(&arguments) { -(words as i64) } else { words as i64 };
        let found = i64::from(command.arity);
        // QUIT ignores its arguments, and PSYNC more of them, as in Redis.
        let ignores_more = ["quit", "psync"].contains(&command.name);
        assert!(found == expected || ignores_more, "{}: {found} {expected}", command.name);
    }
}

#[test]
fn lock_is_described_for_hints() {
    let arguments = arguments_of(Command::find(b"lock").expect("a command").syntax);
    let summary: Vec<String> = arguments
        .iter()
        .map(|a| format!("{}:{}{}{}", a.name, a.kind, if a.is_optional { "?" } else { "" }, a.children.len()))
        .collect();
    assert_eq!(
        summary.join(" "),
        "key:key0 owner:string0 seconds-or-milliseconds:oneof?2 milliseconds:integer?0 shared-or-n:oneof?2 \
         milliseconds:integer?0 milliseconds:integer?0 id-or-conn:oneof?2 text:string?0"
    );
}
