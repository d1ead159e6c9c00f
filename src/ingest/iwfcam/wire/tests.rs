use super::vectors::*;
use super::*;
use proptest::prelude::*;

fn parse(datagram: &[u8]) -> Message<'_> {
    TEG.parse(datagram).expect("a message")
}

fn gateway() -> SocketAddrV4 {
    "192.168.1.50:41773".parse().unwrap()
}

fn token() -> Token {
    Token::from_digits(Token::NO_PASSWORD).unwrap()
}

fn login(ids: Ids) -> Login {
    Login { ids, public: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), local: gateway(), token: token() }
}

fn control(datagram: &[u8]) -> Control<'_> {
    match parse(datagram) {
        Message::Control(control) | Message::ControlAnswer(control) => control,
        other => panic!("{other:?}"),
    }
}

fn media(datagram: &[u8]) -> Media<'_> {
    match parse(datagram) {
        Message::Media(media) => media,
        other => panic!("{other:?}"),
    }
}

/// A vector that is cut before the media, with so many bytes behind it.
fn filled(head: &[u8], count: usize) -> Vec<u8> {
    [head, &vec![0x5a; count]].concat()
}

#[test]
fn v1_and_v2_search() {
    assert_eq!(TEG.search(), V1);
    assert_eq!(parse(V1), Message::Search);
    let found = Found {
        ids: [0, 0],
        media_port: 17_900,
        local: Ipv4Addr::new(192, 168, 1, 21),
        uid: "DEMO001-0011223344AB-1A2B3C".into(),
    };
    let answer = SearchAnswer { valid: true, cameras: vec![found] };
    assert_eq!(parse(V2), Message::SearchAnswer(answer.clone()));
    assert_eq!(answer.write(TEG), V2);
}

#[test]
fn v3_and_v6_login() {
    let ids = Ids([0x1122_3344, 0, 0x0046_8e3f]);
    for (vector, ids) in [(V3, Ids::default()), (V6, ids)] {
        assert_eq!(login(ids).write(TEG), vector);
        assert_eq!(parse(vector), Message::Login(login(ids)));
    }
    let longer = [&V3[..6], &[56, 0], &V3[8..], &[0x41; 16]].concat();
    assert_eq!(parse(&longer), Message::Login(login(Ids::default())), "with a management password");
    assert_eq!(format!("{:?}", token()), "***");
    assert_eq!(Token::from_digits("9E8040834B3A"), Some(token()));
    for wrong in ["", "9e8040834b3", "9e8040834b3aa", "9e8040834b3g", "ü8040834b3a"] {
        assert_eq!(Token::from_digits(wrong), None, "{wrong}");
    }
}

#[test]
fn v4_and_v5_login_answers() {
    let mut answer = LoginAnswer {
        ids: Ids::default(),
        result: LoginResult::Accepted,
        session: 1,
        media_port: 17_900,
        local: Ipv4Addr::new(192, 168, 1, 21),
        clients: 1,
        name: "IPCAM".into(),
    };
    assert_eq!(parse(V4), Message::LoginAnswer(answer.clone()));
    assert_eq!(answer.write(TEG), V4);
    answer.ids = Ids([0x1122_3344, 0, 0x0046_8e3f]);
    (answer.result, answer.session, answer.clients) = (LoginResult::WrongIds, 0, 0);
    assert_eq!(parse(V5), Message::LoginAnswer(answer.clone()));
    assert_eq!(answer.write(TEG), V5);
}

#[test]
fn older_cameras_answer_a_login_in_fewer_bytes() {
    let shortened = |length: usize| {
        let mut bytes = V4[..length].to_vec();
        bytes[6..8].copy_from_slice(&(length as u16 - 8).to_le_bytes());
        bytes
    };
    let answer = |length: usize| match TEG.parse(&shortened(length)) {
        Ok(Message::LoginAnswer(answer)) => (answer.result, answer.session, answer.media_port, answer.name),
        other => panic!("{other:?}"),
    };
    assert_eq!(answer(48), (LoginResult::Accepted, 1, 17_900, String::new()));
    assert_eq!(answer(28), (LoginResult::Accepted, 1, 0, String::new()));
    assert!(matches!(TEG.parse(&shortened(27)), Err(WireError::Short { field: "session number", .. })));
}

#[test]
fn v7_to_v11_requests() {
    let requests = [
        (V7, Request::Live(LIVE_VIDEO)),
        (V8, Request::Live(LIVE_VIDEO | LIVE_AUDIO)),
        (V9, Request::Live(0)),
        (V10, Request::Heartbeat { fps: 15 }),
        (V11, Request::Close),
    ];
    for (vector, request) in requests {
        assert_eq!(request.write(TEG, 1), vector);
        assert!(matches!(parse(vector), Message::Control(_)));
        assert_eq!(control(vector).request(), Some(request));
        assert_eq!((control(vector).session, policy(control(vector).id, 0)), (1, Policy::Needed));
    }
}

#[test]
fn v12_and_v13_what_the_camera_says() {
    let format = LiveFormat { width: 640, height: 480, fps: 15, format: *b"MJPG" };
    assert_eq!(Answer::Live(1, format).write(TEG, 1), V12);
    assert!(matches!(parse(V12), Message::ControlAnswer(_)));
    assert_eq!((control(V12).live_bits(), control(V12).live_format()), (Some(1), Some(format)));
    let notice = Notice::Heartbeat { clients: 1, fps: 15 };
    assert_eq!(notice.write(TEG, 1), V13);
    assert_eq!(control(V13).notice(), Some(notice));
    let close = Answer::Close.write(TEG, 4);
    assert_eq!((control(&close).session, control(&close).is_close()), (4, true));
    assert_eq!(control(&Notice::Close.write(TEG, 4)).notice(), Some(Notice::Close));
}

#[test]
fn v14_a_picture_in_one_piece() {
    let piece = media(V14);
    assert_eq!((piece.stream, piece.number, piece.fragment), (MediaStream::Video, 0x0102, 0));
    let head = PictureHead { total: 172, fragments: 1, width: 16, height: 16, clock: 123_456 };
    assert_eq!((piece.picture_head(), piece.clock()), (Some(head), Some(123_456)));
    assert_eq!(piece.body.len(), 172);
    assert!(piece.body.starts_with(&[0xff, 0xd8]) && piece.body.ends_with(&[0xff, 0xd9]));
    assert!(crate::media::jpeg::parse(piece.body).is_ok());
    assert_eq!(Media { extra: &head.bytes(), ..piece }.write(TEG), V14);
}

#[test]
fn v15_a_picture_in_three_pieces() {
    let pieces = [(V15A, 1032), (V15B, 1032), (V15C, 436)].map(|(head, count)| filled(head, count));
    assert_eq!([&pieces[0].len(), &pieces[1].len(), &pieces[2].len()], [&1072, &1056, &460]);
    let head = PictureHead { total: 2500, fragments: 3, width: 640, height: 480, clock: 5000 };
    for (index, datagram) in pieces.iter().enumerate() {
        let piece = media(datagram);
        assert_eq!((piece.number, usize::from(piece.fragment)), (7, index));
        assert_eq!(piece.picture_head(), (index == 0).then_some(head));
        assert_eq!(piece.write(TEG), *datagram);
    }
    let total: usize = pieces.iter().map(|datagram| media(datagram).body.len()).sum();
    assert_eq!(total, 2500);
}

#[test]
fn v16_a_block_of_sound() {
    let datagram = filled(V16, 512);
    assert_eq!(datagram.len(), 544);
    let block = media(&datagram);
    assert_eq!((block.stream, block.number, block.clock()), (MediaStream::Audio, 8, Some(5021)));
    assert_eq!(&block.body[..4], [0x38, 0xff, 0x14, 0]);
    assert_eq!(crate::media::adpcm::decode(block.body).unwrap().len(), 1024);
    assert_eq!(block.write(TEG), datagram);
}

#[test]
fn v17_and_v18_received_and_missing() {
    let received = Acknowledgement { session: 1, fps: 15, items: vec![Item::Received { number: 7 }] };
    let missing = |fragment| Item::Missing { stream: 0, number: 7, fragment };
    let missing = Acknowledgement { session: 1, fps: 15, items: vec![missing(1), missing(2)] };
    for (vector, acknowledgement) in [(V17, received), (V18, missing)] {
        assert_eq!(acknowledgement.write(TEG), vector);
        assert_eq!(parse(vector), Message::Acknowledgement(acknowledgement));
    }
}

/// What must be dropped without harm.
pub(crate) fn v19() -> Vec<Vec<u8>> {
    let with = |at: usize, bytes: &[u8]| {
        let mut datagram = filled(V15B, 1032);
        datagram[at..at + bytes.len()].copy_from_slice(bytes);
        datagram
    };
    vec![
        Vec::new(),
        vec![0x32, 0x54, 0x45, 0x47],
        V15A[..20].to_vec(),
        with(20, &[0xff, 0xff, 0xff, 0x7f]),
        with(6, &[0x01, 0x00]),
        with(0, &[0x39, 0x54, 0x45, 0x47]),
        with(18, &[0xff, 0xff]),
    ]
}

#[test]
fn v19_is_dropped() {
    let errors: Vec<_> = v19().iter().map(|datagram| TEG.parse(datagram).unwrap_err()).collect();
    let short = |error: &WireError| matches!(error, WireError::Short { .. });
    assert!(short(&errors[0]) && short(&errors[1]) && short(&errors[2]) && short(&errors[4]), "{errors:?}");
    assert_eq!(errors[3], WireError::Value { field: "media bytes", value: 0x7fff_ffff });
    assert_eq!(errors[5], WireError::Signature);
    assert_eq!(errors[6], WireError::Value { field: "fragment number", value: 0xffff });
}

#[test]
fn v20_is_never_to_be_sent() {
    assert_eq!(policy(control(V20_WIFI).id, control(V20_WIFI).value), Policy::Never);
    assert_eq!(policy(control(V20_REBOOT).id, control(V20_REBOOT).value), Policy::OnRequest);
    assert_eq!((control(V20_WIFI).request(), control(V20_REBOOT).request()), (None, None));
    let never = [0x0a, 0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1f, 0x20, 0x51];
    assert!(never.iter().all(|id| (0..=6).all(|value| policy(*id, value) == Policy::Never)));
    assert_eq!((policy(0x13, 2), policy(0x13, 3)), (Policy::Never, Policy::OnRequest));
}

#[test]
fn a_longer_datagram_is_read_and_a_shorter_one_is_not() {
    for vector in [V1, V2, V3, V4, V7, V12, V14, V17, V18] {
        let longer = [vector, &[0xaa; 9]].concat();
        assert_eq!(TEG.parse(&longer), TEG.parse(vector));
        assert!(TEG.parse(&vector[..vector.len() - 1]).is_err());
    }
}

#[test]
fn the_older_library_differs_by_its_signatures_only() {
    let numbered = Login { ids: Ids::default(), ..login(Ids::default()) }.write(NUMBERED);
    assert_eq!((&numbered[..4], &numbered[4..]), ([0x01, 0xee, 0xaa, 0x99].as_slice(), &V3[4..]));
    assert!(NUMBERED.parse(&numbered).is_ok() && TEG.parse(&numbered).is_err());
}

proptest! {
    #[test]
    fn anything_can_come(datagram in prop::collection::vec(any::<u8>(), 0..200), vector in 0..9_usize) {
        let _ = TEG.parse(&datagram);
        // And so behind a header that is right.
        let header = [V2, V3, V4, V7, V12, V14, V16, V17, V18][vector];
        let mut bytes = header[..8].to_vec();
        bytes[6..8].copy_from_slice(&(datagram.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&datagram);
        let _ = TEG.parse(&bytes);
    }

    #[test]
    fn media_comes_back(
        session: u32, number: u16, fragment in 0..2048_u16, stream in 0..2_u16,
        extra in prop::collection::vec(any::<u8>(), 0..20), body in prop::collection::vec(any::<u8>(), 0..1100),
    ) {
        let stream = if stream == 0 { MediaStream::Video } else { MediaStream::Audio };
        let piece = Media { session, stream, number, fragment, extra: &extra, body: &body };
        let datagram = piece.write(TEG);
        prop_assert_eq!(TEG.parse(&datagram), Ok(Message::Media(piece)));
    }

    #[test]
    fn acknowledgements_come_back(session: u32, fps: u8, fragments in prop::collection::vec(any::<(u16, u16)>(), 0..255)) {
        let item = |(number, fragment)| match fragment {
            0 => Item::Received { number },
            fragment => Item::Missing { stream: 0, number, fragment },
        };
        let sent = Acknowledgement { session, fps, items: fragments.into_iter().map(item).collect() };
        let datagram = sent.write(TEG);
        prop_assert_eq!(TEG.parse(&datagram), Ok(Message::Acknowledgement(sent)));
    }

    #[test]
    fn logins_come_back(ids: [u32; 3], ip: u32, port: u16, session: i32, result in 0..6_u32, name in "[A-Za-z0-9 ]{0,32}") {
        let login = Login { local: SocketAddrV4::new(ip.into(), port), ..login(Ids(ids)) };
        let datagram = login.write(TEG);
        prop_assert_eq!(TEG.parse(&datagram), Ok(Message::Login(login)));
        let result = match result {
            0 => LoginResult::Accepted,
            1 => LoginResult::WrongIds,
            2 => LoginResult::Full,
            3 => LoginResult::WrongToken,
            other => LoginResult::Other(other),
        };
        let answer = LoginAnswer { ids: Ids(ids), result, session, media_port: port, local: ip.into(), clients: 2, name };
        let datagram = answer.write(TEG);
        prop_assert_eq!(TEG.parse(&datagram), Ok(Message::LoginAnswer(answer)));
    }
}
