#!/bin/sh
# What a machine with a Hopper GPU says about moec in one call: verifies, times, trains, prints tables.
#
#     tests/device/sm90.sh [MOEC [OUT]]      MOEC: the program, build/moec; OUT: folder for the logs
#
# Settings: TARGET (sm_90a), PARTS (all of those below), RANDOM_SPECS (200), JOBS (one per CPU, at most
# 16), TEXT to train on. Other programs are looked for beside MOEC (tests/t_gpu).
# Correctness comes first: a wrong kernel's time means nothing. Nothing here fails on a time.
moec=${1:-build/moec}
out=${2:-${TMPDIR:-/tmp}/moec-sm90}
target=${TARGET:-sm_90a}
cpus=$(nproc)
jobs=${JOBS:-$((cpus > 16 ? 16 : cpus))}
mkdir -p "$out"

doctor() {
    "$moec" doctor | grep -E "^(CUDA|NVRTC|$target)"
}

# Graphs, pointers, memory, buffers of 2^32 elements, compile times, a faulting kernel.
gpu() {
    timeout 150 "$(dirname "$moec")/tests/t_gpu" >"$out/gpu.txt" 2>&1
    grep -E '^(#|ok|not ok|1\.\.)' "$out/gpu.txt"
}

# ---- verify: a list of specs and random ones, JOBS processes at a time ----

specs() {
    cat <<'SPECS'
E=8 K=2 H=512 F=256 bias=1 heads=4 kv=2 dim=64 V=512 --tokens 300 --routing uniform
E=8 K=2 H=256 F=128 --tokens 0
E=8 K=2 H=256 F=128 --tokens 1
E=8 K=2 H=256 F=128 --tokens 7
E=8 K=2 H=256 F=128 --tokens 127
E=8 K=2 H=256 F=128 --tokens 1000 --op layer --routing uniform
E=8 K=2 H=72 F=64 --tokens 4095 --op layer --routing zipf:1
E=16 K=4 H=128 F=64 shared=64 --tokens 127
E=7 K=3 H=520 F=136 act=geglu --tokens 127 --routing uniform
E=60 K=4 H=264 F=200 act=gelu router=sigmoid_bias groups=6/3 capacity=1.25 wgrad=same --tokens 127 --routing zipf:1
E=512 K=10 H=128 F=64 --tokens 127 --op layer --routing hot:0.9
E=1 K=1 H=256 F=512 --tokens 127 --routing uniform
E=8 K=2 H=128 F=128 --tokens 1000 --op layer --routing file:TWO
E=64 K=8 H=256 F=64 --tokens 127 --routing empty:0.3
E=34 K=1 H=2048 F=256 wgrad=same --tokens 300 --op up --routing hot:0.9
E=34 K=1 H=2048 F=256 wgrad=same --tokens 300 --op down --routing hot:0.9
E=34 K=2 H=2048 F=256 wgrad=same --tokens 300 --op dw1 --routing hot:0.9
E=5 K=2 H=2056 F=520 --tokens 700 --op dw2 --routing zipf:1
SPECS
    at=1
    while [ $at -le "${RANDOM_SPECS:-200}" ]; do # seeds AT..AT+4; together 1..RANDOM_SPECS
        echo "--random 5 --seed $at"
        at=$((at + 5))
    done
}

verify() {
    echo "1 1 0 0 0 0 0 0" >"$out/two.txt" # all tokens choose the same two of eight experts
    rm -f "$out"/verify-*.txt
    specs | sed "s,TWO,$out/two.txt," | awk -v dir="$out" '{ printf "%s/verify-%03d.txt %s\n", dir, NR, $0 }' |
        xargs -P "$jobs" -I LINE sh -c 'set -- LINE; log=$1; shift
            OMP_NUM_THREADS=1 timeout 200 "'"$moec"'" verify "$@" -t "'"$target"'" >"$log" 2>&1
            echo "exit code $? of $*" >>"$log"'
    grep -h -A1 '^WRONG' "$out"/verify-*.txt | head -n 40
    grep -h '^exit code' "$out"/verify-*.txt | grep -v 'code 0'
    awk '/ cases, .* wrong/ { runs++; cases += $1; wrong += $3 }
        END { printf "%d runs of verify ended: %d cases, %d wrong\n", runs, cases, wrong }' "$out"/verify-*.txt
    ls "$out"/verify-*.txt | wc -l | sed 's/$/ were started/'
}

# ---- the same routing and seed on the CPU and here; the GPU's answers stay in OUT/answers, to hold those of other
# machines against (moec verify SPEC -t gfx942 --against OUT/answers) ----

agree() {
    rm -rf "$out/answers-cpu" "$out/answers"
    for spec in "E=5 K=2 H=72 F=40 bias=1 shared=24" "E=16 K=4 H=128 F=192 wgrad=same" "E=7 K=3 H=136 F=72 dtype=f32"; do
        words="$spec --tokens 127 --routing zipf:1 --variant 0"
        # shellcheck disable=SC2086
        "$moec" verify $words -t cpu --dump "$out/answers-cpu" >/dev/null 2>&1
        # shellcheck disable=SC2086
        "$moec" verify $words -t "$target" --dump "$out/answers" --against "$out/answers-cpu" >"$out/agree.txt" 2>&1
        echo "exit code $? of $spec: $(grep -E '^(against|WRONG)' "$out/agree.txt" | head -n 3 | tr '\n' ' ')"
    done
}

# ---- compute-sanitizer over every kernel of a layer; long sums and long sequences go round the rings of stages ----

sanitize() {
    command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not here"; return; }
    for tool in memcheck racecheck; do
        for spec in "E=4 K=2 H=136 F=72 shared=64 bias=1 --tokens 127" "E=4 K=2 H=128 F=64 wgrad=same --tokens 127" \
            "E=2 K=1 H=64 F=64 dtype=f32 --tokens 127" \
            "E=2 K=1 H=520 F=200 wgrad=same --tokens 600" \
            "E=2 K=1 H=2048 F=256 wgrad=same --tokens 600 --op dw1" \
            "heads=2 kv=1 dim=64 --tokens 450 --op attention --variant 1" \
            "heads=2 kv=1 dim=64 --tokens 450 --op attention_bwd --variant 1"; do
            log="$out/$tool-$(echo "$spec" | tr -dc 'A-Za-z0-9').txt"
            # shellcheck disable=SC2086
            timeout 100 compute-sanitizer --tool $tool --error-exitcode 9 "$moec" verify --variant 0 $spec -t "$target" \
                --routing uniform >"$log" 2>&1
            echo "$tool $spec: exit code $?, $(grep 'SUMMARY' "$log" | sed 's/=*//' | tr '\n' ' ')"
            grep -E '^========= (Invalid|Race|Error|Warning)' "$log" | sort | uniq -c | head -n 5
        done
    done
}

# ---- bad input through the command line ----

refuse() {
    "$moec" bench "E=64 K=8 H=8192 F=8192" -t "$target" --tokens 2000000 --sets 1 --no-peers >"$out/refuse.txt" 2>&1
    echo "exit code $?: $(grep -E 'bytes for|hint' "$out/refuse.txt" | tr '\n' ' ')"
}

# ---- 100 steps on the CPU and on the GPU: how far apart the losses are. Two CPU targets beside them: should a
# token's experts change places on the last bit of a score, these part as well, from nine equal digits on. ----

one_train() { # NAME TARGET SETTINGS...
    name=$1-$2 target_here=$2
    shift 2
    timeout 150 "$moec" train examples/demo.lua --fresh -t "$target_here" "$@" steps=100 path="${TEXT:-README.md}" \
        run="$out/run-$name" eval_every=0 save_every=0 sample=0 >"$out/train-$name.txt" 2>&1 || tail -n 3 "$out/train-$name.txt"
    sed -n 's/.*"event":"step".*"loss":\([0-9.]*\).*/\1/p' "$out/run-$name/log.jsonl" >"$out/loss-$name"
}

apart() { # WHAT LOSSES LOSSES
    paste "$2" "$3" | awk -v what="$1" '
        { d = $1 > $2 ? $1 - $2 : $2 - $1; if (d / $1 > worst) { worst = d / $1; at = NR } }
        worst < 1e-6 { equal = NR }
        END { printf "%s: %d steps, loss %.4f and %.4f at the end, largest relative difference %.2e at step %d, below 1e-6 to step %d\n",
                     what, NR, $1, $2, worst, at, equal }'
}

train() {
    for device in cpu "$target"; do
        one_train f32 "$device" dtype=f32
        one_train bf16 "$device" dtype=bf16
    done
    for dtype in f32 bf16; do apart "$dtype, CPU and GPU" "$out/loss-$dtype-cpu" "$out/loss-$dtype-$target"; done
    one_train f32 cpu-avx2 dtype=f32
    apart "f32, CPU and CPU with AVX2" "$out/loss-f32-cpu" "$out/loss-f32-cpu-avx2"
    apart "CPU, f32 and bf16" "$out/loss-f32-cpu" "$out/loss-bf16-cpu"
}

# ---- times ----

# One row of shapes T,H,F,E,K: each kernel, then the layer as forward and backward TFLOP/s.
bench() {
    for shape in 40960,768,256,128,8 24576,1536,256,128,8 24576,1536,1024,32,2 32768,4096,256,256,16 \
                 32768,4096,512,128,8 32768,4096,1024,128,8 32768,2048,768,128,8 8192,4096,14336,8,2; do
        set -- $(echo "$shape" | tr , ' ')
        timeout 100 "$moec" bench "E=$4 K=$5 H=$2 F=$3 wgrad=same" --tokens "$1" -t "$target" --repeat 10 --sets 1 \
            >"$out/bench-$shape.txt" 2>&1
        echo "-- $shape"
        awk -v flops="$(echo "$1 $2 $3 $5" | awk '{ print 6 * $1 * $2 * $3 * $4 }')" '
            /^(copy|compute) ceiling/ || /^without the router/ { print }
            /^(route|up|down|combine|dh|dw2|dw1|dx|route_bwd) / { printf "%s %s ms %s TF %s GB/s; ", $1, $2, $3, $4 }
            /^layer:/ { f = $3; b = $6
                printf "\nforward %.3f ms %.0f TFLOP/s, backward %.3f ms %.0f TFLOP/s\n", f, flops / f * 1e-9, b, 2 * flops / b * 1e-9 }
        ' "$out/bench-$shape.txt"
        grep -q '^layer:' "$out/bench-$shape.txt" || tail -n 2 "$out/bench-$shape.txt"
    done
}

# The same layer under other loads of its experts, as ratios to uniform; uniform first and last, because
# the card's clock falls while it works.
routing() {
    for how in uniform zipf:1 hot:0.5 empty:0.3 uniform; do
        timeout 60 "$moec" bench "E=128 K=8 H=2048 F=768 wgrad=same" --tokens 32768 -t "$target" --repeat 20 --sets 1 \
            --no-peers --op layer --routing "$how" 2>&1 | awk -v how="$how" '/^layer:/ { print how, $3, $6 }
                /^# .*rows/ || /error|hint/ { print "#", how, $0 }'
    done | tee "$out/routing.txt" | awk '
        /^#/ { print; next }
        !first { first = $2; second = $3 }
        { printf "%-10s forward %.3f ms %.3fx, backward %.3f ms %.3fx of uniform\n", $1, $2, $2 / first, $3, $3 / second }'
}

for part in ${PARTS:-doctor gpu verify agree sanitize refuse routing train bench}; do
    echo "== $part"
    start=$(date +%s)
    "$part"
    echo "== $part: $(($(date +%s) - start)) s"
done
