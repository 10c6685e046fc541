//! Real-world files: damaged, unusual, or with a wrong header. Each is decoded as the ffmpeg program decodes
//! it, or is refused with a reason; none gives noise or invented audio.

#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod fragments;
mod linear;
mod ogg;
mod own_format;
mod refused;
mod streams;
mod support;
mod tracks;
