//! The picture of a camera that has not sent one yet: its name, and what it waits for.

use super::jpeg::{Checked, Treatment};
use ab_glyph::{Font as _, FontRef, PxScale, ScaleFont as _, point};
use bytes::Bytes;
use turbojpeg::{Image, PixelFormat, Subsamp};

const WIDTH: u16 = 640;
const HEIGHT: u16 = 480;
const BYTES: usize = 3;
/// Top and bottom of the background, and the colours of the line, the name and the words.
const BACKGROUND: ([u8; 3], [u8; 3]) = ([38, 44, 56], [18, 21, 28]);
const LINE: [u8; 3] = [226, 164, 72];
const NAME: [u8; 3] = [240, 242, 245];
const WORDS: [u8; 3] = [160, 168, 180];
/// A name longer than the card is made smaller, down to this height.
const LARGEST: f32 = 72.0;
const SMALLEST: f32 = 8.0;
const MARGIN: f32 = 40.0;

/// Letters, digits, `_` and `-`: what a name may be made of. DejaVu Sans Bold; its licence lies beside it.
const NAME_FONT: &[u8] = include_bytes!("card/dejavu-sans-bold-subset.ttf");
/// Latin letters without accents. DejaVu Sans.
const WORDS_FONT: &[u8] = include_bytes!("card/dejavu-sans-subset.ttf");

/// A card for that camera: 640x480, baseline 4:2:0 with the standard tables.
pub(super) fn card(name: &str) -> Checked {
    let (width, height) = (usize::from(WIDTH), usize::from(HEIGHT));
    let mut canvas = Canvas::new();
    canvas.rectangle((280, 254), (80, 4), LINE);
    // Both fonts are part of the program and are read by a test.
    if let Ok(font) = FontRef::try_from_slice(NAME_FONT) {
        let room = f32::from(WIDTH) - 2.0 * MARGIN;
        let fits = (room / text_width(&font, LARGEST, name)).min(1.0);
        canvas.text(&font, (LARGEST * fits).max(SMALLEST), 226.0, name, NAME);
    }
    if let Ok(font) = FontRef::try_from_slice(WORDS_FONT) {
        canvas.text(&font, 26.0, 304.0, "no picture yet", WORDS);
    }
    let pixels = canvas.pixels.as_slice();
    let image = Image { pixels, width, pitch: width * BYTES, height, format: PixelFormat::RGB };
    // Only memory can fail here.
    let bytes = turbojpeg::compress(image, 90, Subsamp::Sub2x2).map(|coded| Bytes::copy_from_slice(&coded));
    Checked { bytes: bytes.unwrap_or_default(), width: WIDTH, height: HEIGHT, treatment: Treatment::Untouched }
}

fn text_width(font: &FontRef<'_>, size: f32, text: &str) -> f32 {
    let font = font.as_scaled(PxScale::from(size));
    text.chars().map(|letter| font.h_advance(font.glyph_id(letter))).sum::<f32>().max(1.0)
}

struct Canvas {
    pixels: Vec<u8>,
}

impl Canvas {
    fn new() -> Self {
        let (top, bottom) = BACKGROUND;
        let row = |y: u16| {
            let part = f32::from(y) / f32::from(HEIGHT);
            let colour = [0, 1, 2].map(|at: usize| mixed(top[at], bottom[at], part));
            colour.repeat(WIDTH.into())
        };
        Self { pixels: (0..HEIGHT).flat_map(row).collect() }
    }

    /// Mixes so much of a colour into a pixel; what lies outside is left out.
    fn mix(&mut self, x: i64, y: i64, colour: [u8; 3], part: f32) {
        let (Ok(x), Ok(y)) = (u16::try_from(x), u16::try_from(y)) else { return };
        if x >= WIDTH || y >= HEIGHT {
            return;
        }
        let at = (usize::from(y) * usize::from(WIDTH) + usize::from(x)) * BYTES;
        if let Some(pixel) = self.pixels.get_mut(at..at + BYTES) {
            for (value, colour) in pixel.iter_mut().zip(colour) {
                *value = mixed(*value, colour, part);
            }
        }
    }

    fn rectangle(&mut self, (left, top): (i64, i64), (width, height): (i64, i64), colour: [u8; 3]) {
        for y in top..top + height {
            (left..left + width).for_each(|x| self.mix(x, y, colour, 1.0));
        }
    }

    /// One line of text, in the middle, standing on `base`.
    fn text(&mut self, font: &FontRef<'_>, size: f32, base: f32, text: &str, colour: [u8; 3]) {
        let mut x = (f32::from(WIDTH) - text_width(font, size, text)) / 2.0;
        let scaled = font.as_scaled(PxScale::from(size));
        for letter in text.chars() {
            let mut glyph = scaled.scaled_glyph(letter);
            glyph.position = point(x, base);
            x += scaled.h_advance(glyph.id);
            let Some(outline) = font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            let (left, top) = (corner.x as i64, corner.y as i64);
            outline.draw(|x, y, part| self.mix(left + i64::from(x), top + i64::from(y), colour, part));
        }
    }
}

fn mixed(under: u8, over: u8, part: f32) -> u8 {
    let (under, over) = (f32::from(under), f32::from(over));
    (under + (over - under) * part.clamp(0.0, 1.0)).round() as u8
}

#[cfg(test)]
mod tests {
    use super::super::Rotation;
    use super::super::jpeg::check;
    use super::*;

    /// Brightness of the card's pixels.
    fn grey(card: &Checked) -> Vec<u8> {
        turbojpeg::decompress(&card.bytes, PixelFormat::GRAY).unwrap().pixels
    }

    /// Bright pixels in these rows: their number, the leftmost and the rightmost column.
    fn bright(card: &Checked, rows: std::ops::Range<usize>) -> (usize, usize, usize) {
        let (pixels, width) = (grey(card), usize::from(WIDTH));
        let columns: Vec<usize> =
            (rows.start * width..rows.end * width).filter(|at| pixels[*at] > 120).map(|at| at % width).collect();
        let edge = |edge: Option<usize>| edge.unwrap_or(0);
        (columns.len(), edge(columns.iter().copied().min()), edge(columns.iter().copied().max()))
    }

    #[test]
    fn a_card_is_a_picture_like_others() {
        let card = card("front");
        let checked = check(card.bytes.clone(), Rotation::None).unwrap();
        assert_eq!(checked, card);
    }

    #[test]
    fn names_are_there_in_the_middle_and_fit() {
        let longest = "w".repeat(48);
        for name in ["a", "front_door-2", "0123456789", longest.as_str()] {
            let card = card(name);
            let (count, left, right) = bright(&card, 160..240);
            assert!(count > 60, "{name}: {count}");
            assert!(left.abs_diff(usize::from(WIDTH) - right) < 16, "{name}: from {left} to {right}");
            assert!(left > 10, "{name}: from {left}");
            assert!(bright(&card, 280..320).0 > 200, "the words");
        }
        assert_ne!(card("front").bytes, card("frond").bytes);
        let font = FontRef::try_from_slice(NAME_FONT).unwrap();
        let letters = ('a'..='z').chain('0'..='9').chain(['_', '-']);
        assert!(letters.into_iter().all(|letter| font.glyph_id(letter).0 != 0), "every letter of a name");
    }
}
