//! The sections of the file, one function each.

use super::read::{Context, Fields};
use super::tree::{Node, Place, Value};
use super::users::users;
use super::values::{Listen, Network, UdpPorts, wrong_name};
use super::{Auth, Camera, CertificateFiles, Config, Ftp, Http, Https, MiniDoorbell, Rtsp, Rtsps, Store, User, Webrtc};
use super::{ftp, mini_doorbell, webrtc};
use crate::ingest::{Rotation, Source};

/// Sections that later versions will know.
const LATER: [&str; 4] = ["mqtt", "dns", "vesync", "outlets"];
/// Cameras for the home serve fewer clients than this.
const MANY_CONNECTIONS: usize = 8;

/// The whole file.
pub(crate) fn read(mut fields: Fields<'_, '_>) -> Config {
    let default = Config::default();
    let mut taken = Vec::new();
    let mut config = Config {
        http: http(&mut fields, default.http, &mut taken),
        https: https(&mut fields, &mut taken),
        rtsp: rtsp(&mut fields, default.rtsp, &mut taken),
        rtsps: rtsps(&mut fields, &mut taken),
        webrtc: webrtc(&mut fields, default.webrtc, &mut taken),
        users: users(&mut fields),
        auth: fields.word("auth", &[("users", Auth::Users), ("none", Auth::None)]).unwrap_or(default.auth),
        store: store(&mut fields),
        mini_doorbell: MiniDoorbell::OFF,
        ftp: Ftp::OFF,
        cameras: cameras(&mut fields),
        warnings: Vec::new(),
    };
    config.ftp = ftp::read(&mut fields, &config.cameras, &mut taken);
    config.mini_doorbell = mini_doorbell::read(&mut fields, &config.cameras, &mut taken);
    fields.later(&LATER);
    fields.finish();
    config
}

/// A file of users only.
pub(crate) fn only_users(mut fields: Fields<'_, '_>) -> Vec<User> {
    fields.required("users");
    let users = users(&mut fields);
    fields.finish();
    users
}

/// A mapping under a key, or `None` where it is absent or no mapping.
pub(super) fn section<'n, 'c>(fields: &mut Fields<'n, 'c>, name: &str) -> Option<Fields<'n, 'c>> {
    let node = fields.take(name)?;
    Fields::of(fields.context, node)
}

/// A section that is off unless it is there. An empty one is a mistake: it looks as if it switched something on.
fn switch<'n, 'c>(fields: &mut Fields<'n, 'c>, name: &str) -> Option<Fields<'n, 'c>> {
    if let Some(node) = fields.value(name).filter(|node| matches!(node.value, Value::Null)) {
        let words = format!("`{name}:` without a value switches nothing on; `{name}: {{}}` does, with the defaults");
        fields.context.mistake(node.place, words);
    }
    section(fields, name)
}

/// Addresses bound so far, with the key that set them.
pub(super) type Taken = Vec<(Listen, &'static str)>;

pub(super) fn listen(
    fields: &mut Fields<'_, '_>,
    key: &'static str,
    default: Vec<Listen>,
    taken: &mut Taken,
) -> Vec<Listen> {
    let context = fields.context;
    let found: Vec<(Option<Place>, Listen)> = match fields.take("listen") {
        None => default.into_iter().map(|listen| (None, listen)).collect(),
        Some(node) => {
            let nodes = context.list(node);
            if nodes.is_empty() {
                context.mistake(node.place, "expected at least one address");
            }
            let expected = "an address such as 0.0.0.0:8554, [::]:8554 or localhost:8554";
            let read = |node: &Node| Some((Some(node.place), context.parsed(node, expected, Listen::parse)?));
            nodes.iter().filter_map(read).collect()
        }
    };
    let mut all = Vec::new();
    for (place, listen) in found {
        if let Some((_, other)) = taken.iter().find(|(other, _)| other.collides(&listen)) {
            let port = listen.port;
            context.mistake(place.unwrap_or(fields.place), format!("port {port} is already used by `{other}`"));
        }
        taken.push((listen.clone(), key));
        all.push(listen);
    }
    all
}

fn http(fields: &mut Fields<'_, '_>, default: Http, taken: &mut Taken) -> Http {
    let Some(mut fields) = section(fields, "http") else {
        taken.extend(default.listen.iter().map(|listen| (listen.clone(), "http.listen")));
        return default;
    };
    let context = fields.context;
    let each = |fields: &mut Fields<'_, '_>, key: &str, expected: &str, check: fn(&str) -> bool| -> Vec<String> {
        let nodes = fields.take(key).map(|node| context.list(node)).unwrap_or_default();
        let read = |node| context.parsed(node, expected, |text| check(text).then(|| text.to_ascii_lowercase()));
        nodes.iter().filter_map(read).collect()
    };
    let http = Http {
        listen: listen(&mut fields, "http.listen", default.listen, taken),
        allow_origins: each(&mut fields, "allow_origins", "an origin such as https://home.example:8123", is_origin),
        trusted_proxies: {
            let nodes = fields.take("trusted_proxies").map(|node| context.list(node)).unwrap_or_default();
            let expected = "an address or network such as 192.0.2.1 or 192.0.2.0/24";
            nodes.iter().filter_map(|node| context.parsed(node, expected, Network::parse)).collect()
        },
        hosts: each(&mut fields, "hosts", "a host name without port", is_host),
    };
    fields.finish();
    http
}

/// Addresses of a section that is off unless it is there.
fn listen_if_there(fields: &mut Fields<'_, '_>, key: &'static str, port: u16, taken: &mut Taken) -> Vec<Listen> {
    let default = Listen::new(std::net::Ipv4Addr::UNSPECIFIED.into(), port);
    listen(fields, key, vec![default], taken)
}

fn https(fields: &mut Fields<'_, '_>, taken: &mut Taken) -> Option<Https> {
    let mut fields = switch(fields, "https")?;
    let context = fields.context;
    let listen = listen_if_there(&mut fields, "https.listen", 8443, taken);
    let (chain, key) = (fields.take("cert_file"), fields.take("key_file"));
    let certificate = match (chain, key) {
        (None, None) => None,
        (Some(chain), Some(key)) => {
            let (chain, key) = (context.file(chain), context.file(key));
            chain.zip(key).map(|(chain, key)| CertificateFiles { chain, key })
        }
        (Some(one), None) | (None, Some(one)) => {
            let words = "`cert_file` and `key_file` belong together; without both the certificate is self-made";
            context.mistake(one.place, words);
            None
        }
    };
    fields.finish();
    Some(Https { listen, certificate })
}

fn rtsps(fields: &mut Fields<'_, '_>, taken: &mut Taken) -> Option<Rtsps> {
    let mut fields = switch(fields, "rtsps")?;
    let listen = listen_if_there(&mut fields, "rtsps.listen", 8322, taken);
    fields.finish();
    Some(Rtsps { listen })
}

fn is_origin(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text.to_ascii_lowercase()
    })
}

fn is_host(text: &str) -> bool {
    !text.contains(':') && Listen::parse(&format!("{text}:1")).is_some()
}

fn rtsp(fields: &mut Fields<'_, '_>, default: Rtsp, taken: &mut Taken) -> Rtsp {
    let outer = fields.place;
    let mut inner = section(fields, "rtsp");
    let Some(fields) = inner.as_mut() else {
        default_ports(fields.context, outer, "rtsp.listen", &default.listen, taken);
        return default;
    };
    let listen = listen(fields, "rtsp.listen", default.listen, taken);
    let context = fields.context;
    let expected = "a pair of ports, the first one even, such as 8000-8001, or off";
    let ports = fields.take("udp_ports").and_then(|node| context.parsed(node, expected, UdpPorts::parse));
    if let Some(fields) = inner {
        fields.finish();
    }
    Rtsp { listen, udp_ports: ports.unwrap_or(default.udp_ports) }
}

/// A section that is not there takes its default ports, unless they are taken.
pub(super) fn default_ports(
    context: &Context<'_>,
    place: Place,
    key: &'static str,
    listens: &[Listen],
    taken: &mut Taken,
) {
    for listen in listens {
        if let Some((_, other)) = taken.iter().find(|(other, _)| other.collides(listen)) {
            let port = listen.port;
            context.mistake(place, format!("port {port} of `{other}` is the default of `{key}`"));
        }
        taken.push((listen.clone(), key));
    }
}

fn webrtc(fields: &mut Fields<'_, '_>, default: Webrtc, taken: &mut Taken) -> Webrtc {
    let outer = fields.place;
    let off = |node: &Node| match &node.value {
        Value::Text(text) => matches!(text.as_str(), "off" | "false" | "no"),
        Value::List(list) => list.is_empty(),
        Value::Null | Value::Map(_) => false,
    };
    let context = fields.context;
    let Some(node) = fields.take("webrtc") else {
        default_ports(context, outer, "webrtc.listen", &default.listen, taken);
        return default;
    };
    if off(node) {
        return Webrtc { listen: Vec::new(), ..default };
    }
    let Some(mut fields) = Fields::of(context, node) else { return default };
    let listen = if fields.value("listen").is_some_and(off) {
        fields.take("listen");
        Vec::new()
    } else {
        listen(&mut fields, "webrtc.listen", default.listen, taken)
    };
    let candidates = fields.take("candidates").map(|node| webrtc::candidates(context, node));
    let ice_servers = fields.take("ice_servers").map(|node| webrtc::ice_servers(context, node));
    fields.finish();
    Webrtc { listen, candidates: candidates.unwrap_or_default(), ice_servers: ice_servers.unwrap_or_default() }
}

fn store(fields: &mut Fields<'_, '_>) -> Store {
    let context = fields.context;
    let mut path = None;
    if let Some(mut fields) = section(fields, "store") {
        path = fields.take("path").and_then(|node| context.path(node));
        fields.later(&["keep", "max_size", "upload"]);
        fields.finish();
    }
    let named = path.is_some();
    Store { path: path.unwrap_or_else(|| context.relative("data")), named }
}

fn cameras(fields: &mut Fields<'_, '_>) -> Vec<Camera> {
    let context = fields.context;
    // Outlets will share the names.
    let Some(mut fields) = section(fields, "cameras") else { return Vec::new() };
    let mut cameras = Vec::new();
    for (name, key, node) in fields.rest() {
        if let Some(words) = wrong_name(&name) {
            context.mistake(key.place, words);
        }
        if matches!(node.value, Value::Null) {
            context.mistake(key.place, "`source` is missing");
            continue;
        }
        let camera = Fields::of(context, node).and_then(|fields| camera(name, key.place, fields));
        if let Some(words) = camera.as_ref().and_then(|camera| taken_bell(&cameras, camera)) {
            context.mistake(key.place, words);
        }
        cameras.extend(camera);
    }
    cameras
}

/// What is wrong with a bell that another camera has already: each ring would be two visitors.
fn taken_bell(cameras: &[Camera], camera: &Camera) -> Option<String> {
    let Source::MiniDoorbell(bell) = &camera.source else { return None };
    let same = |other: &&Camera| matches!(&other.source, Source::MiniDoorbell(other) if other.id == bell.id);
    let other = &cameras.iter().find(same)?.name;
    Some(match bell.id {
        Some(id) => format!("the bell {id} is `{other}` already"),
        None => format!("`{other}` takes all bells without a name already; give one of the two its `id`"),
    })
}

fn camera(name: String, place: Place, mut fields: Fields<'_, '_>) -> Option<Camera> {
    let context = fields.context;
    // A missing source is a mistake of the camera, named where its name is.
    fields.place = place;
    let source = fields.required("source").and_then(|node| Source::read(context, node));
    let on_demand_at = fields.value("on_demand").map_or(place, |node| node.place);
    let mut on_demand = fields.flag("on_demand").unwrap_or(false);
    let (connections, at) = fields.whole_at("max_connections", 1..=64).unzip();
    let connections = connections.and_then(|number| usize::try_from(number).ok());
    let at = at.unwrap_or(place);
    let rotate = fields.take("rotate");
    let rotation = rotate.and_then(|node| {
        context.parsed(node, "0, 90, 180 or 270", |text| Rotation::from_degrees(text.trim().parse().ok()?))
    });
    fields.later(&["rotate_encoded"]);
    fields.finish();
    let source = source?;
    if let (Some(node), Source::Rtsp(_)) = (rotate, &source) {
        context.mistake(
            node.place,
            "`rotate` is for cameras that send single pictures; RTSP cameras turn theirs themselves",
        );
    }
    if on_demand && source.calls_us() {
        context.warn(on_demand_at, "it calls us when it pleases, so `on_demand` changes nothing");
        on_demand = false;
    }
    let streams = source.streams();
    if let Some(connections) = connections {
        if connections > MANY_CONNECTIONS {
            context.warn(
                at,
                format!(
                    "few cameras serve {connections} clients at once; `max_connections` is for all streams together"
                ),
            );
        } else if connections < streams {
            context.warn(at, "`sub` is never opened with this few connections: viewers of it get the main stream");
        }
    }
    let rotation = rotation.unwrap_or(source.usual_rotation());
    Some(Camera { name, source, rotation, on_demand, max_connections: connections.unwrap_or(streams) })
}
