//! Which Debian package has which GStreamer element.

/// Element names, or their beginnings before a `*`, and their package in Debian 12.
const PACKAGES: &[(&str, &str)] = &[
    ("x264enc", "gstreamer1.0-plugins-ugly"),
    ("avdec_*", "gstreamer1.0-libav"),
    ("avenc_*", "gstreamer1.0-libav"),
    ("vaapi*", "gstreamer1.0-vaapi"),
    ("openh264enc", "gstreamer1.0-plugins-bad"),
    ("openh264dec", "gstreamer1.0-plugins-bad"),
    ("libde265dec", "gstreamer1.0-plugins-bad"),
    ("faad", "gstreamer1.0-plugins-bad"),
    ("h264parse", "gstreamer1.0-plugins-bad"),
    ("h265parse", "gstreamer1.0-plugins-bad"),
    ("opusparse", "gstreamer1.0-plugins-bad"),
    ("nvh26*", "gstreamer1.0-plugins-bad"),
    ("vah26*", "gstreamer1.0-plugins-bad"),
    ("vapostproc", "gstreamer1.0-plugins-bad"),
    ("v4l2*", "gstreamer1.0-plugins-good"),
    ("jpegdec", "gstreamer1.0-plugins-good"),
    ("jpegenc", "gstreamer1.0-plugins-good"),
    ("videocrop", "gstreamer1.0-plugins-good"),
    ("opusenc", "gstreamer1.0-plugins-base"),
    ("videoconvert", "gstreamer1.0-plugins-base"),
    ("videoscale", "gstreamer1.0-plugins-base"),
    ("audioconvert", "gstreamer1.0-plugins-base"),
    ("audioresample", "gstreamer1.0-plugins-base"),
    ("appsrc", "gstreamer1.0-plugins-base"),
    ("appsink", "gstreamer1.0-plugins-base"),
];

/// The package of an element; `None` for one that is not known here, which may be a typing mistake.
pub(super) fn package(element: &str) -> Option<&'static str> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(begin) => element.starts_with(begin),
        None => element == pattern,
    };
    PACKAGES.iter().find(|(pattern, _)| fits(pattern)).map(|(_, package)| *package)
}

/// What to do about a missing element, in words.
pub(super) fn advice(element: &str) -> String {
    match package(element) {
        Some(package) => {
            format!("the GStreamer element {element} is missing, which is in the Debian package {package}")
        }
        None => format!("there is no GStreamer element named {element}; is it spelled right?"),
    }
}

/// The elements of a description, in order. Caps between them are left out.
pub(super) fn elements(launch: &str) -> impl Iterator<Item = &str> {
    launch.split('!').filter_map(|part| part.split_whitespace().next()).filter(|word| !word.contains(['/', '.', '=']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_told_from_caps() {
        let launch = "appsrc name=in ! video/x-raw(memory:VAMemory),format=NV12 ! x264enc name=enc ! appsink name=out";
        assert_eq!(elements(launch).collect::<Vec<_>>(), ["appsrc", "x264enc", "appsink"]);
    }

    #[test]
    fn what_is_not_known_may_be_a_typing_mistake() {
        assert_eq!(package("opusenc"), Some("gstreamer1.0-plugins-base"));
        assert!(advice("x264encc").contains("spelled right"));
    }
}
