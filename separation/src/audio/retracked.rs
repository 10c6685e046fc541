//! A reader whose tracks are corrected.

use symphonia::core::codecs::CodecParameters;
use symphonia::core::errors::Result;
use symphonia::core::formats::{FormatInfo, FormatReader, MediaInfo, SeekMode, SeekTo, SeekedTo, Track};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::Metadata;
use symphonia::core::packet::Packet;
use symphonia::default::formats::IsoMp4Reader;

use super::quicktime_pcm::Samples;

/// A reader of MP4 that gives linear samples in their byte order.
pub(super) struct Retracked {
    inner: IsoMp4Reader<'static>,
    tracks: Vec<Track>,
}

impl Retracked {
    /// Puts the codecs of `linear` into the tracks with these numbers.
    pub(super) fn new(inner: IsoMp4Reader<'static>, linear: &[(u32, Samples)]) -> Self {
        let mut tracks = inner.tracks().to_vec();
        for track in &mut tracks {
            let samples = linear.iter().find(|(id, _)| *id == track.id);
            let params = track.codec_params.as_mut().and_then(CodecParameters::audio_mut);
            if let (Some((_, Samples::Known(codec))), Some(params)) = (samples, params) {
                params.codec = *codec;
            }
        }
        Self { inner, tracks }
    }
}

impl FormatReader for Retracked {
    fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    fn next_packet(&mut self) -> Result<Option<Packet>> {
        self.inner.next_packet()
    }

    fn format_info(&self) -> &FormatInfo {
        self.inner.format_info()
    }

    fn media_info(&self) -> &MediaInfo {
        self.inner.media_info()
    }

    fn metadata(&mut self) -> Metadata<'_> {
        self.inner.metadata()
    }

    fn seek(&mut self, mode: SeekMode, to: SeekTo) -> Result<SeekedTo> {
        self.inner.seek(mode, to)
    }

    fn into_inner<'s>(self: Box<Self>) -> MediaSourceStream<'s>
    where
        Self: 's,
    {
        Box::new(self.inner).into_inner()
    }
}
