#!/bin/sh
# Builds the gateway and a harness, then runs it with the given arguments: `jpeg_cameras …` the one of that name, `stills …`
# what a picture that never changes costs, anything else `fan-out`; `all` = everything but the soak.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
cargo build --release --locked
build() {
    cargo build --release --locked --manifest-path "benches/$1/Cargo.toml" --target-dir "$target"
}
if [ "${1:-}" = jpeg_cameras ]; then
    shift
    build jpeg_cameras
    exec "$target/release/jpeg-cameras" "$@"
fi
if [ "${1:-}" = stills ]; then
    shift
    exec python3 benches/stills.py --fanlight "$target/release/fanlight" "$@"
fi
build fan_out
fan_out=$target/release/fan-out
[ "${1:-}" = all ] || exec "$fan_out" "$@"
status=0
for measurement in bench join stall webrtc browser; do
    "$fan_out" "$measurement" || status=1
done
build jpeg_cameras
"$target/release/jpeg-cameras" || status=1
python3 benches/stills.py --fanlight "$target/release/fanlight" || status=1
exit $status
