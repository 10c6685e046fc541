//! Reads the source of the workspace, so that tests can hold it to the rules in docs/ARCHITECTURE.md.
//!
//! Modules; each imports only from those above it.
//!
//! | module | does | constraint |
//! |---|---|---|
//! | [`source`] | finds and parses the files of a crate, tests left out | knows no rule |
//! | [`imports`] | which file uses items of which other file | does not know which are allowed |
//! | [`cycles`] | files that import one another | reads no files |
//! | [`size`] | lines of functions, files and crates | reads no files |
//! | [`texts`] | string literals and doc comments of a file | does not know which words are wrong |
//! | [`documents`] | tables, links and sections of Markdown | knows no Rust |

pub mod cycles;
pub mod documents;
pub mod imports;
pub mod size;
pub mod source;
pub mod texts;
