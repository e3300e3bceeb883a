#!/bin/sh
# From a fresh Debian 12 (or a relative of it) to a running moec.
#
#     ./bootstrap.sh build    installs what is missing, builds
#     ./bootstrap.sh test     ... and runs the whole test suite
#     ./bootstrap.sh demo     ... and trains a small MoE language model on this CPU, with a report
#
# CC=clang ./bootstrap.sh build takes another compiler for moec itself (gcc 12 or newer, clang).
# Rerunnable; touches the network only when a package is missing (as root, or with sudo).
set -eu
cd "$(dirname "$0")"

say() { printf 'bootstrap: %s\n' "$*" >&2; }
die() { say "$*"; exit 4; }
have() { command -v "$1" >/dev/null 2>&1; }

# Is a static library or header there, as the compiler sees it?
have_library() { have gcc && [ "$(gcc -print-file-name="$1")" != "$1" ]; }
have_header() { [ -e "/usr/include/$1" ] || { have gcc && echo "#include <$1>" | gcc -E -x c - >/dev/null 2>&1; }; }
have_compiler() { [ -n "${MOEC_CC:-}" ] || have clang-19 || have clang; }

# Prints the packages that are missing, one for each thing that moec needs.
missing() {
    have gcc                             || echo gcc
    have ar && have objcopy              || echo binutils
    have_header stdio.h                  || echo libc6-dev
    have ninja || have samu              || echo ninja-build
    have_library liblua5.4.a             || echo liblua5.4-dev
    have_library libjansson.a            || echo libjansson-dev
    have_header xxhash.h                 || echo libxxhash-dev
    have_compiler                        || echo clang-19
    [ "$verb" != test ] || [ -e /usr/lib/llvm-19/bin/ld.lld ] || echo lld-19
    [ "$verb" != demo ] || [ -s build/demo/kjv.txt ] || have bible || echo bible-kjv
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    else sudo "$@"
    fi
}

# What moec cannot be built without: of LLVM 19 only speed and some tests depend.
required() { missing | grep -v -e '-19$' | tr '\n' ' '; }

install_missing() {
    list=$(missing | tr '\n' ' ')
    [ -n "$list" ] || return 0
    say "missing packages: $list"
    if ! have apt-get; then
        [ -z "$(required)" ] || die "no apt-get here; install the equivalents of: $(required)"
        return 0
    fi
    [ "$(id -u)" = 0 ] || have sudo || die "not root and no sudo; run as root: apt-get install -y $list"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2 ||
        say "apt-get update failed; trying with the package lists at hand"
    # One by one: a failure names its package, and those of LLVM 19 can be done without.
    for package in $list; do
        say "installing $package"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
            "$package" >&2 && continue
        case $package in
        clang-19) say "no clang-19 here: kernels will be compiled with gcc, which takes longer" ;;
        lld-19) say "no lld-19 here: tests that link AMD code objects will be skipped" ;;
        *) die "cannot install $package; install it by hand and run again" ;;
        esac
    done
    [ -z "$(required)" ] || die "still missing after installation: $(required)"
}

build() {
    install_missing
    if have ninja; then ninja=ninja; else ninja=samu; fi
    file=build.ninja
    if [ -n "${CC:-}" ]; then
        mkdir -p build
        file=build/cc.ninja
        sed "s|^cc = gcc\$|cc = $CC|" build.ninja >"$file"
    fi
    "$ninja" -f "$file" || { say "the build failed; the command above shows where"; exit 1; }
}

verb=${1:-}
case $verb in
build)
    build
    say "built build/moec; try: build/moec doctor"
    ;;
test)
    build
    "$ninja" -f "$file" test
    ;;
demo)
    build
    shift
    exec examples/demo.sh "$@"
    ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
