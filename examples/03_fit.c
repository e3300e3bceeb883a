/* 03: training by hand. A student layer learns to imitate a teacher with plain gradient descent.
 *
 * Nothing is allocated, compiled or opened inside the loop: moec_counters says so at the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moec.h"

enum { T = 256, E = 4, K = 2, H = 32, F = 32, STEPS = 200 };
enum { W1 = E * 2 * F * H, W2 = E * H * F };

typedef struct net { float w1[W1], w2[W2]; } net;
static net teacher, student, gradient;
static float x[T * H], logits[T * E], wanted[T * H], out[T * H], dout[T * H], dx[T * H], dlogits[T * E];

static moec_error err;
static void *saved, *workspace;

static void check(moec_status rc) {
    if (!rc) return;
    fprintf(stderr, "%s\n", err.text);
    exit(1);
}

static void fill(float *v, int count, float scale) {
    static unsigned state = 3;
    for (int i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        v[i] = scale * ((float)(state >> 8) / 8388608.0f - 1.0f);
    }
}

static void forward(moec_layer *layer, const net *n, float *y) {
    moec_forward call = {.T = T, .x = x, .logits = logits, .weights = {.w1 = n->w1, .w2 = n->w2},
                         .out = y, .saved = saved, .workspace = workspace};
    check(moec_layer_forward(layer, &call, &err));
}

/* One step on the mean squared error; returns it. */
static double step(moec_layer *layer, float rate) {
    double loss = 0;
    forward(layer, &student, out);
    for (int i = 0; i < T * H; i++) {
        float error = out[i] - wanted[i];
        loss += (double)error * error / (T * H);
        dout[i] = 2 * error / (T * H);
    }
    moec_backward call = {.T = T, .x = x, .logits = logits, .saved = saved, .dout = dout, .dx = dx,
                          .weights = {.w1 = student.w1, .w2 = student.w2}, .dw1 = gradient.w1,
                          .dw2 = gradient.w2, .dlogits = dlogits, .workspace = workspace};
    check(moec_layer_backward(layer, &call, &err));
    for (int i = 0; i < W1; i++) student.w1[i] -= rate * gradient.w1[i];
    for (int i = 0; i < W2; i++) student.w2[i] -= rate * gradient.w2[i];
    return loss;
}

int main(void) {
    moec_device *device;
    moec_layer *layer;
    moec_counters before, after;
    check(moec_device_open("cpu", 0, &device, &err));
    check(moec_layer_create(device, "E=4 K=2 H=32 F=32 dtype=f32", NULL, &layer, &err));
    check(moec_alloc(device, moec_layer_saved_bytes(layer, T), "saved", &saved, &err));
    check(moec_alloc(device, moec_layer_workspace_bytes(layer, T), "workspace", &workspace, &err));
    fill(x, T * H, 1), fill(logits, T * E, 1);
    fill(teacher.w1, W1, 0.5f), fill(teacher.w2, W2, 0.5f);
    fill(student.w1, W1, 0.5f), fill(student.w2, W2, 0.5f);
    forward(layer, &teacher, wanted);

    double first = step(layer, 10), last = first;
    moec_counters_read(&before);
    for (int i = 1; i < STEPS; i++) last = step(layer, 10);
    moec_counters_read(&after);
    int quiet = before.allocations == after.allocations && before.compiles == after.compiles &&
                before.files_opened == after.files_opened;
    printf("the error fell %s; the loop %s\n", last < first / 4 ? "below a quarter" : "too little",
           quiet ? "allocated, compiled and opened nothing" : "was not quiet");

    moec_free(device, saved);
    moec_free(device, workspace);
    moec_layer_free(layer);
    moec_device_close(device);
    return last < first / 4 && quiet ? 0 : 1;
}
