/* Kernels of the CUDA targets sm_80 and sm_90a run on this CPU by the machine of
 * tests/sim: the text that NVRTC would get, thread by thread, against the oracle. Products of wgmma happen as late as
 * they may, copies too or at once; warps run in order or backwards. Planted faults show that the machine sees them.
 * clang 19 is needed. */
#include "user.h"

#include "verify.h"

static int tokens; /* of a run */

static void fresh(void) {
    char path[MOEC_PATH_BYTES];
    if (!moec_program_find("clang-19", path)) T_SKIP("clang-19 is not here");
    own_cache();
    limit_s = 1500, tokens = 130;
    setenv("MOEC_CUDA", "build/tests/libsimcuda.so", 1);
    setenv("MOEC_NVRTC", "build/tests/libsimnvrtc.so", 1);
    unsetenv("SIM_COPIES"), unsetenv("SIM_WARPS"), unsetenv("SIM_PLANT");
}

/* `moec verify SPEC -t TARGET --op OP` (every op when NULL) on a few tokens; the exit code. */
static int verify(const char *target, const char *op, const char *spec, const char *routing) {
    char words[512];
    snprintf(words, sizeof words, "verify %s -t %s --tokens %d --routing %s %s %s", spec, target, tokens, routing,
             op ? "--op" : "", op ? op : "");
    return moec(words); /* not 0 after a signal too */
}

static void right(const char *target, const char *op, const char *spec, const char *routing) {
    int code = verify(target, op, spec, routing);
    if (code) T_FAIL("%s of %s on %s: exit code %d\n%s", op ? op : "an op", spec, target, code, output);
    else T_HAS(output, " 0 wrong, 0 ops skipped");
}

/* The text with `plant` in it (OLD=>NEW) fails, with `sees` among what is said; NULL: wrong, or refused by the
 * simulated GPU. The cache does not know what is planted: it is empty before and after. */
static void plant_seen(const char *target, const char *op, const char *spec, const char *plant, const char *sees) {
    remove_dir();
    setenv("SIM_PLANT", plant, 1);
    int code = verify(target, op, spec, "uniform");
    if (!code) T_FAIL("nobody saw %s in %s", plant, op);
    if (sees ? !strstr(output, sees) : !strstr(output, "WRONG") && !strstr(output, "simulated GPU: "))
        T_FAIL("%s in %s: no \"%s\"\n%s", plant, op, sees ? sees : "WRONG", output);
    unsetenv("SIM_PLANT");
    remove_dir();
}

static const char *const rows[] = {"up", "down", "dh", "dx"}, *const sums[] = {"dw1", "dw2"},
                  *const attention[] = {"attention", "attention_bwd"},
                  *const dense[] = {"linear", "linear_dx", "linear_dw"};
#define EACH(list, op) for (size_t i = 0; i < sizeof list / sizeof *list && ((op) = list[i], true); i++)

T_CASE(row_gemms_of_ragged_tiles) {
    const char *op;
    fresh();
    EACH(rows, op) right("sm_80", op, "E=3 K=2 H=72 F=104 bias=1 layout=interleaved act=geglu", "uniform");
}
T_CASE(row_gemms_with_empty_experts_and_early_copies) {
    const char *op;
    fresh();
    setenv("SIM_COPIES", "early", 1);
    setenv("SIM_WARPS", "backwards", 1);
    EACH(rows, op) right("sm_80", op, "E=8 K=1 H=136 F=40 act=relu2", "empty:0.5");
}
T_CASE(sums_over_ragged_rows) {
    const char *op;
    fresh();
    EACH(sums, op) right("sm_80", op, "E=3 K=2 H=72 F=104", "empty:0.3");
    setenv("SIM_COPIES", "early", 1);
    EACH(sums, op) right("sm_80", op, "E=1 K=1 H=136 F=40 wgrad=same act=gelu", "uniform");
}
T_CASE(dense_gemms) {
    const char *op;
    fresh();
    EACH(dense, op) right("sm_80", op, "H=136 F=200", "uniform");
}
/* With more experts than a few a warp brings the logits of its tokens into shared memory. */
T_CASE(route_with_tiles_of_logits) {
    fresh();
    right("sm_80", "route", "E=64 K=3 H=32 F=24", "zipf:1");
    right("sm_80", "route", "E=66 K=2 H=32 F=24 router=sigmoid_bias capacity=1.25", "uniform");
}
/* With programmatic launch, larger steps and dh's inputs of Hopper's fallback. */
T_CASE(the_fallback_of_sm_90a) {
    fresh();
    right("sm_90a", "up", "E=3 K=2 H=72 F=104 bias=1 layout=interleaved", "uniform");
    right("sm_90a", "dh", "E=3 K=2 H=72 F=104 bias=1 act=silu", "uniform");
}
/* wgmma, boxes of the copy engine and mbarriers; sequences of up to 400 tokens pass every stage of the rings. */
T_CASE(attention_on_hopper) {
    const char *op;
    fresh();
    tokens = 450;
    EACH(attention, op) right("sm_90a", op, "heads=2 kv=1 dim=128", "uniform");
    EACH(attention, op) right("sm_90a", op, "heads=3 kv=1 dim=64", "uniform");
}
T_CASE(attention_on_hopper_with_early_copies) {
    const char *op;
    fresh();
    setenv("SIM_COPIES", "early", 1);
    setenv("SIM_WARPS", "backwards", 1);
    EACH(attention, op) right("sm_90a", op, "heads=2 kv=2 dim=64", "uniform");
    tokens = 1;
    EACH(attention, op) right("sm_90a", op, "heads=1 kv=1 dim=128", "uniform");
}
/* Attention over T tokens in sequences of `length`, in this process: `moec verify` draws the lengths. What the launch
 * says; a wrong number is a failed check. */
static moec_status sequences(int64_t T, int64_t length) {
    moec_pattern pattern;
    moec_device *device;
    moec_module *module = NULL;
    moec_verdict verdict = {0};
    moec_error err = {0};
    moec_case c = {.op = moec_op_get(MOEC_OP_attention), .T = T, .seed = 1};
    moec_status rc = moec_spec_parse("heads=1 kv=1 dim=64", &c.spec, &err);
    if (!rc) rc = moec_pattern_parse("uniform", &pattern, &err);
    if (!rc) rc = moec_case_make(&c, &pattern, &err);
    if (!rc) rc = moec_device_open("sm_90a", 0, &device, &err);
    if (rc) T_FAIL("%s", err.text);
    if (rc) return rc;
    c.ref.arg[moec_op_arg(c.op, "seq")].scalar = (double)length;
    rc = moec_module_create(device, c.op, &c.spec, NULL, 0, &module, &err);
    if (!rc) rc = moec_case_solve(&c, device->target, &err);
    if (rc) T_FAIL("%s", err.text);
    if (!rc) rc = moec_trial(device, module, &c, &verdict, &err);
    if (*verdict.fault) T_FAIL("sequences of %d: %s", (int)length, verdict.fault);
    moec_module_free(device, module);
    moec_device_close(device);
    moec_case_free(&c);
    return rc;
}
/* The last tile has one query, and its last key is the last of a tile: a step without a mask ends the kernel. */
T_CASE(attention_of_sequences_that_end_behind_a_tile) {
    fresh();
    for (int64_t length = 256; length <= 258; length++) T_EQ(sequences(513, length), MOEC_OK);
    T_EQ(sequences(512, 257), MOEC_OK);
    T_EQ(sequences(514, 257), MOEC_OK);
    remove_dir();
    setenv("SIM_PLANT", "if (i + 1 == steps || key + KEYS=>if (key + KEYS", 1); /* right, but for an arrival too many */
    T_OK(sequences(513, 257) != MOEC_OK);
    T_EQ(sequences(513, 256), MOEC_OK);
    unsetenv("SIM_PLANT");
    remove_dir();
}
/* Clusters of two and of one; rows gathered and packed (in some variant of a case). */
T_CASE(row_gemms_on_hopper) {
    const char *op;
    fresh();
    EACH(rows, op) right("sm_90a", op, "E=7 K=3 H=264 F=136 act=geglu", "zipf:1");
    EACH(dense, op) right("sm_90a", op, "H=136 F=200", "uniform");
    right("sm_90a", "down", "E=3 K=2 H=328 F=72 bias=1 --config cluster=1~late=0", "uniform");
    setenv("SIM_COPIES", "early", 1);
    setenv("SIM_WARPS", "backwards", 1);
    EACH(rows, op) right("sm_90a", op, "E=8 K=1 H=136 F=264 act=silu", "empty:0.5");
    right("sm_90a", "dx", "E=3 K=2 H=328 F=72 --config cluster=1~late=0~pp=1~bn=128", "uniform");
}
/* A cluster with two column tiles of the same rows; A comes to both at once where no rows are gathered. */
T_CASE(column_tiles_beside_each_other) {
    fresh();
    right("sm_90a", "up", "E=3 K=2 H=264 F=136 --config beside=1", "uniform");
    right("sm_90a", "down", "E=3 K=2 H=264 F=136 --config beside=1", "zipf:1");
    right("sm_90a", "dx", "E=3 K=2 H=264 F=136 --config beside=1", "uniform");
    plant_seen("sm_90a", "down", "E=3 K=2 H=264 F=136 --config beside=1", "t.row + rank * (BM / 2)=>t.row", NULL);
}
T_CASE(sums_over_ragged_rows_on_hopper) {
    const char *op;
    fresh();
    EACH(sums, op) right("sm_90a", op, "E=7 K=3 H=264 F=136 wgrad=same --config split=0~late=1", "zipf:1");
    right("sm_90a", "dw1", "E=40 K=3 H=72 F=72 wgrad=same --config cluster=1~split=0~late=1", "empty:0.3");
    setenv("SIM_COPIES", "early", 1);
    setenv("SIM_WARPS", "backwards", 1);
    right("sm_90a", "dw2", "E=3 K=2 H=136 F=136 wgrad=same --config split=0~late=0", "uniform");
    right("sm_90a", "dw1", "E=3 K=2 H=136 F=72 --config cluster=1~split=0", "uniform");
    right("sm_90a", "linear_dw", "H=136 F=200 wgrad=same --config cluster=1~split=0~late=1", "uniform");
}
/* Enough clusters that their places in the schedule are not their numbers; two of them are left over. */
#define DEALT "E=7 K=2 H=328 F=136 wgrad=same --variant 0 --config cluster=1~split=0"
T_CASE(sums_by_clusters_of_eight_gpcs) {
    fresh();
    setenv("FAKE_CUDA_SMS", "18", 1);
    right("sm_90a", "dw1", DEALT, "zipf:1");
    plant_seen("sm_90a", "dw1", DEALT, "c % 8 * each + c / 8 : c;=>c % 8 * each : c;", "WRONG");
    unsetenv("FAKE_CUDA_SMS");
}
/* A quarter of the rows in boxes of one row: columns end within the second box, or a whole tile of them lies behind
 * the last; groups end within a step. */
#define BOXES "wgrad=same --config boxes=1~split=0"
T_CASE(sums_of_rows_that_the_copy_engine_gathers) {
    const char *op;
    fresh();
    EACH(sums, op) right("sm_90a", op, "E=7 K=3 H=200 F=136 " BOXES, "zipf:1");
    for (tokens = 1; tokens >= 0; tokens--) right("sm_90a", "dw1", "E=3 K=2 H=136 F=72 " BOXES, "uniform");
    tokens = 130;
    setenv("SIM_COPIES", "early", 1);
    right("sm_90a", "dw1", "E=5 K=2 H=328 F=72 " BOXES "~cluster=1~late=0", "empty:0.3");
    plant_seen("sm_90a", "dw1", "E=3 K=2 H=136 F=72 " BOXES, "first + i);=>first + i % 3);", "WRONG");
    setenv("SIM_COPIES", "late", 1);
    plant_seen("sm_90a", "dw1", "E=3 K=2 H=136 F=72 " BOXES, "(STAGE_A / 4 + STAGE_B)=>STAGE_B", NULL);
}
#define PIECES "E=5 K=1 H=72 F=40 wgrad=same --variant 0 --config cluster=1~late=0~split=1"
T_CASE(sums_in_pieces_on_hopper) {
    fresh();
    tokens = 9000; /* with fewer no tile of this GPU's few SMs is worth cutting */
    right("sm_90a", "dw1", PIECES, "zipf:1");
    plant_seen("sm_90a", "dw1", PIECES, "v[4 * j] += part.x;=>v[4 * j] += 2 * part.x;", "WRONG");
    tokens = 4000;
    right("sm_90a", "linear_dw", "H=136 F=72 --variant 0 --config split=1", "uniform");
}
T_CASE(every_op_and_the_layer) {
    fresh();
    right("sm_80", NULL, "E=5 K=2 H=72 F=40 bias=1 shared=24 capacity=1.25 heads=4 kv=2 dim=24 V=100", "zipf:1");
    right("sm_80", "layer", "E=6 K=2 H=40 F=24 dtype=f32 router=sigmoid_bias groups=3/2", "uniform");
    right("sm_90a", NULL, "E=5 K=2 H=72 F=40 bias=1 shared=24 capacity=1.25 wgrad=same heads=4 kv=2 dim=64 V=100", "zipf:1");
}

/* ---- planted faults ---- */

/* sees "": rows of nobody are written, the program may end in any way. */
static const struct { const char *op, *plant, *sees; } faults[] = {
    {"up", "wait_copies<STAGES - 2>=>wait_copies<STAGES - 1>", "WRONG"},
    {"up", "barrier(); // the next step is complete=>// ", "WRONG"},
    {"down", "begin(step + STAGES - 1, write)=>begin(step + STAGES - 1, read)", "WRONG"},
    {"down", "((chunk ^ turn) * 16)=>chunk * 16", "simulated GPU: ldmatrix with a bank conflict"},
    {"up", "line % 8 / 2 * 8 + line / 8 % 4 * 2 + line % 2=>line % 32", "WRONG"},
    {"dx", "exchange(v[0], v[2], 2), exchange(v[1], v[3], 2);=>", "WRONG"},
    {"dx", "if (!live) continue;=>", ""},
    {"dh", "chunk_at<B_WIDTH>(l / 8 % 2 * 8 + l % 8, column / 8 + l / 16)=>"
           "chunk_at<B_WIDTH>(l / 16 * 8 + l % 8, column / 8 + l / 8 % 2)", "WRONG"},
    {"dw1", "tokens[slot].at[thread] = next;=>;", "WRONG"},
    {"dw2", "return r >= end ? -1 :=>return", "simulated GPU: cp.async from nowhere"},
    {"dw2", "a_there && token[i] >= 0=>a_there", "WRONG"},
};

T_CASE(planted_faults_are_seen) {
    fresh();
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        plant_seen("sm_80", faults[i].op, "E=2 K=2 H=136 F=72", faults[i].plant, faults[i].sees);
}
/* Copies come at once: what lets go of a stage too early is seen. */
static const struct { const char *op, *plant; } hopper_faults[] = {
    {"attention", "mma_wait<1>(); // the scores=>mma_wait<2>();"},
    {"attention", "mma_wait<0>(); // the sums over the values before=>mma_wait<1>();"},
    {"attention", "if (at > r.t[half] ||=>if (at > r.t[half] + 1 ||"},
    {"attention", "barrier_wait(smem + BAR_K_FREE + 8 * s, parity ^ 1);=>"},
    {"attention", "odd = odd_values(smem, 0, thread);=>"},
    {"attention", "if (lane == 0) barrier_arrive(bar);=>"},
    {"attention_bwd", "mask_queries(ds, from, to, t, lane);=>"},
    {"attention_bwd", "pitch = (T + OWN - 1) / OWN * OWN;=>pitch = T / OWN * OWN;"},
    {"attention_bwd", "barrier_expect(full, 2 * BLOCKS * PIECE + (lse ? 2 * STEP * 4 : 0));=>"
                      "barrier_expect(full, 2 * BLOCKS * PIECE);"},
};

T_CASE(planted_faults_on_hopper_are_seen) {
    fresh();
    tokens = 450;
    setenv("SIM_COPIES", "early", 1);
    for (size_t i = 0; i < sizeof hopper_faults / sizeof *hopper_faults; i++)
        plant_seen("sm_90a", hopper_faults[i].op, "heads=1 kv=1 dim=64", hopper_faults[i].plant, NULL);
}
/* What the copies must be for the fault to be seen: early or late. */
static const struct { const char *copies, *plant; } sum_faults[] = {
    {"late", "(WIDTH % BN + 63) / 64 % 2 ? 0 : 1;=>1;"},
    {"late", "own ? t.row + done : next.row=>t.row + done"},
    {"late", "token[i] = s.later[i] < 0 ? -1 :=>token[i] ="},
    {"late", "barrier_arrive_after_copies(full);=>barrier_arrive(full);"},
    {"late", "barrier_wait(smem + BAR_FULL + 8 * use.at, use.parity);=>"},
    {"early", "if (kt > 0) release(smem, previous, lane);=>if (kt > 0) release(smem, use.at, lane);"},
    {"early", "mma_wait<1>(); // the step before this one is done=>mma_wait<2>(); //"},
};

T_CASE(planted_faults_in_sums_on_hopper_are_seen) {
    fresh();
    tokens = 900; /* five steps an expert, three tiles a block */
    for (size_t i = 0; i < sizeof sum_faults / sizeof *sum_faults; i++) {
        setenv("SIM_COPIES", sum_faults[i].copies, 1);
        plant_seen("sm_90a", "dw1", "E=6 K=2 H=136 F=72 wgrad=same --variant 0 --config cluster=1~split=0~late=1",
                   sum_faults[i].plant, NULL);
    }
}
/* Rows of dh have a ring of their own, whose stages hold half of the saved pre-activation behind the last step. */
static const struct { const char *copies, *plant; } ring_faults[] = {
    {"late", "barrier_wait(smem + BAR_FULL_A + 8 * use_a.at, use_a.parity);=>"},
    {"late", "barrier_arrive_after_copies(full);=>barrier_arrive(full);"},
    {"late", "barrier_expect(full_a, BM * 128);=>barrier_arrive(full_a);"},
    {"early", "if (c > 0) release(smem, previous, lane);=>if (c > 0) release(smem, use.at, lane);"},
    {"early", "STAGES_A = STAGES + AHEAD;=>STAGES_A = STAGES;"},
};
#define RINGS "E=4 K=2 H=520 F=264 --variant 0"
T_CASE(rows_loaded_ahead_on_hopper) {
    fresh();
    tokens = 700; /* several tiles a block, each of more steps than stages */
    right("sm_90a", "dh", RINGS, "uniform");
    right("sm_90a", "dh", RINGS " --config ahead=1~cluster=1", "zipf:1");
    for (size_t i = 0; i < sizeof ring_faults / sizeof *ring_faults; i++) {
        setenv("SIM_COPIES", ring_faults[i].copies, 1);
        plant_seen("sm_90a", "dh", RINGS, ring_faults[i].plant, NULL);
    }
}
/* Shared addresses of a cluster's second block have its rank in bit 24: in a descriptor it would be a part of the
 * leading offset, in a copy or a load it is another block. */
static const struct { const char *op, *plant, *sees; } cluster_faults[] = {
    {"up", "(address & 0x3FFFF) >> 4 | 1 << 16=>address >> 4 | 1 << 16", "a K-major wgmma descriptor leads on"},
    {"dw1", "(address & 0x3FFFF) >> 4 | (8192=>address >> 4 | (8192", "WRONG"},
    {"up", "smem_address(smem_bytes);=>smem_address(smem_bytes) & 0xFFFFFF;", "in shared memory of another block"},
    {"up", "1024 >> 4 | 1 << 30=>1024 >> 4 | 1 << 29", "a wgmma descriptor with bits outside of its fields"},
};
#define CLUSTER_OF(n) "E=2 K=2 H=136 F=72 --variant 0 --config cluster=" #n

T_CASE(planted_faults_in_addresses_of_clusters_are_seen) {
    fresh();
    for (size_t i = 0; i < sizeof cluster_faults / sizeof *cluster_faults; i++)
        plant_seen("sm_90a", cluster_faults[i].op, CLUSTER_OF(2), cluster_faults[i].plant, cluster_faults[i].sees);
    setenv("SIM_PLANT", cluster_faults[0].plant, 1); /* alone a block is number 0 */
    right("sm_90a", "up", CLUSTER_OF(1), "uniform");
    unsetenv("SIM_PLANT");
    remove_dir();
}
T_CASE(a_fault_without_a_place_is_refused) {
    fresh();
    setenv("SIM_PLANT", "no such text=>", 1);
    T_OK(verify("sm_80", "down", "E=2 K=1 H=64 F=64", "uniform") != 0);
    T_HAS(output, "the text has no place");
}

T_MAIN
