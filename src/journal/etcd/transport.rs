//! What the backend needs of etcd: transactions, and ranges at one revision.
//!
//! Not here: connections, and what the keys mean.

/// A key and what etcd knows about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision that created it.
    pub create_revision: i64,
    /// The revision that wrote it last.
    pub mod_revision: i64,
}

/// A comparison of a transaction. A key that does not exist has the revision 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key was created by this revision.
    Created(String, i64),
    /// The key was last written by this revision.
    Modified(String, i64),
}

/// A write of a transaction. No two of one transaction may concern the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Puts a key.
    Put(String, Vec<u8>),
    /// Deletes the keys from the first to before the second.
    Delete(String, String),
}

impl Write {
    /// About how many bytes it takes in a request.
    pub fn size_bytes(&self) -> usize {
        const FIXED: usize = 32;
        match self {
            Write::Put(key, value) => FIXED + key.len() + value.len(),
            Write::Delete(from, to) => FIXED + from.len() + to.len(),
        }
    }
}

/// A transaction: if all comparisons hold, all writes are applied. Either way it reads some keys,
/// after the writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What is written.
    pub writes: Vec<Write>,
    /// The keys that are read.
    pub reads: Vec<String>,
}

/// The result of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// The revision of the store after the transaction; if it wrote, the one that it made.
    pub revision: i64,
    /// Those of the keys to be read that exist, in their order.
    pub found: Vec<KeyValue>,
}

/// A part of the keys in their order, at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The first key.
    pub from: String,
    /// Behind the last key.
    pub to: String,
    /// The revision; 0: the newest one.
    pub revision: i64,
    /// The most keys to be returned.
    pub limit: usize,
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportError {
    /// There was no response. A transaction may have been applied, or may still be.
    Unknown(String),
    /// The store has reached its quota, and nothing was written.
    NoSpace,
    /// The store refused the request, and will refuse it again.
    Refused(String),
}

/// A connection to a store. Every call blocks.
pub trait Transport: Send {
    /// Runs a transaction.
    fn txn(&mut self, txn: Txn) -> Result<TxnResult, TransportError>;

    /// Reads a range.
    fn range(&mut self, range: Range) -> Result<Vec<KeyValue>, TransportError>;

    /// The size of the store's database in bytes.
    fn database_bytes(&mut self) -> Result<u64, TransportError>;
}
