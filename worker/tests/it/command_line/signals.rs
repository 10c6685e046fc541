//! Runs that are stopped by signals or killed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::{Bench, SECOND, errors, tones};

#[test]
fn files_of_a_killed_run_are_removed_by_the_next() {
    let bench = Bench::new();
    let song = bench.write("long.wav", &tones(600 * SECOND, 0.1));
    let mut child = bench
        .command(&[&song], &[])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let parts = || {
        bench
            .stems()
            .iter()
            .filter(|name| name.ends_with(".part"))
            .count()
    };
    while parts() < 2 {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    send_signal(&child, "-STOP");
    let running = bench.separate(&[&bench.song("other.wav")], &["--stems", "vocals"]);
    assert!(running.status.success(), "{}", errors(&running));
    assert_eq!(parts(), 2, "files of a running process are kept");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(parts(), 2);
    let next = bench.separate(&[&bench.song("other.wav")], &["--stems", "vocals"]);
    assert!(next.status.success(), "{}", errors(&next));
    assert_eq!(bench.stems(), ["other_vocals.wav"]);
}

#[test]
fn a_signal_while_the_model_is_loaded_starts_no_song() {
    let bench = Bench::new();
    let song = bench.write("long.wav", &tones(600 * SECOND, 0.1));
    let mut command = bench.command(&[&song], &["--threads", "256"]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    while !catches_sigterm(child.id()) {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    send_signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(bench.stems().is_empty());
}

/// Whether a process has a handler for SIGTERM, signal 15: bit 14 of the mask of caught signals.
fn catches_sigterm(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> 14 & 1 == 1
}

#[test]
fn ctrl_c_stops_the_song_and_leaves_nothing_behind() {
    let bench = Bench::new();
    let song = bench.write("long.wav", &tones(600 * SECOND, 0.1));
    let mut command = bench.command(&[&song, &bench.song("next.wav")], &[]);
    let mut child = command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "long.wav: separating");
    send_signal(&child, "-INT");
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("canceled")), "{rest:?}");
    assert!(bench.stems().is_empty());
}

fn send_signal(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}
