use super::*;
use crate::ingest::iwfcam::wire::vectors::{V1, V3, V4, V5, V6, V8, V9, V11, V12, V20_REBOOT, V20_WIFI};
use crate::ingest::iwfcam::wire::{LIVE_AUDIO, LIVE_VIDEO, Message, Notice, Request, TEG, vectors::V2};

fn at(address: &str) -> SocketAddrV4 {
    address.parse().unwrap()
}

fn gateway() -> SocketAddrV4 {
    at("192.168.1.50:41773")
}

fn camera(options: Options) -> (Device, Instant) {
    let now = Instant::now();
    (Device::new(options, at("192.168.1.21:17900"), now), now)
}

/// A picture of three pieces.
const PICTURE: [u8; 2500] = [0x5a; 2500];

#[test]
fn it_speaks_the_vectors() {
    let (mut device, now) = camera(Options::default());
    let bytes = |out: Vec<Datagram>| out.into_iter().map(|datagram| datagram.bytes).collect::<Vec<_>>();
    assert_eq!(bytes(device.received(Port::Discovery, gateway(), V1, now)), [V2, V2, V2]);
    assert!(device.received(Port::Media, gateway(), V1, now).is_empty(), "not on that port");
    // The login is answered, and with it comes a live answer without any bits.
    let answers = bytes(device.received(Port::Media, gateway(), V3, now));
    assert_eq!((answers.len(), answers[0].as_slice()), (2, V4));
    let live = bytes(device.received(Port::Media, gateway(), &Request::Live(LIVE_VIDEO).write(TEG, 1), now));
    assert_eq!(live, [V12]);
    assert_eq!(device.picture(&PICTURE, now).len(), 3);
    assert!(device.sound(&[0; 516], now).is_empty(), "not asked for");
    device.received(Port::Media, gateway(), V8, now);
    assert_eq!(device.sound(&[0; 516], now)[0].bytes.len(), 544);
    device.received(Port::Media, gateway(), V9, now);
    assert!(device.picture(&PICTURE, now).is_empty());
    assert_eq!(device.received(Port::Media, gateway(), V11, now).len(), 1);
    assert_eq!(device.clients().count(), 0);
}

#[test]
fn ids_and_token_are_checked() {
    let ids = Ids([0x1122_3344, 0, 0x0046_8e3f]);
    let (mut device, now) = camera(Options { ids, ..Options::default() });
    let out = device.received(Port::Media, gateway(), V3, now);
    assert_eq!((out.len(), out[0].bytes.as_slice()), (1, V5));
    assert_eq!(device.received(Port::Media, gateway(), V6, now).len(), 2);
    let (mut device, now) = camera(Options { token: "6ddd60335190".into(), ..Options::default() });
    device.received(Port::Media, gateway(), V3, now);
    assert_eq!(device.happened(), [Happened::LoggedIn(gateway(), LoginResult::WrongToken)]);
}

#[test]
fn places_are_by_address_and_time_out() {
    let (mut device, now) = camera(Options { slots: 2, ..Options::default() });
    let login = |device: &mut Device, port: u16, now| {
        let mut bytes = V3.to_vec();
        bytes[26..28].copy_from_slice(&port.to_be_bytes());
        let from = SocketAddrV4::new(*gateway().ip(), port);
        match TEG.parse(&device.received(Port::Media, from, &bytes, now)[0].bytes) {
            Ok(Message::LoginAnswer(answer)) => (answer.result, answer.session),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(login(&mut device, 1000, now), (LoginResult::Accepted, 1));
    assert_eq!(login(&mut device, 2000, now), (LoginResult::Accepted, 2));
    assert_eq!(login(&mut device, 3000, now), (LoginResult::Full, 0));
    assert_eq!(login(&mut device, 1000, now), (LoginResult::Accepted, 1), "the same client");
    // Commands count with the right number from the right address only.
    let first = SocketAddrV4::new(*gateway().ip(), 1000);
    let second = SocketAddrV4::new(*gateway().ip(), 2000);
    let live = Request::Live(LIVE_VIDEO | LIVE_AUDIO);
    assert!(device.received(Port::Media, second, &live.write(TEG, 1), now).is_empty());
    assert!(!device.received(Port::Media, first, &live.write(TEG, 1), now).is_empty());
    assert_eq!(device.picture(&PICTURE, now).len(), 3);
    // A repeated login takes the pictures away.
    login(&mut device, 1000, now);
    assert!(device.picture(&PICTURE, now).is_empty());
    device.received(Port::Media, first, &live.write(TEG, 1), now);
    // The live one is dropped after 6 s and told so, the idle one after 45 s.
    assert!(device.expire(now + Duration::from_millis(5_999)).is_empty());
    let gone = device.expire(now + LIVE_LIMIT);
    assert_eq!((gone.len(), gone[0].bytes.clone()), (1, Notice::Close.write(TEG, 1)));
    assert_eq!(device.clients().collect::<Vec<_>>(), [(2, second)]);
    assert_eq!(device.expire(now + Duration::from_secs(45)).len(), 1);
}

#[test]
fn forbidden_commands_are_marked_and_not_carried_out() {
    let (mut device, now) = camera(Options::default());
    device.received(Port::Media, gateway(), V3, now);
    device.happened();
    for vector in [V20_WIFI, V20_REBOOT] {
        assert!(device.received(Port::Media, gateway(), vector, now).is_empty());
    }
    let happened = device.happened();
    assert!(happened.contains(&Happened::Controlled(0x0e, 2, Policy::Never)));
    assert!(happened.contains(&Happened::Controlled(0x50, 0, Policy::OnRequest)));
    assert_eq!(device.clients().count(), 1);
}

#[test]
fn pieces_are_sent_again_where_the_camera_can() {
    for answer_missing in [true, false] {
        let (mut device, now) = camera(Options { answer_missing, first_number: 6, ..Options::default() });
        device.received(Port::Media, gateway(), V3, now);
        device.received(Port::Media, gateway(), V8, now);
        let sent = device.picture(&PICTURE, now);
        let asked = crate::ingest::iwfcam::wire::vectors::V18;
        let again = device.received(Port::Media, gateway(), asked, now);
        let expected = if answer_missing { sent[1..].to_vec() } else { Vec::new() };
        assert_eq!(again, expected);
    }
}

#[test]
fn a_reboot_forgets_clients_and_numbers() {
    let (mut device, now) = camera(Options { first_number: 65_534, ..Options::default() });
    device.received(Port::Media, gateway(), V3, now);
    device.received(Port::Media, gateway(), V8, now);
    let number = |out: &[Datagram]| out[0].piece.unwrap().number;
    let numbers: Vec<_> = (0..3).map(|_| number(&device.picture(&PICTURE, now))).collect();
    assert_eq!(numbers, [65_535, 0, 1]);
    device.reboot(now);
    assert!(device.received(Port::Media, gateway(), V8, now).is_empty());
    device.received(Port::Media, gateway(), V3, now);
    device.received(Port::Media, gateway(), V8, now);
    assert_eq!(number(&device.picture(&PICTURE, now)), 65_535);
}
