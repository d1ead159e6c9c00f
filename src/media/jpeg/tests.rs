use super::*;
use proptest::prelude::*;

// `ffmpeg-*`: ffmpeg 5.1, `-f lavfi -i testsrc=size=68x50 -frames:v 1 -c:v mjpeg -q:v 12 -huffman default`, pixel
// formats yuvj420p, yuvj422p, yuvj444p; `-huffman optimal` for the optimised one.
// `libjpeg-420`, `-422`, `-grey`: GStreamer 1.22, `videotestsrc ! video/x-raw,width=64,height=48 ! jpegenc quality=30`.
// `libjpeg-*-restart`, `-progressive`: a 64x48 gradient through libjpeg-turbo 2.1, `restart_interval` 1 (4:2:0) and
// 2 (4:2:2), `jpeg_simple_progression`.
const FFMPEG_420: &[u8] = include_bytes!("../testdata/ffmpeg-420.jpg");
const FFMPEG_420_OPTIMISED: &[u8] = include_bytes!("../testdata/ffmpeg-420-optimised.jpg");
const FFMPEG_422: &[u8] = include_bytes!("../testdata/ffmpeg-422-chroma-1x2.jpg");
const FFMPEG_444: &[u8] = include_bytes!("../testdata/ffmpeg-444.jpg");
const LIBJPEG_420: &[u8] = include_bytes!("../testdata/libjpeg-420.jpg");
const LIBJPEG_422: &[u8] = include_bytes!("../testdata/libjpeg-422.jpg");
const LIBJPEG_GREY: &[u8] = include_bytes!("../testdata/libjpeg-grey.jpg");
const LIBJPEG_420_RESTART: &[u8] = include_bytes!("../testdata/libjpeg-420-restart.jpg");
const LIBJPEG_422_RESTART: &[u8] = include_bytes!("../testdata/libjpeg-422-restart.jpg");
const PROGRESSIVE: &[u8] = include_bytes!("../testdata/libjpeg-420-progressive.jpg");

fn kind(picture: &[u8]) -> Option<u8> {
    parse(picture).expect("it is whole").rtp_form().map(|form| form.kind)
}

#[test]
fn tells_what_a_decoder_works_on() {
    // 68x50 pixels fill 80x64 in blocks of 16, and 72x64 in ffmpeg's 4:4:4 (1x2 each); 64x48 are whole blocks of any kind.
    for (picture, samples) in [
        (FFMPEG_420, 80 * 64 * 3 / 2),
        (FFMPEG_444, 72 * 64 * 3),
        (LIBJPEG_GREY, 64 * 48),
        (LIBJPEG_422, 64 * 48 * 2),
        (PROGRESSIVE, 64 * 48 * 3 / 2),
    ] {
        let read = parse(picture).expect("it is whole");
        assert_eq!((read.samples(), read.progressive), (samples, picture == PROGRESSIVE));
    }
}

#[test]
fn reads_frame_tables_and_scan() {
    let picture = parse(LIBJPEG_420).expect("it is whole");
    assert!(picture.baseline && picture.standard_huffman);
    assert_eq!((picture.width, picture.height, picture.scans), (64, 48, 1));
    let y = Component { id: 1, horizontal: 2, vertical: 2, quantisation: 0 };
    let chroma = |id| Component { id, horizontal: 1, vertical: 1, quantisation: 1 };
    assert_eq!(picture.components, [y, chroma(2), chroma(3)]);
    assert_eq!(picture.restart_interval, None);
    // Annex K's luminance table begins with 16, 11; quality 30 scales by 166 %.
    let form = picture.rtp_form().expect("4:2:0 with standard tables");
    assert_eq!((form.kind, form.luma.wide, &form.luma.bytes[..2]), (1, false, &[27, 18][..]));
    assert_eq!((form.luma.bytes.len(), form.chroma.bytes.len()), (64, 64));
    assert_eq!(picture.end, LIBJPEG_420.len());
    assert_eq!(LIBJPEG_420[picture.scan.end..], [0xff, 0xd9]);
    assert_eq!(LIBJPEG_420[picture.scan.start - 3..picture.scan.start], [0, 63, 0]);
}

#[test]
fn what_rfc_2435_can_carry() {
    assert_eq!(kind(LIBJPEG_420), Some(1));
    assert_eq!(kind(LIBJPEG_422), Some(0));
    assert_eq!(kind(LIBJPEG_420_RESTART), Some(65));
    assert_eq!(kind(LIBJPEG_422_RESTART), Some(64));
    assert_eq!(kind(FFMPEG_420), Some(1));
}

#[test]
fn what_it_cannot() {
    for picture in [FFMPEG_420_OPTIMISED, FFMPEG_422, FFMPEG_444, LIBJPEG_GREY, PROGRESSIVE] {
        assert_eq!(kind(picture), None);
    }
    assert!(!parse(FFMPEG_420_OPTIMISED).expect("it is whole").standard_huffman);
    assert_eq!(parse(LIBJPEG_GREY).expect("it is whole").components.len(), 1);
    let progressive = parse(PROGRESSIVE).expect("it is whole");
    assert!(!progressive.baseline && progressive.scans > 1);
}

#[test]
fn restart_markers_belong_to_the_scan() {
    let picture = parse(LIBJPEG_420_RESTART).expect("it is whole");
    assert_eq!(picture.restart_interval, Some(1));
    let scan = &LIBJPEG_420_RESTART[picture.scan];
    // Twelve MCUs of 16x16, a marker between each two.
    assert_eq!(scan.windows(2).filter(|pair| matches!(pair, [0xff, 0xd0..=0xd7])).count(), 11);
}

#[test]
fn pictures_without_huffman_tables_use_the_standard_ones() {
    let start = FFMPEG_420.windows(2).position(|pair| pair == [0xff, 0xc4]).expect("it has tables");
    let length = usize::from(u16::from_be_bytes([FFMPEG_420[start + 2], FFMPEG_420[start + 3]]));
    let without = [&FFMPEG_420[..start], &FFMPEG_420[start + 2 + length..]].concat();
    assert_eq!(kind(&without), Some(1));
    let has = |bytes: &[u8]| parse(bytes).expect("it is whole").has_huffman;
    assert_eq!((has(&without), has(FFMPEG_420)), (false, true));
    let with = [&without[..start], &standard_huffman(), &without[start..]].concat();
    let picture = parse(&with).expect("it is whole");
    assert!(picture.standard_huffman && picture.has_huffman);
}

#[test]
fn padding_and_fill_bytes() {
    let picture = parse(LIBJPEG_420).expect("it is whole");
    let (scan, end) = LIBJPEG_420.split_at(picture.scan.end);
    let padded = [scan, &[0xff, 0xff], end, &[0; 7]].concat();
    let read = parse(&padded).expect("fill bytes before a marker and padding after EOI are allowed");
    assert_eq!((read.scan, read.end), (picture.scan, padded.len() - 7));
}

#[test]
fn every_cut_is_noticed() {
    for picture in [LIBJPEG_420_RESTART, PROGRESSIVE] {
        for end in 2..picture.len() {
            let error = parse(&picture[..end]).expect_err("it is cut off");
            assert!(matches!(error, JpegError::Short { .. }), "{error} at {end}");
        }
    }
    assert_eq!(parse(&[0xff]), Err(JpegError::NoStart));
}

#[test]
fn mistakes_name_their_place() {
    assert_eq!(parse(b"GIF89a"), Err(JpegError::NoStart));
    assert_eq!(parse(&[0xff, 0xd8, 0x12, 0x34]), Err(JpegError::NoMarker { at: 2 }));
    assert_eq!(parse(&[0xff, 0xd8, 0xff, 0xdb, 0, 1]), Err(JpegError::Bad { what: "a segment length below 2", at: 2 }));
    let error = parse(&[0xff, 0xd8, 0xff, 0xd9]).expect_err("there is no frame");
    assert_eq!(error.to_string(), "bad JPEG: the end, without a frame header before it at byte 4");
}

proptest! {
    #[test]
    fn damage_never_panics(at in 0_usize..2_000, byte: u8, cut in 0_usize..2_000) {
        for picture in [FFMPEG_420, PROGRESSIVE, LIBJPEG_422_RESTART] {
            let mut damaged = picture.to_vec();
            let at = at % damaged.len();
            damaged[at] = byte;
            damaged.truncate(picture.len() - cut % 2);
            if let Ok(picture) = parse(&damaged) {
                prop_assert!(picture.scan.end <= picture.end && picture.end <= damaged.len());
                picture.rtp_form();
            }
        }
    }
}
