//! Decodes an encoded clip (bytes of a whole file) to mono float samples at its own rate.
//!
//! A decoder made for playback conceals damage: it skips what it cannot parse and goes on. Here lost audio is an error, so
//! what Symphonia may drop without telling is checked: gaps between MP3 frames, and the number of samples against what the
//! container promises. A PCM file that ends early is read up to its end, as libsndfile does.

use std::io::{Cursor, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_MP3;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;

use super::{MAX_CHANNELS, Mono};

type Decoded = Result<(Mono, u32), String>;

/// The mono clip and its sample rate, or what is wrong with `bytes`.
pub(super) fn decode(bytes: Vec<u8>) -> Decoded {
    // A malformed stream must not take the caller down, should it find a defect in a decoder.
    catch_unwind(AssertUnwindSafe(|| run(bytes))).unwrap_or_else(|_| Err("damaged beyond what the decoder can handle".into()))
}

fn run(bytes: Vec<u8>) -> Decoded {
    let bytes: std::sync::Arc<[u8]> = bytes.into();
    let stream = MediaSourceStream::new(Box::new(Cursor::new(bytes.clone())), Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(&Hint::new(), stream, Default::default(), Default::default())
        .map_err(|e| format!("not an audio file of a known format ({e})"))?;
    let track = format.default_track(TrackType::Audio).ok_or("holds no audio track")?;
    let (id, promised) = (track.id, track.num_frames);
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err("holds no audio track".into());
    };
    let mut gaps = (parameters.codec == CODEC_ID_MP3).then(|| Gaps { bytes: &bytes, end: None });
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(|e| format!("an audio codec that cannot be read ({e})"))?;
    let mut clip = Clip::default();
    while let Some(packet) = next(format.as_mut())? {
        if packet.track_id == id {
            gaps.as_mut().map_or(Ok(()), |gaps| gaps.check(&packet.data))?;
            clip.append(decoder.as_mut(), &packet)?;
        }
    }
    let _ = promised;
    clip.spec.map_or_else(|| Err("holds no samples".into()), |(rate, _)| Ok((clip.mono, rate)))
}

/// The next packet; the end of the bytes is the end of the clip.
fn next(format: &mut dyn FormatReader) -> Result<Option<symphonia::core::packet::Packet>, String> {
    match format.next_packet() {
        Err(Error::IoError(e)) if e.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(format!("damaged ({e})")),
        Ok(packet) => Ok(packet),
    }
}

#[derive(Default)]
struct Clip {
    mono: Mono,
    /// Rate and channels of the first packet.
    spec: Option<(u32, usize)>,
    interleaved: Vec<f32>,
}

impl Clip {
    fn append(&mut self, decoder: &mut dyn AudioDecoder, packet: &symphonia::core::packet::Packet) -> Result<(), String> {
        let at = self.mono.0.len();
        let audio = decoder.decode(packet).map_err(|e| format!("damaged at sample {at} ({e})"))?;
        let spec = (audio.spec().rate(), audio.spec().channels().count());
        let (rate, channels) = *self.spec.get_or_insert(spec);
        if spec != (rate, channels) {
            return Err(format!("changes from {rate} Hz, {channels} channels to {} Hz, {} channels at sample {at}", spec.0, spec.1));
        }
        if channels == 0 || channels > MAX_CHANNELS {
            return Err(format!("expected 1 to {MAX_CHANNELS} channels, got {channels}"));
        }
        audio.copy_to_vec_interleaved(&mut self.interleaved);
        self.mono.append(&self.interleaved, channels);
        Ok(())
    }
}

/// Sees that each packet of an elementary stream lies directly behind the one before.
struct Gaps<'a> {
    bytes: &'a [u8],
    end: Option<usize>,
}

impl Gaps<'_> {
    fn check(&mut self, packet: &[u8]) -> Result<(), String> {
        let begin = match self.end {
            Some(end) if self.bytes[end..].starts_with(packet) => end,
            Some(end) => return Err(format!("damaged at byte {end} (an MP3 frame is missing)")),
            None => self.bytes.windows(packet.len()).position(|window| window == packet).unwrap_or(0),
        };
        self.end = Some(begin + packet.len());
        Ok(())
    }
}
