#!/bin/sh
# Runs every numbered example and compares its output with examples/expected. One TAP line each.
count=0
bad=0
for source in examples/[0-9]*; do
    name=$(basename "${source%.*}")
    count=$((count + 1))
    case $source in
    *.sh) output=$(sh "$source" 2>&1) ;;
    *) output=$("build/examples/$name" 2>&1) ;;
    esac
    want=$(sed -n "s/^$name: //p" examples/expected)
    if [ -n "$want" ] && [ "$output" = "$want" ]; then
        echo "ok $count $name"
    else
        bad=1
        printf 'not ok %d %s\n# printed:  %s\n# expected: %s\n' "$count" "$name" "$output" "$want"
    fi
done
echo "1..$count"
exit $bad
