/* What a user meets when the CUDA driver, the compiler or the GPU is missing, too old, too small or
 * broken: exit code, reason and remedy. The driver and NVRTC are stand-ins (tests/fake), so that all
 * of it runs on any machine; their settings are environment variables. */
#include "user.h"

#include <sys/stat.h>

#include "device.h"

/* Both stand-ins as they are when all is well, and a cache of their own. */
static void fresh(void) {
    static const char *const settings[] = {"FAKE_CUDA_CC", "FAKE_CUDA_COUNT", "FAKE_CUDA_VERSION",
                                           "FAKE_CUDA_BYTES", "FAKE_CUDA_FAIL", "FAKE_NVRTC_VERSION",
                                           "FAKE_NVRTC_RESULT", "FAKE_NVRTC_LOG",
                                           "FAKE_CUDA_CONTEXT", "FAKE_NVRTC_WHEN",
                                           "FAKE_CUDA_OWNER", "FAKE_CUDA_MANAGED", "FAKE_CUDA_PEER"};
    fresh_cache(settings, sizeof settings / sizeof *settings);
    setenv("MOEC_CUDA", "build/tests/libfakecuda.so", 1);
    setenv("MOEC_NVRTC", "build/tests/libfakenvrtc.so", 1);
    setenv("MOEC_CUBLAS", "/dev/null", 1);
}

#define BENCH "bench E=4 K=2 H=64 F=64 --tokens 64 --repeat 1 --sets 1 -t "

T_CASE(the_stand_ins_run_a_layer) {
    fresh();
    T_EQ(moec(BENCH "sm_90a --op layer"), 0);
    T_EQ(moec("doctor"), 0);
    T_HAS(output, "CUDA 13.0");
}

/* ---- the driver ---- */

T_CASE(no_driver) {
    fresh();
    setenv("MOEC_CUDA", "/nowhere/libcuda.so.1", 1);
    REFUSED(BENCH "sm_90a", 4, "MOEC_CUDA=/nowhere/libcuda.so.1 cannot be opened", "libcuda.so.1");
}

T_CASE(a_driver_too_old) {
    fresh();
    setenv("MOEC_CUDA", "build/tests/libfakecuda-old.so", 1);
    REFUSED(BENCH "sm_90a", 4, "too old: it has no cuTensorMapEncodeTiled", "CUDA 12 or newer (525 or later)");
}

T_CASE(a_driver_without_a_gpu) {
    fresh();
    setenv("FAKE_CUDA_FAIL", "cuInit=100", 1);
    REFUSED(BENCH "sm_90a", 4, "CUDA_ERROR_NO_DEVICE", "--gpus all");
    setenv("FAKE_CUDA_FAIL", "cuInit=803", 1);
    REFUSED(BENCH "sm_90a", 4, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "nvidia-smi");
}

T_CASE(a_gpu_that_is_not_there) {
    fresh();
    setenv("FAKE_CUDA_COUNT", "2", 1);
    REFUSED(BENCH "sm_90a:2", 4, "there is no GPU 2: the driver sees 2", "CUDA_VISIBLE_DEVICES");
    setenv("FAKE_CUDA_COUNT", "0", 1);
    REFUSED(BENCH "sm_90a", 4, "the driver sees no GPU", "CUDA_VISIBLE_DEVICES");
}

T_CASE(an_architecture_that_is_not_served) {
    fresh();
    setenv("FAKE_CUDA_CC", "75", 1);
    REFUSED(BENCH "cuda", 4, "compute capability 7.5", "need 8.0 or newer");
    setenv("FAKE_CUDA_CC", "80", 1);
    REFUSED(BENCH "sm_90a", 4, "Paper GPU (compute capability 8.0) cannot run sm_90a", "the best target here is sm_80");
    setenv("FAKE_CUDA_CC", "100", 1);
    REFUSED(BENCH "sm_90a", 4, "cannot run sm_90a", "the best target here is sm_80");
    T_EQ(moec(BENCH "cuda --op combine"), 0); /* PTX of compute_80 runs on what is newer */
}

T_CASE(a_gpu_that_others_hold) {
    fresh();
    setenv("FAKE_CUDA_FAIL", "cuDevicePrimaryCtxRetain=46", 1);
    REFUSED(BENCH "sm_90a", 4, "Paper GPU cannot be entered", "nvidia-smi lists them");
    setenv("FAKE_CUDA_FAIL", "cuDevicePrimaryCtxRetain=2", 1);
    REFUSED(BENCH "sm_90a", 1, "CUDA_ERROR_OUT_OF_MEMORY", "nvidia-smi lists them");
}

/* ---- the compiler ---- */

T_CASE(no_nvrtc) {
    fresh();
    setenv("MOEC_NVRTC", "/nowhere/libnvrtc.so", 1);
    REFUSED(BENCH "sm_90a", 4, "MOEC_NVRTC=/nowhere/libnvrtc.so cannot be opened", "pip install nvidia-cuda-nvrtc");
    REFUSED("gen E=4 K=2 H=64 F=64 -t sm_90a --compile -o @/out", 4, "pip install nvidia-cuda-nvrtc");
}

T_CASE(an_nvrtc_of_an_older_major_version) {
    fresh();
    setenv("FAKE_NVRTC_VERSION", "11.8", 1);
    REFUSED(BENCH "sm_90a", 4, "NVRTC 11.8 in build/tests/libfakenvrtc.so is too old", "NVRTC 12 or newer");
}

T_CASE(a_library_that_is_no_nvrtc) {
    fresh();
    setenv("MOEC_NVRTC", "build/tests/libfakecuda.so", 1);
    REFUSED(BENCH "sm_90a", 4, "is no usable NVRTC: it has no nvrtcVersion", "NVRTC 12 or newer");
}

T_CASE(an_nvrtc_newer_than_the_driver) {
    fresh();
    setenv("FAKE_CUDA_VERSION", "12040", 1);
    T_EQ(moec(BENCH "sm_90a --op combine"), 0); /* no complaint while the driver takes its binaries */
    setenv("FAKE_CUDA_FAIL", "cuModuleLoadData=222", 1);
    REFUSED(BENCH "sm_90a --op combine", 4, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "loading ",
            "NVRTC is of CUDA 13.0, the driver of 12.4: update the driver, or point MOEC_NVRTC at an NVRTC 12");
}

/* ptxas' own words, as NVRTC 13 logs them. */
#define SPILL "ptxas info    : Function properties for f\n    16 bytes stack frame, 24 bytes spill stores, 20 bytes spill loads\n"
#define NO_SPILL "ptxas info    : Function properties for f\n    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
#define C7510 "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due " \
              "to insufficient register resources for the wgmma pipeline in the function 'f'\n"

T_CASE(kernels_that_spill_or_serialise_wgmma_are_rejected) {
    fresh();
    setenv("FAKE_NVRTC_LOG", NO_SPILL, 1);
    T_EQ(moec(BENCH "sm_90a --op combine"), 0);
    fresh();
    setenv("FAKE_NVRTC_LOG", NO_SPILL SPILL NO_SPILL, 1);
    REFUSED(BENCH "sm_90a --op combine", 1, "the kernel spills 24 bytes of registers", "another config may fit",
            "the emitted file is");
    setenv("FAKE_NVRTC_LOG", NO_SPILL C7510, 1);
    REFUSED(BENCH "sm_90a --op combine", 1, "ptxas serialises the kernel's wgmma instructions",
            "insufficient register resources");
}

T_CASE(a_search_passes_over_what_is_rejected) {
    fresh();
    setenv("FAKE_NVRTC_LOG", SPILL, 1);
    setenv("FAKE_NVRTC_WHEN", "THREADS = 512", 1);
    T_EQ(moec("tune E=4 K=2 H=64 F=64 --tokens 64 --repeat 3 --sets 1 -t sm_90a --op combine"), 0);
    T_HAS(output, "combine rejected, first of 1: threads=512: the kernel spills 24 bytes of registers");
    fresh();
    setenv("FAKE_NVRTC_LOG", SPILL, 1);
    setenv("FAKE_NVRTC_WHEN", "THREADS = 256", 1); /* the default */
    T_EQ(moec("tune E=4 K=2 H=64 F=64 --tokens 64 --repeat 3 --sets 1 -t sm_90a --op combine"), 1);
    T_HAS(output, "the default config is refused");
}

T_CASE(what_the_compiler_rejects_is_kept) {
    static const char says[] = "the emitted file is ";
    struct stat st;
    fresh();
    setenv("FAKE_NVRTC_RESULT", "6", 1);
    setenv("FAKE_NVRTC_LOG", "f.cu(12): error: identifier \"xyz\" is undefined", 1);
    REFUSED(BENCH "sm_90a --op combine", 1, "NVRTC_ERROR_COMPILATION", "identifier \"xyz\" is undefined", says);
    char *path = strstr(output, says);
    T_NEED(path);
    path += strlen(says);
    path[strcspn(path, "\n")] = 0;
    T_EQ(stat(path, &st), 0);
}

/* ---- contexts: these devices are opened in this process ---- */

static moec_status use(moec_device *device, moec_error *err) {
    void *p;
    MOEC_TRY(moec_alloc(device, 64, "a test", &p, err));
    moec_free(device, p);
    return MOEC_OK;
}

T_CASE(devices_come_and_go_and_share_a_context) {
    moec_device *a, *b;
    moec_error err = {0};
    fresh();
    for (int turn = 0; turn < 2; turn++) {
        T_NEED(!moec_device_open("cuda", 0, &a, &err) && !moec_device_open("cuda", 0, &b, &err));
        T_EQ(use(a, &err), MOEC_OK);
        moec_device_close(a); /* b goes on */
        T_EQ(use(b, &err), MOEC_OK);
        moec_device_close(b);
    }
    setenv("FAKE_CUDA_CONTEXT", "1", 1); /* from here on the caller has its own */
    for (int turn = 0; turn < 2; turn++) {
        T_NEED(!moec_device_open("cuda", 0, &a, &err));
        T_EQ(use(a, &err), MOEC_OK);
        moec_device_close(a);
    }
}

/* ---- a step neither waits nor takes memory nor moves data to or from the host ---- */

T_CASE(a_layer_only_launches) {
    static const char *const forbidden[] = {"cuStreamSynchronize", "cuEventSynchronize", "cuMemAlloc_v2",
                                            "cuMemcpyHtoD_v2", "cuMemcpyDtoH_v2", "cuModuleLoadData"};
    enum { T = 64, BYTES = 1 << 20 };
    moec_device *device;
    moec_layer *layer;
    moec_error err = {0};
    void *p[12];
    fresh();
    T_NEED(!moec_device_open("sm_90a", 0, &device, &err));
    if (moec_layer_create(device, "E=4 K=2 H=64 F=64", NULL, &layer, &err)) T_FAIL("%s", err.text);
    T_NEED(layer);
    T_OK(moec_layer_saved_bytes(layer, T) < BYTES && moec_layer_workspace_bytes(layer, T) < BYTES);
    for (int i = 0; i < 12; i++) T_NEED(!moec_alloc(device, BYTES, "a test", &p[i], &err));
    moec_weights w = {.w1 = p[0], .w2 = p[1]};
    moec_forward f = {.T = T, .x = p[2], .logits = p[3], .weights = w, .out = p[4], .saved = p[5], .workspace = p[6]};
    moec_backward b = {.T = T, .x = p[2], .logits = p[3], .weights = w, .saved = p[5], .dout = p[7], .dx = p[8],
                       .dw1 = p[9], .dw2 = p[10], .dlogits = p[11], .workspace = p[6]};
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
        char fails[64];
        snprintf(fails, sizeof fails, "%s=1", forbidden[i]);
        setenv("FAKE_CUDA_FAIL", fails, 1);
        if (moec_layer_forward(layer, &f, &err) || moec_layer_backward(layer, &b, &err))
            T_FAIL("it calls %s: %s", forbidden[i], err.text);
    }
    setenv("FAKE_CUDA_FAIL", "cuLaunchKernelEx=1", 1); /* the stand-in does refuse when called */
    T_EQ(moec_layer_forward(layer, &f, &err), MOEC_E_DEVICE);
    unsetenv("FAKE_CUDA_FAIL");
    moec_layer *parts; /* in column blocks, and without tokens: every pointer is one of the GPU's still */
    moec_layer_options options = {.column_blocks = 2};
    T_NEED(!moec_layer_create(device, "E=4 K=2 H=64 F=64", &options, &parts, &err));
    for (int t = T; t >= 0; t -= T) {
        f.T = b.T = t;
        if (t == 0) /* empty arrays: one byte each, as moec_alloc gives for none */
            for (int i = 2; i < 12; i++) {
                moec_free(device, p[i]);
                T_NEED(!moec_alloc(device, i == 5 || i == 6 || i == 9 || i == 10 ? BYTES : 0, "a test", &p[i], &err));
            }
        f.x = b.x = p[2], f.logits = b.logits = p[3], f.out = p[4], f.saved = p[5], b.saved = p[5];
        f.workspace = b.workspace = p[6], b.dout = p[7], b.dx = p[8], b.dw1 = p[9], b.dw2 = p[10], b.dlogits = p[11];
        if (moec_layer_forward(parts, &f, &err) || moec_layer_backward(parts, &b, &err))
            T_FAIL("T=%d: %s", t, err.text);
    }
    moec_layer_free(parts);
    for (int i = 0; i < 12; i++) moec_free(device, p[i]);
    moec_layer_free(layer);
    moec_device_close(device);
}

/* ---- memory of another GPU, or of none ---- */

enum { OWN_TOKENS = 64, OWN_BYTES = 1 << 20 };

/* One forward whose w2 is `w2`, the rest is GPU 0's. */
static moec_status forward_with(moec_layer *layer, void *const p[6], const void *w2, moec_error *err) {
    moec_forward f = {.T = OWN_TOKENS, .x = p[0], .logits = p[1], .weights = {.w1 = p[2], .w2 = w2}, .out = p[3],
                      .saved = p[4], .workspace = p[5]};
    return moec_layer_forward(layer, &f, err);
}

static void *block_of(moec_device *device, const char *owner, const char *managed) {
    void *p;
    moec_error err = {0};
    setenv("FAKE_CUDA_OWNER", owner, 1);
    setenv("FAKE_CUDA_MANAGED", managed, 1);
    if (moec_alloc(device, OWN_BYTES, "a test", &p, &err)) T_FAIL("%s", err.text);
    return p;
}

T_CASE(memory_of_another_gpu_is_refused) {
    static char host[OWN_BYTES];
    moec_device *device;
    moec_layer *layer;
    moec_error err = {0};
    void *p[6];
    fresh();
    setenv("FAKE_CUDA_COUNT", "2", 1);
    T_NEED(!moec_device_open("sm_90a", 0, &device, &err));
    T_NEED(!moec_layer_create(device, "E=4 K=2 H=64 F=64", NULL, &layer, &err));
    for (int i = 0; i < 6; i++) p[i] = block_of(device, "0", "0");
    void *own = block_of(device, "0", "0"), *far = block_of(device, "1", "0"), *managed = block_of(device, "1", "1");
    T_EQ(forward_with(layer, p, far, &err), MOEC_E_INVAL);
    T_HAS(err.text, "argument w2 of op down");
    T_HAS(err.text, "is memory of GPU 1; the kernel runs on GPU 0");
    T_HAS(err.text, "hint: allocate it on GPU 0 (cudaSetDevice(0) before cudaMalloc), or enable peer access to GPU 1");
    T_EQ(forward_with(layer, p, host, &err), MOEC_E_INVAL);
    T_HAS(err.text, "is not memory that the GPU can reach");
    T_EQ(forward_with(layer, p, own, &err), MOEC_OK); /* the device is alive */
    T_EQ(forward_with(layer, p, managed, &err), MOEC_OK);
    setenv("FAKE_CUDA_FAIL", "cuPointerGetAttribute=3", 1); /* trouble is no answer */
    T_EQ(forward_with(layer, p, (char *)far + 256, &err), MOEC_OK);
    unsetenv("FAKE_CUDA_FAIL");
    setenv("FAKE_CUDA_PEER", "1", 1);
    T_EQ(forward_with(layer, p, far, &err), MOEC_OK);
    setenv("FAKE_CUDA_FAIL", "cuPointerGetAttributes=1", 1); /* the stand-in does refuse when called */
    T_EQ(forward_with(layer, p, (char *)own + 512, &err), MOEC_E_INVAL);
    moec_layer_free(layer);
    moec_device_close(device);
    fresh(); /* one GPU: the kind is all that is asked */
    T_NEED(!moec_device_open("sm_90a", 0, &device, &err));
    T_NEED(!moec_layer_create(device, "E=4 K=2 H=64 F=64", NULL, &layer, &err));
    setenv("FAKE_CUDA_FAIL", "cuPointerGetAttributes=1", 1);
    T_EQ(forward_with(layer, p, own, &err), MOEC_OK);
    T_EQ(forward_with(layer, p, host, &err), MOEC_E_INVAL);
    T_HAS(err.text, "is not memory that the GPU can reach");
    for (int i = 0; i < 6; i++) moec_free(device, p[i]);
    moec_free(device, own);
    moec_free(device, far);
    moec_free(device, managed);
    moec_layer_free(layer);
    moec_device_close(device);
}

/* ---- memory and faults ---- */

T_CASE(a_gpu_out_of_memory_says_what_for) {
    fresh();
    setenv("FAKE_CUDA_BYTES", "1000000", 1);
    REFUSED(BENCH "sm_90a", 1, "bytes for ", "of 1000000 bytes are free", "fewer tokens a step");
}

T_CASE(a_launch_that_faults_kills_the_device_only) {
    fresh();
    setenv("FAKE_CUDA_FAIL", "cuLaunchKernelEx=700", 1);
    REFUSED(BENCH "sm_90a --op combine", 4, "CUDA_ERROR_ILLEGAL_ADDRESS", "the context is lost: restart the process");
    setenv("FAKE_CUDA_FAIL", "cuStreamSynchronize=700@2", 1);
    REFUSED(BENCH "sm_90a --op combine", 4, "CUDA_ERROR_ILLEGAL_ADDRESS", "restart the process from the last checkpoint");
}

/* One launch that the driver refuses is no fault: a search passes over it. Memory with errors is one. */
T_CASE(a_launch_that_is_refused_leaves_the_device_alive) {
    fresh();
    setenv("FAKE_CUDA_FAIL", "cuLaunchKernelEx=701", 1);
    REFUSED(BENCH "sm_90a --op combine", 4, "name another");
    T_OK(!strstr(output, "the context is lost"));
    setenv("FAKE_CUDA_FAIL", "cuLaunchKernelEx=214", 1);
    REFUSED(BENCH "sm_90a --op combine", 4, "the context is lost: restart the process");
    moec_device *device;
    moec_error err = {0};
    setenv("FAKE_CUDA_FAIL", "cuMemAlloc_v2=701", 1);
    T_NEED(!moec_device_open("cuda", 0, &device, &err));
    T_EQ(use(device, &err), MOEC_E_DEVICE);
    unsetenv("FAKE_CUDA_FAIL");
    T_EQ(use(device, &err), MOEC_OK);
    moec_device_close(device);
}

/* The run's checkpoints are whole, and training goes on from them in a new process. */
T_CASE(a_fault_in_training_loses_no_checkpoint) {
#define TRAIN "train examples/demo.lua -t sm_90a path=README.md run=@/run steps=5 warmup=1 save_every=1 " \
              "eval_every=0 sample=0 batch=1 seq=64 layers=1 "
    fresh();
    setenv("FAKE_CUDA_FAIL", "cuLaunchKernelEx=700@300", 1);
    REFUSED(TRAIN, 4, "of layer 0", "CUDA_ERROR_ILLEGAL_ADDRESS", "restart the process from the last checkpoint");
    unsetenv("FAKE_CUDA_FAIL");
    T_EQ(moec("ckpt @/run"), 0);
    T_HAS(output, "sound ");
    T_OK(!strstr(output, "damaged"));
    T_EQ(moec(TRAIN "--resume"), 0);
    T_HAS(output, "done after ");
    setenv("FAKE_CUDA_BYTES", "20000000", 1);
    REFUSED(TRAIN "--fresh", 1, "bytes for ", "on Paper GPU: ", "of 20000000 bytes are free");
}

T_CASE(an_empty_setting_is_none) {
    static const char *const settings[] = {"MOEC_CUDA", "MOEC_NVRTC", "MOEC_HIP", "MOEC_HIPRTC", "MOEC_CUBLAS", "MOEC_CC"};
    fresh();
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) setenv(settings[i], "", 1);
    T_EQ(moec("doctor"), 0);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        char said[32];
        snprintf(said, sizeof said, "%s=", settings[i]);
        T_OK(!strstr(output, said));
        unsetenv(settings[i]);
    }
    T_OK(!strstr(output, "is no usable"));
}

T_CASE(doctor_explains_what_is_missing) {
    fresh();
    setenv("FAKE_CUDA_COUNT", "2", 1);
    T_EQ(moec("doctor"), 0);
    T_HAS(output, "GPU 1          ok       Paper GPU, compute capability 9.0, 4 SMs, 1.0 GiB");
    setenv("FAKE_CUDA_CC", "80", 1);
    setenv("FAKE_CUDA_VERSION", "12040", 1);
    T_EQ(moec("doctor"), 0);
    T_HAS(output, "Paper GPU (compute capability 8.0) cannot run sm_90a");
    T_HAS(output, "newer than the driver, which may refuse its kernels");
    setenv("FAKE_CUDA_COUNT", "0", 1);
    T_EQ(moec("doctor"), 0);
    T_HAS(output, "it sees no GPU");
    fresh();
    setenv("MOEC_CUDA", "/nowhere/libcuda.so.1", 1);
    setenv("MOEC_NVRTC", "/nowhere/libnvrtc.so", 1);
    T_EQ(moec("doctor"), 0); /* the CPU is there */
    T_HAS(output, "no kernel runs on an NVIDIA GPU");
    T_HAS(output, "no CUDA kernel can be compiled");
    T_HAS(output, "pip install nvidia-cuda-nvrtc");
}

T_MAIN
