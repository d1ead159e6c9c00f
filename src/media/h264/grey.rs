//! Grey pictures, written by hand: what ffmpeg is given before the first real one (see `republish::rtp`).
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use super::bits;
use h264_reader::nal::sps::{ChromaFormat, FrameMbsFlags, PicOrderCntType, SeqParameterSet};

/// Grey pictures of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GreyPictures {
    /// A picture parameter set of their own, with an id that encoders do not use: a bare NAL unit.
    pub pps: Vec<u8>,
    /// One slice each, which holds the whole picture: a bare NAL unit of a byte a macroblock.
    pub slices: Vec<Vec<u8>>,
}

/// So many pictures for a stream with that sequence parameter set: intra coded, every macroblock predicted from nothing
/// and without residual (ITU-T H.264 sections 7.3.2.2, 7.3.3 and 7.3.5).
///
/// They are no IDR pictures, nothing refers to them, and a decoder that starts at them has not recovered yet: ffmpeg
/// decodes them without a word, does not show them and leaves them out of recordings. An IDR picture has to follow.
///
/// `None` if the sequence parameter set cannot be read or asks for what is not written here: 4:4:4, or pictures over
/// 16 Mpixel.
pub fn grey_pictures(sps: &[u8], count: u8) -> Option<GreyPictures> {
    const PPS_ID: u32 = 255;
    let set = SeqParameterSet::from_bits(bits(sps)).ok()?;
    let monochrome = match set.chroma_info.chroma_format {
        ChromaFormat::Monochrome => true,
        ChromaFormat::YUV420 | ChromaFormat::YUV422 => false,
        ChromaFormat::YUV444 | ChromaFormat::Invalid(_) => return None,
    };
    let pairs = match set.frame_mbs_flags {
        FrameMbsFlags::Frames => None,
        FrameMbsFlags::Fields { mb_adaptive_frame_field_flag } => Some(mb_adaptive_frame_field_flag),
    };
    let rows = if pairs.is_some() { 2 } else { 1 };
    let macroblocks = (u64::from(set.pic_width_in_mbs_minus1) + 1)
        .checked_mul(u64::from(set.pic_height_in_map_units_minus1) + 1)?
        .checked_mul(rows)
        .filter(|count| *count <= 1 << 16)?;

    let mut pps = Writer::new(0x68);
    pps.ue(PPS_ID);
    pps.ue(set.seq_parameter_set_id.id().into());
    pps.bits(0b00, 2); // CAVLC; no bottom field order
    (0..3).for_each(|_| pps.ue(0)); // one slice group; one reference in each list
    pps.bits(0b000, 3); // no weights
    (0..3).for_each(|_| pps.ue(0)); // quantisers
    pps.bits(0b100, 3); // deblocking is controlled; intra prediction is not constrained; no redundant pictures

    let slice = |number: u8| {
        let mut slice = Writer::new(0x01);
        slice.ue(0);
        slice.ue(7); // nothing but I slices
        slice.ue(PPS_ID);
        slice.bits(0, u32::from(set.log2_max_frame_num_minus4) + 4);
        if pairs.is_some() {
            slice.bits(0, 1); // a frame
        }
        match set.pic_order_cnt {
            PicOrderCntType::TypeZero { log2_max_pic_order_cnt_lsb_minus4 } => {
                // Frames count in steps of two, and four bits are the fewest: seven pictures.
                slice.bits(u32::from(number % 8) * 2, u32::from(log2_max_pic_order_cnt_lsb_minus4) + 4);
            }
            PicOrderCntType::TypeOne { delta_pic_order_always_zero_flag: false, .. } => slice.ue(0),
            PicOrderCntType::TypeOne { .. } | PicOrderCntType::TypeTwo => {}
        }
        slice.ue(0); // quantiser
        slice.ue(1); // no deblocking
        for macroblock in 0..macroblocks {
            if pairs == Some(true) && macroblock % 2 == 0 {
                slice.bits(0, 1); // a frame macroblock pair
            }
            slice.ue(3); // I_16x16_2_0_0
            if !monochrome {
                slice.ue(0); // chroma is predicted the same way
            }
            slice.ue(0); // the same quantiser
            slice.bits(1, 1); // no DC coefficients
        }
        slice.finish()
    };
    Some(GreyPictures { pps: pps.finish(), slices: (0..count).map(slice).collect() })
}

/// Writes a NAL unit.
pub(super) struct Writer {
    nal: Vec<u8>,
    byte: u8,
    free: u32,
}

impl Writer {
    pub(super) fn new(header: u8) -> Self {
        Self { nal: vec![header], byte: 0, free: 8 }
    }

    /// The lowest `count` bits, 32 at most.
    pub(super) fn bits(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            self.free -= 1;
            self.byte |= ((value >> bit & 1) as u8) << self.free;
            if self.free == 0 {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        // Emulation prevention (section 7.4.1).
        if self.byte <= 3 && self.nal.ends_with(&[0, 0]) {
            self.nal.push(3);
        }
        self.nal.push(self.byte);
        (self.byte, self.free) = (0, 8);
    }

    /// Exp-Golomb (section 9.1).
    pub(super) fn ue(&mut self, value: u32) {
        let length = (value + 1).ilog2();
        self.bits(0, length);
        self.bits(value + 1, length + 1);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bits(1, 1);
        if self.free < 8 {
            self.flush();
        }
        self.nal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::h264::Scanner;
    use crate::media::{annex_b, h264};

    #[test]
    fn they_are_pictures_but_no_start() {
        for clip in [
            &include_bytes!("../testdata/visitors.h264")[..],
            include_bytes!("../testdata/x264-high-interlaced.h264"),
            include_bytes!("../testdata/x264-main-bframes-open-gop.h264"),
        ] {
            let sps = annex_b::nal_units(clip).find(|nal| nal[0] & 0x1f == 7).unwrap();
            let GreyPictures { pps, slices } = h264::grey_pictures(sps, 3).unwrap();
            assert_eq!(slices.len(), 3);
            let slice = &slices[2];
            let mut unit = Vec::new();
            for nal in [sps, &pps, slice] {
                annex_b::push(&mut unit, nal);
            }
            // Nothing in it looks like a start code.
            assert_eq!(annex_b::nal_units(&unit).count(), 3);
            let scan = Scanner::new().scan(&unit);
            assert!(scan.picture);
            let mut alone = Vec::new();
            annex_b::push(&mut alone, slice);
            assert!(!Scanner::new().scan(&alone).random_access);
        }
    }

    #[test]
    fn what_is_no_parameter_set_gives_none() {
        assert!(grey_pictures(&[], 1).is_none());
        assert!(grey_pictures(&[0x67, 1, 2, 3], 1).is_none());
    }
}
