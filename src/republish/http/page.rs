//! The pages for people, from `web/`: the wall at `/`, one camera at `/camera/NAME`, the gallery at
//! `/visitors`.
//!
//! They are the same for everybody; what they show comes from `/v1`. All addresses in them are relative, so that they
//! work wherever a proxy puts them.

use super::HttpState;
use super::assets::{VERSION, tagged};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing;

const WALL: &str = include_str!("../../../web/index.html");
const CAMERA: &str = include_str!("../../../web/camera.html");
const VISITORS: &str = include_str!("../../../web/visitors.html");

/// The pages as they stand in `web/`.
pub(super) const PAGES: [&str; 3] = [WALL, CAMERA, VISITORS];

/// Everything from here, nothing inline. `blob:` is what snapshots are shown from.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                      media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'";

pub(super) fn routes() -> Router<HttpState> {
    Router::new()
        .route("/", routing::get(wall))
        .route("/camera/{name}", routing::get(camera))
        .route("/visitors", routing::get(visitors))
}

async fn wall(State(state): State<HttpState>, headers: HeaderMap) -> Response {
    page(&state, &headers, WALL)
}

async fn visitors(State(state): State<HttpState>, headers: HeaderMap) -> Response {
    page(&state, &headers, VISITORS)
}

/// The same for any name: the page itself says that there is no such camera, and shows it once there is.
async fn camera(State(state): State<HttpState>, headers: HeaderMap) -> Response {
    page(&state, &headers, CAMERA)
}

fn page(state: &HttpState, headers: &HeaderMap, html: &str) -> Response {
    let port = |address: Option<&std::net::SocketAddr>| address.map_or_else(String::new, |at| at.port().to_string());
    let html = html
        .replace("{{version}}", &VERSION)
        .replace("{{rtsp_port}}", &port(state.rtsp.first()))
        .replace("{{rtsps_port}}", &port(state.rtsps.first()));
    let mut response = tagged(headers, "text/html; charset=utf-8", html);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
