//! The sequence parameter set (ITU-T H.265 section 7.3.2.2), as far as somebody wants to know it.
//!
//! Read by hand, with h264-reader's bit reader: of the crates that read it, scuffle-h265 0.2 subtracts what it read
//! without looking and refuses a whole set for one value out of range, hevc_parser 0.6 keeps sizes to itself.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use super::super::h264::frame_rate;
use super::{Bits, VideoFormat, bits};
use h264_reader::rbsp::{BitRead, BitReaderError};

/// The largest decoded picture buffer, and so the largest reorder depth (section A.4.2).
const MAX_DEPTH: u32 = 16;
/// Sample aspect ratios by `aspect_ratio_idc` from 1 on (table E.1).
const ASPECTS: [(u16, u16); 16] = [
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];

/// Why a set cannot be read on.
#[derive(Debug)]
struct Unreadable;

impl From<BitReaderError> for Unreadable {
    fn from(_: BitReaderError) -> Self {
        Self
    }
}

/// The set's id, whatever follows it.
pub(super) fn id(set: &[u8]) -> Option<u32> {
    let mut bits = bits(set);
    read_id(&mut bits).ok().map(|(id, _)| id)
}

/// What the set says. Where it cannot be read behind size and reorder depth, shape and rate stay unknown.
pub(super) fn read(set: &[u8]) -> Option<VideoFormat> {
    let mut bits = bits(set);
    let (mut format, head) = read_head(&mut bits).ok()?;
    if let Ok(vui) = skip_to_vui(&mut bits, &head) {
        format.pixel_aspect = (1, 1);
        if vui {
            // Cut off behind the aspect, what was read of it still holds.
            let _ = read_vui(&mut bits, &mut format);
        }
    }
    Some(format)
}

/// What the rest of the set depends on.
struct Head {
    log2_max_pic_order_cnt_lsb: u32,
}

/// Up to the id; gives the id and `sps_max_sub_layers_minus1`.
fn read_id(bits: &mut Bits<'_>) -> Result<(u32, u32), Unreadable> {
    bits.skip(4, "sps_video_parameter_set_id")?;
    let sub_layers: u32 = bits.read(3, "sps_max_sub_layers_minus1")?;
    bits.skip(1, "sps_temporal_id_nesting_flag")?;
    skip_profile_tier_level(bits, sub_layers)?;
    let id = bits.read_ue("sps_seq_parameter_set_id")?;
    if id < 16 { Ok((id, sub_layers)) } else { Err(Unreadable) }
}

fn read_head(bits: &mut Bits<'_>) -> Result<(VideoFormat, Head), Unreadable> {
    let (_, sub_layers) = read_id(bits)?;
    let chroma_format = bits.read_ue("chroma_format_idc")?;
    if chroma_format == 3 {
        bits.skip(1, "separate_colour_plane_flag")?;
    }
    // Table 6-1.
    let (sub_width, sub_height) = match chroma_format {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let mut width = i64::from(bits.read_ue("pic_width_in_luma_samples")?);
    let mut height = i64::from(bits.read_ue("pic_height_in_luma_samples")?);
    if bits.read_bool("conformance_window_flag")? {
        for name in ["conf_win_left_offset", "conf_win_right_offset"] {
            width -= sub_width * i64::from(bits.read_ue(name)?);
        }
        for name in ["conf_win_top_offset", "conf_win_bottom_offset"] {
            height -= sub_height * i64::from(bits.read_ue(name)?);
        }
    }
    bits.read_ue("bit_depth_luma_minus8")?;
    bits.read_ue("bit_depth_chroma_minus8")?;
    let log2_max_pic_order_cnt_lsb = bits.read_ue("log2_max_pic_order_cnt_lsb_minus4")?.saturating_add(4);
    // Those of the highest sub-layer come last, and are the only ones without the flag.
    let all = bits.read_bool("sps_sub_layer_ordering_info_present_flag")?;
    let mut reorder = 0;
    for _ in 0..if all { sub_layers + 1 } else { 1 } {
        bits.read_ue("sps_max_dec_pic_buffering_minus1")?;
        reorder = bits.read_ue("sps_max_num_reorder_pics")?;
        bits.read_ue("sps_max_latency_increase_plus1")?;
    }
    let size = |pixels: i64| u32::try_from(pixels).ok().filter(|&pixels| pixels > 0).ok_or(Unreadable);
    let format = VideoFormat {
        width: size(width)?,
        height: size(height)?,
        reorder_depth: Some(reorder.min(MAX_DEPTH) as u8),
        ..VideoFormat::default()
    };
    Ok((format, Head { log2_max_pic_order_cnt_lsb }))
}

/// Section 7.3.3, with a general profile.
fn skip_profile_tier_level(bits: &mut Bits<'_>, sub_layers: u32) -> Result<(), Unreadable> {
    bits.skip(88, "general profile")?;
    bits.skip(8, "general_level_idc")?;
    let mut to_skip = 0;
    for _ in 0..sub_layers {
        to_skip += if bits.read_bool("sub_layer_profile_present_flag")? { 88 } else { 0 };
        to_skip += if bits.read_bool("sub_layer_level_present_flag")? { 8 } else { 0 };
    }
    if sub_layers > 0 {
        bits.skip(2 * 8_u32.saturating_sub(sub_layers), "reserved_zero_2bits")?;
    }
    bits.skip(to_skip, "sub-layer profiles and levels")?;
    Ok(())
}

/// From the coding block sizes on; says whether VUI follows.
fn skip_to_vui(bits: &mut Bits<'_>, head: &Head) -> Result<bool, Unreadable> {
    for name in [
        "log2_min_luma_coding_block_size_minus3",
        "log2_diff_max_min_luma_coding_block_size",
        "log2_min_luma_transform_block_size_minus2",
        "log2_diff_max_min_luma_transform_block_size",
        "max_transform_hierarchy_depth_inter",
        "max_transform_hierarchy_depth_intra",
    ] {
        bits.read_ue(name)?;
    }
    if bits.read_bool("scaling_list_enabled_flag")? && bits.read_bool("sps_scaling_list_data_present_flag")? {
        skip_scaling_lists(bits)?;
    }
    bits.skip(2, "amp_enabled_flag, sample_adaptive_offset_enabled_flag")?;
    if bits.read_bool("pcm_enabled_flag")? {
        bits.skip(8, "pcm_sample_bit_depth")?;
        bits.read_ue("log2_min_pcm_luma_coding_block_size_minus3")?;
        bits.read_ue("log2_diff_max_min_pcm_luma_coding_block_size")?;
        bits.skip(1, "pcm_loop_filter_disabled_flag")?;
    }
    skip_short_term_ref_pic_sets(bits)?;
    if bits.read_bool("long_term_ref_pics_present_flag")? {
        let count = at_most(bits.read_ue("num_long_term_ref_pics_sps")?, 32)?;
        let lsb = at_most(head.log2_max_pic_order_cnt_lsb, 16)?;
        bits.skip(count * (lsb + 1), "lt_ref_pic_poc_lsb_sps, used_by_curr_pic_lt_sps_flag")?;
    }
    bits.skip(2, "sps_temporal_mvp_enabled_flag, strong_intra_smoothing_enabled_flag")?;
    Ok(bits.read_bool("vui_parameters_present_flag")?)
}

/// Section 7.3.4.
fn skip_scaling_lists(bits: &mut Bits<'_>) -> Result<(), Unreadable> {
    for (size, lists, coefficients) in [(0, 6, 16), (1, 6, 64), (2, 6, 64), (3, 2, 64)] {
        for _ in 0..lists {
            if !bits.read_bool("scaling_list_pred_mode_flag")? {
                bits.read_ue("scaling_list_pred_matrix_id_delta")?;
                continue;
            }
            if size > 1 {
                bits.read_se("scaling_list_dc_coef_minus8")?;
            }
            for _ in 0..coefficients {
                bits.read_se("scaling_list_delta_coef")?;
            }
        }
    }
    Ok(())
}

/// Sections 7.3.7 and 7.4.8. How long a set is depends on how many pictures the one before it comes to.
fn skip_short_term_ref_pic_sets(bits: &mut Bits<'_>) -> Result<(), Unreadable> {
    // Distances to the pictures of a set: those before, nearest first, then those after, nearest first.
    let mut set: Vec<i64> = Vec::new();
    for index in 0..at_most(bits.read_ue("num_short_term_ref_pic_sets")?, 64)? {
        if index > 0 && bits.read_bool("inter_ref_pic_set_prediction_flag")? {
            let back = bits.read_bool("delta_rps_sign")?;
            let distance = i64::from(bits.read_ue("abs_delta_rps_minus1")?) + 1;
            let moved = if back { -distance } else { distance };
            let mut next = Vec::new();
            for reference in set.iter().copied().chain([0]) {
                let used = bits.read_bool("used_by_curr_pic_flag")? || bits.read_bool("use_delta_flag")?;
                next.extend(Some(reference + moved).filter(|&distance| used && distance != 0));
            }
            next.sort_unstable_by_key(|&distance| (distance > 0, distance.abs()));
            set = next;
        } else {
            let before = at_most(bits.read_ue("num_negative_pics")?, 16)?;
            let after = at_most(bits.read_ue("num_positive_pics")?, 16)?;
            set.clear();
            for (count, sign) in [(before, -1), (after, 1)] {
                let mut distance = 0;
                for _ in 0..count {
                    distance += sign * (i64::from(bits.read_ue("delta_poc_minus1")?) + 1);
                    bits.skip(1, "used_by_curr_pic_flag")?;
                    set.push(distance);
                }
            }
        }
        at_most(set.len() as u32, 32)?;
    }
    Ok(())
}

/// Section E.2.1 up to the timing.
fn read_vui(bits: &mut Bits<'_>, format: &mut VideoFormat) -> Result<(), Unreadable> {
    if bits.read_bool("aspect_ratio_info_present_flag")? {
        let aspect = match bits.read::<u8>(8, "aspect_ratio_idc")? {
            255 => (bits.read(16, "sar_width")?, bits.read(16, "sar_height")?),
            code => ASPECTS.get(usize::from(code).wrapping_sub(1)).copied().unwrap_or_default(),
        };
        if aspect.0 != 0 && aspect.1 != 0 {
            format.pixel_aspect = aspect;
        }
    }
    if bits.read_bool("overscan_info_present_flag")? {
        bits.skip(1, "overscan_appropriate_flag")?;
    }
    if bits.read_bool("video_signal_type_present_flag")? {
        bits.skip(4, "video_format, video_full_range_flag")?;
        if bits.read_bool("colour_description_present_flag")? {
            bits.skip(24, "colour description")?;
        }
    }
    if bits.read_bool("chroma_loc_info_present_flag")? {
        bits.read_ue("chroma_sample_loc_type_top_field")?;
        bits.read_ue("chroma_sample_loc_type_bottom_field")?;
    }
    bits.skip(3, "neutral_chroma_indication_flag, field_seq_flag, frame_field_info_present_flag")?;
    if bits.read_bool("default_display_window_flag")? {
        for name in ["left", "right", "top", "bottom"] {
            bits.read_ue(name)?;
        }
    }
    if bits.read_bool("vui_timing_info_present_flag")? {
        let num_units_in_tick = bits.read(32, "vui_num_units_in_tick")?;
        let time_scale = bits.read(32, "vui_time_scale")?;
        format.frame_rate = frame_rate(time_scale, num_units_in_tick, 1);
    }
    Ok(())
}

fn at_most(value: u32, limit: u32) -> Result<u32, Unreadable> {
    if value <= limit { Ok(value) } else { Err(Unreadable) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes a set bit by bit.
    #[derive(Default)]
    struct Writer(Vec<bool>);

    impl Writer {
        fn u(&mut self, bits: u32, value: u64) -> &mut Self {
            self.0.extend((0..bits).rev().map(|bit| value >> bit & 1 == 1));
            self
        }

        fn ue(&mut self, value: u64) -> &mut Self {
            let bits = (value + 1).ilog2();
            self.u(bits, 0).u(bits + 1, value + 1)
        }

        fn all(&mut self, values: &[u64]) -> &mut Self {
            values.iter().for_each(|&value| _ = self.ue(value));
            self
        }

        /// The NAL unit, with trailing bits and emulation prevention.
        fn nal(&mut self) -> Vec<u8> {
            self.u(1, 1);
            let mut nal = vec![0x42, 0x01];
            for bits in self.0.chunks(8) {
                let byte = bits.iter().enumerate().fold(0, |byte, (at, &bit)| byte | u8::from(bit) << (7 - at));
                if nal.ends_with(&[0, 0]) && byte <= 3 {
                    nal.push(3);
                }
                nal.push(byte);
            }
            nal
        }
    }

    /// A set with every optional part before the timing: three sub-layers, scaling lists, PCM, predicted reference
    /// picture sets, long-term pictures. ffmpeg 5.1's `trace_headers` reads the same values from it.
    fn every_part() -> Writer {
        let mut w = Writer::default();
        w.u(4, 0).u(3, 2).u(1, 1);
        w.u(8, 1).u(32, 0x6000_0000).u(48, 0x9000_0000_0000).u(8, 93);
        // Sub-layer 0 with profile and level, sub-layer 1 with its level only.
        w.u(2, 0b11).u(2, 0b01).u(12, 0).u(8, 1).u(32, 0x6000_0000).u(48, 0x9000_0000_0000).u(8, 60).u(8, 63);
        w.all(&[0, 1, 1928, 1096]);
        // Conformance window: 4 + 4 pixels in width, 2 + 14 in height.
        w.u(1, 1).all(&[2, 2, 1, 7, 0, 0, 4]);
        w.u(1, 1).all(&[1, 0, 0, 2, 1, 0, 4, 2, 0]);
        w.all(&[0, 3, 0, 3, 1, 1]);
        w.u(1, 1).u(1, 1);
        for (size, lists, coefficients) in [(0, 6, 16), (1, 6, 64), (2, 6, 64), (3, 2, 64)] {
            for list in 0..lists {
                if list % 2 == 1 {
                    w.u(1, 0).ue(0);
                    continue;
                }
                w.u(1, 1).ue(0);
                // The first of larger lists was the DC coefficient.
                (0..if size > 1 { coefficients } else { coefficients - 1 }).for_each(|at| _ = w.ue(1 + at % 2));
            }
        }
        w.u(1, 1).u(1, 1);
        w.u(1, 1).u(4, 7).u(4, 7).all(&[0, 1]).u(1, 0);
        // Four sets: -1 -3 | +2; that moved by -1, of which +1 is left out; that moved by +2, where -2 comes to 0; none.
        w.ue(4);
        w.all(&[2, 1]).ue(0).u(1, 1).ue(1).u(1, 1).ue(1).u(1, 1);
        w.u(1, 1).u(1, 1).ue(0).u(1, 1).u(1, 1).u(2, 0b00).u(1, 1);
        w.u(1, 1).u(1, 0).ue(1).u(2, 0b01).u(1, 1).u(1, 1).u(1, 1);
        w.u(1, 0).all(&[0, 0]);
        w.u(1, 1).ue(2).u(8, 17).u(1, 1).u(8, 99).u(1, 0);
        w.u(1, 1).u(1, 1);
        w
    }

    /// VUI with every part up to the timing.
    fn with_vui(mut w: Writer) -> Writer {
        w.u(1, 1).u(1, 1).u(8, 255).u(16, 3).u(16, 4);
        w.u(1, 1).u(1, 0);
        w.u(1, 1).u(3, 5).u(1, 0).u(1, 1).u(24, 0x01_01_01);
        w.u(1, 1).all(&[0, 0]);
        w.u(3, 0).u(1, 1).all(&[0, 0, 0, 0]);
        w.u(1, 1).u(32, 1_001).u(32, 24_000).u(1, 0).u(1, 0).u(1, 0).u(1, 0);
        w
    }

    #[test]
    fn every_optional_part_is_passed_over() {
        let set = with_vui(every_part()).nal();
        assert_eq!(id(&set), Some(0));
        let format = read(&set).expect("it is whole");
        assert_eq!((format.width, format.height, format.pixel_aspect), (1920, 1080, (3, 4)));
        assert_eq!((format.frame_rate, format.reorder_depth), (Some(24_000.0 / 1_001.0), Some(2)));
    }

    #[test]
    fn without_vui_pixels_are_square() {
        let set = every_part().u(2, 0).nal();
        let format = read(&set).expect("it is whole");
        assert_eq!((format.width, format.pixel_aspect, format.frame_rate), (1920, (1, 1), None));
    }

    #[test]
    fn a_set_cut_off_behind_its_size_gives_the_size() {
        let set = with_vui(every_part()).nal();
        let known: Vec<_> = (0..set.len()).filter_map(|end| read(&set[..end])).collect();
        assert!(known.len() > 20 && known.len() < set.len() - 20);
        for format in known {
            assert_eq!((format.width, format.height, format.reorder_depth), (1920, 1080, Some(2)));
            assert!(matches!(format.pixel_aspect, (0, 0) | (1, 1) | (3, 4)));
        }
    }

    #[test]
    fn a_window_larger_than_the_picture_is_refused() {
        let mut w = Writer::default();
        w.u(8, 1).u(48, 0).u(48, 0).all(&[0, 1, 64, 64]).u(1, 1).all(&[16, 16, 0, 0, 0, 0, 4]).u(1, 0).all(&[1, 0, 0]);
        assert!(read(&w.nal()).is_none());
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0_usize..300, byte: u8) {
            let mut set = with_vui(every_part()).nal();
            let at = at % set.len();
            set[at] = byte;
            if let Some(format) = read(&set) {
                prop_assert!(format.width > 0 && format.reorder_depth <= Some(16));
            }
        }
    }
}
