//! The addresses really bound, for whoever started us on port 0.

use super::Addresses;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes the file as a whole or not at all: a reader that polls never sees half of it.
pub(super) fn write(path: &Path, addresses: &Addresses) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(path).with_file_name(name);
    let mut text = serde_json::to_vec_pretty(addresses)?;
    text.push(b'\n');
    let written = std::fs::File::create(&part).and_then(|mut file| {
        file.write_all(&text)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| std::fs::rename(&part, path));
    if renamed.is_err() {
        // Best effort: the first error is the one to tell.
        let _ = std::fs::remove_file(&part);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_json_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports.json");
        let addresses = Addresses { http: vec![([127, 0, 0, 1], 8484).into()], ..Addresses::default() };
        write(&path, &addresses).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let expected = serde_json::json!(
            { "http": ["127.0.0.1:8484"], "https": [], "rtsp": [], "rtsps": [], "rtsp_udp_ports": [], "webrtc": [],
              "ftp": [], "mini_doorbell": [] }
        );
        assert_eq!(json, expected);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        write(&folder.path().join("no/such/folder"), &addresses).unwrap_err();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
