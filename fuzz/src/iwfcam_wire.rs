//! Datagrams of IWFCam cameras and of their clients.

use fanlight::ingest::iwfcam::wire::{Media, Message, NUMBERED, Profile, TEG};

/// Reads the input as a datagram of either profile. What can be written comes back the same.
pub fn check(data: &[u8]) {
    for profile in [TEG, NUMBERED] {
        if let Ok(message) = profile.parse(data) {
            let again = write(profile, &message);
            if let Some(again) = again {
                assert_eq!(profile.parse(&again).as_ref(), Ok(&message));
            }
        }
    }
}

fn write(profile: Profile, message: &Message<'_>) -> Option<Vec<u8>> {
    match message {
        Message::Search => Some(profile.search()),
        Message::SearchAnswer(answer) => Some(answer.write(profile)),
        Message::Login(login) => Some(login.write(profile)),
        Message::LoginAnswer(answer) => Some(answer.write(profile)),
        Message::Media(media) => {
            assert!(media.body.len() <= 4096 && media.fragment < 2048);
            assert!(media.extra.len() + media.body.len() <= usize::from(u16::MAX) - 16);
            let _ = (media.picture_head(), media.clock());
            Some(Media { ..*media }.write(profile))
        }
        Message::Acknowledgement(acknowledgement) => Some(acknowledgement.write(profile)),
        // Control commands cannot be written as they come: only requests, answers and notices can.
        Message::Control(control) | Message::ControlAnswer(control) => {
            let _ = (control.notice(), control.live_bits(), control.live_format());
            if let Some(request) = control.request() {
                let bytes = request.write(profile, control.session);
                let Ok(Message::Control(again)) = profile.parse(&bytes) else { panic!("a request that is none") };
                assert_eq!(again.request(), Some(request));
            }
            None
        }
    }
}
