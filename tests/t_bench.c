/* The benchmark on a tiny layer: every row and the layer have times, costs follow from the batch, and
 * wrong questions are answered. */
#include <stdlib.h>

#include "bench.h"
#include "ceiling.h"
#include "t.h"

static moec_bench bench;
static moec_error err;

static moec_status run(const char *text, moec_bench_options options) {
    moec_device *device;
    moec_spec spec;
    if (moec_device_open("cpu-scalar", 1, &device, &err)) return err.status;
    moec_status rc = moec_spec_parse(text, &spec, &err);
    if (!rc) rc = moec_bench_run(device, &spec, &options, &bench, &err);
    moec_device_close(device);
    return rc;
}

static const moec_bench_row *row(const char *name) {
    for (int i = 0; i < bench.count; i++)
        if (!strcmp(bench.row[i].name, name)) return &bench.row[i];
    return NULL;
}

T_CASE(layer_and_its_rows) {
    moec_bench_options o = {.tokens = 16, .routing = "uniform", .seed = 1, .repeat = 2, .sets = 2};
    T_EQ(run("E=4 K=2 H=32 F=16 shared=16", o), MOEC_OK);
    T_EQ(bench.rows, 32);
    T_OK(bench.most_rows >= 8 && bench.most_rows <= 32);
    T_OK(bench.copy > 0);
    const char *names[] = {"route", "shared.up", "up", "down", "combine", "dh", "dw2", "dw1", "dx", "route_bwd"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        T_NEED(row(names[i]));
        T_OK(row(names[i])->ms > 0 && row(names[i])->bytes > 0);
    }
    T_EQ((int64_t)row("up")->flops, 2 * 32 * 32 * 32);
    T_OK(row("up")->bound_ms > 0);
    T_OK(bench.layer.measured && bench.layer.forward_ms > 0 && bench.layer.backward_ms > 0);
    T_OK(bench.layer.given_forward_ms > 0 && bench.layer.given_backward_ms > 0);
    T_OK(bench.layer.saved_bytes > 0 && bench.layer.workspace_bytes > 0);
}

T_CASE(the_layer_alone_takes_its_weights_in_turn) {
    moec_bench_options o = {.tokens = 16, .routing = "uniform", .seed = 1, .repeat = 2, .sets = 3, .ops = "layer"};
    T_EQ(run("E=4 K=2 H=32 F=16", o), MOEC_OK);
    T_EQ(bench.count, 0);
    T_EQ(bench.sets, 3);
    T_OK(bench.layer.measured && !bench.layer.difference);
}

T_CASE(one_op_with_peers) {
    moec_bench_options o = {.tokens = 8, .routing = "uniform", .seed = 1, .repeat = 2, .sets = 1,
                            .ops = "linear", .peers = true};
    T_EQ(run("H=32 F=16 dtype=f32", o), MOEC_OK);
    T_EQ(bench.count, 1);
    for (int i = 0; i < MOEC_BENCH_PEERS && bench.peer[i]; i++)
        T_OK(bench.peer_there[i] == (bench.row[0].peer_ms[i] > 0));
    T_OK(!bench.layer.measured);
}

T_CASE(any_device_can_time_its_copy) {
    moec_device *device;
    double bytes = 0;
    T_EQ(moec_device_open("cpu-scalar", 1, &device, &err), MOEC_OK);
    T_EQ(moec_ceiling_plain_copy(device, &bytes, &err), MOEC_OK);
    T_OK(bytes > 1e8);
    moec_device_close(device);
}

T_CASE(packed_rows_beside_gathered_ones) {
    moec_bench_options o = {.tokens = 16, .routing = "uniform", .seed = 1, .repeat = 2, .sets = 1,
                            .ops = "up,up.plain,up.packed,dw1.packed,dw2.packed,dh.packed"};
    T_EQ(run("E=4 K=2 H=32 F=16", o), MOEC_OK);
    T_EQ(bench.count, 6);
    T_OK(row("up.plain")->flops == row("up")->flops && row("up.packed")->flops == row("up")->flops);
    o.ops = "down.packed"; /* down gathers nothing */
    T_EQ(run("E=4 K=2 H=32 F=16", o), MOEC_E_SPEC);
    o.ops = "up.fast";
    T_EQ(run("E=4 K=2 H=32 F=16", o), MOEC_E_SPEC);
}

T_CASE(wrong_questions) {
    moec_bench_options o = {.tokens = 0, .routing = "uniform", .seed = 1, .repeat = 2};
    T_EQ(run("H=32 F=16", o), MOEC_E_INVAL);
    o.tokens = 8;
    o.ops = "up,nonsense";
    T_EQ(run("H=32 F=16", o), MOEC_E_SPEC);
    T_HAS(err.text, "nonsense");
    o.ops = NULL;
    o.routing = "sideways";
    T_OK(run("H=32 F=16", o) != MOEC_OK);
}

T_MAIN
