//! Opus in a container: packets to samples as RFC 7845 says, at the rate that libsndfile decodes at.

use ruopus::{MultistreamDecoder, OpusDecoder};
use symphonia::core::packet::Packet;

use super::formats::unsupported;
use super::{Loaded, Refused};

/// Time stamps are counted at this rate.
const RATE: u32 = 48_000;
/// Rates of Opus decoders.
const RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, RATE];

enum Streams {
    One(Box<OpusDecoder>),
    Many(MultistreamDecoder),
}

/// A stream.
pub(super) struct Opus {
    streams: Streams,
    channels: usize,
    rate: u32,
    gain: f32,
    /// Frames to be left out before the first that counts.
    skip: usize,
}

impl Opus {
    /// From the identification header `OpusHead` (RFC 7845, section 5.1).
    pub(super) fn new(head: &[u8]) -> Loaded<Self> {
        let Some(([b'O', b'p', b'u', b's', b'H', b'e', b'a', b'd', _, channels, a, b, c, d, e, f, g, h, family], rest)) =
            head.split_first_chunk::<19>()
        else {
            return Err(unsupported("Opus in another container than Ogg"));
        };
        let channels = usize::from(*channels);
        let original = u32::from_le_bytes([*c, *d, *e, *f]);
        let rate = RATES.into_iter().find(|rate| (1..=*rate).contains(&original)).unwrap_or(RATE);
        let streams = match (family, channels, rest) {
            (0, 1 | 2, _) => Streams::One(Box::new(OpusDecoder::with_rate(rate, channels))),
            (0, ..) | (_, 0, _) => return Err(format!("damaged: an Opus header of {channels} channels").into()),
            (_, _, [streams, coupled, mapping @ ..]) => {
                let (streams, coupled) = (usize::from(*streams), usize::from(*coupled));
                let known = |index: &u8| *index == 255 || usize::from(*index) < streams + coupled;
                if streams == 0 || coupled > streams || mapping.len() < channels || !mapping[..channels].iter().all(known) {
                    return Err(Refused::Unusable("damaged: an Opus header whose channels are of no stream".into()));
                }
                Streams::Many(MultistreamDecoder::with_rate(rate, streams, coupled, &mapping[..channels]))
            }
            _ => return Err("damaged: an Opus header without its channels".into()),
        };
        let gain = 10f64.powf(f64::from(i16::from_le_bytes([*g, *h])) / 256.0 / 20.0) as f32;
        let skip = usize::from(u16::from_le_bytes([*a, *b])) * rate as usize / RATE as usize;
        Ok(Self { streams, channels, rate, gain, skip })
    }

    /// Rate and channels.
    pub(super) fn spec(&self) -> (u32, usize) {
        (self.rate, self.channels)
    }

    /// Interleaved samples of a packet, without those that the stream wants left out.
    pub(super) fn decode(&mut self, packet: &Packet) -> Result<Vec<f32>, String> {
        let mut samples = match &mut self.streams {
            Streams::One(decoder) => decoder.decode_packet(&packet.data),
            Streams::Many(decoder) => decoder.decode_packet(&packet.data),
        }
        .map_err(|e| format!("{e:?}"))?;
        let frames = samples.len() / self.channels;
        let padding = packet.trim_end.get().saturating_mul(u64::from(self.rate)) / u64::from(RATE);
        let end = frames.saturating_sub(usize::try_from(padding).unwrap_or(frames));
        let start = self.skip.min(end);
        self.skip -= start;
        samples.truncate(end * self.channels);
        samples.drain(..start * self.channels);
        if self.gain != 1.0 {
            samples.iter_mut().for_each(|v| *v *= self.gain);
        }
        Ok(samples)
    }
}
