//! A member's assignment and subscription, as consumers encode them: the classic protocol's
//! `ConsumerProtocolAssignment` and `ConsumerProtocolSubscription`.

/// The partitions of `topic` in an assignment, ascending; `None` if it is malformed. Empty bytes mean no partitions.
pub(crate) fn partitions_of(bytes: &[u8], topic: &str) -> Option<Vec<i32>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut reader = Reader(bytes);
    // All versions share this prefix; later versions append fields.
    match reader.i16()? {
        0.. => reader.partitions_of(topic),
        _ => None,
    }
}

/// The partitions of `topic` that a member owned when it joined, ascending, as subscriptions of version 1 and later
/// report them; `None` for version 0 and malformed bytes.
pub(crate) fn previously_owned(bytes: &[u8], topic: &str) -> Option<Vec<i32>> {
    let mut reader = Reader(bytes);
    if reader.i16()? < 1 {
        return None;
    }
    for _ in 0..reader.i32()? {
        reader.text()?;
    }
    let user_data = reader.i32()?;
    // Null has the length -1.
    reader.take(usize::try_from(user_data.max(0)).ok()?)?;
    reader.partitions_of(topic)
}

/// Reads big-endian numbers and strings in order; `None` past the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.i16()?).ok()?;
        self.take(length)
    }

    /// Reads an array of topics, each with an array of partitions.
    fn partitions_of(&mut self, topic: &str) -> Option<Vec<i32>> {
        let mut found = Vec::new();
        for _ in 0..self.i32()? {
            let name = self.text()?;
            for _ in 0..self.i32()? {
                let partition = self.i32()?;
                if name == topic.as_bytes() {
                    found.push(partition);
                }
            }
        }
        found.sort_unstable();
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(topics: &[(&str, &[i32])]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
        for (topic, partitions) in topics {
            bytes.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend(i32::try_from(partitions.len()).unwrap().to_be_bytes());
            partitions
                .iter()
                .for_each(|partition| bytes.extend(partition.to_be_bytes()));
        }
        // User data, which is not read.
        bytes.extend([0xff; 4]);
        bytes
    }

    #[test]
    fn partitions_of_one_topic_are_found_among_others() {
        let bytes = encoded(&[("other", &[1]), ("tasks", &[5, 2]), ("more", &[])]);
        assert_eq!(partitions_of(&bytes, "tasks"), Some(vec![2, 5]));
        assert_eq!(partitions_of(&bytes, "nothing"), Some(vec![]));
        assert_eq!(partitions_of(&[], "tasks"), Some(vec![]));
    }

    #[test]
    fn previously_owned_partitions_are_read_after_the_subscribed_topics() {
        let owned = encoded(&[("other", &[1]), ("tasks", &[5, 2])]);
        for user_data in [&[0xff; 4][..], &[0, 0, 0, 2, 7, 7]] {
            let subscription = [&[0, 1, 0, 0, 0, 1, 0, 5][..], b"tasks", user_data].concat();
            // Both have the same two-byte version in front.
            let bytes = [&subscription, &owned[2..]].concat();
            assert_eq!(previously_owned(&bytes, "tasks"), Some(vec![2, 5]));
            assert_eq!(previously_owned(&subscription, "tasks"), None);
        }
        assert_eq!(
            previously_owned(&[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], "tasks"),
            None
        );
    }

    #[test]
    fn a_malformed_assignment_is_none() {
        let bytes = encoded(&[("tasks", &[5, 2])]);
        for end in 1..bytes.len() - 4 {
            assert_eq!(partitions_of(&bytes[..end], "tasks"), None, "{end}");
        }
        assert_eq!(partitions_of(&[0xff; 40], "tasks"), None);
        assert_eq!(
            partitions_of(&[0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff], "tasks"),
            None
        );
    }
}
