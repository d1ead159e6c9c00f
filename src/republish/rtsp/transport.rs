//! The `Transport` header (RFC 2326 section 12.39): what a client can take, and which of it we choose.

/// How packets reach a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In the RTSP connection.
    Tcp {
        /// The channel for RTP; `None` lets us choose.
        rtp: Option<u8>,
        /// The channel for RTCP.
        rtcp: Option<u8>,
    },
    /// In datagrams to the address of the RTSP connection.
    Udp {
        /// The viewer's port for RTP.
        rtp: u16,
        /// The viewer's port for RTCP.
        rtcp: u16,
    },
}

/// The first alternative of the header lines that we can serve. `udp` says whether datagrams are switched on.
pub fn choose<'a>(headers: impl Iterator<Item = &'a str>, udp: bool) -> Option<Transport> {
    headers
        .flat_map(|header| header.split(','))
        .find_map(|spec| parse(spec).filter(|found| udp || !matches!(found, Transport::Udp { .. })))
}

fn parse(spec: &str) -> Option<Transport> {
    let mut fields = spec.split(';').map(str::trim);
    let protocol = fields.next()?;
    let tcp = match protocol.to_ascii_uppercase().as_str() {
        "RTP/AVP/TCP" => true,
        "RTP/AVP" | "RTP/AVP/UDP" => false,
        _ => return None,
    };
    let (mut channels, mut ports) = (None, None);
    for field in fields {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "multicast" => return None,
            "interleaved" => channels = Some(pair::<u8>(value)?),
            "client_port" => ports = Some(pair::<u16>(value)?),
            // A recording client; nobody may send us media here.
            "mode" if value.to_ascii_lowercase().contains("record") => return None,
            _ => {}
        }
    }
    if tcp {
        let (rtp, rtcp) = channels.unzip();
        return Some(Transport::Tcp { rtp, rtcp });
    }
    let (rtp, rtcp) = ports.filter(|(rtp, rtcp)| *rtp != 0 && *rtcp != 0)?;
    Some(Transport::Udp { rtp, rtcp })
}

/// `a-b`, or `a` alone, which means `a` and the next.
fn pair<T: std::str::FromStr + TryFrom<u32> + Into<u32> + Copy>(text: &str) -> Option<(T, T)> {
    match text.trim().split_once('-') {
        Some((first, second)) => Some((first.trim().parse().ok()?, second.trim().parse().ok()?)),
        None => {
            let first: T = text.trim().parse().ok()?;
            Some((first, T::try_from(first.into() + 1).ok()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(header: &str) -> Option<Transport> {
        choose(std::iter::once(header), true)
    }

    #[test]
    fn what_players_send() {
        let tcp = |rtp, rtcp| Some(Transport::Tcp { rtp: Some(rtp), rtcp: Some(rtcp) });
        let udp = |rtp, rtcp| Some(Transport::Udp { rtp, rtcp });
        assert_eq!(one("RTP/AVP/TCP;unicast;interleaved=2-3"), tcp(2, 3));
        assert_eq!(one("RTP/AVP/TCP;unicast;interleaved=4"), tcp(4, 5));
        assert_eq!(one("RTP/AVP/TCP;unicast"), Some(Transport::Tcp { rtp: None, rtcp: None }));
        assert_eq!(one("rtp/avp/tcp; unicast; interleaved = 0 - 1"), tcp(0, 1));
        assert_eq!(one("RTP/AVP/UDP;unicast;client_port=5000-5001"), udp(5000, 5001));
        assert_eq!(one("RTP/AVP;unicast;client_port=5000"), udp(5000, 5001));
        assert_eq!(one("RTP/AVP;unicast;client_port=5000-5001;mode=\"PLAY\""), udp(5000, 5001));
    }

    #[test]
    fn what_cannot_be_served_leads_to_the_next_alternative() {
        assert_eq!(one("RTP/AVP;multicast;port=1-2"), None);
        assert_eq!(one("RTP/SAVP;unicast;client_port=1-2"), None);
        assert_eq!(one("RTP/AVP;unicast;client_port=0-1"), None);
        assert_eq!(one("RTP/AVP;unicast;client_port=65535"), None);
        assert_eq!(one("RTP/AVP/TCP;interleaved=255"), None);
        assert_eq!(one("RTP/AVP/TCP;interleaved=a-b"), None);
        assert_eq!(one("RTP/AVP;unicast;client_port=4-5;mode=record"), None);
        let both = "RTP/AVP;unicast;client_port=6-7,RTP/AVP/TCP;interleaved=0-1";
        assert_eq!(choose(std::iter::once(both), false), Some(Transport::Tcp { rtp: Some(0), rtcp: Some(1) }));
        assert_eq!(one(both), Some(Transport::Udp { rtp: 6, rtcp: 7 }));
    }
}
