//! FTP, by clients of other make and by hand.

use super::{Gateway, PATIENCE, TOKEN, scene};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

/// Runs a program; answers whether it was content, and what it said.
async fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("it ends").expect("it is installed");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

async fn curl(gateway: &Gateway, file: &Path, path: &str, token: &str) -> (bool, String) {
    let url = format!("ftp://{}/{path}", gateway.ftp());
    let user = format!("yard:{token}");
    run("curl", &["-sS", "-T", &file.display().to_string(), "--user", &user, "--ftp-create-dirs", &url]).await
}

/// Says some lines, each after the answer to the one before; answers the codes.
pub(super) async fn dialogue(server: SocketAddr, lines: &[&str]) -> Vec<u16> {
    let talk = async {
        let mut socket = BufReader::new(TcpStream::connect(server).await.unwrap());
        let mut codes = vec![answer(&mut socket).await];
        for line in lines {
            socket.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            codes.push(answer(&mut socket).await);
        }
        codes
    };
    timeout(PATIENCE, talk).await.expect("answers from FTP")
}

/// The code of the next answer; 0 if the connection ended.
async fn answer(socket: &mut BufReader<TcpStream>) -> u16 {
    loop {
        let mut line = String::new();
        if !matches!(socket.read_line(&mut line).await, Ok(length) if length > 0) {
            return 0;
        }
        if line.as_bytes().get(3) == Some(&b' ') && line.as_bytes()[..3].iter().all(u8::is_ascii_digit) {
            return line[..3].parse().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_uploads_pictures_and_nothing_else() {
    let gateway = Gateway::start("auth: none").await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let picture = scene().picture(11);
    let good = file("a.jpg", &picture);
    let (taken, said) = curl(&gateway, &good, "2026/11-21/a.jpg", TOKEN).await;
    assert!(taken, "{said}");
    assert_eq!(gateway.snapshot("yard").await, picture);

    let (taken, said) = curl(&gateway, &good, "a.jpg", "wrong-token").await;
    assert!(!taken && said.contains("530"), "{said}");
    let torn = file("torn.jpg", &picture[..picture.len() / 2]);
    let film = file("film.mp4", &[7; 200_000]);
    let mut large = picture.clone();
    large.resize(17 << 20, 0);
    let large = file("large.jpg", &large);
    for (file, words) in [(&torn, "553"), (&film, "553"), (&large, "Exceeded storage")] {
        let name = file.file_name().unwrap().to_str().unwrap();
        let (taken, said) = curl(&gateway, file, name, TOKEN).await;
        assert!(!taken && said.contains(words), "{name}: {said}");
    }
    let (taken, said) = curl(&gateway, &file("test.txt", b"a camera's menu"), "test.txt", TOKEN).await;
    assert!(taken, "{said}");
    assert_eq!(gateway.snapshot("yard").await, picture);
    assert_eq!(gateway.get("/v1/cameras/yard").await.json()["frames"], 1);

    // Nothing is read back.
    let user = format!("yard:{TOKEN}");
    for path in ["", "a.jpg", "2026/"] {
        let (read, said) = run("curl", &["-sS", "--user", &user, &format!("ftp://{}/{path}", gateway.ftp())]).await;
        assert!(!read, "{path}: {said}");
    }
    gateway.app.stop().await;
}

const PYTHON: &str = r#"
import ftplib, io, sys
host, port, token, path = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
picture = open(path, 'rb').read()
ftp = ftplib.FTP()
ftp.connect(host, port, timeout=20)
ftp.login('yard', token)
for folder in ('2026', '11', '21'):
    ftp.mkd(folder)
    ftp.cwd(folder)
ftp.cwd('..')
ftp.storbinary('STOR picture.tmp', io.BytesIO(picture))
assert ftp.size('picture.tmp') == len(picture)
ftp.rename('picture.tmp', 'picture.jpg')
def refused(what, *arguments):
    try:
        what(*arguments)
    except (ftplib.error_perm, ftplib.error_temp) as error:
        print(what.__name__, arguments, error)
        return
    raise SystemExit(f'{what.__name__} {arguments} was not refused')
refused(ftp.nlst)
refused(ftp.dir)
refused(lambda: list(ftp.mlsd()))
refused(ftp.retrbinary, 'RETR picture.jpg', lambda _: None)
refused(ftp.delete, 'picture.jpg')
refused(ftp.rmd, '21')
refused(ftp.size, 'other.jpg')
refused(ftp.rename, 'other.jpg', 'x.jpg')
refused(ftp.cwd, '/..')
refused(ftp.cwd, '../../../..')
refused(ftp.mkd, '/../x')
refused(ftp.storbinary, 'STOR /../../x.jpg', io.BytesIO(picture))
refused(ftp.sendcmd, 'STAT picture.jpg')
refused(ftp.sendcmd, 'MDTM picture.jpg')
refused(ftp.sendcmd, 'SITE CHMOD 777 x')
refused(ftp.sendport, '127.0.0.1', 9)
ftp.storbinary('STOR again.jpg', io.BytesIO(picture))
ftp.quit()
print('done')
"#;

#[tokio::test(flavor = "multi_thread")]
async fn pythons_ftplib_stores_and_is_refused_all_else() {
    let gateway = Gateway::start("auth: none").await;
    let picture = scene().picture(12);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &picture).unwrap();
    let (host, port) = (gateway.ftp().ip().to_string(), gateway.ftp().port().to_string());
    let path = file.path().display().to_string();
    let (content, said) = run("python3", &["-c", PYTHON, &host, &port, TOKEN, &path]).await;
    assert!(content && said.contains("done"), "{said}");
    assert_eq!(gateway.snapshot("yard").await, picture);
    assert_eq!(gateway.get("/v1/cameras/yard").await.json()["frames"], 2);
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_for_who_has_not_signed_in() {
    let gateway = Gateway::start("auth: none").await;
    let wrong = ["USER yard", "PASS nonsense", "PASV", "STOR a.jpg", "CWD x", "LIST"];
    assert_eq!(dialogue(gateway.ftp(), &wrong).await, [220, 331, 530, 530, 530, 530, 530]);
    // Nobody signs in to a camera without a token, nor to one that is none.
    for user in ["USER open", "USER front", "USER nobody", "USER anonymous"] {
        assert_eq!(dialogue(gateway.ftp(), &[user, "PASS "]).await.last(), Some(&530), "{user}");
    }
    // Guesses end, and are limited together with those of HTTP.
    let mut codes = Vec::new();
    for number in 0..12 {
        codes.push(dialogue(gateway.ftp(), &["USER yard", &format!("PASS {number}")]).await[2]);
    }
    assert!(codes.iter().all(|code| *code == 530));
    assert_eq!(dialogue(gateway.ftp(), &["USER yard", &format!("PASS {TOKEN}")]).await[2], 530, "limited");
    gateway.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_end_ends_the_session_and_one_address_has_four() {
    let gateway = Gateway::start("auth: none").await;
    let mut endless = BufReader::new(TcpStream::connect(gateway.ftp()).await.unwrap());
    assert_eq!(timeout(PATIENCE, answer(&mut endless)).await.unwrap(), 220);
    let _ = endless.get_mut().write_all(&vec![b'a'; 100_000]).await;
    assert_eq!(timeout(PATIENCE, answer(&mut endless)).await.expect("it is closed"), 0);

    let mut open = Vec::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // The session before counts until it is really gone.
    while open.len() < 4 {
        assert!(tokio::time::Instant::now() < deadline);
        let mut socket = BufReader::new(TcpStream::connect(gateway.ftp()).await.unwrap());
        if timeout(PATIENCE, answer(&mut socket)).await.unwrap() == 220 {
            open.push(socket);
        }
    }
    // Who has not signed in makes room for who comes.
    let mut fifth = BufReader::new(TcpStream::connect(gateway.ftp()).await.unwrap());
    assert_eq!(timeout(PATIENCE, answer(&mut fifth)).await.unwrap(), 220);
    assert_eq!(timeout(PATIENCE, answer(&mut open.remove(0))).await.unwrap(), 0);
    open.push(fifth);
    for socket in &mut open {
        for (line, code) in [("USER yard", 331), (&format!("PASS {TOKEN}"), 230)] {
            socket.get_mut().write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            assert_eq!(timeout(PATIENCE, answer(socket)).await.unwrap(), code, "{line}");
        }
    }
    let mut sixth = BufReader::new(TcpStream::connect(gateway.ftp()).await.unwrap());
    assert_eq!(timeout(PATIENCE, answer(&mut sixth)).await.unwrap(), 0);
    // Those that are open neither hold up nor outlive the gateway.
    gateway.app.stop().await;
    for socket in &mut open {
        assert_eq!(timeout(PATIENCE, answer(socket)).await.unwrap(), 0);
    }
}
