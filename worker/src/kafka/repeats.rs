//! Which troubles are news: librdkafka reports one lost connection again and again. Pure: no clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One kind of trouble is said again after this time at the earliest.
const PAUSE: Duration = Duration::from_secs(10);

/// When each kind was said last. Kinds are error codes and librdkafka's own, which are few.
#[derive(Debug)]
pub(super) struct Repeats<K> {
    said: BTreeMap<K, Instant>,
}

impl<K: Ord> Repeats<K> {
    pub(super) const fn new() -> Self {
        Self {
            said: BTreeMap::new(),
        }
    }

    /// Whether a trouble of this kind at `now` is news.
    pub(super) fn is_news(&mut self, kind: K, now: Instant) -> bool {
        let known = self.said.get(&kind);
        let news = known.is_none_or(|&said| now.saturating_duration_since(said) >= PAUSE);
        if news {
            self.said.insert(kind, now);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_of_trouble_is_news_now_and_then() {
        let start = Instant::now();
        let mut repeats = Repeats::new();
        assert!(repeats.is_news("a", start));
        assert!(!repeats.is_news("a", start + PAUSE / 2));
        assert!(repeats.is_news("b", start + PAUSE / 2));
        assert!(repeats.is_news("a", start + PAUSE));
    }
}
