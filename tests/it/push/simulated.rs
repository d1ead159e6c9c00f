//! The simulated camera against the whole gateway.

use super::{Gateway, PATIENCE, TOKEN, scene};
use crate::gateway::ms;
use fanlight::simulate::push::{Counters, Fault, Form, Options, Pusher};
use tokio::time::timeout;

async fn pushed(options: Options) -> Counters {
    let pusher = Pusher::start(options, scene());
    let mut counters = pusher.watch();
    let done = async { while counters.changed().await.is_ok() {} };
    timeout(PATIENCE, done).await.expect("all is sent");
    counters.borrow().clone()
}

fn options(gateway: &Gateway, form: Option<Form>) -> Options {
    let to = match form {
        Some(_) => format!("http://{}/v1/cameras/yard/push", gateway.http()),
        None => format!("ftp://yard@{}/2026/11", gateway.ftp()),
    };
    let to = to.parse().unwrap();
    let (token, form) = (Some(TOKEN.to_owned()), form.unwrap_or_default());
    Options { token, form, every: ms(5), count: Some(3), ..Options::new(to) }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_pushing_is_taken() {
    let gateway = Gateway::start("auth: none").await;
    let mut frames = 0;
    for form in [Some(Form::Raw), Some(Form::Multipart), Some(Form::Alarm), Some(Form::AlarmOnly), None] {
        let counters = pushed(options(&gateway, form)).await;
        assert_eq!((counters.sent, counters.taken), (3, 3), "{form:?}: {counters:?}");
        frames += if form == Some(Form::AlarmOnly) { 0 } else { 3 };
        assert_eq!(gateway.get("/v1/cameras/yard").await.json()["frames"], frames, "{form:?}");
    }
    let events = gateway.events("yard").await;
    assert!(events.iter().all(|event| event["kind"] == "motion") && !events.is_empty(), "{events:?}");
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_hurt_nobody() {
    let gateway = Gateway::start("auth: none").await;
    // One that never ends, while the others come and go.
    let slow = Options { fault: Some(Fault::Slow), ..options(&gateway, Some(Form::Raw)) };
    let slow = Pusher::start(slow, scene());
    for form in [Some(Form::Raw), Some(Form::Multipart), None] {
        for fault in [Fault::Truncated, Fault::NotJpeg, Fault::TooLarge] {
            let options = Options { fault: Some(fault), fault_every: 2, ..options(&gateway, form) };
            let counters = pushed(options).await;
            assert_eq!((counters.taken, counters.sent), (2, 3), "{form:?} {fault:?}: {counters:?}");
            assert_eq!(counters.refused, 1, "{form:?} {fault:?}: {counters:?}");
        }
    }
    assert_eq!(gateway.get("/v1/cameras/yard").await.json()["frames"], 18);
    assert_eq!(slow.watch().borrow().sent, 0);
    gateway.app.stop().await;
}
