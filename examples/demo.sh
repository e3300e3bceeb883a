#!/bin/sh
# The demo: makes its text once, trains on it, draws the report. ./bootstrap.sh demo installs what
# this needs. The text is the King James Bible (1611, its copyright expired) from the Debian package
# bible-kjv, without verse numbers: 4.1 MB of English prose.
#     examples/demo.sh [key=value ...]      starts anew each time
#     examples/demo.sh --resume             goes on where it was stopped
set -eu
cd "$(dirname "$0")/.."

text=build/demo/kjv.txt
if [ ! -s "$text" ]; then
    command -v bible >/dev/null 2>&1 || {
        echo "demo: the program \"bible\" is missing: apt-get install bible-kjv" >&2
        exit 4
    }
    mkdir -p build/demo
    bible -f gen1:1-rev22:21 | sed 's/^[^ ]* //' >"$text.new"
    [ "$(wc -c <"$text.new")" -gt 1000000 ] || { echo "demo: bible printed no text" >&2; exit 1; }
    mv "$text.new" "$text"
fi

start=--fresh
run=runs/demo
for word in "$@"; do
    case $word in
    --resume) start= ;;
    run=* | train.run=*) run=${word#*=} ;;
    esac
done
build/moec train examples/demo.lua $start "$@"
build/moec report "$run"
echo "emitted kernels: $run/kernels/, for instance $(ls "$run"/kernels/moec_up_* | head -n 1)"
