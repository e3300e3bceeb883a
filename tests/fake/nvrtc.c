/* A CUDA compiler without CUDA: NVRTC as far as moec calls it, for tests of what can go wrong.
 *   FAKE_NVRTC_VERSION=13.0   what nvrtcVersion says
 *   FAKE_NVRTC_RESULT=0       what nvrtcCompileProgram answers; 6 is a compile error
 *   FAKE_NVRTC_LOG=TEXT       the program's log, where ptxas' report would be,
 *   FAKE_NVRTC_WHEN=TEXT      of programs whose source has this in it; default: all */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char image[] = "a binary that only the fake driver takes, long enough to look like one";

static const char *setting(const char *name, const char *otherwise) {
    const char *text = getenv(name);
    return text ? text : otherwise;
}

/* A program is one of these two: without a log, or with it. */
static char plain, logs;
static const char *log_of(const void *program) { return program == &logs ? setting("FAKE_NVRTC_LOG", "") : ""; }

#define CALL(type, name, ...) \
    type name(__VA_ARGS__);   \
    type name(__VA_ARGS__)

CALL(int, nvrtcVersion, int *major, int *minor) {
    return sscanf(setting("FAKE_NVRTC_VERSION", "13.0"), "%d.%d", major, minor) != 2;
}
CALL(int, nvrtcCreateProgram, void **program, const char *source, const char *name, int headers,
     const char *const *texts, const char *const *names) {
    (void)name, (void)headers, (void)texts, (void)names;
    *program = strstr(source, setting("FAKE_NVRTC_WHEN", "")) ? &logs : &plain;
    return 0;
}
CALL(int, nvrtcDestroyProgram, void **program) { *program = NULL; return 0; }
CALL(int, nvrtcCompileProgram, void *program, int count, const char *const *options) {
    (void)program, (void)count, (void)options;
    return atoi(setting("FAKE_NVRTC_RESULT", "0"));
}
CALL(int, nvrtcGetProgramLogSize, void *program, size_t *bytes) {
    *bytes = strlen(log_of(program)) + 1;
    return 0;
}
CALL(int, nvrtcGetProgramLog, void *program, char *text) {
    strcpy(text, log_of(program));
    return 0;
}
CALL(int, nvrtcGetCUBINSize, void *program, size_t *bytes) { (void)program; *bytes = sizeof image; return 0; }
CALL(int, nvrtcGetCUBIN, void *program, char *to) { (void)program; memcpy(to, image, sizeof image); return 0; }
CALL(int, nvrtcGetPTXSize, void *program, size_t *bytes) { (void)program; *bytes = sizeof image; return 0; }
CALL(int, nvrtcGetPTX, void *program, char *to) { (void)program; memcpy(to, image, sizeof image); return 0; }
CALL(const char *, nvrtcGetErrorString, int result) {
    return result == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_INTERNAL_ERROR";
}
