//! IDs of tasks: those of an Idempotency-Key are always the same, all others are new.

use separation_contract::message::TaskId;
use uuid::Uuid;

/// A new ID, in the order of time.
pub(super) fn new_id() -> TaskId {
    task_id(Uuid::now_v7())
}

/// The ID of a client's Idempotency-Key. `erased` is the number of erased tasks that had this key before.
pub(super) fn id_of_key(client: &str, key: &str, erased: u32) -> TaskId {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_OID, client.as_bytes());
    let name = match erased {
        0 => key.to_owned(),
        // No key contains a space.
        _ => format!("{key} #{erased}"),
    };
    task_id(Uuid::new_v5(&namespace, name.as_bytes()))
}

fn task_id(uuid: Uuid) -> TaskId {
    TaskId::parse(&uuid.to_string()).expect("a UUID is a valid task id")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_id_belongs_to_one_client_one_key_and_one_use_of_it() {
        let id = id_of_key("acme", "order-1", 0);
        assert_eq!(id, id_of_key("acme", "order-1", 0));
        let ids = [
            id,
            id_of_key("other", "order-1", 0),
            id_of_key("acme", "order-2", 0),
            id_of_key("acme", "order-1", 1),
            id_of_key("acme", "order-1#1", 0),
            new_id(),
            new_id(),
        ];
        assert_eq!(BTreeSet::from(ids).len(), 7);
    }
}
