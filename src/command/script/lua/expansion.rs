//! The bound of what a value expands to.
//!
//! Guarantees: a table that contains others many times, or a text of very many values, can neither
//! grow too large nor take too long. Not here: depth; the limits of a script itself.

use super::Shared;
use super::native::Fault;

/// Values between two checks of whether the script has to stop.
const VALUES_PER_CHECK: u32 = 1024;

/// Counts the values and bytes of one conversion, and bounds its time.
pub(super) struct Budget<'a> {
    shared: &'a Shared,
    bytes_left: usize,
    values: u32,
}

impl<'a> Budget<'a> {
    pub(super) fn new(shared: &'a Shared, bytes_max: usize) -> Budget<'a> {
        Budget { shared, bytes_left: bytes_max, values: 0 }
    }

    /// Comes before the conversion of a string.
    pub(super) fn before_string(&self, bytes: usize) -> Result<(), Fault> {
        Ok(self.shared.before_step(bytes)?)
    }

    /// Takes one value of `bytes` bytes.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        self.values = self.values.wrapping_add(1);
        if self.values.is_multiple_of(VALUES_PER_CHECK) && self.shared.must_stop().is_some() {
            return Err(Fault::Lua(mlua::Error::runtime("stopped")));
        }
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or("not enough memory")?;
        Ok(())
    }
}
