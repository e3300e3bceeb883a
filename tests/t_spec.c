/* The tables of gen: spec grammar, expressions over sizes, ops and targets. */
#include <stdlib.h>

#include "gen.h"
#include "t.h"

static moec_status parse(const char *text, moec_spec *spec, char *message, size_t bytes) {
    moec_error err = {0};
    moec_status rc = moec_spec_parse(text, spec, &err);
    if (message) snprintf(message, bytes, "%s", err.text);
    return rc;
}

/* ---- spec: what goes in comes out ---- */

T_CASE(spec_defaults_print_in_order) {
    moec_spec s;
    char text[MOEC_SPEC_BYTES];
    T_EQ(parse("", &s, NULL, 0), MOEC_OK);
    moec_spec_print(&s, NULL, text, sizeof text);
    T_STR(text, "E=1 K=1 H=64 F=64 act=swiglu dtype=bf16 router=softmax_topk norm=1 layout=concat "
                "shared=0 capacity=0");
}

T_CASE(spec_round_trip) {
    static const char *const texts[] = {
        "E=64 K=6 H=2048 F=1408 act=swiglu dtype=bf16 router=softmax_topk norm=1 layout=concat shared=0 "
        "capacity=0",
        "E=256 K=8 H=7168 F=2048 act=swiglu dtype=bf16 router=sigmoid_bias norm=1 layout=interleaved "
        "shared=2048 capacity=0 groups=8/4 scale=2.5",
        "E=8 K=2 H=8 F=8 act=relu2 dtype=f32 router=logits norm=0 layout=concat shared=8 capacity=1.25 "
        "bias=1 wgrad=same out=f32 heads=8 kv=2 dim=64 V=32000",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        moec_spec s, again;
        char text[MOEC_SPEC_BYTES];
        T_EQ(parse(texts[i], &s, NULL, 0), MOEC_OK);
        moec_spec_print(&s, NULL, text, sizeof text);
        T_STR(text, texts[i]);
        T_EQ(parse(text, &again, NULL, 0), MOEC_OK);
        T_EQ(memcmp(&s, &again, sizeof s), 0);
    }
}

T_CASE(spec_order_and_spaces_do_not_matter) {
    moec_spec a, b;
    T_EQ(parse("E=8 K=2 dtype=f32", &a, NULL, 0), MOEC_OK);
    T_EQ(parse("  dtype=f32   K=2 E=8 ", &b, NULL, 0), MOEC_OK);
    T_EQ(memcmp(&a, &b, sizeof a), 0);
}

T_CASE(spec_prints_listed_keys) {
    moec_spec s;
    char text[MOEC_SPEC_BYTES], tiny[6];
    T_EQ(parse("E=8 K=2 H=16", &s, NULL, 0), MOEC_OK);
    moec_spec_print(&s, "E H act", text, sizeof text);
    T_STR(text, "E=8 H=16 act=swiglu");
    moec_spec_print(&s, "E H act", tiny, sizeof tiny); /* cut, never overrun */
    T_STR(tiny, "E=8 H");
}

T_CASE(spec_derived) {
    static const char *const gated[] = {"act=swiglu F=24", "act=geglu F=24", "act=reglu F=24"};
    static const char *const plain[] = {"act=silu F=24", "act=gelu F=24", "act=relu F=24",
                                        "act=relu2 F=24", "act=none F=24"};
    moec_spec s;
    for (int i = 0; i < 3; i++) {
        T_EQ(parse(gated[i], &s, NULL, 0), MOEC_OK);
        T_EQ(moec_spec_U(&s), 48);
    }
    for (int i = 0; i < 5; i++) {
        T_EQ(parse(plain[i], &s, NULL, 0), MOEC_OK);
        T_EQ(moec_spec_U(&s), 24);
    }
    T_STR(moec_spec_enum("router", MOEC_SIGMOID_BIAS), "sigmoid_bias");
    T_OK(moec_spec_enum("router", 99) == NULL);
    T_OK(moec_spec_enum("nothing", 0) == NULL);
}

/* ---- spec: every way to be wrong, with the text a user reads ---- */

T_CASE(spec_carets) {
    static const struct { const char *text, *message; } bad[] = {
        {"E=8 Q=2",
         "unknown key\n  E=8 Q=2\n      ^\nhint: keys are: E K H F act dtype router norm layout shared "
         "capacity bias groups scale wgrad out heads kv dim V columns "},
        {"E=8 K", "expected key=value\n  E=8 K\n      ^\nhint: a spec is words such as E=64 K=6 H=2048 F=1408; "
                  "moec spec --help lists the keys"},
        {"E=8 E=9", "this key was given before\n  E=8 E=9\n      ^"},
        {"E=0", "E is a whole number from 1 to 4096 (experts)\n  E=0\n    ^"},
        {"K=2x", "K is a whole number from 1 to 16 (experts chosen for each token (top-k))\n  K=2x\n    ^"},
        {"act=tanh",
         "act is one of: swiglu geglu reglu silu gelu relu relu2 none (activation between the two GEMMs; "
         "the -glu ones are gated)\n  act=tanh\n      ^"},
        {"capacity=-1",
         "capacity is a number from 0 to 1000 (capacity factor c: an expert keeps ceil(c*T*K/E) rows by "
         "weight; 0 is dropless)\n  capacity=-1\n           ^"},
        {"groups=4/5",
         "groups is written G/g, 1 <= g <= G <= 4096 (sigmoid_bias: G groups of experts, a token draws from "
         "its best g; written G/g)\n  groups=4/5\n         ^"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        moec_spec s;
        char message[MOEC_ERROR_BYTES];
        T_EQ(parse(bad[i].text, &s, message, sizeof message), MOEC_E_SPEC);
        T_STR(message, bad[i].message);
    }
}

T_CASE(spec_relations) {
    static const struct { const char *text, *part; } bad[] = {
        {"E=2 K=3", "K=3 is larger than E=2"},
        {"H=12", "H=12 is not a multiple of 8"},
        {"F=20", "F=20 is not a multiple of 8"},
        {"shared=4", "shared=4 is not a multiple of 8"},
        {"act=relu layout=interleaved", "needs a gated activation"},
        {"E=8 groups=4/2", "goes with router=sigmoid_bias only"},
        {"E=10 router=sigmoid_bias groups=4/2", "does not divide E=10"},
        {"E=8 K=5 router=sigmoid_bias groups=4/2", "K=5 experts do not fit in 2 groups of 2"},
        {"heads=6 kv=4 dim=8", "does not divide heads=6"},
        {"heads=6 dim=8", "does not divide heads=6"},
        {"heads=4 kv=2 dim=7", "not an even head size"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        moec_spec s;
        char message[MOEC_ERROR_BYTES];
        T_EQ(parse(bad[i].text, &s, message, sizeof message), MOEC_E_SPEC);
        T_HAS(message, bad[i].part);
        T_HAS(message, bad[i].text); /* the error names the whole spec */
    }
}

T_CASE(spec_hostile_text) {
    static const char *const bad[] = {
        "E=", "=8", "E==8", "E=8=8", "E=+8", "E=-8", "E=0x10", "E=8.0", "E=99999999999999999999", "E= 8",
        "E=8\tK=2", "E=8\nK=2", "E=\xff", "groups=4", "groups=4/", "groups=/2", "groups=0/1", "groups=4/2/1",
        "scale=nan", "scale=inf", "scale=1e999", "capacity=", "act=", "act=SWIGLU", "act=swiglu,", "%s%n",
    };
    moec_spec s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (parse(bad[i], &s, NULL, 0) != MOEC_E_SPEC) T_FAIL("accepted: %s", bad[i]);
    char *text = malloc(5000);
    memset(text, ' ', 4999);
    text[4999] = 0;
    T_EQ(parse(text, &s, NULL, 0), MOEC_E_SPEC);
    free(text);
    T_EQ(moec_spec_parse("E=0", &s, NULL), MOEC_E_SPEC); /* no error buffer is fine */
}

/* Limits of every whole-number key: min and max pass, one beyond does not. Values that relations
 * refuse are made legal by a prefix. */
T_CASE(spec_limits) {
    static const struct { const char *key, *with; int64_t min, max, step; } limits[] = {
        {"E", "", 1, 4096, 1},           {"K", "E=4096 ", 1, 16, 1},
        {"H", "", 8, 1048576, 8},        {"F", "", 8, 1048576, 8},
        {"norm", "", 0, 1, 1},           {"shared", "", 0, 1048576, 8},
        {"bias", "", 0, 1, 1},           {"heads", "kv=1 dim=2 ", 0, 1024, 1},
        {"kv", "", 0, 1024, 1},          {"dim", "", 0, 512, 1},
        {"V", "", 0, 4194304, 1},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        const int64_t value[4] = {limits[i].min, limits[i].max, limits[i].min - limits[i].step,
                                  limits[i].max + limits[i].step};
        for (int k = 0; k < 4; k++) {
            char text[128];
            moec_spec s;
            snprintf(text, sizeof text, "%s%s=%" PRId64, limits[i].with, limits[i].key, value[k]);
            if ((parse(text, &s, NULL, 0) == MOEC_OK) != (k < 2)) T_FAIL("%s", text);
        }
    }
}

static int keys_seen;
static void see_key(void *user, const char *name, const char *doc, const char *dflt) {
    moec_spec s;
    char text[128];
    (void)user;
    keys_seen++;
    T_OK(*name && *doc && *dflt);
    snprintf(text, sizeof text, "%s=%s", name, dflt);
    if (strcmp(name, "groups")) T_EQ(parse(text, &s, NULL, 0), MOEC_OK); /* 0/0 is only printed */
}

T_CASE(spec_keys_have_docs_and_defaults) {
    keys_seen = 0;
    moec_spec_keys(see_key, NULL);
    T_EQ(keys_seen, 21);
}

/* ---- expressions ---- */

static int64_t value(const char *text) {
    moec_spec s;
    parse("E=8 K=2 H=16 F=24", &s, NULL, 0);
    moec_sizes z = {.spec = &s, .T = 10, .R = 20, .N = 30, .threads = 4, .sms = 5};
    int64_t v = -1;
    return moec_expr(text, &z, &v, NULL) ? -1 : v;
}

T_CASE(expr_values) {
    T_EQ(value("E*U*H"), 8 * 48 * 16);
    T_EQ(value("(R+127)/128"), 1);
    T_EQ(value(" 2 + 3 * 4 - 5 "), 9);
    T_EQ(value("20/3*2"), 12);
    T_EQ(value("20%3"), 2);
    T_EQ(value("min(sms, T) + max(threads,N)"), 35);
    T_EQ(value("((((T))))"), 10);
}

T_CASE(expr_refuses) {
    static const char *const bad[] = {
        "", "T+", "T T", "(T", "T)", "Q", "T/0", "T%0", "min(T)", "min(T,N,R)", "9223372036854775807*2", "4*-1*",
        "T**2", "1.5", "99999999999999999999",
        "9223372036854775807+T", "0-9223372036854775807-T", "T;", "max",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (value(bad[i]) != -1) T_FAIL("accepted: %s", bad[i]);
    char deep[400];
    memset(deep, '(', 199);
    deep[199] = 'T';
    memset(deep + 200, ')', 199);
    deep[399] = 0;
    T_EQ(value(deep), -1);
}

/* ---- ops and targets ---- */

T_CASE(op_table) {
    for (int i = 0; i < MOEC_OP_COUNT; i++) {
        const moec_op *op = moec_op_get((moec_op_id)i);
        T_EQ(op->id, i);
        T_OK(moec_op_find(op->name) == op);
        T_OK(op->arg_count > 0 && *op->doc);
        for (int k = 0; k < op->arg_count; k++) {
            T_EQ(moec_op_arg(op, op->args[k].name), k); /* no name twice */
            if (op->args[k].role == MOEC_SCALAR) T_OK(!op->args[k].optional);
        }
        T_EQ(op->args[op->arg_count - 1].role, MOEC_SCALAR); /* T or N closes every list */
    }
    T_OK(moec_op_find("nothing") == NULL);
    T_EQ(moec_op_arg(moec_op_get(MOEC_OP_up), "nothing"), -1);
}

T_CASE(op_shapes_and_types) {
    moec_spec s;
    int64_t n = 0;
    parse("E=8 K=2 H=16 F=24 dtype=bf16 wgrad=same out=f32", &s, NULL, 0);
    moec_sizes z = {.spec = &s, .T = 10, .R = 20, .N = 30};
    const moec_op *up = moec_op_find("up"), *dw1 = moec_op_find("dw1"), *linear = moec_op_find("linear");
    const moec_arg_info *w1 = &up->args[moec_op_arg(up, "w1")], *b1 = &up->args[moec_op_arg(up, "b1")];
    T_EQ(moec_arg_count(w1, &z, &n, NULL), MOEC_OK);
    T_EQ(n, 8 * 48 * 16);
    T_OK(b1->optional && b1->role == MOEC_IN);
    T_EQ(moec_arg_dtype(w1, &s), MOEC_T_BF16);
    T_EQ(moec_arg_dtype(&dw1->args[moec_op_arg(dw1, "dw1")], &s), MOEC_T_BF16);
    T_EQ(moec_arg_dtype(&linear->args[moec_op_arg(linear, "y")], &s), MOEC_T_F32);
    T_EQ(moec_type_bytes(MOEC_T_BF16), 2);
    z.R = INT64_MAX / 2;
    T_EQ(moec_arg_count(&up->args[moec_op_arg(up, "hpre")], &z, &n, NULL), MOEC_E_INVAL);
}

T_CASE(target_table) {
    for (int i = 0; moec_target_at(i); i++) {
        const moec_target *t = moec_target_at(i);
        T_OK(moec_target_find(t->name) == t);
        int steps = 0; /* fallbacks lead to the family's floor and stop */
        for (const moec_target *f = t; f; f = moec_target_find(f->fallback)) {
            T_STR(f->family, t->family);
            if (++steps > 8) { T_FAIL("fallbacks of %s run in a circle", t->name); break; }
        }
    }
    T_OK(moec_target_find("sm_1") == NULL);
    T_OK(moec_target_at(-1) == NULL);
}

T_CASE(status_chain) {
    moec_error err = {0};
    T_EQ(moec_fail(&err, MOEC_E_IO, "inner %d", 1), MOEC_E_IO);
    T_EQ(moec_context(&err, MOEC_E_IO, "outer"), MOEC_E_IO);
    T_EQ(moec_hint(&err, MOEC_E_IO, "do %s", "this"), MOEC_E_IO);
    T_STR(err.text, "outer\ninner 1\nhint: do this");
    T_EQ(moec_exit_code(MOEC_E_MISMATCH), 3);
    T_EQ(moec_fail(NULL, MOEC_E_NOMEM, "x"), MOEC_E_NOMEM);
    for (int i = 0; i < 300; i++) moec_context(&err, MOEC_E_IO, "a line of context, number %d", i);
    T_OK(strlen(err.text) < sizeof err.text);
    T_HAS(err.text, "number 299");
}

T_MAIN
