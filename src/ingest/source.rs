//! What a camera is: its family and how to reach it, as the configuration says.
//!
//! A family is added by its variant and its line in [`FAMILIES`].

use super::supervisor::Pace;
use super::{Rotation, http, iwfcam, mini_doorbell, push, rtsp};
use crate::config::Secret;
use crate::config::read::{Context, Fields};
use crate::config::tree::{Node, Value};
use std::time::Duration;

/// One camera, one variant a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Speaks RTSP.
    Rtsp(rtsp::Config),
    /// Sends JPEG in UDP datagrams.
    Iwfcam(iwfcam::Config),
    /// Calls us and leaves one picture a visitor.
    MiniDoorbell(mini_doorbell::Config),
    /// Whatever sends us pictures by HTTP or FTP.
    Push(push::Config),
    /// Serves JPEG by HTTP.
    Http(http::Config),
}

/// How a family is written.
struct Family {
    /// The key of the long form.
    name: &'static str,
    /// The schemes of the short form.
    schemes: &'static [&'static str],
    /// Reads short and long form; `None` where a later version will.
    read: Option<Reader>,
}

struct Reader {
    short: fn(&Context<'_>, &Node) -> Option<Source>,
    long: fn(Fields<'_, '_>) -> Option<Source>,
}

const FAMILIES: [Family; 7] = [
    Family {
        name: "rtsp",
        schemes: &["rtsp", "rtsps"],
        read: Some(Reader {
            short: |context, node| rtsp::Config::short(context, node).map(Source::Rtsp),
            long: |fields| rtsp::Config::long(fields).map(Source::Rtsp),
        }),
    },
    Family { name: "onvif", schemes: &["onvif"], read: None },
    Family {
        name: "iwfcam",
        schemes: &["iwfcam"],
        read: Some(Reader {
            short: |context, node| iwfcam::Config::short(context, node).map(Source::Iwfcam),
            long: |fields| iwfcam::Config::long(fields).map(Source::Iwfcam),
        }),
    },
    Family {
        name: "mini_doorbell",
        schemes: &["mini-doorbell"],
        read: Some(Reader {
            short: |context, node| mini_doorbell::Config::short(context, node).map(Source::MiniDoorbell),
            long: |fields| mini_doorbell::Config::long(fields).map(Source::MiniDoorbell),
        }),
    },
    Family {
        name: "push",
        schemes: &["push"],
        read: Some(Reader {
            short: |context, node| push::Config::short(context, node).map(Source::Push),
            long: |fields| push::Config::long(fields).map(Source::Push),
        }),
    },
    Family {
        name: "http",
        schemes: &["http", "https"],
        read: Some(Reader {
            short: |context, node| http::Config::short(context, node).map(Source::Http),
            long: |fields| http::Config::long(fields).map(Source::Http),
        }),
    },
    Family { name: "comelit", schemes: &["comelit"], read: None },
];

impl Source {
    /// The family as in YAML and JSON.
    pub fn family(&self) -> &'static str {
        match self {
            Self::Rtsp(_) => "rtsp",
            Self::Iwfcam(_) => "iwfcam",
            Self::MiniDoorbell(_) => "mini_doorbell",
            Self::Push(_) => "push",
            Self::Http(_) => "http",
        }
    }

    /// What a device shows that brings pictures or events of this camera.
    pub fn token(&self) -> Option<&Secret> {
        match self {
            Self::Push(config) => config.token.as_ref(),
            Self::Rtsp(_) | Self::Iwfcam(_) | Self::MiniDoorbell(_) | Self::Http(_) => None,
        }
    }

    /// Streams that are configured, each of which takes a connection.
    pub fn streams(&self) -> usize {
        match self {
            Self::Rtsp(config) => 1 + usize::from(config.sub.is_some()),
            Self::Iwfcam(_) | Self::Http(_) | Self::MiniDoorbell(_) | Self::Push(_) => 1,
        }
    }

    /// Whether devices of the family call us when they please: nobody can connect to them on demand.
    pub fn calls_us(&self) -> bool {
        match self {
            Self::MiniDoorbell(_) | Self::Push(_) => true,
            Self::Rtsp(_) | Self::Iwfcam(_) | Self::Http(_) => false,
        }
    }

    /// How far pictures are turned where the configuration does not say.
    pub fn usual_rotation(&self) -> Rotation {
        match self {
            // The sensor is mounted upside down.
            Self::MiniDoorbell(_) => Rotation::Half,
            Self::Rtsp(_) | Self::Iwfcam(_) | Self::Push(_) | Self::Http(_) => Rotation::None,
        }
    }

    /// How long to wait between attempts, where the family is to be treated in another way than usual.
    pub fn pace(&self, usual: Pace) -> Pace {
        match self {
            // A search or a login costs the camera nothing, and a place whose client is gone is free after 6 s: whatever
            // it was that kept us out, pictures are back 2 s after that. A session searches for the last time 3 s before
            // it ends, and logs in every 1.5 s while all places are taken. A refused token locks nobody out (all of it
            // from captures).
            Self::Iwfcam(_) => Pace {
                lost: (usual.lost.0, usual.lost.1.min(Duration::from_secs(3))),
                busy: (usual.busy.0.min(Duration::from_millis(1_500)), usual.busy.1.min(Duration::from_millis(1_500))),
                denied: usual.denied.min(Duration::from_secs(60)),
                ..usual
            },
            Self::Rtsp(_) | Self::MiniDoorbell(_) | Self::Push(_) | Self::Http(_) => usual,
        }
    }

    /// Reads `source:`: a URL, or a mapping with the family as its one key. Notes mistakes.
    pub(crate) fn read(context: &Context<'_>, node: &Node) -> Option<Self> {
        match &node.value {
            Value::Text(_) => {
                let text = context.text(node)?;
                let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
                let family = FAMILIES
                    .iter()
                    .find(|family| scheme.as_deref().is_some_and(|scheme| family.schemes.contains(&scheme)));
                match family.map(|family| (family.name, &family.read)) {
                    Some((_, Some(reader))) => return (reader.short)(context, node),
                    Some((name, None)) => {
                        context.mistake(node.place, format!("`{name}` cameras are not supported by this version"));
                    }
                    None => context.mistake(
                        node.place,
                        format!("expected a URL such as rtsp://192.0.2.20/stream, or one of {}", names()),
                    ),
                }
            }
            Value::Map(map) => {
                let [(key, value)] = map.as_slice() else {
                    context.hide(node);
                    context.mistake(node.place, format!("expected one key, the family: one of {}", names()));
                    return None;
                };
                let name = match &key.value {
                    Value::Text(name) => name.as_str(),
                    _ => "",
                };
                match FAMILIES.iter().find(|family| family.name == name).map(|family| &family.read) {
                    Some(Some(reader)) => return (reader.long)(Fields::of(context, value)?),
                    Some(None) => {
                        context.hide(value);
                        context.mistake(key.place, format!("`{name}` cameras are not supported by this version"));
                    }
                    None => {
                        context.hide(value);
                        let name = context.quote(key);
                        context.mistake(key.place, format!("unknown family {name}, expected one of {}", names()));
                    }
                }
            }
            _ => context.mistake(node.place, format!("expected a URL or a family, found {}", node.kind())),
        }
        None
    }
}

/// The families that can be used.
fn names() -> String {
    let names: Vec<&str> = FAMILIES.iter().filter(|family| family.read.is_some()).map(|family| family.name).collect();
    names.join(", ")
}
