use super::super::testing;
use super::*;
use crate::ingest::testing::scans;
use turbojpeg::Colorspace;

/// A picture with something different in each corner, so that a turn shows.
fn rgb(width: usize, height: usize) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let wave = ((x * 2 + y) % 64) as u8;
            pixels.extend([(x * 255 / width) as u8, (y * 255 / height) as u8, 64 + wave]);
        }
    }
    pixels
}

fn coded(width: usize, height: usize, subsamp: Subsamp, set: impl FnOnce(&mut Compressor)) -> Bytes {
    let mut compressor = Compressor::new().unwrap();
    compressor.set_quality(92).unwrap();
    compressor.set_subsamp(subsamp).unwrap();
    set(&mut compressor);
    let pixels = rgb(width, height);
    let image = Image { pixels: pixels.as_slice(), width, pitch: width * 3, height, format: PixelFormat::RGB };
    compressor.compress_to_vec(image).unwrap().into()
}

fn decoded(bytes: &[u8]) -> (Vec<u8>, usize, usize) {
    let image = turbojpeg::decompress(bytes, PixelFormat::RGB).unwrap();
    (image.pixels, image.width, image.height)
}

/// Peak signal to noise ratio in dB.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let error: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0_f64.powi(2) / (error / a.len() as f64).max(1e-9)).log10()
}

#[test]
fn what_fits_is_not_touched() {
    for subsamp in [Subsamp::Sub2x2, Subsamp::Sub2x1] {
        let bytes = coded(64, 48, subsamp, |_| {});
        let checked = check(bytes.clone(), Rotation::None).unwrap();
        assert_eq!(checked, Checked { bytes, width: 64, height: 48, treatment: Treatment::Untouched });
    }
}

#[test]
fn padding_behind_the_picture_is_cut_off() {
    let bytes = coded(64, 48, Subsamp::Sub2x2, |_| {});
    let padded: Bytes = [&bytes[..], &[0; 40]].concat().into();
    assert_eq!(check(padded, Rotation::None).unwrap().bytes, bytes);
}

#[test]
fn optimised_tables_and_progressive_scans_keep_their_pixels() {
    for subsamp in [Subsamp::Sub2x2, Subsamp::Sub2x1] {
        let optimised = coded(80, 64, subsamp, |compressor| compressor.set_optimize(true).unwrap());
        let progressive = coded(80, 64, subsamp, |compressor| compressor.set_progressive(true).unwrap());
        for bytes in [optimised, progressive] {
            let checked = check(bytes.clone(), Rotation::None).unwrap();
            assert_eq!(checked.treatment, Treatment::Lossless);
            assert!(jpeg::parse(&checked.bytes).unwrap().rtp_form().is_some());
            assert_eq!(decoded(&checked.bytes), decoded(&bytes));
        }
    }
}

/// Sizes that matter: whole blocks, halves of them, neither, and more than RFC 2435 can say.
const SIZES: [(usize, usize); 6] = [(64, 48), (640, 480), (644, 482), (17, 9), (1, 1), (2056, 24)];

/// What is published has the pixels of what came, to the last bit.
fn lossless(bytes: &Bytes, expected: Treatment, of: &Bytes) {
    let checked = check(bytes.clone(), Rotation::None).unwrap();
    assert_eq!(checked.treatment, expected);
    let read = jpeg::parse(&checked.bytes).unwrap();
    assert!(read.rtp_form().is_some() && read.has_huffman && read.end == checked.bytes.len());
    assert!((read.width, read.height) == (checked.width, checked.height));
    assert!(decoded(&checked.bytes) == decoded(of));
    // And planes, where no colour conversion hides anything.
    let planes = |bytes: &[u8]| turbojpeg::decompress_to_yuv(bytes).unwrap().pixels;
    assert!(planes(&checked.bytes) == planes(of));
    if expected == Treatment::Untouched {
        assert_eq!(checked.bytes.as_ptr(), bytes.as_ptr(), "not even copied");
    }
}

fn without_tables(bytes: &Bytes) -> Bytes {
    let mut left = bytes.to_vec();
    while let Some(at) = left.windows(2).position(|pair| pair == [0xff, 0xc4]) {
        let length = usize::from(u16::from_be_bytes([left[at + 2], left[at + 3]]));
        left.drain(at..at + 2 + length);
    }
    left.into()
}

#[test]
fn every_lossless_way_is_bit_exact_at_every_size() {
    for (width, height) in SIZES {
        for subsamp in [Subsamp::Sub2x2, Subsamp::Sub2x1] {
            let plain = coded(width, height, subsamp, |_| {});
            lossless(&plain, Treatment::Untouched, &plain);
            lossless(&without_tables(&plain), Treatment::Lossless, &plain);
            lossless(&plain.slice(..plain.len() - 2), Treatment::Lossless, &plain);
            let bare = without_tables(&plain);
            lossless(&bare.slice(..bare.len() - 2), Treatment::Lossless, &plain);
            let optimised = coded(width, height, subsamp, |compressor| compressor.set_optimize(true).unwrap());
            lossless(&optimised, Treatment::Lossless, &plain);
            let progressive = coded(width, height, subsamp, |compressor| compressor.set_progressive(true).unwrap());
            lossless(&progressive, Treatment::Lossless, &plain);
        }
    }
    for restarts in [
        &include_bytes!("../../media/testdata/libjpeg-420-restart.jpg")[..],
        &include_bytes!("../../media/testdata/libjpeg-422-restart.jpg")[..],
    ] {
        let bytes = Bytes::from_static(restarts);
        lossless(&bytes, Treatment::Untouched, &bytes);
    }
    // 4:2:2 as ffmpeg writes it, and two more that have to be coded anew.
    for other in [
        &include_bytes!("../../media/testdata/ffmpeg-422-chroma-1x2.jpg")[..],
        &include_bytes!("../../media/testdata/ffmpeg-444.jpg")[..],
        &include_bytes!("../../media/testdata/libjpeg-grey.jpg")[..],
    ] {
        let checked = check(Bytes::from_static(other), Rotation::None).unwrap();
        assert_eq!(checked.treatment, Treatment::Recoded);
        assert!(jpeg::parse(&checked.bytes).unwrap().rtp_form().is_some());
    }
}

#[test]
fn a_picture_that_lacks_more_than_its_end_mark_is_refused() {
    let bytes = coded(320, 240, Subsamp::Sub2x2, |_| {});
    let picture = jpeg::parse(&bytes).unwrap();
    for missing in [6, 40, 1_000] {
        let cut = bytes.slice(..picture.scan.end - missing);
        assert!(matches!(check(cut, Rotation::None), Err(Rejected::Markers(JpegError::Short { .. }))), "{missing}");
    }
}

#[test]
fn what_exif_says_of_the_orientation_is_followed() {
    let upright = coded(96, 64, Subsamp::Sub2x2, |_| {});
    for (value, turn) in
        [(1, Rotation::None), (3, Rotation::Half), (6, Rotation::Quarter), (8, Rotation::ThreeQuarters)]
    {
        let marked: Bytes = [&upright[..2], &exif::tests::segment(value, true), &upright[2..]].concat().into();
        for wanted in [Rotation::None, Rotation::Quarter] {
            let checked = check(marked.clone(), wanted).unwrap();
            let expected = check(upright.clone(), wanted.after(turn)).unwrap();
            assert_eq!(decoded(&checked.bytes), decoded(&expected.bytes), "{value} and {wanted:?}");
            // Who shows it must not turn it again.
            let again = exif::rotation(&checked.bytes);
            assert_eq!(again, Rotation::None, "{value} and {wanted:?}");
        }
    }
}

#[test]
fn missing_tables_are_put_in() {
    let whole = coded(64, 48, Subsamp::Sub2x2, |_| {});
    let mut without = whole.to_vec();
    while let Some(start) = without.windows(2).position(|pair| pair == [0xff, 0xc4]) {
        let length = usize::from(u16::from_be_bytes([without[start + 2], without[start + 3]]));
        without.drain(start..start + 2 + length);
    }
    let checked = check(without.into(), Rotation::None).unwrap();
    assert_eq!(checked.treatment, Treatment::Lossless);
    assert!(jpeg::parse(&checked.bytes).unwrap().has_huffman);
    assert_eq!(decoded(&checked.bytes), decoded(&whole));
}

#[test]
fn samplings_that_rfc_2435_does_not_know_are_coded_anew() {
    let full = coded(80, 64, Subsamp::None, |_| {});
    let grey = coded(80, 64, Subsamp::Gray, |compressor| compressor.set_colorspace(Colorspace::Gray).unwrap_or(()));
    for bytes in [full, grey] {
        let checked = check(bytes.clone(), Rotation::None).unwrap();
        assert_eq!(checked.treatment, Treatment::Recoded);
        assert!(jpeg::parse(&checked.bytes).unwrap().rtp_form().is_some());
        let ((new, ..), (old, ..)) = (decoded(&checked.bytes), decoded(&bytes));
        assert!(psnr(&new, &old) > 25.0, "{}", psnr(&new, &old));
    }
}

#[test]
fn pictures_are_turned_clockwise_and_without_loss_where_the_size_allows() {
    let bytes = coded(96, 64, Subsamp::Sub2x2, |_| {});
    let (pixels, width, height) = decoded(&bytes);
    for rotation in [Rotation::Quarter, Rotation::Half, Rotation::ThreeQuarters] {
        let checked = check(bytes.clone(), rotation).unwrap();
        assert_eq!(checked.treatment, Treatment::Lossless, "{rotation:?}");
        let (turned, new_width, new_height) = decoded(&checked.bytes);
        assert_eq!((usize::from(checked.width), usize::from(checked.height)), (new_width, new_height));
        let (expected, expected_width, expected_height) = turn(pixels.clone(), width, height, rotation);
        assert_eq!((new_width, new_height), (expected_width, expected_height));
        // The same coefficients, but the decoder's chroma upsampling is not symmetric to the last unit.
        assert!(psnr(&turned, &expected) > 40.0, "{rotation:?}: {}", psnr(&turned, &expected));
        let back = match rotation {
            Rotation::Quarter => Rotation::ThreeQuarters,
            Rotation::ThreeQuarters => Rotation::Quarter,
            other => other,
        };
        let again = check(checked.bytes, back).unwrap();
        assert_eq!(decoded(&again.bytes), (pixels.clone(), width, height), "there and back is the same picture");
    }
}

#[test]
fn other_sizes_are_turned_whole_and_said_to_lose() {
    let bytes = coded(100, 60, Subsamp::Sub2x2, |_| {});
    let (pixels, width, height) = decoded(&bytes);
    let checked = check(bytes, Rotation::Quarter).unwrap();
    assert_eq!((checked.width, checked.height, checked.treatment), (60, 100, Treatment::Recoded));
    let (turned, ..) = decoded(&checked.bytes);
    let (expected, ..) = turn(pixels, width, height, Rotation::Quarter);
    assert!(psnr(&turned, &expected) > 25.0);
}

#[test]
fn broken_pictures_are_refused_with_words() {
    let bytes = coded(320, 240, Subsamp::Sub2x2, |_| {});
    // Cut inside the scan, with an EOI put behind it: the markers are right, the coefficients are not there.
    let torn: Bytes = [&bytes[..bytes.len() / 2], &[0xff, 0xd9]].concat().into();
    assert!(matches!(check(torn, Rotation::None), Err(Rejected::Undecodable(_))));
    assert!(matches!(check(bytes.slice(..bytes.len() / 2), Rotation::None), Err(Rejected::Markers(_))));
    assert!(matches!(check(Bytes::from_static(b"GIF89a"), Rotation::None), Err(Rejected::Markers(JpegError::NoStart))));
    let mut huge = bytes.to_vec();
    let frame = huge.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    huge[frame + 5..frame + 9].fill(0xff);
    let refused = check(huge.into(), Rotation::None);
    assert!(matches!(refused, Err(Rejected::TooLarge { width: 0xffff, height: 0xffff })), "{refused:?}");
}

#[test]
fn no_side_is_longer_than_encoders_take() {
    let longest = usize::from(LONGEST_SIDE);
    assert!(check(testing::picture(16, longest, 90), Rotation::None).is_ok());
    for (width, height) in [(16, longest + 16), (longest + 16, 16)] {
        let refused = check(testing::picture(width, height, 90), Rotation::None);
        assert!(matches!(refused, Err(Rejected::TooLarge { .. })), "{refused:?}");
    }
}

#[test]
fn pictures_that_are_cheap_to_send_and_dear_to_decode_are_refused_before() {
    let refused = |bytes: Bytes| check(bytes, Rotation::None).unwrap_err();
    let dear = scans(0xc2, 1, 2048, 2048, 250);
    assert!(dear.len() < 25_000, "{}", dear.len());
    let error = refused(dear);
    assert!(matches!(error, Rejected::TooManyScans { scans: 250, width: 2048, height: 2048 }), "{error:?}");
    assert_eq!(error.to_string(), "250 scans are too many for a picture of 2048x2048 pixels");
    // Few scans of many pixels, and one more of few pixels than any encoder makes.
    for (components, width, height, count) in [(1, 2048, 2048, 61), (3, 2048, 2048, 21), (1, 16, 16, 65)] {
        let error = refused(scans(0xc2, components, width, height, count));
        assert!(matches!(error, Rejected::TooManyScans { .. }), "{width}x{height}: {error:?}");
    }
    // Each component of a sequential picture comes once.
    for (frame, components, count) in [(0xc0, 1, 2), (0xc0, 3, 4), (0xc1, 3, 200)] {
        let error = refused(scans(frame, components, 64, 64, count));
        assert!(matches!(error, Rejected::TooManyScans { .. }), "{frame:x}: {error:?}");
    }
    // Two bytes for each sample, even if a scan shows a part of them only.
    for (frame, components) in [(0xc2, 1), (0xc2, 3), (0xc0, 3)] {
        let (width, height) = if components == 1 { (5_120, 5_120) } else { (3_840, 2_192) };
        let error = refused(scans(frame, components, width, height, 1));
        assert!(matches!(error, Rejected::TooLargeInScans { .. }), "{frame:x}: {error:?}");
    }
    let error = refused(scans(0xc0, 1, 7_680, 4_400, 1));
    assert!(matches!(error, Rejected::TooLarge { width: 7_680, height: 4_400 }), "{error:?}");
}

#[test]
fn as_many_scans_as_a_picture_may_have_are_read() {
    for (frame, count) in [(0xc2, 64), (0xc0, 1)] {
        let checked = check(scans(frame, 1, 64, 48, count), Rotation::None).unwrap();
        assert_eq!((checked.width, checked.height, checked.treatment), (64, 48, Treatment::Recoded));
        assert!(decoded(&checked.bytes).0.iter().all(|part| *part > 240), "white");
    }
    // The largest of each kind are as large as cameras' pictures.
    let cost = |frame, components, width, height, count| {
        cost(&jpeg::parse(&scans(frame, components, width, height, count)).unwrap())
    };
    assert!(cost(0xc2, 3, 3_840, 2_160, 10).is_ok() && cost(0xc2, 1, 5_000, 4_000, 6).is_ok());
    assert!(cost(0xc0, 1, 7_680, 4_320, 1).is_ok() && cost(0xc0, 3, 1_920, 1_080, 3).is_ok());
}

/// The only thread of a runtime goes on with its other tasks while a large picture waits for memory and is decoded.
#[test]
fn a_large_picture_keeps_nobody_waiting() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let large = scans(0xc0, 1, 3_200, 2_800, 1);
    let (holds, held) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        apart::within(usize::MAX, || {
            holds.send(()).unwrap();
            // Errs once the test has failed.
            released.recv().is_ok()
        })
    });
    held.recv().unwrap();
    let checked = runtime.block_on(async {
        let (begins, begun) = tokio::sync::oneshot::channel();
        let checking = tokio::spawn(async move {
            begins.send(()).unwrap();
            check(large, Rotation::None)
        });
        let another = tokio::spawn(async move {
            begun.await.unwrap();
            release.send(()).unwrap();
        });
        let both = async { (checking.await.unwrap(), another.await.unwrap()) };
        tokio::time::timeout(std::time::Duration::from_secs(60), both).await.map(|(checked, ())| checked.unwrap())
    });
    runtime.shutdown_background();
    let checked = checked.expect("the thread is kept");
    assert_eq!((checked.width, checked.height), (3_200, 2_800));
    assert!(other.join().unwrap());
}

#[test]
fn the_memory_for_large_pictures_is_bounded() {
    let mut free = apart::within(usize::MAX, apart::free);
    assert_eq!(free, 0, "the largest takes all there is");
    free = apart::within(1 << 20, apart::free);
    assert!(free < 96, "{free}");
}
