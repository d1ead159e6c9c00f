//! The page for people, from `web/`: which cameras there are, how they are, and where they can be watched.

use super::HttpState;
use super::guard::Caller;
use axum::Router;
use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing;

const PAGE: &str = include_str!("../../../web/index.html");
const STYLE: &str = include_str!("../../../web/status.css");
const SCRIPT: &str = include_str!("../../../web/status.js");
const ICON: &str = include_str!("../../../web/icon.svg");

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'";

pub(super) fn routes() -> Router<HttpState> {
    Router::new()
        .route("/", routing::get(page))
        .route("/status.css", routing::get(|| asset("text/css; charset=utf-8", STYLE)))
        .route("/status.js", routing::get(|| asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/icon.svg", routing::get(|| asset("image/svg+xml", ICON)))
}

async fn page(State(state): State<HttpState>, Extension(caller): Extension<Caller>) -> Response {
    let port = state.rtsp.first().map_or_else(String::new, |address| address.port().to_string());
    let html = PAGE.replace("{{rtsp_port}}", &port).replace("{{user}}", &escaped(caller.name().unwrap_or_default()));
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, html).into_response()
}

pub(super) async fn asset(media_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, media_type)], text).into_response()
}

/// Text as it may stand in a quoted HTML attribute.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_attribute() {
        assert_eq!(escaped("\"><script>&"), "&quot;&gt;&lt;script&gt;&amp;");
    }

    #[test]
    fn the_page_brings_everything_itself() {
        for text in [PAGE, STYLE, SCRIPT, ICON] {
            for foreign in ["https://", "//cdn", "@import", "style=\"", "onclick"] {
                assert!(!text.contains(foreign), "{foreign}");
            }
        }
        for name in ["{{rtsp_port}}", "{{user}}", "status.css", "status.js", "icon.svg"] {
            assert!(PAGE.contains(name), "{name}");
        }
    }
}
