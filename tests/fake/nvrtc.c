/* A CUDA compiler without CUDA: NVRTC as far as moec calls it, for tests of what can go wrong.
 *   FAKE_NVRTC_VERSION=13.0   what nvrtcVersion says
 *   FAKE_NVRTC_RESULT=0       what nvrtcCompileProgram answers; 6 is a compile error
 *   FAKE_NVRTC_LOG=TEXT       the program's log, where ptxas' report would be */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char image[] = "a binary that only the fake driver takes, long enough to look like one";

static const char *setting(const char *name, const char *otherwise) {
    const char *text = getenv(name);
    return text ? text : otherwise;
}

#define CALL(type, name, ...) \
    type name(__VA_ARGS__);   \
    type name(__VA_ARGS__)

CALL(int, nvrtcVersion, int *major, int *minor) {
    return sscanf(setting("FAKE_NVRTC_VERSION", "13.0"), "%d.%d", major, minor) != 2;
}
CALL(int, nvrtcCreateProgram, void **program, const char *source, const char *name, int headers,
     const char *const *texts, const char *const *names) {
    static int thing;
    (void)source, (void)name, (void)headers, (void)texts, (void)names;
    *program = &thing;
    return 0;
}
CALL(int, nvrtcDestroyProgram, void **program) { *program = NULL; return 0; }
CALL(int, nvrtcCompileProgram, void *program, int count, const char *const *options) {
    (void)program, (void)count, (void)options;
    return atoi(setting("FAKE_NVRTC_RESULT", "0"));
}
CALL(int, nvrtcGetProgramLogSize, void *program, size_t *bytes) {
    (void)program;
    *bytes = strlen(setting("FAKE_NVRTC_LOG", "")) + 1;
    return 0;
}
CALL(int, nvrtcGetProgramLog, void *program, char *text) {
    (void)program;
    strcpy(text, setting("FAKE_NVRTC_LOG", ""));
    return 0;
}
CALL(int, nvrtcGetCUBINSize, void *program, size_t *bytes) { (void)program; *bytes = sizeof image; return 0; }
CALL(int, nvrtcGetCUBIN, void *program, char *to) { (void)program; memcpy(to, image, sizeof image); return 0; }
CALL(int, nvrtcGetPTXSize, void *program, size_t *bytes) { (void)program; *bytes = sizeof image; return 0; }
CALL(int, nvrtcGetPTX, void *program, char *to) { (void)program; memcpy(to, image, sizeof image); return 0; }
CALL(const char *, nvrtcGetErrorString, int result) {
    return result == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_INTERNAL_ERROR";
}
