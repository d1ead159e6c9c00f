//! What a bad wireless network does to datagrams, the same for the same seed.

use super::Faults;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// Datagrams of a kind on their way.
#[derive(Debug)]
pub struct Network<T> {
    faults: Faults,
    random: SmallRng,
    /// Held back, for so many datagrams more.
    held: Vec<(u8, T)>,
    /// Datagrams that were lost so far.
    pub lost: u64,
}

impl<T: Clone> Network<T> {
    /// A network with those faults. Two of them with other `salt` do not lose the same.
    pub fn new(faults: Faults, salt: u64) -> Self {
        let random = SmallRng::seed_from_u64(faults.seed.wrapping_mul(31).wrapping_add(salt));
        Self { faults, random, held: Vec::new(), lost: 0 }
    }

    /// What arrives once this one is sent: itself, perhaps twice, perhaps not; and what was held back before.
    pub fn pass(&mut self, datagram: T) -> Vec<T> {
        let mut out = Vec::new();
        if self.chance(self.faults.loss) {
            self.lost += 1;
        } else if self.chance(self.faults.reorder) {
            let places = self.random.random_range(1..=4);
            self.held.push((places + 1, datagram));
        } else {
            out.push(datagram.clone());
            if self.chance(self.faults.duplicate) {
                // Half of the copies come at once, half of them late.
                if self.chance(0.5) { out.push(datagram) } else { self.held.push((3, datagram)) }
            }
        }
        for (places, _) in &mut self.held {
            *places -= 1;
        }
        out.extend(self.held.extract_if(.., |(places, _)| *places == 0).map(|(_, datagram)| datagram));
        out
    }

    /// Everything that is held back: nothing more comes after it for a while.
    pub fn flush(&mut self) -> Vec<T> {
        self.held.drain(..).map(|(_, datagram)| datagram).collect()
    }

    /// A datagram that no camera sends, as often as was asked for.
    pub fn garbage(&mut self) -> Option<Vec<u8>> {
        if !self.chance(self.faults.malformed) {
            return None;
        }
        let mut bytes = match self.random.random_range(0..6) {
            0 => Vec::new(),
            1 => b"2TEG".to_vec(),
            // Media whose number of bytes is absurd, whose length is, whose fragment is; and another signature.
            2 => garbage_piece(20, &[0xff, 0xff, 0xff, 0x7f]),
            3 => garbage_piece(6, &[0x01, 0x00]),
            4 => garbage_piece(18, &[0xff, 0xff]),
            _ => garbage_piece(0, b"9TEG"),
        };
        if self.chance(0.2) {
            bytes.truncate(self.random.random_range(0..=bytes.len()));
        }
        Some(bytes)
    }

    fn chance(&mut self, of: f64) -> bool {
        of > 0.0 && self.random.random_bool(of.min(1.0))
    }
}

/// A piece of media with something wrong at `at`.
fn garbage_piece(at: usize, wrong: &[u8]) -> Vec<u8> {
    let mut bytes = b"2TEG\x03\x00\x18\x04\x01\x00\x00\x00\x01\x00\x00\x00\x07\x00\x01\x00\x08\x04\x00\x00".to_vec();
    bytes.resize(24 + 1032, 0x5a);
    bytes.iter_mut().skip(at).zip(wrong).for_each(|(byte, wrong)| *byte = *wrong);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(faults: Faults) -> Vec<u32> {
        let mut network = Network::new(faults, 0);
        let mut out: Vec<u32> = (0..10_000).flat_map(|n| network.pass(n)).collect();
        out.extend(network.flush());
        out
    }

    #[test]
    fn faults_are_as_many_as_asked_for_and_the_same_again() {
        assert!(run(Faults::default()).iter().copied().eq(0..10_000));
        let lossy = run(Faults { loss: 0.05, ..Faults::default() });
        assert!((9_400..9_600).contains(&lossy.len()) && lossy.is_sorted(), "{}", lossy.len());
        let doubled = run(Faults { duplicate: 0.03, ..Faults::default() });
        assert!((10_200..10_400).contains(&doubled.len()), "{}", doubled.len());
        let faults = Faults { reorder: 0.03, ..Faults::default() };
        let mut shuffled = run(faults);
        assert_eq!(shuffled, run(faults));
        assert_ne!(shuffled, run(Faults { seed: 2, ..faults }));
        assert!(!shuffled.is_sorted());
        let far = shuffled.iter().enumerate().filter(|(at, n)| (*at as i64 - i64::from(**n)).abs() > 8).count();
        assert_eq!(far, 0, "nothing moves further than a few places");
        shuffled.sort_unstable();
        assert!(shuffled.into_iter().eq(0..10_000));
    }
}
