//! Footage as a camera of this family would show it.

use super::Scene;
use crate::simulate::SimulateError;
use crate::simulate::rtsp::{Audio, Clip, Footage, Video};

/// The pictures of `footage` as JPEG, and how many of them make a second. Blocks for some seconds, as the footage is
/// decoded and encoded anew.
///
/// # Errors
/// Those of [`Clip::load`].
pub fn footage(footage: &Footage) -> Result<(Scene, u32), SimulateError> {
    let clip = Clip::load(footage, Video::Jpeg, Audio::None)?;
    let pictures = clip.jpeg_pictures();
    let fault = || SimulateError::Footage { footage: footage.to_string(), text: "no pictures".into() };
    let seconds = clip.seconds();
    let fps = (pictures.len() as f64 / seconds).round().clamp(1.0, 60.0) as u32;
    Ok((Scene::new(pictures).ok_or_else(fault)?, fps))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::jpeg;

    #[test]
    fn the_street_is_shown_at_its_own_pace() {
        let (scene, fps) = footage(&Footage::Street).unwrap();
        assert_eq!(fps, 13, "12.5, rounded");
        let picture = scene.picture(260);
        let parsed = jpeg::parse(&picture).unwrap();
        assert_eq!((parsed.width, parsed.height), (768, 432));
        assert_eq!(Scene::counter(&picture), Some(260));
    }
}
