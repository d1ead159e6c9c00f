//! Every path that is served, read from the source, so that a test over all of them misses none.

use std::collections::BTreeSet;
use std::path::Path;

/// The paths of all routes, each as a client would ask for it: `name` for a camera.
pub fn paths(name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.contains("/v1/cameras/{name}") && found.len() > 10, "{found:?}");
    let segment = |segment: &str| match segment {
        "{name}" => name.to_owned(),
        other if other.starts_with('{') => "x".to_owned(),
        other => other.to_owned(),
    };
    found.iter().map(|path| path.split('/').map(segment).collect::<Vec<_>>().join("/")).collect()
}

fn walk(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap();
            for after in text.split(".route(").skip(1) {
                let literal = after.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                found.extend(literal.filter(|path| path.starts_with('/')).map(str::to_owned));
            }
        }
    }
}
