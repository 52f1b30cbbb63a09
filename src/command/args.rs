//! The arguments of a request.
//!
//! Guarantees: reading arguments allocates nothing. Not here: what they mean.

/// The position of an argument in a buffer: start and end.
pub type Span = (u32, u32);

/// The arguments of one request; the command's name is number 0.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

/// [`Args`] that own their bytes.
#[derive(Debug, Clone, Default)]
pub struct OwnedArgs {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl OwnedArgs {
    /// Copies `args`.
    pub fn of<A: AsRef<[u8]>>(args: impl IntoIterator<Item = A>) -> OwnedArgs {
        let mut owned = OwnedArgs::default();
        args.into_iter().for_each(|arg| owned.push(arg.as_ref()));
        owned
    }

    /// Removes all arguments, and keeps the memory for others.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }

    /// Appends an argument.
    pub fn push(&mut self, arg: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(arg);
        self.spans.push((start, self.bytes.len() as u32));
    }

    /// Borrows the arguments.
    pub fn as_args(&self) -> Args<'_> {
        Args { bytes: &self.bytes, spans: &self.spans }
    }

    /// Whether there are no arguments.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<Span>()
    }
}

impl<'a> Args<'a> {
    /// The arguments at `spans` of `bytes`. A span beyond the bytes is an empty argument.
    pub fn new(bytes: &'a [u8], spans: &'a [Span]) -> Args<'a> {
        Args { bytes, spans }
    }

    /// The number of arguments.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are no arguments.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The bytes from the first argument to the last.
    pub fn size(&self) -> usize {
        match (self.spans.first(), self.spans.last()) {
            (Some((start, _)), Some((_, end))) => end.saturating_sub(*start) as usize,
            _ => 0,
        }
    }

    /// Argument number `n`; empty if there is none.
    pub fn at(&self, n: usize) -> &'a [u8] {
        self.spans
            .get(n)
            .and_then(|&(start, end)| self.bytes.get(start as usize..end as usize))
            .unwrap_or(b"")
    }

    /// The arguments from number `n` on.
    pub fn from(&self, n: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let args = *self;
        (n.min(self.len())..self.len()).map(move |n| args.at(n))
    }

    /// The arguments without the first `n`, numbered from 0 again.
    pub fn skip(&self, n: usize) -> Args<'a> {
        Args { bytes: self.bytes, spans: self.spans.get(n..).unwrap_or_default() }
    }

    /// The arguments from number `start` to before number `end`, numbered from 0 again.
    pub(super) fn range(&self, start: usize, end: usize) -> Args<'a> {
        Args { bytes: self.bytes, spans: self.spans.get(start..end).unwrap_or_default() }
    }

    /// Copies the arguments.
    pub fn to_owned(&self) -> OwnedArgs {
        OwnedArgs::of(self.from(0))
    }
}
