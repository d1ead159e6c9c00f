use super::super::door::{Inbox, Refused, Taken};
use super::*;
use tokio::net::tcp::OwnedReadHalf as ReadHalf;

struct Rig {
    address: SocketAddr,
    cancel: CancellationToken,
    tasks: TaskTracker,
    inbox: Inbox,
}

/// A server with a camera `yard` whose password is `key`.
async fn start(options: Options) -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pushes = Arc::<Pushes>::default();
    let inbox = pushes.enter("yard");
    let login = Login::new(|peer, name, key| peer.is_loopback() && (name, key) == ("yard", "key"));
    let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(serve(listener, pushes, login, options, cancel.clone(), tasks.clone()));
    Rig { address, cancel, tasks, inbox }
}

fn options() -> Options {
    Options { passive_ports: 0..=0, ..Options::default() }
}

struct Client {
    lines: BufReader<ReadHalf>,
    to: OwnedWriteHalf,
}

impl Client {
    async fn connect(rig: &Rig) -> Self {
        let (from, to) = TcpStream::connect(rig.address).await.unwrap().into_split();
        let mut client = Self { lines: BufReader::new(from), to };
        assert!(client.answer().await.starts_with("220"));
        client
    }

    async fn sign_in(rig: &Rig) -> Self {
        let mut client = Self::connect(rig).await;
        client.ask("USER yard").await;
        assert!(client.ask("PASS key").await.starts_with("230"));
        client
    }

    /// The next line; empty if the connection ended.
    async fn answer(&mut self) -> String {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line);
        // A connection that is reset has ended as well.
        let _ = tokio::time::timeout(Duration::from_secs(20), read).await.expect("an answer");
        line
    }

    async fn ask(&mut self, line: &str) -> String {
        self.to.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        self.answer().await
    }

    async fn data(&mut self, rig: &Rig) -> TcpStream {
        let answer = self.ask("EPSV").await;
        let port = answer.rsplit('|').nth(1).unwrap_or_else(|| panic!("{answer}")).parse().unwrap();
        TcpStream::connect((rig.address.ip(), port)).await.unwrap()
    }
}

#[tokio::test]
async fn who_says_nothing_is_sent_away() {
    let rig = start(Options { idle: Duration::from_secs(1), ..options() }).await;
    let (mut nobody, mut guest) = (Client::connect(&rig).await, Client::sign_in(&rig).await);
    for client in [&mut nobody, &mut guest] {
        assert!(client.answer().await.starts_with("221"), "closing");
        assert_eq!(client.answer().await, "");
    }
    rig.cancel.cancel();
    rig.tasks.close();
    tokio::time::timeout(Duration::from_secs(20), rig.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn who_does_not_sign_in_is_sent_away_whatever_it_says() {
    let rig = start(Options { sign_in: Duration::from_secs(2), ..options() }).await;
    let (mut guest, mut talker) = (Client::sign_in(&rig).await, Client::connect(&rig).await);
    let talk = async {
        loop {
            // Never idle, and never in.
            if talker.to.write_all(b"NOOP\r\nUSER yard\r\nPASS wrong\r\n").await.is_err() {
                return;
            }
            for _ in 0..3 {
                if talker.answer().await.is_empty() {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), talk).await.expect("it is closed");
    assert!(guest.ask("NOOP").await.starts_with("200"), "who has signed in stays");
}

/// As many names as one likes must not end the program: libunftp remembers each in a way that overflows the stack.
#[tokio::test]
async fn a_session_has_so_many_commands_at_most() {
    let rig = start(options()).await;
    let mut guest = Client::sign_in(&rig).await;
    let mut talker = Client::connect(&rig).await;
    let flood = b"USER yard\r\n".repeat(30_000);
    let Client { lines, to } = &mut talker;
    let mut heard = Vec::new();
    // It is closed in the middle, so that either direction may fail.
    let _ = tokio::join!(to.write_all(&flood), lines.read_to_end(&mut heard));
    let asked = heard.windows(4).filter(|bytes| bytes == b"331 ").count();
    assert!((1..=MAX_COMMANDS).contains(&asked), "{asked} names were taken");
    assert!(guest.ask("NOOP").await.starts_with("200"), "others go on");
}

#[tokio::test]
async fn strangers_keep_no_place_from_others() {
    for limits in [(2, 9), (9, 2)] {
        let rig = start(Options { connections: limits.0, per_address: limits.1, ..options() }).await;
        let mut first = Client::sign_in(&rig).await;
        let mut older = Client::connect(&rig).await;
        let mut second = Client::sign_in(&rig).await;
        assert_eq!(older.answer().await, "", "{limits:?}: it is closed for the second");
        // Nobody is closed who has signed in.
        let (from, to) = TcpStream::connect(rig.address).await.unwrap().into_split();
        let mut third = Client { lines: BufReader::new(from), to };
        assert_eq!(third.answer().await, "", "{limits:?}");
        for guest in [&mut first, &mut second] {
            assert!(guest.ask("NOOP").await.starts_with("200"), "{limits:?}");
        }
    }
}

#[tokio::test]
async fn an_address_with_too_many_loses_its_own() {
    let stay = || tokio::spawn(std::future::pending::<()>());
    let [one, two] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
    let guest = |peer, known| Guest { peer, known: watch::Sender::new(known), task: stay() };
    let options = Options { connections: 3, per_address: 2, ..options() };
    let peers = |guests: &VecDeque<Guest>| guests.iter().map(|guest| guest.peer).collect::<Vec<_>>();
    let mut guests = VecDeque::from([guest(one, false), guest(two, true), guest(two, false)]);
    assert!(make_room(&mut guests, two, &options).await);
    assert_eq!(peers(&guests), [one, two]);
    guests.push_back(guest(two, true));
    assert!(!make_room(&mut guests, two, &options).await, "another's place is not taken");
    assert_eq!(peers(&guests), [one, two, two]);
    assert!(make_room(&mut guests, IpAddr::from([192, 0, 2, 3]), &options).await);
    assert_eq!(peers(&guests), [two, two]);
}

#[tokio::test]
async fn an_upload_that_stops_is_given_up() {
    let slow = (Duration::from_secs(20), Duration::from_millis(100));
    let rig = start(Options { upload: slow, ..options() }).await;
    let mut client = Client::sign_in(&rig).await;
    let mut data = client.data(&rig).await;
    assert!(client.ask("STOR a.jpg").await.starts_with("150"));
    data.write_all(&[0xff, 0xd8]).await.unwrap();
    assert!(client.answer().await.starts_with("426"));
    // The session goes on.
    assert!(client.ask("NOOP").await.starts_with("200"));
}

#[tokio::test]
async fn a_camera_that_is_busy_is_asked_to_come_again() {
    let mut rig = start(options()).await;
    let mut client = Client::sign_in(&rig).await;
    for (answer, code) in
        [(Err(Refused::Busy), "450"), (Err(Refused::Picture("torn".into())), "553"), (Ok(Taken::default()), "226")]
    {
        let mut data = client.data(&rig).await;
        assert!(client.ask("STOR a.jpg").await.starts_with("150"));
        data.write_all(&[0xff, 0xd8, 1, 2, 3]).await.unwrap();
        drop(data);
        let visit = rig.inbox.recv().await.unwrap();
        assert_eq!(visit.pushed.picture.as_deref(), Some(&[0xff, 0xd8, 1, 2, 3][..]));
        visit.answer.send(answer).unwrap();
        assert!(client.answer().await.starts_with(code), "{code}");
    }
}

#[tokio::test]
async fn nobody_keeps_data_ports_from_others() {
    let rig = start(options()).await;
    let mut greedy = Client::sign_in(&rig).await;
    for _ in 0..MAX_OPEN {
        assert!(greedy.ask("PASV").await.starts_with("227"));
    }
    assert!(greedy.ask("PASV").await.starts_with("425"));
    let mut other = Client::sign_in(&rig).await;
    assert!(other.ask("PASV").await.starts_with("227"));
}

#[tokio::test]
async fn clients_are_told_the_address_of_outside() {
    let rig = start(Options { passive_address: Some(Ipv4Addr::new(192, 0, 2, 7)), ..options() }).await;
    let answer = Client::sign_in(&rig).await.ask("PASV").await;
    assert!(answer.contains("(192,0,2,7,"), "{answer}");
    let rig = start(options()).await;
    let answer = Client::sign_in(&rig).await.ask("PASV").await;
    assert!(answer.contains("(127,0,0,1,"), "{answer}");
    // Connecting to where a client says is never done.
    let answer = Client::sign_in(&rig).await.ask("PORT 127,0,0,1,0,9").await;
    assert!(answer.starts_with('5'), "{answer}");
}
