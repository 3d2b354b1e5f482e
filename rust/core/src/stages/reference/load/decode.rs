//! Decodes an encoded clip (bytes of a whole file) to mono float samples at its own rate.
//!
//! A decoder made for playback conceals damage: it skips what it cannot parse and goes on. Here audio lost in the middle is an
//! error, so what Symphonia drops without telling is checked: gaps between MP3 frames, jumps of the time stamps, and the number
//! of samples that a lossless file promises. A WAV or MP3 file that ends early is read up to its end, as libsndfile does.
//!
//! Encoder delay and padding are removed where the stream tells them (MP3 with a LAME tag, Vorbis), as libsndfile does; the edit
//! list of an MP4 file is not read, so AAC begins with its priming samples (1024 and more).

use std::io::{Cursor, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_ALAC, CODEC_ID_FLAC, CODEC_ID_MP3};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, ReadOnlySource};
use symphonia::core::packet::Packet;

use super::{MAX_CHANNELS, Mono};

type Decoded = Result<(Mono, u32), String>;

/// What a file that Symphonia is asked about begins with: marker and offset. Its own search would also find a stray MP3 frame
/// header in the middle of something else.
const MARKERS: [(&[u8], usize); 9] =
    [(b"RIFF", 0), (b"FORM", 0), (b"caff", 0), (b"fLaC", 0), (b"OggS", 0), (b"ID3", 0), (b"ftyp", 4), (b"moov", 4), (b"mdat", 4)];

/// The mono clip and its sample rate, or what is wrong with `bytes`.
pub(super) fn decode(bytes: Vec<u8>) -> Decoded {
    // A malformed stream must not take the caller down, should it find a defect in a decoder.
    catch_unwind(AssertUnwindSafe(|| run(bytes))).unwrap_or_else(|_| Err("damaged beyond what the decoder can handle".into()))
}

fn run(mut bytes: Vec<u8>) -> Decoded {
    let synchronised = bytes.len() > 1 && bytes[0] == 0xff && bytes[1] & 0xe0 == 0xe0;
    if !synchronised && !MARKERS.iter().any(|&(marker, at)| bytes.get(at..).is_some_and(|rest| rest.starts_with(marker))) {
        return Err("not an audio file of a known format".into());
    }
    if bytes.starts_with(b"RIFF") && bytes.len() >= 8 {
        // "Unknown": a file written to a pipe has no true length here, and only the data chunk's own counts.
        bytes[4..8].fill(0xff);
    }
    let bytes: Arc<[u8]> = bytes.into();
    let source: Box<dyn MediaSource> = if synchronised || bytes.starts_with(b"ID3") {
        // Without seeking an MP3 file's length is never guessed from its bit rate, and so never cut to a wrong guess.
        Box::new(ReadOnlySource::new(Cursor::new(bytes.clone())))
    } else {
        Box::new(Cursor::new(bytes.clone()))
    };
    let mut format = symphonia::default::get_probe()
        .probe(&Hint::new(), MediaSourceStream::new(source, Default::default()), Default::default(), Default::default())
        .map_err(|e| format!("not an audio file of a known format, or damaged ({e})"))?;
    let track = format.default_track(TrackType::Audio).ok_or("holds no audio track")?;
    let (id, promised) = (track.id, track.num_frames.filter(|&n| n > 0));
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err("holds no audio track".into());
    };
    let codec = parameters.codec;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(|e| format!("an audio codec that cannot be read ({e})"))?;
    let mut clip = Clip::default();
    let mut seam = Seam::default();
    while let Some(packet) = next(format.as_mut())? {
        if packet.track_id != id {
            continue;
        }
        if codec == CODEC_ID_MP3 {
            if promised.is_some_and(|n| packet.pts.get() >= n as i64) {
                break; // whatever follows the last frame that the header counts
            }
            seam.bytes(&bytes, &packet.data)?;
        } else {
            seam.time(&packet)?;
        }
        clip.append(decoder.as_mut(), &packet)?;
    }
    let count = clip.mono.0.len() as u64;
    let lossless = [CODEC_ID_FLAC, CODEC_ID_ALAC].contains(&codec);
    if let Some(promised) = promised.filter(|&n| lossless && n != count) {
        return Err(format!("damaged: {promised} samples expected, {count} found"));
    }
    clip.spec.map_or_else(|| Err("holds no samples".into()), |(rate, _)| Ok((clip.mono, rate)))
}

/// The next packet; the end of the bytes is the end of the clip.
fn next(format: &mut dyn FormatReader) -> Result<Option<Packet>, String> {
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
    fn append(&mut self, decoder: &mut dyn AudioDecoder, packet: &Packet) -> Result<(), String> {
        let at = self.mono.0.len();
        let audio = decoder.decode(packet).map_err(|e| format!("damaged at sample {at} ({e})"))?;
        let spec = (audio.spec().rate(), audio.spec().channels().count());
        let (rate, channels) = *self.spec.get_or_insert(spec);
        if spec != (rate, channels) {
            return Err(format!(
                "changes from {rate} Hz, {channels} channels to {} Hz, {} channels at sample {at}",
                spec.0, spec.1
            ));
        }
        if channels == 0 || channels > MAX_CHANNELS {
            return Err(format!("expected 1 to {MAX_CHANNELS} channels, got {channels}"));
        }
        audio.copy_to_vec_interleaved(&mut self.interleaved);
        self.mono.append(&self.interleaved, channels);
        Ok(())
    }
}

/// Sees that each packet continues where the one before ended.
#[derive(Default)]
struct Seam {
    byte: Option<usize>,
    time: Option<i64>,
}

impl Seam {
    /// In an elementary stream each packet lies directly behind the one before.
    fn bytes(&mut self, file: &[u8], packet: &[u8]) -> Result<(), String> {
        let begin = match self.byte {
            Some(end) if file[end..].starts_with(packet) => end,
            Some(end) => return Err(format!("damaged at byte {end} (an MP3 frame is missing)")),
            None => file.windows(packet.len()).position(|window| window == packet).unwrap_or(0),
        };
        self.byte = Some(begin + packet.len());
        Ok(())
    }

    /// In a container each packet has its time.
    fn time(&mut self, packet: &Packet) -> Result<(), String> {
        let begin = packet.pts.get();
        if let Some(end) = self.time.filter(|&end| end != begin) {
            return Err(format!("damaged: a packet at {begin} follows one that ends at {end}"));
        }
        self.time = Some(begin + packet.block_dur().get() as i64);
        Ok(())
    }
}
