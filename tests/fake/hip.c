/* AMD's HIP runtime on a machine without a GPU that suits: as far as moec calls it before it gives up.
 *   FAKE_HIP_INIT=0     what hipInit answers; 100 is "no device"
 *   FAKE_HIP_COUNT=0    how many GPUs there are */
#include <stdio.h>
#include <stdlib.h>

static int setting(const char *name) {
    const char *text = getenv(name);
    return text ? atoi(text) : 0;
}

#define CALL(type, name, ...) \
    type name(__VA_ARGS__);   \
    type name(__VA_ARGS__)

CALL(const char *, hipGetErrorName, int result) { return result == 100 ? "hipErrorNoDevice" : "hipErrorUnknown"; }
CALL(const char *, hipGetErrorString, int result) {
    return result == 100 ? "no ROCm-capable device is detected" : "unknown error";
}
CALL(int, hipInit, unsigned flags) { (void)flags; return setting("FAKE_HIP_INIT"); }
CALL(int, hipRuntimeGetVersion, int *version) { *version = 60000000; return 0; }
CALL(int, hipGetDeviceCount, int *count) { *count = setting("FAKE_HIP_COUNT"); return 0; }
CALL(int, hipSetDevice, int index) { (void)index; return 0; }
CALL(int, hipDeviceGetName, char *name, int bytes, int index) {
    (void)index;
    snprintf(name, (size_t)bytes, "a GPU that nobody knows");
    return 0;
}
/* Never reached on this machine, yet looked up. */
#define UNREACHED(name) CALL(int, name, void) { return 100; }
UNREACHED(hipMemGetInfo)
UNREACHED(hipMalloc)
UNREACHED(hipFree)
UNREACHED(hipMemcpy)
UNREACHED(hipMemcpyAsync)
UNREACHED(hipStreamSynchronize)
UNREACHED(hipModuleLoadData)
UNREACHED(hipModuleUnload)
UNREACHED(hipModuleGetFunction)
UNREACHED(hipModuleLaunchKernel)
