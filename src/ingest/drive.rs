//! The only sockets of sans-I/O families: carries out what a [`Session`] asks for, and tells it what comes.
//!
//! One task a session: it polls all its sockets itself, so that a datagram costs one system call and no channel.

use super::links::{Happened, Links};
use super::publish::Publisher;
use super::session::{CommandId, Output, Session, SessionError};
use super::{Adapter, AdapterError, DeviceIo};
use crate::bus::{CommandError, CommandRequest};
use async_trait::async_trait;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// Commands that may wait for the session's turn.
const COMMANDS: usize = 8;
/// A session that asks for so many things in a row without waiting is broken: it would never read its sockets.
const STEPS: usize = 10_000;

/// Runs the sessions of one device, made by `make` one after the other.
#[derive(Debug)]
pub struct Driver<F> {
    make: F,
}

impl<F> Driver<F> {
    /// A driver of the sessions that `make` makes.
    pub fn new(make: F) -> Self {
        Self { make }
    }
}

#[async_trait]
impl<F, S> Adapter for Driver<F>
where
    F: Fn() -> S + Send + Sync + 'static,
    S: Session,
{
    async fn run(&self, io: DeviceIo) -> Result<(), AdapterError> {
        let _permit = tokio::select! {
            permit = io.device.upstream().acquire() => permit,
            () = io.cancel.cancelled() => return Ok(()),
        };
        let (sender, commands) = mpsc::channel(COMMANDS);
        let mut talk = Talk {
            session: (self.make)(),
            links: Links::default(),
            publisher: Publisher::new(&io),
            sender,
            answers: HashMap::new(),
            next_command: 0,
            done: false,
        };
        let result = talk.run(&io, commands).await;
        io.device.serve_commands(Vec::new(), None);
        for (_, answer) in talk.answers.drain() {
            // Whether it acted is not known.
            let _ = answer.send(Err(CommandError::Unknown));
        }
        result.map_err(|error| AdapterError::new(error.code, error.text))
    }
}

/// A session that is driven.
struct Talk<S> {
    session: S,
    links: Links,
    publisher: Publisher,
    sender: mpsc::Sender<CommandRequest>,
    answers: HashMap<CommandId, oneshot::Sender<Result<(), CommandError>>>,
    next_command: u64,
    done: bool,
}

impl<S: Session> Talk<S> {
    async fn run(&mut self, io: &DeviceIo, mut commands: mpsc::Receiver<CommandRequest>) -> Result<(), SessionError> {
        let mut closing = false;
        let mut patience = std::pin::pin!(tokio::time::sleep(GOODBYE));
        loop {
            let wait = self.carry_out(io)?;
            if self.done {
                return Ok(());
            }
            let timer = tokio::time::sleep_until(wait.unwrap_or_else(far).into());
            tokio::select! {
                biased;
                () = io.cancel.cancelled(), if !closing => {
                    closing = true;
                    patience.as_mut().reset((Instant::now() + GOODBYE).into());
                    self.session.close(Instant::now());
                }
                () = &mut patience, if closing => return Ok(()),
                () = timer => self.session.timeout(Instant::now())?,
                Some(request) = commands.recv(), if !closing => {
                    let id = CommandId(self.next_command);
                    self.next_command += 1;
                    self.answers.insert(id, request.answer);
                    self.session.command(id, request.command, Instant::now());
                }
                (via, happened) = self.links.next() => {
                    let now = Instant::now();
                    let result = match happened {
                        Happened::Opened(local) => self.session.opened(via, local, now),
                        Happened::Received(from, bytes) => self.session.received(via, from, bytes, now),
                        Happened::Closed(why) => self.session.closed(via, &why, now),
                    };
                    if !closing {
                        result?;
                    }
                }
            }
        }
    }

    /// Carries out what the session asks for until it waits.
    fn carry_out(&mut self, io: &DeviceIo) -> Result<Option<Instant>, SessionError> {
        for _ in 0..STEPS {
            match self.session.poll() {
                Output::Open(link, endpoint) => self.links.open(link, endpoint),
                Output::Close(link) => self.links.close(link),
                Output::Send { via, to, bytes } => self.links.send(via, to, bytes),
                Output::Tracks(infos) => self.publisher.tracks(&infos),
                Output::Media(track, sample) => self.publisher.publish(track, sample),
                Output::Lost(pictures) => self.publisher.lost(pictures),
                Output::Away => drop(io.playing.send_replace(false)),
                Output::Event(kind, picture) => self.publisher.tell(kind, picture),
                Output::Commands(list) => {
                    let sender = (!list.is_empty()).then(|| self.sender.clone());
                    io.device.serve_commands(list, sender);
                }
                Output::Answer(id, result) => {
                    if let Some(answer) = self.answers.remove(&id) {
                        // Who asked may have gone.
                        let _ = answer.send(result);
                    }
                }
                Output::Wait(until) => return Ok(until),
                Output::Done => {
                    self.done = true;
                    return Ok(None);
                }
            }
        }
        unreachable!("a session that never waits: {STEPS} outputs after one input")
    }
}

/// As good as never.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(24 * 3600)
}

#[cfg(test)]
mod tests {
    use super::super::session::{Endpoint, Link, Sample};
    use super::*;
    use crate::bus::{Bus, Command, CommandInfo, Device, DeviceOptions, EventKind, Limits, ReasonCode, Stream};
    use crate::bus::{SubStream, Upstream, Want};
    use crate::ingest::Rotation;
    use crate::media::{Codec, Format, TrackInfo, VideoFormat};
    use bytes::Bytes;
    use std::collections::VecDeque;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UdpSocket};
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    const DATAGRAMS: Link = Link(0);
    const CONNECTION: Link = Link(1);

    /// A protocol in which "hello" is answered by sound, one octet a datagram, and a door is opened over TCP.
    struct Toy {
        device: SocketAddr,
        door: SocketAddr,
        out: VecDeque<Output>,
        wait: Option<Instant>,
        heard: i64,
        opening: Option<CommandId>,
    }

    impl Toy {
        fn new(device: SocketAddr, door: SocketAddr) -> Self {
            let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let out = [Output::Open(DATAGRAMS, Endpoint::Udp { local, toward: None, shared: false })];
            Self { device, door, out: out.into(), wait: None, heard: 0, opening: None }
        }

        fn say(&mut self, text: &'static str) {
            let bytes = Bytes::from_static(text.as_bytes());
            self.out.push_back(Output::Send { via: DATAGRAMS, to: Some(self.device), bytes });
        }
    }

    impl Session for Toy {
        fn opened(&mut self, via: Link, local: SocketAddr, now: Instant) -> Result<(), SessionError> {
            assert_ne!(local.port(), 0);
            if via == CONNECTION {
                self.out.push_back(Output::Send { via, to: None, bytes: Bytes::from_static(b"open") });
                return Ok(());
            }
            let info =
                TrackInfo { codec: Codec::Jpeg, clock_rate: 1_000, format: Format::Video(VideoFormat::default()) };
            self.out.push_back(Output::Tracks(vec![info]));
            let door = CommandInfo { name: "open_door".into(), title: "Door".into(), command: Command::OpenDoor(None) };
            self.out.push_back(Output::Commands(vec![door]));
            self.wait = Some(now);
            Ok(())
        }

        fn received(&mut self, via: Link, from: SocketAddr, bytes: &[u8], _: Instant) -> Result<(), SessionError> {
            if via == CONNECTION {
                self.out.push_back(Output::Close(CONNECTION));
                if let Some(id) = self.opening.take() {
                    self.out.push_back(Output::Answer(id, Ok(())));
                }
                return Ok(());
            }
            assert_eq!(from, self.device);
            match bytes {
                b"bye" => self.out.push_back(Output::Done),
                b"broken" => return Err(SessionError::new(ReasonCode::Unsupported, "what it says makes no sense")),
                picture => {
                    self.heard += 1;
                    self.out.push_back(Output::Media(
                        0,
                        Sample {
                            ticks: self.heard * 40,
                            random_access: true,
                            discontinuity: false,
                            payload: Bytes::copy_from_slice(picture),
                        },
                    ));
                    self.out.push_back(Output::Event(EventKind::Visitor, None));
                }
            }
            Ok(())
        }

        fn timeout(&mut self, now: Instant) -> Result<(), SessionError> {
            // Said again until it is heard: datagrams get lost.
            self.wait = (self.heard == 0).then(|| now + Duration::from_millis(10));
            if self.heard == 0 {
                self.say("hello");
            }
            Ok(())
        }

        fn command(&mut self, id: CommandId, command: Command, _: Instant) {
            assert_eq!(command, Command::OpenDoor(None));
            self.opening = Some(id);
            self.out.push_back(Output::Open(CONNECTION, Endpoint::Tcp(self.door)));
        }

        fn close(&mut self, _: Instant) {
            self.wait = None;
            self.say("goodbye");
        }

        fn poll(&mut self) -> Output {
            self.out.pop_front().unwrap_or(Output::Wait(self.wait))
        }
    }

    fn io() -> DeviceIo {
        let stream = Stream::new("toy", Limits::default());
        let device = Device::new(DeviceOptions {
            name: "toy".into(),
            family: "toy",
            main: Arc::clone(&stream),
            sub: SubStream::None,
            upstream: Upstream::new(1),
            viewers: Arc::default(),
        });
        let (playing, _) = watch::channel(false);
        let (bus, cancel) = (Bus::new(), CancellationToken::new());
        DeviceIo { bus, device, stream, cancel, playing, rotation: Rotation::None }
    }

    /// A picture of 16 by 16 grey pixels in 4:2:0.
    fn picture() -> Vec<u8> {
        let image = turbojpeg::Image {
            pixels: &[128; 16 * 16 * 3][..],
            width: 16,
            pitch: 48,
            height: 16,
            format: turbojpeg::PixelFormat::RGB,
        };
        turbojpeg::compress(image, 80, turbojpeg::Subsamp::Sub2x2).unwrap().to_vec()
    }

    async fn socket() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn a_session_talks_publishes_obeys_and_says_goodbye() {
        let (device, address) = socket().await;
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let door_address = door.local_addr().unwrap();
        let io = io();
        let driver = Driver::new(move || Toy::new(address, door_address));
        let running = tokio::spawn({
            let io = io.clone();
            async move { driver.run(io).await }
        });
        let mut buffer = [0; 64];
        let (count, gateway) = device.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"hello");
        device.send_to(&picture(), gateway).await.unwrap();
        assert!(io.stream.ready().await);
        let mut reader = io.stream.subscribe(Want::Video);
        let (_, unit) = reader.next().await.unwrap();
        assert_eq!(unit.info.video().map(|video| (video.width, video.height)), Some((16, 16)));
        device.send_to(b"no picture at all", gateway).await.unwrap();
        device.send_to(&picture(), gateway).await.unwrap();
        let (_, second) = reader.next().await.unwrap();
        assert!(second.pts > unit.pts && second.discontinuity, "the one between them was lost");
        assert_eq!(io.stream.totals().lost, 1);
        assert!(*io.playing.borrow());
        assert_eq!(io.bus.events.since(None).0.len(), 3);

        let opened = async {
            let (mut connection, _) = door.accept().await.unwrap();
            let mut asked = [0; 4];
            connection.read_exact(&mut asked).await.unwrap();
            connection.write_all(b"done").await.unwrap();
            asked
        };
        let asked = io.device.command(Command::OpenDoor(None), Duration::from_secs(20));
        let (answer, asked) = tokio::join!(asked, opened);
        assert_eq!((answer, &asked), (Ok(()), b"open"));

        io.cancel.cancel();
        loop {
            let (count, _) = device.recv_from(&mut buffer).await.unwrap();
            if &buffer[..count] == b"goodbye" {
                break;
            }
        }
        assert_eq!(io.device.upstream().open(), 1, "until the goodbye is answered");
        device.send_to(b"bye", gateway).await.unwrap();
        running.await.unwrap().unwrap();
        assert_eq!(io.device.upstream().open(), 0);
        let absent = io.device.command(Command::OpenDoor(None), Duration::from_secs(20)).await;
        assert_eq!(absent, Err(CommandError::Absent));
    }

    #[tokio::test]
    async fn what_a_session_cannot_bear_ends_it_with_its_words() {
        let (device, address) = socket().await;
        let io = io();
        let driver = Driver::new(move || Toy::new(address, address));
        let running = tokio::spawn(async move { driver.run(io).await });
        let mut buffer = [0; 64];
        let (_, gateway) = device.recv_from(&mut buffer).await.unwrap();
        device.send_to(b"broken", gateway).await.unwrap();
        let error = running.await.unwrap().unwrap_err();
        assert_eq!((error.code, error.to_string().as_str()), (ReasonCode::Unsupported, "what it says makes no sense"));
    }
}
