//! Rate limits.

use super::*;

fn few() -> Rig {
    let hour = Duration::from_secs(3600);
    let whep = WhepLimits { offers: 3, offer_every: hour, changes: 2, change_every: hour, ..Rig::default().whep };
    Rig { whep, ..Rig::default() }
}

#[tokio::test]
async fn offers_are_rate_limited_429() {
    let gateway = Gateway::with_camera(few()).await;
    // Those that are refused count as well.
    assert_eq!(gateway.offer("/whep/front").await.status, 201);
    gateway.offer("/whep/back").await.problem(404);
    gateway.ask("POST", "/front/whep", &[SDP], "").await.problem(400);
    let limited = gateway.offer("/whep/front").await;
    limited.problem(429);
    assert_eq!(limited.retry_after(), 3600);
    assert_eq!(gateway.ask("GET", "/whep/front", &[], "").await.status, 204);
}

#[tokio::test]
async fn patch_and_delete_are_rate_limited_429() {
    let gateway = Gateway::with_camera(few()).await;
    let session = gateway.session("/whep/front", &gateway.offer("/whep/front").await);
    let any = ("if-match", "*");
    assert_eq!(gateway.ask("PATCH", &session, &[FRAGMENT, any], &own_fragment()).await.status, 204);
    gateway.ask("DELETE", "/whep/front/guess", &[], "").await.problem(404);
    gateway.ask("PATCH", &session, &[FRAGMENT, any], &own_fragment()).await.problem(429);
    gateway.ask("DELETE", &session, &[], "").await.problem(429);
    // Offers are counted apart.
    assert_eq!(gateway.offer("/whep/front").await.status, 201);
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_is_counted_for_itself() {
    let mut rig = few();
    rig.http.trusted_proxies = vec![config::Network::parse("127.0.0.0/8").unwrap()];
    let gateway = Gateway::with_camera(rig).await;
    let offer =
        async |client: &str| gateway.ask("POST", "/whep/front", &[SDP, ("x-forwarded-for", client)], CHROMIUM).await;
    for _ in 0..3 {
        assert_eq!(offer("192.0.2.1").await.status, 201);
    }
    offer("192.0.2.1").await.problem(429);
    assert_eq!(offer("192.0.2.2").await.status, 201);
}

#[tokio::test]
async fn a_wall_of_30_cameras_comes_back_twice_in_a_row() {
    let gateway = Gateway::with_camera(Rig::default()).await;
    for _ in 0..60 {
        let session = gateway.session("/whep/front", &gateway.offer("/whep/front").await);
        assert_eq!(gateway.ask("DELETE", &session, &[], "").await.status, 200);
    }
}
