//! H.264 access units (ITU-T H.264 section 7.3): where decoders may start, and what the parameter sets say.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod grey;
mod idr;

pub use super::annex_b::Scan;
use super::parameter_sets::ParameterSets;
use super::{VideoFormat, annex_b};
pub use grey::{GreyPictures, grey_pictures};
use h264_reader::nal::sei::{HeaderType, SeiReader};
use h264_reader::nal::sps::{PicOrderCntType, SeqParameterSet};
use h264_reader::rbsp::{BitRead, BitReader, ByteReader};
pub use idr::{idr_pic_id, with_idr_pic_id};

/// NAL unit types of table 7-1.
mod nal {
    pub(super) const SLICE: u8 = 1;
    pub(super) const PARTITION_A: u8 = 2;
    pub(super) const IDR_SLICE: u8 = 5;
    pub(super) const SEI: u8 = 6;
    pub(super) const SPS: u8 = 7;
    pub(super) const PPS: u8 = 8;
}

/// How much of a slice is read for its header's first three numbers: they take 12 bytes at most, emulation prevention
/// included.
const SLICE_HEAD: usize = 16;
/// How much of an SEI NAL unit is searched for a recovery point; encoders put it first, user data may follow.
const SEI_HEAD: usize = 2048;
/// The largest decoded picture buffer, and so the largest reorder depth (section A.3.1).
const MAX_DEPTH: u32 = 16;

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

    /// Takes parameter sets that came outside the stream, as bare NAL units (`sprop-parameter-sets` of RFC 6184
    /// section 8.1). Other NAL units and damaged ones are passed over.
    pub fn set_parameters(&mut self, sets: &[&[u8]]) {
        let mut changed = false;
        for set in sets {
            changed |= self.collect(set);
        }
        if changed {
            self.sets.renew_format();
        }
    }

    /// Reads one access unit. It looks at slices only as far as it must: at the first one's header, or, where parameter
    /// sets precede an I slice that is no IDR, at every one's.
    ///
    /// A random access unit has an IDR slice, a recovery point SEI message (also one of gradual refresh), or SPS and
    /// PPS before I slices only (Comelit door stations never send IDR pictures).
    pub fn scan(&mut self, access_unit: &[u8]) -> Scan {
        let mut scan = Scan::default();
        let (mut sps, mut pps, mut recovery_point, mut new_sets) = (false, false, false, false);
        let mut nals = annex_b::nal_units(access_unit);
        while let Some(head) = nals.head() {
            match nal_type(head) {
                kind @ (nal::SLICE | nal::PARTITION_A | nal::IDR_SLICE) => {
                    let slice = SliceHead::read(head);
                    if !scan.picture {
                        scan.picture = true;
                        scan.parameter_sets = sps && pps;
                        let at_once = kind == nal::IDR_SLICE || recovery_point;
                        scan.random_access = at_once || sps && pps;
                        if let (true, Some(slice)) = (scan.random_access, slice) {
                            new_sets |= self.sets.activate(slice.pps_id);
                        }
                        if at_once {
                            break;
                        }
                    }
                    scan.random_access &= slice.is_some_and(|slice| slice.intra);
                    if !scan.random_access {
                        break;
                    }
                    nals.next();
                }
                kind @ (nal::SPS | nal::PPS) => {
                    sps |= kind == nal::SPS;
                    pps |= kind == nal::PPS;
                    if let Some(set) = nals.next() {
                        new_sets |= self.collect(set);
                    }
                }
                nal::SEI => recovery_point |= nals.next().is_some_and(has_recovery_point),
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
            nal::SPS => sps_id(set).is_some_and(|id| self.sets.put_sps(id, set, || read_sps(set))),
            nal::PPS => pps_ids(set).is_some_and(|(id, sps_id)| self.sets.put_pps(id, sps_id, set)),
            _ => false,
        }
    }
}

/// The type of the NAL unit that begins here; 0, which is unspecified, for none.
fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |header| header & 0x1f)
}

/// Reads the bits behind the NAL unit's header, without emulation prevention.
fn bits(nal: &[u8]) -> BitReader<ByteReader<&[u8]>> {
    BitReader::new(ByteReader::skipping_h264_header(nal))
}

/// What a slice header (section 7.3.3) says at its beginning.
#[derive(Clone, Copy, Debug, PartialEq)]
struct SliceHead {
    /// An I or SI slice (table 7-6).
    intra: bool,
    pps_id: u32,
}

impl SliceHead {
    fn read(nal: &[u8]) -> Option<Self> {
        let mut bits = bits(annex_b::begin(nal, SLICE_HEAD));
        bits.read_ue("first_mb_in_slice").ok()?;
        let slice_type = bits.read_ue("slice_type").ok()?;
        let pps_id = bits.read_ue("pic_parameter_set_id").ok()?;
        Some(Self { intra: matches!(slice_type, 2 | 4 | 7 | 9), pps_id })
    }
}

/// Whether an SEI NAL unit holds a recovery point message (section D.1.8).
fn has_recovery_point(sei: &[u8]) -> bool {
    let mut scratch = Vec::new();
    let head = sei.get(..SEI_HEAD).unwrap_or(sei);
    let mut messages = SeiReader::from_rbsp_bytes(ByteReader::skipping_h264_header(head), &mut scratch);
    while let Ok(Some(message)) = messages.next() {
        if message.payload_type == HeaderType::RecoveryPoint {
            return true;
        }
    }
    false
}

/// The id of an SPS, whatever the rest of it may be: it follows profile, constraints and level.
fn sps_id(set: &[u8]) -> Option<u32> {
    let mut bits = bits(set);
    bits.skip(24, "profile_idc, constraint flags, level_idc").ok()?;
    bits.read_ue("seq_parameter_set_id").ok().filter(|&id| id < 32)
}

/// The ids of a PPS and of its SPS, which begin it.
fn pps_ids(set: &[u8]) -> Option<(u32, u32)> {
    let mut bits = bits(set);
    let ids = (bits.read_ue("pic_parameter_set_id").ok()?, bits.read_ue("seq_parameter_set_id").ok()?);
    (ids.0 < 256 && ids.1 < 32).then_some(ids)
}

fn read_sps(set: &[u8]) -> Option<VideoFormat> {
    let sps = SeqParameterSet::from_bits(bits(set)).ok()?;
    let (width, height) = sps.pixel_dimensions().ok()?;
    let vui = sps.vui_parameters.as_ref();
    Some(VideoFormat {
        width,
        height,
        pixel_aspect: vui
            .and_then(|vui| vui.aspect_ratio_info.as_ref())
            .and_then(|aspect| aspect.get())
            .unwrap_or((1, 1)),
        frame_rate: vui
            .and_then(|vui| vui.timing_info.as_ref())
            .and_then(|timing| frame_rate(timing.time_scale, timing.num_units_in_tick, 2)),
        reorder_depth: reorder_depth(&sps),
        parameter_sets: Vec::new(),
    })
}

/// Pictures per second of VUI timing with `ticks` clock ticks a picture (section E.2.1). Nonsense that cameras send,
/// such as zeros or 90,000 Hz, is no rate.
pub(super) fn frame_rate(time_scale: u32, num_units_in_tick: u32, ticks: u32) -> Option<f64> {
    let rate = f64::from(time_scale) / (f64::from(ticks) * f64::from(num_units_in_tick));
    (0.01..=1000.0).contains(&rate).then_some(rate)
}

/// `max_num_reorder_frames` where it is present or follows from the profile or picture order count type (sections E.2.1
/// and 8.2.1.3). Baseline has no B slices; what may be inferred as the whole picture buffer is left open instead.
fn reorder_depth(sps: &SeqParameterSet) -> Option<u8> {
    let profile = u8::from(sps.profile_idc);
    let intra_only = sps.constraint_flags.flag3() && matches!(profile, 44 | 86 | 100 | 110 | 122 | 244);
    if profile == 66 || intra_only || matches!(sps.pic_order_cnt, PicOrderCntType::TypeTwo) {
        return Some(0);
    }
    let restrictions = sps.vui_parameters.as_ref()?.bitstream_restrictions.as_ref()?;
    Some(restrictions.max_num_reorder_frames.min(MAX_DEPTH) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with ffmpeg 5.1 and its libx264 from `-f lavfi -i testsrc=size=174x98:rate=15,setsar=…` (interlaced:
    // 174x96, 25 frames a second).
    /// `-profile:v baseline`, SEI removed.
    const BASELINE: &[u8] = include_bytes!("testdata/x264-baseline.h264");
    /// `setsar=4/3`, `keyint=5:open-gop=1:bframes=2:b-adapt=0:b-pyramid=0`.
    const OPEN_GOP: &[u8] = include_bytes!("testdata/x264-main-bframes-open-gop.h264");
    /// `setsar=7/5`, `interlaced=1:bframes=0`.
    const INTERLACED: &[u8] = include_bytes!("testdata/x264-high-interlaced.h264");
    /// `intra-refresh=1:keyint=4:bframes=0:slices=3`.
    const INTRA_REFRESH: &[u8] = include_bytes!("testdata/x264-high-intra-refresh.h264");
    /// The first 3,000 bytes of the demo's footage as Annex B: no reorder depth in the SPS though it has B slices.
    const VISITORS: &[u8] = include_bytes!("testdata/visitors.h264");
    /// The same of the other clip: Baseline.
    const STREET: &[u8] = include_bytes!("testdata/street.h264");

    /// Cuts a stream before what may begin an access unit (section 7.4.1.2.3) once the one before has a picture.
    fn access_units(stream: &[u8]) -> Vec<Vec<u8>> {
        let mut units = vec![Vec::new()];
        let mut picture = false;
        for nal in annex_b::nal_units(stream) {
            let first_slice = matches!(nal_type(nal), 1 | 5) && nal[1] & 0x80 != 0;
            if picture && (first_slice || matches!(nal_type(nal), 6..=9)) {
                units.push(Vec::new());
                picture = false;
            }
            picture |= matches!(nal_type(nal), 1 | 5);
            annex_b::push(units.last_mut().expect("there is always one"), nal);
        }
        units
    }

    fn scan_all(stream: &[u8]) -> (Scanner, Vec<Scan>) {
        let mut scanner = Scanner::new();
        let scans = access_units(stream).iter().map(|unit| scanner.scan(unit)).collect();
        (scanner, scans)
    }

    fn keys(scans: &[Scan]) -> Vec<usize> {
        assert!(scans.iter().all(|scan| scan.picture));
        (0..scans.len()).filter(|&at| scans[at].random_access).collect()
    }

    fn set(stream: &[u8], kind: u8) -> &[u8] {
        annex_b::nal_units(stream).find(|nal| nal_type(nal) == kind).expect("the stream has it")
    }

    #[test]
    fn baseline_is_cropped_and_has_no_reordering() {
        let (scanner, scans) = scan_all(BASELINE);
        assert_eq!((scans.len(), keys(&scans)), (4, vec![0]));
        assert!(scans[0].changed && scans[0].parameter_sets);
        assert!(!scans[1].changed && !scans[1].parameter_sets);
        let format = scanner.format().expect("the SPS was in band");
        assert_eq!((format.width, format.height, format.pixel_aspect), (174, 98, (1, 1)));
        assert_eq!((format.frame_rate, format.reorder_depth), (Some(15.0), Some(0)));
        assert_eq!(format.parameter_sets, [set(BASELINE, nal::SPS), set(BASELINE, nal::PPS)]);
    }

    #[test]
    fn recovery_points_of_open_gops_are_random_access() {
        let (scanner, scans) = scan_all(OPEN_GOP);
        // In decode order: I P B B, then I B P B B with leading pictures; only the first I is an IDR picture.
        assert_eq!((scans.len(), keys(&scans)), (12, vec![0, 4, 9]));
        let format = scanner.format().expect("the SPS was in band");
        assert_eq!((format.width, format.height, format.pixel_aspect), (174, 98, (4, 3)));
        assert_eq!(format.reorder_depth, Some(1));
    }

    #[test]
    fn interlaced_with_an_extended_aspect() {
        let (scanner, scans) = scan_all(INTERLACED);
        assert_eq!((scans.len(), keys(&scans)), (3, vec![0]));
        let format = scanner.format().expect("the SPS was in band");
        assert_eq!((format.width, format.height, format.pixel_aspect), (174, 96, (7, 5)));
        assert_eq!((format.frame_rate, format.reorder_depth), (Some(25.0), Some(0)));
    }

    #[test]
    fn gradual_refresh_counts_as_random_access() {
        let (_, scans) = scan_all(INTRA_REFRESH);
        assert!(scans[0].random_access && keys(&scans).len() > 1);
        assert!(scans.iter().any(|scan| !scan.random_access));
    }

    #[test]
    fn footage_says_no_reorder_depth_unless_it_is_baseline() {
        let (scanner, scans) = scan_all(VISITORS);
        assert_eq!(keys(&scans), [0]);
        let format = scanner.format().expect("the SPS was in band");
        assert_eq!((format.width, format.height, format.pixel_aspect), (768, 432, (1, 1)));
        assert_eq!((format.frame_rate, format.reorder_depth), (Some(10.0), None));

        let (scanner, scans) = scan_all(STREET);
        assert_eq!(keys(&scans), [0]);
        let format = scanner.format().expect("the SPS was in band");
        assert_eq!((format.frame_rate, format.reorder_depth), (Some(12.5), Some(0)));
    }

    #[test]
    fn parameter_sets_before_intra_slices_only() {
        let (sps, pps) = (set(BASELINE, nal::SPS), set(BASELINE, nal::PPS));
        // Slice headers by hand: first_mb 0, then 2; slice_type 7 (I) is 0001000, 5 (P) is 00110; PPS 0.
        let intra = [0x41, 0b1000_1000, 0b1111_1111];
        let intra_too = [0x41, 0b0110_0010, 0b0011_1111];
        let inter = [0x41, 0b0110_0110, 0b1111_1111];
        let scan = |nals: &[&[u8]]| {
            let mut unit = Vec::new();
            nals.iter().for_each(|nal| annex_b::push(&mut unit, nal));
            Scanner::new().scan(&unit)
        };
        assert!(scan(&[sps, pps, &intra, &intra_too]).random_access);
        assert!(!scan(&[sps, pps, &intra, &inter]).random_access);
        assert!(!scan(&[sps, &intra]).random_access);
        assert!(!scan(&[&intra]).random_access);
        let none = scan(&[sps, pps]);
        assert!(!none.picture && !none.random_access && none.changed);
    }

    #[test]
    fn sets_of_the_session_description_are_replaced_in_band() {
        let (old_sps, old_pps) = (set(STREET, nal::SPS), set(STREET, nal::PPS));
        let mut scanner = Scanner::new();
        scanner.set_parameters(&[old_sps, old_pps, &[0x65, 1, 2], &[]]);
        assert_eq!(scanner.format().map(|format| (format.width, format.parameter_sets.len())), Some((768, 2)));
        let scan = scanner.scan(&access_units(BASELINE)[0]);
        assert!(scan.changed && scan.random_access);
        let format = scanner.format().expect("there was one before");
        assert_eq!(format.width, 174);
        assert_eq!(format.parameter_sets[0], set(BASELINE, nal::SPS));
    }

    #[test]
    fn an_sps_that_cannot_be_read_is_kept_with_unknown_details() {
        let sps = set(BASELINE, nal::SPS);
        let mut scanner = Scanner::new();
        scanner.set_parameters(&[&sps[..8]]);
        let format = scanner.format().expect("its id can be read");
        assert_eq!((format.width, format.pixel_aspect, format.reorder_depth), (0, (0, 0), None));
        assert_eq!(format.parameter_sets, [&sps[..8]]);
    }

    #[test]
    fn an_sei_that_claims_much_takes_little() {
        let huge = [&[0, 0, 1, 6][..], &[0xff; 1 << 20]].concat();
        assert_eq!(Scanner::new().scan(&huge), Scan::default());
    }
}
