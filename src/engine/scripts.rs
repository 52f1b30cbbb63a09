//! The texts of scripts, by their hashes.
//!
//! Guarantees: a script that was stored is found until it is flushed or evicted, also after a
//! restart: its text is in the journal. Bounded in number and bytes; the least recently used script
//! is evicted first, and use is journaled only now and then. Not here: what scripts mean.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use sha1::{Digest, Sha1};

use super::{Txn, Unavailable};
use crate::journal::{Record, ScriptHash, Seq};

/// Scripts that are kept.
const SCRIPTS_MAX: usize = 4096;
/// The size of their texts, in bytes. A longer script runs, but is not stored.
const SCRIPTS_BYTES_MAX: usize = 32 << 20;
/// A script that is used is journaled again once this many others have been journaled after it, so
/// that it is among the recently used ones after a restart, too.
const USES_JOURNALED_AFTER: u64 = SCRIPTS_MAX as u64 / 2;

/// The hash of a script's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScriptId(ScriptHash);

/// The value of each hexadecimal digit.
static HEX: [u8; 256] = {
    let (mut values, mut digit) = ([NOT_HEX; 256], 0);
    while digit < 16 {
        values[b"0123456789abcdef"[digit] as usize] = digit as u8;
        values[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};
const NOT_HEX: u8 = u8::MAX;

impl ScriptId {
    /// The hash of a text.
    pub fn of(text: &[u8]) -> ScriptId {
        ScriptId(Sha1::digest(text).into())
    }

    /// Reads 40 hexadecimal digits.
    pub fn parse(text: &[u8]) -> Option<ScriptId> {
        let mut hash = ScriptHash::default();
        if text.len() != 2 * hash.len() {
            return None;
        }
        let mut all = 0;
        for (byte, digits) in hash.iter_mut().zip(text.chunks_exact(2)) {
            let (high, low) = (HEX[usize::from(digits[0])], HEX[usize::from(digits[1])]);
            all |= high | low;
            *byte = high << 4 | low;
        }
        (all != NOT_HEX).then_some(ScriptId(hash))
    }
}

impl fmt::Display for ScriptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// All stored scripts.
#[derive(Default)]
pub(super) struct Scripts(Mutex<ScriptTable>);

#[derive(Default)]
struct ScriptTable {
    scripts: FxHashMap<ScriptId, Script>,
    /// The scripts in the order of their last use.
    by_use: BTreeMap<u64, ScriptId>,
    bytes: usize,
    uses: u64,
    /// Texts journaled since the start.
    puts: u64,
    /// What must be durable before it may be revealed that a script is unknown.
    removed: Seq,
}

struct Script {
    text: Arc<[u8]>,
    /// Its key in `by_use`.
    used: u64,
    /// The value of `puts` when it was journaled last.
    put: u64,
    /// What must be durable before it may be revealed that the script is known.
    seq: Seq,
}

impl ScriptTable {
    fn insert(&mut self, id: ScriptId, text: Arc<[u8]>, seq: Seq) {
        self.remove(&id);
        self.uses += 1;
        self.puts += 1;
        self.bytes += text.len();
        self.by_use.insert(self.uses, id);
        self.scripts.insert(id, Script { text, used: self.uses, put: self.puts, seq });
    }

    fn remove(&mut self, id: &ScriptId) {
        if let Some(script) = self.scripts.remove(id) {
            self.by_use.remove(&script.used);
            self.bytes -= script.text.len();
        }
    }

    /// A script, now the most recently used one.
    fn find(&mut self, id: &ScriptId) -> Option<&Script> {
        let script = self.scripts.get_mut(id)?;
        // Usually one script is called again and again.
        if script.used != self.uses {
            self.uses += 1;
            self.by_use.remove(&script.used);
            self.by_use.insert(self.uses, *id);
            script.used = self.uses;
        }
        Some(script)
    }

    /// The scripts that have to go before one of `bytes` bytes is added.
    fn evicted_by(&self, bytes: usize) -> Vec<ScriptId> {
        let (mut count, mut total) = (self.scripts.len() + 1, self.bytes + bytes);
        let mut evicted = Vec::new();
        for id in self.by_use.values() {
            if count <= SCRIPTS_MAX && total <= SCRIPTS_BYTES_MAX {
                break;
            }
            count -= 1;
            total -= self.scripts.get(id).map_or(0, |script| script.text.len());
            evicted.push(*id);
        }
        evicted
    }
}

impl Scripts {
    /// Removes all scripts, before a recovery.
    pub(super) fn clear(&self) {
        *self.0.lock() = ScriptTable::default();
    }

    /// The number of scripts, and that of the bytes of their texts.
    pub(super) fn size(&self) -> (usize, usize) {
        let table = self.0.lock();
        (table.scripts.len(), table.bytes)
    }

    /// Adds a recovered script.
    pub(super) fn restore(&self, hash: ScriptHash, text: Box<[u8]>) {
        self.0.lock().insert(ScriptId(hash), text.into(), Seq::default());
    }
}

impl Txn<'_> {
    /// The text of a script.
    pub fn script(&self, id: &ScriptId) -> Result<Option<Arc<[u8]>>, Unavailable> {
        self.in_epoch(|table| {
            let mut scripts = self.engine().core.scripts.0.lock();
            let puts = scripts.puts;
            let Some(script) = scripts.find(id) else {
                self.observe(scripts.removed);
                return Ok(None);
            };
            self.observe(script.seq);
            let text = Arc::clone(&script.text);
            if puts - script.put > USES_JOURNALED_AFTER {
                self.journal_script(&mut scripts, table.epoch, id, &text)?;
            }
            Ok(Some(text))
        })
    }

    /// Whether a script is stored.
    pub fn has_script(&self, id: &ScriptId) -> Result<bool, Unavailable> {
        self.in_epoch(|_| {
            let scripts = self.engine().core.scripts.0.lock();
            let script = scripts.scripts.get(id);
            self.observe(script.map_or(scripts.removed, |script| script.seq));
            Ok(script.is_some())
        })
    }

    /// Stores a script, unless it is stored already. Returns its text.
    pub fn put_script(&self, id: &ScriptId, text: &[u8]) -> Result<Arc<[u8]>, Unavailable> {
        if let Some(known) = self.script(id)? {
            return Ok(known);
        }
        let text: Arc<[u8]> = text.into();
        if text.len() > SCRIPTS_BYTES_MAX {
            return Ok(text);
        }
        self.in_epoch(|table| {
            let mut scripts = self.engine().core.scripts.0.lock();
            if !scripts.scripts.contains_key(id) {
                let evicted = scripts.evicted_by(text.len());
                self.journal_removal(&mut scripts, table.epoch, &evicted)?;
                self.journal_script(&mut scripts, table.epoch, id, &text)?;
            }
            Ok(text)
        })
    }

    /// Removes all scripts.
    pub fn flush_scripts(&self) -> Result<(), Unavailable> {
        self.in_epoch(|table| {
            let mut scripts = self.engine().core.scripts.0.lock();
            let all: Vec<ScriptId> = scripts.scripts.keys().copied().collect();
            self.journal_removal(&mut scripts, table.epoch, &all)?;
            self.observe(scripts.removed);
            Ok(())
        })
    }

    fn journal_script(
        &self,
        scripts: &mut ScriptTable,
        epoch: u64,
        id: &ScriptId,
        text: &Arc<[u8]>,
    ) -> Result<(), Unavailable> {
        let put = Record::ScriptPut { sha: id.0, body: text[..].into() };
        let seq = self.engine().journal().append(epoch, [put])?;
        self.observe(seq);
        scripts.insert(*id, Arc::clone(text), seq);
        Ok(())
    }

    fn journal_removal(
        &self,
        scripts: &mut ScriptTable,
        epoch: u64,
        ids: &[ScriptId],
    ) -> Result<(), Unavailable> {
        if ids.is_empty() {
            return Ok(());
        }
        let gone = ids.iter().map(|id| Record::ScriptGone { sha: id.0 });
        scripts.removed = self.engine().journal().append(epoch, gone)?;
        ids.iter().for_each(|id| scripts.remove(id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let id = ScriptId::of(b"return 1");
        assert_eq!(id.to_string(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(ScriptId::parse(id.to_string().to_ascii_uppercase().as_bytes()), Some(id));
        for wrong in [
            "",
            "e0e1",
            "g0e1f9fabfc9d4800c877a703b823ac0578ff8db",
            "é0e1f9fabfc9d4800c877a703b823ac0578ff8d",
        ] {
            assert_eq!(ScriptId::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn the_least_recently_used_scripts_are_evicted() {
        let mut table = ScriptTable::default();
        let ids: Vec<ScriptId> = (0..3_u8).map(|n| ScriptId::of(&[n])).collect();
        for id in &ids {
            table.insert(*id, vec![0; SCRIPTS_BYTES_MAX / 4].into(), Seq::default());
        }
        assert!(table.find(&ids[0]).is_some());
        assert_eq!(table.evicted_by(SCRIPTS_BYTES_MAX / 4), []);
        assert_eq!(table.evicted_by(SCRIPTS_BYTES_MAX / 4 + 1), [ids[1]]);
        assert_eq!(table.evicted_by(SCRIPTS_BYTES_MAX), [ids[1], ids[2], ids[0]]);
        table.remove(&ids[1]);
        assert_eq!((table.bytes, table.by_use.len()), (SCRIPTS_BYTES_MAX / 2, 2));
        assert_eq!(table.evicted_by(SCRIPTS_BYTES_MAX / 2), []);
    }
}
