//! What subcommands print: tables for people, JSON for scripts.
//!
//! Guarantees: text of others reaches a terminal without control characters. Colours appear only on
//! a terminal, and never with `NO_COLOR`.

use std::io::{IsTerminal, Write, stderr, stdout};

use rustix::termios::tcgetwinsize;

/// Columns of a table are this far apart.
const GAP: &str = "  ";
const ERASE_LINE: &str = "\r\x1b[K";
/// The width of a terminal that does not tell.
const COLUMNS: usize = 80;
/// Bold, and back to normal.
const BOLD: (&str, &str) = ("\x1b[1m", "\x1b[0m");

/// The text with control characters, and those that change the direction of writing, escaped.
pub(super) fn printable(text: &str) -> String {
    let is_plain = |c: char| !c.is_control() && !is_format(c);
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_plain(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_default()),
        }
    }
    shown
}

/// Invisible characters that change how others are shown.
fn is_format(c: char) -> bool {
    matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}')
}

/// Whether to print colours.
pub(super) fn has_colours() -> bool {
    // See no-color.org: any value that is not empty.
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_refused && stdout().is_terminal()
}

/// Shows a line on stderr, in place of the one shown before. Without a terminal, does nothing.
pub(super) fn show_line(text: &str) {
    let mut stderr = stderr();
    if stderr.is_terminal() {
        // Only a line that is not wrapped can be erased.
        let columns = tcgetwinsize(&stderr).map_or(0, |size| usize::from(size.ws_col));
        let columns = if columns == 0 { COLUMNS } else { columns };
        let shown: String = text.chars().take(columns - 1).collect();
        // If stderr is closed, nothing is shown.
        let _ = stderr.write_all(format!("{ERASE_LINE}{shown}").as_bytes()).and_then(|()| stderr.flush());
    }
}

/// Removes the line.
pub(super) fn erase_line() {
    show_line("");
}

/// Formats rows below a header, in columns as wide as their longest cell.
pub(super) fn table(header: &[&str], rows: &[Vec<String>], with_colours: bool) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    let (begin, end) = if with_colours { BOLD } else { ("", "") };
    let mut text = format!("{begin}{}{end}\n", line(&mut header.iter().copied()));
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_written_cannot_control_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\n\u{202e}c\u{9b}"), "a\\u{1b}[2Jb\\r\\n\\u{202e}c\\u{9b}");
        assert_eq!(printable("größe 锁"), "größe 锁");
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows = [vec!["é".to_owned(), "1".to_owned()], vec!["long".to_owned(), String::new()]];
        assert_eq!(table(&["KEY", "N"], &rows, false), "KEY   N\né     1\nlong\n");
    }
}
