#!/bin/sh
# Makes the corpora's first inputs again: ffmpeg with libx264 and libx265, Python 3. Pictures are tiny or cut off, so that
# no file is larger than 8 kB. What fuzzing found is not touched.
set -eu
cd "$(dirname "$0")"
corpus=$PWD/corpus
testdata=../src/media/testdata
encode() { # output, pictures, source, then what comes behind
    out=$1 pictures=$2 source=$3
    shift 3
    ffmpeg -v error -y -f lavfi -i "$source" -frames:v "$pictures" "$@" "$out"
    truncate -s '<8000' "$out"
}

cp "$testdata"/*.h264 "$corpus/h264/"
source=testsrc=size=98x84:rate=10
x264() { name=$1 pictures=$2; shift 2; encode "$corpus/h264/x264-$name.h264" "$pictures" $source -c:v libx264 "$@" -f h264; }
x264 main-pyramid 10 -pix_fmt yuv420p -profile:v main -x264-params bframes=3:b-adapt=0:b-pyramid=normal
x264 high-delimiters-hrd 4 -pix_fmt yuv420p -x264-params aud=1:nal-hrd=vbr:vbv-maxrate=300:vbv-bufsize=300:pic-struct=1
x264 high-scaling-lists 3 -pix_fmt yuv420p -x264-params cqm=jvt:8x8dct=1
x264 high-fields 4 -pix_fmt yuv420p -x264-params tff=1:bframes=2
x264 high-slices 3 -pix_fmt yuv420p -x264-params slices=4:bframes=0
x264 high-422-10 3 -pix_fmt yuv422p10le
x264 high-444-intra 2 -pix_fmt yuv444p -x264-params keyint=1
x264 gray-lossless 1 -pix_fmt gray -qp 0

cp "$testdata"/*.h265 "$corpus/h265/"
x265() { name=$1 pictures=$2 params=$3; shift 3; encode "$corpus/h265/x265-$name.h265" "$pictures" $source -c:v libx265 -x265-params "repeat-headers=1:log-level=none:$params" "$@" -f hevc; }
x265 main-info 3 info=1 -pix_fmt yuv420p
x265 main-slices-closed-gop 9 info=0:slices=2:keyint=4:open-gop=0:bframes=2:hdr10=1 -pix_fmt yuv420p
x265 main-10-window 3 info=0:display-window=2,2,2,2:chromaloc=1:videoformat=component:colorprim=bt709 -pix_fmt yuv420p10le
x265 444-fields 4 info=0:interlace=tff -pix_fmt yuv444p

cp "$testdata"/*.jpg "$corpus/jpeg/"
for format in yuvj420p yuvj422p yuvj444p; do
    encode "$corpus/jpeg/ffmpeg-$format-optimised.jpg" 1 testsrc=size=34x18 -c:v mjpeg -q:v 20 -pix_fmt $format -f mjpeg
done

python3 - "$corpus" <<'PYTHON'
import struct, sys
corpus = sys.argv[1]

def timeline(name, resumed, tracks, steps):
    head = [int(resumed) | len(tracks) - 1 << 1]
    head += [rate | sound << 3 | depth << 4 for rate, sound, depth in tracks]
    with open(f"{corpus}/timeline/{name}", "wb") as out:
        out.write(bytes(head) + b"".join(steps))

def on(track, frames): return bytes([track | 0 << 2 | frames << 5])
def back(track, frames): return bytes([track | 1 << 2 | frames << 5])
def ticks(track, by): return bytes([track | 2 << 2]) + struct.pack("<h", by)
def far(track, by): return bytes([track | 3 << 2]) + struct.pack("<i", by)
def to(track, ticks): return bytes([track | 4 << 2]) + struct.pack("<q", ticks)
def report(track, ntp): return bytes([track | 5 << 2]) + struct.pack("<Q", ntp)
def describe(track, depth, rate): return bytes([track | 6 << 2, depth, rate])
def run(track, eights): return bytes([track | 7 << 2 | eights << 5])

VIDEO, UNKNOWN, KNOWN, SOUND = (0, 0, 0), (0, 0, 15), (0, 0, 1), (2, 1, 0)
group = [on(0, 3), back(0, 2), on(0, 1)]
timeline("steady", False, [VIDEO], [run(0, 7)] * 3)
timeline("b-pictures-known", False, [KNOWN], [on(0, 0)] + [b for _ in range(20) for b in (group + [on(0, 1)])])
timeline("b-pictures-unknown", False, [UNKNOWN], [describe(0, 15, 10), on(0, 0)] + group * 20)
timeline("b-pictures-late", False, [UNKNOWN], [run(0, 7)] * 8 + group * 10)
timeline("jumps", False, [VIDEO], [run(0, 1), far(0, 90000 * 3600), run(0, 1), far(0, -90000 * 7200), run(0, 1), to(0, -2**63), to(0, 2**63 - 1), run(0, 1)])
timeline("jitter", True, [UNKNOWN], [b for n in range(30) for b in (on(0, 1), ticks(0, n % 7 * 50 - 150), on(0, 0))])
both = [b for n in range(40) for b in (on(0, 1), on(1, 1))]
timeline("sound", False, [VIDEO, SOUND], [report(0, 1 << 32), report(1, (1 << 32) + (1 << 27))] + both)
timeline("sound-jumps-later", True, [UNKNOWN, SOUND], both + [far(0, 90000 * 3600)] + [on(1, 1)] * 5 + [far(1, 16000 * 3600)] + both)
timeline("four-tracks", True, [VIDEO, SOUND, (7, 0, 4), (6, 1, 0)], [bytes([n % 4 | n * 11 % 8 << 5]) for n in range(100)] + [to(2, 2**62), to(3, -2**62)])
corpus = sys.argv[1]
def seed(target, name, data): open(f"{corpus}/{target}/{name}", "wb").write(data)
alarm = open("../src/ingest/push/testdata/hikvision-200321-vmd.xml", "rb").read()
jpeg = b"\xff\xd8\xff\xe0\x00\x10JFIF\xff\xd9"
def parts(boundary, parts):
    return b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary, head, content) for head, content in parts) + b"--%s--\r\n" % boundary
field = b'Content-Disposition: form-data; name="a"; filename="a.jpg"\r\nContent-Type: image/jpeg'
xml = b'Content-Type: application/xml; charset="UTF-8"\r\nContent-Length: %d' % len(alarm)
seed("push_body", "raw", b"\x01" + jpeg)
seed("push_body", "png", b"\x00\x89PNG\r\n\x1a\n")
seed("push_body", "alarm", b"\x02" + alarm)
seed("push_body", "heartbeat", b"\x02" + alarm.replace(b"VMD", b"videoloss").replace(b">active", b">inactive"))
seed("push_body", "doctype", b'\x02<!DOCTYPE x [<!ENTITY a "aaaa">]>' + alarm.replace(b"VMD", b"&a;&#86;MD<![CDATA[x]]>"))
seed("push_body", "form", b"\x03" + parts(b"XX", [(b'Content-Disposition: form-data; name="note"', b"hello"), (field, jpeg)]))
seed("push_body", "foreign-boundary", b"\x03" + parts(b"YY", [(field, jpeg)]))
seed("push_body", "no-end", (b"\x03" + parts(b"XX", [(field, jpeg)]))[:-6])
seed("push_body", "mixed", b"\x04" + parts(b"boundary", [(xml, alarm), (b"Content-Type: image/jpeg", jpeg)]))
seed("push_session", "repeats", bytes([3, 0, 3, 10, 3, 10, 3, 60, 3, 1, 2, 1]))
seed("push_session", "two", bytes([3, 0, 5, 1, 3, 49, 4, 1, 3, 50, 3, 51]))
seed("push_session", "many", bytes(b for n in range(40) for b in (n * 2 + 1, 0)))
seed("push_session", "ends-first", bytes([2, 0, 2, 10, 3, 5]))
PYTHON
find corpus -type f -size +8k -print | grep . && exit 1
find corpus -type f | wc -l

python3 - "$corpus" "$testdata" <<'PYTHON'
import os, sys
corpus, testdata = sys.argv[1:]

def picture(name):
    with open(f"{testdata}/{name}", "rb") as file:
        return file.read()

def write(target, name, content):
    with open(f"{corpus}/{target}/{name}", "wb") as out:
        out.write(content)

def head(picture): return b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)

grey, progressive, whole = picture("libjpeg-grey.jpg"), picture("libjpeg-420-progressive.jpg"), picture("ffmpeg-420.jpg")
def multipart(name, cut, kind, content): write("http_multipart", name, bytes([cut, kind]) + content)
multipart("lengths", 64, 0, b"".join(b"--x\r\n" + head(p) + p + b"\r\n" for p in (grey, progressive, grey)))
multipart("no-lengths", 7, 0, b"".join(b"--x\r\n\r\n" + p + b"\r\n" for p in (grey, progressive)))
multipart("lf-only", 255, 1, b"".join(b"--frame\nContent-type: image/jpeg\n\n" + p + b"\n" for p in (grey, progressive)))
multipart("unannounced", 1, 2, b"preamble\r\n--abc\r\n" + head(grey) + grey + b"\r\n--abc--\r\n")
multipart("wrong-boundary", 33, 0, b"--other\r\n" + head(grey) + grey + b"\r\n--other\r\n" + head(progressive) + progressive)
multipart("wrong-length", 33, 0, b"".join(b"--x\r\nContent-Length: 20\r\n\r\n" + p + b"\r\n" for p in (grey, progressive, grey)))
multipart("no-picture", 9, 0, b"--x\r\nContent-Type: text/xml\r\n\r\n<a/>\r\n--x\r\n" + head(grey) + grey + b"\r\n--x--")
multipart("cut", 50, 0, b"--x\r\n\r\n" + grey[:300])

for number, name in enumerate(sorted(name for name in os.listdir(testdata) if name.endswith(".jpg"))):
    write("jpeg_check", name[:-4], bytes([number % 4]) + picture(name))
tables = whole.index(b"\xff\xc4")
after = tables + 2 + int.from_bytes(whole[tables + 2:tables + 4], "big")
exif = b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
write("jpeg_check", "no-end", b"\0" + whole[:-2])
write("jpeg_check", "no-tables", b"\0" + whole[:tables] + whole[after:])
write("jpeg_check", "torn", b"\x02" + whole[:len(whole) // 2] + b"\xff\xd9")
def scans(frame, components, width, height, count):
    """One component in many scans of a few bytes: cheap to send, dear to decode."""
    def segment(code, body): return bytes([0xff, code]) + (len(body) + 2).to_bytes(2, "big") + body
    head = bytes([8]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([components])
    made = b"\xff\xd8" + segment(0xdb, b"\0" + b"\x08" * 64)
    made += segment(frame, head + b"".join(bytes([id + 1, 0x11, 0]) for id in range(components)))
    made += segment(0xc4, b"\0\x01\x01" + bytes(14) + b"\0\x07") + segment(0xc4, b"\x10\x01" + bytes(15) + (b"\xe0" if frame == 0xc2 else b"\0"))
    blocks = (width + 7) // 8 * ((height + 7) // 8)
    for n in range(count):
        band = bytes([0, 63]) if frame != 0xc2 else bytes([0, 0]) if n == 0 else bytes([(n - 1) % 63 + 1] * 2)
        start, bits = (b"\xbf\x80", 8 + blocks * (1 if frame == 0xc2 else 2)) if n == 0 else (b"", 15)
        made += segment(0xda, b"\x01\x01\0" + band + b"\0") + start + bytes((bits + 7) // 8 - len(start))
    return made + b"\xff\xd9"
write("jpeg_check", "scans-progressive", b"\0" + scans(0xc2, 1, 64, 48, 64))
write("jpeg_check", "scans-progressive-many", b"\0" + scans(0xc2, 1, 512, 512, 90))
write("jpeg_check", "scans-baseline-many", b"\x01" + scans(0xc0, 3, 512, 512, 90))
write("jpeg_check", "exif", b"\0" + whole[:2] + exif + whole[2:])
PYTHON
