//! The first line of a script, which may state the engine and flags: `#!lua flags=no-writes`.

use crate::command::CommandError;

/// A script and what its first line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shebang<'a> {
    /// The script calls no commands that write.
    pub(super) is_read_only: bool,
    /// The text for the interpreter. Starts with the end of the first line, so that lines keep
    /// their numbers.
    pub(super) text: &'a [u8],
}

/// Flags of scripts. Except for `no-writes`, they are about things that this server does not have.
const FLAGS: &[&str] = &["no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys"];

impl Shebang<'_> {
    /// Reads the first line of a script.
    pub(super) fn parse(script: &[u8]) -> Result<Shebang<'_>, CommandError> {
        if !script.starts_with(b"#!") {
            return Ok(Shebang { is_read_only: false, text: script });
        }
        let end = script.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or(CommandError::fixed("ERR Invalid script shebang"))?;
        let (line, text) = script.split_at(end);
        let line = String::from_utf8_lossy(line).replace('\r', " ");
        let mut words = line.split_whitespace();
        match words.next() {
            Some("#!lua") => {}
            engine => {
                let engine = engine.unwrap_or_default();
                return Err(CommandError::new(format!("ERR Unexpected engine in script shebang: {engine}")));
            }
        }
        let mut is_read_only = false;
        for word in words {
            let flags = word
                .strip_prefix("flags=")
                .ok_or_else(|| CommandError::new(format!("ERR Unknown lua shebang option: {word}")))?;
            for flag in flags.split(',').filter(|flag| !flag.is_empty()) {
                if !FLAGS.contains(&flag) {
                    return Err(CommandError::new(format!("ERR Unexpected flag in script shebang: {flag}")));
                }
                is_read_only |= flag == "no-writes";
            }
        }
        Ok(Shebang { is_read_only, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_states_engine_and_flags() {
        for (script, is_read_only, text) in [
            ("return 1", false, "return 1"),
            ("#!lua\nreturn 1", false, "\nreturn 1"),
            ("#!lua flags=no-writes\nreturn 1", true, "\nreturn 1"),
            ("#!lua flags=allow-oom,no-writes\r\nreturn 1", true, "\nreturn 1"),
            ("#!lua flags=\n", false, "\n"),
        ] {
            let expected = Shebang { is_read_only, text: text.as_bytes() };
            assert_eq!(Shebang::parse(script.as_bytes()), Ok(expected), "{script:?}");
        }
        for (script, text) in [
            ("#!lua", "ERR Invalid script shebang"),
            ("#!js\n", "ERR Unexpected engine in script shebang: #!js"),
            ("#!lua name=x\n", "ERR Unknown lua shebang option: name=x"),
            ("#!lua flags=x\n", "ERR Unexpected flag in script shebang: x"),
        ] {
            let error = Shebang::parse(script.as_bytes()).err();
            assert_eq!(error.as_ref().map(CommandError::text), Some(text), "{script:?}");
        }
    }
}
