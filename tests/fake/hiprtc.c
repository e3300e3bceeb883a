/* hiprtc without ROCm: AMD's run-time compiler as far as moec calls it, for tests of what it can do to its
 * process.
 *   FAKE_HIPRTC=DOES          "" compiles with clang-19; else "log" rejects, "abort" calls abort(), "hang"
 *                             sleeps, "empty" says it is done and has no code
 *   FAKE_HIPRTC_VERSION=9.0   what hiprtcVersion says */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char log_text[] = "kernel.hip:3:1: error: use of undeclared identifier 'mfma'\n";
static char *source, *code;
static size_t code_bytes;

static const char *setting(const char *name, const char *otherwise) {
    const char *text = getenv(name);
    return text ? text : otherwise;
}
static int does(const char *what) { return !strcmp(setting("FAKE_HIPRTC", ""), what); }

#define CALL(type, name, ...) \
    type name(__VA_ARGS__);   \
    type name(__VA_ARGS__)

CALL(const char *, hiprtcGetErrorString, int result) { return result == 6 ? "HIPRTC_ERROR_COMPILATION" : "no error"; }
CALL(int, hiprtcVersion, int *major, int *minor) {
    return sscanf(setting("FAKE_HIPRTC_VERSION", "9.0"), "%d.%d", major, minor) != 2;
}
CALL(int, hiprtcCreateProgram, void **program, const char *text, const char *name, int headers, const char **texts,
     const char **names) {
    (void)name, (void)headers, (void)texts, (void)names;
    source = strdup(text);
    *program = source;
    return !source;
}
CALL(int, hiprtcDestroyProgram, void **program) {
    free(source), free(code);
    *program = NULL;
    return 0;
}

static void run_clang(char *in, char *out, int count, const char **options) {
    static const char *const flags[] = {"clang-19", "-x", "hip", "--cuda-device-only", "--no-gpu-bundle-output",
                                        "-nogpuinc", "-nogpulib", "-c", "-o"};
    const char *argv[64];
    int n = 0;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) argv[n++] = flags[i];
    argv[n++] = out;
    argv[n++] = in;
    for (int i = 0; i < count && n < 63; i++) argv[n++] = options[i];
    argv[n] = NULL;
    execvp(argv[0], (char **)(void *)argv);
    _exit(127);
}

static int read_code(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return 1;
    code = malloc(1 << 20);
    code_bytes = code ? fread(code, 1, 1 << 20, f) : 0;
    fclose(f);
    return code_bytes == 0;
}

static int with_clang(int count, const char **options) {
    char in[] = "/tmp/fake-hiprtc.XXXXXX", out[64];
    int status = 1, fd = mkstemp(in);
    size_t bytes = strlen(source);
    snprintf(out, sizeof out, "%s.co", in);
    if (fd < 0 || write(fd, source, bytes) != (ssize_t)bytes) return 1;
    close(fd);
    pid_t pid = fork();
    if (!pid) run_clang(in, out, count, options);
    waitpid(pid, &status, 0);
    int rc = status ? 6 : read_code(out) ? 6 : 0;
    unlink(in), unlink(out);
    return rc;
}

CALL(int, hiprtcCompileProgram, void *program, int count, const char **options) {
    (void)program;
    if (does("abort")) abort();
    if (does("hang")) sleep(1000);
    if (does("log")) return 6;
    return does("empty") ? 0 : with_clang(count, options);
}
CALL(int, hiprtcGetProgramLogSize, void *program, size_t *bytes) {
    (void)program;
    *bytes = does("log") ? sizeof log_text : 1;
    return 0;
}
CALL(int, hiprtcGetProgramLog, void *program, char *text) {
    (void)program;
    strcpy(text, does("log") ? log_text : "");
    return 0;
}
CALL(int, hiprtcGetCodeSize, void *program, size_t *bytes) { (void)program; *bytes = code_bytes; return 0; }
CALL(int, hiprtcGetCode, void *program, char *bytes) {
    (void)program;
    memcpy(bytes, code, code_bytes);
    return 0;
}
