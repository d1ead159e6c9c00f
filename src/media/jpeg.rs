//! JPEG pictures (ITU-T T.81 annex B): what the markers say, without decoding.
//!
//! This is what is needed to send a picture as it is by RFC 2435, and to see whether it must be normalised first.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use memchr::memchr;
use std::ops::Range;

/// Marker codes of table B.1, after the byte FF.
mod marker {
    pub(super) const SOF0: u8 = 0xc0;
    pub(super) const DHT: u8 = 0xc4;
    pub(super) const JPG: u8 = 0xc8;
    pub(super) const DAC: u8 = 0xcc;
    pub(super) const SOF15: u8 = 0xcf;
    pub(super) const RST0: u8 = 0xd0;
    pub(super) const RST7: u8 = 0xd7;
    pub(super) const SOI: u8 = 0xd8;
    pub(super) const EOI: u8 = 0xd9;
    pub(super) const SOS: u8 = 0xda;
    pub(super) const DQT: u8 = 0xdb;
    pub(super) const DRI: u8 = 0xdd;
    pub(super) const TEM: u8 = 0x01;
}

/// What the markers of a whole picture say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture<'a> {
    /// Baseline sequential DCT with Huffman coding and 8 bits a sample (SOF0), as every decoder reads it. Not so:
    /// extended, progressive, lossless, arithmetic.
    pub baseline: bool,
    /// Progressive DCT (SOF2, SOF6, SOF10, SOF14): any number of scans, each of which adds to what the ones before said.
    pub progressive: bool,
    /// Width in pixels, never 0.
    pub width: u16,
    /// Height in pixels, never 0 (a height that follows in a DNL segment is an error).
    pub height: u16,
    /// The components in frame order, at least one and at most four: Y alone (grey), or Y, Cb, Cr.
    pub components: Vec<Component>,
    /// The quantisation tables in force at the first scan, by their id.
    pub quantisation: [Option<QuantisationTable<'a>>; 4],
    /// Every component is coded with the Huffman tables of T.81 annex K.3 (luminance for the first component,
    /// chrominance for the others), or the picture has no tables, as in AVI and most cameras' MJPEG. RFC 2435
    /// carries no other tables.
    pub standard_huffman: bool,
    /// Whether the Huffman tables stand in the picture. Where they do not, decoders of motion JPEG take the standard ones,
    /// and others show nothing.
    pub has_huffman: bool,
    /// MCUs between restart markers; `None` without restart markers.
    pub restart_interval: Option<u16>,
    /// The first scan holds all components.
    pub interleaved: bool,
    /// Number of scans: more than one if progressive or not interleaved.
    pub scans: usize,
    /// Where the first scan's entropy-coded bytes lie, restart markers included.
    pub scan: Range<usize>,
    /// Where the picture ends, EOI included. Cameras pad behind it.
    pub end: usize,
}

/// A component of the frame (T.81 section B.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its identifier in scan headers.
    pub id: u8,
    /// Horizontal sampling factor, 1 to 4.
    pub horizontal: u8,
    /// Vertical sampling factor, 1 to 4.
    pub vertical: u8,
    /// Which quantisation table it uses, 0 to 3.
    pub quantisation: u8,
}

/// A quantisation table (T.81 section B.2.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantisationTable<'a> {
    /// The elements in zigzag order: 64 bytes, or 128 with `wide`, as RFC 2435 section 3.1.8 wants them.
    pub bytes: &'a [u8],
    /// Two bytes an element, big-endian. Baseline has one.
    pub wide: bool,
}

/// How a picture travels by RFC 2435.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpForm<'a> {
    /// The type: 0 for 4:2:2, 1 for 4:2:0, plus 64 with restart markers (sections 3.1.3 and 4.1).
    pub kind: u8,
    /// The quantisation table of Y.
    pub luma: QuantisationTable<'a>,
    /// The quantisation table of Cb and Cr.
    pub chroma: QuantisationTable<'a>,
}

/// Why bytes are no whole JPEG picture. Offsets count from the first byte given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JpegError {
    /// The bytes do not begin with SOI.
    #[error("no JPEG: it does not begin with FF D8")]
    NoStart,
    /// The bytes end inside a segment or a scan, or before EOI.
    #[error("JPEG cut off: {what} at byte {at} is not whole")]
    Short {
        /// What is missing its end.
        what: &'static str,
        /// Where it began.
        at: usize,
    },
    /// Something other than a marker is where one should be.
    #[error("bad JPEG: no marker at byte {at}")]
    NoMarker {
        /// Where.
        at: usize,
    },
    /// A segment contradicts itself or the standard.
    #[error("bad JPEG: {what} at byte {at}")]
    Bad {
        /// What is wrong.
        what: &'static str,
        /// Where the segment began.
        at: usize,
    },
}

impl<'a> Picture<'a> {
    /// How many samples a decoder works on in all components together, with those that fill up the last blocks: three a
    /// pixel for 4:4:4, one and a half for 4:2:0.
    pub fn samples(&self) -> usize {
        let most = |factor: fn(&Component) -> u8| self.components.iter().map(factor).max().unwrap_or(1).max(1);
        let (across, down) = (most(|component| component.horizontal), most(|component| component.vertical));
        let blocks = usize::from(self.width).div_ceil(8 * usize::from(across))
            * usize::from(self.height).div_ceil(8 * usize::from(down));
        let each = |component: &Component| usize::from(component.horizontal) * usize::from(component.vertical);
        blocks * 64 * self.components.iter().map(each).sum::<usize>()
    }

    /// How the picture can be sent as it is by RFC 2435; `None` if it must be coded anew first. The payload is `scan`.
    ///
    /// RFC 2435 knows baseline 4:2:2 (2x1, 1x1, 1x1) and 4:2:0 (2x2, 1x1, 1x1) in one scan with the standard Huffman
    /// tables and one quantisation table for both chroma components (sections 3.1.3, 4.1 and appendix A). What it does
    /// with sizes is left to the sender: it carries them in units of 8 pixels, up to 2,040.
    pub fn rtp_form(&self) -> Option<RtpForm<'a>> {
        let [y, cb, cr] = self.components.as_slice() else { return None };
        let factors = |component: &Component| (component.horizontal, component.vertical);
        let kind = match factors(y) {
            (2, 1) => 0,
            (2, 2) => 1,
            _ => return None,
        };
        let fits = self.baseline
            && self.standard_huffman
            && self.interleaved
            && self.scans == 1
            && factors(cb) == (1, 1)
            && factors(cr) == (1, 1)
            && cb.quantisation == cr.quantisation;
        let table = |component: &Component| *self.quantisation.get(usize::from(component.quantisation))?;
        let kind = if self.restart_interval.is_some() { kind + 64 } else { kind };
        Some(RtpForm { kind, luma: table(y)?, chroma: table(cb)? }).filter(|_| fits)
    }
}

/// Walks the markers of one picture, from SOI to EOI.
///
/// The entropy-coded bytes are not looked into but for markers: a picture with damaged ones passes.
///
/// # Errors
/// [`JpegError`] says what is wrong, and where.
pub fn parse(picture: &[u8]) -> Result<Picture<'_>, JpegError> {
    if picture.get(..2) != Some(&[0xff, marker::SOI]) {
        return Err(JpegError::NoStart);
    }
    let mut walk = Walk { bytes: picture, at: 2 };
    let mut state = State::default();
    loop {
        let begin = walk.at;
        match walk.marker()? {
            marker::EOI => break,
            marker::SOI => return Err(JpegError::Bad { what: "a second SOI", at: begin }),
            marker::TEM | marker::RST0..=marker::RST7 => {}
            marker::SOS => {
                let header = walk.segment("scan header", begin)?;
                let scan = walk.scan(begin)?;
                state.scan(header, scan, begin)?;
            }
            code => {
                let body = walk.segment("segment", begin)?;
                state.segment(code, body, begin)?;
            }
        }
    }
    state.finish(walk.at)
}

/// A segment with the Huffman tables of annex K.3, for pictures that leave them out.
pub fn standard_huffman() -> Vec<u8> {
    let tables: [(u8, &[u8], &[u8]); 4] = [
        (0x00, &DC_LUMINANCE, &DC_VALUES),
        (0x01, &DC_CHROMINANCE, &DC_VALUES),
        (0x10, &AC_LUMINANCE.0, &AC_LUMINANCE.1),
        (0x11, &AC_CHROMINANCE.0, &AC_CHROMINANCE.1),
    ];
    let body: Vec<u8> = tables.iter().flat_map(|(id, counts, values)| [&[*id][..], counts, values].concat()).collect();
    // 418 bytes and the length itself.
    let length = (body.len() + 2) as u16;
    [&[0xff, marker::DHT][..], &length.to_be_bytes(), &body].concat()
}

/// A position in the picture.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    /// The code of the marker here, after any number of fill bytes FF (section B.1.1.2).
    fn marker(&mut self) -> Result<u8, JpegError> {
        let at = self.at;
        let rest = self.bytes.get(at..).unwrap_or_default();
        match rest.iter().position(|&byte| byte != 0xff) {
            None => Err(JpegError::Short { what: "the picture", at }),
            Some(fill) => match rest.get(fill) {
                Some(&code) if fill > 0 && code != 0 => {
                    self.at += fill + 1;
                    Ok(code)
                }
                _ => Err(JpegError::NoMarker { at }),
            },
        }
    }

    /// The body of the segment whose length is here.
    fn segment(&mut self, what: &'static str, begin: usize) -> Result<&'a [u8], JpegError> {
        let short = JpegError::Short { what, at: begin };
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (length, _) = rest.split_first_chunk().ok_or(short)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length < 2 {
            return Err(JpegError::Bad { what: "a segment length below 2", at: begin });
        }
        let body = rest.get(2..length).ok_or(short)?;
        self.at += length;
        Ok(body)
    }

    /// The entropy-coded bytes here, up to the next marker that is no restart marker.
    fn scan(&mut self, begin: usize) -> Result<Range<usize>, JpegError> {
        let start = self.at;
        let mut at = start;
        loop {
            let short = JpegError::Short { what: "a scan", at: begin };
            at += memchr(0xff, self.bytes.get(at..).unwrap_or_default()).ok_or(short)?;
            match self.bytes.get(at + 1).ok_or(short)? {
                0 | marker::RST0..=marker::RST7 => at += 2,
                0xff => at += 1,
                _ => break,
            }
        }
        self.at = at;
        // Fill bytes in front of the marker are part of it.
        let scan = self.bytes.get(start..at).unwrap_or_default();
        let fill = scan.iter().rev().take_while(|&&byte| byte == 0xff).count();
        Ok(start..at - fill)
    }
}

/// What the walk has seen.
#[derive(Default)]
struct State<'a> {
    frame: Option<Frame>,
    quantisation: [Option<QuantisationTable<'a>>; 4],
    /// For DC and AC, the tables 0 to 3: is it the luminance, is it the chrominance table of annex K?
    huffman: [[Option<Standard>; 4]; 2],
    restart_interval: u16,
    first: Option<FirstScan<'a>>,
    scans: usize,
}

struct Frame {
    baseline: bool,
    progressive: bool,
    width: u16,
    height: u16,
    components: Vec<Component>,
}

struct FirstScan<'a> {
    quantisation: [Option<QuantisationTable<'a>>; 4],
    standard_huffman: bool,
    has_huffman: bool,
    restart_interval: Option<u16>,
    interleaved: bool,
    scan: Range<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standard {
    Luminance,
    Chrominance,
    No,
}

impl<'a> State<'a> {
    fn segment(&mut self, code: u8, body: &'a [u8], at: usize) -> Result<(), JpegError> {
        match code {
            marker::DQT => self.quantisation_tables(body, at),
            marker::DHT => self.huffman_tables(body, at),
            marker::DRI => {
                let interval = body.first_chunk().ok_or(JpegError::Bad { what: "DRI without its interval", at })?;
                self.restart_interval = u16::from_be_bytes(*interval);
                Ok(())
            }
            marker::JPG | marker::DAC => Ok(()),
            marker::SOF0..=marker::SOF15 if self.frame.is_some() => Err(JpegError::Bad { what: "a second frame", at }),
            marker::SOF0..=marker::SOF15 => {
                self.frame = Some(Frame::read(code, body, at)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn quantisation_tables(&mut self, mut body: &'a [u8], at: usize) -> Result<(), JpegError> {
        let bad = JpegError::Bad { what: "a quantisation table", at };
        while let Some((head, rest)) = body.split_first() {
            let wide = head >> 4 == 1;
            let (bytes, rest) = rest.split_at_checked(if wide { 128 } else { 64 }).ok_or(bad)?;
            let slot = self.quantisation.get_mut(usize::from(head & 15)).ok_or(bad)?;
            if head >> 4 > 1 {
                return Err(bad);
            }
            *slot = Some(QuantisationTable { bytes, wide });
            body = rest;
        }
        Ok(())
    }

    fn huffman_tables(&mut self, mut body: &'a [u8], at: usize) -> Result<(), JpegError> {
        let bad = JpegError::Bad { what: "a Huffman table", at };
        while let Some((head, rest)) = body.split_first() {
            let counts = rest.get(..16).ok_or(bad)?;
            let values: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let (table, rest) = rest.split_at_checked(16 + values).ok_or(bad)?;
            let class = usize::from(head >> 4);
            let slot = self.huffman.get_mut(class).and_then(|tables| tables.get_mut(usize::from(head & 15)));
            *slot.ok_or(bad)? = Some(standard(class, table));
            body = rest;
        }
        Ok(())
    }

    fn scan(&mut self, header: &[u8], scan: Range<usize>, at: usize) -> Result<(), JpegError> {
        let frame = self.frame.as_ref().ok_or(JpegError::Bad { what: "a scan before its frame header", at })?;
        let bad = JpegError::Bad { what: "a scan header", at };
        let (&count, rest) = header.split_first().ok_or(bad)?;
        let selectors = rest.get(..2 * usize::from(count)).ok_or(bad)?;
        self.scans += 1;
        if self.first.is_some() {
            return Ok(());
        }
        let (mut standard_huffman, mut has_huffman) = (true, true);
        for selector in selectors.chunks_exact(2) {
            let [id, tables] = selector else { return Err(bad) };
            let index = frame.components.iter().position(|component| component.id == *id).ok_or(bad)?;
            let wanted = if index == 0 { Standard::Luminance } else { Standard::Chrominance };
            for (class, id) in [(0, tables >> 4), (1, tables & 15)] {
                let tables: Option<&[Option<Standard>; 4]> = self.huffman.get(class);
                let table = tables.and_then(|tables| tables.get(usize::from(id))).ok_or(bad)?;
                has_huffman &= table.is_some();
                // Without tables: those of annex K, luminance as 0 and chrominance as 1.
                let table = table.unwrap_or(match id {
                    0 => Standard::Luminance,
                    1 => Standard::Chrominance,
                    _ => Standard::No,
                });
                standard_huffman &= table == wanted;
            }
        }
        self.first = Some(FirstScan {
            quantisation: self.quantisation,
            standard_huffman,
            has_huffman,
            restart_interval: Some(self.restart_interval).filter(|&interval| interval > 0),
            interleaved: usize::from(count) == frame.components.len(),
            scan,
        });
        Ok(())
    }

    fn finish(self, end: usize) -> Result<Picture<'a>, JpegError> {
        let at = end;
        let frame = self.frame.ok_or(JpegError::Bad { what: "the end, without a frame header before it", at })?;
        let first = self.first.ok_or(JpegError::Bad { what: "the end, without a scan before it", at })?;
        Ok(Picture {
            baseline: frame.baseline,
            progressive: frame.progressive,
            width: frame.width,
            height: frame.height,
            components: frame.components,
            quantisation: first.quantisation,
            standard_huffman: first.standard_huffman,
            has_huffman: first.has_huffman,
            restart_interval: first.restart_interval,
            interleaved: first.interleaved,
            scans: self.scans,
            scan: first.scan,
            end,
        })
    }
}

impl Frame {
    /// Reads a frame header (section B.2.2).
    fn read(code: u8, body: &[u8], at: usize) -> Result<Self, JpegError> {
        let bad = |what| JpegError::Bad { what, at };
        let (&[precision, h0, h1, w0, w1, count], rest) =
            body.split_first_chunk().ok_or(bad("a frame header without its fields"))?;
        let (width, height) = (u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1]));
        if width == 0 || height == 0 {
            return Err(bad("a frame of no size"));
        }
        if !(1..=4).contains(&count) || rest.len() != usize::from(count) * 3 {
            return Err(bad("a frame header with a wrong number of components"));
        }
        let mut components = Vec::with_capacity(usize::from(count));
        for component in rest.chunks_exact(3) {
            let &[id, sampling, quantisation] = component else { return Err(bad("a component")) };
            let (horizontal, vertical) = (sampling >> 4, sampling & 15);
            if !(1..=4).contains(&horizontal) || !(1..=4).contains(&vertical) || quantisation > 3 {
                return Err(bad("a component's sampling factors or table"));
            }
            components.push(Component { id, horizontal, vertical, quantisation });
        }
        // Table B.1: the last two bits of the code are the process, the others how it is coded.
        let (baseline, progressive) = (code == marker::SOF0 && precision == 8, code & 3 == 2);
        Ok(Self { baseline, progressive, width, height, components })
    }
}

/// Compares a table, as 16 counts and then the values, with those of annex K.3.
fn standard(class: usize, table: &[u8]) -> Standard {
    let is = |tables: [(&[u8; 16], &[u8]); 2]| {
        let same = |(counts, values): (&[u8; 16], &[u8])| table.strip_prefix(counts.as_slice()) == Some(values);
        match tables.map(same) {
            [true, _] => Standard::Luminance,
            [_, true] => Standard::Chrominance,
            _ => Standard::No,
        }
    };
    match class {
        0 => is([(&DC_LUMINANCE, &DC_VALUES), (&DC_CHROMINANCE, &DC_VALUES)]),
        _ => is([(&AC_LUMINANCE.0, &AC_LUMINANCE.1), (&AC_CHROMINANCE.0, &AC_CHROMINANCE.1)]),
    }
}

/// Tables K.3 and K.4: how many codes there are of each length; both have the same values.
const DC_LUMINANCE: [u8; 16] = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
const DC_CHROMINANCE: [u8; 16] = [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0];
const DC_VALUES: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

/// Table K.5: code lengths and values.
#[rustfmt::skip]
const AC_LUMINANCE: ([u8; 16], [u8; 162]) = (
    [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125],
    [
        0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
        0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72,
        0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37,
        0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
        0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83,
        0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3,
        0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
        0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
        0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
    ],
);

/// Table K.6: code lengths and values.
#[rustfmt::skip]
const AC_CHROMINANCE: ([u8; 16], [u8; 162]) = (
    [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119],
    [
        0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
        0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1,
        0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36,
        0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
        0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a,
        0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a,
        0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba,
        0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
        0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
    ],
);

#[cfg(test)]
mod tests;
