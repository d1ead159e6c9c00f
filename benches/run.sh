#!/bin/sh
# Builds the gateway and the harness, then runs `fan-out` with the given arguments; `all` = everything but the
# soak.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
cargo build --release --locked
cargo build --release --locked --manifest-path benches/fan_out/Cargo.toml --target-dir "$target"
fan_out=$target/release/fan-out
[ "${1:-}" = all ] || exec "$fan_out" "$@"
status=0
for measurement in bench join stall webrtc browser; do
    "$fan_out" "$measurement" || status=1
done
exit $status
