//! The arguments of a command, read from its syntax line.

use crate::reply::Reply;

use super::bulk;

/// One argument of a command, as `COMMAND DOCS` describes it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Argument {
    name: String,
    kind: &'static str,
    token: Option<String>,
    is_optional: bool,
    is_multiple: bool,
    children: Vec<Argument>,
}

impl Argument {
    pub(super) fn reply(&self) -> Reply {
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

pub(super) fn arguments_of(syntax: &str) -> Vec<Argument> {
    let mut spaced = syntax.to_owned();
    for sign in ["[", "]", "<", ">", "|"] {
        spaced = spaced.replace(sign, &format!(" {sign} "));
    }
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

/// Reads what is behind an opening bracket, and the closing one.
fn group(words: &mut &[&str]) -> Argument {
    let inside = alternatives(words);
    *words = words.get(1..).unwrap_or(&[]);
    as_one(inside)
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
            "]" | ">" | "|" => break,
            "<" => {
                *words = rest;
                found.push(group(words));
            }
            "[" => {
                *words = rest;
                let argument = Argument { is_optional: true, ..group(words) };
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
                    if *word == "<" {
                        *words = rest;
                        values.push(group(words));
                    } else if word.starts_with(|c: char| c.is_ascii_lowercase()) {
                        *words = rest;
                        values.push(value(word));
                    } else {
                        break;
                    }
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
mod tests;
