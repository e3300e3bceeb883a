/* 02: gradients. Runs a layer backward and checks one of its gradients by finite differences.
 *
 * The loss is the sum of the outputs weighted by fixed numbers `g`, so dout = g. Then one weight is
 * nudged both ways: (loss(w + h) - loss(w - h)) / 2h must be what backward wrote for that weight. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "moec.h"

enum { T = 32, E = 4, K = 2, H = 32, F = 64 };
enum { W1 = E * 2 * F * H, W2 = E * H * F };

static float x[T * H], logits[T * E], w1[W1], w2[W2], g[T * H], out[T * H];
static float dx[T * H], dlogits[T * E], dw1[W1], dw2[W2];

static moec_error err;
static void *saved, *workspace;

static void check(moec_status rc) {
    if (!rc) return;
    fprintf(stderr, "%s\n", err.text);
    exit(1);
}

static void fill(float *v, int count, float scale) {
    static unsigned state = 7;
    for (int i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        v[i] = scale * ((float)(state >> 8) / 8388608.0f - 1.0f);
    }
}

static double loss(moec_layer *layer) {
    moec_forward call = {.T = T, .x = x, .logits = logits, .weights = {.w1 = w1, .w2 = w2},
                         .out = out, .saved = saved, .workspace = workspace};
    check(moec_layer_forward(layer, &call, &err));
    double sum = 0;
    for (int i = 0; i < T * H; i++) sum += (double)g[i] * out[i];
    return sum;
}

int main(void) {
    moec_device *device;
    moec_layer *layer;
    check(moec_device_open("cpu", 0, &device, &err));
    check(moec_layer_create(device, "E=4 K=2 H=32 F=64 dtype=f32", NULL, &layer, &err));
    check(moec_alloc(device, moec_layer_saved_bytes(layer, T), "saved", &saved, &err));
    check(moec_alloc(device, moec_layer_workspace_bytes(layer, T), "workspace", &workspace, &err));
    fill(x, T * H, 1), fill(logits, T * E, 2), fill(g, T * H, 1), fill(w1, W1, 0.2f), fill(w2, W2, 0.2f);

    loss(layer); /* forward: leaves what backward needs in `saved` */
    moec_backward call = {.T = T, .x = x, .logits = logits, .weights = {.w1 = w1, .w2 = w2},
                          .saved = saved, .dout = g, .dx = dx, .dw1 = dw1, .dw2 = dw2,
                          .dlogits = dlogits, .workspace = workspace};
    check(moec_layer_backward(layer, &call, &err));

    int at = 0; /* the weight with the largest gradient: the one a difference shows best */
    for (int i = 0; i < W1; i++) at = fabsf(dw1[i]) > fabsf(dw1[at]) ? i : at;
    float w = w1[at], h = 1e-2f;
    w1[at] = w + h;
    double above = loss(layer);
    w1[at] = w - h;
    double slope = (above - loss(layer)) / (2 * (double)h);
    double error = fabs(slope - (double)dw1[at]) / fabs(slope);
    printf("backward and finite difference %s\n", error < 1e-3 ? "agree to 3 digits" : "differ");

    moec_free(device, saved);
    moec_free(device, workspace);
    moec_layer_free(layer);
    moec_device_close(device);
    return error < 1e-3 ? 0 : 1;
}
