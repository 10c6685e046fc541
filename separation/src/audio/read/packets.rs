//! Reads every container except plain WAV, packet by packet, through symphonia and libopus.
//!
//! Decoders may panic on hostile input; a panic here marks the file as corrupt and never ends the program.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use symphonia::core::codecs::audio::well_known::{CODEC_ID_AAC, CODEC_ID_OPUS};
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder};
use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatReader, Track, TrackType};
use symphonia::core::io::MediaSource;
use symphonia::core::packet::Packet;
use symphonia::core::units::TimeBase;

use super::aac;
use super::containers::{
    OPUS_RATE_HZ, format_name, make_decoder, make_reader, max_packet_frames, opus_gain, opus_pre_skip,
    refusal, unreadable,
};
use super::depth;
use super::downmix::Downmix;
use super::edits::{self, Trim};
use super::guard::guarded;
use super::outline::Outline;
use super::quicktime_pcm;
use super::raw::RawBlock;
use super::sniff::{Container, Sniffed};
use crate::audio::{AudioError, WavSamples};

/// Damaged packets accepted before the first good one: about a second and a half of MP3.
const MAX_DAMAGED_AT_START: u64 = 64;

/// Damaged or empty packets in a row after which a file with more damaged than good packets is refused: 26 s
/// of MP3.
const MAX_DAMAGED_IN_A_ROW: u64 = 1_000;

/// Chained streams that are followed; each needs its own header in the file.
const MAX_CHAINED_STREAMS: u64 = 10_000;

/// Sample rate changes between chained streams. Each needs its own converter, and no sensible file has more
/// than a few.
const MAX_RATE_CHANGES: u64 = 100;

pub(super) struct PacketInput {
    path: PathBuf,
    container: Container,
    reader: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: Track,
    params: AudioCodecParameters,
    /// Packets read ahead while opening.
    ahead: VecDeque<Packet>,
    codec: AudioCodecId,
    format: &'static str,
    rate_hz: u32,
    downmix: Downmix,
    /// Factor applied to samples.
    gain: f32,
    /// Frames of a full packet, by the container; 0 if unknown.
    packet_frames: u64,
    /// Frames still to drop at the start.
    skip_left: u64,
    /// Frames still to return, where the file states where its audio ends.
    keep_left: Option<u64>,
    expected_frames: Option<u64>,
    /// Frames of damaged packets before the first good one, still to be replaced by silence.
    damaged_first: Vec<u64>,
    /// Samples decoded while opening the file.
    first: Option<Vec<f32>>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    good: u64,
    damaged: u64,
    damaged_in_a_row: u64,
    chained: u64,
    rate_changes: u64,
    frames: u64,
}

enum Decoded {
    Frames,
    Damaged,
    End,
}

impl PacketInput {
    /// Opens the file and decodes its first packet, so that undecodable files fail here.
    pub(super) fn open(
        source: &mut dyn FnMut() -> io::Result<Box<dyn MediaSource>>,
        path: &Path,
        sniffed: Sniffed,
    ) -> Result<Self, AudioError> {
        let mut input = source().map_err(|source| unreadable(path, source))?;
        let outline = Outline::read(&mut input, sniffed).map_err(|source| unreadable(path, source))?;
        guarded(path, || Self::open_unguarded(input, path, sniffed, outline))?
    }

    fn open_unguarded(
        mut input: Box<dyn MediaSource>,
        path: &Path,
        sniffed: Sniffed,
        outline: Outline,
    ) -> Result<Self, AudioError> {
        let refused = |error| refusal(path, error);
        if outline.is_without_index {
            let detail = "its index (moov) is missing: it was cut off, or never completed";
            return Err(AudioError::corrupt(path, detail));
        }
        let linear = match sniffed.container {
            Container::Mp4 => quicktime_pcm::codecs(&mut input).map_err(refused)?,
            _ => Vec::new(),
        };
        let mut reader = make_reader(input, outline.end, sniffed).map_err(refused)?;
        let mut track = outline
            .track_id
            .and_then(|id| reader.tracks().iter().find(|track| track.id == id))
            .or_else(|| reader.default_track(TrackType::Audio))
            .cloned()
            .ok_or_else(|| AudioError::not_audio(path, "it has no audio track that can be read"))?;
        quicktime_pcm::correct(&mut track, &linear);
        let (decoder, params) = make_decoder(&track).map_err(refused)?;
        let trim = outline.trim.or_else(|| edits::from_metadata(&mut *reader));
        let mut input = Self {
            path: path.to_owned(),
            container: sniffed.container,
            reader,
            decoder,
            codec: params.codec,
            format: format_name(sniffed.container, params.codec),
            rate_hz: params.sample_rate.unwrap_or(0),
            downmix: Downmix::for_count(2).expect("stereo has a mix"),
            gain: opus_gain(&params),
            packet_frames: 0,
            skip_left: 0,
            keep_left: None,
            expected_frames: None,
            track,
            params,
            ahead: VecDeque::new(),
            damaged_first: Vec::new(),
            first: None,
            counts: Counts::default(),
        };
        if input.is_he_aac()? {
            let detail = "it is HE-AAC, whose upper band and stereo our decoder leaves out";
            return Err(AudioError::unsupported(path, detail));
        }
        input.decode_first()?;
        input.set_ends(trim);
        if outline.is_cut_off && input.missing_frames().is_none() {
            // Nothing else shows how much is missing: at least the packet that was cut off.
            input.counts.damaged += 1;
        }
        Ok(input)
    }

    /// Whether the first packets or the configuration of AAC announce data that our decoder ignores.
    fn is_he_aac(&mut self) -> Result<bool, AudioError> {
        if self.codec != CODEC_ID_AAC {
            return Ok(false);
        }
        if self.params.extra_data.as_deref().is_some_and(aac::is_announced) {
            return Ok(true);
        }
        let mut packets = VecDeque::new();
        while !aac::is_enough(&packets)
            && let Some(packet) = self.next_packet()?
        {
            packets.push_back(packet);
        }
        let (mut decoder, _) = make_decoder(&self.track).map_err(|error| refusal(&self.path, error))?;
        // A decoder that expects complete packets may panic on a cut one.
        let is_he_aac = guarded(&self.path, || aac::is_present(&packets, &mut *decoder)).unwrap_or(false);
        self.ahead = packets;
        Ok(is_he_aac)
    }

    /// Decodes up to the first packet that gives frames: only decoded frames have reliable rate and channels.
    fn decode_first(&mut self) -> Result<(), AudioError> {
        let mut raw = RawBlock::default();
        loop {
            let Some(packet) = self.next_packet()? else {
                return Err(match self.counts.damaged {
                    0 => AudioError::empty(&self.path),
                    _ => self.corrupt("none of its packets can be decoded"),
                });
            };
            let decoded = if self.is_void(&packet) {
                Err(Error::DecodeError("no audio in a packet"))
            } else {
                self.decoder.decode(&packet)
            };
            match decoded {
                Ok(buffer) if buffer.frames() > 0 => {
                    let spec = buffer.spec();
                    self.rate_hz = spec.rate();
                    let channels = spec.channels().count();
                    self.downmix = Downmix::for_layout(spec.channels())
                        .ok_or_else(|| AudioError::channels(&self.path, channels))?;
                    buffer.copy_to_vec_interleaved(&mut raw.samples);
                    self.counts.good += 1;
                    self.packet_frames = packet.block_dur().get();
                    self.cut_to_duration(&packet, &mut raw.samples);
                    self.first = Some(raw.samples);
                    return Ok(());
                }
                // Vorbis and AAC return no frames for their first packet.
                Ok(_) => self.counts.good += 1,
                Err(Error::Unsupported(detail)) => return Err(AudioError::unsupported(&self.path, detail)),
                Err(_) => {
                    self.counts.damaged += 1;
                    self.damaged_first.push(self.frames_of(&packet));
                }
            }
            if self.counts.good + self.counts.damaged > MAX_DAMAGED_AT_START {
                return Err(self.corrupt("its first packets cannot be decoded"));
            }
            self.rate_hz = self.params.sample_rate.unwrap_or(0);
        }
    }

    /// Sets where the audio begins and ends, for containers whose packets do not carry this themselves.
    fn set_ends(&mut self, trim: Option<Trim>) {
        let declared = self.declared_frames();
        // A start after the end is invalid.
        let trim = trim.filter(|trim| declared.is_none_or(|end| trim.start_frames(self.rate_hz) < end));
        if let Some(trim) = trim {
            self.skip_left = trim.start_frames(self.rate_hz);
            self.keep_left = trim.kept_frames(self.rate_hz, declared);
        } else if self.codec == CODEC_ID_OPUS {
            self.skip_left = opus_pre_skip(&self.params);
        } else if self.container == Container::Caf {
            self.skip_left = u64::from(self.track.delay.unwrap_or(0));
            self.keep_left = self.track.padding.filter(|padding| *padding > 0).and(declared);
        }
        let ends = match self.container {
            Container::Mp4 => declared.map(|frames| frames.saturating_sub(self.skip_left)),
            // Ogg includes the frames skipped at the start of Opus in its count.
            Container::Ogg => declared.map(|frames| frames.saturating_sub(self.skip_left)),
            _ => declared,
        };
        // A tag may shorten the length that the container declares; it is not trusted to extend it.
        self.expected_frames = ends.map(|ends| self.keep_left.map_or(ends, |kept| kept.min(ends)));
    }

    fn declared_frames(&self) -> Option<u64> {
        let is_at_rate = self.time_base_is_rate();
        // In Ogg, a last page without a position has the number -1.
        let is_length = |frames: &u64| *frames > 0 && i64::try_from(*frames).is_ok();
        self.track.num_frames.filter(is_length).filter(|_| is_at_rate)
    }

    /// Whether one tick of the container is one decoded frame.
    fn time_base_is_rate(&self) -> bool {
        self.track
            .time_base
            .is_none_or(|base| Some(base) == TimeBase::try_from_recip(self.rate_hz))
    }

    /// Replaces the contents of `raw` with the next frames; none means the end.
    pub(super) fn next(&mut self, raw: &mut RawBlock) -> Result<(), AudioError> {
        let path = self.path.clone();
        guarded(&path, || self.next_unguarded(raw))?
    }

    fn next_unguarded(&mut self, raw: &mut RawBlock) -> Result<(), AudioError> {
        loop {
            raw.samples.clear();
            let decoded = if let Some(frames) = self.damaged_first.pop() {
                self.silence(frames, raw);
                Decoded::Frames
            } else if let Some(samples) = self.first.take() {
                raw.samples = samples;
                Decoded::Frames
            } else if self.keep_left == Some(0) {
                Decoded::End
            } else {
                self.decode_next(raw)?
            };
            raw.set_downmix(&self.downmix);
            match decoded {
                Decoded::End => {
                    raw.samples.clear();
                    return self.check_damage();
                }
                Decoded::Frames => self.counts.damaged_in_a_row = 0,
                Decoded::Damaged => self.count_damaged()?,
            }
            self.trim(&mut raw.samples);
            if self.gain != 1.0 {
                raw.samples.iter_mut().for_each(|sample| *sample *= self.gain);
            }
            if !raw.samples.is_empty() {
                self.counts.frames += (raw.samples.len() / self.downmix.channels()) as u64;
                return Ok(());
            }
        }
    }

    fn decode_next(&mut self, raw: &mut RawBlock) -> Result<Decoded, AudioError> {
        let Some(packet) = self.next_packet()? else {
            return Ok(Decoded::End);
        };
        if self.is_void(&packet) {
            self.silence(self.frames_of(&packet), raw);
            return Ok(Decoded::Damaged);
        }
        match self.decoder.decode(&packet) {
            Ok(buffer) if buffer.spec().rate() == self.rate_hz => {
                let layout = buffer.spec().channels();
                if let Some(downmix) = Downmix::for_layout(layout) {
                    self.downmix = downmix;
                    buffer.copy_to_vec_interleaved(&mut raw.samples);
                    self.counts.good += 1;
                    self.cut_to_duration(&packet, &mut raw.samples);
                    return Ok(Decoded::Frames);
                }
            }
            // Within a stream, a frame of another rate comes from a damaged header.
            Ok(_) | Err(_) => {}
        }
        self.silence(self.frames_of(&packet), raw);
        Ok(Decoded::Damaged)
    }

    fn is_void(&self, packet: &Packet) -> bool {
        self.codec == CODEC_ID_AAC && !aac::has_audio(&packet.data)
    }

    fn silence(&self, frames: u64, raw: &mut RawBlock) {
        let frames = usize::try_from(frames).unwrap_or(0);
        raw.samples.clear();
        raw.samples.resize(frames * self.downmix.channels(), 0.0);
    }

    fn next_packet(&mut self) -> Result<Option<Packet>, AudioError> {
        if let Some(packet) = self.ahead.pop_front() {
            return Ok(Some(packet));
        }
        loop {
            match self.reader.next_packet() {
                Ok(Some(packet)) if packet.track_id == self.track.id => return Ok(Some(packet)),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(Error::ResetRequired) => self.follow_chain()?,
                Err(Error::IoError(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    return Err(unreadable(&self.path, error));
                }
                Err(Error::IoError(_)) => return Ok(None),
                Err(Error::DecodeError(_)) if self.is_without_container() => {
                    self.counts.damaged += 1;
                    // The decoder's state from earlier frames does not apply to those that follow.
                    self.decoder.reset();
                }
                // If the container's structure breaks, the file ends there; the audio before it is good.
                Err(_) => {
                    self.counts.damaged += 1;
                    return Ok(None);
                }
            }
        }
    }

    /// Continues with the next of several streams in one file (internet radio, joined Ogg files).
    fn follow_chain(&mut self) -> Result<(), AudioError> {
        self.counts.chained += 1;
        if self.counts.chained > MAX_CHAINED_STREAMS {
            return Err(self.corrupt("it has too many streams"));
        }
        let track = self.reader.default_track(TrackType::Audio).cloned();
        self.track = track.ok_or_else(|| self.corrupt("a later stream in it has no audio"))?;
        let (decoder, params) = make_decoder(&self.track).map_err(|error| refusal(&self.path, error))?;
        self.decoder = decoder;
        self.params = params.clone();
        self.gain = opus_gain(&params);
        let (rate_hz, skip) = match params.codec {
            CODEC_ID_OPUS => (OPUS_RATE_HZ, opus_pre_skip(&params)),
            _ => (params.sample_rate.unwrap_or(self.rate_hz), 0),
        };
        self.skip_left = skip;
        if rate_hz != self.rate_hz {
            self.counts.rate_changes += 1;
            if self.counts.rate_changes > MAX_RATE_CHANGES {
                return Err(self.corrupt("its sample rate changes too often"));
            }
            self.rate_hz = rate_hz;
        }
        self.keep_left = None;
        Ok(())
    }

    /// Whether the format has no container, so that reading continues after damage.
    fn is_without_container(&self) -> bool {
        matches!(self.container, Container::Mpeg | Container::Adts)
    }

    /// In MP4, the duration of the last packet limits its audio.
    fn cut_to_duration(&self, packet: &Packet, samples: &mut Vec<f32>) {
        let duration = packet.dur.get();
        if self.container == Container::Mp4 && duration > 0 && self.time_base_is_rate() {
            let frames = usize::try_from(duration).unwrap_or(usize::MAX);
            samples.truncate(frames.saturating_mul(self.downmix.channels()));
        }
    }

    /// Drops frames before the start and after the end of the audio.
    fn trim(&mut self, samples: &mut Vec<f32>) {
        let channels = self.downmix.channels();
        let frames = samples.len() / channels;
        let skipped = frames.min(usize::try_from(self.skip_left).unwrap_or(frames));
        if skipped > 0 {
            samples.drain(..skipped * channels);
            self.skip_left -= skipped as u64;
        }
        if let Some(keep) = &mut self.keep_left {
            let kept = (frames - skipped).min(usize::try_from(*keep).unwrap_or(usize::MAX));
            samples.truncate(kept * channels);
            *keep -= kept as u64;
        }
    }

    /// Frames of a packet by its duration, at most what a packet can hold.
    fn frames_of(&self, packet: &Packet) -> u64 {
        let ticks = packet.dur.get();
        let frames = match self.track.time_base {
            None => ticks,
            Some(base) => {
                let rate = u128::from(self.rate_hz) * u128::from(base.numer.get());
                u64::try_from(u128::from(ticks) * rate / u128::from(base.denom.get())).unwrap_or(u64::MAX)
            }
        };
        frames.min(max_packet_frames(&self.params, packet.data.len()))
    }

    fn count_damaged(&mut self) -> Result<(), AudioError> {
        self.counts.damaged += 1;
        self.counts.damaged_in_a_row += 1;
        if self.counts.damaged_in_a_row > MAX_DAMAGED_IN_A_ROW {
            self.check_damage()?;
        }
        Ok(())
    }

    fn check_damage(&self) -> Result<(), AudioError> {
        if self.counts.damaged > self.counts.good {
            return Err(self.corrupt("more than half of its packets cannot be decoded"));
        }
        Ok(())
    }

    /// Frames by which a declared length is rounded up: CAF writers count the last packet as full.
    fn length_slack(&self) -> u64 {
        if self.container == Container::Caf {
            self.packet_frames
        } else {
            0
        }
    }

    fn corrupt(&self, detail: &str) -> AudioError {
        AudioError::corrupt(&self.path, detail)
    }

    pub(super) fn format(&self) -> &'static str {
        self.format
    }

    /// The rate of the latest frames; it changes only at the start of a chained stream.
    pub(super) fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    pub(super) fn channels(&self) -> usize {
        self.downmix.channels()
    }

    /// The narrowest samples that hold those of the file; `None` for lossy codecs.
    pub(super) fn depth(&self) -> Option<WavSamples> {
        depth::of_codec(&self.params)
    }

    pub(super) fn expected_frames(&self) -> Option<u64> {
        self.expected_frames
    }

    /// Whether the length is only estimated from the first frames, because no tag declares it.
    pub(super) fn is_length_estimated(&self) -> bool {
        self.is_without_container() && self.track.duration.is_none()
    }

    pub(super) fn skipped_packets(&self) -> u64 {
        self.counts.damaged
    }

    /// Declared frames that are missing, for containers that count their frames exactly.
    pub(super) fn missing_frames(&self) -> Option<u64> {
        let is_exact = match self.container {
            Container::Mpeg => self.track.delay.is_some() && self.counts.chained == 0,
            Container::Adts | Container::Matroska => false,
            _ => self.counts.chained == 0,
        };
        let missing = self.expected_frames?.saturating_sub(self.counts.frames);
        is_exact.then_some(if missing < self.length_slack() { 0 } else { missing })
    }
}
