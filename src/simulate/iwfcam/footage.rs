//! Footage as a camera of this family would show it.

use super::Scene;
use crate::media::g711;
use crate::simulate::SimulateError;
use crate::simulate::rtsp::{Audio, Clip, Footage, Video};

/// What a camera that shows `footage` sees and hears.
#[derive(Clone, Debug)]
pub struct Shown {
    /// JPEG pictures.
    pub scene: Scene,
    /// How many of them make a second, rounded.
    pub fps: u32,
    /// Sound at 8 kHz; empty if there is none.
    pub samples: Vec<i16>,
}

/// Decodes `footage` and encodes it anew, which blocks for some seconds.
///
/// # Errors
/// Those of [`Clip::load`].
pub fn footage(footage: &Footage) -> Result<Shown, SimulateError> {
    let clip = Clip::load(footage, Video::Jpeg, Audio::Pcmu)?;
    let pictures = clip.jpeg_pictures();
    let fps = (pictures.len() as f64 / clip.seconds()).round().clamp(1.0, 60.0) as u32;
    let fault = || SimulateError::Footage { footage: footage.to_string(), text: "no pictures".into() };
    // Encoded pictures are cut to their first seconds, sound is not.
    let length = (clip.seconds() * 8000.0) as usize;
    let samples = clip.pcmu().into_iter().take(length).map(g711::linear).collect();
    Ok(Shown { scene: Scene::new(pictures).ok_or_else(fault)?, fps, samples })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::jpeg;

    #[test]
    fn the_street_is_shown_at_its_own_pace() {
        let Shown { scene, fps, samples } = footage(&Footage::Street).unwrap();
        assert!(samples.len().abs_diff(20 * 8000) < 4000, "{} samples of 20 s", samples.len());
        assert_eq!(fps, 13, "12.5, rounded");
        let picture = scene.picture(260);
        let parsed = jpeg::parse(&picture).unwrap();
        assert_eq!((parsed.width, parsed.height), (768, 432));
        assert_eq!(Scene::counter(&picture), Some(260));
    }
}
