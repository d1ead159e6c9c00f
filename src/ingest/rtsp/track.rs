//! One track of a camera: what it is, and its access units in the form that the bus promises.

use crate::ingest::Rotation;
use crate::ingest::jpeg::Checker;
use crate::media::{AudioFormat, Codec, Format, TrackInfo, VideoFormat, annex_b, h264, h265};
use bytes::Bytes;
use retina::client::Stream;
use retina::codec::{ParametersRef, VideoParametersCodec};
use std::sync::Arc;

/// A track that can be used.
#[derive(Debug)]
pub(super) struct Track {
    stream: usize,
    info: Arc<TrackInfo>,
    reader: Reader,
    /// Pictures per second by the SDP, where the parameter sets do not say.
    announced_rate: Option<f64>,
}

/// What looks into the pictures.
#[derive(Debug)]
enum Reader {
    H264(Box<h264::Scanner>),
    H265(Box<h265::Scanner>),
    Jpeg(Checker),
    Sound,
}

/// A picture ready for the bus.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) payload: Bytes,
    pub(super) random_access: bool,
}

impl Track {
    /// The track that a camera describes, or why it cannot be used.
    pub(super) fn of(index: usize, stream: &Stream) -> Result<Self, String> {
        let (reader, codec) = match (stream.media(), stream.encoding_name()) {
            ("video", "h264") => (Reader::H264(Box::default()), Codec::H264),
            ("video", "h265") => (Reader::H265(Box::default()), Codec::H265),
            // Pages and snapshots turn the pictures of RTSP cameras, whatever their codec.
            ("video" | "image", "jpeg") => (Reader::Jpeg(Checker::new(Rotation::None)), Codec::Jpeg),
            ("audio", "mpeg4-generic") => (Reader::Sound, Codec::Aac),
            ("audio", "pcmu") => (Reader::Sound, Codec::Pcmu),
            ("audio", "pcma") => (Reader::Sound, Codec::Pcma),
            (media, encoding) => return Err(format!("{media}/{encoding} is not supported")),
        };
        let format = match codec {
            Codec::Aac => {
                let Some(ParametersRef::Audio(parameters)) = stream.parameters() else {
                    return Err("its AAC configuration cannot be read".into());
                };
                Format::Audio(AudioFormat {
                    channels: parameters.channels().get(),
                    sample_rate: parameters.clock_rate(),
                    config: Bytes::copy_from_slice(parameters.extra_data()),
                })
            }
            Codec::Pcmu | Codec::Pcma => {
                let channels = stream.channels().map_or(1, |channels| channels.get());
                if stream.clock_rate_hz() != 8_000 || channels != 1 {
                    return Err(format!("G.711 at {} Hz with {channels} channels", stream.clock_rate_hz()));
                }
                Format::Audio(AudioFormat { channels, sample_rate: 8_000, config: Bytes::new() })
            }
            Codec::H264 | Codec::H265 | Codec::Jpeg | Codec::Opus => Format::Video(VideoFormat::default()),
        };
        let info = Arc::new(TrackInfo { codec, clock_rate: stream.clock_rate_hz(), format });
        let announced_rate = stream.framerate().map(f64::from).filter(|rate| *rate > 0.0);
        let mut track = Self { stream: index, info, reader, announced_rate };
        if let Some(ParametersRef::Video(parameters)) = stream.parameters() {
            track.set_parameters(parameters.codec_params());
        }
        Ok(track)
    }

    /// The index of retina's stream.
    pub(super) fn stream(&self) -> usize {
        self.stream
    }

    /// The track as it is now.
    pub(super) fn info(&self) -> &Arc<TrackInfo> {
        &self.info
    }

    /// Takes parameter sets that retina has found in the SDP or stripped from the stream.
    pub(super) fn set_parameters(&mut self, parameters: &VideoParametersCodec) {
        let format = match (&mut self.reader, parameters) {
            (Reader::H264(scanner), VideoParametersCodec::H264 { sps, pps }) => {
                scanner.set_parameters(&[sps, pps]);
                scanner.format()
            }
            (Reader::H265(scanner), VideoParametersCodec::H265 { vps, sps, pps }) => {
                scanner.set_parameters(&[vps, sps, pps]);
                scanner.format()
            }
            _ => None,
        };
        if let Some(format) = format.cloned() {
            self.set_format(format);
        }
    }

    fn set_format(&mut self, mut format: VideoFormat) {
        format.frame_rate = format.frame_rate.or(self.announced_rate);
        if self.info.video() != Some(&format) {
            self.info = Arc::new(TrackInfo { format: Format::Video(format), ..(*self.info).clone() });
        }
    }

    /// Makes `data` as retina gave it a picture for the bus; `None` if it holds none. With `start_here` a decoder is
    /// to start at it, whatever it is.
    pub(super) fn picture(&mut self, data: Vec<u8>, start_here: bool) -> Option<Picture> {
        let (scan, format) = match &mut self.reader {
            Reader::H264(scanner) => (scanner.scan(&data), scanner.format()),
            Reader::H265(scanner) => (scanner.scan(&data), scanner.format()),
            Reader::Jpeg(checker) => {
                let checked = match checker.check(data.into()) {
                    Ok(checked) => checked,
                    Err(error) => {
                        tracing::debug!(%error, "a picture of the camera cannot be used");
                        return None;
                    }
                };
                let format = VideoFormat {
                    width: checked.width.into(),
                    height: checked.height.into(),
                    pixel_aspect: (1, 1),
                    reorder_depth: Some(0),
                    ..VideoFormat::default()
                };
                self.set_format(format);
                return Some(Picture { payload: checked.bytes, random_access: true });
            }
            Reader::Sound => return None,
        };
        if !scan.picture {
            return None;
        }
        if scan.changed
            && let Some(format) = format.cloned()
        {
            self.set_format(format);
        }
        let sets = self.info.video().map_or(&[][..], |video| &video.parameter_sets);
        // Without parameter sets nothing can be decoded, IDR or not.
        let random_access = scan.random_access && !sets.is_empty() || start_here;
        if !random_access {
            return Some(Picture { payload: data.into(), random_access });
        }
        let delimiter = match self.info.codec {
            Codec::H265 => delimiter(&data, |head| (head >> 1) & 0x3f == 35),
            _ => delimiter(&data, |head| head & 0x1f == 9),
        };
        Some(Picture { payload: with_sets(data, delimiter, sets), random_access })
    }
}

/// How many bytes the access unit delimiter at the start of `data` takes, start code included. It has to stay first
/// (ITU-T H.264 section 7.4.1.2.3, H.265 section 7.4.2.4.4).
fn delimiter(data: &[u8], is_delimiter: impl Fn(u8) -> bool) -> usize {
    let nal = annex_b::nal_units(data).next().filter(|nal| nal.first().is_some_and(|head| is_delimiter(*head)));
    nal.map_or(0, |nal| START_CODE + nal.len()).min(data.len())
}

/// Bytes of the start codes that retina writes.
const START_CODE: usize = 4;

fn with_sets(data: Vec<u8>, delimiter: usize, sets: &[Bytes]) -> Bytes {
    let more: usize = sets.iter().map(|set| START_CODE + set.len()).sum();
    let mut unit = Vec::with_capacity(data.len() + more);
    let (head, rest) = data.split_at(delimiter);
    unit.extend_from_slice(head);
    for set in sets {
        annex_b::push(&mut unit, set);
    }
    unit.extend_from_slice(rest);
    unit.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_sets_come_after_the_delimiter() {
        let sets = [Bytes::from_static(&[0x67, 1]), Bytes::from_static(&[0x68, 2])];
        let is_delimiter = |head: u8| head & 0x1f == 9;
        let plain = vec![0, 0, 0, 1, 0x65, 7];
        assert_eq!(delimiter(&plain, is_delimiter), 0);
        let expected = [0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 0, 1, 0x65, 7];
        assert_eq!(with_sets(plain, 0, &sets)[..], expected);
        let delimited = vec![0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1, 0x65, 7];
        let at = delimiter(&delimited, is_delimiter);
        let expected = [0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 0, 1, 0x65, 7];
        assert_eq!(with_sets(delimited, at, &sets)[..], expected);
        assert_eq!(delimiter(&[], is_delimiter), 0);
    }

    const OPEN_GOP_264: &[u8] = include_bytes!("../../media/testdata/x264-main-bframes-open-gop.h264");
    const INTRA_REFRESH: &[u8] = include_bytes!("../../media/testdata/x264-high-intra-refresh.h264");
    const OPEN_GOP_265: &[u8] = include_bytes!("../../media/testdata/x265-main-open-gop.h265");

    fn track(codec: Codec) -> Track {
        let reader = match codec {
            Codec::H264 => Reader::H264(Box::default()),
            Codec::H265 => Reader::H265(Box::default()),
            _ => Reader::Jpeg(Checker::new(Rotation::None)),
        };
        let info = Arc::new(TrackInfo { codec, clock_rate: 90_000, format: Format::Video(VideoFormat::default()) });
        Track { stream: 0, info, reader, announced_rate: Some(7.5) }
    }

    /// Parameter sets and access units as retina gives them: the sets apart. All clips have one slice a picture or
    /// their further slices say so in the first bit after the header.
    fn stripped(clip: &'static [u8], codec: Codec) -> (Vec<&'static [u8]>, Vec<Vec<u8>>) {
        let (mut sets, mut units, mut unit) = (Vec::new(), Vec::new(), Vec::new());
        for nal in annex_b::nal_units(clip) {
            let (kind, header) = match codec {
                Codec::H265 => ((nal[0] >> 1) & 0x3f, 2),
                _ => (nal[0] & 0x1f, 1),
            };
            let (is_set, is_slice) = match codec {
                Codec::H265 => ((32..=34).contains(&kind), kind < 32),
                _ => ((7..=8).contains(&kind), (1..=5).contains(&kind)),
            };
            if is_set {
                if !sets.contains(&nal) {
                    sets.push(nal);
                }
                continue;
            }
            let first = is_slice && nal[header] & 0x80 != 0;
            let has_slice = unit_has_slice(&unit, codec);
            if has_slice && (first || !is_slice) {
                units.push(std::mem::take(&mut unit));
            }
            annex_b::push(&mut unit, nal);
        }
        units.push(unit);
        (sets, units)
    }

    fn unit_has_slice(unit: &[u8], codec: Codec) -> bool {
        annex_b::nal_units(unit).any(|nal| match codec {
            Codec::H265 => (nal[0] >> 1) & 0x3f < 32,
            _ => (1..=5).contains(&(nal[0] & 0x1f)),
        })
    }

    #[test]
    fn every_random_access_unit_gets_its_parameter_sets_back() {
        for (clip, codec) in [(OPEN_GOP_264, Codec::H264), (INTRA_REFRESH, Codec::H264), (OPEN_GOP_265, Codec::H265)] {
            let (sets, units) = stripped(clip, codec);
            let mut track = track(codec);
            track.set_parameters(&match (codec, &sets[..]) {
                (Codec::H265, [vps, sps, pps]) => VideoParametersCodec::H265 {
                    vps: Bytes::from_static(vps),
                    sps: Bytes::from_static(sps),
                    pps: Bytes::from_static(pps),
                },
                (_, [sps, pps]) => {
                    VideoParametersCodec::H264 { sps: Bytes::from_static(sps), pps: Bytes::from_static(pps) }
                }
                _ => panic!("the clip has other parameter sets"),
            });
            let (mut starts, mut others) = (0, 0);
            for unit in units {
                let bare: Vec<Vec<u8>> = annex_b::nal_units(&unit).map(<[u8]>::to_vec).collect();
                let picture = track.picture(unit, false).unwrap();
                let mut expected: Vec<Vec<u8>> = Vec::new();
                if picture.random_access {
                    expected.extend(sets.iter().map(|set| set.to_vec()));
                }
                expected.extend(bare);
                let nals: Vec<Vec<u8>> = annex_b::nal_units(&picture.payload).map(<[u8]>::to_vec).collect();
                assert_eq!(nals, expected);
                *(if picture.random_access { &mut starts } else { &mut others }) += 1;
            }
            // Open GOPs and intra refresh have one IDR picture at most: the others are what retina does not see.
            assert!(starts >= 2 && others > starts, "{codec}: {starts} of {others}");
        }
    }

    #[test]
    fn without_parameter_sets_nothing_starts_unless_it_has_to() {
        let (_, mut units) = stripped(OPEN_GOP_264, Codec::H264);
        let mut track = track(Codec::H264);
        assert!(!track.picture(units.remove(0), false).unwrap().random_access);
        assert!(track.picture(units.remove(0), true).unwrap().random_access);
        assert!(track.picture(vec![0, 0, 0, 1, 6, 0x80], true).is_none(), "SEI alone is no picture");
    }

    #[test]
    fn jpeg_pictures_are_whole_baseline_ones_or_none() {
        use crate::media::jpeg;
        let mut track = track(Codec::Jpeg);
        let whole = include_bytes!("../../media/testdata/libjpeg-422.jpg");
        let picture = track.picture(whole.to_vec(), false).unwrap();
        assert!(picture.random_access && picture.payload == whole[..]);
        let video = track.info().video().unwrap();
        assert!(video.width > 0 && video.height > 0);
        assert_eq!((video.pixel_aspect, video.frame_rate), ((1, 1), Some(7.5)));
        let progressive = include_bytes!("../../media/testdata/libjpeg-420-progressive.jpg");
        let coded_anew = track.picture(progressive.to_vec(), false).unwrap().payload;
        assert!(jpeg::parse(&coded_anew).unwrap().rtp_form().is_some());
        assert!(track.picture(whole[..whole.len() / 2].to_vec(), false).is_none());
    }
}
