/* 01: a MoE layer forward. Opens the best CPU target, creates a layer from a spec text, runs it.
 *
 * The steps of every program that uses moec: open a device, create a layer (its kernels are written,
 * compiled and cached here), ask how much memory a batch needs, run on buffers of your own. */
#include <stdio.h>
#include <stdlib.h>

#include "moec.h"

enum { T = 64, E = 8, K = 2, H = 64, F = 128 };
static const char spec[] = "E=8 K=2 H=64 F=128 dtype=f32";

static void fail(const moec_error *err) {
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

/* Numbers from -1 to 1, the same on every run. */
static float *noise(size_t count, float scale) {
    static unsigned state = 1;
    float *v = malloc(count * sizeof *v);
    for (size_t i = 0; v && i < count; i++) {
        state = state * 1664525u + 1013904223u;
        v[i] = scale * ((float)(state >> 8) / 8388608.0f - 1.0f);
    }
    if (!v) exit(1);
    return v;
}

int main(void) {
    moec_error err = {0};
    moec_device *device;
    moec_layer *layer;
    if (moec_device_open("cpu", 0, &device, &err)) fail(&err);
    if (moec_layer_create(device, spec, NULL, &layer, &err)) fail(&err);

    float *x = noise(T * H, 1), *logits = noise(T * E, 2), *out = noise(T * H, 0);
    float *w1 = noise((size_t)E * 2 * F * H, 0.1f), *w2 = noise((size_t)E * H * F, 0.1f);
    void *saved, *workspace;
    if (moec_alloc(device, moec_layer_saved_bytes(layer, T), "saved", &saved, &err)) fail(&err);
    if (moec_alloc(device, moec_layer_workspace_bytes(layer, T), "workspace", &workspace, &err)) fail(&err);

    moec_forward call = {.T = T, .x = x, .logits = logits, .weights = {.w1 = w1, .w2 = w2},
                         .out = out, .saved = saved, .workspace = workspace};
    if (moec_layer_forward(layer, &call, &err)) fail(&err);

    /* What routing decided lies in `saved`, for backward and for whoever wants to look. */
    moec_routing routing;
    moec_layer_routing(layer, saved, T, &routing);
    int rows = 0;
    for (int e = 0; e < E; e++) rows += routing.load[e];
    float weights = routing.weight[0] + routing.weight[1];
    printf("%d tokens made %d rows; the weights of token 0 add up to %.3f\n", T, rows, weights);

    free(x), free(logits), free(out), free(w1), free(w2);
    moec_free(device, saved);
    moec_free(device, workspace);
    moec_layer_free(layer);
    moec_device_close(device);
    return 0;
}
