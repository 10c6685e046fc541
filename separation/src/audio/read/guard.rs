//! Runs decoders that may panic on hostile input. Only their panics are caught and silenced.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;
use std::thread;

use crate::audio::AudioError;

thread_local! {
    /// Whether this thread is running a decoder.
    static IS_DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder; if it panics, the file is reported as corrupt. The decoder's state is then undefined and
/// must not be used again.
pub(super) fn guarded<T>(path: &Path, decode: impl FnOnce() -> T) -> Result<T, AudioError> {
    silence_decoders();
    let was_decoding = IS_DECODING.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(decode));
    IS_DECODING.set(was_decoding);
    outcome.map_err(|_| AudioError::corrupt(path, "its decoder failed on invalid values"))
}

/// Installs a panic hook that skips panics inside decoders, which are returned as errors, and passes every
/// other panic of any thread to the previous hook.
fn silence_decoders() {
    static INSTALLED: Once = Once::new();
    // A panicking thread must not change hooks.
    if thread::panicking() {
        return;
    }
    INSTALLED.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // A thread that is exiting has no flag any more and runs no decoder.
            if !IS_DECODING.try_with(Cell::get).unwrap_or(false) {
                report(panic);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_a_panic_inside_a_decoder_is_silent() {
        // A separate process, because panics print to the stderr of the process.
        let run = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "audio::read::guard::tests::panicking_child",
            ])
            .env("PANICKING_CHILD", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{text}");
        assert!(!text.contains("inside a decoder"), "{text}");
        assert!(text.contains("behind a decoder"), "{text}");
        assert!(text.contains("beside a decoder"), "{text}");
    }

    #[test]
    fn panicking_child() {
        if std::env::var_os("PANICKING_CHILD").is_none() {
            return;
        }
        let error = guarded::<()>(Path::new("song"), || {
            assert!(thread::spawn(|| panic!("beside a decoder")).join().is_err());
            panic!("inside a decoder")
        });
        assert!(matches!(error, Err(AudioError::Corrupt { .. })));
        assert!(catch_unwind(|| panic!("behind a decoder")).is_err());
    }
}
