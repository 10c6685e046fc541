//! Files as people have them: damaged, unusual, or with a header that does not tell the truth. Each is decoded as the
//! ffmpeg program decodes it, or is refused with a reason; nothing is noise, and nothing is made up.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod linear;
mod ogg;
mod parts;
mod pieces;
mod refused;
mod streams;
mod tracks;
