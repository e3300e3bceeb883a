#!/bin/sh
# The demo: makes its text once, then trains on it. ./bootstrap.sh demo installs what this needs.
# The text is the King James Bible (1611, its copyright expired) from the Debian package bible-kjv,
# without verse numbers: 4.1 MB of English prose.
#     examples/demo.sh [key=value ...]
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
exec build/moec train examples/demo.lua "$@"
