//! Real-world files, which are damaged, unusual, or have a wrong header: each is decoded as the ffmpeg program decodes
//! it, or is refused with a reason; none gives noise or invented audio. And models of every tensor contract, compared
//! with their definition in double precision.

#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod contracts;
mod fragments;
mod linear;
mod ogg;
mod own_format;
mod refused;
mod streams;
mod support;
mod tracks;
