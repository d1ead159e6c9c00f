//! The files of the pages, from `web/`, built into the program.

use super::HttpState;
use super::problem::Problem;
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

/// A file of the pages.
#[derive(Debug)]
struct Asset {
    path: &'static str,
    media_type: &'static str,
    body: &'static str,
}

macro_rules! assets {
    ($($path:literal: $media_type:ident,)*) => {
        &[$(Asset { path: $path, media_type: $media_type, body: include_str!(concat!("../../../web/", $path)) },)*]
    };
}

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const ASSETS: &[Asset] = assets! {
    "icon.svg": SVG,
    "signin.css": CSS,
    "signin.js": JS,
    "style.css": CSS,
    "js/bells.js": JS,
    "js/camera.js": JS,
    "js/guests.js": JS,
    "js/page.js": JS,
    "js/player.js": JS,
    "js/states.js": JS,
    "js/stats.js": JS,
    "js/still.js": JS,
    "js/tile.js": JS,
    "js/visitors.js": JS,
    "js/visits.js": JS,
    "js/wall.js": JS,
    "js/whep.js": JS,
};

/// Changes with any of the pages and their files: a page that is open on a wall tablet compares it to know whether to
/// load itself again.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut all = super::page::PAGES.concat() + super::signin::PAGE;
    all.extend(ASSETS.iter().map(|asset| asset.body));
    tag(all.as_bytes())
});

pub(super) fn routes() -> Router<HttpState> {
    Router::new()
        .route("/assets/version", routing::get(|| async { VERSION.as_str() }))
        .route("/assets/{*path}", routing::get(asset))
}

async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.path == path) {
        Some(asset) => tagged(&headers, asset.media_type, asset.body.to_owned()),
        None => Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at /assets/{path}")).into_response(),
    }
}

/// A text that browsers keep and ask about each time: 304 while it is the same (RFC 9110 section 13.1.2).
pub(super) fn tagged(headers: &HeaderMap, media_type: &'static str, body: String) -> Response {
    let tag = format!("\"{}\"", tag(body.as_bytes()));
    let caching = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if is_known(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, media_type)], body).into_response()
}

/// Whether the client has what that tag names.
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    // A proxy that compresses may have made our tag a weak one.
    let mut known = known.flat_map(|value| value.split(',')).map(|known| known.trim().trim_start_matches("W/"));
    known.any(|known| known == tag || known == "*")
}

/// A short name of that content.
fn tag(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    URL_SAFE_NO_PAD.encode(hash.first_chunk::<12>().expect("32 bytes of hash"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path as FilePath;

    #[test]
    fn all_files_are_served_and_load_nothing_from_elsewhere() {
        let web = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("web");
        for folder in ["", "js"] {
            for entry in std::fs::read_dir(web.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&web).unwrap().to_str().unwrap().to_owned();
                let served = ASSETS.iter().any(|asset| asset.path == name);
                assert!(path.is_dir() || name.ends_with(".html") || served, "{name}");
            }
        }
        for text in super::super::page::PAGES
            .into_iter()
            .chain([super::super::signin::PAGE])
            .chain(ASSETS.iter().map(|asset| asset.body))
        {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for foreign in ["https://", "http://", "\"//", "@import", "style=\"", "onclick", "<script>", "<style"] {
                assert!(!text.contains(foreign), "{foreign}");
            }
        }
    }

    #[test]
    fn browsers_keep_what_has_not_changed() {
        let ask = |known: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(known) = known {
                headers.insert(header::IF_NONE_MATCH, known.parse().unwrap());
            }
            let response = tagged(&headers, CSS, "a { color: red }".to_owned());
            (response.status().as_u16(), response.headers()[header::ETAG].to_str().unwrap().to_owned())
        };
        let (status, tag) = ask(None);
        assert_eq!(status, 200);
        assert_eq!(ask(Some(&tag)), (304, tag.clone()));
        assert_eq!(ask(Some(&format!("\"other\", W/{tag}"))).0, 304);
        assert_eq!(ask(Some("\"other\"")).0, 200);
    }
}
