#!/bin/sh
# 04: ahead of time. Emits one kernel as source, shows its header, compiles it with any C compiler and
# calls it from a C program that knows nothing of moec: an emitted kernel stands alone.
set -e
moec=${MOEC:-build/moec}
dir=$(mktemp -d "${TMPDIR:-/tmp}/moec-example.XXXXXX")
trap 'rm -rf "$dir"' EXIT
"$moec" gen "dtype=f32" -t cpu-scalar --op add -o "$dir/out" >/dev/null
source=$(ls "$dir"/out/*.c)
symbol=$(basename "$source" .c)
grep -q "^ \* reproduce: moec gen" "$source"

cat >"$dir/main.c" <<END
#include <stdio.h>
struct args { const float *a, *b; float *out; long N; void *scratch; };
void $symbol(const struct args *a, long thread, long threads);
int main(void) {
    float a[3] = {1, 2, 3}, b[3] = {10, 20, 30}, out[3];
    struct args args = {a, b, out, 3, 0};
    $symbol(&args, 0, 1);
    printf("%g %g %g\n", out[0], out[1], out[2]);
    return 0;
}
END
${CC:-cc} -O2 -w -o "$dir/main" "$dir/main.c" "$source" -lm
"$dir/main"
