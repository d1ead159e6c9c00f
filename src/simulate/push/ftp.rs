//! One FTP upload, as cameras do it: a dated folder is made first, whether it is there or not.

use super::{Answer, Options, authority, write};
use std::io;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// No answer is longer, in bytes.
const MAX_LINE: u64 = 4096;

struct Session {
    control: BufReader<TcpStream>,
}

impl Session {
    /// The code of the next answer, and its last line.
    async fn answer(&mut self) -> io::Result<(u16, String)> {
        // Some answers have several lines; the last one has a space behind its code (RFC 959 section 4.2).
        for _ in 0..100 {
            let mut line = String::new();
            (&mut self.control).take(MAX_LINE).read_line(&mut line).await?;
            let code = line.get(..3).and_then(|code| code.parse().ok());
            match (code, line.as_bytes().get(3)) {
                (Some(code), Some(b' ')) => return Ok((code, line.trim_end().to_owned())),
                _ if line.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
        Err(io::Error::other("an answer without end"))
    }

    async fn ask(&mut self, command: &str) -> io::Result<(u16, String)> {
        self.control.get_mut().write_all(format!("{command}\r\n").as_bytes()).await?;
        self.answer().await
    }
}

/// Uploads one picture.
pub(super) async fn upload(options: &Options, picture: &[u8], slow: bool) -> io::Result<Answer> {
    let (host, port) = authority(&options.to, 21)?;
    let control = BufReader::new(TcpStream::connect((host.as_str(), port)).await?);
    let mut session = Session { control };
    let refused = |text: String| Ok(Answer { taken: false, text });
    session.answer().await?;
    session.ask(&format!("USER {}", options.to.username())).await?;
    let password = options.token.as_deref().or(options.to.password()).unwrap_or_default();
    let (code, text) = session.ask(&format!("PASS {password}")).await?;
    if code != 230 {
        return refused(text);
    }
    session.ask("TYPE I").await?;
    for folder in options.to.path_segments().into_iter().flatten().filter(|folder| !folder.is_empty()) {
        session.ask(&format!("MKD {folder}")).await?;
        session.ask(&format!("CWD {folder}")).await?;
    }
    let (code, text) = session.ask("EPSV").await?;
    let data = text.rsplit('|').nth(1).and_then(|port| port.parse::<u16>().ok()).filter(|_| code == 229);
    let Some(data) = data else { return refused(text) };
    let mut data = TcpStream::connect((host.as_str(), data)).await?;
    let (code, text) = session.ask("STOR picture.jpg").await?;
    if code != 150 {
        return refused(text);
    }
    // Who is refused in the middle is answered all the same.
    let sent = write(&mut data, picture, slow).await;
    drop(data);
    let answer = session.answer().await;
    let (code, text) = match (answer, sent) {
        (Ok(answer), _) => answer,
        (Err(_), Err(sent)) => return Err(sent),
        (Err(error), Ok(())) => return Err(error),
    };
    session.ask("QUIT").await?;
    Ok(Answer { taken: code == 226, text })
}
