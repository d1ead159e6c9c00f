// What a connection does at the moment, from the browser's own counters (W3C webrtc-stats).

import { codecName } from "./states.js";

export class Meter {
  #before = null;

  /** Rows of name and value, since the last reading. */
  async read(connection) {
    const reports = [...(await connection.getStats()).values()];
    const video = reports.find((report) => report.type === "inbound-rtp" && report.kind === "video");
    if (!video) return [];
    const of = (id) => reports.find((report) => report.id === id);
    const audio = reports.find((report) => report.type === "inbound-rtp" && report.kind === "audio");
    const pair = of(of(video.transportId)?.selectedCandidatePairId)
      ?? reports.find((report) => report.type === "candidate-pair" && report.nominated);
    const before = this.#before?.id === video.id ? this.#before : {};
    this.#before = video;
    const since = (key) => (video[key] ?? 0) - (before[key] ?? 0);
    const seconds = (video.timestamp - (before.timestamp ?? video.timestamp)) / 1000;

    const rows = [];
    const add = (name, value) => value !== null && rows.push([name, value]);
    add("Picture", video.frameWidth ? `${video.frameWidth}×${video.frameHeight}` : null);
    add("Rate", seconds ? `${(since("framesDecoded") / seconds).toFixed(1)} fps` : `${video.framesPerSecond ?? 0} fps`);
    add("Bitrate", seconds ? bits((since("bytesReceived") * 8) / seconds) : null);
    const each = (sum, count) => (since(count) > 0 ? (since(sum) / since(count)) * 1000 : 0);
    const buffer = each("jitterBufferDelay", "jitterBufferEmittedCount");
    const decode = each("totalDecodeTime", "framesDecoded");
    const trip = (pair?.currentRoundTripTime ?? 0) * 1000;
    const parts = `network ${fine(trip / 2)}, buffer ${fine(buffer)}, decoder ${fine(decode)}`;
    add("Delay", `${Math.round(trip / 2 + buffer + decode)} ms since the gateway (${parts})`);
    const packets = since("packetsLost") + since("packetsReceived");
    const share = packets > 0 ? Math.max(0, (since("packetsLost") / packets) * 100) : 0;
    add("Loss", `${share.toFixed(1)} % (${Math.max(0, video.packetsLost ?? 0)} packets in all)`);
    add("Dropped", `${video.framesDropped ?? 0} pictures, ${video.freezeCount ?? 0} freezes`);
    const codec = (report) => report && codecOf(of(report.codecId)?.mimeType);
    add("Codec", [codec(video), codec(audio)].filter(Boolean).join(" and ") || null);
    add("Transport", pair ? transport(of(pair.localCandidateId), of(pair.remoteCandidateId)) : null);
    return rows;
  }
}

function codecOf(type) {
  const name = type?.split("/")[1];
  return name && codecName(name.toLowerCase());
}

function transport(local, remote) {
  const tcp = local?.protocol === "tcp" || local?.relayProtocol === "tcp";
  const relayed = local?.candidateType === "relay" ? " by a relay" : "";
  const where = remote?.address ? ` to ${remote.address}:${remote.port}` : "";
  return `${tcp ? "TCP" : "UDP"}${relayed}${where}`;
}

const fine = (value) => (value < 10 ? value.toFixed(1) : Math.round(value));

function bits(rate) {
  return rate >= 1e6 ? `${(rate / 1e6).toFixed(2)} Mbit/s` : `${Math.round(rate / 1e3)} kbit/s`;
}
