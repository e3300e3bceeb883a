#!/bin/sh
# What a machine with an MI250X or MI300X says about moec in one call: verifies, then times, as JSON.
#
#     tests/device/amd.sh [MOEC [OUT]]      MOEC: the program, build/moec; OUT: folder for the results
#
# Settings: TARGET (what the driver reports), RANDOM_SPECS (100). Needs ROCm's HIP runtime and clang 19.
# The interpreter is not used: without a GPU this stops with exit code 4. Send back OUT.
moec=${1:-build/moec}
out=${2:-moec-amd}
version=$(cat /sys/class/kfd/kfd/topology/nodes/*/properties 2>/dev/null |
    awk '$1 == "gfx_target_version" && $2 > 0 { print $2; exit }')
case ${TARGET:-$version} in
90010 | gfx90a) target=gfx90a ;;
90402 | gfx942) target=gfx942 ;;
*) echo "no MI250X or MI300X found (gfx_target_version \"$version\"); set TARGET=gfx90a or gfx942"; exit 4 ;;
esac
mkdir -p "$out" || exit 1
"$moec" doctor >"$out/doctor.txt" 2>&1
failed=0

# The first answer must come from the GPU: where none opens, verify would fall back to the interpreter.
"$moec" bench E=8 K=2 H=64 F=96 --op add --tokens 64 -t "$target" --json >"$out/first.json" 2>"$out/first.txt" ||
    { cat "$out/first.txt"; exit 4; }

check() {
    name=$1
    shift
    if "$moec" verify "$@" -t "$target" --json >"$out/verify-$name.json" 2>"$out/verify-$name.txt"; then
        echo "verify $name: right"
    else
        echo "verify $name: WRONG or failed, see $out/verify-$name.json and .txt"
        failed=1
    fi
}
check all "E=8 K=2 H=512 F=256 bias=1 heads=4 kv=2 dim=64 V=512" --tokens 300
check many "E=512 K=10 H=128 F=64" --tokens 127 --routing hot:0.9
check random --random "${RANDOM_SPECS:-100}"
[ $failed = 0 ] || { echo "kernels are wrong: their times mean nothing"; exit 3; }

for shape in 4096,1536,128,8 4096,768,128,8 2048,1408,64,6 4096,14336,8,2 768,256,128,8; do
    set -- $(echo "$shape" | tr , ' ')
    for tokens in 2048 32768; do
        file="$out/bench-$shape-$tokens"
        "$moec" bench "E=$3 K=$4 H=$1 F=$2" --tokens "$tokens" -t "$target" --json >"$file.json" 2>"$file.txt" ||
            failed=1
        echo "bench H,F,E,K $shape, $tokens tokens: $(wc -c <"$file.json") bytes of JSON"
    done
done
echo "results are in $out"
exit $failed
