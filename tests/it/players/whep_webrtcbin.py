"""A WHEP client made of GStreamer's webrtcbin: `whep_webrtcbin.py URL SECONDS [options]`.

Offers to receive H.264 (and PCMU), plays what the answer brings for some seconds from the first picture on, ends the
session with DELETE. Of each decoded picture the upper left 192 x 16 pixels go to standard output as grey bytes; a line of
JSON on standard error tells the rest. Exit code 1 when nothing comes within `--patience` seconds. `--address` is the
one to gather candidates on.
"""

import argparse
import json
import sys
import threading
import time
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GObject, Gst, GstSdp, GstWebRTC  # noqa: E402

VIDEO = (
    "rtph264depay ! h264parse ! avdec_h264 ! videoconvert ! video/x-raw,format=GRAY8 "
    "! appsink name=sink emit-signals=true sync=false"
)
AUDIO = "rtppcmudepay ! mulawdec ! audio/x-raw,rate=8000 ! appsink name=sink emit-signals=true sync=false"

arguments = argparse.ArgumentParser()
arguments.add_argument("url")
arguments.add_argument("seconds", type=float)
arguments.add_argument("--audio", action="store_true")
arguments.add_argument("--address", default="127.0.0.1")
arguments.add_argument("--patience", type=float, default=30)
options = arguments.parse_args()
Gst.init(None)
pipeline = Gst.Pipeline.new("whep")
peer = Gst.ElementFactory.make("webrtcbin", "peer")
peer.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
pipeline.add(peer)
# The bindings take webrtcbin's own (floating) reference to its agent over: a second one must outlive it.
agent = peer.get_property("ice-agent")
kept = GObject.Value(GObject.Object, agent)
agent.emit("add-local-ip-address", options.address)
gathered, first = threading.Event(), threading.Event()
told = {"pictures": 0, "samples": 0, "loudest": 0, "width": 0, "height": 0}


def gathering(peer, _):
    if peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
        gathered.set()


def picture(sink):
    sample = sink.emit("pull-sample")
    caps = sample.get_caps().get_structure(0)
    told["width"], told["height"] = caps.get_value("width"), caps.get_value("height")
    stride = (told["width"] + 3) // 4 * 4
    luma = sample.get_buffer().extract_dup(0, 16 * stride)
    sys.stdout.buffer.write(b"".join(luma[row * stride : row * stride + 192] for row in range(16)))
    told["pictures"] += 1
    first.set()
    return Gst.FlowReturn.OK


def sound(sink):
    buffer = sink.emit("pull-sample").get_buffer()
    samples = memoryview(buffer.extract_dup(0, buffer.get_size())).cast("h")
    told["samples"] += len(samples)
    told["loudest"] = max([told["loudest"], *samples])
    return Gst.FlowReturn.OK


def pad_added(_, pad):
    if pad.get_direction() != Gst.PadDirection.SRC:
        return
    video = pad.get_current_caps().get_structure(0).get_value("media") == "video"
    player = Gst.parse_bin_from_description(VIDEO if video else AUDIO, True)
    player.get_by_name("sink").connect("new-sample", picture if video else sound)
    pipeline.add(player)
    player.sync_state_with_parent()
    pad.link(player.get_static_pad("sink"))


def wait(signal, *arguments):
    """Emits an action signal that takes a promise, and waits. Values live as long as promise and reply."""
    promise = Gst.Promise.new()
    peer.emit(signal, *arguments, promise)
    assert promise.wait() == Gst.PromiseResult.REPLIED, signal
    reply = promise.get_reply()
    assert not (reply and reply.has_field("error")), f"{signal}: {reply.get_value('error')}"
    return promise, reply


peer.connect("notify::ice-gathering-state", gathering)
peer.connect("pad-added", pad_added)
receive = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
caps = "application/x-rtp,media=video,encoding-name=H264,clock-rate=90000,payload=96,packetization-mode=(string)1"
peer.emit("add-transceiver", receive, Gst.Caps.from_string(caps + ",profile-level-id=(string)42e01f"))
if options.audio:
    caps = "application/x-rtp,media=audio,encoding-name=PCMU,clock-rate=8000,payload=0"
    peer.emit("add-transceiver", receive, Gst.Caps.from_string(caps))
pipeline.set_state(Gst.State.PLAYING)
begin = time.monotonic()
promise, reply = wait("create-offer", None)
wait("set-local-description", reply.get_value("offer"))
assert gathered.wait(10), "no candidates"
offer = peer.get_property("local-description").sdp.as_text()
request = urllib.request.Request(options.url, offer.encode(), {"Content-Type": "application/sdp"})
with urllib.request.urlopen(request, timeout=20) as response:
    session = urllib.parse.urljoin(options.url, response.headers["Location"])
    answer = response.read().decode()
_, message = GstSdp.SDPMessage.new()
assert GstSdp.sdp_message_parse_buffer(answer.encode(), message) == GstSdp.SDPResult.OK, answer
wait("set-remote-description", GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message))
if first.wait(options.patience):
    told["first_picture_ms"] = round((time.monotonic() - begin) * 1000)
    time.sleep(options.seconds)
urllib.request.urlopen(urllib.request.Request(session, method="DELETE"), timeout=10).close()
pipeline.set_state(Gst.State.NULL)
sys.stdout.buffer.flush()
print(json.dumps(told), file=sys.stderr, flush=True)
sys.exit(0 if told["pictures"] else 1)
