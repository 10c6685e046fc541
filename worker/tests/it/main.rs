//! The worker as its users see it: public functions, real files, real programs.

mod formats;
mod hostile_audio;
