//! The sign-in page, shown in place of any page to who is not signed in; from `web/`.

use super::guard::PAGE_CHALLENGE;
use super::problem::AsIs;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The page as it stands in `web/`.
pub(super) const PAGE: &str = include_str!("../../../web/signin.html");

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'self'";

/// First segments of paths that are no pages.
const MACHINES: [&str; 8] = ["v1", "api", "whep", "whip", "metrics", "healthz", "readyz", "assets"];
/// A longer way back after signing in is forgotten, in bytes.
const MAX_NEXT: usize = 1024;

/// Whether a person wants a page.
pub(super) fn is_wanted<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let first = path.split('/').nth(1).unwrap_or_default();
    let machine = MACHINES.contains(&first) || path.ends_with("/whep") || path.ends_with("/whip");
    let accept = request.headers().get_all(header::ACCEPT);
    let html = accept.iter().any(|value| value.to_str().is_ok_and(|value| value.contains("text/html")));
    matches!(*request.method(), Method::GET | Method::HEAD) && html && !machine
}

/// A path and query of ours, as they are if they can be nothing else, otherwise `/`.
pub(super) fn inside(target: &str) -> &str {
    let path = target.split('?').next().unwrap_or_default();
    let plain = target.len() <= MAX_NEXT && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let within = path.starts_with('/') && !path.contains("//") && !path.split('/').any(|part| part == "..");
    if plain && within { target } else { "/" }
}

/// The page at that path, which leads to `next` afterwards. All its addresses are relative, as there may be a path
/// prefix before our own.
pub(super) fn page(status: StatusCode, path: &str, next: &str, words: Option<&str>) -> Response {
    let depth = path.matches('/').count().saturating_sub(1);
    let root = if depth == 0 { "./".to_owned() } else { "../".repeat(depth.min(64)) };
    let html = PAGE
        .replace("{{root}}", &root)
        .replace("{{hidden}}", if words.is_some() { "" } else { "hidden" })
        .replace("{{words}}", words.unwrap_or_default())
        // The last, since it is the one that came from outside.
        .replace("{{next}}", &escaped(inside(next)));
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    let mut response = (status, headers, html).into_response();
    response.extensions_mut().insert(AsIs);
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(PAGE_CHALLENGE));
    }
    response
}

/// Text as it may stand in a quoted HTML attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_ours_are_gone_to() {
        for good in ["/", "/camera/front", "/camera/front?kiosk", "/?x=//y"] {
            assert_eq!(inside(good), good);
        }
        let long = format!("/{}", "x".repeat(MAX_NEXT));
        for bad in
            ["", "x", "//evil.example", "/\\evil", "https://evil.example/", "/a/../b", "/a b", "/\r\nx: y", &long]
        {
            assert_eq!(inside(bad), "/", "{bad:?}");
        }
    }

    #[test]
    fn addresses_stay_in_their_attribute() {
        assert_eq!(escaped("\"><script>&"), "&quot;&gt;&lt;script&gt;&amp;");
    }

    #[test]
    fn pages_are_for_people() {
        let wanted = |method: &str, path: &str, accept: &str| {
            is_wanted(&Request::builder().method(method).uri(path).header("accept", accept).body(()).unwrap())
        };
        let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
        assert!(wanted("GET", "/", browser) && wanted("GET", "/camera/front?kiosk", browser));
        assert!(!wanted("GET", "/", "*/*") && !wanted("POST", "/", browser));
        for path in ["/v1/cameras", "/whep/front", "/front/whep", "/metrics", "/assets/x.css"] {
            assert!(!wanted("GET", path, browser), "{path}");
        }
    }

    #[test]
    fn the_page_has_a_place_for_all_that_is_put_in() {
        for name in ["{{root}}", "{{next}}", "{{hidden}}", "{{words}}"] {
            assert!(PAGE.contains(name), "{name}");
        }
    }
}
