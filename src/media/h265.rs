//! H.265 access units (ITU-T H.265 section 7.3): where decoders may start, and what the parameter sets say.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod sps;

pub use super::annex_b::Scan;
use super::parameter_sets::ParameterSets;
use super::{VideoFormat, annex_b};
use h264_reader::rbsp::{BitRead, BitReader, ByteReader};
use std::num::NonZeroUsize;

/// NAL unit types of table 7-1. Those below 32 are slices.
mod nal {
    pub(super) const RASL_N: u8 = 8;
    pub(super) const RASL_R: u8 = 9;
    pub(super) const BLA_W_LP: u8 = 16;
    pub(super) const CRA: u8 = 21;
    pub(super) const LAST_IRAP: u8 = 23;
    pub(super) const VPS: u8 = 32;
    pub(super) const SPS: u8 = 33;
    pub(super) const PPS: u8 = 34;
}

/// How much of a slice is read for its header's first fields.
const SLICE_HEAD: usize = 16;

/// Reads access units of one stream in turn and keeps its parameter sets.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    sets: ParameterSets,
}

impl Scanner {
    /// A scanner that knows no parameter sets yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes parameter sets that came outside the stream, as bare NAL units (`sprop-vps`, `-sps` and `-pps` of RFC 7798
    /// section 7.1). Other NAL units and damaged ones are passed over.
    pub fn set_parameters(&mut self, sets: &[&[u8]]) {
        let mut changed = false;
        for set in sets {
            changed |= self.collect(set);
        }
        if changed {
            self.sets.renew_format();
        }
    }

    /// Reads one access unit up to its first slice's header.
    ///
    /// A random access unit has slices of the types 16 to 21: BLA, IDR or CRA. Who starts at one must leave out the
    /// pictures for which [`is_rasl`] holds, up to the first that is no leading picture.
    pub fn scan(&mut self, access_unit: &[u8]) -> Scan {
        let mut scan = Scan::default();
        let (mut vps, mut sps, mut pps, mut new_sets) = (false, false, false, false);
        let mut nals = annex_b::nal_units(access_unit);
        while let Some(head) = nals.head() {
            match nal_type(head) {
                Some(kind @ 0..32) => {
                    scan.picture = true;
                    scan.parameter_sets = vps && sps && pps;
                    scan.random_access = (nal::BLA_W_LP..=nal::CRA).contains(&kind);
                    if let (true, Some(pps_id)) = (scan.random_access, slice_pps_id(head)) {
                        new_sets |= self.sets.activate(pps_id);
                    }
                    break;
                }
                Some(kind @ (nal::VPS | nal::SPS | nal::PPS)) => {
                    vps |= kind == nal::VPS;
                    sps |= kind == nal::SPS;
                    pps |= kind == nal::PPS;
                    if let Some(set) = nals.next() {
                        new_sets |= self.collect(set);
                    }
                }
                _ => _ = nals.next(),
            }
        }
        scan.changed = new_sets && self.sets.renew_format();
        scan
    }

    /// What is known of the pictures, from the SPS in use (the newest one until a picture names another); `None` until
    /// one was seen. Where the SPS cannot be read, its details stay unknown.
    pub fn format(&self) -> Option<&VideoFormat> {
        self.sets.format()
    }

    /// Keeps a parameter set; says whether it is new.
    fn collect(&mut self, set: &[u8]) -> bool {
        match nal_type(set) {
            Some(nal::VPS) => vps_id(set).is_some_and(|id| self.sets.put_vps(id, set)),
            Some(nal::SPS) => sps::id(set).is_some_and(|id| self.sets.put_sps(id, set, || sps::read(set))),
            Some(nal::PPS) => pps_ids(set).is_some_and(|(id, sps_id)| self.sets.put_pps(id, sps_id, set)),
            _ => false,
        }
    }
}

/// Whether an access unit is a random access skipped leading picture (types 8 and 9): it cannot be decoded by who
/// started at the random access unit just before it.
pub fn is_rasl(access_unit: &[u8]) -> bool {
    let mut nals = annex_b::nal_units(access_unit);
    while let Some(head) = nals.head() {
        match nal_type(head) {
            Some(kind @ 0..32) => return matches!(kind, nal::RASL_N | nal::RASL_R),
            _ => _ = nals.next(),
        }
    }
    false
}

/// The type of the NAL unit that begins here, if it belongs to the base layer; other layers are extensions that
/// decoders pass over.
fn nal_type(nal: &[u8]) -> Option<u8> {
    let &[first, second] = nal.first_chunk()?;
    let layer = (first & 1) << 5 | second >> 3;
    (layer == 0).then_some(first >> 1 & 0x3f)
}

type Bits<'a> = BitReader<ByteReader<&'a [u8]>>;

/// Reads the bits behind the NAL unit's header, without emulation prevention, which is that of H.264.
fn bits(nal: &[u8]) -> Bits<'_> {
    const HEADER: NonZeroUsize = NonZeroUsize::new(2).expect("2 is not zero");
    BitReader::new(ByteReader::skipping_bytes(nal, HEADER))
}

/// The PPS that a slice uses (section 7.3.6.1).
fn slice_pps_id(nal: &[u8]) -> Option<u32> {
    let mut bits = bits(annex_b::begin(nal, SLICE_HEAD));
    bits.read_bool("first_slice_segment_in_pic_flag").ok()?;
    if (nal::BLA_W_LP..=nal::LAST_IRAP).contains(&nal_type(nal)?) {
        bits.read_bool("no_output_of_prior_pics_flag").ok()?;
    }
    bits.read_ue("slice_pic_parameter_set_id").ok()
}

fn vps_id(set: &[u8]) -> Option<u32> {
    bits(set).read(4, "vps_video_parameter_set_id").ok()
}

/// The ids of a PPS and of its SPS, which begin it.
fn pps_ids(set: &[u8]) -> Option<(u32, u32)> {
    let mut bits = bits(set);
    let ids = (bits.read_ue("pps_pic_parameter_set_id").ok()?, bits.read_ue("pps_seq_parameter_set_id").ok()?);
    (ids.0 < 64 && ids.1 < 16).then_some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with ffmpeg 5.1 and its libx265 3.5 from `-f lavfi -i testsrc=size=174x98:rate=15`, `repeat-headers=1:info=0`.
    /// `setsar=7/5`, `keyint=8:min-keyint=1:scenecut=0:bframes=3:b-adapt=0:open-gop=1`.
    const OPEN_GOP: &[u8] = include_bytes!("testdata/x265-main-open-gop.h265");
    /// `setsar=4/3`, `bframes=0:scaling-list=default:aud=1:hrd=1:vbv-maxrate=500:vbv-bufsize=500`.
    const HRD: &[u8] = include_bytes!("testdata/x265-main-hrd.h265");
    /// `-pix_fmt yuv422p10le`.
    const RANGE_422: &[u8] = include_bytes!("testdata/x265-422-10.h265");

    /// Cuts a stream into one access unit a slice: these streams have one slice a picture.
    fn access_units(stream: &[u8]) -> Vec<Vec<u8>> {
        let mut units = vec![Vec::new()];
        for nal in annex_b::nal_units(stream) {
            annex_b::push(units.last_mut().expect("there is always one"), nal);
            if nal_type(nal) < Some(32) {
                units.push(Vec::new());
            }
        }
        units.pop();
        units
    }

    fn scan_all(stream: &[u8]) -> (Scanner, Vec<Scan>) {
        let mut scanner = Scanner::new();
        let scans = access_units(stream).iter().map(|unit| scanner.scan(unit)).collect();
        (scanner, scans)
    }

    fn set(stream: &[u8], kind: u8) -> &[u8] {
        annex_b::nal_units(stream).find(|nal| nal_type(nal) == Some(kind)).expect("the stream has it")
    }

    #[test]
    fn clean_random_access_with_leading_pictures() {
        let (scanner, scans) = scan_all(OPEN_GOP);
        assert!(scans.iter().all(|scan| scan.picture));
        // IDR P B b b, CRA with three leading pictures, and on.
        let keys: Vec<_> = (0..scans.len()).filter(|&at| scans[at].random_access).collect();
        assert_eq!((scans.len(), keys), (14, vec![0, 5]));
        assert!(scans[0].changed && scans[0].parameter_sets && scans[5].parameter_sets && !scans[5].changed);
        let units = access_units(OPEN_GOP);
        let skipped: Vec<_> = (0..units.len()).filter(|&at| is_rasl(&units[at])).collect();
        assert_eq!(skipped, [6, 7, 8]);
        let format = scanner.format().expect("the SPS was in band");
        assert_eq!((format.width, format.height, format.pixel_aspect), (174, 98, (7, 5)));
        assert_eq!((format.frame_rate, format.reorder_depth), (Some(15.0), Some(2)));
        let sets = [nal::VPS, nal::SPS, nal::PPS].map(|kind| set(OPEN_GOP, kind));
        assert_eq!(format.parameter_sets, sets);
    }

    #[test]
    fn delimiters_scaling_lists_and_buffering() {
        let (scanner, scans) = scan_all(HRD);
        assert_eq!(scans.iter().map(|scan| scan.random_access).collect::<Vec<_>>(), [true, false, false]);
        let format = scanner.format().expect("the SPS was in band");
        assert_eq!((format.width, format.height, format.pixel_aspect), (174, 98, (4, 3)));
        assert_eq!((format.frame_rate, format.reorder_depth), (Some(15.0), Some(0)));
    }

    #[test]
    fn chroma_of_full_height() {
        let (scanner, _) = scan_all(RANGE_422);
        let format = scanner.format().expect("the SPS was in band");
        assert_eq!((format.width, format.height, format.pixel_aspect), (174, 98, (1, 1)));
    }

    #[test]
    fn sets_of_the_session_description() {
        let mut scanner = Scanner::new();
        scanner.set_parameters(&[set(HRD, nal::VPS), set(HRD, nal::SPS), set(HRD, nal::PPS), &[0x40], &[]]);
        assert_eq!(scanner.format().map(|format| format.parameter_sets.len()), Some(3));
        let scan = scanner.scan(&access_units(OPEN_GOP)[0]);
        assert!(scan.changed && scan.random_access);
        assert_eq!(scanner.format().map(|format| format.pixel_aspect), Some((7, 5)));
    }

    #[test]
    fn other_layers_are_passed_over() {
        // An IDR slice, a trailing one and a PPS of layer 1 (the header's bits 6 to 11).
        let layer = |kind: u8| [kind << 1, 1 << 3 | 1, 0xaf, 0x55];
        let mut unit = Vec::new();
        [20, 1, 34].iter().for_each(|&kind| annex_b::push(&mut unit, &layer(kind)));
        assert_eq!(Scanner::new().scan(&unit), Scan::default());
        assert!(!is_rasl(&unit));
    }
}
