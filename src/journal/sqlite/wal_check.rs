//! Checks SQLite's write-ahead log before SQLite reads it.
//!
//! SQLite takes the first frame whose checksum is wrong for the end of the log. That is right for a
//! commit that a crash interrupted, and silently drops commits if the frame was damaged later.
//!
//! Guarantees: damage is reported if it hides a commit that was followed by another one. A commit
//! is synced before the next one is written behind it, so a frame that continues the checksum of a
//! commit's last frame proves that everything before it was durable once. What a crash leaves
//! behind is never reported: neither the torn frames of the last commit, nor those of failed
//! commits that later ones overwrote in part, as none of them continues a commit. Not here: damage
//! in the very last commit, which looks the same as a torn one, and in one frame of 64 at the end
//! of the commit before, see [`Frame::has_certain_mark`]; a lost log file; repairs. The file is
//! only read.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::open::log_path;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// Without its lowest bit, which tells the byte order of checksums.
const MAGIC: u32 = 0x377f_0682;
/// The unit that a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;
const PAGE_BYTES_DEFAULT: usize = 4096;
const BUFFER_BYTES: usize = 256 << 10;

/// Commits in the log that SQLite would silently drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    /// What is wrong, and where.
    pub(super) what: String,
    /// The number of commits from there on, as far as their marks can be read.
    pub(super) commits: u64,
}

/// Looks for damage in the log of `database`.
pub(super) fn find_damage(database: &Path) -> io::Result<Option<Damage>> {
    let log = match File::open(log_path(database)) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut log = BufReader::with_capacity(BUFFER_BYTES, log);
    let mut bytes = [0; HEADER_BYTES];
    if !is_filled(&mut log, &mut bytes)? {
        return Ok(None);
    }
    let database = DatabaseFile::read(database)?;
    let header = Header::parse(&bytes);
    let found = match &header {
        Some(header) => read_frames(&mut log, header)?,
        None => {
            let page_bytes = database.page_bytes.unwrap_or(PAGE_BYTES_DEFAULT);
            read_frames_without_header(&mut log, page_bytes)?
        }
    };
    Ok(match found {
        _ if database.is_empty && found.commits() > 0 => Some(Damage {
            what: "the database file is missing or empty, and its log is not".to_owned(),
            commits: found.commits(),
        }),
        Frames { damaged_from: Some(offset), hidden, .. } => {
            let what = match header {
                Some(_) => format!("a frame of the write-ahead log, at byte {offset}, is damaged"),
                None => "the header of the write-ahead log is damaged".to_owned(),
            };
            Some(Damage { what, commits: hidden })
        }
        Frames { damaged_from: None, .. } => None,
    })
}

/// The frames of the current generation of the log.
struct Frames {
    /// Commits that SQLite finds.
    readable: u64,
    /// Commits that it does not find.
    hidden: u64,
    /// The offset of the damage that hides them; `None`: no damage.
    damaged_from: Option<usize>,
}

impl Frames {
    fn commits(&self) -> u64 {
        self.readable + if self.damaged_from.is_some() { self.hidden } else { 0 }
    }
}

fn read_frames(log: &mut impl Read, header: &Header) -> io::Result<Frames> {
    let mut frames = Frames { readable: 0, hidden: 0, damaged_from: None };
    let mut first_bad = None;
    // Commits behind the first bad frame, including unproven ones.
    let mut behind = 0;
    // Of the frame before: the checksum it has and the one it should have, whether it ends a
    // commit, and whether that is as certain as the checksum it has.
    let (mut stored, mut computed) = (header.checksum, header.checksum);
    let (mut ends_commit, mut is_mark_certain) = (false, false);
    let mut bytes = vec![0; FRAME_HEADER_BYTES + header.page_bytes];
    let mut offset = HEADER_BYTES;
    while is_filled(log, &mut bytes)? {
        let frame = Frame::parse(&bytes);
        // Either one may be the damaged one.
        let mut sums = [stored, computed];
        if !frame.is_blank() {
            sums[0] = frame.checksum_after(stored, header);
            sums[1] = if computed == stored { sums[0] } else { frame.checksum_after(computed, header) };
        }
        let is_current = frame.salt == header.salt;
        let is_valid = is_current && frame.page != 0 && sums.contains(&frame.checksum);
        let is_commit = frame.database_pages != 0;
        if first_bad.is_none() && is_valid {
            frames.readable += u64::from(is_commit);
        } else {
            let bad = *first_bad.get_or_insert(offset);
            behind += u64::from(is_commit && is_current);
            if is_valid {
                frames.hidden = behind;
                // The checksum that it should have covers the mark.
                if ends_commit && (frame.checksum == sums[1] || is_mark_certain) {
                    frames.damaged_from = Some(bad);
                }
            }
        }
        (stored, computed) = (frame.checksum, sums[0]);
        (ends_commit, is_mark_certain) = (is_commit, frame.has_certain_mark(offset, is_current));
        offset += bytes.len();
    }
    Ok(frames)
}

/// A header is synced before the first frame is written behind it, so frames without a header are
/// damage.
fn read_frames_without_header(log: &mut impl Read, page_bytes: usize) -> io::Result<Frames> {
    let mut frames = Frames { readable: 0, hidden: 0, damaged_from: None };
    let mut salt = None;
    let mut bytes = vec![0; FRAME_HEADER_BYTES + page_bytes];
    while is_filled(log, &mut bytes)? {
        let frame = Frame::parse(&bytes);
        if frame.page != 0 && frame.salt == *salt.get_or_insert(frame.salt) {
            frames.damaged_from = Some(0);
            frames.hidden += u64::from(frame.database_pages != 0);
        }
    }
    Ok(frames)
}

/// Fills `buffer`; returns `false` if the file ends before.
fn is_filled(log: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

struct DatabaseFile {
    is_empty: bool,
    page_bytes: Option<usize>,
}

impl DatabaseFile {
    fn read(path: &Path) -> io::Result<DatabaseFile> {
        const PAGE_BYTES_AT: usize = 16;
        let mut start = [0; PAGE_BYTES_AT + 2];
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(DatabaseFile { is_empty: true, page_bytes: None });
            }
            Err(error) => return Err(error),
        };
        let is_empty = file.metadata()?.len() == 0;
        let has_start = is_filled(&mut file, &mut start)?;
        let page_bytes = match u16::from_be_bytes([start[PAGE_BYTES_AT], start[PAGE_BYTES_AT + 1]]) {
            1 => 65_536,
            bytes => usize::from(bytes),
        };
        let page_bytes = Some(page_bytes).filter(|bytes| has_start && is_page_size(*bytes));
        Ok(DatabaseFile { is_empty, page_bytes })
    }
}

fn is_page_size(bytes: usize) -> bool {
    bytes.is_power_of_two() && (512..=65_536).contains(&bytes)
}

fn word(bytes: &[u8], index: usize) -> u32 {
    let at = index * 4;
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

struct Header {
    page_bytes: usize,
    has_big_endian_checksums: bool,
    salt: [u32; 2],
    checksum: [u32; 2],
}

impl Header {
    /// Accepts the headers that SQLite accepts.
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
        let magic = word(bytes, 0);
        let header = Header {
            page_bytes: usize::try_from(word(bytes, 2)).unwrap_or(0),
            has_big_endian_checksums: magic & 1 == 1,
            salt: [word(bytes, 4), word(bytes, 5)],
            checksum: [word(bytes, 6), word(bytes, 7)],
        };
        let is_valid = magic & !1 == MAGIC
            && is_page_size(header.page_bytes)
            && header.checksum_of(&bytes[..24], [0, 0]) == header.checksum;
        is_valid.then_some(header)
    }

    /// Continues `checksum` over `bytes`, whose length is a multiple of eight.
    fn checksum_of(&self, bytes: &[u8], checksum: [u32; 2]) -> [u32; 2] {
        let read = |bytes: &[u8]| {
            let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
            if self.has_big_endian_checksums { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let [mut first, mut second] = checksum;
        for pair in bytes.chunks_exact(8) {
            first = first.wrapping_add(read(&pair[..4])).wrapping_add(second);
            second = second.wrapping_add(read(&pair[4..])).wrapping_add(first);
        }
        [first, second]
    }
}

struct Frame<'a> {
    page: u32,
    /// Pages of the database after the commit that this frame ends; 0 in all other frames.
    database_pages: u32,
    salt: [u32; 2],
    checksum: [u32; 2],
    bytes: &'a [u8],
}

impl Frame<'_> {
    /// Whether nothing was ever written there.
    fn is_blank(&self) -> bool {
        self.bytes[..FRAME_HEADER_BYTES].iter().all(|byte| *byte == 0)
    }

    fn parse(bytes: &[u8]) -> Frame<'_> {
        Frame {
            page: word(bytes, 0),
            database_pages: word(bytes, 1),
            salt: [word(bytes, 2), word(bytes, 3)],
            checksum: [word(bytes, 4), word(bytes, 5)],
            bytes,
        }
    }

    /// Whether the mark of a commit in a frame at `offset` is of the same age as the checksum
    /// there, and not of an earlier generation, as it may be in a torn frame: it is in the same
    /// sector as the checksum, or as a salt that is current.
    fn has_certain_mark(&self, offset: usize, is_current: bool) -> bool {
        const SALT_END: usize = 16;
        let is_whole_up_to = |end| offset / SECTOR_BYTES == (offset + end - 1) / SECTOR_BYTES;
        is_whole_up_to(FRAME_HEADER_BYTES) || (is_current && is_whole_up_to(SALT_END))
    }

    /// What its checksum should be behind a frame with the checksum `before`.
    fn checksum_after(&self, before: [u32; 2], header: &Header) -> [u32; 2] {
        let checksum = header.checksum_of(&self.bytes[..8], before);
        header.checksum_of(&self.bytes[FRAME_HEADER_BYTES..], checksum)
    }
}

#[cfg(test)]
mod tests;
