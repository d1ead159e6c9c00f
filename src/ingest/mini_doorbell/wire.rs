//! The 37 bytes before the picture, and the same layout in datagrams.
//!
//! All integers big-endian. Names of fields are those of the vendor's Android source.
//!
//! | bytes  | field             | from a doorbell                                  | source              |
//! |--------|-------------------|--------------------------------------------------|---------------------|
//! | 0      | head high         | 55                                               | firmware, executed  |
//! | 1      | head low          | 66: TCP, AA: datagram                            | firmware, executed  |
//! | 2..4   | total length      | length of extra data + 37, modulo 65,536         | firmware, executed  |
//! | 4..7   | frame length, number, key | 01 00 00                                 | firmware, executed  |
//! | 7..15  | device id         | see [`BellId`]                                   | firmware, executed  |
//! | 15..17 | frame quality     | 00 64                                            | firmware, executed  |
//! | 17     | device status     | 01                                               | firmware, executed  |
//! | 18     | device type       | 43: takes pictures                               | two vendor sources  |
//! | 19     | device version    | 01                                               | firmware, executed  |
//! | 20     | function          | see [`function`]                                 | firmware, executed  |
//! | 21, 22 | type big, small   | 00 00                                            | firmware, executed  |
//! | 23..27 | control id        | 08 08 08 08                                      | firmware, executed  |
//! | 27..31 | reserved          | 00 00 00 00                                      | firmware, executed  |
//! | 31..33 | sequence          | pseudo-random 0 to 254, new for each attempt     | firmware, executed  |
//! | 33..35 | extra-data length | length of the JPEG                               | firmware, executed  |
//! | 35..37 | CRC               | 00 00, never computed                            | firmware, executed  |
//! | 37..   | extra data        | the JPEG, or what the function wants             | a real unit         |

#![deny(clippy::indexing_slicing)]

use std::fmt;
use std::net::Ipv4Addr;

/// Bytes before the extra data.
pub const HEADER: usize = 37;
/// The longest extra data whose total length does not wrap.
pub const MOST_EXTRA: usize = 65_535 - HEADER;
/// The unit's picture buffer (firmware 1.3.0): longer pictures hold memory behind it.
pub const UNIT_BUFFER: usize = 16_500;

/// Values of the function field.
pub mod function {
    /// A visitor pressed the button.
    pub const VISITOR: u8 = 0x01;
    /// "Warning": what triggers it is not recorded.
    pub const WARNING: u8 = 0x02;
    /// Sets the upload address until the unit restarts; extra data is an IPv4 address. The published vector has 01 in this
    /// place; its words and the table of functions, both read from the firmware, say 31.
    pub const SET_UPLOAD: u8 = 0x31;
    /// Registration, every 3 s until it is answered: a sign of life.
    pub const REGISTRATION: u8 = 0xfb;
    /// Answer to a query or a setting.
    pub const ANSWER: u8 = 0xfe;
    /// Who is there: with sequence 0 every unit answers.
    pub const QUERY: u8 = 0xff;
}

/// A unit's id: `00 FF`, product code, `00`, the last three bytes of its Wi-Fi address (last byte first), a vendor byte
/// (firmware, read). Stable, but anybody on the network can send it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BellId(pub [u8; 8]);

impl BellId {
    /// Reads 16 hex digits, upper or lower case.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(|number| Self(number.to_be_bytes()))
    }
}

impl fmt::Display for BellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for BellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BellId({self})")
    }
}

/// Which kind of link a header belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// The upload of a picture over TCP.
    Tcp,
    /// Local control, one frame a datagram.
    Udp,
}

impl Carrier {
    fn head(self) -> [u8; 2] {
        match self {
            Self::Tcp => [0x55, 0x66],
            Self::Udp => [0x55, 0xaa],
        }
    }
}

/// What a header says. Fields that are constant in every known unit are carried so that users of other models can
/// report them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of header and extra data, modulo 65,536.
    pub total: u16,
    /// The unit.
    pub id: BellId,
    /// Device status.
    pub status: u8,
    /// Device type.
    pub device_type: u8,
    /// Device version.
    pub version: u8,
    /// What it is about; see [`function`].
    pub function: u8,
    /// New for each attempt: two attempts with the same picture are one visitor.
    pub sequence: u16,
    /// Bytes that follow.
    pub extra: u16,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than a header has.
    #[error("a header has {HEADER} bytes, here are {have}")]
    Short {
        /// So many.
        have: usize,
    },
    /// The first two bytes are others.
    #[error("bytes 0 and 1 are {found:02x?}, not a doorbell's")]
    Head {
        /// These.
        found: [u8; 2],
    },
    /// The extra data of a datagram is longer than the datagram.
    #[error("bytes 33 and 34 announce {announced} bytes, {have} follow")]
    Extra {
        /// By the header.
        announced: usize,
        /// In the datagram.
        have: usize,
    },
}

impl Header {
    /// A header of a doorbell's own form.
    pub fn new(id: BellId, function: u8, sequence: u16, extra: u16) -> Self {
        let total = (usize::from(extra) + HEADER) as u16;
        Self { total, id, status: 1, device_type: 0x43, version: 1, function, sequence, extra }
    }

    /// Whether the two lengths agree. The length of the extra data is the one to trust.
    pub fn is_consistent(&self) -> bool {
        usize::from(self.total) == (usize::from(self.extra) + HEADER) % (1 << 16)
    }

    /// Reads the first 37 bytes.
    ///
    /// # Errors
    /// [`WireError::Short`], or [`WireError::Head`] if this is something else. All other content is accepted.
    pub fn parse(bytes: &[u8], carrier: Carrier) -> Result<Self, WireError> {
        let short = || WireError::Short { have: bytes.len() };
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or_else(short)?;
        let [h0, h1, t0, t1, _, _, _, id @ .., q0, q1, status, device_type, version, function] =
            *header.first_chunk::<21>().ok_or_else(short)?;
        let _ = (q0, q1);
        if [h0, h1] != carrier.head() {
            return Err(WireError::Head { found: [h0, h1] });
        }
        let [s0, s1, e0, e1, _, _] = *header.last_chunk::<6>().ok_or_else(short)?;
        Ok(Self {
            total: u16::from_be_bytes([t0, t1]),
            id: BellId(id),
            status,
            device_type,
            version,
            function,
            sequence: u16::from_be_bytes([s0, s1]),
            extra: u16::from_be_bytes([e0, e1]),
        })
    }

    /// The 37 bytes, with the constants of a doorbell in the fields that are not carried. Datagrams have zeros for the
    /// control id, as in the published ones.
    pub fn write(&self, carrier: Carrier) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let control = match carrier {
            Carrier::Tcp => [8; 4],
            Carrier::Udp => [0; 4],
        };
        let fields: [(usize, &[u8]); 9] = [
            (0, &carrier.head()),
            (2, &self.total.to_be_bytes()),
            (4, &[1, 0, 0]),
            (7, &self.id.0),
            (15, &[0, 0x64, self.status, self.device_type, self.version, self.function]),
            (23, &control),
            (31, &self.sequence.to_be_bytes()),
            (33, &self.extra.to_be_bytes()),
            (35, &[0, 0]),
        ];
        for (at, bytes) in fields {
            if let Some(place) = out.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }
        out
    }
}

/// Reads one datagram: its header and extra data.
///
/// # Errors
/// [`WireError`], also if less extra data is there than announced. More is cut off.
pub fn datagram(bytes: &[u8]) -> Result<(Header, &[u8]), WireError> {
    let header = Header::parse(bytes, Carrier::Udp)?;
    let rest = bytes.get(HEADER..).unwrap_or_default();
    let announced = usize::from(header.extra);
    let extra = rest.get(..announced).ok_or(WireError::Extra { announced, have: rest.len() })?;
    Ok((header, extra))
}

/// The question that every unit answers: sequence 0, no id.
pub fn query() -> [u8; HEADER] {
    let mut out = [0; HEADER];
    for (place, byte) in [(0, 0x55), (1, 0xaa), (3, HEADER as u8), (4, 1), (20, function::QUERY)] {
        if let Some(place) = out.get_mut::<usize>(place) {
            *place = byte;
        }
    }
    out
}

/// "Upload to that address from now on", for one unit. Give it a sequence other than 0, so that the answer is known from
/// that to a [`query`].
pub fn set_upload(id: BellId, sequence: u16, address: Ipv4Addr) -> Vec<u8> {
    let header = Header { status: 0, ..Header::new(id, function::SET_UPLOAD, sequence, 4) };
    [&header.write(Carrier::Udp)[..], &address.octets()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn id(text: &str) -> BellId {
        BellId::parse(text).unwrap()
    }

    /// Headers as the firmware's own routine wrote them: ring, warning, an exact 2,000-byte write, 12,345 bytes, and the
    /// largest regular picture.
    #[test]
    fn headers_are_those_of_the_firmware() {
        let own = id("00ff020012345600");
        for (hex, header) in [
            (
                "5566002901000000ff02001234560000640143010100000808080800000000002a00040000",
                Header::new(own, function::VISITOR, 42, 4),
            ),
            (
                "5566002901000000ff02001234560000640143010200000808080800000000002b00040000",
                Header::new(own, function::WARNING, 43, 4),
            ),
            (
                "556607d001000000ff0200b6f5550000640143010100000808080800000000000107ab0000",
                Header::new(id("00ff0200b6f55500"), function::VISITOR, 1, 1_963),
            ),
            (
                "5566305e01000000ff0200123456000064014301010000080808080000000000fe30390000",
                Header::new(own, function::VISITOR, 254, 12_345),
            ),
            (
                "5566409901000000ff02001234560000640143010100000808080800000000000040740000",
                Header::new(own, function::VISITOR, 0, 16_500),
            ),
        ] {
            let written = bytes(hex);
            assert_eq!(Header::parse(&written, Carrier::Tcp), Ok(header));
            assert_eq!(header.write(Carrier::Tcp).as_slice(), written);
        }
    }

    #[test]
    fn datagrams_have_the_same_layout() {
        let query = bytes("55aa002501000000000000000000000000000000ff00000000000000000000000000000000");
        assert_eq!(datagram(&query).unwrap().0.function, function::QUERY);
        assert_eq!(super::query().as_slice(), query);
        let answer = bytes("55aa002501000000ff0200123456000064014301fe00000000000000000000000000000000");
        let (header, extra) = datagram(&answer).unwrap();
        let own = id("00ff020012345600");
        assert_eq!((header.id, header.function, extra), (own, function::ANSWER, &[][..]));
        assert_eq!(Header::new(own, function::ANSWER, 0, 0).write(Carrier::Udp).as_slice(), answer);
        let registration = bytes("55aa002501000000ff0200123456000064014301fb00000000000000000000000000000000");
        assert_eq!(datagram(&registration).unwrap().0.function, function::REGISTRATION);
        assert_eq!(Header::new(own, function::REGISTRATION, 0, 0).write(Carrier::Udp).as_slice(), registration);
        let upload = bytes("55aa002901000000ff02001234560000640043010100000000000000000000000700040000c0a8010a");
        // The published vector has 01 in place of the function that its words name.
        let mut upload_to = upload.clone();
        upload_to[20] = function::SET_UPLOAD;
        assert_eq!(set_upload(own, 7, Ipv4Addr::new(192, 168, 1, 10)), upload_to);
        let (header, extra) = datagram(&upload_to).unwrap();
        assert_eq!((header.sequence, header.function, extra), (7, function::SET_UPLOAD, &[192, 168, 1, 10][..]));
        assert_eq!(datagram(&upload[..40]), Err(WireError::Extra { announced: 4, have: 3 }));
    }

    #[test]
    fn other_things_are_refused() {
        assert_eq!(Header::parse(&[], Carrier::Tcp), Err(WireError::Short { have: 0 }));
        let good = Header::new(id("00ff020012345600"), function::VISITOR, 1, 4).write(Carrier::Tcp);
        assert_eq!(Header::parse(&good[..36], Carrier::Tcp), Err(WireError::Short { have: 36 }));
        assert_eq!(Header::parse(&good, Carrier::Udp), Err(WireError::Head { found: [0x55, 0x66] }));
        let http = *b"GET / HTTP/1.1\r\nHost: doorbell.example\r\n\r\n";
        assert_eq!(Header::parse(&http, Carrier::Tcp), Err(WireError::Head { found: *b"GE" }));
    }

    #[test]
    fn ids_are_sixteen_digits() {
        assert_eq!(id("00FF020056341200").to_string(), "00ff020056341200");
        for wrong in ["", "00ff02005634120", "00ff0200563412000", "00ff02005634120g", "+0ff020056341200"] {
            assert_eq!(BellId::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            id: [u8; 8], status: u8, device_type: u8, version: u8, function: u8, sequence: u16, extra: u16, total: u16,
        ) {
            let header =
                Header { total, id: BellId(id), status, device_type, version, function, sequence, extra };
            for carrier in [Carrier::Tcp, Carrier::Udp] {
                prop_assert_eq!(Header::parse(&header.write(carrier), carrier), Ok(header));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Header::parse(&bytes, Carrier::Tcp);
            let _ = datagram(&bytes);
        }
    }
}
