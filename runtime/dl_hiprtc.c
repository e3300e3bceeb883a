/* moec-hiprtc: the worker that holds hiprtc, AMD's run-time compiler, so that nobody else has to: hiprtc
 * can abort its process (5.2.3 does when it does not know the architecture). A program of its own, started by
 * toolchain_hiprtc.c for each call and used by nothing else:
 *
 *     moec-hiprtc version                          prints "9.0 FILE, BYTES bytes of SECONDS": all releases
 *                                                  of ROCm call themselves 9.0, so the file tells them apart
 *     moec-hiprtc compile SOURCE BINARY OPTION...   the compiler's log goes to stdout
 *
 * Exit codes: 0 done; 1 the source was rejected; 2 usage; 4 there is no usable hiprtc (why: stdout); 6 a file
 * cannot be read or written. $MOEC_HIPRTC names the library; else hiprtc is looked for by its usual names: a
 * library of its own since ROCm 5.5, part of the HIP runtime before. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "setting.h"

enum { DONE, REJECTED, USAGE, NO_HIPRTC = 4, NO_FILE = 6, OLDEST_MAJOR = 9 };

typedef void *program;
static struct {
    int (*version)(int *major, int *minor);
    int (*create)(program *out, const char *source, const char *name, int headers, const char **texts,
                  const char **names);
    int (*compile)(program p, int count, const char **options);
    int (*log_size)(program p, size_t *bytes);
    int (*log)(program p, char *log);
    int (*code_size)(program p, size_t *bytes);
    int (*code)(program p, char *code);
    int (*destroy)(program *p);
    const char *(*error_text)(int result);
} rtc;

static const struct { const char *symbol; void *at; } symbols[] = {
    {"hiprtcVersion", &rtc.version},           {"hiprtcCreateProgram", &rtc.create},
    {"hiprtcCompileProgram", &rtc.compile},    {"hiprtcGetProgramLogSize", &rtc.log_size},
    {"hiprtcGetProgramLog", &rtc.log},         {"hiprtcGetCodeSize", &rtc.code_size},
    {"hiprtcGetCode", &rtc.code},              {"hiprtcDestroyProgram", &rtc.destroy},
    {"hiprtcGetErrorString", &rtc.error_text},
};

static const char *const names[] = {
    "libhiprtc.so.7", "libhiprtc.so.6", "libhiprtc.so.5", "libhiprtc.so", "/opt/rocm/lib/libhiprtc.so",
    "libamdhip64.so.5", "/opt/rocm/lib/libamdhip64.so",
};

static void *open_library(const char **path) {
    void *library = NULL;
    *path = moec_setting("MOEC_HIPRTC");
    if (*path) return dlopen(*path, RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++)
        if ((library = dlopen(*path = names[i], RTLD_NOW | RTLD_LOCAL))) break;
    return library;
}

/* Opens, binds, and asks the version; DONE or NO_HIPRTC with the reason on stdout. */
static int start(const char **path, int *major, int *minor) {
    void *library = open_library(path);
    const char *wish = moec_setting("MOEC_HIPRTC");
    if (!library && wish) return printf("MOEC_HIPRTC=%s cannot be opened: %s\n", wish, dlerror()), NO_HIPRTC;
    if (!library) return printf("hiprtc (libhiprtc.so.5 to .7) is not here\n"), NO_HIPRTC;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *found = dlsym(library, symbols[i].symbol);
        if (!found) return printf("%s is no usable hiprtc: it has no %s\n", *path, symbols[i].symbol), NO_HIPRTC;
        memcpy(symbols[i].at, &found, sizeof found);
    }
    int result = rtc.version(major, minor);
    if (result) return printf("%s: hiprtcVersion: %s\n", *path, rtc.error_text(result)), NO_HIPRTC;
    if (*major == OLDEST_MAJOR) return DONE;
    printf("%s is hiprtc %d.%d; moec knows %d.x\n", *path, *major, *minor, OLDEST_MAJOR);
    return NO_HIPRTC;
}

static char *read_text(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END)) return NULL;
    long bytes = ftell(f);
    char *text = bytes < 0 ? NULL : calloc(1, (size_t)bytes + 1);
    rewind(f);
    if (text && fread(text, 1, (size_t)bytes, f) != (size_t)bytes) text = NULL;
    fclose(f);
    return text;
}

static void print_log(program p) {
    size_t bytes = 0;
    if (rtc.log_size(p, &bytes) || bytes < 2) return;
    char *log = calloc(1, bytes + 1);
    if (log && !rtc.log(p, log)) fputs(log, stdout);
    free(log);
}

static int write_code(program p, const char *path) {
    size_t bytes = 0;
    if (rtc.code_size(p, &bytes) || !bytes) return REJECTED;
    char *code = malloc(bytes);
    if (!code || rtc.code(p, code)) return REJECTED;
    FILE *f = fopen(path, "wb");
    int written = f && fwrite(code, 1, bytes, f) == bytes;
    free(code);
    return f && !fclose(f) && written ? DONE : NO_FILE;
}

static int compile(const char *source, const char *binary, int count, const char **options) {
    char *text = read_text(source);
    program p;
    if (!text) return printf("cannot read %s\n", source), NO_FILE;
    int result = rtc.create(&p, text, source, 0, NULL, NULL);
    if (result) return printf("hiprtcCreateProgram: %s\n", rtc.error_text(result)), REJECTED;
    result = rtc.compile(p, count, options);
    print_log(p);
    if (result) return printf("hiprtcCompileProgram: %s\n", rtc.error_text(result)), REJECTED;
    int rc = write_code(p, binary);
    rtc.destroy(&p);
    free(text);
    return rc;
}

/* The library as it lies on disk: its version is in the name that links lead to. */
static void print_identity(int major, int minor, const char *opened) {
    Dl_info info = {0};
    char path[4096];
    struct stat st = {0};
    void *symbol;
    memcpy(&symbol, &rtc.version, sizeof symbol);
    if (!dladdr(symbol, &info) || !info.dli_fname || !realpath(info.dli_fname, path) || stat(path, &st))
        snprintf(path, sizeof path, "%s", opened);
    printf("%d.%d %s, %lld bytes of %lld\n", major, minor, path, (long long)st.st_size, (long long)st.st_mtime);
}

int main(int argc, char **argv) {
    const char *path;
    int major = 0, minor = 0;
    int version = argc == 2 && !strcmp(argv[1], "version");
    if (!version && (argc < 4 || strcmp(argv[1], "compile"))) return USAGE;
    int rc = start(&path, &major, &minor);
    if (rc) return rc;
    if (version) return print_identity(major, minor, path), DONE;
    return compile(argv[2], argv[3], argc - 4, (const char **)(void *)(argv + 4));
}
