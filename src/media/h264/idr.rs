//! The number that tells two IDR pictures in a row apart.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use super::grey::Writer;
use super::{bits, nal, nal_type, pps_ids, sps_id};
use crate::media::annex_b;
use h264_reader::nal::sps::{ChromaFormat, FrameMbsFlags, SeqParameterSet};
use h264_reader::rbsp::{BitRead, decode_nal};

/// The largest `idr_pic_id` (ITU-T H.264 section 7.4.3).
const LARGEST: u32 = 65_535;

/// The `idr_pic_id` of an IDR access unit that has its parameter sets in front; `None` if it is none, or cannot be read.
pub fn idr_pic_id(access_unit: &[u8]) -> Option<u32> {
    let sets = Sets::of(access_unit)?;
    let slice = annex_b::nal_units(access_unit).find(|unit| nal_type(unit) == nal::IDR_SLICE)?;
    sets.locate(slice).map(|(_, id)| id)
}

/// The access unit with another `idr_pic_id` in all its slices, to be sent again right after itself: of two IDR pictures
/// in a row those must differ (ITU-T H.264 section 7.4.3). It decodes to the same picture.
///
/// `None` if it is no IDR access unit with its parameter sets in front, or is coded with CABAC, whose data begins at a
/// whole byte.
pub fn with_idr_pic_id(access_unit: &[u8], id: u32) -> Option<Vec<u8>> {
    let sets = Sets::of(access_unit).filter(|sets| !sets.cabac && id <= LARGEST)?;
    let mut out = Vec::with_capacity(access_unit.len() + 16);
    for unit in annex_b::nal_units(access_unit) {
        match nal_type(unit) {
            nal::IDR_SLICE => annex_b::push(&mut out, &sets.renumber(unit, id)?),
            _ => annex_b::push(&mut out, unit),
        }
    }
    Some(out)
}

/// What the parameter sets say about slice headers.
struct Sets {
    pps_id: u32,
    cabac: bool,
    frame_num_bits: u32,
    colour_planes: bool,
    fields: bool,
}

impl Sets {
    /// Of an access unit with one of each.
    fn of(access_unit: &[u8]) -> Option<Self> {
        let of_kind = |kind| annex_b::nal_units(access_unit).find(move |unit| nal_type(unit) == kind);
        let (sps, pps) = (of_kind(nal::SPS)?, of_kind(nal::PPS)?);
        let (pps_id, its_sps) = pps_ids(pps)?;
        if sps_id(sps)? != its_sps {
            return None;
        }
        let mut rest = bits(pps);
        rest.read_ue("pic_parameter_set_id").ok()?;
        rest.read_ue("seq_parameter_set_id").ok()?;
        let cabac = rest.read::<u8>(1, "entropy_coding_mode_flag").ok()? != 0;
        let sps = SeqParameterSet::from_bits(bits(sps)).ok()?;
        Some(Self {
            pps_id,
            cabac,
            frame_num_bits: u32::from(sps.log2_max_frame_num_minus4) + 4,
            colour_planes: sps.chroma_info.separate_colour_plane_flag
                || matches!(sps.chroma_info.chroma_format, ChromaFormat::Invalid(_)),
            fields: !matches!(sps.frame_mbs_flags, FrameMbsFlags::Frames),
        })
    }

    /// The place of `idr_pic_id` in a slice, in bits after the NAL unit's header, and what it is (section 7.3.3).
    fn locate(&self, slice: &[u8]) -> Option<(u64, u32)> {
        // Neither is made by any encoder here.
        if self.colour_planes || self.fields {
            return None;
        }
        let mut header = bits(annex_b::begin(slice, super::SLICE_HEAD * 2));
        let mut before = 0;
        for name in ["first_mb_in_slice", "slice_type", "pic_parameter_set_id"] {
            let value = header.read_ue(name).ok()?;
            if name == "pic_parameter_set_id" && value != self.pps_id {
                return None;
            }
            before += length_of_ue(value);
        }
        header.skip(self.frame_num_bits, "frame_num").ok()?;
        before += u64::from(self.frame_num_bits);
        Some((before, header.read_ue("idr_pic_id").ok()?))
    }

    fn renumber(&self, slice: &[u8], id: u32) -> Option<Vec<u8>> {
        let (before, old) = self.locate(slice)?;
        let payload = decode_nal(slice).ok()?;
        // Up to the stop bit, which ends what counts (section 7.3.2.11).
        let last = payload.iter().rposition(|byte| *byte != 0)?;
        let stop = u64::from(payload.get(last)?.trailing_zeros());
        let end = (last as u64 + 1) * 8 - stop - 1;
        let mut source = Bits { bytes: &payload, at: 0 };
        let mut out = Writer::new(*slice.first()?);
        source.copy(before, &mut out)?;
        out.ue(id);
        source.at += length_of_ue(old);
        source.copy(end.checked_sub(source.at)?, &mut out)?;
        Some(out.finish())
    }
}

/// Bits of an Exp-Golomb code (section 9.1).
fn length_of_ue(value: u32) -> u64 {
    u64::from(2 * (u64::from(value) + 1).ilog2() + 1)
}

/// Bits of a payload without emulation prevention.
struct Bits<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl Bits<'_> {
    fn copy(&mut self, count: u64, out: &mut Writer) -> Option<()> {
        let end = self.at + count;
        while self.at < end {
            let byte = *self.bytes.get(usize::try_from(self.at / 8).ok()?)?;
            let within = (self.at % 8) as u32;
            let take = (8 - within).min(u32::try_from(end - self.at).unwrap_or(8));
            let value = u32::from(byte) >> (8 - within - take) & ((1 << take) - 1);
            out.bits(value, take);
            self.at += u64::from(take);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first_idr(clip: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for unit in annex_b::nal_units(clip) {
            annex_b::push(&mut out, unit);
            if nal_type(unit) == nal::IDR_SLICE {
                break;
            }
        }
        out
    }

    #[test]
    fn the_number_changes_and_nothing_else() {
        let unit = first_idr(include_bytes!("../testdata/x264-baseline.h264"));
        let own = idr_pic_id(&unit).unwrap();
        for id in [0, 1, 2, 6, 7, 1_000, LARGEST] {
            let other = with_idr_pic_id(&unit, id).unwrap();
            assert_eq!(idr_pic_id(&other), Some(id));
            assert_eq!(with_idr_pic_id(&other, own).unwrap(), with_idr_pic_id(&unit, own).unwrap());
        }
        // Written anew, what is in it stays byte for byte.
        assert_eq!(with_idr_pic_id(&unit, own).unwrap(), unit);
        assert_eq!(with_idr_pic_id(&unit, LARGEST + 1), None);
    }

    #[test]
    fn what_cannot_be_renumbered_is_left_alone() {
        for clip in [
            &include_bytes!("../testdata/visitors.h264")[..],
            include_bytes!("../testdata/x264-high-interlaced.h264"),
            b"\0\0\0\x01\x65\x88",
            b"",
        ] {
            assert_eq!(with_idr_pic_id(&first_idr(clip), 1), None);
        }
    }

    proptest! {
        #[test]
        fn damaged_units_never_panic(at in 0..400_usize, byte: u8, id in 0..3_u32) {
            let mut unit = first_idr(include_bytes!("../testdata/x264-baseline.h264"));
            let at = at.min(unit.len() - 1);
            unit[at] = byte;
            let _ = idr_pic_id(&unit);
            let _ = with_idr_pic_id(&unit, id);
        }
    }
}
