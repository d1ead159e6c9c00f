//! Control commands and their answers.

use super::{CONTROL, CONTROL_ANSWER, Profile, Reader, WireError};

/// Bit of a live request: pictures.
pub const LIVE_VIDEO: u32 = 1;
/// Bit of a live request: sound from the camera.
pub const LIVE_AUDIO: u32 = 2;

/// The three control ids that a gateway uses.
const LIVE: u32 = 0;
const HEARTBEAT: u32 = 2;
const CLOSE: u32 = 3;

/// Bytes of the parameters in the answer to a live request.
const FORMAT: usize = 84;

/// A control command or the answer to one, 28 bytes and a payload. The same layout both ways.
///
/// | bytes  | field   | meaning                                                       | source  |
/// |--------|---------|---------------------------------------------------------------|---------|
/// | 8..12  | session | the number of the login's answer; commands that quote another are ignored | C D G V |
/// | 12..16 | id      | what it is about, see [`policy`]                              | C D G V |
/// | 16..20 | value   | of a command: a sub id or value; of an answer: a result or the current value | C D G V |
/// | 20..24 | length  | n, of the payload                                             | C D G V |
/// | 24..28 | flag    | 1 if an [`Acknowledgement`](super::Acknowledgement)'s items follow the payload | V |
/// | 28..   | payload |                                                               | C D G V |
///
/// It can be read, but only [`Request`], [`Answer`] and [`Notice`] can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Control<'a> {
    /// Whose it is.
    pub session: u32,
    /// What it is about.
    pub id: u32,
    /// A sub id, value or result.
    pub value: u32,
    /// What depends on the id.
    pub payload: &'a [u8],
}

/// What a gateway asks of a camera: these and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Control id 0, value 1 ("exactly these bits"), payload u16 video channel, u16 audio channel, u32 bits (C D G). It
    /// is also the start of the media and the best keepalive: repeating it changes nothing.
    Live(u32),
    /// Control id 2, value 0, payload u32 0, u16 pictures per second received, u16 0: the app's own heartbeat (V).
    Heartbeat {
        /// Pictures per second received.
        fps: u16,
    },
    /// Control id 3, value 1, no payload: the camera frees the place at once (G V).
    Close,
}

/// What a camera says unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Control id 2, value 0, payload u16 clients, u16 pictures per second, u32 unknown: after 15 s without anything
    /// else (V). Needs no answer.
    Heartbeat {
        /// Clients that are connected.
        clients: u16,
        /// Pictures per second.
        fps: u16,
    },
    /// Control id 3, value 1: the place is given to somebody else, or timed out (V).
    Close,
}

/// What a camera answers to a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Control id 0, the bits that are on now, and what is sent.
    Live(u32, LiveFormat),
    /// Control id 3.
    Close,
}

/// What the answer to a live request says of the media: 84 bytes, of which these are of use; offsets from the payload.
/// A hint only: the pictures themselves say what they are.
///
/// | bytes  | field  | meaning                                   | source |
/// |--------|--------|-------------------------------------------|--------|
/// | 16..20 | width  | pixels                                    | V      |
/// | 20..24 | height | pixels                                    | V      |
/// | 24..28 | fps    | pictures per second                       | V      |
/// | 60..64 | format | four characters; `H264` is one            | V      |
/// | 64..72 | sound  | u32 channels, u32 samples per second      | V      |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveFormat {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Pictures per second.
    pub fps: u32,
    /// Four characters; what MJPEG models write there is not known.
    pub format: [u8; 4],
}

/// Whether a control command may be sent to a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A gateway needs it.
    Needed,
    /// Changes how the camera works: only when its user asks for it.
    OnRequest,
    /// Never: it changes the camera's network, users or software, erases, runs commands, or tells secrets.
    Never,
}

/// Whether that control command may be sent. Everything not known to be harmless is [`Policy::Never`].
///
/// | id        | what                                         | policy     |
/// |-----------|----------------------------------------------|------------|
/// | 0x00, 0x02, 0x03 | live, heartbeat, close                | needed     |
/// | 0x04..0x09 | size, rate, brightness, contrast, flip, pan and tilt | on request |
/// | 0x0b, 0x0c | picture now, key picture                    | on request |
/// | 0x13      | infrared light on, off, set (3, 4, 5); its configuration never | on request |
/// | 0x50      | reboot                                       | on request |
/// | 0x0e      | Wi-Fi: lists the neighbours, can lose the camera | never  |
/// | 0x0f      | memory card: its playing also deletes, its 4 formats | never |
/// | 0x12, 0x16..0x1a, 0x1f | passwords, accounts, network, update, run a command | never |
/// | others    | other products, alarms, clock, relay         | never      |
///
/// Names from the vendor's Java interface, numbers and forms from C and V. None of those below "needed" was tried on an
/// MJPEG model, and this gateway sends none of them.
pub fn policy(id: u32, value: u32) -> Policy {
    match (id, value) {
        (LIVE | HEARTBEAT | CLOSE, _) => Policy::Needed,
        (0x04..=0x09 | 0x0b | 0x0c, _) | (0x13, 3..=5) | (0x50, _) => Policy::OnRequest,
        _ => Policy::Never,
    }
}

impl<'a> Control<'a> {
    pub(super) fn parse(mut body: Reader<'a>) -> Result<Self, WireError> {
        let (session, id, value) = (body.u32("session number")?, body.u32("control id")?, body.u32("value")?);
        let length = body.u32("payload length")?;
        let _flag = body.u32("flag")?;
        let payload = body.bytes("payload", usize::try_from(length).unwrap_or(usize::MAX))?;
        Ok(Self { session, id, value, payload })
    }

    /// What it asks, if it is something that a gateway asks.
    pub fn request(&self) -> Option<Request> {
        let mut payload = Reader(self.payload);
        match (self.id, self.value) {
            (LIVE, 1) => {
                payload.bytes("channels", 4).ok()?;
                payload.u32("bits").ok().map(Request::Live)
            }
            (HEARTBEAT, _) => {
                payload.bytes("zero", 4).ok()?;
                payload.u16("pictures per second").ok().map(|fps| Request::Heartbeat { fps })
            }
            (CLOSE, _) => Some(Request::Close),
            _ => None,
        }
    }

    /// What it tells, if it is something that a camera tells unasked.
    pub fn notice(&self) -> Option<Notice> {
        let mut payload = Reader(self.payload);
        match self.id {
            HEARTBEAT => {
                let clients = payload.u16("clients").ok()?;
                payload.u16("pictures per second").ok().map(|fps| Notice::Heartbeat { clients, fps })
            }
            CLOSE => Some(Notice::Close),
            _ => None,
        }
    }

    /// The bits that the answer to a live request names; `None` if this is another answer.
    pub fn live_bits(&self) -> Option<u32> {
        (self.id == LIVE).then_some(self.value)
    }

    /// Whether this answers a close.
    pub fn is_close(&self) -> bool {
        self.id == CLOSE
    }

    /// What the answer to a live request says of the media.
    pub fn live_format(&self) -> Option<LiveFormat> {
        let mut payload = Reader(self.payload);
        payload.bytes("device and channels", 16).ok()?;
        let (width, height) = (payload.u32("width").ok()?, payload.u32("height").ok()?);
        let fps = payload.u32("pictures per second").ok()?;
        payload.bytes("settings", 32).ok()?;
        let format = payload.array("format").ok()?;
        (self.id == LIVE).then_some(LiveFormat { width, height, fps, format })
    }
}

impl Request {
    /// The datagram, from a client with that session number.
    pub fn write(self, profile: Profile, session: u32) -> Vec<u8> {
        match self {
            Self::Live(bits) => {
                let [a, b, c, d] = bits.to_le_bytes();
                write(profile, CONTROL, session, (LIVE, 1), &[0, 0, 0, 0, a, b, c, d])
            }
            Self::Heartbeat { fps } => {
                let [low, high] = fps.to_le_bytes();
                write(profile, CONTROL, session, (HEARTBEAT, 0), &[0, 0, 0, 0, low, high, 0, 0])
            }
            Self::Close => write(profile, CONTROL, session, (CLOSE, 1), &[]),
        }
    }
}

impl Notice {
    /// The datagram, to a client with that session number.
    pub fn write(self, profile: Profile, session: u32) -> Vec<u8> {
        match self {
            Self::Heartbeat { clients, fps } => {
                let ([a, b], [c, d]) = (clients.to_le_bytes(), fps.to_le_bytes());
                write(profile, CONTROL, session, (HEARTBEAT, 0), &[a, b, c, d, 0, 0, 0, 0])
            }
            Self::Close => write(profile, CONTROL, session, (CLOSE, 1), &[]),
        }
    }
}

impl Answer {
    /// The datagram, to a client with that session number.
    pub fn write(self, profile: Profile, session: u32) -> Vec<u8> {
        match self {
            Self::Live(bits, format) => write(profile, CONTROL_ANSWER, session, (LIVE, bits), &format.payload()),
            Self::Close => write(profile, CONTROL_ANSWER, session, (CLOSE, 0), &[]),
        }
    }
}

impl LiveFormat {
    /// All 84 bytes: one channel each, middling brightness and contrast, sound of 16 bits at 8 kHz (V's defaults).
    fn payload(self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(FORMAT);
        for half in [0, 0, 0, 0, 1, 1, 0, 0_u16] {
            payload.extend_from_slice(&half.to_le_bytes());
        }
        let format = u32::from_le_bytes(self.format);
        let settings = [self.width, self.height, self.fps, 50, 50, 0, 0, 0, 0, 0, 0, format, 1, 8000, 16, 0, 1];
        for word in settings {
            payload.extend_from_slice(&word.to_le_bytes());
        }
        payload
    }
}

fn write(profile: Profile, command: u16, session: u32, (id, value): (u32, u32), payload: &[u8]) -> Vec<u8> {
    let mut out = profile.peer(command, 20 + payload.len());
    for field in [session, id, value, payload.len() as u32, 0] {
        out.u32(field);
    }
    out.bytes(payload);
    out.0
}
