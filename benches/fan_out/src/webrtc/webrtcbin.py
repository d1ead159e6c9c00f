"""webrtcbin doing the gateway's job: `webrtcbin.py URL`.

rtspsrc ! depay ! parse ! pay ! tee, and one `queue ! webrtcbin` for each viewer, as GStreamer's own examples for many
viewers do; packets are made once, which is in its favour. WHEP as far as offer and answer. Media never passes through
Python.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GObject, Gst, GstSdp, GstWebRTC  # noqa: E402

PAYLOAD_TYPE = 104  # of the profile that the clip has, as the viewers offer it
CAPS = f"application/x-rtp,media=video,encoding-name=H264,payload={PAYLOAD_TYPE},clock-rate=90000"

Gst.init(None)
pipeline = Gst.parse_launch(
    f"rtspsrc location={sys.argv[1]} protocols=tcp latency=0 ! rtph264depay ! h264parse "
    f"! rtph264pay mtu=1200 config-interval=-1 aggregate-mode=zero-latency pt={PAYLOAD_TYPE} ! {CAPS} "
    "! tee name=tee allow-not-linked=true"
)
tee = pipeline.get_by_name("tee")
viewers, count, lock = {}, 0, threading.Lock()
# The bindings take webrtcbin's own (floating) reference to its agent over; a second one must outlive it.
agents = []


def wait(element, signal, *arguments):
    """Emits an action signal that takes a promise, and waits. Values live as long as promise and reply."""
    promise = Gst.Promise.new()
    element.emit(signal, *arguments, promise)
    if promise.wait() != Gst.PromiseResult.REPLIED:
        raise RuntimeError(f"{signal}: no reply")
    reply = promise.get_reply()
    if reply and reply.has_field("error"):
        raise RuntimeError(f"{signal}: {reply.get_value('error')}")
    return promise, reply


def description(kind, text):
    _, message = GstSdp.SDPMessage.new()
    GstSdp.sdp_message_parse_buffer(text.encode(), message)
    return GstWebRTC.WebRTCSessionDescription.new(kind, message)


def answer(offer):
    """A viewer more: its number and the answer with all candidates."""
    global count
    with lock:
        count += 1
        number = count
    queue = Gst.ElementFactory.make("queue", f"queue{number}")
    peer = Gst.ElementFactory.make("webrtcbin", f"peer{number}")
    peer.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
    agent = peer.get_property("ice-agent")
    agents.append((agent, GObject.Value(GObject.Object, agent)))
    agent.emit("add-local-ip-address", "127.0.0.1")
    gathered = threading.Event()

    def gathering(peer, _):
        if peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            gathered.set()

    peer.connect("notify::ice-gathering-state", gathering)
    pipeline.add(queue)
    pipeline.add(peer)
    queue.link(peer)
    transceiver = peer.emit("get-transceiver", 0)
    transceiver.set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
    transceiver.set_property("codec-preferences", Gst.Caps.from_string(CAPS))
    peer.sync_state_with_parent()
    wait(peer, "set-remote-description", description(GstWebRTC.WebRTCSDPType.OFFER, offer))
    promise, reply = wait(peer, "create-answer", None)
    wait(peer, "set-local-description", reply.get_value("answer"))
    del reply, promise
    pad = tee.request_pad_simple("src_%u")
    pad.link(queue.get_static_pad("sink"))
    queue.sync_state_with_parent()
    gathered.wait(5)
    with lock:
        viewers[number] = (peer, queue, pad)
    return number, peer.get_property("local-description").sdp.as_text()


def end(number):
    """Takes a viewer out of the running pipeline."""
    with lock:
        peer, queue, pad = viewers.pop(number)

    def unlink(pad, _):
        pad.unlink(queue.get_static_pad("sink"))
        return Gst.PadProbeReturn.REMOVE

    pad.add_probe(Gst.PadProbeType.IDLE, unlink)
    for element in (peer, queue):
        element.set_state(Gst.State.NULL)
        pipeline.remove(element)
    tee.release_request_pad(pad)


class Whep(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        number, sdp = answer(self.rfile.read(int(self.headers["Content-Length"])).decode())
        body = sdp.encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/sdp")
        self.send_header("Location", f"/session/{number}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_DELETE(self):
        end(int(self.path.rsplit("/", 1)[1]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Whep)
pipeline.set_state(Gst.State.PLAYING)
print(json.dumps({"listening": "127.0.0.1:%d" % server.server_address[1]}), flush=True)
server.serve_forever()
