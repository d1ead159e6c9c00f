//! What the cameras show: real footage, as JPEG files of a camera's size.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Pictures a second.
pub const FPS: u32 = 15;
/// In pixels.
pub const SIZE: (u32, u32) = (640, 480);
/// They begin again after so many.
const COUNT: usize = 300;

/// The files, made on first use.
#[derive(Clone, Debug)]
pub struct Pictures {
    /// `00001.jpg` and on.
    pub folder: PathBuf,
    /// How many.
    pub count: usize,
    /// Bytes of one, on average.
    pub mean_bytes: u64,
}

impl Pictures {
    /// Cuts the street of the simulated cameras into pictures: baseline, 4:2:0, the standard tables, as cameras of this
    /// kind send.
    ///
    /// # Errors
    /// ffmpeg is not there or fails.
    pub fn ensure(repository: &Path, folder: &Path) -> Result<Self> {
        let folder = folder.join("jpeg-cameras-pictures");
        let looked = || -> Result<Self> {
            let mut sizes = Vec::new();
            for n in 1..=COUNT {
                sizes.push(std::fs::metadata(folder.join(format!("{n:05}.jpg")))?.len());
            }
            let mean_bytes = sizes.iter().sum::<u64>() / COUNT as u64;
            Ok(Self { folder: folder.clone(), count: COUNT, mean_bytes })
        };
        if let Ok(there) = looked() {
            return Ok(there);
        }
        std::fs::create_dir_all(&folder)?;
        let footage = repository.join("src/simulate/footage/street.mp4");
        let (width, height) = SIZE;
        let output = Command::new("ffmpeg")
            .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-i"])
            .arg(&footage)
            .args(["-an", "-vf", &format!("fps={FPS},scale={width}:{height}:out_range=full,format=yuvj420p")])
            .args(["-frames:v", &COUNT.to_string(), "-c:v", "mjpeg", "-q:v", "3", "-huffman", "default"])
            .arg(folder.join("%05d.jpg"))
            .output()
            .context("cannot start ffmpeg")?;
        if !output.status.success() {
            bail!("ffmpeg: {}", String::from_utf8_lossy(&output.stderr));
        }
        let there = looked().context("ffmpeg made too few pictures")?;
        ensure!(there.mean_bytes > 4_000, "pictures of {} bytes are no pictures", there.mean_bytes);
        Ok(there)
    }

    /// For gst-launch.
    pub fn pattern(&self) -> String {
        self.folder.join("%05d.jpg").display().to_string()
    }
}
