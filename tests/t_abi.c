/* moec.h is C99 and C++17, alone and twice; its version is the library's; libmoec.so exports what
 * it declares and nothing of Lua. */
#include "folder.h"

#include "device.h"
#include "subprocess.h"

/* Compiles `text` with the words of `command` (plus -c FILE); the exit code, -1 without compiler. */
static int compile(const char *compiler, const char *standard, const char *name, const char *text,
                   char *output, size_t bytes) {
    char path[MOEC_PATH_BYTES], object[MOEC_PATH_BYTES];
    moec_error err = {0};
    if (!moec_program_find(compiler, path)) return -1;
    if (!put_file(name, text, strlen(text))) abort();
    snprintf(path, sizeof path, "%s", in_dir(name));
    snprintf(object, sizeof object, "%s", in_dir("out.o"));
    const char *argv[] = {compiler, standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Iruntime",
                          "-Igen", "-c", path, "-o", object, NULL};
    moec_process p = {.argv = argv, .limit_s = 60, .output = output, .output_bytes = bytes};
    return moec_process_run(&p, &err) ? -1 : p.exit_code;
}

static void expect_compiles(const char *compiler, const char *standard, const char *name) {
    char output[2048];
    static const char text[] = "#include \"moec.h\"\n#include \"moec.h\"\n"
        "int use(void);\nint use(void) { moec_error e; e.status = MOEC_OK; moec_forward f; (void)f;\n"
        "return moec_device_open(\"cpu\", 0, 0, &e) + (int)sizeof(moec_backward); }\n";
    int code = compile(compiler, standard, name, text, output, sizeof output);
    if (code < 0) T_SKIP("no %s here", compiler);
    if (code) T_FAIL("%s %s:\n%s", compiler, standard, output);
}

T_CASE(the_header_is_c99) { expect_compiles("gcc", "-std=c99", "use.c"); }
T_CASE(the_header_is_c17_with_clang) { expect_compiles("clang", "-std=c17", "use.c"); }
T_CASE(the_header_is_cpp17) { expect_compiles("g++", "-std=c++17", "use.cpp"); }

T_CASE(a_broken_header_would_be_seen) {
    char output[2048];
    int code = compile("gcc", "-std=c99", "bad.c", "#include \"moec.h\"\nint x = moec_no_such;\n", output,
                       sizeof output);
    if (code < 0) T_SKIP("no gcc here");
    T_EQ(code, 1);
}

T_CASE(versions_agree) { T_STR(moec_version(), MOEC_VERSION_STRING); }

/* Every function that moec.h declares is exported by libmoec.so; lua_ is not. */
T_CASE(the_shared_library_exports_the_header) {
    static char symbols[1 << 16];
    char *text;
    size_t bytes;
    int checked = 0;
    moec_error err = {0};
    const char *argv[] = {"nm", "-D", "--defined-only", "build/libmoec.so", NULL};
    moec_process p = {.argv = argv, .limit_s = 30, .output = symbols, .output_bytes = sizeof symbols};
    if (moec_process_run(&p, &err) || p.exit_code) T_SKIP("no nm, or no libmoec.so");
    T_NEED(!moec_file_read("runtime/moec.h", &text, &bytes, &err));
    for (char *at = text; (at = strstr(at, "moec_")); at++) {
        char name[128], entry[160];
        size_t n = strspn(at, "abcdefghijklmnopqrstuvwxyz0123456789_");
        if (at[n] != '(' || at == text || (at[-1] != ' ' && at[-1] != '*')) continue;
        snprintf(name, sizeof name, "%.*s", (int)n, at);
        snprintf(entry, sizeof entry, " T %s\n", name);
        if (!strstr(symbols, entry)) T_FAIL("%s is not exported", name);
        checked++;
    }
    free(text);
    T_OK(checked > 12);
    T_OK(!strstr(symbols, " lua_"));
}

/* Built on Debian 12, the program runs on any distribution with glibc 2.36 or newer: it needs the C
 * library and nothing else, and no symbol version above the one it was built with. */
T_CASE(the_program_needs_only_the_c_library) {
    static char dump[1 << 18];
    moec_error err = {0};
    const char *argv[] = {"objdump", "-p", "build/moec", NULL};
    moec_process p = {.argv = argv, .limit_s = 30, .output = dump, .output_bytes = sizeof dump};
    if (moec_process_run(&p, &err) || p.exit_code) T_SKIP("no objdump, or no program");
    int needed = 0;
    for (char *at = dump; (at = strstr(at, "NEEDED")); at++, needed++) {
        char name[64];
        if (sscanf(at, "NEEDED %63s", name) != 1) continue;
        if (strcmp(name, "libc.so.6") && strcmp(name, "libm.so.6") && strncmp(name, "ld-linux", 8))
            T_FAIL("build/moec needs %s", name);
    }
    T_OK(needed > 0);
    if (*dir) moec_dir_remove(dir);
}

T_MAIN
