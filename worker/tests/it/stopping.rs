//! A separation that cannot continue ends with the reason, and delivers nothing after it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use separation_worker::audio::{AudioError, StereoBlock, StereoSource};
use separation_worker::engine::{
    CancelToken, Control, HOP_FRAMES, Network, NetworkError, SeparateError, SpectrumShape, SpectrumSizes,
    StemFormula, Stopped, Tensors, separate,
};
use separation_worker::error::ErrorClass;

use crate::in_memory::{SongSource, mdx_net, music, plan};

/// Chunks of the song: (trim + N) / step = (1024 + 60,000) / 2304, rounded up.
const CHUNKS: usize = 27;
const SONG_FRAMES: usize = 60_000;

/// Behavior of the model's runs, counted from 1.
type Run<'r> = Box<dyn FnMut(usize, &mut [f32]) -> Result<(), NetworkError> + 'r>;

/// An identity model, except for the scripted behavior of its runs.
struct Echo<'r> {
    shape: SpectrumShape,
    runs: usize,
    run: Run<'r>,
}

impl Network for Echo<'_> {
    fn tensors(&self) -> Tensors {
        mdx_net(self.shape)
    }

    fn run(&mut self, _batch: usize, spectra: &mut Vec<f32>, _: &[usize]) -> Result<(), NetworkError> {
        self.runs += 1;
        (self.run)(self.runs, spectra)
    }
}

/// One separation, with a script for each part that can fail.
struct Case<'c> {
    source: Box<dyn StereoSource + 'c>,
    run: Run<'c>,
    deliver: Box<dyn FnMut(usize) -> Result<(), AudioError> + Send + 'c>,
    report: Box<dyn FnMut(usize) + Send + 'c>,
    control: Control,
}

/// The outcome of a failed separation.
struct End {
    error: SeparateError,
    /// Calls of `deliver`, including one that failed.
    deliveries: usize,
    delivered_frames: usize,
    reports: usize,
    runs: usize,
}

impl<'c> Case<'c> {
    fn new(song: &'c StereoBlock) -> Self {
        Self {
            source: Box::new(SongSource::new(song, &[1_000])),
            run: Box::new(|_, _| Ok(())),
            deliver: Box::new(|_| Ok(())),
            report: Box::new(|_| ()),
            control: Control::default(),
        }
    }

    /// Runs the separation, which must fail.
    fn end(mut self) -> End {
        let shape = SpectrumShape::new(SpectrumSizes {
            n_fft: 2048,
            hop_frames: HOP_FRAMES,
            rows: 1025,
            columns: 4,
        })
        .expect("a valid shape");
        let plan = plan(shape, 0.25, StemFormula::Uvr { compensate: 1.0 });
        let mut network = Echo {
            shape,
            runs: 0,
            run: self.run,
        };
        let (mut deliveries, mut delivered_frames, mut reports) = (0, 0, 0);
        let result = separate(
            &mut network,
            &plan,
            &mut *self.source,
            &mut |stems| {
                deliveries += 1;
                delivered_frames += stems[0].frames();
                for stem in &stems {
                    let mut samples = stem.left.iter().chain(&stem.right);
                    assert!(samples.all(|sample| sample.is_finite()), "stems are finite");
                }
                (self.deliver)(deliveries)
            },
            &mut |_| {
                reports += 1;
                (self.report)(reports);
            },
            &self.control,
        );
        End {
            error: result.expect_err("the separation is stopped"),
            deliveries,
            delivered_frames,
            reports,
            runs: network.runs,
        }
    }
}

/// A source that fails after `blocks_left` blocks of 1000 frames.
struct FailingSource<'s> {
    song: SongSource<'s>,
    blocks_left: usize,
}

impl StereoSource for FailingSource<'_> {
    fn read(&mut self, block: &mut StereoBlock) -> Result<(), AudioError> {
        self.blocks_left = self.blocks_left.checked_sub(1).ok_or_else(read_error)?;
        self.song.read(block)
    }

    fn expected_frames(&self) -> Option<u64> {
        self.song.expected_frames()
    }
}

fn read_error() -> AudioError {
    AudioError::Read {
        path: "song.flac".into(),
        source: std::io::ErrorKind::UnexpectedEof.into(),
    }
}

fn song() -> StereoBlock {
    music(SONG_FRAMES, 5)
}

fn check(end: &End, class: ErrorClass, expected: impl FnOnce(&SeparateError) -> bool) {
    assert!(expected(&end.error), "{:?}", end.error);
    assert_eq!(end.error.class(), class, "{:?}", end.error);
    assert!(end.delivered_frames < SONG_FRAMES, "the song was not finished");
    assert!(
        end.reports <= end.deliveries,
        "only delivered frames are reported"
    );
}

#[test]
fn canceling_delivers_nothing_more_although_the_next_chunk_is_ready() {
    let song = song();
    for canceled_at in [1, 2, 10] {
        let cancel = CancelToken::new();
        let (started, starts) = mpsc::channel();
        let mut case = Case::new(&song);
        case.control.cancel = cancel.clone();
        case.run = Box::new(move |run, _| {
            // Fails after the report that cancels, when the receiver is dropped.
            let _ = started.send(run);
            Ok(())
        });
        case.report = Box::new(move |reports| {
            if reports == canceled_at {
                // The run after the next one has started, so the output of the next one is queued.
                while starts
                    .recv_timeout(Duration::from_secs(10))
                    .is_ok_and(|run| run < canceled_at + 2)
                {}
                cancel.cancel();
            }
        });
        let end = case.end();
        check(&end, ErrorClass::Interrupted, |error| {
            matches!(error, SeparateError::Stopped(Stopped::Canceled))
        });
        assert_eq!((end.deliveries, end.reports), (canceled_at, canceled_at));
        assert!(end.runs < CHUNKS, "the model stops, too");
    }
}

#[test]
fn a_canceled_separation_never_runs_its_model() {
    let song = song();
    let case = Case::new(&song);
    case.control.cancel.cancel();
    let end = case.end();
    check(&end, ErrorClass::Interrupted, |error| {
        matches!(error, SeparateError::Stopped(Stopped::Canceled))
    });
    assert_eq!((end.runs, end.deliveries), (0, 0));
}

#[test]
fn a_deadline_that_has_passed_stops_before_the_model() {
    let song = song();
    let mut case = Case::new(&song);
    case.control.deadline = Some(Instant::now());
    let end = case.end();
    check(&end, ErrorClass::TimedOut, |error| {
        matches!(error, SeparateError::Stopped(Stopped::DeadlineExceeded))
    });
    assert_eq!((end.runs, end.deliveries), (0, 0));
}

#[test]
fn a_song_that_ends_with_an_error_is_not_a_shorter_song() {
    let song = song();
    for blocks in [0, 1, 30, 60] {
        let mut case = Case::new(&song);
        case.source = Box::new(FailingSource {
            song: SongSource::new(&song, &[1_000]),
            blocks_left: blocks,
        });
        let end = case.end();
        check(&end, ErrorClass::Transient, |error| {
            matches!(error, SeparateError::Source(_))
        });
        assert!(end.delivered_frames <= blocks * 1_000);
    }
}

#[test]
fn a_stem_that_cannot_be_written_stops_the_separation() {
    let song = song();
    for failing in [1, 2, CHUNKS] {
        let mut case = Case::new(&song);
        case.deliver = Box::new(move |delivery| {
            if delivery == failing {
                Err(read_error())
            } else {
                Ok(())
            }
        });
        let end = case.end();
        assert!(matches!(end.error, SeparateError::Deliver(_)), "{:?}", end.error);
        assert_eq!(end.error.class(), ErrorClass::Transient);
        assert_eq!((end.deliveries, end.reports), (failing, failing - 1));
    }
}

#[test]
fn values_that_are_not_finite_stop_the_separation_and_are_never_delivered() {
    let song = song();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut case = Case::new(&song);
        case.run = Box::new(move |run, spectra| {
            if run == 3 {
                let middle = spectra.len() / 8;
                spectra[middle] = value;
            }
            Ok(())
        });
        let end = case.end();
        check(
            &end,
            ErrorClass::Permanent,
            |error| matches!(error, &SeparateError::NotFinite { second } if (0.0..0.2).contains(&second)),
        );
        assert_eq!(end.deliveries, 2);
    }
}

#[test]
fn an_error_of_the_model_ends_the_separation() {
    let song = song();
    for failing in [1, 3, CHUNKS] {
        let mut case = Case::new(&song);
        case.run = Box::new(move |run, _| match run {
            run if run == failing => Err(NetworkError::new(ErrorClass::Transient, "out of memory", None)),
            _ => Ok(()),
        });
        let end = case.end();
        check(
            &end,
            ErrorClass::Transient,
            |error| matches!(error, SeparateError::Network(source) if source.to_string() == "out of memory"),
        );
        assert_eq!(end.runs, failing);
        assert!(end.deliveries < failing);
    }
}

#[test]
fn a_song_without_audio_is_an_error_and_runs_no_model() {
    let silence = StereoBlock::default();
    let reports = AtomicUsize::new(0);
    let mut case = Case::new(&silence);
    case.report = Box::new(|_| {
        reports.fetch_add(1, Ordering::Relaxed);
    });
    let end = case.end();
    check(&end, ErrorClass::Permanent, |error| {
        matches!(error, SeparateError::Empty)
    });
    assert_eq!((end.runs, end.deliveries, reports.into_inner()), (0, 0, 0));
}
