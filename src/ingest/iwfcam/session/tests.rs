//! Sessions with a simulated camera, in invented time.

mod page;
mod world;

use super::*;
use crate::ingest::iwfcam::Retransmission;
use crate::ingest::iwfcam::wire::tests::v19;
use crate::ingest::iwfcam::wire::vectors::{V3, V4, V5, V6, V8, V9, V11, V20_REBOOT, V20_WIFI};
use crate::ingest::iwfcam::wire::{Ids, Policy, Token, policy};
use crate::ingest::session::Sample;
use crate::media::{Codec, TrackInfo};
use crate::simulate::iwfcam::{Datagram, Device, Faults, Happened, Network, Options, Port, Scene, Sound, bars};
use world::*;

#[test]
fn pictures_and_sound_come_at_once_and_go_on() {
    let mut world = World::new(config(), options());
    let first = world.until(|world| !world.pictures().is_empty());
    assert!(first < ms(300), "{first:?}");
    world.run(20_000);
    world.check();
    assert_eq!((world.tracks.len(), world.tracks[0].codec, world.tracks[1].codec), (2, Codec::Jpeg, Codec::Pcmu));
    let video = world.tracks[0].video().unwrap();
    assert_eq!((video.width, video.height, video.reorder_depth), (64, 48, Some(0)));
    let pictures = world.pictures();
    assert!((300..310).contains(&pictures.len()), "{}", pictures.len());
    assert!(pictures.windows(2).all(|pair| (pair[1].ticks - pair[0].ticks - 66 * 90).abs() < 90));
    assert!(pictures.iter().all(|sample| sample.random_access && !sample.discontinuity));
    let sound = world.samples.iter().filter(|(_, track, _)| *track == 1);
    let octets: usize = sound.map(|(_, _, sample)| sample.payload.len()).sum();
    assert!(octets.abs_diff(20 * 8000) < 2500, "{octets} octets of 20 s");
    assert_eq!((world.lost, world.logins()), (0, 1));
    // The live request is the keepalive: once in 2 s.
    let live = world.sent.iter().filter(|(_, bytes)| bytes.ends_with(&V8[28..])).count();
    assert!((9..=13).contains(&live), "{live}");
}

#[test]
fn the_bytes_are_those_of_the_vectors() {
    let options = Options { ids: Ids([0x1122_3344, 0, 0x0046_8e3f]), ..options() };
    let memory = Memory::default();
    memory.change(|memory| memory.port = Some(41_773));
    let mut world = World::with_memory(config(), options, memory);
    world.until(World::playing);
    world.session.close(world.now);
    world.poll();
    world.until(|world| world.ended.is_some());
    let sent: Vec<&[u8]> = world.sent.iter().map(|(_, bytes)| bytes.as_ref()).collect();
    for vector in [V3, V6, V8, V9, V11] {
        assert!(sent.contains(&vector), "{vector:02x?}");
    }
    let at = |vector: &[u8]| sent.iter().position(|bytes| *bytes == vector).unwrap();
    assert!(at(V3) < at(V6) && at(V6) < at(V8) && at(V8) < at(V9) && at(V9) < at(V11));
    for never in [V20_WIFI, V20_REBOOT] {
        assert!(!sent.contains(&never));
    }
}

#[test]
fn a_session_by_hand() {
    // Without the simulator: what is said when, to the millisecond, with the vectors as the camera's words.
    let start = Instant::now();
    let memory = Memory::default();
    memory.change(|memory| memory.port = Some(41_773));
    let mut session = Iwfcam::new(config(), memory, start);
    let drain = |session: &mut Iwfcam| -> (Vec<Output>, Option<Instant>) {
        let mut out = Vec::new();
        loop {
            match session.poll() {
                Output::Wait(wake) => return (out, wake),
                other => out.push(other),
            }
        }
    };
    let camera: SocketAddr = "192.168.1.21:17900".parse().unwrap();
    drain(&mut session);
    session.opened(SEARCH, "0.0.0.0:50000".parse().unwrap(), start).unwrap();
    let (_, wake) = drain(&mut session);
    assert_eq!(wake, Some(start + ms(300)));
    let answer = crate::ingest::iwfcam::wire::vectors::V2;
    session.received(SEARCH, "192.168.1.99:10104".parse().unwrap(), answer, start + ms(3)).unwrap();
    assert!(drain(&mut session).0.is_empty(), "not our camera's answer");
    session.received(SEARCH, "192.168.1.21:10104".parse().unwrap(), answer, start + ms(4)).unwrap();
    let (out, _) = drain(&mut session);
    assert!(matches!(out.last(), Some(Output::Open(MEDIA, Endpoint::Udp { local, .. })) if local.port() == 41_773));
    session.opened(MEDIA, "192.168.1.50:41773".parse().unwrap(), start + ms(5)).unwrap();
    let is = |output: &Output, bytes: &[u8]| matches!(output, Output::Send { bytes: sent, .. } if sent == bytes);
    let (out, wake) = drain(&mut session);
    assert!(out.len() == 1 && is(&out[0], V3));
    assert_eq!(wake, Some(start + ms(25)), "the copy");
    session.received(MEDIA, camera, V5, start + ms(9)).unwrap();
    let (out, _) = drain(&mut session);
    assert!(out.len() == 1 && is(&out[0], V6), "once more with the right ids, at once");
    session.received(MEDIA, camera, V5, start + ms(10)).unwrap();
    assert!(drain(&mut session).0.is_empty(), "the first copy's answer");
    session.received(MEDIA, camera, V4, start + ms(12)).unwrap();
    let (out, wake) = drain(&mut session);
    assert!(out.len() == 1 && is(&out[0], V8));
    assert_eq!(wake, Some(start + ms(32)), "no copy of the login: it would take the pictures away");
    session.close(start + ms(13));
    let (out, wake) = drain(&mut session);
    assert!(out.len() == 1 && is(&out[0], V9));
    assert_eq!(wake, Some(start + ms(28)));
    for (at, bytes) in [(28, V9), (43, V11), (58, V11)] {
        session.timeout(start + ms(at)).unwrap();
        let (out, _) = drain(&mut session);
        assert!(out.len() == 1 && is(&out[0], bytes), "{at}");
    }
    session.timeout(start + ms(313)).unwrap();
    assert!(matches!(drain(&mut session).0.as_slice(), [Output::Done]));
}

#[test]
fn v19_does_no_harm_in_any_state() {
    let mut world = World::new(config(), options());
    for _ in 0..400 {
        world.run(7);
        for (link, _) in world.links.clone() {
            for datagram in v19() {
                let from = SocketAddr::from((CAMERA, 17_900));
                world.input(|session, now| session.received(link, from, &datagram, now));
            }
        }
    }
    assert!(world.playing());
    world.check();
    assert_eq!(world.lost, 0);
}

#[test]
fn first_copies_that_are_not_heard_are_repeated() {
    for ignore_first in 1..=4 {
        let mut world = World::new(config(), Options { ignore_first, ..options() });
        let took = world.until(World::playing);
        assert!(took < ms(4_500), "{ignore_first}: {took:?}");
        world.run(3_000);
        world.session.close(world.now);
        world.poll();
        world.until(|world| world.ended.is_some());
        world.check();
        assert_eq!((world.ended.clone(), world.lost), (Some(Ok(())), 0));
    }
}

/// Share of pictures of `pieces` pieces that arrive whole where each piece is lost with the chance `loss`, independently:
/// (1 - loss)^pieces. Less four standard deviations of a sample of `count`.
fn expected(loss: f64, pieces: usize, count: usize) -> (f64, f64) {
    let share = (1.0 - loss).powi(pieces as i32);
    (share, share - 4.0 * (share * (1.0 - share) / count as f64).sqrt())
}

#[test]
fn loss_tears_no_picture_and_loses_none_that_came_whole() {
    for (loss, seed) in [(0.01, 1), (0.05, 2), (0.1, 3)] {
        for no_head in [false, true] {
            let faults = Faults { loss, reorder: 0.03, duplicate: 0.03, malformed: 0.02, seed };
            let fragment_size = 150;
            let mut world = World::new(config(), Options { faults, no_head, fragment_size, ..options() });
            world.until(World::playing);
            let (before, whole_before) = (world.pictures().len(), world.whole.len());
            let sent_before = world.counter;
            world.run(60_000);
            world.check();
            let pieces = world.scene.picture(0).len().div_ceil(fragment_size);
            let sent = (world.counter - sent_before) as usize;
            let (came, whole) = (world.pictures().len() - before, world.whole.len() - whole_before);
            let share = came as f64 / sent as f64;
            let (formula, least) = expected(loss, pieces, sent);
            println!(
                "loss {loss}: {share:.3} of {sent} pictures of {pieces} pieces published, (1 - p)^k = {formula:.3}"
            );
            assert!(share >= least, "{share:.3} of the pictures came, {formula:.3} arrive whole ({pieces} pieces)");
            // The last one may still be waited with; the first ones came before the tracks were announced.
            assert!(came + 1 >= whole, "{came} published of {whole} that came whole");
            assert!(world.lost > 0);
        }
    }
}

#[test]
fn searches_that_are_not_heard_are_repeated() {
    for ignore_searches in 1..=4 {
        let mut world = World::new(config(), Options { ignore_searches, ..options() });
        let took = world.until(World::playing);
        assert!(took < ms(5_300), "{ignore_searches}: {took:?}");
    }
}

#[test]
fn whatever_kept_the_camera_away_it_is_back_after_the_slot_timeout_and_two_seconds() {
    for (step, reboot) in (0..14).zip([true, false].into_iter().cycle()) {
        let off = 2_000 + step * 3_370;
        let memory = Memory::default();
        let mut world = World::with_memory(config(), Options { slots: 1, ..options() }, memory.clone());
        let mut supervisor = Supervised::new(memory);
        world.until(World::playing);
        world.on = false;
        world.run_supervised(off, &mut supervisor);
        world.on = true;
        if reboot {
            world.device.reboot(world.now);
        }
        let back = world.now;
        while !world.playing() {
            world.run_supervised(1, &mut supervisor);
            assert!(world.now < back + ms(8_000), "away for {off} ms");
        }
        world.check();
    }
}

#[test]
fn a_second_gateway_has_the_place_as_soon_as_the_first_is_gone() {
    let rival = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 60), 5000);
    let token = Token::from_digits(Token::NO_PASSWORD).unwrap();
    let public = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let login = Login { ids: Ids::default(), public, local: rival, token }.write(TEG);
    for stays in [2_000, 9_000, 12_300, 14_100, 31_700] {
        let memory = Memory::default();
        let mut world = World::with_memory(config(), Options { slots: 1, ..options() }, memory.clone());
        let mut supervisor = Supervised::new(memory);
        let _ = world.device.received(Port::Media, rival, &login, world.now);
        for _ in 0..stays / 100 {
            world.run_supervised(100, &mut supervisor);
            // It stays as long as it is heard.
            let _ = world.device.received(Port::Media, rival, &login, world.now);
        }
        assert!(world.pictures().is_empty(), "there is one place");
        // Its goodbye frees the place at once.
        let close = Request::Close.write(TEG, 1);
        let _ = world.device.received(Port::Media, rival, &close, world.now);
        let gone = world.now;
        while !world.playing() {
            world.run_supervised(1, &mut supervisor);
            assert!(world.now < gone + ms(2_500), "after {stays} ms");
        }
    }
}

#[test]
fn asking_again_repairs_what_the_network_lost() {
    for retransmission in [Retransmission::On, Retransmission::Auto] {
        let faults = Faults { loss: 0.1, seed: 5, ..Faults::default() };
        let options = Options { faults, fragment_size: 150, answer_missing: true, ..options() };
        let mut world = World::new(Config { retransmission, ..config() }, options);
        world.until(World::playing);
        let before = world.pictures().len();
        world.run(20_000);
        world.check();
        let share = (world.pictures().len() - before) as f64 / (20_000.0 / 66.0);
        assert!(share > 0.97, "{share:.3} of the pictures came");
        let asked = world.sent.iter().filter(|(_, bytes)| matches!(TEG.parse(bytes), Ok(Message::Acknowledgement(_))));
        assert!(asked.count() <= 10 * 21, "ten datagrams a second");
    }
}

#[test]
fn a_camera_that_does_not_understand_is_not_asked_for_long() {
    let faults = Faults { loss: 0.1, seed: 6, ..Faults::default() };
    let options = Options { faults, fragment_size: 150, ..options() };
    let mut world = World::new(Config { retransmission: Retransmission::Auto, ..config() }, options);
    world.until(World::playing);
    world.run(10_000);
    world.check();
    let asked: Vec<_> = world.happened.iter().filter(|happened| matches!(happened, Happened::Asked(_))).collect();
    assert!((1..=4).contains(&asked.len()), "{asked:?}");
}

#[test]
fn a_goodbye_frees_the_place_and_the_next_session_starts_at_once() {
    let memory = Memory::default();
    let options = Options { slots: 1, ..options() };
    let mut world = World::with_memory(config(), options, memory.clone());
    world.until(World::playing);
    world.session.close(world.now);
    world.poll();
    let took = world.until(|world| world.ended.is_some());
    assert!(took < ms(60), "{took:?}");
    assert_eq!((world.device.clients().count(), memory.now().session), (0, None));
    world.restart(config(), memory);
    assert!(world.until(World::playing) < ms(300));
}

#[test]
fn a_killed_gateway_is_back_at_once_by_its_port() {
    // Nobody said goodbye, and nothing is remembered but what the camera's name tells.
    let mut world = World::new(config(), Options { slots: 1, ..options() });
    world.until(World::playing);
    world.run(500);
    world.restart(config(), Memory::default());
    assert!(world.until(World::playing) < ms(300));
    assert_eq!(world.device.clients().map(|(session, _)| session).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_killed_gateway_whose_port_is_taken_is_back_when_its_place_times_out() {
    for slots in [1, 2] {
        let mut world = World::new(config(), Options { slots, ..options() });
        world.until(World::playing);
        world.run(500);
        let (_, port) = world.links[0];
        world.taken.push(port);
        world.restart(config(), Memory::default());
        let took = world.until(World::playing);
        let most = if slots == 1 { ms(8_000) } else { ms(300) };
        assert!(took < most, "{slots} places: {took:?}");
        world.run(500);
        world.check();
        let last = world.session.session;
        assert_eq!(last, Some(if slots == 1 { 1 } else { 2 }));
    }
}

#[test]
fn an_old_session_is_closed_by_its_number_before_the_next_login() {
    let memory = Memory::default();
    let mut world = World::with_memory(config(), options(), memory.clone());
    world.until(World::playing);
    world.restart(config(), memory);
    let before = world.happened.len();
    world.until(World::playing);
    let gone = world.happened[before..].iter().position(|happened| *happened == Happened::Gone(1)).unwrap();
    let login = world.happened[before..].iter().position(|happened| matches!(happened, Happened::LoggedIn(..)));
    assert!(gone < login.unwrap());
}

#[test]
fn a_camera_that_was_off_is_back_by_itself() {
    let mut world = World::new(config(), options());
    world.until(World::playing);
    for (off, reboot) in [(4_000, false), (4_000, true), (9_000, true), (13_000, true), (18_000, true)] {
        world.on = false;
        world.run(off);
        // Who comes then must not be shown the last pictures as if they were live.
        assert_eq!(world.away.is_some(), off > 7_000, "off for {off} ms");
        world.on = true;
        if reboot {
            world.device.reboot(world.now);
        }
        let took = world.until(World::playing);
        assert!(took <= ms(8_000), "off for {off} ms: {took:?}");
        assert!(world.ended.is_none() && world.away.is_none());
        world.run(2_000);
        assert!(world.playing());
    }
    world.check();
}

#[test]
fn a_camera_that_is_not_there_ends_the_session_in_words() {
    let mut world = World::new(config(), options());
    world.on = false;
    world.until(|world| world.ended.is_some());
    assert_eq!(world.error().code, ReasonCode::Unreachable);
    assert!(world.error().text.contains("192.168.1.21 does not answer a search (UDP port 10104)"));
    // Searches at 0, 0.3, 1, 2 and 5 s.
    let at: Vec<_> = world.sent.iter().map(|(at, _)| (*at - world.started).as_millis()).collect();
    assert_eq!(at, [0, 300, 1_000, 2_000, 5_000]);
}

#[test]
fn a_uid_finds_a_camera_whose_address_changed() {
    let uid = Options::default().uid;
    let config = Config { broadcast: Ipv4Addr::new(192, 168, 1, 255), ..Config::named(uid.to_lowercase()) };
    let mut world = World::new(config.clone(), options());
    assert!(world.until(World::playing) < ms(300));
    world.on = false;
    world.run(2_000);
    world.address = Ipv4Addr::new(192, 168, 1, 77);
    world.device.reboot(world.now);
    world.on = true;
    // It is missed for 6 s before it is searched for.
    let took = world.until(World::playing);
    assert!(took < ms(4_500), "{took:?}");
    // And where it lets in but sends nothing, that is said after a while.
    world.pace = u64::MAX;
    world.run(1_000);
    let took = world.until(|world| world.ended.is_some());
    assert_eq!(world.error().code, ReasonCode::Silent);
    assert!(took < ms(40_000), "{took:?}");
    // A new session knows where it was, and finds it elsewhere all the same.
    let other = World::new(Config { uid: Some("OTHER".into()), ..config }, options());
    let mut other = other;
    other.until(|world| world.ended.is_some());
    assert!(other.error().text.contains("no camera with the UID OTHER"), "{}", other.error());
}

#[test]
fn a_camera_that_answers_no_search_is_reached_by_its_port() {
    let mut world = World::new(Config { media_port: Some(17_900), ..config() }, options());
    // The port for searches is filtered.
    for _ in 0..9_000 {
        world.to_camera.retain(|(_, _, to, _)| to.port() != 10_104);
        world.step();
    }
    assert!(world.playing());
}

#[test]
fn full_wrong_ids_and_wrong_token_have_their_own_words() {
    // Full, and it stays so: a second client keeps its place alive.
    let mut world = World::new(config(), Options { slots: 1, ..options() });
    let rival = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 60), 5000);
    let token = Token::from_digits(Token::NO_PASSWORD).unwrap();
    let public = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let login = Login { ids: Ids::default(), public, local: rival, token }.write(TEG);
    while world.ended.is_none() {
        let _ = world.device.received(Port::Media, rival, &login, world.now);
        world.run(1_000);
    }
    assert_eq!(world.error().code, ReasonCode::Busy);
    assert!(world.error().text.contains("no place"), "{}", world.error());
    let passed = world.now - world.started;
    assert!(passed >= ms(12_000) && passed < ms(14_000), "{passed:?}");
    assert!(world.logins() < 50, "not hammered: {}", world.logins());

    let mut world = World::new(config(), Options { token: "6ddd60335190".into(), ..options() });
    world.until(|world| world.ended.is_some());
    assert_eq!(world.error().code, ReasonCode::Denied);
    assert!(world.error().text.contains("`token`") && !world.error().text.contains(Token::NO_PASSWORD));
    assert!(world.logins() <= 2);

    let given = Config { token: Some(crate::config::Secret::new("6ddd60335190")), ..config() };
    let mut world = World::new(given, Options { token: "6ddd60335190".into(), ..options() });
    world.until(World::playing);
}

#[test]
fn ids_are_remembered() {
    let memory = Memory::default();
    let options = Options { ids: Ids([7, 0, 9]), ..options() };
    let mut world = World::with_memory(config(), options, memory.clone());
    world.until(World::playing);
    assert!(
        world.happened.contains(&Happened::LoggedIn(
            SocketAddrV4::new(GATEWAY, memory.now().port.unwrap()),
            LoginResult::WrongIds
        ))
    );
    world.happened.clear();
    world.restart(config(), memory);
    world.until(World::playing);
    assert!(world.happened.iter().all(|happened| !matches!(happened, Happened::LoggedIn(_, LoginResult::WrongIds))));
}

#[test]
fn a_camera_that_closes_is_logged_into_again_but_not_for_ever() {
    let mut world = World::new(config(), options());
    world.until(World::playing);
    let kick = |world: &mut World| {
        let (session, _) = world.device.clients().next().unwrap();
        let close = world.device.drop_client(session).into_iter().collect();
        world.arrives(close);
        world.run(5);
    };
    kick(&mut world);
    assert!(world.until(|world| world.device.clients().count() == 1) < ms(50), "at once");
    for _ in 0..3 {
        world.until(|world| world.playing() && world.device.clients().count() == 1);
        kick(&mut world);
    }
    assert_eq!(world.error().code, ReasonCode::Busy);
    assert!(world.error().text.contains("second gateway"), "{}", world.error());
}

#[test]
fn h264_models_are_refused_in_words_and_their_place_is_freed() {
    let mut world = World::new(config(), options());
    let unit = [&[0, 0, 0, 1, 0x67, 0x42], [0x55; 3000].as_slice()].concat();
    while world.ended.is_none() {
        world.pace = u64::MAX;
        world.run(66);
        let out = world.device.picture(&unit, world.now);
        world.arrives(out);
    }
    assert_eq!(world.error().code, ReasonCode::Unsupported);
    assert!(world.error().text.contains("H.264"));
    assert_eq!(world.device.clients().count(), 0);
}

#[test]
fn a_camera_that_lets_in_but_sends_nothing_ends_the_session() {
    let mut world = World::new(config(), options());
    world.pace = u64::MAX;
    world.until(|world| world.ended.is_some());
    assert_eq!(world.error().code, ReasonCode::Silent);
    assert!(world.error().text.contains("sends no pictures"));
    let passed = world.now - world.started;
    assert!(passed > ms(15_000) && passed < ms(50_000), "{passed:?}");
}

#[test]
fn media_of_another_session_is_not_ours() {
    let mut world = World::new(config(), options());
    world.until(World::playing);
    let before = world.pictures().len();
    let strange = Media {
        session: 2,
        stream: super::super::wire::MediaStream::Video,
        number: 9,
        fragment: 0,
        extra: &[],
        body: &[0xff, 0xd8, 0xff, 0xd9],
    };
    let bytes = strange.write(TEG);
    let from = SocketAddr::from((CAMERA, 17_900));
    world.input(|session, now| session.received(MEDIA, from, &bytes, now));
    // And from an address that is not the camera's.
    let ours = Media { session: 1, ..strange }.write(TEG);
    let elsewhere = SocketAddr::from((Ipv4Addr::new(192, 168, 1, 22), 17_900));
    world.input(|session, now| session.received(MEDIA, elsewhere, &ours, now));
    world.run(2_000);
    world.check();
    assert!(world.pictures().len() > before + 28);
    assert_eq!(world.lost, 0);
}

#[test]
fn a_camera_without_a_microphone_has_one_track() {
    let memory = Memory::default();
    let mut world = World::with_memory(config(), Options { no_audio: true, ..options() }, memory.clone());
    let took = world.until(|world| !world.pictures().is_empty());
    assert!(took > ms(400) && took < ms(700), "{took:?}");
    world.run(6_000);
    world.check();
    assert_eq!((world.tracks.len(), memory.now().has_sound), (1, Some(false)));
    // The next session knows.
    world.restart(config(), memory);
    assert!(world.until(|world| !world.pictures().is_empty()) < ms(250));
}

#[test]
fn numbers_that_wrap_a_missing_clock_and_missing_heads_do_no_harm() {
    let options = Options { first_number: 65_500, no_clock: true, no_head: true, fps: 25, ..options() };
    let mut world = World::new(config(), options);
    world.until(World::playing);
    world.run(10_000);
    world.check();
    assert!(world.pictures().len() >= 249, "{}", world.pictures().len());
    assert_eq!(world.lost, 0);
}

#[test]
fn commands_are_refused_and_a_lost_socket_ends_the_session() {
    let mut world = World::new(config(), options());
    world.session.command(CommandId(1), Command::Reboot, world.now);
    world.poll();
    world.until(World::playing);
    world.input(|session, now| session.closed(LISTEN, "in use", now));
    assert!(world.ended.is_none());
    world.input(|session, now| session.closed(MEDIA, "the network is down", now));
    assert_eq!(world.error().text, "the network is down");
}

#[test]
fn closing_is_quick_wherever_the_session_is() {
    for after in [0, 1, 3, 5, 7, 9, 50, 500] {
        let mut world = World::new(config(), options());
        world.run(after);
        world.session.close(world.now);
        world.poll();
        assert!(world.until(|world| world.ended.is_some()) <= ms(300), "{after}");
        assert_eq!(world.ended, Some(Ok(())));
    }
    // And from a camera that is gone.
    let mut world = World::new(config(), options());
    world.until(World::playing);
    world.on = false;
    world.session.close(world.now);
    world.poll();
    assert_eq!(world.until(|world| world.ended.is_some()), GOODBYE);
}
