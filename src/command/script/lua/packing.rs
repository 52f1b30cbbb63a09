//! `struct`: numbers and strings in the layout of C structures.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use super::Shared;
use super::native::{Call, Fault, Results, export, one};
use super::number::truncate;

/// Bytes of the largest integer.
const INTEGER_BYTES_MAX: usize = 32;
/// Alignment with `!` alone.
const ALIGNMENT_DEFAULT: usize = 8;
/// Results of one call; Lua's stack has no room for many more.
const RESULTS_MAX: usize = 7000;

/// The library. `bytes_max` is the longest string that `pack` makes.
pub(super) fn library(lua: &Lua, shared: &Rc<Shared>, bytes_max: usize) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    export(lua, shared, &library, "pack", move |call| pack(call, bytes_max))?;
    export(lua, shared, &library, "unpack", unpack)?;
    export(lua, shared, &library, "size", size)?;
    Ok(library)
}

/// One item of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Padding,
    Signed(usize),
    Unsigned(usize),
    Float,
    Double,
    /// A string up to a NUL.
    Terminated,
    /// A string of this length; 0: as long as the number before it says, or the whole argument.
    Fixed(usize),
    Other(u8),
}

impl Item {
    /// The size that alignment is about, and whether it is aligned at all.
    fn size(self) -> usize {
        match self {
            Item::Padding => 1,
            Item::Signed(size) | Item::Unsigned(size) | Item::Fixed(size) => size,
            Item::Float => 4,
            Item::Double => 8,
            Item::Terminated | Item::Other(_) => 0,
        }
    }

    fn is_aligned(self) -> bool {
        matches!(self, Item::Signed(_) | Item::Unsigned(_) | Item::Float | Item::Double)
    }
}

/// Reads a format.
struct Format<'a> {
    text: &'a [u8],
    at: usize,
    is_big_endian: bool,
    alignment: usize,
}

impl<'a> Format<'a> {
    fn new(text: &'a [u8]) -> Format<'a> {
        Format { text, at: 0, is_big_endian: false, alignment: 1 }
    }

    /// The next item. Byte order, alignment and spaces are consumed on the way.
    fn next(&mut self) -> Result<Option<Item>, Fault> {
        while let Some(&option) = self.text.get(self.at) {
            self.at += 1;
            let item = match option {
                b' ' => continue,
                b'<' => {
                    self.is_big_endian = false;
                    continue;
                }
                b'>' => {
                    self.is_big_endian = true;
                    continue;
                }
                b'!' => {
                    let alignment = self.digits()?.unwrap_or(ALIGNMENT_DEFAULT);
                    if !alignment.is_power_of_two() {
                        return Err(Fault::Text(format!("alignment {alignment} is not a power of 2")));
                    }
                    self.alignment = alignment;
                    continue;
                }
                b'x' => Item::Padding,
                b'b' => Item::Signed(1),
                b'B' => Item::Unsigned(1),
                b'h' => Item::Signed(2),
                b'H' => Item::Unsigned(2),
                b'l' => Item::Signed(8),
                b'L' | b'T' => Item::Unsigned(8),
                b'i' => Item::Signed(self.integer_size()?),
                b'I' => Item::Unsigned(self.integer_size()?),
                b'f' => Item::Float,
                b'd' | b'n' => Item::Double,
                b's' => Item::Terminated,
                b'c' => Item::Fixed(self.digits()?.unwrap_or(1)),
                other => Item::Other(other),
            };
            return Ok(Some(item));
        }
        Ok(None)
    }

    fn digits(&mut self) -> Result<Option<usize>, Fault> {
        let mut number = None;
        while let Some(digit) = self.text.get(self.at).filter(|byte| byte.is_ascii_digit()) {
            self.at += 1;
            let next = number.unwrap_or(0_usize) * 10 + usize::from(digit - b'0');
            if next > i32::MAX as usize {
                return Err(Fault::from("integral size overflow"));
            }
            number = Some(next);
        }
        Ok(number)
    }

    fn integer_size(&mut self) -> Result<usize, Fault> {
        let size = self.digits()?.unwrap_or(4);
        match size > INTEGER_BYTES_MAX {
            true => {
                Err(Fault::Text(format!("integral size {size} is larger than limit of {INTEGER_BYTES_MAX}")))
            }
            false => Ok(size),
        }
    }

    /// Bytes of padding in front of an item at this offset.
    fn padding(&self, item: Item, offset: usize) -> usize {
        let alignment = item.size().min(self.alignment);
        match item.is_aligned() && alignment > 1 {
            // Sizes that are no power of 2 are aligned as in C: by their bits.
            true => (alignment - (offset & (alignment - 1))) & (alignment - 1),
            false => 0,
        }
    }
}

fn invalid(call: &Call<'_>, option: u8) -> Fault {
    call.refuse(1, &format!("invalid format option '{}'", char::from(option)))
}

fn pack(call: &Call<'_>, bytes_max: usize) -> Results {
    let text = call.bytes(1)?;
    let mut format = Format::new(&text);
    let mut bytes = Vec::new();
    let mut n = 1;
    while let Some(item) = format.next()? {
        bytes.resize(bytes.len() + format.padding(item, bytes.len()), 0);
        if item != Item::Padding {
            n += 1;
        }
        match item {
            Item::Padding => bytes.push(0),
            Item::Signed(size) | Item::Unsigned(size) => {
                let value = integer(number(call, n)?);
                let mut encoded = value.to_le_bytes().to_vec();
                encoded.resize(size, 0);
                if format.is_big_endian {
                    encoded.reverse();
                }
                bytes.extend_from_slice(&encoded);
            }
            Item::Float => {
                let value = number(call, n)? as f32;
                bytes.extend_from_slice(&if format.is_big_endian {
                    value.to_be_bytes()
                } else {
                    value.to_le_bytes()
                });
            }
            Item::Double => {
                let value = number(call, n)?;
                bytes.extend_from_slice(&if format.is_big_endian {
                    value.to_be_bytes()
                } else {
                    value.to_le_bytes()
                });
            }
            Item::Terminated => {
                bytes.extend_from_slice(&call.bytes(n)?);
                bytes.push(0);
            }
            Item::Fixed(size) => {
                let string = call.bytes(n)?;
                let size = if size == 0 { string.len() } else { size };
                let kept = string.get(..size).ok_or_else(|| call.refuse(n + 1, "string too short"))?;
                bytes.extend_from_slice(kept);
            }
            Item::Other(option) => return Err(invalid(call, option)),
        }
        if bytes.len() > bytes_max {
            return Err(Fault::from("not enough memory"));
        }
    }
    one(call.lua, call.lua.create_string(bytes)?)
}

fn number(call: &Call<'_>, n: usize) -> Result<f64, Fault> {
    match n > call.len() {
        // The library puts nil behind the arguments.
        true => Err(call.refuse(n, "number expected, got nil")),
        false => call.number(n),
    }
}

/// The 64 bits of a number. Numbers from 2^63 on are unsigned.
fn integer(number: f64) -> i64 {
    match number >= 9_223_372_036_854_775_808.0 {
        true => (number as u64).cast_signed(),
        false => truncate(number),
    }
}

fn unpack(call: &Call<'_>) -> Results {
    let text = call.bytes(1)?;
    let data = call.bytes(2)?;
    let at = call.integer_or(3, 1)?;
    if at < 1 {
        return Err(call.refuse(3, "offset must be 1 or greater"));
    }
    let mut at = usize::try_from(at - 1).unwrap_or(usize::MAX);
    let mut format = Format::new(&text);
    let mut values = MultiValue::new();
    let too_short = || call.refuse(2, "data string too short");
    while let Some(item) = format.next()? {
        at = at.saturating_add(format.padding(item, at));
        let rest = data.get(at..).ok_or_else(too_short)?;
        let taken = |size: usize| rest.get(..size).ok_or_else(too_short);
        let (value, size) = match item {
            Item::Padding => (None, taken(1)?.len()),
            Item::Signed(size) => (Some(decoded(taken(size)?, format.is_big_endian, true)), size),
            Item::Unsigned(size) => (Some(decoded(taken(size)?, format.is_big_endian, false)), size),
            Item::Float => {
                let bits = unsigned(taken(4)?, format.is_big_endian) as u32;
                (Some(Value::Number(f64::from(f32::from_bits(bits)))), 4)
            }
            Item::Double => {
                let bits = unsigned(taken(8)?, format.is_big_endian);
                (Some(Value::Number(f64::from_bits(bits))), 8)
            }
            Item::Terminated => {
                let length = rest.iter().position(|byte| *byte == 0);
                let length = length.ok_or_else(|| Fault::from("unfinished string in data"))?;
                (Some(Value::String(call.lua.create_string(&rest[..length])?)), length + 1)
            }
            Item::Fixed(size) => {
                let size = match (size, values.pop_back()) {
                    (0, Some(Value::Number(size))) => {
                        usize::try_from(truncate(size)).map_err(|_| too_short())?
                    }
                    (0, _) => return Err(Fault::from("format 'c0' needs a previous size")),
                    (size, before) => {
                        values.extend(before);
                        size
                    }
                };
                (Some(Value::String(call.lua.create_string(taken(size)?)?)), size)
            }
            Item::Other(option) => return Err(invalid(call, option)),
        };
        at += size;
        values.extend(value);
        if values.len() > RESULTS_MAX {
            return Err(Fault::from("too many results"));
        }
    }
    values.push_back(Value::Number((at + 1) as f64));
    Ok(values)
}

fn unsigned(bytes: &[u8], is_big_endian: bool) -> u64 {
    let add = |n: u64, byte: &u8| n << 8 | u64::from(*byte);
    if is_big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
}

fn decoded(bytes: &[u8], is_big_endian: bool, is_signed: bool) -> Value {
    let n = unsigned(bytes, is_big_endian);
    Value::Number(match (is_signed, bytes.len()) {
        (false, _) => n as f64,
        (true, size @ 1..8) => {
            let unused = 64 - 8 * size;
            ((n << unused).cast_signed() >> unused) as f64
        }
        (true, _) => n.cast_signed() as f64,
    })
}

fn size(call: &Call<'_>) -> Results {
    let text = call.bytes(1)?;
    let mut format = Format::new(&text);
    let mut total = 0_usize;
    while let Some(item) = format.next()? {
        total += format.padding(item, total);
        match item {
            Item::Terminated => return Err(call.refuse(1, "option 's' has no fixed size")),
            Item::Fixed(0) => return Err(call.refuse(1, "option 'c0' has no fixed size")),
            Item::Other(option) => return Err(invalid(call, option)),
            item => total += item.size(),
        }
    }
    one(call.lua, total as f64)
}
