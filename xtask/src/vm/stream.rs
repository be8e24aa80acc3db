//! The end of a guest's stream: a virtio port has no end of file, so that each stream of the job ends with bytes that
//! were drawn for this boot.

/// Passes a stream through until the end mark, holding back no byte that cannot belong to the mark.
#[derive(Debug)]
pub(crate) struct UntilMark {
    mark: Vec<u8>,
    held: Vec<u8>,
    ended: bool,
}

impl UntilMark {
    /// A filter for one stream.
    pub(crate) fn new(mark: &[u8]) -> Self {
        Self {
            mark: mark.to_vec(),
            held: Vec::new(),
            ended: false,
        }
    }

    /// Whether the mark has been seen.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Takes the next bytes and returns those that may go on.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.ended {
            return Vec::new();
        }
        self.held.extend_from_slice(bytes);
        if let Some(at) = self
            .held
            .windows(self.mark.len())
            .position(|w| w == self.mark)
        {
            self.ended = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let longest = self.held.len().min(self.mark.len().saturating_sub(1));
        let keep = (1..=longest)
            .rev()
            .find(|&length| self.held.ends_with(&self.mark[..length]))
            .unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// What is still held back, when the stream broke off without its mark.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::UntilMark;
    use proptest::prelude::*;

    proptest! {
        /// However the bytes arrive, the stream before the mark comes out whole and nothing after it.
        #[test]
        fn a_stream_comes_out_as_it_went_in(
            stream in proptest::collection::vec(prop_oneof![Just(b'<'), Just(b'e'), any::<u8>()], 0..60),
            cuts in proptest::collection::vec(1_usize..7, 0..40),
            after in proptest::collection::vec(any::<u8>(), 0..5),
        ) {
            let mark = b"<<end>";
            prop_assume!(!stream.windows(mark.len()).any(|w| w == mark));
            let whole = [stream.as_slice(), mark, &after].concat();
            let mut filter = UntilMark::new(mark);
            let mut out = Vec::new();
            let mut rest = whole.as_slice();
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                out.extend(filter.push(now));
                rest = later;
            }
            out.extend(filter.push(rest));
            prop_assert!(filter.ended());
            prop_assert_eq!(out, stream);
        }
    }

    #[test]
    fn only_what_may_be_the_mark_is_held_back() {
        let mut filter = UntilMark::new(b"<end>");
        assert_eq!(filter.push(b"live"), b"live");
        assert_eq!(filter.push(b"a<e"), b"a");
        assert_eq!(filter.push(b"x"), b"<ex");
        assert_eq!(filter.push(b"<en"), b"");
        assert!(!filter.ended());
        assert_eq!(filter.rest(), b"<en");
    }
}
