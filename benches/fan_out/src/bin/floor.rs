//! `fan-out-floor CLIP FPS`: the bare floor as a process of its own.
use anyhow::{Context, Result};
use fan_out::clip::{Clip, Packer};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let clip = args.next().context("which clip?")?;
    let fps = args.next().context("how many pictures a second?")?.parse()?;
    let packer = Packer::new(Clip::load(clip.as_ref(), fps)?);
    fan_out::floor::serve(packer, fan_out::child::listen()?)
}
