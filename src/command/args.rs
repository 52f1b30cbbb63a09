//! The arguments of a request.
//!
//! Guarantees: reading arguments allocates nothing. Not here: what they mean.

/// Where a word lies in a buffer: start and end.
pub type Span = (u32, u32);

/// The words of one request, the command's name first.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

/// [`Args`] that outlive the buffer they came in.
#[derive(Debug, Clone, Default)]
pub struct OwnedArgs {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl OwnedArgs {
    /// Adds a word.
    pub fn push(&mut self, arg: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(arg);
        self.spans.push((start, self.bytes.len() as u32));
    }

    /// The words.
    pub fn as_args(&self) -> Args<'_> {
        Args { bytes: &self.bytes, spans: &self.spans }
    }

    /// Whether there is no word.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes kept.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<Span>()
    }
}

impl<'a> Args<'a> {
    /// Words at `spans` of `bytes`. Spans beyond the bytes read as empty words.
    pub fn new(bytes: &'a [u8], spans: &'a [Span]) -> Args<'a> {
        Args { bytes, spans }
    }

    /// How many words.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no word.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The word number `n`, from 0; an empty one beyond the end.
    pub fn at(&self, n: usize) -> &'a [u8] {
        self.spans
            .get(n)
            .and_then(|&(start, end)| self.bytes.get(start as usize..end as usize))
            .unwrap_or(b"")
    }

    /// The words from number `n` on.
    pub fn from(&self, n: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let args = *self;
        (n.min(self.len())..self.len()).map(move |n| args.at(n))
    }

    /// A copy that stays.
    pub fn to_owned(&self) -> OwnedArgs {
        let mut owned = OwnedArgs::default();
        self.from(0).for_each(|arg| owned.push(arg));
        owned
    }
}
