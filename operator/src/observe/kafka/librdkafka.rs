//! The admin calls of librdkafka that its Rust wrapper lacks: offsets, committed offsets, descriptions of topics.
//!
//! The only unsafe code of this workspace. What every call below rests on:
//!
//! - the client outlives the questions, which borrow it; librdkafka's functions may be called from any thread;
//! - what librdkafka makes for us (lists, options, queues, events) is owned by a guard that destroys it once, as its
//!   documentation asks; requests copy their arguments before they return;
//! - what is read from an event is copied before the event is destroyed.

#![allow(
    unsafe_code,
    reason = "librdkafka is a C library, and these calls have no safe wrapper"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

use super::{Topic, TopicPartition, Unread};

/// The longest timeout that librdkafka takes.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// Which end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The first offset that is still there.
    Start,
    /// The next offset, as readers of committed records see it.
    End,
}

/// Questions to one cluster, and their answers in the order in which they come.
pub(super) struct Questions<'a> {
    client: *mut sys::rd_kafka_t,
    queue: NonNull<sys::rd_kafka_queue_t>,
    open: usize,
    borrowed: PhantomData<&'a BaseConsumer>,
}

/// An answer, with the tag of its question.
pub(super) enum Answer {
    /// Of partitions: an offset, below 0 where there is none, or why it could not be read.
    Offsets(Vec<(TopicPartition, Result<i64, Unread>)>),
    /// Of topics, by their names.
    Topics(Vec<(String, Result<Topic, Unread>)>),
    /// The question as a whole could not be answered.
    Failed(Unread),
}

impl<'a> Questions<'a> {
    pub(super) fn new(client: &'a BaseConsumer) -> Self {
        let client = client.client().native_ptr();
        // SAFETY: the client lives as long as the borrow.
        let queue = unsafe { sys::rd_kafka_queue_new(client) };
        Self {
            client,
            queue: NonNull::new(queue).expect("librdkafka gives a queue or ends the process"),
            open: 0,
            borrowed: PhantomData,
        }
    }

    /// Asks for offsets of partitions.
    pub(super) fn ask_offsets(
        &mut self,
        tag: usize,
        partitions: &[TopicPartition],
        which: Which,
        timeout: Duration,
    ) {
        let at = match which {
            Which::Start => sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST,
            Which::End => sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST,
        };
        let list = PartitionList::new(partitions, at as i64);
        let options = Options::new(
            self.client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            tag,
            timeout,
        );
        options.read_committed();
        // SAFETY: all pointers are live; the list and the options are copied before the call returns.
        unsafe { sys::rd_kafka_ListOffsets(self.client, list.0, options.0, self.queue.as_ptr()) };
        self.open += 1;
    }

    /// Asks for a group's committed offsets.
    ///
    /// Whoever asks gives up at its own deadline; librdkafka must not. When its own timeout ends a question that waits for
    /// a coordinator, and the coordinator comes back later, it aborts the process (librdkafka's issue 4605).
    pub(super) fn ask_committed(&mut self, tag: usize, group: &str, partitions: &[TopicPartition]) {
        let timeout = LONGEST_TIMEOUT;
        let list = PartitionList::new(partitions, i64::from(sys::RD_KAFKA_OFFSET_INVALID));
        let options = Options::new(
            self.client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS,
            tag,
            timeout,
        );
        let group = c_text(group);
        // SAFETY: as above; the request is destroyed after the call that copies it.
        unsafe {
            let mut request = sys::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), list.0);
            sys::rd_kafka_ListConsumerGroupOffsets(
                self.client,
                &raw mut request,
                1,
                options.0,
                self.queue.as_ptr(),
            );
            sys::rd_kafka_ListConsumerGroupOffsets_destroy(request);
        }
        self.open += 1;
    }

    /// Asks for descriptions of topics.
    pub(super) fn ask_topics(&mut self, tag: usize, names: &[Arc<str>], timeout: Duration) {
        let names: Vec<CString> = names.iter().map(|name| c_text(name)).collect();
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = Options::new(self.client, operation, tag, timeout);
        // SAFETY: as above; the collection copies the names.
        unsafe {
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            sys::rd_kafka_DescribeTopics(self.client, topics, options.0, self.queue.as_ptr());
            sys::rd_kafka_TopicCollection_destroy(topics);
        }
        self.open += 1;
    }

    /// The next answer, with its question's tag; none when all have come, or none comes in time.
    pub(super) fn next(&mut self, wait: Duration) -> Option<(usize, Answer)> {
        if self.open == 0 {
            return None;
        }
        // SAFETY: the queue is ours.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), milliseconds(wait)) };
        let event = Event(NonNull::new(event)?);
        self.open -= 1;
        Some((event.tag(), event.answer()))
    }
}

impl Drop for Questions<'_> {
    fn drop(&mut self) {
        // SAFETY: the queue is ours and used no more; answers that still come are dropped by librdkafka.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

struct PartitionList(*mut sys::rd_kafka_topic_partition_list_t);

impl PartitionList {
    fn new(partitions: &[TopicPartition], offset: i64) -> Self {
        let size = c_int::try_from(partitions.len()).unwrap_or(0);
        // SAFETY: the size is only a hint; every entry is added by librdkafka, which copies the topic's name.
        let list = unsafe { sys::rd_kafka_topic_partition_list_new(size) };
        for partition in partitions {
            let topic = c_text(&partition.topic);
            // SAFETY: the entry that is added is valid until the next one is.
            unsafe {
                let entry = sys::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), partition.partition);
                (*entry).offset = offset;
            }
        }
        Self(list)
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.0) };
    }
}

struct Options(*mut sys::rd_kafka_AdminOptions_t);

impl Options {
    fn new(
        client: *mut sys::rd_kafka_t,
        operation: sys::rd_kafka_admin_op_t,
        tag: usize,
        timeout: Duration,
    ) -> Self {
        // SAFETY: the client is live. A timeout out of range would leave the default of 60 s, and every caller has a
        // deadline of its own.
        unsafe {
            let options = sys::rd_kafka_AdminOptions_new(client, operation);
            let mut message = [0; 128];
            let timeout = milliseconds(timeout).max(1);
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options,
                timeout,
                message.as_mut_ptr(),
                message.len(),
            );
            sys::rd_kafka_AdminOptions_set_opaque(options, ptr::without_provenance_mut::<c_void>(tag));
            Self(options)
        }
    }

    fn read_committed(&self) {
        let level = sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED;
        // SAFETY: the options are ours; an error, which is for other operations, is destroyed (none is allowed).
        unsafe {
            let error = sys::rd_kafka_AdminOptions_set_isolation_level(self.0, level);
            sys::rd_kafka_error_destroy(error);
        }
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0) };
    }
}

struct Event(NonNull<sys::rd_kafka_event_t>);

impl Event {
    fn tag(&self) -> usize {
        // SAFETY: the event is ours. The pointer is a number that `Options` put there.
        unsafe { sys::rd_kafka_event_opaque(self.0.as_ptr()) }.addr()
    }

    fn answer(&self) -> Answer {
        let event = self.0.as_ptr();
        // SAFETY: the event is ours and lives until the end of this function, and with it all that is read from it. Each
        // result is asked for by the event's own type, and is null otherwise.
        unsafe {
            if sys::rd_kafka_event_error(event) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Answer::Failed(said(&text(sys::rd_kafka_event_error_string(event))));
            }
            let offsets = sys::rd_kafka_event_ListOffsets_result(event);
            if !offsets.is_null() {
                return Answer::Offsets(listed_offsets(offsets));
            }
            let committed = sys::rd_kafka_event_ListConsumerGroupOffsets_result(event);
            if !committed.is_null() {
                return committed_offsets(committed);
            }
            let topics = sys::rd_kafka_event_DescribeTopics_result(event);
            if !topics.is_null() {
                return Answer::Topics(described_topics(topics));
            }
            Answer::Failed(Unread::new("an answer of an unknown kind"))
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: polled once, destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

/// # Safety
/// `result` belongs to a live event.
unsafe fn listed_offsets(
    result: *const sys::rd_kafka_ListOffsets_result_t,
) -> Vec<(TopicPartition, Result<i64, Unread>)> {
    let mut count = 0;
    // SAFETY: the array and its items live as long as the event.
    unsafe {
        let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        let infos = (0..count).map(|index| *infos.add(index));
        infos
            .map(|info| partition(sys::rd_kafka_ListOffsetsResultInfo_topic_partition(info)))
            .collect()
    }
}

/// # Safety
/// `result` belongs to a live event.
unsafe fn committed_offsets(result: *const sys::rd_kafka_ListConsumerGroupOffsets_result_t) -> Answer {
    let mut count = 0;
    // SAFETY: the arrays and their items live as long as the event.
    unsafe {
        let groups = sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
        if count == 0 {
            return Answer::Failed(Unread::new("an answer without a group"));
        }
        let group = *groups;
        let error = sys::rd_kafka_group_result_error(group);
        if !error.is_null() {
            return Answer::Failed(said(&text(sys::rd_kafka_error_string(error))));
        }
        let list = sys::rd_kafka_group_result_partitions(group);
        if list.is_null() {
            return Answer::Failed(Unread::new("an answer without partitions"));
        }
        let size = usize::try_from((*list).cnt).unwrap_or(0);
        Answer::Offsets(
            (0..size)
                .map(|index| partition((*list).elems.add(index)))
                .collect(),
        )
    }
}

/// # Safety
/// `result` belongs to a live event.
unsafe fn described_topics(
    result: *const sys::rd_kafka_DescribeTopics_result_t,
) -> Vec<(String, Result<Topic, Unread>)> {
    let mut count = 0;
    // SAFETY: the arrays and their items live as long as the event.
    unsafe {
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        let topics = (0..count).map(|index| *topics.add(index));
        topics
            .map(|topic| {
                (
                    text(sys::rd_kafka_TopicDescription_name(topic)),
                    description(topic),
                )
            })
            .collect()
    }
}

/// # Safety
/// `topic` belongs to a live event.
unsafe fn description(topic: *const sys::rd_kafka_TopicDescription_t) -> Result<Topic, Unread> {
    // SAFETY: as above; a topic without an error has an id.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(topic);
        // A null error is none. The code itself is not read: a broker may send one that this library does not know.
        let message = if error.is_null() {
            String::new()
        } else {
            text(sys::rd_kafka_error_string(error))
        };
        let mut count = 0;
        let partitions = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        if count == 0 {
            let why = if message.is_empty() {
                "the topic has no partitions".into()
            } else {
                message
            };
            return Err(Unread::new(why));
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let numbers =
            (0..count).map(|index| sys::rd_kafka_TopicPartitionInfo_partition(*partitions.add(index)));
        let mut partitions: Vec<i32> = numbers.collect();
        partitions.sort_unstable();
        Ok(Topic {
            id: text(sys::rd_kafka_Uuid_base64str(id)).into(),
            partitions,
        })
    }
}

/// # Safety
/// `entry` is live.
unsafe fn partition(entry: *const sys::rd_kafka_topic_partition_t) -> (TopicPartition, Result<i64, Unread>) {
    // SAFETY: an entry's topic is a text. Its error is read as the number that it is in C: a broker may send one that the
    // Rust enumeration does not know.
    unsafe {
        let name = TopicPartition {
            topic: text((*entry).topic).into(),
            partition: (*entry).partition,
        };
        let error = (&raw const (*entry).err).cast::<i32>().read();
        let offset = if error == 0 {
            Ok((*entry).offset)
        } else {
            Err(Unread::new(match RDKafkaRespErr::try_from(error) {
                Ok(known) => RDKafkaErrorCode::from(known).to_string(),
                Err(_) => format!("Kafka error {error}"),
            }))
        };
        (name, offset)
    }
}

/// # Safety
/// `pointer` is null or a live text.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: said above.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// What the broker said, without what librdkafka says about its own steps.
fn said(message: &str) -> Unread {
    let said = message.split("response failure: ").last().unwrap_or(message);
    Unread::new(said)
}

/// A name for C. Names of topics and groups come from checked pools; one with a NUL is cut there, and unknown to Kafka.
fn c_text(name: &str) -> CString {
    let end = name.find('\0').unwrap_or(name.len());
    CString::new(&name[..end]).unwrap_or_default()
}

fn milliseconds(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX)
}
