//! `pipelines/*.yaml`: GStreamer descriptions as data. The folder's README.md says what may stand in them.

use super::packages;
use crate::config::read::{Context, Fields};
use crate::config::tree::{Node, Value};
use crate::config::{self, Mistakes};
use crate::media::{Codec, MediaTime, TrackInfo};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Key pictures come at most this far apart.
pub(super) const KEY_INTERVAL: Duration = Duration::from_secs(2);
/// Whether the picture at `pts`, `step` after the one before it, must be a key picture if the last one was at `key`: the
/// next one might be too late. Steps may waver by a tenth, so that from one picture a second down all are key pictures.
pub(super) fn key_is_due(key: MediaTime, pts: MediaTime, step: Duration) -> bool {
    pts + step + step / 10 > key + KEY_INTERVAL
}

/// Assumed where nobody knows the rate.
pub(super) const USUAL_RATE: f64 = 15.0;
/// Slow tracks are given the bits of this rate: what counts there is how a single picture looks.
const LEAST_RATE: f64 = 5.0;
/// The largest value that a file may give.
const MAX_VALUE: u32 = 1_000_000_000;

/// The files that are part of the program.
const EMBEDDED: &[(&str, &str)] = &[
    ("aac-to-opus.yaml", include_str!("../../pipelines/aac-to-opus.yaml")),
    ("h264-to-h264.yaml", include_str!("../../pipelines/h264-to-h264.yaml")),
    ("h264-to-jpeg.yaml", include_str!("../../pipelines/h264-to-jpeg.yaml")),
    ("h265-to-h264.yaml", include_str!("../../pipelines/h265-to-h264.yaml")),
    ("h265-to-jpeg.yaml", include_str!("../../pipelines/h265-to-jpeg.yaml")),
    ("jpeg-to-h264.yaml", include_str!("../../pipelines/jpeg-to-h264.yaml")),
];

/// Numbers that are worked out for each track and may stand in a description as `{name}`.
const WORKED_OUT: &[&str] =
    &["kbps", "bps", "key_interval", "width", "height", "crop_right", "crop_bottom", "channels"];

/// One way to make one codec of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// The file it came from, as it is named in messages.
    pub file: String,
    /// What it is for.
    pub about: String,
    /// What goes in.
    pub from: Codec,
    /// What comes out.
    pub to: Codec,
    /// The numbers that the file gives.
    pub values: BTreeMap<String, u32>,
    /// Pictures that are encoded in a second, at most.
    pub most_per_second: Option<u32>,
    /// In the order in which they are tried. Never empty.
    pub candidates: Vec<Candidate>,
}

/// One GStreamer description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it needs and uses, in a few words.
    pub about: String,
    /// It is no mistake if the machine does not have it.
    pub hardware: bool,
    /// As for `gst-launch-1.0`, with `{name}` for numbers.
    pub launch: String,
}

/// All pipelines, one for each pair of codecs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipelines(Vec<Arc<Pipeline>>);

impl Pipelines {
    /// Those that are part of the program, files of the same name in `folder` in their place. A folder that does not
    /// exist replaces nothing.
    ///
    /// # Errors
    /// All mistakes of all files, each with its place. A file of another name is one, too: nobody would read it.
    pub fn load(folder: Option<&Path>) -> Result<Self, Vec<Mistakes>> {
        let (mut pipelines, mut mistakes) = (Vec::new(), Vec::new());
        for (name, text) in EMBEDDED {
            let own = folder.map(|folder| folder.join(name)).filter(|path| path.try_exists().unwrap_or(true));
            let read = match &own {
                Some(path) => {
                    let file = path.display().to_string();
                    config::load_other(path, |fields| read(fields, name, &file))
                }
                None => {
                    let file = format!("pipelines/{name} (built in)");
                    config::parse_other(&file, text, |fields| read(fields, name, &file))
                }
            };
            match read {
                Ok(Some(pipeline)) => pipelines.push(Arc::new(pipeline)),
                // Where nothing could be read there is a mistake.
                Ok(None) => {}
                Err(found) => mistakes.push(found),
            }
        }
        mistakes.extend(folder.into_iter().flat_map(strangers));
        if mistakes.is_empty() { Ok(Self(pipelines)) } else { Err(mistakes) }
    }

    /// What makes `to` of `from`.
    pub fn find(&self, from: Codec, to: Codec) -> Option<&Arc<Pipeline>> {
        self.0.iter().find(|pipeline| pipeline.from == from && pipeline.to == to)
    }

    /// All, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pipeline>> {
        self.0.iter()
    }
}

impl Default for Pipelines {
    /// Those that are part of the program.
    fn default() -> Self {
        Self::load(None).expect("a test reads the files that are part of the program")
    }
}

/// YAML files in the folder that replace nothing.
fn strangers(folder: &Path) -> Vec<Mistakes> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut strange: Vec<_> =
        names.filter(|name| name.ends_with(".yaml") && EMBEDDED.iter().all(|(known, _)| known != name)).collect();
    strange.sort();
    let known: Vec<_> = EMBEDDED.iter().map(|(name, _)| *name).collect();
    let text = format!("replaces nothing; the names are {}", known.join(", "));
    strange
        .into_iter()
        .map(|name| Mistakes {
            file: folder.join(name).display().to_string(),
            list: vec![config::Mistake { line: 1, column: 1, text: text.clone(), source: String::new(), caret: 0 }],
        })
        .collect()
}

const CODECS: &[(&str, Codec)] =
    &[("h264", Codec::H264), ("h265", Codec::H265), ("jpeg", Codec::Jpeg), ("aac", Codec::Aac), ("opus", Codec::Opus)];

fn read(mut fields: Fields<'_, '_>, name: &str, file: &str) -> Option<Pipeline> {
    let context = fields.context;
    let about = fields.required("about").and_then(|node| context.text(node));
    let place = fields.place;
    for key in ["from", "to"] {
        fields.required(key);
    }
    let (from, to) = (fields.word("from", CODECS), fields.word("to", CODECS));
    if let (Some(from), Some(to)) = (from, to)
        && name != format!("{from}-to-{to}.yaml")
    {
        context.mistake(place, format!("a file named {name} cannot be from {from} to {to}"));
    }
    let values = fields.take("values").map(|node| values(context, node)).unwrap_or_default();
    let most_per_second = fields.whole_at("most_per_second", 1..=1000).map(|(number, _)| number);
    let listed = fields.required("candidates");
    fields.finish();
    let candidates: Vec<_> = match listed.map(|node| (node, &node.value)) {
        None => Vec::new(),
        Some((_, Value::List(list))) if !list.is_empty() => {
            list.iter().filter_map(|node| candidate(context, node, &values)).collect()
        }
        Some((node, _)) => {
            context.mistake(node.place, "expected a list of at least one candidate");
            Vec::new()
        }
    };
    let whole = !candidates.is_empty();
    whole.then_some(())?;
    let file = file.to_owned();
    Some(Pipeline { file, about: about?, from: from?, to: to?, values, most_per_second, candidates })
}

fn values(context: &Context<'_>, node: &Node) -> BTreeMap<String, u32> {
    let Some(mut fields) = Fields::of(context, node) else { return BTreeMap::new() };
    let number = |(name, key, value): (String, &Node, &Node)| {
        if !is_name(&name) {
            context.mistake(key.place, format!("{} is no name of a value: a-z and _", context.quote(key)));
        }
        let expected = format!("a whole number from 0 to {MAX_VALUE}");
        let parse = |text: &str| text.parse().ok().filter(|number| *number <= MAX_VALUE);
        Some((name, context.parsed(value, &expected, parse)?))
    };
    fields.rest().into_iter().filter_map(number).collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

fn candidate(context: &Context<'_>, node: &Node, values: &BTreeMap<String, u32>) -> Option<Candidate> {
    let mut fields = Fields::of(context, node)?;
    let about = fields.required("about").and_then(|node| context.text(node));
    let hardware = fields.flag("hardware").unwrap_or(false);
    let launch = fields.required("launch");
    fields.finish();
    let place = launch?.place;
    let launch = context.text(launch?)?.split_whitespace().collect::<Vec<_>>().join(" ");
    for (element, name) in [("appsrc", "name=in"), ("appsink", "name=out")] {
        let there = |part: &str| part.split_whitespace().any(|word| word == name) && part.trim().starts_with(element);
        if !launch.split('!').any(there) {
            context.mistake(place, format!("there must be one `{element} {name}`"));
        }
    }
    if !launch.split_whitespace().any(|word| word == "name=enc") {
        context.mistake(place, "the encoder must have `name=enc`");
    }
    for name in placeholders(&launch) {
        match name {
            Ok(name) if WORKED_OUT.contains(&name) || values.contains_key(name) => {}
            Ok(name) => context.mistake(
                place,
                format!("{{{name}}} is neither one of the file's values nor one of {}", WORKED_OUT.join(", ")),
            ),
            Err(()) => context.mistake(place, "`{` must be followed by the name of a value and `}`"),
        }
    }
    Some(Candidate { about: about?, hardware, launch })
}

/// The names in braces.
fn placeholders(launch: &str) -> impl Iterator<Item = Result<&str, ()>> {
    launch
        .split('{')
        .skip(1)
        .map(|rest| rest.split_once('}').map(|(name, _)| name).filter(|name| is_name(name)).ok_or(()))
}

impl Pipeline {
    /// `h265-to-h264`.
    pub fn name(&self) -> String {
        format!("{}-to-{}", self.from, self.to)
    }

    /// The descriptions with the numbers for that track filled in.
    pub(super) fn filled(&self, info: &TrackInfo, rate: Option<f64>) -> Vec<String> {
        let numbers = self.numbers(info, rate);
        let fill = |candidate: &Candidate| {
            let mut text = candidate.launch.clone();
            for (name, number) in &numbers {
                text = text.replace(&format!("{{{name}}}"), &number.to_string());
            }
            text
        };
        self.candidates.iter().map(fill).collect()
    }

    /// Every number that may stand in a description. Those of the file win.
    fn numbers(&self, info: &TrackInfo, rate: Option<f64>) -> BTreeMap<String, u32> {
        let given = |name: &str, otherwise: u32| self.values.get(name).copied().unwrap_or(otherwise);
        let rate = rate.unwrap_or(USUAL_RATE).clamp(0.1, 240.0);
        let (width, height) = info.video().map_or((0, 0), |video| (video.width, video.height));
        let pixels = match u64::from(width) * u64::from(height) {
            // Not known yet: a camera's usual size.
            0 => 1280 * 720,
            pixels => pixels,
        };
        let bits = pixels as f64 * rate.max(LEAST_RATE) * f64::from(given("millibits_per_pixel", 100)) / 1000.0;
        let (least, most) = (given("least_kbps", 100), given("most_kbps", 20_000));
        let kbps = given("kbps", ((bits / 1000.0) as u32).min(most).max(least));
        let worked_out = [
            ("kbps", kbps),
            ("bps", kbps.saturating_mul(1000)),
            // The first number says after how many pictures a key picture must follow.
            ("key_interval", ((rate * KEY_INTERVAL.as_secs_f64()).floor() as u32).max(1)),
            ("width", width),
            ("height", height),
            // 4:2:0 has no odd sizes.
            ("crop_right", width % 2),
            ("crop_bottom", height % 2),
            ("channels", u32::from(info.audio().map_or(1, |audio| audio.channels.clamp(1, 2)))),
        ];
        let mut numbers: BTreeMap<_, _> =
            worked_out.into_iter().map(|(name, number)| (name.to_owned(), number)).collect();
        numbers.extend(self.values.clone());
        numbers
    }

    /// Why nothing of it can run here: names the element and the package of the candidate that lacks least. `missing`
    /// holds the elements that each candidate lacks.
    pub(super) fn lacking(&self, missing: &[Vec<String>]) -> String {
        let pairs = self.candidates.iter().zip(missing);
        let least = pairs.filter(|(_, missing)| !missing.is_empty());
        let Some((_, elements)) = least.min_by_key(|(candidate, missing)| (candidate.hardware, missing.len())) else {
            return format!("no pipeline of {} can run here", self.file);
        };
        let (from, to) = (self.from, self.to);
        let installs: Vec<_> = elements.iter().map(|element| packages::advice(element)).collect();
        format!("{from} cannot be turned into {to} here: {}", installs.join(", and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{AudioFormat, Format, VideoFormat};

    fn track(width: u32, height: u32) -> TrackInfo {
        let video = VideoFormat { width, height, ..VideoFormat::default() };
        TrackInfo { codec: Codec::H264, clock_rate: 90_000, format: Format::Video(video) }
    }

    fn mistakes(text: &str) -> Vec<String> {
        let read = config::parse_other("x.yaml", text, |fields| read(fields, "jpeg-to-h264.yaml", "x.yaml"));
        let list = read.map(drop).map_err(|mistakes| mistakes.list).expect_err("it has mistakes");
        list.iter().map(|mistake| format!("{}:{}: {}", mistake.line, mistake.column, mistake.text)).collect()
    }

    #[test]
    fn the_files_that_are_part_of_the_program_are_without_mistakes() {
        let pipelines = Pipelines::load(None).unwrap();
        let names: Vec<_> = pipelines.iter().map(|pipeline| pipeline.name() + ".yaml").collect();
        assert_eq!(names, EMBEDDED.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        for pipeline in pipelines.iter() {
            assert!(pipeline.candidates.iter().any(|candidate| !candidate.hardware), "{}", pipeline.file);
            let hardware_first = pipeline.candidates.is_sorted_by_key(|candidate| !candidate.hardware);
            assert!(hardware_first, "{}: hardware goes before software", pipeline.file);
            for (candidate, filled) in pipeline.candidates.iter().zip(pipeline.filled(&track(640, 480), None)) {
                assert!(!filled.contains(['{', '}']), "{filled}");
                for element in packages::elements(&candidate.launch) {
                    assert!(packages::package(element).is_some(), "{element}: which package has it?");
                }
            }
        }
    }

    #[test]
    fn bitrates_follow_the_size_and_have_bounds() {
        let pipelines = Pipelines::default();
        let pipeline = pipelines.find(Codec::H264, Codec::H264).unwrap();
        let kbps = |width, height, rate| pipeline.numbers(&track(width, height), Some(rate))["kbps"];
        assert_eq!(kbps(768, 432, 10.0), 400);
        assert_eq!(kbps(1280, 720, 25.0), 2764);
        assert_eq!(kbps(3840, 2160, 25.0), 8000);
        let numbers = pipeline.numbers(&track(641, 481), Some(12.5));
        assert_eq!((numbers["key_interval"], numbers["crop_right"], numbers["crop_bottom"]), (25, 1, 1));
        assert_eq!(pipeline.numbers(&track(641, 481), Some(0.3))["key_interval"], 1);

        let sound = AudioFormat { channels: 6, sample_rate: 48_000, config: bytes::Bytes::new() };
        let sound = TrackInfo { codec: Codec::Aac, clock_rate: 48_000, format: Format::Audio(sound) };
        let numbers = pipelines.find(Codec::Aac, Codec::Opus).unwrap().numbers(&sound, None);
        assert_eq!((numbers["channels"], numbers["bps"]), (2, 64_000));
    }

    #[test]
    fn mistakes_are_shown_at_their_place() {
        let good = "about: a\nfrom: jpeg\nto: h264\nvalues: { x: 1 }\ncandidates:\n- about: b\n  launch: appsrc name=in ! y a={x} name=enc ! appsink name=out\n";
        assert!(config::parse_other("x", good, |fields| read(fields, "jpeg-to-h264.yaml", "x")).unwrap().is_some());
        assert_eq!(
            mistakes(&good.replace("{ x: 1 }", "{ x: 1.5 }"))[0],
            "4:14: expected a whole number from 0 to 1000000000, found \"1.5\""
        );
        assert!(mistakes(&good.replace("{x}", "{y}"))[0].starts_with("7:11: {y} is neither"));
        assert!(mistakes(&good.replace("{x}", "{x"))[0].contains("must be followed"));
        assert_eq!(mistakes(&good.replace("name=enc", ""))[0], "7:11: the encoder must have `name=enc`");
        assert_eq!(mistakes(&good.replace("name=in", "name=inn"))[0], "7:11: there must be one `appsrc name=in`");
        assert!(mistakes(&good.replace("to: h264", "to: h265"))[0].contains("cannot be from jpeg to h265"));
        assert!(mistakes(&good.replace("about: a", "abuot: a")).iter().any(|text| text.contains("unknown field")));
    }

    #[test]
    fn files_beside_the_configuration_replace_those_of_the_program() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Pipelines::load(Some(folder.path())).unwrap(), Pipelines::default());
        let own = EMBEDDED[0].1.replace("64000", "32000");
        std::fs::write(folder.path().join("aac-to-opus.yaml"), own).unwrap();
        let pipelines = Pipelines::load(Some(folder.path())).unwrap();
        assert_eq!(pipelines.find(Codec::Aac, Codec::Opus).unwrap().values["bps"], 32_000);
        std::fs::write(folder.path().join("aac-to-mp3.yaml"), "").unwrap();
        let mistakes = Pipelines::load(Some(folder.path())).unwrap_err();
        assert!(mistakes[0].to_string().contains("replaces nothing"), "{}", mistakes[0]);
    }

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let pipelines = Pipelines::default();
        let pipeline = pipelines.find(Codec::H264, Codec::H264).unwrap();
        let missing: Vec<Vec<String>> = pipeline
            .candidates
            .iter()
            .map(|candidate| {
                let lacks = |element: &&str| element.contains("264") && !element.starts_with("avdec");
                packages::elements(&candidate.launch).filter(lacks).map(str::to_owned).collect()
            })
            .collect();
        assert_eq!(
            pipeline.lacking(&missing),
            "h264 cannot be turned into h264 here: the GStreamer element x264enc is missing, which is in the Debian \
             package gstreamer1.0-plugins-ugly"
        );
    }
}
