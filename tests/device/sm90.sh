#!/bin/sh
# What a machine with a Hopper GPU says about moec in one call: verifies, times, trains, prints tables.
#
#     tests/device/sm90.sh [MOEC [OUT]]      MOEC: the program, build/moec; OUT: folder for the logs
#
# Settings: TARGET (sm_90a), PARTS ("doctor verify train bench"), RANDOM_SPECS (12), TEXT to train on.
# Correctness comes first: a wrong kernel's time means nothing. Nothing here fails on a time.
moec=${1:-build/moec}
out=${2:-${TMPDIR:-/tmp}/moec-sm90}
target=${TARGET:-sm_90a}
mkdir -p "$out"

verify() { timeout 100 "$moec" verify "$@" -t "$target" 2>&1 | grep -v '^verify' | tail -n "${LINES_SHOWN:-3}"; }

doctor() {
    "$moec" doctor | grep -E "^(CUDA|NVRTC|$target)"
}

verify_all() {
    LINES_SHOWN=30 verify "E=8 K=2 H=512 F=256 bias=1 heads=4 kv=2 dim=64 V=512" --tokens 300 --routing uniform
    verify "E=7 K=3 H=520 F=136 act=geglu" --tokens 127
    verify "E=60 K=4 H=264 F=200 act=gelu router=sigmoid_bias groups=6/3 capacity=1.25 wgrad=same" --tokens 127 --routing zipf:1
    verify "E=512 K=10 H=128 F=64" --tokens 127 --routing hot:0.9
    verify "E=1 K=1 H=256 F=512" --tokens 127 --routing uniform
    verify --random "${RANDOM_SPECS:-12}" --tokens 127 --routing uniform
}

# 100 steps in f32 on the CPU and on the GPU: the losses must agree.
train() {
    for device in cpu "$target"; do
        timeout 120 "$moec" train examples/demo.lua --fresh -t "$device" dtype=f32 steps=100 path="${TEXT:-README.md}" \
            run="$out/run-$device" warmup=20 eval_every=0 save_every=0 sample=0 batch=4 >"$out/train-$device.txt" 2>&1
        tail -n 1 "$out/train-$device.txt"
        sed -n 's/.*"event":"step".*"loss":\([0-9.]*\).*/\1/p' "$out/run-$device/log.jsonl" >"$out/loss-$device"
    done
    paste "$out/loss-cpu" "$out/loss-$target" | awk '
        { d = $1 > $2 ? $1 - $2 : $2 - $1; if (d / $1 > worst) worst = d / $1 }
        END { printf "%d steps, largest relative difference of the loss %.2e\n", NR, worst }'
}

# One row of shapes T,H,F,E,K: each kernel, then the layer as forward and backward TFLOP/s.
bench() {
    for shape in 40960,768,256,128,8 24576,1536,256,128,8 24576,1536,1024,32,2 32768,4096,256,256,16 \
                 32768,4096,512,128,8 32768,4096,1024,128,8 32768,2048,768,128,8 8192,4096,14336,8,2; do
        set -- $(echo "$shape" | tr , ' ')
        timeout 100 "$moec" bench "E=$4 K=$5 H=$2 F=$3 wgrad=same" --tokens "$1" -t "$target" --repeat 10 --sets 1 \
            >"$out/bench-$shape.txt" 2>&1
        echo "-- $shape"
        awk -v flops="$(echo "$1 $2 $3 $5" | awk '{ print 6 * $1 * $2 * $3 * $4 }')" '
            / ceiling/ { print }
            /^(route|up|down|combine|dh|dw2|dw1|dx|route_bwd) / { printf "%s %s ms %s TF %s GB/s; ", $1, $2, $3, $4 }
            /^layer:/ { f = $3; b = $6
                printf "\nforward %.3f ms %.0f TFLOP/s, backward %.3f ms %.0f TFLOP/s\n", f, flops / f * 1e-9, b, 2 * flops / b * 1e-9 }
        ' "$out/bench-$shape.txt"
        grep -q '^layer:' "$out/bench-$shape.txt" || tail -n 2 "$out/bench-$shape.txt"
    done
}

for part in ${PARTS:-doctor verify train bench}; do
    echo "== $part"
    case $part in
    verify) verify_all ;;
    *) "$part" ;;
    esac
done
