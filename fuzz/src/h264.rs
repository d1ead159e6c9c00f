//! The H264 scanner, on a byte stream.

use fanlight::media::annex_b;
use fanlight::media::h264::{Scan, Scanner, idr_pic_id, with_idr_pic_id};

/// Reads the input as one access unit, then its NAL units as one access unit each, then as parameter sets.
pub fn check(data: &[u8]) {
    let mut scanner = Scanner::new();
    check_scan(&mut scanner, data);
    let nals: Vec<&[u8]> = annex_b::nal_units(data).collect();
    assert!(nals.iter().map(|nal| nal.len() + 3).sum::<usize>() <= data.len());
    for nal in &nals {
        assert_ne!(nal.last(), Some(&0));
        let mut unit = Vec::new();
        annex_b::push(&mut unit, nal);
        check_scan(&mut scanner, &unit);
    }
    let mut other = Scanner::new();
    other.set_parameters(&nals);
    check_format(&other);
    check_number(data);
}

/// Numbers its pictures anew, as is done to those that are sent again.
fn check_number(unit: &[u8]) {
    let Some(own) = idr_pic_id(unit) else { return };
    let Some(other) = with_idr_pic_id(unit, own ^ 1) else { return };
    assert!(idr_pic_id(&other).is_none_or(|number| number == own ^ 1));
}

fn check_scan(scanner: &mut Scanner, unit: &[u8]) {
    let before = scanner.format().cloned();
    let scan @ Scan { random_access, picture, changed, parameter_sets } = scanner.scan(unit);
    assert!(picture || !random_access && !parameter_sets);
    assert_eq!(changed, before.as_ref() != scanner.format());
    check_format(scanner);
    // Nothing is left to learn from the same bytes, but which of several parameter sets is in use.
    let again = scanner.scan(unit);
    assert_eq!((again.random_access, again.picture), (scan.random_access, scan.picture));
}

fn check_format(scanner: &Scanner) {
    let Some(format) = scanner.format() else { return };
    assert!(!format.parameter_sets.is_empty() && format.parameter_sets.len() <= 48);
    assert!(format.parameter_sets.iter().all(|set| set.len() <= 4096));
    assert!(format.reorder_depth <= Some(16));
    assert!(format.frame_rate.is_none_or(|rate| (0.01..=1000.0).contains(&rate)));
}
