//! Headers and datagrams of mini doorbells and of whoever talks to them.

use fanlight::ingest::mini_doorbell::BellId;
use fanlight::ingest::mini_doorbell::wire::{self, Carrier, HEADER, Header, function};

/// Reads the input as a header of either kind, as a datagram, and as an id. What can be written comes back the same.
pub fn check(data: &[u8]) {
    for carrier in [Carrier::Tcp, Carrier::Udp] {
        if let Ok(header) = Header::parse(data, carrier) {
            assert!(data.len() >= HEADER);
            let again = header.write(carrier);
            assert_eq!(Header::parse(&again, carrier), Ok(header));
            assert_eq!(&again[..4], &data[..4]);
            let _ = header.is_consistent();
        }
    }
    if let Ok((header, extra)) = wire::datagram(data) {
        assert_eq!(extra.len(), usize::from(header.extra));
        assert!(HEADER + extra.len() <= data.len());
        if let (function::SET_UPLOAD, Ok(address)) = (header.function, <[u8; 4]>::try_from(extra)) {
            let again = wire::set_upload(header.id, header.sequence, address.into());
            let (other, octets) = wire::datagram(&again).expect("our own datagram");
            assert_eq!((other.id, other.sequence, octets), (header.id, header.sequence, extra));
        }
    }
    if let Some(id) = std::str::from_utf8(data).ok().and_then(BellId::parse) {
        assert_eq!(BellId::parse(&id.to_string()), Some(id));
    }
}
