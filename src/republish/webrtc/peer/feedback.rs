//! What viewers report (RFC 3550 section 6.4, RFC 4585, RFC 5104).

use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::packet::unmarshal;
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;

/// Sequence numbers of one report that are looked at.
const MOST: usize = 512;

/// One thing that a viewer reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Feedback {
    /// It misses these packets.
    Missing {
        /// Of which track.
        ssrc: u32,
        /// Their sequence numbers.
        seqs: Vec<u16>,
    },
    /// It cannot go on without a key picture.
    KeyWanted {
        /// Of which track.
        ssrc: u32,
    },
    /// What it lost in all so far, as far as it counts.
    Lost {
        /// Of which track.
        ssrc: u32,
        /// Packets.
        packets: u32,
    },
    /// It is leaving.
    Goodbye,
}

/// What a compound packet says; what is not understood is left out.
pub(crate) fn read(mut packet: &[u8]) -> Vec<Feedback> {
    let mut found = Vec::new();
    for packet in unmarshal(&mut packet).unwrap_or_default() {
        let packet = packet.as_any();
        if let Some(nack) = packet.downcast_ref::<TransportLayerNack>() {
            let seqs = nack.nacks.iter().flat_map(|pair| pair.packet_list()).take(MOST).collect();
            found.push(Feedback::Missing { ssrc: nack.media_ssrc, seqs });
        } else if let Some(pli) = packet.downcast_ref::<PictureLossIndication>() {
            found.push(Feedback::KeyWanted { ssrc: pli.media_ssrc });
        } else if let Some(fir) = packet.downcast_ref::<FullIntraRequest>() {
            found.extend(fir.fir.iter().take(4).map(|entry| Feedback::KeyWanted { ssrc: entry.ssrc }));
        } else if let Some(report) = packet.downcast_ref::<ReceiverReport>() {
            let lost = |report: &rtc::rtcp::reception_report::ReceptionReport| Feedback::Lost {
                ssrc: report.ssrc,
                packets: report.total_lost,
            };
            found.extend(report.reports.iter().map(lost));
        } else if packet.is::<Goodbye>() {
            found.push(Feedback::Goodbye);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compound_packets_are_understood_and_the_rest_is_passed_over() {
        let report = [&[0x81, 201, 0, 7, 0, 0, 0, 1, 0, 0, 0, 7, 10, 0, 0, 5][..], &[0; 16]].concat();
        let nack = [0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 7, 0, 100, 0, 0b101];
        let pli = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 7];
        let fir = [0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0];
        let bye = [0x81, 203, 0, 1, 0, 0, 0, 1];
        let all = [&report[..], &nack, &pli, &fir, &bye].concat();
        let expected = [
            Feedback::Lost { ssrc: 7, packets: 5 },
            Feedback::Missing { ssrc: 7, seqs: vec![100, 101, 103] },
            Feedback::KeyWanted { ssrc: 7 },
            Feedback::KeyWanted { ssrc: 8 },
            Feedback::Goodbye,
        ];
        assert_eq!(read(&all), expected);
        for cut in 0..all.len() {
            let _ = read(&all[..cut]);
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(mut packet: Vec<u8>, kind in 200_u8..208) {
            let _ = read(&packet);
            if let [first, second, ..] = &mut packet[..] {
                (*first, *second) = (*first & 0x1f | 0x80, kind);
                let _ = read(&packet);
            }
        }
    }
}
