"""A WHEP client made of aiortc: `whep_aiortc.py URL SECONDS [audio]`. Arguments and output as of whep_webrtcbin.py."""

import asyncio
import json
import sys
import time
import urllib.parse
import urllib.request

import aioice.ice
from aiortc import RTCPeerConnection, RTCSessionDescription

# Debian's aioice leaves loopback out.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
url, seconds, with_audio = sys.argv[1], float(sys.argv[2]), "audio" in sys.argv[3:]
told = {"pictures": 0, "samples": 0, "loudest": 0, "width": 0, "height": 0}


def ask(method, where, body=None):
    request = urllib.request.Request(where, body, {"Content-Type": "application/sdp"}, method=method)
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.headers["Location"], response.read().decode()


async def pictures(track, first):
    while True:
        frame = await track.recv()
        luma = frame.planes[0]
        stride, bytes_ = luma.line_size, bytes(luma)
        sys.stdout.buffer.write(b"".join(bytes_[row * stride : row * stride + 192] for row in range(16)))
        told["width"], told["height"] = frame.width, frame.height
        told["pictures"] += 1
        first.set()


async def sound(track):
    while True:
        frame = await track.recv()
        told["samples"] += frame.samples
        told["loudest"] = max(told["loudest"], int(frame.to_ndarray().max()))


async def main():
    peer, first, tasks = RTCPeerConnection(), asyncio.Event(), []
    peer.addTransceiver("video", direction="recvonly")
    if with_audio:
        peer.addTransceiver("audio", direction="recvonly")

    @peer.on("track")
    def on_track(track):
        tasks.append(asyncio.create_task(pictures(track, first) if track.kind == "video" else sound(track)))

    begin = time.monotonic()
    await peer.setLocalDescription(await peer.createOffer())
    ask_in_thread = asyncio.to_thread(ask, "POST", url, peer.localDescription.sdp.encode())
    location, answer = await ask_in_thread
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    try:
        await asyncio.wait_for(first.wait(), 30)
        told["first_picture_ms"] = round((time.monotonic() - begin) * 1000)
        await asyncio.sleep(seconds)
    except asyncio.TimeoutError:
        pass
    await asyncio.to_thread(ask, "DELETE", urllib.parse.urljoin(url, location))
    for task in tasks:
        task.cancel()
    await peer.close()


asyncio.run(main())
sys.stdout.buffer.flush()
print(json.dumps(told), file=sys.stderr, flush=True)
sys.exit(0 if told["pictures"] else 1)
