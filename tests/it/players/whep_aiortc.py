"""A WHEP client made of aiortc: `whep_aiortc.py URL SECONDS [options]`. Arguments and output as of whep_webrtcbin.py."""

import argparse
import asyncio
import json
import sys
import time
import urllib.parse
import urllib.request

import aioice.ice
from aiortc import RTCPeerConnection, RTCSessionDescription

arguments = argparse.ArgumentParser()
arguments.add_argument("url")
arguments.add_argument("seconds", type=float)
arguments.add_argument("--audio", action="store_true")
arguments.add_argument("--address", default="127.0.0.1")
arguments.add_argument("--patience", type=float, default=30)
options = arguments.parse_args()
# Debian's aioice leaves loopback out.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [options.address]
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
    if options.audio:
        peer.addTransceiver("audio", direction="recvonly")

    @peer.on("track")
    def on_track(track):
        tasks.append(asyncio.create_task(pictures(track, first) if track.kind == "video" else sound(track)))

    begin = time.monotonic()
    await peer.setLocalDescription(await peer.createOffer())
    ask_in_thread = asyncio.to_thread(ask, "POST", options.url, peer.localDescription.sdp.encode())
    location, answer = await ask_in_thread
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    try:
        await asyncio.wait_for(first.wait(), options.patience)
        told["first_picture_ms"] = round((time.monotonic() - begin) * 1000)
        await asyncio.sleep(options.seconds)
    except asyncio.TimeoutError:
        pass
    await asyncio.to_thread(ask, "DELETE", urllib.parse.urljoin(options.url, location))
    for task in tasks:
        task.cancel()
    await peer.close()


asyncio.run(main())
sys.stdout.buffer.flush()
print(json.dumps(told), file=sys.stderr, flush=True)
sys.exit(0 if told["pictures"] else 1)
