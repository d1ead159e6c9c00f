//! One POST.

use super::{Answer, Form, Options, authority, write};
use jiff::Timestamp;
use std::io;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// No answer is longer, in bytes.
const MAX_ANSWER: u64 = 64 << 10;
const BOUNDARY: &str = "MIME_boundary";

/// Sends one picture and waits for the answer.
pub(super) async fn post(options: &Options, picture: &[u8], slow: bool) -> io::Result<Answer> {
    let (host, port) = authority(&options.to, 80)?;
    let mut socket = TcpStream::connect((host.as_str(), port)).await?;
    let (content_type, body) = body(options.form, picture);
    let target = options
        .to
        .query()
        .map_or_else(|| options.to.path().to_owned(), |query| format!("{path}?{query}", path = options.to.path()));
    let host = options.to.authority().rsplit('@').next().unwrap_or_default();
    let length = body.len();
    let bearer = options.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{bearer}Connection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await?;
    let sent = write(&mut socket, &body, slow).await;
    // Who is refused in the middle is answered all the same.
    let mut answer = Vec::new();
    let read = socket.take(MAX_ANSWER).read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let Some(status) = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok()) else {
        sent?;
        read?;
        return Err(io::Error::other("no answer"));
    };
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(Answer { taken: (200..300).contains(&status), text: format!("{status} {body}") })
}

fn body(form: Form, picture: &[u8]) -> (String, Vec<u8>) {
    let jpeg = |disposition: &str| {
        format!("{disposition}Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", picture.len())
    };
    let parts = |parts: &[(String, &[u8])]| {
        let mut body = Vec::new();
        for (head, content) in parts {
            body.extend_from_slice(format!("--{BOUNDARY}\r\n{head}").as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        body
    };
    let alarm = alarm();
    match form {
        Form::Raw => ("image/jpeg".into(), picture.to_vec()),
        Form::Multipart => {
            let head = jpeg("Content-Disposition: form-data; name=\"image\"; filename=\"image.jpg\"\r\n");
            (format!("multipart/form-data; boundary={BOUNDARY}"), parts(&[(head, picture)]))
        }
        Form::Alarm => {
            let xml =
                format!("Content-Type: application/xml; charset=\"UTF-8\"\r\nContent-Length: {}\r\n\r\n", alarm.len());
            let both = [(xml, alarm.as_bytes()), (jpeg(""), picture)];
            (format!("multipart/mixed; boundary={BOUNDARY}"), parts(&both))
        }
        Form::AlarmOnly => ("application/xml; charset=\"UTF-8\"".into(), alarm.into_bytes()),
    }
}

/// Motion, in the words of such a camera.
fn alarm() -> String {
    format!(
        "<EventNotificationAlert version=\"1.0\" xmlns=\"http://www.hikvision.com/ver20/XMLSchema\">\n\
         <ipAddress>192.0.2.30</ipAddress>\n<channelID>1</channelID>\n<dateTime>{:.0}</dateTime>\n\
         <activePostCount>1</activePostCount>\n<eventType>VMD</eventType>\n<eventState>active</eventState>\n\
         <eventDescription>Motion alarm</eventDescription>\n<channelName>Camera 01</channelName>\n\
         </EventNotificationAlert>\n",
        Timestamp::now()
    )
}
