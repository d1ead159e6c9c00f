#!/usr/bin/env python3
"""What a picture that never changes costs while somebody watches it as H.264.

Starts the gateway with two cameras that are pushed to, hands each one picture (640x480 and 1920x1080), and has ffmpeg watch
one at a time over RTSP. CPU is the scheduler's own count (/proc/PID/task/*/schedstat) of the gateway and its encoder's
process, over --seconds, after the picture has settled. Also measured: from connecting to the first media of the first viewer,
with no encoder running before, and from ffmpeg's start to its first decoded picture with one (it wants several). Results go to benches/results with machine and commit."""
import argparse, datetime, glob, json, os, pathlib, platform, socket, subprocess, sys, tempfile, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZES = {"small": "640x480", "large": "1920x1080"}
TARGET = 1.0  # per cent of a core


def children(pid):
    found = {}
    for stat in glob.glob("/proc/[0-9]*/stat"):
        try:
            fields = open(stat).read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        found.setdefault(int(fields[1]), []).append(int(stat.split("/")[2]))
    return found.get(pid, [])


def cpu_ms(pids):
    total = 0
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            try:
                total += int(open(path).read().split()[0])
            except (OSError, IndexError):
                pass
    return total / 1e6


def get(url, data=None, kind=None):
    headers = {"Content-Type": kind} if kind else {}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
        return answer.read()


def until(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"waited too long until {what}")
        time.sleep(0.05)


def first_packets(rtsp, name):
    """Milliseconds from connecting, before DESCRIBE, to the first media after PLAY."""
    begin = time.monotonic()
    host, port = rtsp.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        def ask(method, target, extra=""):
            connection.sendall(f"{method} {target} RTSP/1.0\r\nCSeq: 1\r\n{extra}\r\n".encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += connection.recv(4096)
            return answer.decode(errors="replace")
        base = f"rtsp://{rtsp}/{name}"
        ask("DESCRIBE", base)
        answer = ask("SETUP", base + "/trackID=0", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")
        session = next(line for line in answer.split("\r\n") if line.startswith("Session")).split(";")[0]
        answer = ask("PLAY", base, session + "\r\n")
        received = len(answer)
        while received < 2000:
            received += len(connection.recv(4096))
    return 1000 * (time.monotonic() - begin)


def one(gateway, http, rtsp, name, folder, seconds):
    picture = folder / f"{name}.jpg"
    footage = ROOT / "src/simulate/footage/street.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", str(footage), "-frames:v", "1", "-q:v", "4",
                    "-vf", f"scale={SIZES[name].replace('x', ':')}", "-pix_fmt", "yuvj420p", str(picture)], check=True)
    get(f"http://{http}/v1/cameras/{name}/push", picture.read_bytes(), "image/jpeg")
    url = f"rtsp://{rtsp}/{name}"
    packets = first_packets(rtsp, name)
    begin = time.monotonic()
    # Without these options ffmpeg looks at a stream for 5 s before it shows anything: it wants to know its rate.
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-rtsp_transport", "tcp", "-probesize", "32", "-fpsprobesize", "0",
                    "-fflags", "nobuffer", "-i", url, "-frames:v", "1", "-f", "null", "-"], check=True)
    first = time.monotonic() - begin
    viewer = subprocess.Popen(["ffmpeg", "-v", "error", "-nostdin", "-rtsp_transport", "tcp", "-i", url, "-c", "copy",
                               "-f", "null", "-"])
    until("the encoder runs", lambda: len(children(gateway)) == 1)
    time.sleep(10)
    encoder = children(gateway)
    before, start = (cpu_ms([gateway]), cpu_ms(encoder)), time.monotonic()
    time.sleep(seconds)
    lasted = time.monotonic() - start
    after = (cpu_ms([gateway]), cpu_ms(encoder))
    if viewer.poll() is not None or children(gateway) != encoder:
        sys.exit(f"{name}: the viewer or the encoder ended")
    viewer.kill()
    viewer.wait()
    until("the encoder ended", lambda: not children(gateway))
    share = [100 * (b - a) / 1000 / lasted for a, b in zip(before, after)]
    return {"size": SIZES[name], "jpeg_bytes": picture.stat().st_size, "gateway_percent": share[0],
            "encoder_percent": share[1], "percent": sum(share), "first_packets_ms": packets, "first_picture_ms": 1000 * first}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fanlight", default=str(ROOT / "target/release/fanlight"))
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--results", default=str(ROOT / "benches/results"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        cameras = "".join(f"  {name}: {{ source: \"push:\" }}\n" for name in SIZES)
        listen = "{ listen: \"127.0.0.1:0\" }"
        (folder / "fanlight.yaml").write_text(
            f"http: {listen}\nrtsp: {{ listen: \"127.0.0.1:0\", udp_ports: 0 }}\nwebrtc: {listen}\nauth: none\ncameras:\n{cameras}")
        ports = folder / "ports.json"
        program = subprocess.Popen([args.fanlight, "run", "--config", str(folder / "fanlight.yaml"), "--ports-file", str(ports)],
                                   stderr=open(folder / "log", "w"))
        try:
            until("the gateway is up", ports.exists)
            time.sleep(0.5)
            addresses = json.loads(ports.read_text())
            http, rtsp = addresses["http"][0], addresses["rtsp"][0]
            rows = [one(program.pid, http, rtsp, name, folder, args.seconds) for name in SIZES]
        except Exception:
            sys.stderr.write((folder / "log").read_text())
            raise
        finally:
            program.terminate()
            program.wait()
    run = lambda *words: subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    commit = run("git", "rev-parse", "--short", "HEAD") + ("-dirty" if run("git", "status", "--porcelain") else "")
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    day = datetime.date.today().isoformat()
    machine = {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "program": os.path.basename(os.path.dirname(args.fanlight))}
    text = [f"# A picture that never changes, watched by one RTSP viewer", "",
            f"{day}, commit {commit}, {cpu}, {os.cpu_count()} cores, {machine['program']} build, {args.seconds:.0f} s each", "",
            "| picture | JPEG | gateway, % of a core | its encoder | both | connecting to first media | ffmpeg to its first picture |", "|---|---|---|---|---|---|---|"]
    text += [f"| {row['size']} | {row['jpeg_bytes'] // 1000} kB | {row['gateway_percent']:.2f} | {row['encoder_percent']:.2f} | "
             f"**{row['percent']:.2f}** | {row['first_packets_ms']:.0f} ms | {row['first_picture_ms']:.0f} ms |" for row in rows]
    good = all(row["percent"] <= TARGET for row in rows)
    text += ["", f"Target: at most {TARGET:.0f} % of a core. {'Met' if good else 'MISSED'}.", ""]
    results = pathlib.Path(args.results)
    results.mkdir(parents=True, exist_ok=True)
    (results / f"stills-{day}-{commit}.md").write_text("\n".join(text))
    (results / f"stills-{day}-{commit}.json").write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))
    print("\n".join(text))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
