//! The parameter sets of an H.264 or H.265 stream, kept by id and bounded in number and size.

use super::VideoFormat;
use bytes::Bytes;

/// Sets kept of each kind. Cameras use one or two; the standards allow up to 256, which a hostile one would use.
const MAX_SETS: usize = 16;
/// A set of more bytes is left alone: an SPS with every scaling list has some 2,000.
const MAX_BYTES: usize = 4096;

#[derive(Clone, Debug, Default)]
pub(super) struct ParameterSets {
    vps: Vec<Set<()>>,
    /// With what they say, without `parameter_sets`.
    sps: Vec<Set<VideoFormat>>,
    /// With the id of their SPS.
    pps: Vec<Set<u32>>,
    /// The id of the SPS that the newest random access picture uses, or that came after it.
    active: Option<u32>,
    format: Option<VideoFormat>,
}

#[derive(Clone, Debug)]
struct Set<T> {
    id: u32,
    bytes: Bytes,
    says: T,
}

impl ParameterSets {
    pub(super) fn format(&self) -> Option<&VideoFormat> {
        self.format.as_ref()
    }

    /// Keeps a VPS; says whether it is new. So do the other two.
    pub(super) fn put_vps(&mut self, id: u32, bytes: &[u8]) -> bool {
        put(&mut self.vps, id, bytes, || ())
    }

    /// `read` is called for new ones only.
    pub(super) fn put_sps(&mut self, id: u32, bytes: &[u8], read: impl FnOnce() -> Option<VideoFormat>) -> bool {
        let new = put(&mut self.sps, id, bytes, || read().unwrap_or_default());
        if new {
            self.active = Some(id);
        }
        new
    }

    pub(super) fn put_pps(&mut self, id: u32, sps_id: u32, bytes: &[u8]) -> bool {
        put(&mut self.pps, id, bytes, || sps_id)
    }

    /// Makes the SPS behind this PPS the one in use; says whether another one was.
    pub(super) fn activate(&mut self, pps_id: u32) -> bool {
        let sps_id = self.pps.iter().find(|pps| pps.id == pps_id).map(|pps| pps.says);
        let known = self.sps.iter().any(|sps| Some(sps.id) == sps_id);
        let changed = known && self.active != sps_id;
        if changed {
            self.active = sps_id;
        }
        changed
    }

    /// Makes the format from the sets as they are now; says whether it is another one.
    pub(super) fn renew_format(&mut self) -> bool {
        let Some(active) = self.sps.iter().find(|sps| Some(sps.id) == self.active) else { return false };
        let mut format = active.says.clone();
        let others = self.sps.iter().filter(|sps| sps.id != active.id);
        format.parameter_sets = self.vps.iter().map(|vps| vps.bytes.clone()).collect();
        format.parameter_sets.push(active.bytes.clone());
        format.parameter_sets.extend(others.map(|sps| sps.bytes.clone()));
        format.parameter_sets.extend(self.pps.iter().map(|pps| pps.bytes.clone()));
        let changed = self.format.as_ref() != Some(&format);
        self.format = Some(format);
        changed
    }
}

/// Puts a set in the place of the one with the same id, else behind the others, of which the oldest goes if there are
/// too many.
fn put<T>(sets: &mut Vec<Set<T>>, id: u32, bytes: &[u8], says: impl FnOnce() -> T) -> bool {
    let known = sets.iter_mut().find(|set| set.id == id);
    if bytes.len() > MAX_BYTES || known.as_ref().is_some_and(|known| known.bytes == bytes) {
        return false;
    }
    let set = Set { id, bytes: Bytes::copy_from_slice(bytes), says: says() };
    match known {
        Some(known) => *known = set,
        None => {
            if sets.len() == MAX_SETS {
                sets.remove(0);
            }
            sets.push(set);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded() {
        let mut sets = ParameterSets::default();
        for id in 0..1_000 {
            assert!(sets.put_vps(id, &[1]) && sets.put_sps(id, &[2], || None) && sets.put_pps(id, id, &[3]));
        }
        assert!(!sets.put_pps(1, 1, &[0; MAX_BYTES + 1]));
        assert!(sets.renew_format());
        assert_eq!(sets.format().map(|format| format.parameter_sets.len()), Some(3 * MAX_SETS));
    }

    #[test]
    fn the_sps_in_use_comes_first() {
        let size = |width| move || Some(VideoFormat { width, ..VideoFormat::default() });
        let mut sets = ParameterSets::default();
        sets.put_sps(0, &[10], size(640));
        sets.put_sps(1, &[11], size(1280));
        sets.put_pps(5, 0, &[12]);
        assert!(sets.renew_format() && !sets.renew_format());
        assert_eq!(
            sets.format().map(|format| (format.width, &format.parameter_sets[..])),
            Some((1280, &[[11], [10], [12]].map(|set| Bytes::copy_from_slice(&set))[..]))
        );
        assert!(sets.activate(5) && !sets.activate(5) && !sets.activate(9));
        assert!(sets.renew_format());
        assert_eq!(sets.format().map(|format| format.width), Some(640));
    }
}
