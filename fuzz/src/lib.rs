//! What the fuzz targets do with their input. The corpus test of the main package calls the same functions.
//!
//! To add a target: a module here with `check` and its line in [`TARGETS`], a file of two lines in `fuzz_targets/`, its
//! `[[bin]]` in `Cargo.toml`, and a folder with a few small files in `corpus/`.

pub mod h264;
pub mod h265;
pub mod http_multipart;
pub mod interleaved;
pub mod iwfcam_session;
pub mod iwfcam_wire;
pub mod jpeg;
pub mod jpeg_check;
pub mod mini_doorbell_upload;
pub mod mini_doorbell_wire;
pub mod push_body;
pub mod push_session;
pub mod rendition_frames;
pub mod rtsp_request;
pub mod sdp_offer;
pub mod timeline;
pub mod trickle_fragment;

/// A target's name and what it does with an input. It panics if a promise is broken.
pub type Target = (&'static str, fn(&[u8]));

/// Every target. The names are those of the folders in `corpus/`.
pub const TARGETS: &[Target] = &[
    ("h264", h264::check),
    ("h265", h265::check),
    ("http_multipart", http_multipart::check),
    ("interleaved", interleaved::check),
    ("iwfcam_session", iwfcam_session::check),
    ("iwfcam_wire", iwfcam_wire::check),
    ("jpeg", jpeg::check),
    ("mini_doorbell_upload", mini_doorbell_upload::check),
    ("mini_doorbell_wire", mini_doorbell_wire::check),
    ("push_body", push_body::check),
    ("push_session", push_session::check),
    ("jpeg_check", jpeg_check::check),
    ("rendition_frames", rendition_frames::check),
    ("rtsp_request", rtsp_request::check),
    ("sdp_offer", sdp_offer::check),
    ("timeline", timeline::check),
    ("trickle_fragment", trickle_fragment::check),
];
