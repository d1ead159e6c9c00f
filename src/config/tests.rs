//! Whole files: every form that is understood, every mistake with its exact words and place.

use super::*;
use crate::ingest::rtsp::Transport;
use std::collections::HashMap;
use std::time::Duration;

/// A hash of `correct horse`, made at little cost.
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn environment(name: &str) -> Option<String> {
    let known = HashMap::from([
        ("USER", "admin"),
        ("PASSWORD", "p@ss/w#rd?: {x}"),
        ("URL", "rtsp://192.0.2.9/a"),
        ("NUMBER", "2"),
        ("CANARY", "canary-in-environment"),
    ]);
    known.get(name).map(|value| (*value).to_owned())
}

fn read(text: &str) -> Result<Config, Mistakes> {
    parse("f.yaml", text, Path::new("/etc/fanlight"), &environment)
}

fn good(text: &str) -> Config {
    read(text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
}

/// The mistakes without source lines.
fn wrong(text: &str) -> Vec<String> {
    let mistakes = read(text).expect_err(text);
    mistakes.list.iter().map(|m| format!("{}:{}: {}", m.line, m.column, m.text)).collect()
}

fn camera(source: &str) -> crate::ingest::rtsp::Config {
    let config = good(&format!("cameras: {{ a: {{ source: {source} }} }}"));
    let Source::Rtsp(rtsp) = config.cameras.into_iter().next().expect("one camera").source else {
        panic!("an RTSP camera")
    };
    rtsp
}

#[test]
fn an_empty_file_is_the_default_but_for_the_place_of_relative_paths() {
    for text in ["", "# nothing\n", "cameras:\nusers:\nhttp:\n", "{}"] {
        let config = good(text);
        let store = Store { path: PathBuf::from("/etc/fanlight/data"), named: false };
        assert_eq!(config, Config { store, ..Config::default() }, "{text}");
    }
}

#[test]
fn every_key_is_understood() {
    let config = good(&format!(
        r#"
http:
  listen: ["0.0.0.0:80", "[::1]:80"]
  allow_origins: "https://home.example:8123"
  trusted_proxies: [192.0.2.1, 2001:db8::/32]
  hosts: [Cameras.home.arpa]
rtsp: {{ listen: "[::]:8554", udp_ports: 9000-9001 }}
webrtc:
  listen: "[::]:8556"
  candidates: [203.0.113.7, home.example:9000]
  ice_servers:
    - stun:stun.example
    - {{ urls: ["turn:turn.example?transport=udp"], username: "${{USER}}", credential: "${{PASSWORD}}" }}
users:
  - {{ name: admin, role: admin, password_hash: "{HASH}", stream_key: 0123456789012 }}
  - {{ name: guest, stream_key: abcdefghijklmnop }}
auth: users
store: {{ path: state }}
cameras:
  front:
    source: rtsp://192.0.2.20:554/Streaming/Channels/101/
    on_demand: true
    max_connections: ${{NUMBER}}
  01:
    source:
      rtsp:
        url: rtsp://192.0.2.21/main
        sub: /sub?x=1
        username: ${{USER}}
        password: ${{PASSWORD}}
        transport: auto
"#
    ));
    assert_eq!(config.http.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0.0.0.0:80", "[::1]:80"]);
    assert_eq!(config.http.allow_origins, ["https://home.example:8123"]);
    assert_eq!(config.http.trusted_proxies.len(), 2);
    assert_eq!(config.http.hosts, ["cameras.home.arpa"]);
    assert!(config.rtsp.listen.iter().all(Listen::is_dual_stack));
    assert_eq!(config.rtsp.udp_ports, UdpPorts::Pair(9000));
    assert!(config.webrtc.listen.iter().all(|listen| listen.is_dual_stack() && listen.port == 8556));
    let ports: Vec<_> = config.webrtc.candidates.iter().map(|candidate| candidate.port).collect();
    assert_eq!(ports, [None, Some(9000)]);
    let [stun, turn] = config.webrtc.ice_servers.as_slice() else { panic!("two servers") };
    assert_eq!((&stun.urls[..], stun.credential.is_none()), (&["stun:stun.example".to_owned()][..], true));
    assert_eq!(turn.username.as_deref(), Some("admin"));
    assert_eq!(turn.credential.as_ref().map(Secret::reveal), Some("p@ss/w#rd?: {x}"));
    assert_eq!(config.auth, Auth::Users);
    assert_eq!(config.store.path, Path::new("/etc/fanlight/state"));
    let [admin, guest] = config.users.as_slice() else { panic!("two users") };
    assert_eq!((admin.name.as_str(), admin.role), ("admin", Role::Admin));
    assert_eq!(admin.password_hash.as_ref().map(Secret::reveal), Some(HASH));
    assert_eq!(admin.stream_key.as_ref().map(Secret::reveal), Some("0123456789012"), "no number");
    assert_eq!((guest.role, guest.password_hash.is_none()), (Role::Viewer, true));
    let [front, second] = config.cameras.as_slice() else { panic!("two cameras") };
    assert_eq!((front.name.as_str(), front.on_demand, front.max_connections), ("front", true, 2));
    assert_eq!((second.name.as_str(), second.on_demand, second.max_connections), ("01", false, 2), "main and sub");
    let Source::Rtsp(rtsp) = &second.source else { panic!("an RTSP camera") };
    assert_eq!(rtsp.url.as_str(), "rtsp://192.0.2.21/main");
    assert_eq!(rtsp.sub.as_ref().map(url::Url::as_str), Some("rtsp://192.0.2.21/sub?x=1"));
    assert_eq!(rtsp.username.as_deref(), Some("admin"));
    assert_eq!(rtsp.password.as_ref().map(Secret::reveal), Some("p@ss/w#rd?: {x}"), "text, whatever it looks like");
    assert_eq!(rtsp.transport, Transport::Auto);
    assert_eq!(config.warnings, []);
}

#[test]
fn the_login_is_taken_out_of_a_url() {
    let login = |source: &str| {
        let rtsp = camera(source);
        (rtsp.url.to_string(), rtsp.username, rtsp.password.map(|password| password.reveal().to_owned()))
    };
    let expect =
        |url: &str, name: &str, password: &str| (url.to_owned(), Some(name.to_owned()), Some(password.to_owned()));
    assert_eq!(login("rtsp://admin:p%40ss@192.0.2.1/x"), expect("rtsp://192.0.2.1/x", "admin", "p@ss"));
    assert_eq!(login("rtsp://admin:p@ss@192.0.2.1:5/"), expect("rtsp://192.0.2.1:5/", "admin", "p@ss"));
    assert_eq!(
        login("\"rtsp://${USER}:${PASSWORD}@[2001:db8::1]/x\""),
        expect("rtsp://[2001:db8::1]/x", "admin", "p@ss/w#rd?: {x}"),
        "a password cannot become a host"
    );
    assert_eq!(login("rtsp://admin@cam.local"), ("rtsp://cam.local".into(), Some("admin".into()), None));
    assert_eq!(login("'${URL}'"), ("rtsp://192.0.2.9/a".into(), None, None));
    assert_eq!(login("RTSP://cam/x").0, "rtsp://cam/x");
    let both = camera("{ rtsp: { url: 'rtsp://a:b@c/1', sub: 'rtsp://a:b@c/2' } }");
    assert_eq!(both.sub.map(|url| url.to_string()).as_deref(), Some("rtsp://c/2"));
}

#[test]
fn a_dollar_can_be_meant() {
    let rtsp = camera("{ rtsp: { url: 'rtsp://c/', username: 'a$b$${USER}$$', password: \"$1$x\" } }");
    assert_eq!(rtsp.username.as_deref(), Some("a$b${USER}$$"));
    assert_eq!(rtsp.password.as_ref().map(Secret::reveal), Some("$1$x"));
}

#[test]
fn secrets_come_from_files_beside_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let put = |name: &str, content: &[u8]| std::fs::write(folder.path().join(name), content).expect("written");
    put("password.txt", b"from a file\r\n");
    put("empty.txt", b"\n");
    put("bytes.txt", b"\xff\n");
    put("large.txt", &[b'x'; 5000]);
    let at = |key: &str, file: &str| {
        let text =
            format!("cameras: {{ a: {{ source: {{ rtsp: {{ url: 'rtsp://c', username: u, {key}: {file} }} }} }} }}");
        parse("f.yaml", &text, folder.path(), &environment)
    };
    let config = at("password_file", "password.txt").expect("good");
    let Source::Rtsp(rtsp) = &config.cameras[0].source else { panic!("an RTSP camera") };
    assert_eq!(rtsp.password.as_ref().map(Secret::reveal), Some("from a file"));
    for (key, file, words) in [
        ("password_file", "none.txt", "\"none.txt\" cannot be read: No such file or directory (os error 2)"),
        ("password_file", "empty.txt", "\"empty.txt\" is empty"),
        ("password_file", "bytes.txt", "\"bytes.txt\" is no UTF-8 text"),
        ("password_file", "large.txt", "\"large.txt\" is longer than 4096 bytes"),
        ("password_file", ".", "\".\" cannot be read: Is a directory (os error 21)"),
        ("password", "x, password_file: password.txt", "`password` and `password_file` are both given; one is enough"),
    ] {
        assert_eq!(at(key, file).expect_err(file).list[0].text, words);
    }
}

#[test]
fn all_mistakes_come_at_once_with_place_and_line() {
    let text = "\
http: { listen: nowhere }
webrtc: { candidates: 0.0.0.0 }
cameras:
  Front door:
    source: rtsp://192.0.2.1/x
    max_connections: 0
  spy:
    source: { onvif: { addres: 192.0.2.30 } }
  back:
    source: { rtsp: { url: rtsp://192.0.2.2/x, addres: 1, transport: tls } }
    on_demand: maybe
    rotate_encoded: 180
  sub: {}
camera: 1
";
    assert_eq!(
        read(text).expect_err("wrong").to_string(),
        "\
f.yaml:1:17: expected an address such as 0.0.0.0:8554, [::]:8554 or localhost:8554, found \"nowhere\"
  1 | http: { listen: nowhere }
    |                 ^
f.yaml:2:23: expected an address or a host name, with a port or without, such as 203.0.113.7 or home.example:8555, found \"0.0.0.0\"
  2 | webrtc: { candidates: 0.0.0.0 }
    |                       ^
f.yaml:4:3: a name is made of the characters a-z 0-9 _ -
  4 |   Front door:
    |   ^
f.yaml:6:22: expected a whole number from 1 to 64, found \"0\"
  6 |     max_connections: 0
    |                      ^
f.yaml:8:15: `onvif` cameras are not supported by this version
  8 |     source: { onvif: { addres: *** } }
    |               ^
f.yaml:10:48: unknown field \"addres\", expected one of url, sub, username, password, password_file, transport
  10 |     source: { rtsp: { url: rtsp://192.0.2.2/x, addres: ***, transport: tls } }
     |                                                ^
f.yaml:10:70: expected one of tcp, udp, auto, found \"tls\"
  10 |     source: { rtsp: { url: rtsp://192.0.2.2/x, addres: ***, transport: tls } }
     |                                                                        ^
f.yaml:11:16: expected true or false, found \"maybe\"
  11 |     on_demand: maybe
     |                ^
f.yaml:12:5: `rotate_encoded` is not supported by this version
  12 |     rotate_encoded: ***
     |     ^
f.yaml:13:3: `source` is missing
  13 |   sub: {}
     |   ^
f.yaml:13:3: `sub` cannot be a name: it is used for a page or path of its own
  13 |   sub: {}
     |   ^
f.yaml:14:1: unknown field \"camera\", expected one of http, https, rtsp, rtsps, webrtc, users, auth, store, cameras, ftp, mini_doorbell
  14 | camera: ***
     | ^"
    );
}

#[test]
fn tls_is_off_unless_it_is_named() {
    let config = good("rtsp: { listen: 'localhost:1' }");
    assert_eq!((config.https, config.rtsps), (None, None));
    let config = good("https: {}\nrtsps: {}");
    let all = |port| vec![Listen::new(Ipv4Addr::UNSPECIFIED.into(), port)];
    assert_eq!(config.https, Some(Https { listen: all(8443), certificate: None }));
    assert_eq!(config.rtsps, Some(Rtsps { listen: all(8322) }));

    let folder = tempfile::tempdir().expect("a folder");
    let [chain, key] = ["door.pem", "door.key"].map(|name| folder.path().join(name));
    std::fs::write(&chain, "x").expect("written");
    std::fs::write(&key, "x").expect("written");
    let text = "https: { listen: '[::]:443', cert_file: door.pem, key_file: door.key }";
    let config = parse("f.yaml", text, folder.path(), &environment).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let https = Https {
        listen: Listen::parse("[::]:443").into_iter().collect(),
        certificate: Some(CertificateFiles { chain, key }),
    };
    assert_eq!(config.https, Some(https));
}

#[test]
fn each_mistake_has_its_words() {
    let camera = |source: &str| format!("cameras: {{ a: {{ source: {source} }} }}");
    let hint = "in a password write / as %2F, ? as %3F, # as %23, or use `username` and `password`";
    let table: Vec<(String, Vec<String>)> = [
        ("[]", "1:1: expected a mapping (`key: value`), found a list"),
        ("a: b: c", "1:5: mapping values are not allowed in this context"),
        ("a: 1\n---\nb: 2", "3:1: a second document begins here; a configuration is one"),
        ("auth: { a: ${B} }", "1:13: while parsing a flow mapping, did not find expected ',' or '}'; a text with ${…} inside of { } or [ ] needs quotes"),
        ("http:\n  - x", "2:3: expected a mapping (`key: value`), found a list"),
        ("http: { listen: [] }", "1:17: expected at least one address"),
        ("http: { listen: { a: b } }", "1:17: expected an address such as 0.0.0.0:8554, [::]:8554 or localhost:8554, found a mapping"),
        ("http: { listen: ':8554' }", "1:17: expected an address such as 0.0.0.0:8554, [::]:8554 or localhost:8554, found \":8554\""),
        ("http: { listen: 'a:80' }\nhttp: {}", "2:1: \"http\" is already given in line 1"),
        ("http: { listen: ['a:80', '0.0.0.0:80'] }", "1:26: port 80 is already used by `http.listen`"),
        ("http: { listen: 'a:80' }\nrtsp: { listen: 'a:80' }", "2:17: port 80 is already used by `http.listen`"),
        ("http: { listen: '[::]:8554' }", "1:1: port 8554 of `http.listen` is the default of `rtsp.listen`"),
        ("http: { listen: '[::]:8554' }\nrtsp: { udp_ports: off }", "2:7: port 8554 is already used by `http.listen`"),
        ("http: { allow_origins: [home.example] }", "1:25: expected an origin such as https://home.example:8123, found \"home.example\""),
        ("http: { trusted_proxies: [10.0.0.0/40] }", "1:27: expected an address or network such as 192.0.2.1 or 192.0.2.0/24, found \"10.0.0.0/40\""),
        ("http: { hosts: ['a:80'] }", "1:17: expected a host name without port, found \"a:80\""),
        ("https: { cert_file: none.pem }", "1:21: `cert_file` and `key_file` belong together; without both the certificate is self-made"),
        ("https: { cert_file: none.pem, key_file: /dev/null }", "1:21: \"none.pem\" cannot be read: No such file or directory (os error 2)"),
        ("https:", "1:6: `https:` without a value switches nothing on; `https: {}` does, with the defaults"),
        ("rtsps: { listen: '0.0.0.0:8484' }", "1:18: port 8484 is already used by `http.listen`"),
        ("rtsp: { udp_ports: 8001-8002 }", "1:20: expected a pair of ports, the first one even, such as 8000-8001, or off, found \"8001-8002\""),
        ("rtsp: { listen: 'a:8555' }\nwebrtc: { listen: 'a:8555' }", "2:19: port 8555 is already used by `rtsp.listen`"),
        ("http: { listen: '[::]:8555' }", "1:1: port 8555 of `http.listen` is the default of `webrtc.listen`"),
        ("webrtc: { candidates: [nowhere:0] }", "1:24: expected an address or a host name, with a port or without, such as 203.0.113.7 or home.example:8555, found \"nowhere:0\""),
        ("webrtc: { ice_servers: 'http://a' }", "1:24: expected a URL such as stun:stun.example:3478 or turn:turn.example:3478?transport=udp, found \"http://a\""),
        ("webrtc: { ice_servers: 'turn:a' }", "1:24: a TURN server needs `username` and `credential` beside `urls`"),
        ("webrtc: { ice_servers: [{ username: a }] }", "1:25: `urls` is missing"),
        ("webrtc: { port: 1 }", "1:11: unknown field \"port\", expected one of listen, candidates, ice_servers"),
        ("auth: open", "1:7: expected one of users, none, found \"open\""),
        ("store: { path: '' }", "1:16: expected a path, found an empty text"),
        ("store: { keep: 30d }", "1:10: `keep` is not supported by this version"),
        ("users: { a: b }", "1:8: expected a list (`- name: …`), found a mapping"),
        ("users: [{ name: a }]", "1:9: a user needs `password_hash`, `stream_key` or both; `fanlight password NAME` makes them"),
        ("users: [{ stream_key: abcdefghijkl }]", "1:9: `name` is missing"),
        ("users: [{ name: 'a b', stream_key: abcdefghijkl }]", "1:17: expected a user name of at most 64 letters, digits and . _ - @, found \"a b\""),
        ("users: [{ name: a, stream_key: short }]", "1:32: `stream_key` has fewer than 12 characters; `fanlight password` makes one"),
        ("users: [{ name: a, stream_key: 'with a space in' }]", "1:32: `stream_key` may hold only ASCII letters, digits and signs"),
        ("users: [{ name: a, password_hash: clear }]", "1:35: `password_hash` is no argon2id hash (`$argon2id$…`); `fanlight password` makes one"),
        ("users: [{ name: a, role: root, stream_key: abcdefghijkl }]", "1:26: expected one of admin, viewer, found \"root\""),
        ("users:\n- {name: a, stream_key: abcdefghijkl}\n- {name: a, stream_key: abcdefghijkl}", "3:10: there is already a user \"a\""),
        (
            "cameras: { a: { source: 'mini-doorbell://' }, b: { source: { mini_doorbell: } } }",
            "1:47: `a` takes all bells without a name already; give one of the two its `id`",
        ),
        (
            "cameras: { a: { source: 'mini-doorbell://00ff0200000000aa' }, b: { source: 'mini-doorbell://00FF0200000000AA' } }",
            "1:63: the bell 00ff0200000000aa is `a` already",
        ),
        ("cameras: [a]", "1:10: expected a mapping (`key: value`), found a list"),
        ("cameras:\n  a:\n", "2:3: `source` is missing"),
        ("cameras:\n  a: { source: }\n", "2:8: `source` is missing"),
        ("cameras:\n  a: { source: rtsp://b }\n  a: { source: rtsp://b }", "3:3: \"a\" is already given in line 2"),
        ("cameras: { a: { source: '${NOPE}' } }", "1:25: environment variable NOPE is not set"),
        ("cameras: { a: { source: 'rtsp://${no pe}' } }", "1:25: `${` must be followed by a name and `}`; write `$${` where it is meant as it is"),
    ]
    .into_iter()
    .map(|(text, words)| (text.to_owned(), vec![words.to_owned()]))
    .chain(
        [
            ("[]", "expected a URL or a family, found a list".to_owned()),
            ("x", "expected a URL such as rtsp://192.0.2.20/stream, or one of rtsp, iwfcam, mini_doorbell, push, http".into()),
            ("udp://x", "expected a URL such as rtsp://192.0.2.20/stream, or one of rtsp, iwfcam, mini_doorbell, push, http".into()),
            ("push:", "expected a URL or a family, found a mapping".into()),
            ("'comelit://192.0.2.3'", "`comelit` cameras are not supported by this version".into()),
            ("onvif://x", "`onvif` cameras are not supported by this version".into()),
            ("rtsps://x/y", "cameras over TLS (`rtsps://`) are not supported by this version".into()),
            ("'rtsp:'", "the URL names no host".into()),
            ("rtsp://", "the URL names no host".into()),
            ("rtsp://a:0/", "port 0 is no port of a camera".into()),
            ("rtsp://admin:pass/w@host/x", format!("this is no URL: invalid port number; {hint}")),
            ("rtsp://admin:12/34@host/x", format!("`#` and `@` may not stand behind the host; {hint}")),
            ("rtsp://host/x#y", format!("`#` and `@` may not stand behind the host; {hint}")),
            ("{}", "expected one key, the family: one of rtsp, iwfcam, mini_doorbell, push, http".into()),
        ]
        .into_iter()
        .filter(|(source, _)| *source != "push:")
        .map(|(source, words)| (camera(source), vec![format!("1:25: {words}")])),
    )
    .collect();
    for (text, words) in table {
        assert_eq!(wrong(&text), words, "{text}");
    }
    assert_eq!(
        wrong(&camera("{ foo: 1 }")),
        ["1:27: unknown family \"foo\", expected one of rtsp, iwfcam, mini_doorbell, push, http"]
    );
    let long = |fields: &str| camera(&format!("{{ rtsp: {{ {fields} }} }}"));
    assert_eq!(wrong(&long("sub: rtsp://a")), ["1:33: `url` is missing"]);
    assert_eq!(wrong(&long("url: rtsp://a, password: x")), ["1:60: `password` without `username`"]);
    assert_eq!(
        wrong(&long("url: 'rtsp://a:b@c', username: x")),
        ["1:66: user name and password are given twice: in the URL and as keys"]
    );
    assert_eq!(
        wrong(&long("url: 'rtsp://a:b@c', sub: 'rtsp://a:d@c'")),
        ["1:61: user name and password of both streams must be the same; give them in `url` only"]
    );
}

#[test]
fn doubts_are_warnings() {
    let text = "cameras:\n  a: { source: rtsp://a, max_connections: 9 }\n  b:\n    source: { rtsp: { url: rtsp://a, sub: /b } }\n    max_connections: 1\n";
    let config = good(text);
    let found: Vec<_> = config.warnings.iter().map(|m| format!("{}:{}: {}", m.line, m.column, m.text)).collect();
    assert_eq!(
        found,
        [
            "2:43: few cameras serve 9 clients at once; `max_connections` is for all streams together",
            "5:22: `sub` is never opened with this few connections: viewers of it get the main stream"
        ]
    );
}

#[test]
fn http_cameras_have_a_login_a_pace_and_a_certificate() {
    let read = |source: &str| {
        let config = good(&format!("cameras: {{ a: {{ source: {source} }} }}"));
        match config.cameras.into_iter().next().unwrap().source {
            crate::ingest::Source::Http(config) => config,
            other => panic!("{other:?}"),
        }
    };
    let short = read("'https://ann:p%40ss@192.0.2.3/video?x=1'");
    assert_eq!(short.url.as_str(), "https://192.0.2.3/video?x=1");
    assert_eq!((short.username.as_deref(), short.every), (Some("ann"), Duration::from_secs(1)));
    assert_eq!(short.password.as_ref().map(Secret::reveal), Some("p@ss"));
    let print = "ab".repeat(32);
    let long = read(&format!(
        "{{ http: {{ url: 'https://192.0.2.3/video?x=1', every: 1m, username: ann, password: p@ss, fingerprint: {print} }} }}"
    ));
    assert_eq!((&long.url, &long.password, long.every), (&short.url, &short.password, Duration::from_secs(60)));
    assert!(long.fingerprint.is_some() && short.fingerprint.is_none());
    let long = |fields: &str| wrong(&format!("cameras: {{ a: {{ source: {{ http: {{ {fields} }} }} }} }}"));
    let every = |given: &str| format!("expected a time from 50ms to 1d, such as 500ms, 2s or 1m, found \"{given}\"");
    for (fields, words) in [
        ("every: 1s", "`url` is missing".to_owned()),
        ("url: ftp://x", "expected a URL that begins with http:// or https://".into()),
        ("url: 'http://x', every: 10ms", every("10ms")),
        ("url: 'http://x', every: 5", every("5")),
        ("url: 'http://x', password: x", "`password` without `username`".into()),
        (
            "url: 'https://x', fingerprint: abc",
            "expected the SHA-256 of a certificate: 64 hexadecimal digits, with or without colons, found \"abc\""
                .into(),
        ),
    ] {
        let told = long(fields);
        assert!(told.len() == 1 && told[0].ends_with(&words), "{fields}: {told:?}");
    }
    let told = long(&format!("url: 'http://x', fingerprint: {print}"));
    assert!(told.len() == 1 && told[0].ends_with("`fingerprint` is of use with https:// only"), "{told:?}");
}

#[test]
fn cameras_are_compared_as_parsed() {
    let one = |text: &str| good(&format!("cameras: {{ a: {{ {text} }} }}")).cameras.remove(0);
    let short = one("source: 'rtsp://u:p@c/x'");
    assert_eq!(short, one("source: { rtsp: { username: u, password: p, url: rtsp://c/x } }, on_demand: no"));
    assert_eq!(short, one("max_connections: 1, source: { rtsp: { transport: tcp, url: 'rtsp://u:p@c/x' } }"));
    for other in [
        "source: 'rtsp://u:q@c/x'",
        "source: 'rtsp://u:p@c/y'",
        "source: 'rtsp://u:p@c/x', on_demand: true",
        "source: 'rtsp://u:p@c/x', max_connections: 2",
        "source: { rtsp: { url: 'rtsp://u:p@c/x', transport: udp } }",
    ] {
        assert_ne!(short, one(other), "{other}");
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let canary = "canary-4711";
    // Each holds the canary as a secret beside, before or inside of a mistake.
    for text in [
        format!("users: [{{ nam: x, password_hash: {canary}, stream_key: {canary} }}]"),
        format!("users: [{{ name: x, pasword: {canary} }}]"),
        format!("users: [{{ name: x, stream_key: [{canary}], x: 1 }}]"),
        format!("users: {{ admin: {canary} }}"),
        format!("users: [{canary}]"),
        format!("users:\n  - name: x\n    stream_key: |\n      {canary} {canary}\n"),
        format!("users:\n  - name: x\n    stream_key: >-\n      {canary}\n     - b: c: d"),
        format!("users:\n  - {{ name: x, stream_key: &k \"{canary} x\" }}\n  - {{ name: y, stream_key: *k }}"),
        format!("cameras: {{ a: {{ source: 'rtsp://u:{canary}/x@c', foo: 1 }} }}"),
        format!("cameras: {{ a: {{ source: 'rtsp:/u:{canary}@c', foo: 1 }} }}"),
        format!("cameras: {{ a: {{ source: 'u:{canary}@c', foo: 1 }} }}"),
        format!("cameras: {{ a: {{ source: 'rtsp://c/user=x&password={canary}&a=b', foo: 1 }} }}"),
        format!(
            "cameras: {{ a: {{ source: {{ rtsp: {{ url: rtsp://c, username: u, password: {canary}, foo: 1 }} }} }} }}"
        ),
        format!("cameras: {{ a: {{ source: {{ comelit: {{ address: x, token: {canary} }} }} }} }}"),
        format!("cameras: {{ a: {{ source: {{ rtsp: {{ url: rtsp://c, password: {canary} }} }} }} }}"),
        format!("mqtt: {{ url: x, password: {canary} }}"),
        format!("https:\n  key: {canary}: x\n"),
        format!("cameras:\n  a:\n    source: {{ rtsp: {{ password: \"{canary}"),
        "auth: ${CANARY}".into(),
        "cameras: { a: { source: '${CANARY}' } }".into(),
        "http: { listen: '${CANARY}' }".into(),
    ] {
        let mistakes = read(&text).expect_err(&text);
        for shown in [mistakes.to_string(), format!("{mistakes:?}")] {
            assert!(!shown.contains("canary"), "{text}\n{shown}");
        }
    }
    let config = good(&format!(
        "users: [{{ name: x, stream_key: {canary}-long }}]\n\
         cameras: {{ a: {{ source: 'rtsp://u:{canary}@c/' }}, b: {{ source: 'rtsp://c/password={canary}', max_connections: 9 }} }}"
    ));
    assert!(!format!("{config:?}").contains("canary"), "{config:?}");
}

#[test]
fn files_that_cannot_be_read_say_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("f.yaml");
    let words = || load(&path).expect_err("wrong").to_string().replace(&folder.path().display().to_string(), "D");
    assert_eq!(words(), "D/f.yaml:1:1: cannot be read: No such file or directory (os error 2)");
    std::fs::write(&path, b"a: 1\nb: \xff\n").expect("written");
    assert_eq!(words(), "D/f.yaml:2:4: is no UTF-8 text");
    std::fs::write(&path, vec![b'#'; 1 << 21]).expect("written");
    assert_eq!(words(), "D/f.yaml:1:1: is larger than 1 MiB");
    std::fs::write(&path, "store: { path: x }\n").expect("written");
    assert_eq!(load(&path).expect("good").store.path, folder.path().join("x"));
    assert_eq!(find(Some(Path::new("named.yaml"))), Some("named.yaml".into()), "even if it is not there");
    let (none, file) = (folder.path().join("none.yaml"), path.join("below a file"));
    assert_eq!(first_of(std::slice::from_ref(&none)), None);
    assert_eq!(first_of(&[none, path.clone(), folder.path().to_owned()]), Some(path));
    assert_eq!(first_of(&[file]).map(|file| load(&file).is_err()), Some(true), "seen to be unreadable");
}

#[test]
fn the_example_is_a_configuration_that_works() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/fanlight.example.yaml");
    let text = std::fs::read_to_string(&path).expect("the example is there");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("admin.hash"), HASH).expect("written");
    let read = |text: &str| {
        let config = parse("example", text, folder.path(), &|_| Some("secret-from-outside".into()));
        let config = config.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!(config.warnings, []);
        config
    };
    let bare = read(&text);
    assert_eq!((bare.cameras.len(), bare.users.len()), (1, 0));
    // And with everything in it that waits to be uncommented.
    let whole = read(&text.lines().map(|line| uncomment(line) + "\n").collect::<String>());
    assert_eq!((whole.cameras.len(), whole.users.len()), (8, 2));
    assert_eq!(whole.http.hosts, ["cameras.home.arpa"]);
    let Source::Rtsp(door) = &whole.cameras[2].source else { panic!("an RTSP camera") };
    assert_eq!((door.transport, door.sub.is_some()), (Transport::Auto, true));
}

/// `  #key: value` becomes `  key: value`; `# words` stay.
fn uncomment(line: &str) -> String {
    match line.split_once('#') {
        Some((indent, rest))
            if indent.trim().is_empty()
                && (rest.starts_with("  ") || rest.starts_with(|c: char| c.is_ascii_lowercase()))
                && !rest.contains("fanlight check") =>
        {
            format!("{indent}{rest}")
        }
        _ => line.to_owned(),
    }
}

#[test]
fn webrtc_can_be_switched_off() {
    for text in ["webrtc: off", "webrtc: { listen: off }", "webrtc: { listen: [] }", "webrtc: []"] {
        assert_eq!(good(text).webrtc.listen, [], "{text}");
    }
    // Its default port is free then.
    assert_eq!(good("webrtc: off\nrtsp: { listen: 'a:8555' }").rtsp.listen.len(), 1);
}
