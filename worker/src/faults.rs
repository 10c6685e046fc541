//! Places where a test ends the process, between any two stages. Empty unless the feature `fault-injection` is on, which
//! no shipped build has.

/// A place between two stages.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub fn point(_name: &'static str) {}

/// A place between two stages: ends the process as `kill -9` does if `SEPARATION_FAULT` names it.
///
/// With `SEPARATION_FAULT_MARK`, only as long as that file is not there; it is made first, so that the next process lives.
#[cfg(feature = "fault-injection")]
pub fn point(name: &'static str) {
    if std::env::var("SEPARATION_FAULT").is_ok_and(|wanted| wanted == name) {
        if let Some(mark) = std::env::var_os("SEPARATION_FAULT_MARK") {
            let made = std::fs::File::create_new(&mark);
            if made.is_err() {
                return;
            }
        }
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        // The signal may take a moment.
        loop {
            std::thread::park();
        }
    }
}
