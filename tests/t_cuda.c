/* The CUDA family as far as this machine allows. With NVRTC: every kernel of a layer and of the
 * trainer becomes a cubin, without spills or local memory, for sm_80 (also in Hopper's instructions) and
 * sm_90a. Without a GPU: the errors say what is missing. With one: memory and pointers that cannot be used
 * are refused, and the device lives on. */
#include "t.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "device.h"
#include "fs.h"
#include "subprocess.h"
#include "toolchain.h"
#include "toolchain.h"

static char dir[64], output[1 << 16];

static void clean(void) { moec_dir_remove(dir); }

static void make_dir(void) {
    if (*dir) return;
    strcpy(dir, "/tmp/moec-t-cuda.XXXXXX");
    if (!mkdtemp(dir)) abort();
    atexit(clean);
}

/* Runs `build/moec gen -t TARGET -o DIR/out --op OPS SPEC [--compile]`; the exit code. */
static int gen(const char *target, const char *ops, const char *spec, bool compile) {
    char out[128];
    make_dir();
    snprintf(out, sizeof out, "%s/out", dir);
    const char *argv[] = {"build/moec", "gen", "-t", target, "-o", out, "--op", ops, spec,
                          compile ? "--compile" : NULL, NULL};
    moec_error err = {0};
    moec_process p = {.argv = argv, .limit_s = 300, .output = output, .output_bytes = sizeof output};
    if (moec_process_run(&p, &err)) T_FAIL("%s", err.text);
    return p.exit_code;
}

/* Binaries that the manifest names, all there and not empty. */
static int cubins(void) {
    char path[MOEC_PATH_BYTES];
    json_error_t why;
    int count = 0;
    snprintf(path, sizeof path, "%s/out/manifest.json", dir);
    json_t *manifest = json_load_file(path, 0, &why), *entry;
    size_t i;
    json_array_foreach(json_object_get(manifest, "kernels"), i, entry) {
        const char *name = json_string_value(json_object_get(entry, "binary"));
        char *data;
        size_t bytes;
        if (!name) continue; /* two rows of a layer share a kernel */
        snprintf(path, sizeof path, "%s/out/%s", dir, name);
        if (moec_file_read(path, &data, &bytes, NULL)) {
            T_FAIL("%s is not there", name);
            continue;
        }
        T_OK(bytes > 500);
        free(data);
        count++;
    }
    json_decref(manifest);
    return count;
}

static void compile(const char *target, const char *ops, const char *spec, int least) {
    int code = gen(target, ops, spec, true);
    if (code == 4) T_SKIP("NVRTC is not here");
    if (code) T_FAIL("%s on %s, %s: exit code %d\n%s", ops, target, spec, code, output);
    else T_OK(cubins() >= least);
}

/* The generic target keeps PTX, which nobody has given registers yet: its GEMMs once more, as the driver
 * would finish them on a machine of that architecture, and attention. Spills and local memory are errors of the toolchain. */
static void finish(const char *flags, const char *ops, const char *spec) {
    moec_target real = *moec_target_find("sm_80");
    char path[MOEC_PATH_BYTES], file[MOEC_PATH_BYTES], id[MOEC_TOOLCHAIN_ID_BYTES];
    json_error_t why;
    json_t *entry;
    size_t i;
    moec_error err = {0};
    real.flags = flags;
    if (moec_nvrtc_toolchain.identify(&real, id, NULL)) T_SKIP("NVRTC is not here");
    T_EQ(gen("sm_80", ops, spec, false), 0);
    snprintf(path, sizeof path, "%s/out/manifest.json", dir);
    json_t *manifest = json_load_file(path, 0, &why);
    json_array_foreach(json_object_get(manifest, "kernels"), i, entry) {
        const char *name = json_string_value(json_object_get(entry, "file"));
        snprintf(file, sizeof file, "out/%s", name ? name : "without a name");
        if (moec_nvrtc_toolchain.compile(&real, dir, file, "real.cubin", &err))
            T_FAIL("%s for %s: %s", file, flags, err.text);
    }
    T_OK(i > 0);
    json_decref(manifest);
}

#define DENSE "linear,linear_dx,linear_dw,embed,embed_bwd,rmsnorm,rmsnorm_bwd,rope,attention," \
              "attention_bwd,xent,sqnorm,adamw,add"
#define MODEL "H=256 F=512 V=1000 heads=4 kv=2 dim=64"

T_CASE(a_layer_for_sm_80) { compile("sm_80", "layer", "E=8 K=2 H=256 F=512 shared=128 bias=1", 12); }
T_CASE(a_layer_for_sm_90a) { compile("sm_90a", "layer", "E=8 K=2 H=256 F=512 shared=128 bias=1", 12); }
T_CASE(a_ragged_f32_layer_for_sm_80) {
    compile("sm_80", "layer", "E=61 K=4 capacity=1.25 H=72 F=40 dtype=f32 act=geglu layout=interleaved", 8);
}
T_CASE(a_ragged_bf16_layer_for_sm_90a) { compile("sm_90a", "layer", "E=60 K=4 H=72 F=40 capacity=1.25", 8); }
T_CASE(groups_of_many_experts_for_sm_90a) {
    compile("sm_90a", "route,route_bwd", "E=256 K=8 router=sigmoid_bias groups=8/4 scale=2.5", 2);
    compile("sm_90a", "route", "E=248 K=16 router=sigmoid_bias groups=8/7 capacity=1.25", 1);
}
T_CASE(column_blocks_for_sm_80) { compile("sm_80", "down,dx,combine", "E=8 K=2 H=264 F=136 bias=1 columns=88", 3); }
T_CASE(column_blocks_for_sm_90a) { compile("sm_90a", "down,dx,combine", "E=8 K=2 H=264 F=136 bias=1 columns=88", 3); }
T_CASE(column_tiles_beside_each_other) { compile("sm_90a", "up", "E=8 K=2 H=2048 F=256", 1); }
T_CASE(the_trainers_ops_for_sm_80) { compile("sm_80", DENSE, MODEL, 14); }
T_CASE(the_trainers_ops_for_sm_90a) { compile("sm_90a", DENSE, MODEL, 14); }
T_CASE(attention_of_wide_heads_for_sm_90a) { compile("sm_90a", "attention,attention_bwd", "heads=6 kv=2 dim=128", 2); }
T_CASE(attention_of_odd_heads_for_sm_90a) { compile("sm_90a", "attention,attention_bwd", "heads=6 kv=2 dim=72", 2); }

#define GEMMS "up,down,dh,dx,dw1,dw2,linear,linear_dx,linear_dw"
T_CASE(generic_gemms_keep_their_registers_on_sm_80) {
    finish("--gpu-architecture=sm_80", GEMMS, "E=8 K=2 H=256 F=512 bias=1");
}
T_CASE(ragged_generic_gemms_keep_their_registers_on_sm_80) {
    finish("--gpu-architecture=sm_80", GEMMS, "E=60 K=4 H=72 F=40 bias=1 layout=interleaved wgrad=same");
}
T_CASE(generic_gemms_keep_their_registers_on_sm_90) {
    finish("--gpu-architecture=sm_90", "up,dh,dw1", "E=8 K=2 H=256 F=512 wgrad=same act=gelu");
}
T_CASE(generic_attention_keeps_its_registers_on_sm_80) {
    finish("--gpu-architecture=sm_80", "attention,attention_bwd", "heads=6 kv=2 dim=72");
    finish("--gpu-architecture=sm_80", "attention,attention_bwd", "heads=4 kv=2 dim=128");
}
/* What Hopper's own templates leave: interleaved gates, and <dout, b2>. */
T_CASE(the_generic_gemms_for_sm_90a) {
    compile("sm_90a", "up,dh", "E=60 K=4 H=136 F=72 bias=1 layout=interleaved", 2);
}

/* Sums of one step: the loop is gone. */
T_CASE(shallow_generic_gemms_for_sm_90a) {
    compile("sm_90a", "up,dh", "E=16 K=8 H=64 F=400 layout=interleaved", 2);
    compile("sm_90a", "up,dh", "E=16 K=8 H=32 F=512 bias=1", 2);
}
T_CASE(shallow_generic_gemms_keep_their_registers_on_sm_80) {
    finish("--gpu-architecture=sm_80", GEMMS, "E=16 K=8 H=32 F=512 bias=1");
}

/* ---- what ptxas reports, from NVRTC itself ---- */

/* 128 live values a thread, where 1024 threads leave 64 registers. */
static const char spills[] =
    "extern \"C\" __global__ void __launch_bounds__(1024) kernel(const float *in, float *out) {\n"
    "    float v[128];\n"
    "#pragma unroll\n"
    "    for (int i = 0; i < 128; i++) v[i] = in[i * 1024 + threadIdx.x];\n"
    "    for (int n = 0; n < 100; n++)\n"
    "#pragma unroll\n"
    "        for (int i = 0; i < 128; i++) v[i] = v[i] * v[(i + 37) % 128] + 1.0f;\n"
    "#pragma unroll\n"
    "    for (int i = 0; i < 128; i++) out[i * 1024 + threadIdx.x] = v[i];\n"
    "}\n";

/* An array that is indexed by what only the running kernel knows. */
static const char indexes[] =
    "extern \"C\" __global__ void kernel(const int *in, float *out) {\n"
    "    float v[8];\n"
    "#pragma unroll\n"
    "    for (int i = 0; i < 8; i++) v[i] = out[i];\n"
    "    for (int i = 0; i < 8; i++) v[in[i]] += 1.0f;\n"
    "    out[threadIdx.x] = v[in[threadIdx.x]];\n"
    "}\n";

/* An accumulator is changed while the multiplication that writes it is on its way. */
static const char serialises[] =
    "extern \"C\" __global__ void __launch_bounds__(128)\n"
    "kernel(unsigned long long a, unsigned long long b, float *out) {\n"
    "    float d[4] = {0, 0, 0, 0};\n"
    "    asm volatile(\"wgmma.fence.sync.aligned;\" ::: \"memory\");\n"
    "    for (int i = 0; i < 4; i++) {\n"
    "        asm volatile(\"wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;\"\n"
    "                     : \"+f\"(d[0]), \"+f\"(d[1]), \"+f\"(d[2]), \"+f\"(d[3]) : \"l\"(a), \"l\"(b));\n"
    "        asm volatile(\"wgmma.commit_group.sync.aligned;\" ::: \"memory\");\n"
    "        d[0] *= out[i];\n"
    "    }\n"
    "    asm volatile(\"wgmma.wait_group.sync.aligned 0;\" ::: \"memory\");\n"
    "    for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = d[i];\n"
    "}\n";

static const char overflows[] =
    "extern \"C\" __global__ void kernel(float *out) {\n"
    "    __shared__ float much[65536];\n"
    "    much[threadIdx.x] = out[threadIdx.x];\n"
    "    __syncthreads();\n"
    "    out[threadIdx.x] = much[threadIdx.x ^ 1];\n"
    "}\n";

static const char fine[] =
    "extern \"C\" __global__ void kernel(float *out) { out[threadIdx.x] = 1.0f; }\n";

static void report(const char *text, moec_status want, const char *says) {
    const moec_toolchain *nvrtc = moec_toolchain_find("cuda");
    const moec_target *machine = moec_target_find("sm_90a");
    char path[MOEC_PATH_BYTES], id[MOEC_TOOLCHAIN_ID_BYTES];
    moec_error err = {0};
    if (nvrtc->identify(machine, id, &err)) T_SKIP("NVRTC is not here");
    make_dir();
    snprintf(path, sizeof path, "%s/kernel.cu", dir);
    T_NEED(!moec_file_write(path, text, strlen(text), false, &err));
    T_EQ(nvrtc->compile(machine, dir, "kernel.cu", "kernel.cubin", &err), want);
    T_HAS(err.text, says);
}

T_CASE(a_kernel_that_spills_is_rejected) { report(spills, MOEC_E_COMPILE, "bytes of registers"); }
T_CASE(a_kernel_with_an_array_in_local_memory_is_rejected) {
    report(indexes, MOEC_E_COMPILE, "the kernel keeps 32 bytes a thread in local memory");
}
T_CASE(a_kernel_whose_wgmma_is_serialised_is_rejected) {
    report(serialises, MOEC_E_COMPILE, "ptxas serialises the kernel's wgmma instructions");
}
T_CASE(a_kernel_with_too_much_shared_memory_is_rejected) { report(overflows, MOEC_E_COMPILE, "the kernel uses 262144 bytes of shared memory"); }
T_CASE(a_kernel_without_fault_is_taken) { report(fine, MOEC_OK, ""); }

/* The innermost line of an error before its hint. */
static const char *no_gpu(const char *text) {
    static char line[200];
    const char *second = strchr(text, '\n');
    snprintf(line, sizeof line, "no GPU: %.*s", second ? (int)strcspn(second + 1, "\n") : 0,
             second ? second + 1 : "");
    return line;
}

/* The first GPU, or a skip with the reason. */
#define OPEN(device, err) \
    if (moec_device_open("cuda", 0, &device, &err)) T_SKIP("%s", no_gpu(err.text))

T_CASE(a_missing_gpu_is_explained) {
    moec_device *device;
    moec_error err = {0};
    moec_status rc = moec_device_open("sm_80", 0, &device, &err);
    if (!rc) moec_device_close(device);
    if (!rc) T_SKIP("there is a GPU");
    T_OK(rc == MOEC_E_TOOL || rc == MOEC_E_DEVICE);
    T_EQ(moec_exit_code(rc), 4);
    T_HAS(err.text, "device sm_80");
    T_OK(device == NULL);
}

T_CASE(too_much_memory_is_an_error_and_no_more) {
    moec_device *device;
    moec_error err = {0};
    void *p;
    OPEN(device, err);
    T_EQ(moec_alloc(device, (size_t)1 << 50, "the test's giant", &p, &err), MOEC_E_NOMEM);
    T_HAS(err.text, "1125899906842624 bytes for the test's giant");
    T_EQ(moec_alloc(device, 4096, "a page", &p, &err), MOEC_OK);
    moec_free(device, p);
    moec_device_close(device);
}

T_CASE(host_pointers_are_refused) {
    static uint16_t host[64];
    moec_device *device;
    moec_module *add;
    moec_spec spec;
    moec_error err = {0};
    OPEN(device, err);
    moec_spec_default(&spec);
    T_NEED(!moec_module_create(device, moec_op_find("add"), &spec, NULL, 0, &add, &err));
    moec_arg args[] = {{.ptr = host}, {.ptr = host}, {.ptr = host}, {.i64 = 64}};
    T_EQ(moec_module_launch(device, NULL, add, args, 0, 0, 64, NULL, &err), MOEC_E_INVAL);
    T_HAS(err.text, "argument a of op add");
    T_EQ(moec_synchronize(device, NULL, &err), MOEC_OK); /* nothing was launched, the device lives */
    moec_device_close(device);
}

T_MAIN
