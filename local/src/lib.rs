//! The commands of `separation-operator` that no cluster runs: a pool on one machine, and a simulated pool.
//!
//! Modules; each imports only from those above it.
//!
//! | module | contains | must not |
//! |---|---|---|
//! | `lag_check` | the lag check period as an argument | read lag |
//! | [`simulate`] | a simulated pool under the real decisions | have scaling rules of its own |
//! | [`processes`] | a pool on one machine, with processes in place of pods | have scaling rules of its own |

mod lag_check;
pub mod processes;
pub mod simulate;
