//! A member's assignment, as consumers encode it: the classic protocol's `ConsumerProtocolAssignment`.

/// The partitions of `topic` in an assignment, ascending; none where it is not one. No bytes mean no partitions.
pub(super) fn partitions_of(bytes: &[u8], topic: &str) -> Option<Vec<i32>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut reader = Reader(bytes);
    // All versions begin alike; what later ones add comes after.
    let version = reader.i16()?;
    let topics = reader.i32()?;
    if version < 0 {
        return None;
    }
    let mut owned = Vec::new();
    for _ in 0..topics {
        let name = reader.text()?;
        let count = reader.i32()?;
        for _ in 0..count {
            let partition = reader.i32()?;
            if name == topic.as_bytes() {
                owned.push(partition);
            }
        }
    }
    owned.sort_unstable();
    Some(owned)
}

/// Big-endian numbers and texts, one after the other; none after the end.
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
    fn what_is_no_assignment_is_none() {
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
