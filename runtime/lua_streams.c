/* libmoec.so only. Distributions build liblua5.4.a for programs, not for shared objects: its direct
 * references to stdin, stdout and stderr cannot be linked into one. The build renames those three
 * symbols in a copy of the archive to the ones below, which are filled when the library loads.
 * The sandbox gives templates no io library; only Lua's own panic and warning paths use them. */
#include <stdio.h>

extern FILE *moec_lua_stdin, *moec_lua_stdout, *moec_lua_stderr;
#define HIDDEN __attribute__((visibility("hidden")))
HIDDEN FILE *moec_lua_stdin, *moec_lua_stdout, *moec_lua_stderr;

__attribute__((constructor)) static void fill(void) {
    moec_lua_stdin = stdin;
    moec_lua_stdout = stdout;
    moec_lua_stderr = stderr;
}
