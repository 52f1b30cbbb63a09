//! Rows of the table `changes` that say something that the table `held` does not say.
//!
//! Promise: of all changes to a lease only the last is ever moved into `held`, so a lease that ends soon after its grant, or is
//! renewed again and again, costs no row there. Known of each lease is only in which rows its changes are: what they are is read
//! again when they move. Rows move in their order, and go once nothing in them is the only word of anything, several at once:
//! where leases are short that table stays small, and a commit seldom touches more than one page of it.
//! Absent: SQL, and what is written when.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::changes::{Change, ChangesText};
use crate::journal::{JournalError, Record};

/// Rows have smaller numbers; a commit takes one, and they start again whenever all rows are gone.
pub(super) const ROW_MAX: i64 = 1 << 38;
/// At rest, rows go when there are so many that have nothing left to say, or so many bytes of them: neighbours share pages.
const ROWS_AT_ONCE: usize = 64;
const ROW_BYTES_AT_ONCE: usize = 256 << 10;
/// No more go in one commit, which somebody waits for: so many rows, or the first ones that have so many bytes.
const ROWS_AT_ONCE_MAX: usize = 4 * ROWS_AT_ONCE;
const ROW_BYTES_AT_ONCE_MAX: usize = 4 * ROW_BYTES_AT_ONCE;

/// The backlog of an open database.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// By token. Absent: the rows say nothing of it that counts.
    needs: HashMap<i64, Need, BuildHasherDefault<TokenHasher>>,
    /// Their numbers have no gaps.
    rows: VecDeque<Row>,
    last_row: i64,
    /// Changes in all rows.
    changes: usize,
    /// Bytes of all rows.
    bytes: usize,
    sweep: Option<Sweep>,
    /// What was read of a row and has not moved yet; if it is not there it is read again.
    opened: Option<Opened>,
}

/// The rows that tell of a lease; 0 is none. Never both 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Need {
    /// The row of its grant. None: `held` has it.
    grant: i64,
    /// The row of its last renewal or, if `held` has it, of its end.
    latest: i64,
}

#[derive(Debug)]
struct Row {
    number: i64,
    changes: usize,
    bytes: usize,
    /// Leases that need it.
    needed: usize,
}

#[derive(Debug)]
struct Opened {
    row: i64,
    changed: VecDeque<(i64, Change)>,
}

/// A walk over all rows there are. What comes meanwhile is left to the next one.
#[derive(Debug, Clone, Copy)]
struct Sweep {
    upto_row: i64,
    /// How many leases needed rows when it began.
    leases: usize,
}

/// Tokens are no choice of clients', and come one after the other.
#[derive(Debug, Default)]
struct TokenHasher(u64);

impl Hasher for TokenHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_i64(i64::from(*byte)));
    }
    fn write_i64(&mut self, token: i64) {
        self.0 = (self.0 ^ token.cast_unsigned()).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

/// A step of moving, or of removing only.
#[derive(Debug)]
pub(super) struct Move {
    settled: Vec<(i64, i64)>,
    sweep: Option<Sweep>,
    opened: Option<Opened>,
    rows: usize,
    last_row: Option<i64>,
}

impl Move {
    /// All rows up to this one are to be removed.
    pub(super) fn last_row(&self) -> Option<i64> {
        self.last_row
    }
}

impl Backlog {
    /// Adds a row with what a batch does to leases, unless that comes to nothing: `text` gets its content, and its number
    /// is answered. Should the row not become durable, the backlog is of no use any more, and the state is to be loaded again.
    pub(super) fn add(&mut self, batch: &[Record], text: &mut ChangesText) -> Option<i64> {
        let row = self.last_row + 1;
        self.rows.push_back(Row { number: row, changes: 0, bytes: 0, needed: 0 });
        let mut changes = 0;
        let mut ended: Vec<i64> = batch
            .iter()
            .filter_map(|record| if let Record::Ended(token) = record { Some(token.get()) } else { None })
            .collect();
        ended.sort_unstable();
        let is_over = |token| ended.binary_search(&token).is_ok();
        // Granted and over within this batch: nobody needs to know.
        let mut never = BTreeSet::new();
        for record in batch {
            match record {
                Record::Granted(stored) => {
                    let token = stored.lease.token.get();
                    if is_over(token) {
                        never.insert(token);
                        continue;
                    }
                    text.granted(stored);
                    self.granted(token, row);
                }
                Record::Renewed(renewal) => {
                    let token = renewal.token.get();
                    if is_over(token) {
                        continue;
                    }
                    text.renewed(renewal);
                    self.renewed(token, row);
                }
                Record::Ended(token) => {
                    let token = token.get();
                    if never.contains(&token) {
                        continue;
                    }
                    text.ended(token);
                    self.ended(token, row);
                }
                _ => continue,
            }
            changes += 1;
        }
        if changes == 0 {
            self.rows.pop_back();
            return None;
        }
        self.last_row = row;
        self.changes += changes;
        self.row(row).changes = changes;
        Some(row)
    }

    /// Takes a row that was there before. In the order of rows, and before anything else.
    pub(super) fn recover_row(&mut self, number: i64, changes: usize, bytes: usize) {
        self.rows.push_back(Row { number, changes, bytes, needed: 0 });
        (self.last_row, self.changes, self.bytes) = (number, self.changes + changes, self.bytes + bytes);
    }

    /// A lease needs these rows: that of its grant, and that of its last change. 0 is none.
    pub(super) fn recover_need(&mut self, token: i64, grant: i64, latest: i64) {
        let latest = if latest == grant { 0 } else { latest };
        for row in [grant, latest].into_iter().filter(|row| *row != 0) {
            self.row(row).needed += 1;
        }
        self.needs.insert(token, Need { grant, latest });
    }

    fn row(&mut self, number: i64) -> &mut Row {
        let first = self.rows.front().map_or(0, |row| row.number);
        &mut self.rows[(number - first) as usize]
    }

    fn granted(&mut self, token: i64, row: i64) {
        self.needs.insert(token, Need { grant: row, latest: 0 });
        self.row(row).needed += 1;
    }

    fn renewed(&mut self, token: i64, row: i64) {
        let need = self.needs.entry(token).or_default();
        if need.grant == row || need.latest == row {
            return;
        }
        let before = std::mem::replace(&mut need.latest, row);
        self.needs_no_more(before);
        self.row(row).needed += 1;
    }

    fn ended(&mut self, token: i64, row: i64) {
        match self.needs.remove(&token) {
            // Its end is in a later row than its grant, and stays longer.
            Some(Need { grant, latest }) if grant != 0 => {
                self.needs_no_more(grant);
                self.needs_no_more(latest);
            }
            in_held => {
                self.needs_no_more(in_held.map_or(0, |need| need.latest));
                self.needs.insert(token, Need { grant: 0, latest: row });
                self.row(row).needed += 1;
            }
        }
        self.give_back_memory();
    }

    fn needs_no_more(&mut self, row: i64) {
        if row != 0 {
            self.row(row).needed -= 1;
        }
    }

    fn give_back_memory(&mut self) {
        const SMALL: usize = 4096;
        if self.needs.is_empty() && self.needs.capacity() > SMALL {
            self.needs = HashMap::default();
        }
    }

    /// Notes how long the text of the newest row is.
    pub(super) fn weigh_newest(&mut self, bytes: usize) {
        if let Some(row) = self.rows.back_mut() {
            row.bytes = bytes;
            self.bytes += bytes;
        }
    }

    /// Changes in all rows.
    pub(super) fn changes(&self) -> usize {
        self.changes
    }

    /// Bytes of all rows.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no row.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many leases needed rows when the sweep began that is not through yet.
    pub(super) fn sweeping(&self) -> Option<usize> {
        self.sweep.map(|sweep| sweep.leases)
    }

    /// Moves nothing: rows go if there are many that can.
    pub(super) fn plan_removal(&mut self) -> Move {
        let mut plan = Move {
            settled: Vec::new(),
            sweep: self.sweep,
            opened: self.opened.take(),
            rows: 0,
            last_row: None,
        };
        let bytes = self.removable(&mut plan);
        if plan.rows < ROWS_AT_ONCE && bytes < ROW_BYTES_AT_ONCE {
            (plan.rows, plan.last_row) = (0, None);
        }
        plan
    }

    /// Goes on with the sweep, or begins one: passes what `held` has to learn of up to `most` leases to `write`. `read` answers
    /// what a row says, each lease once. All rows go that can. Nothing changes here before [`Backlog::moved`]: only then is it
    /// durable.
    pub(super) fn plan_move(
        &mut self,
        most: usize,
        mut read: impl FnMut(i64) -> Result<VecDeque<(i64, Change)>, JournalError>,
        mut write: impl FnMut(i64, &Change) -> Result<(), JournalError>,
    ) -> Result<Move, JournalError> {
        let sweep = self.sweep.unwrap_or(Sweep { upto_row: self.last_row, leases: self.needs.len() });
        let mut plan =
            Move { settled: Vec::new(), sweep: None, opened: self.opened.take(), rows: 0, last_row: None };
        for row in self.rows.iter().filter(|row| row.needed > 0) {
            if row.number > sweep.upto_row {
                break;
            }
            if plan.settled.len() >= most {
                plan.sweep = Some(sweep);
                break;
            }
            let mut opened = match plan.opened.take() {
                Some(opened) if opened.row == row.number => opened,
                _ => Opened { row: row.number, changed: read(row.number)? },
            };
            while plan.settled.len() < most
                && let Some((token, change)) = opened.changed.pop_front()
            {
                if self.needs.get(&token).is_some_and(|need| [need.grant, need.latest].contains(&row.number))
                {
                    write(token, &change)?;
                    plan.settled.push((token, row.number));
                }
            }
            if !opened.changed.is_empty() {
                (plan.sweep, plan.opened) = (Some(sweep), Some(opened));
                break;
            }
        }
        self.removable(&mut plan);
        Ok(plan)
    }

    /// Plans to remove the first rows that have nothing left to say. Their bytes.
    fn removable(&self, plan: &mut Move) -> usize {
        // Moved in the order of rows, too.
        let mut settled = plan.settled.iter().map(|(_, row)| *row).peekable();
        let mut bytes = 0;
        for row in &self.rows {
            let mut needed = row.needed;
            while settled.next_if_eq(&row.number).is_some() {
                needed -= 1;
            }
            if needed > 0 || plan.rows == ROWS_AT_ONCE_MAX || bytes >= ROW_BYTES_AT_ONCE_MAX {
                break;
            }
            (plan.rows, plan.last_row, bytes) = (plan.rows + 1, Some(row.number), bytes + row.bytes);
        }
        bytes
    }

    /// Notes that what was planned is durable. Between the two nothing else may change.
    pub(super) fn moved(&mut self, plan: Move) {
        for (token, row) in plan.settled {
            self.needs_no_more(row);
            if let Some(need) = self.needs.get_mut(&token) {
                let at = if need.grant == row { &mut need.grant } else { &mut need.latest };
                *at = 0;
                if *need == Need::default() {
                    self.needs.remove(&token);
                }
            }
        }
        (self.sweep, self.opened) = (plan.sweep, plan.opened);
        for row in self.rows.drain(..plan.rows) {
            self.changes -= row.changes;
            self.bytes -= row.bytes;
        }
        if self.rows.is_empty() {
            // Nothing is needed either: a number is worth nothing any more.
            (self.last_row, self.sweep, self.opened) = (0, None, None);
        }
        self.give_back_memory();
    }
}
