//! Decodes an encoded clip (bytes of a whole file) to mono float samples at its own rate.
//!
//! A decoder made for playback conceals damage: it skips what it cannot parse and goes on. Here audio lost in the middle is an
//! error, so what Symphonia drops without telling is checked: gaps between MP3 frames, jumps of the time stamps, and the number
//! of samples that a lossless file promises. A WAV or MP3 file that ends early is read up to its end, as libsndfile does.
//!
//! Encoder delay and padding are removed where the stream tells them (MP3 with a LAME tag, Vorbis, Opus), as libsndfile does; the edit
//! list of an MP4 file is not read, so AAC begins with its priming samples (1024 and more).

use std::io::{Cursor, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_ALAC, CODEC_ID_FLAC, CODEC_ID_MP3, CODEC_ID_OPUS};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, ReadOnlySource};
use symphonia::core::packet::Packet;

use super::opus::Opus;
use super::{FULL_RATE, Loaded, Mono, Refused, STAGE, formats};
use crate::Observer;

type Decoded = Loaded<(Mono, u32)>;
/// Most channels of a file, which is what libsndfile takes.
const MOST_CHANNELS: usize = 1024;

/// The mono clip and its sample rate, or what is wrong with `bytes`. What follows behind `most` seconds is not looked at.
pub(super) fn decode(bytes: Vec<u8>, most: f64, observer: &dyn Observer) -> Decoded {
    // A malformed stream must not take the caller down, should it find a defect in a decoder.
    catch_unwind(AssertUnwindSafe(|| run(bytes, most, observer)))
        .unwrap_or_else(|_| Err("damaged beyond what the decoder can handle".into()))
}

fn run(mut bytes: Vec<u8>, most: f64, observer: &dyn Observer) -> Decoded {
    let synchronised = bytes.len() > 1 && bytes[0] == 0xff && bytes[1] & 0xe0 == 0xe0;
    if !synchronised {
        formats::check(&bytes)?;
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
        .map_err(|e| refused(&e, &bytes))?;
    let track = format.default_track(TrackType::Audio).ok_or("holds no audio track")?;
    let (id, promised) = (track.id, track.num_frames.filter(|&n| n > 0));
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err("holds no audio track".into());
    };
    if let (Some(named), Some(found)) = (wav_channels(&bytes), parameters.channels.as_ref().map(|known| known.count()))
        && named != found
    {
        return Err(formats::unsupported(&format!("WAV of {named} channels")));
    }
    let codec = parameters.codec;
    let mut decoder = if codec == CODEC_ID_OPUS {
        Decoder::Opus(Opus::new(parameters.extra_data.as_deref().unwrap_or_default())?)
    } else {
        let made = symphonia::default::get_codecs().make_audio_decoder(parameters, &AudioDecoderOptions::default());
        Decoder::Symphonia(made.map_err(|e| refused(&e, &bytes))?)
    };
    let mut clip = Clip::default();
    let mut read = 0;
    let mut seam = Seam::default();
    while let Some(packet) = next(format.as_mut())? {
        if packet.track_id != id {
            continue;
        }
        read += packet.data.len();
        observer.progress(STAGE, read.min(bytes.len() - 1), bytes.len())?;
        if codec == CODEC_ID_MP3 {
            if promised.is_some_and(|n| packet.pts.get() >= n as i64) {
                break; // whatever follows the last frame that the header counts
            }
            seam.bytes(&bytes, &packet.data)?;
        } else {
            seam.time(&packet)?;
        }
        clip.append(&mut decoder, &packet)?;
        if clip.is_longer(most) {
            return clip.done();
        }
    }
    if let (Some(last), Some(end)) = (last_granule(&bytes), seam.time)
        && last > end
    {
        return Err(format!("damaged: the stream ends at {last}, its packets at {end}").into());
    }
    let count = clip.mono.0.len() as u64;
    let lossless = [CODEC_ID_FLAC, CODEC_ID_ALAC].contains(&codec);
    if let Some(promised) = promised.filter(|&n| lossless && n != count) {
        return Err(format!("damaged: {promised} samples expected, {count} found").into());
    }
    clip.done()
}

/// What the header of a WAV file says: of 36 channels in an extensible one Symphonia makes 4.
fn wav_channels(bytes: &[u8]) -> Option<usize> {
    let head = bytes.starts_with(b"RIFF").then(|| &bytes[..bytes.len().min(4096)])?;
    let at = head.windows(4).position(|window| window == b"fmt ")?;
    let count = head.get(at + 10..at + 12)?;
    Some(usize::from(u16::from_le_bytes(count.try_into().ok()?)))
}

/// Where the last page of an Ogg stream says that it ends. Symphonia leaves out packets of a page that it cannot place.
fn last_granule(bytes: &[u8]) -> Option<i64> {
    let at = bytes.starts_with(b"OggS").then(|| bytes.windows(4).rposition(|window| window == b"OggS"))??;
    let page = bytes.get(at..at + 18)?;
    let granule = i64::from_le_bytes(page[6..14].try_into().ok()?);
    (page[14..18] == bytes[14..18]).then_some(granule)
}

/// What Symphonia says of `bytes` before it has decoded anything: another reader may know what it does not, and what it calls
/// malformed, such as more channels than it has names for, or ALAC in CAF.
fn refused(e: &Error, bytes: &[u8]) -> Refused {
    if formats::is_read(bytes) {
        formats::unsupported(&format!("{} ({e})", formats::name(bytes)))
    } else {
        Refused::Unsupported(format!("{} ({e})", formats::UNKNOWN))
    }
}

/// What makes samples of packets.
enum Decoder {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Opus),
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
    fn is_longer(&self, seconds: f64) -> bool {
        self.spec.is_some_and(|(rate, _)| self.mono.0.len() as f64 > seconds * f64::from(rate.min(FULL_RATE)))
    }

    fn done(self) -> Decoded {
        self.spec.map_or_else(|| Err("holds no samples".into()), |(rate, _)| Ok((self.mono, rate)))
    }

    fn append(&mut self, decoder: &mut Decoder, packet: &Packet) -> Result<(), String> {
        let at = self.mono.0.len();
        let damaged = |e: &dyn std::fmt::Display| format!("damaged at sample {at} ({e})");
        let spec = match decoder {
            Decoder::Symphonia(decoder) => {
                let audio = decoder.decode(packet).map_err(|e| damaged(&e))?;
                audio.copy_to_vec_interleaved(&mut self.interleaved);
                (audio.spec().rate(), audio.spec().channels().count())
            }
            Decoder::Opus(opus) => {
                self.interleaved = opus.decode(packet).map_err(|e| damaged(&e))?;
                opus.spec()
            }
        };
        let (rate, channels) = *self.spec.get_or_insert(spec);
        if spec != (rate, channels) {
            return Err(format!(
                "changes from {rate} Hz, {channels} channels to {} Hz, {} channels at sample {at}",
                spec.0, spec.1
            ));
        }
        if channels == 0 || channels > MOST_CHANNELS {
            return Err(format!("expected 1 to {MOST_CHANNELS} channels, got {channels}"));
        }
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
