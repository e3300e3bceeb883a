/* moec doctor: what this machine offers, what is missing, and what each missing piece costs.
 *
 * One row per check in a table; a check says its findings through say(). Exit code 0 unless
 * nothing at all can run. */
#include "cli.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "cache.h"
#include "dl_cublas.h"
#include "dl_cuda.h"
#include "dl_hip.h"
#include "dl_nvrtc.h"
#include "json_text.h"
#include "peer.h"
#include "toolchain.h"
#include "toolchain_hiprtc.h"

typedef struct doctor { const cli_call *call; json_t *findings; int runnable; } doctor;

/* state: "ok", "missing" or "note". `costs`: what the user loses, and the remedy; "" when ok. */
static void say(doctor *d, const char *what, const char *state, const char *detail,
                const char *costs) {
    if (!d->call->json) {
        printf("%-14s %-8s %s\n", what, state, detail);
        if (*costs) printf("%23s %s\n", "", costs);
        return;
    }
    json_t *row = json_pack("{s:s, s:s, s:o, s:s}", "what", what, "state", state, "detail", moec_json_text(detail),
                            "costs", costs);
    json_array_append_new(d->findings, row);
}

/* The first line of an error chain, and its hint if there is one. */
static void say_error(doctor *d, const char *what, const moec_error *err, const char *costs) {
    char detail[512], remedy[1024];
    const char *hint = strstr(err->text, "hint: ");
    snprintf(detail, sizeof detail, "%.*s", (int)strcspn(err->text, "\n"), err->text);
    snprintf(remedy, sizeof remedy, "%s%s%.600s", costs, hint ? "; " : "", hint ? hint + 6 : "");
    say(d, what, "missing", detail, remedy);
}

static void check_machine(doctor *d) {
    struct utsname name;
    char text[512] = "";
    if (!uname(&name)) snprintf(text, sizeof text, "%.60s %.60s, ", name.sysname, name.machine);
    size_t used = strlen(text);
    snprintf(text + used, sizeof text - used, "%d CPU%s, %s", moec_cpu_count(),
             moec_cpu_count() == 1 ? "" : "s", moec_cpu_features());
    say(d, "machine", "ok", text, "");
}

/* Why a machine that has a driver cannot run a target; "" where the driver is what is missing. */
static void reason(const moec_error *err, char text[400]) {
    const char *line = strchr(err->text, '\n'); /* below "device sm_90a" */
    *text = 0;
    if (err->status == MOEC_E_TOOL || !line) return;
    snprintf(text, 400, ": %.*s", (int)strcspn(line + 1, "\n"), line + 1);
}

static void check_targets(doctor *d) {
    for (int i = 0; moec_target_at(i); i++) {
        const moec_target *t = moec_target_at(i);
        moec_device *device;
        moec_error err = {0};
        if (moec_device_open(t->name, 0, &device, &err)) {
            char detail[600], costs[128] = "", why[400];
            reason(&err, why);
            snprintf(detail, sizeof detail, "needs %s%s", t->needs, why);
            if (!strcmp(t->family, "cpu"))
                snprintf(costs, sizeof costs, "-t cpu takes the next best target here: %s",
                         moec_cpu_best()->name);
            else
                snprintf(costs, sizeof costs, "kernels for it can still be written and compiled: "
                         "moec gen -t %s", t->name);
            say(d, t->name, "missing", detail, costs);
            continue;
        }
        d->runnable++;
        say(d, t->name, "ok", t->doc, "");
        moec_device_close(device);
    }
}

static void check_compiler(doctor *d) {
    char id[MOEC_TOOLCHAIN_ID_BYTES];
    moec_error err = {0};
    const moec_target *best = moec_cpu_best();
    const moec_toolchain *cc = moec_toolchain_find("cpu");
    if (!cc->identify(best, id, &err)) say(d, "C compiler", "ok", id, "");
    else say_error(d, "C compiler", &err, "no CPU kernel can be compiled");
}

/* Libraries that bench compares with; they are no part of moec. */
static void check_peers(doctor *d) {
    const moec_peer *peer;
    for (int i = 0; (peer = moec_peer_at("cpu", i)); i++) {
        char version[64] = "", costs[256];
        moec_error err = {0};
        snprintf(costs, sizeof costs, "moec bench does not compare with it; install %s", peer->needs);
        if (!peer->open(version, &err)) say(d, peer->name, "ok", version, "");
        else say(d, peer->name, "missing", "not here", costs);
    }
}

static void check_hip_driver(doctor *d) {
    const moec_hip *hip;
    moec_error err = {0};
    if (!moec_hip_open(&hip, &err)) say(d, "HIP driver", "ok", hip->path, "");
    else say_error(d, "HIP driver", &err, "no kernel runs on an AMD GPU");
}

static void check_cache(doctor *d) {
    moec_cache *cache;
    moec_error err = {0};
    long entries;
    long long bytes;
    if (moec_cache_open(NULL, &cache, &err)) {
        say_error(d, "kernel cache", &err, "nothing can be compiled");
        return;
    }
    char detail[MOEC_PATH_BYTES + 64];
    moec_cache_usage(cache, &entries, &bytes);
    snprintf(detail, sizeof detail, "%s: %ld kernels, %.1f MB", moec_cache_root(cache), entries,
             (double)bytes / 1e6);
    const char *note = moec_cache_note(cache);
    say(d, "kernel cache", *note ? "note" : "ok", detail, note);
    moec_cache_close(cache);
}

static void say_gpu(doctor *d, const moec_cuda *cuda, int index) {
    char what[24], name[128] = "?", detail[320];
    CUdevice device = 0;
    int major = 0, minor = 0, sms = 0;
    size_t bytes = 0;
    bool good = !cuda->device_get(&device, index) && !cuda->device_name(name, sizeof name, device) &&
                !cuda->device_attribute(&major, CU_ATTR_MAJOR, device) &&
                !cuda->device_attribute(&minor, CU_ATTR_MINOR, device) &&
                !cuda->device_attribute(&sms, CU_ATTR_SMS, device) && !cuda->device_memory(&bytes, device);
    snprintf(what, sizeof what, "GPU %d", index);
    snprintf(detail, sizeof detail, "%s, compute capability %d.%d, %d SMs, %.1f GiB", name, major, minor, sms,
             (double)bytes / (1 << 30));
    if (good) say(d, what, "ok", detail, "");
    else say(d, what, "missing", name, "the driver does not answer about it: nvidia-smi may say why");
}

static void check_cuda(doctor *d) {
    const moec_cuda *cuda;
    moec_error err = {0};
    char detail[320];
    if (moec_cuda_open(&cuda, &err)) {
        say_error(d, "CUDA driver", &err, "no kernel runs on an NVIDIA GPU");
        return;
    }
    snprintf(detail, sizeof detail, "%s, CUDA %d.%d", cuda->path, cuda->version / 1000,
             cuda->version / 10 % 100);
    int count = 0;
    bool any = !cuda->device_count(&count) && count;
    say(d, "CUDA driver", any ? "ok" : "note", detail,
        any ? "" : "it sees no GPU; CUDA_VISIBLE_DEVICES says which GPUs a process sees");
    for (int i = 0; i < count; i++) say_gpu(d, cuda, i);
}

static void check_nvrtc(doctor *d) {
    const moec_nvrtc *nvrtc;
    moec_error err = {0};
    char detail[560];
    if (moec_nvrtc_open(&nvrtc, &err)) {
        say_error(d, "NVRTC", &err, "no CUDA kernel can be compiled");
        return;
    }
    const moec_cuda *cuda;
    bool newer = !moec_cuda_open(&cuda, NULL) && nvrtc->major > cuda->version / 1000;
    snprintf(detail, sizeof detail, "%s, %d.%d", nvrtc->path, nvrtc->major, nvrtc->minor);
    say(d, "NVRTC", newer ? "note" : "ok", detail,
        newer ? "newer than the driver, which may refuse its kernels; update the driver, or point MOEC_NVRTC at an "
                "older one" : "");
}

static void check_cublas(doctor *d) {
    const moec_cublas *cublas;
    moec_error err = {0};
    if (!moec_cublas_open(&cublas, &err)) say(d, "cuBLAS", "ok", cublas->path, "");
    else say_error(d, "cuBLAS", &err, "moec bench has no compute ceiling on NVIDIA GPUs");
}

static void check_hip(doctor *d) {
    char id[MOEC_TOOLCHAIN_ID_BYTES];
    moec_error err = {0};
    const moec_toolchain *hip = moec_toolchain_find("hip");
    if (!hip->identify(moec_target_find("gfx942"), id, &err)) say(d, "HIP compiler", "ok", id, "");
    else say_error(d, "HIP compiler", &err, "no HIP kernel can be compiled");
}

/* The second choice of compiler: only of interest beside the first. */
static void check_hiprtc(doctor *d) {
    char id[600];
    moec_error err = {0};
    if (!moec_hiprtc_identify(id, sizeof id, &err)) say(d, "hiprtc", "ok", id, "");
    else say_error(d, "hiprtc", &err, "nothing, as long as there is a clang for HIP");
}

static void (*const checks[])(doctor *) = {
    check_machine, check_compiler, check_cuda, check_nvrtc, check_cublas, check_hip_driver, check_hip,
    check_hiprtc,
    check_cache, check_targets, check_peers,
};

static moec_status run(cli_call *call, moec_error *err) {
    doctor d = {.call = call, .findings = json_array()};
    cli_settings(call, NULL, NULL);
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) checks[i](&d);
    if (call->json)
        cli_print_json(json_pack("{s:o, s:O}", "settings", cli_settings_json(call, NULL, NULL),
                                 "findings", d.findings));
    json_decref(d.findings);
    if (d.runnable) return MOEC_OK;
    moec_status rc = moec_fail(err, MOEC_E_DEVICE, "no target can run on this machine");
    return moec_hint(err, rc, "install what the lines above name");
}

const cli_verb cli_doctor_verb = {
    .name = "doctor", .summary = "what was found here, and what each missing piece costs you",
    .operands = "", .common = "",
    .examples = {"moec doctor", "moec doctor --json"},
    .run = run,
};
