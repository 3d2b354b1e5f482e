//! Formats by what their files begin with: those that are read here, and those that are known by name only.

use super::{Loaded, Refused};

/// What is said of anything else.
pub(super) const UNKNOWN: &str = "not an audio file of a known format";

/// What a file that Symphonia is asked about begins with: offset, marker, name. Its own search would also find a stray MP3 frame
/// header in the middle of something else.
const READ: [(usize, &[u8], &str); 9] = [
    (0, b"RIFF", "WAV"),
    (0, b"FORM", "AIFF"),
    (0, b"caff", "CAF"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
    (0, b"ID3", "MP3"),
    (4, b"ftyp", "MP4"),
    (4, b"moov", "MP4"),
    (4, b"mdat", "MP4"),
];
/// What other files begin with.
const NAMED: [(usize, &[u8], &str); 14] = [
    (0, b"RF64", "RF64 (WAV of more than 4 GB)"),
    (0, b"riff\x2e\x91\xcf\x11", "Sony Wave64 (W64)"),
    (0, b".snd", "Sun AU"),
    (0, b"dns.", "Sun AU"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "Windows Media (ASF)"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio (APE)"),
    (0, b"TTA1", "True Audio (TTA)"),
    (0, b"#!AMR", "AMR"),
    (0, b"DSD ", "DSD"),
    (0, b"Creative Voice File", "Creative Voice (VOC)"),
    (0, b"NIST_1A", "NIST Sphere"),
    (0, b"FLV\x01", "Flash video"),
];
/// What the first packet of an Ogg stream begins with, where that is not read here.
const OGG: [(&[u8], &str); 3] =
    [(b"Speex   ", "Ogg with Speex"), (b"\x80theora", "Ogg with Theora"), (b"PCM     ", "Ogg with PCM")];
/// Where it lies: behind the header of a page with one segment.
const FIRST_PACKET: usize = 28;

fn known(table: &[(usize, &[u8], &'static str)], bytes: &[u8]) -> Option<&'static str> {
    let begins = |at: usize, marker: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(marker));
    table.iter().find(|(at, marker, _)| begins(*at, marker)).map(|(_, _, name)| *name)
}

/// What `bytes` are, by their beginning.
pub(super) fn name(bytes: &[u8]) -> &'static str {
    let inside = bytes.get(FIRST_PACKET..).unwrap_or_default();
    let ogg = OGG.iter().find(|(marker, _)| bytes.starts_with(b"OggS") && inside.starts_with(marker)).map(|(_, name)| *name);
    ogg.or_else(|| known(&READ, bytes)).or_else(|| known(&NAMED, bytes)).unwrap_or("an audio file")
}

/// Does its beginning say that it can be read here, and is there more than that?
pub(super) fn is_read(bytes: &[u8]) -> bool {
    bytes.len() > FIRST_PACKET && known(&READ, bytes).is_some()
}

/// Fails for what Symphonia is not asked about.
pub(super) fn check(bytes: &[u8]) -> Loaded<()> {
    match (known(&READ, bytes), known(&NAMED, bytes)) {
        (Some(_), _) => Ok(()),
        (None, Some(name)) => Err(unsupported(name)),
        (None, None) => Err(Refused::Unsupported(UNKNOWN.into())),
    }
}

/// What is said of a format or codec that is not read here.
pub(super) fn unsupported(what: &str) -> Refused {
    Refused::Unsupported(format!("{what}: a format or codec that is not known here; convert it: ffmpeg -i IN -ar 24000 OUT.wav"))
}
