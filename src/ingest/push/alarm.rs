//! Alarm posts of Hikvision cameras and their many rebadges ("alarm server", "HTTP listening"): one XML text,
//! `EventNotificationAlert`, of which the few fields below matter.
//!
//! | field              | meaning                                                   | source                     |
//! |--------------------|-----------------------------------------------------------|----------------------------|
//! | `eventType`        | `VMD` is motion in the picture, `PIR` the sensor; others by their own name, in any case of letters | captures |
//! | `eventState`       | `active` about once a second while the cause lasts, `inactive` once, or never | captures |
//! | `dateTime`         | the camera's clock, with its offset                       | captures                   |
//! | `channelName`      | what the user called the channel                          | captures                   |
//! | `eventDescription` | for people; `Heartbeat` marks the old doorbells' heartbeat | captures                  |
//!
//! `videoloss` that is `inactive`, and `duration`, only say that the camera is alive.

use crate::bus::EventKind;
use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::{Map, Value};

/// An alarm is no longer than this, in bytes. Real ones take half a kilobyte.
const MAX_XML: usize = 64 << 10;
/// Of a field no more is kept, in characters.
const MAX_FIELD: usize = 128;
/// Names of kinds end up in URLs and topics.
const MAX_KIND: usize = 32;
const ROOT: &str = "EventNotificationAlert";

/// One alarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarm {
    kind: String,
    state: String,
    time: String,
    channel: String,
    description: String,
}

/// What an alarm says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing but that the camera is alive.
    Alive,
    /// The cause with that name as in [`EventKind::name`] began or lasts (`true`), or is over.
    Cause(String, bool),
}

/// Why a text is no alarm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlarmError {
    /// There is no such element, or it does not end.
    #[error("the XML holds no whole EventNotificationAlert")]
    Missing,
    /// It is longer than any real one.
    #[error("an alarm of {0} bytes is longer than the {MAX_XML} that are read")]
    TooLong(usize),
    /// It is no XML.
    #[error("the XML cannot be read at byte {0}")]
    Malformed(u64),
    /// It does not say what happened.
    #[error("the EventNotificationAlert has no eventType")]
    NoType,
}

/// Reads the first alarm of a text; what stands around it does not matter, since cameras frame it in many ways.
///
/// # Errors
/// [`AlarmError`] says why there is none.
pub fn parse(text: &[u8]) -> Result<Alarm, AlarmError> {
    let start = memchr::memmem::find(text, b"<EventNotificationAlert").ok_or(AlarmError::Missing)?;
    let text = text.get(start..).unwrap_or_default();
    let end = memchr::memmem::find(text, b"</EventNotificationAlert>").ok_or(AlarmError::Missing)?;
    if end > MAX_XML {
        return Err(AlarmError::TooLong(end));
    }
    let whole = end + "</EventNotificationAlert>".len();
    let text = String::from_utf8_lossy(text.get(..whole).unwrap_or_default());
    let mut reader = Reader::from_str(&text);
    let mut alarm = Alarm::default();
    let mut depth = 0_usize;
    let mut field = String::new();
    loop {
        let event = reader.read_event().map_err(|_| AlarmError::Malformed(reader.buffer_position()))?;
        match event {
            Event::Start(start) => {
                depth += 1;
                if depth == 1 && start.local_name().as_ref() != ROOT {
                    return Err(AlarmError::Missing);
                }
                field = if depth == 2 { start.local_name().as_ref().to_owned() } else { String::new() };
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                field.clear();
            }
            Event::Text(text) => alarm.add(&field, &text.xml10_content()),
            Event::CData(text) => alarm.add(&field, &text.xml10_content()),
            Event::GeneralRef(reference) => {
                // Only what XML itself defines; a document's own entities are never read.
                let character = match reference.resolve_char_ref() {
                    Ok(Some(character)) => Some(character.to_string()),
                    _ => quick_xml::escape::resolve_predefined_entity(&reference).map(str::to_owned),
                };
                alarm.add(&field, character.as_deref().unwrap_or_default());
            }
            Event::Eof => break,
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    if alarm.kind.trim().is_empty() { Err(AlarmError::NoType) } else { Ok(alarm) }
}

impl Alarm {
    fn add(&mut self, field: &str, text: &str) {
        let value = match field {
            "eventType" => &mut self.kind,
            "eventState" => &mut self.state,
            "dateTime" => &mut self.time,
            "channelName" => &mut self.channel,
            "eventDescription" => &mut self.description,
            _ => return,
        };
        let left = MAX_FIELD.saturating_sub(value.chars().count());
        value.extend(text.chars().filter(|c| !c.is_control()).take(left));
    }

    /// What it says.
    pub fn says(&self) -> Says {
        let active = !self.state.trim().eq_ignore_ascii_case("inactive");
        let name = match self.kind.trim().to_ascii_lowercase().as_str() {
            "vmd" => "motion".to_owned(),
            "duration" => return Says::Alive,
            "videoloss" if !active => return Says::Alive,
            "other" if self.description.trim().eq_ignore_ascii_case("heartbeat") => return Says::Alive,
            "heartbeat" => return Says::Alive,
            "tamperdetection" | "shelteralarm" => "tamper".to_owned(),
            "fielddetection" => "field_detection".to_owned(),
            "linedetection" => "line_detection".to_owned(),
            "regionentrance" => "region_entrance".to_owned(),
            "regionexiting" => "region_exiting".to_owned(),
            other => plain(other),
        };
        Says::Cause(name, active)
    }

    /// What goes into an event beside its kind, as texts.
    pub fn detail(&self) -> Map<String, Value> {
        let fields = [
            ("type", &self.kind),
            ("description", &self.description),
            ("channel", &self.channel),
            ("device_time", &self.time),
        ];
        let told = fields.into_iter().map(|(name, value)| (name, value.trim())).filter(|(_, value)| !value.is_empty());
        told.map(|(name, value)| (name.to_owned(), value.into())).collect()
    }
}

/// A name that may stand in URLs and topics.
fn plain(name: &str) -> String {
    let name: String = name.chars().take(MAX_KIND).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.trim_matches('_').is_empty() { "alarm".into() } else { name }
}

/// The event of a cause. Only motion and the sensor also end; the others are moments.
pub fn event(name: &str, active: bool) -> Option<EventKind> {
    Some(match name {
        "motion" => EventKind::Motion(active),
        "pir" => EventKind::Pir(active),
        _ if !active => return None,
        "visitor" => EventKind::Visitor,
        "alarm" => EventKind::Alarm,
        other => EventKind::Other(other.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As a doorbell of the family sent it.
    const VMD: &[u8] = include_bytes!("testdata/hikvision-200321-vmd.xml");

    fn alarm(fields: &str) -> Result<Alarm, AlarmError> {
        parse(format!("<EventNotificationAlert>{fields}</EventNotificationAlert>").as_bytes())
    }

    fn says(kind: &str, state: &str, description: &str) -> Says {
        let fields = format!(
            "<eventType>{kind}</eventType><eventState>{state}</eventState><eventDescription>{description}</eventDescription>"
        );
        alarm(&fields).unwrap().says()
    }

    #[test]
    fn a_captured_alarm_is_motion() {
        let alarm = parse(VMD).unwrap();
        assert_eq!(alarm.says(), Says::Cause("motion".into(), true));
        let expected = serde_json::json!({
            "type": "VMD", "description": "Motion alarm", "device_time": "2026-01-07T10:00:05+00:00"
        });
        assert_eq!(Value::Object(alarm.detail()), expected);
    }

    #[test]
    fn kinds_are_ours_where_we_have_one() {
        let cause = |name: &str, active| Says::Cause(name.into(), active);
        assert_eq!(says("VMD", "inactive", ""), cause("motion", false));
        assert_eq!(says("pir", "active", ""), cause("pir", true));
        assert_eq!(says("shelteralarm", "active", ""), cause("tamper", true));
        assert_eq!(says("lineDetection", "active", ""), cause("line_detection", true));
        assert_eq!(says("videoloss", "active", ""), cause("videoloss", true));
        assert_eq!(says("Face Snap/../1", "active", ""), cause("face_snap____1", true));
        assert_eq!(says("///", "active", ""), cause("alarm", true));
        assert_eq!(says("IO", "", ""), cause("io", true), "no state is a moment");
        for (kind, state, description) in
            [("videoloss", "inactive", "videoloss alarm"), ("duration", "active", ""), ("other", "active", "Heartbeat")]
        {
            assert_eq!(says(kind, state, description), Says::Alive, "{kind}");
        }
    }

    #[test]
    fn only_our_own_fields_are_read_and_bounded() {
        let text = "<eventType>VMD</eventType><channelName>A &amp; B &#x2014; &own; <b>bold</b></channelName>\
                    <inner><eventType>PIR</eventType></inner><channelID>1</channelID>";
        let alarm = alarm(text).unwrap();
        assert_eq!(alarm.says(), Says::Cause("motion".into(), true));
        assert_eq!(alarm.channel, "A & B \u{2014}  ");
        let long = format!("<eventType>VMD</eventType><channelName>{}\n\u{7}</channelName>", "ü".repeat(3000));
        let bounded = super::tests::alarm(&long).unwrap();
        assert_eq!(bounded.channel, "ü".repeat(MAX_FIELD));
    }

    #[test]
    fn what_is_no_alarm_says_why() {
        assert_eq!(parse(b"<Other/>"), Err(AlarmError::Missing));
        assert_eq!(parse(b"<EventNotificationAlert><eventType>VMD</eventType>"), Err(AlarmError::Missing));
        assert!(parse(b"<EventNotificationAlertX></EventNotificationAlert>").is_err());
        assert_eq!(alarm("<channelName>x</channelName>"), Err(AlarmError::NoType));
        assert!(matches!(alarm("<eventType>VMD"), Err(AlarmError::Malformed(_))));
        let long = "<a/>".repeat(MAX_XML / 4 + 1);
        assert!(matches!(alarm(&long), Err(AlarmError::TooLong(_))));
    }

    #[test]
    fn entities_of_the_document_are_never_expanded() {
        let bomb = b"<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;\">]>\
            <EventNotificationAlert><eventType>&b;VMD</eventType></EventNotificationAlert>";
        assert_eq!(parse(bomb).unwrap().kind, "VMD");
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in proptest::collection::vec(any::<u8>(), 0..300), inside in ".{0,200}") {
            let _ = parse(&text);
            if let Ok(alarm) = alarm(&inside) {
                prop_assert!(alarm.kind.chars().count() <= MAX_FIELD);
                if let Says::Cause(name, _) = alarm.says() {
                    prop_assert!(!name.is_empty() && name.len() <= MAX_KIND);
                }
            }
        }
    }
}
