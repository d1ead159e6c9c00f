// A WHEP client: one request for an offer, one answer, and media (RFC 9725 section 4 for what WHEP shares with WHIP).
//
// The request goes out before any candidate is gathered: our gateway is an ICE-lite agent, which learns our addresses from
// the checks that we send. Candidates are sent after it only to servers that are not.

// Milliseconds that a goodbye may take.
const GOODBYE = 2000;

/** The server said no. */
export class Refused extends Error {
  constructor(status, text, retryAfter) {
    super(text);
    this.status = status;
    /** Milliseconds after which to ask again, if the server named them. */
    this.retryAfter = retryAfter;
  }
}

/** Why this browser cannot, or `null`. */
export function unsupported() {
  if (!("RTCPeerConnection" in globalThis)) return "this browser has WebRTC switched off";
  const codecs = RTCRtpReceiver.getCapabilities?.("video")?.codecs;
  const known = (type) => codecs.some((codec) => codec.mimeType.toLowerCase() === type);
  if (codecs && !known("video/h264") && !known("video/h265")) return "this browser has no H.264";
  return null;
}

/** ICE servers from `Link` headers. */
export function iceServers(link) {
  const servers = [];
  for (const [, url, parameters] of (link ?? "").matchAll(/<([^>]+)>((?:\s*;\s*[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^",;\s]+))*)/g)) {
    const found = {};
    for (const [, key, quoted, bare] of parameters.matchAll(/([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^",;\s]+))/g)) {
      found[key.toLowerCase()] = quoted === undefined ? bare : quoted.replace(/\\(.)/g, "$1");
    }
    if (found.rel !== "ice-server") continue;
    servers.push({ urls: url, username: found.username, credential: found.credential });
  }
  return servers;
}

/** One viewing. Ends with `close()`; is not used again. */
export class Session {
  #resource = null;
  #etag = null;
  #closed = false;
  #candidates = [];
  #trickle = false;

  /** `tracks(track, receiver)` is called for each track that the server sends. */
  constructor(url, { audio = false, tracks }) {
    this.url = url;
    this.connection = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.connection.addEventListener("track", ({ track, receiver }) => {
      hurry(receiver);
      tracks(track, receiver);
    });
    this.connection.addEventListener("icecandidate", ({ candidate }) => this.#found(candidate));
    this.connection.addTransceiver("video", { direction: "recvonly" });
    if (audio) this.connection.addTransceiver("audio", { direction: "recvonly" });
  }

  /** Asks the server. Throws `Refused`, or `TypeError` if it cannot be reached. */
  async open() {
    const offer = await this.connection.createOffer();
    const answer = await fetch(this.url, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: offer.sdp,
    });
    if (answer.status !== 201) throw await refusal(answer);
    this.#resource = new URL(answer.headers.get("Location") ?? "", this.url);
    this.#etag = answer.headers.get("ETag");
    const sdp = await answer.text();
    if (this.#closed) {
      this.#remove();
      return;
    }
    const servers = iceServers(answer.headers.get("Link"));
    if (servers.length) this.connection.setConfiguration({ bundlePolicy: "max-bundle", iceServers: servers });
    this.#trickle = !/^a=ice-lite\r?$/m.test(sdp);
    await this.connection.setLocalDescription(offer);
    await this.connection.setRemoteDescription({ type: "answer", sdp });
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#remove();
  }

  /** The connection closes after the answer: the server would take its end for that of the session, and answer 404. */
  #remove() {
    const close = () => this.connection.close();
    if (!this.#resource) {
      close();
      return;
    }
    // Also sent when the page is on its way out.
    fetch(this.#resource, { method: "DELETE", keepalive: true }).catch(() => {}).finally(close);
    setTimeout(close, GOODBYE);
    this.#resource = null;
  }

  #found(candidate) {
    if (!this.#trickle || this.#closed) return;
    if (!this.#candidates.length) queueMicrotask(() => this.#send());
    this.#candidates.push(candidate);
  }

  /** Candidates as a fragment (RFC 8840); the last one is the end of candidates. */
  #send() {
    const { localDescription } = this.connection;
    const value = (name) => localDescription?.sdp.match(new RegExp(`^a=${name}:(.*?)\\r?$`, "m"))?.[1];
    const lines = [`a=ice-ufrag:${value("ice-ufrag")}`, `a=ice-pwd:${value("ice-pwd")}`];
    lines.push("m=video 9 UDP/TLS/RTP/SAVPF 0", `a=mid:${value("mid") ?? 0}`);
    for (const candidate of this.#candidates.splice(0)) {
      lines.push(candidate?.candidate ? `a=${candidate.candidate}` : "a=end-of-candidates");
    }
    fetch(this.#resource, {
      method: "PATCH",
      headers: { "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": this.#etag ?? "*" },
      body: lines.join("\r\n") + "\r\n",
    }).catch(() => {});
  }
}

/** As little delay as the network allows. */
function hurry(receiver) {
  if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
  else if ("playoutDelayHint" in receiver) receiver.playoutDelayHint = 0;
}

async function refusal(answer) {
  let text = answer.statusText || `HTTP status ${answer.status}`;
  try {
    text = (await answer.json()).detail ?? text;
  } catch {
    // Not one of our own answers: a proxy's.
  }
  const seconds = Number.parseFloat(answer.headers.get("Retry-After") ?? "");
  return new Refused(answer.status, text, Number.isFinite(seconds) ? seconds * 1000 : null);
}
