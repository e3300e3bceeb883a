/* gen: from a spec to text. The whole interface of the generator.
 *
 * gen is pure: no device, clock, file or network. It reads a spec (what is computed), an op (which
 * part), a target (where) and a config (how) and writes one self-contained kernel source through
 * Lua templates embedded in the binary. Same input, same bytes, on any machine.
 *
 * Notation everywhere: T tokens, H hidden, F expert width, U rows of W1 per expert (2F when the
 * activation is gated, else F), E experts, K top-k, R routed rows (at most T*K). */
#ifndef MOEC_GEN_H
#define MOEC_GEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

/* ---- spec: what is computed (spec.c) ------------------------------------------------------- */

enum { MOEC_ACT_SWIGLU, MOEC_ACT_GEGLU, MOEC_ACT_REGLU, MOEC_ACT_SILU, MOEC_ACT_GELU, MOEC_ACT_RELU,
       MOEC_ACT_RELU2, MOEC_ACT_NONE };
enum { MOEC_BF16, MOEC_F32 };
enum { MOEC_SOFTMAX_TOPK, MOEC_TOPK_SOFTMAX, MOEC_SIGMOID_BIAS, MOEC_LOGITS };
enum { MOEC_CONCAT, MOEC_INTERLEAVED };
enum { MOEC_WGRAD_F32, MOEC_WGRAD_SAME };
enum { MOEC_OUT_SAME, MOEC_OUT_F32 };

/* One field per row of spec.def. Plain data without padding: compares with memcmp. */
typedef struct moec_spec {
#define INT(field, ...)  int64_t field;
#define ENUM(field, ...) int64_t field;
#define REAL(field, ...) double field;
#define RATIO(field, second, ...) int64_t field, second;
#define EXTRA
#include "spec.def"
#undef INT
#undef ENUM
#undef REAL
#undef RATIO
#undef EXTRA
} moec_spec;

enum { MOEC_SPEC_BYTES = 1024 };

void moec_spec_default(moec_spec *spec);
/* Parses "key=value ..." over the defaults and validates. Errors show the text with a caret. */
moec_status moec_spec_parse(const char *text, moec_spec *spec, moec_error *err);
/* Checks relations between keys (K <= E, multiples of 8, groups divide E, ...). */
moec_status moec_spec_check(const moec_spec *spec, moec_error *err);
/* Canonical text of the keys named in `keys` ("E K H"), all of them when NULL. Into buf, NUL-ended. */
void moec_spec_print(const moec_spec *spec, const char *keys, char *buf, size_t bytes);
bool moec_spec_gated(const moec_spec *spec);     /* the activation has a gate: U = 2F */
int64_t moec_spec_U(const moec_spec *spec);
const char *moec_spec_enum(const char *key, int64_t value); /* "swiglu"; NULL when out of range */
/* Calls visit for each row of spec.def: name, doc, text of default (for help and docs). */
void moec_spec_keys(void (*visit)(void *user, const char *name, const char *doc, const char *dflt),
                    void *user);

/* ---- expressions over named sizes (expr.c) ------------------------------------------------- */

/* Sizes known only at run time join those of the spec in shapes, grids and scratch sizes. */
typedef struct moec_sizes {
    const moec_spec *spec; /* every integer key by its name, and U */
    int64_t T, R;          /* tokens, row capacity */
    int64_t N;             /* elements, for elementwise ops */
    int64_t threads;       /* CPU worker threads */
    int64_t sms;           /* GPU multiprocessors */
} moec_sizes;

/* Value of e.g. "E*U*H", "(R+127)/128", "min(sms, T)". Division floors. */
moec_status moec_expr(const char *text, const moec_sizes *sizes, int64_t *value, moec_error *err);

/* ---- op: which part (op.def, op.c) --------------------------------------------------------- */

typedef enum moec_op_id {
#define OP(name, ...) MOEC_OP_##name,
#include "op.def"
#undef OP
    MOEC_OP_COUNT
} moec_op_id;

typedef enum { MOEC_IN, MOEC_OUT, MOEC_INOUT, MOEC_SCALAR } moec_arg_role;
typedef enum { MOEC_T_ACT, MOEC_T_WGRAD, MOEC_T_OUT, MOEC_T_BF16, MOEC_T_F32, MOEC_T_F64, MOEC_T_I32,
               MOEC_T_I64, MOEC_T_BYTE } moec_arg_type;

/* One argument of an op. Every target passes the same list in the same order. */
typedef struct moec_arg_info {
    char name[16];
    moec_arg_role role;
    moec_arg_type type;   /* ACT, WGRAD, OUT resolve through the spec: see moec_arg_dtype */
    bool optional;        /* the caller may pass NULL; the text says what that means */
    char shape[32];       /* expressions separated by commas, outermost first; "" for scalars */
} moec_arg_info;

enum { MOEC_MAX_ARGS = 24 };

typedef struct moec_op {
    moec_op_id id;
    const char *name;
    const char *keys;     /* the spec keys its kernels depend on */
    const char *doc;      /* what it computes, as a formula */
    int arg_count;
    moec_arg_info args[MOEC_MAX_ARGS];
} moec_op;

const moec_op *moec_op_get(moec_op_id id);
const moec_op *moec_op_find(const char *name); /* NULL when unknown */
/* The keys without which an op has no size ("heads, kv and dim"); NULL: the spec has what it needs. */
const char *moec_op_lacks(const moec_op *op, const moec_spec *spec);
int moec_op_arg(const moec_op *op, const char *name); /* index, -1 when unknown */
/* Concrete element type of an argument under a spec: one of BF16 F32 F64 I32 I64 BYTE. */
moec_arg_type moec_arg_dtype(const moec_arg_info *arg, const moec_spec *spec);
size_t moec_type_bytes(moec_arg_type type);
const char *moec_type_name(moec_arg_type type);
/* Number of elements of an argument. */
moec_status moec_arg_count(const moec_arg_info *arg, const moec_sizes *sizes, int64_t *count,
                           moec_error *err);

/* ---- target: where (target.def, target.c) -------------------------------------------------- */

typedef struct moec_target {
    const char *name;     /* "cpu-avx512", "sm_90a", "gfx942" */
    const char *family;   /* "cpu", "cuda", "hip": who runs it */
    const char *dialect;  /* "c", "cuda", "hip": which words the templates use */
    const char *suffix;   /* of emitted sources: ".c", ".cu", ".hip" */
    const char *flags;    /* compiler flags that select the machine */
    const char *needs;    /* what the machine must have, in words */
    const char *fallback; /* the next best target of the family, "" at the end */
    int vector_bits;      /* CPU: SIMD width, 0 for scalar */
    bool bf16_dot;        /* CPU: vdpbf16ps */
    bool amx;             /* CPU: TDPBF16PS tiles */
    int warp;             /* GPU: lanes of a warp or wave */
    int shared_bytes;     /* GPU: shared memory (LDS) of a block */
    int registers;        /* registers of a thread (GPU) or of the file (CPU) */
    const char *doc;
} moec_target;

const moec_target *moec_target_find(const char *name);
const moec_target *moec_target_at(int index); /* NULL past the end */

/* ---- config: how (space.c) ----------------------------------------------------------------- */

enum { MOEC_MAX_TUNABLES = 16 };
typedef struct moec_config {
    int count;
    struct { char name[16]; int64_t value; } item[MOEC_MAX_TUNABLES];
} moec_config;

void moec_config_print(const moec_config *config, char *buf, size_t bytes); /* "mr=6 nr=4" */

/* ---- gen: one Lua state and an arena (lhost.c, tmpl.c, space.c, emit.c) --------------------- */

typedef struct moec_gen moec_gen; /* one thread at a time */

moec_status moec_gen_new(moec_gen **gen, moec_error *err);
void moec_gen_free(moec_gen *gen);

/* A kernel request. `tokens` guides defaults only (0: a large batch). */
typedef struct moec_request {
    const moec_op *op;
    const moec_spec *spec;
    const moec_target *target;
    const moec_config *config; /* NULL: the descriptor's default */
    int64_t tokens;
} moec_request;

/* Is there a template for this op on this target, for some dtype? */
bool moec_gen_has(moec_gen *gen, const moec_op *op, const moec_target *target);
/* ... for the request's op, target and dtype? */
bool moec_gen_serves(moec_gen *gen, const moec_request *request);
moec_status moec_config_default(moec_gen *gen, const moec_request *request, moec_config *config,
                                moec_error *err);
/* Parses "name=value ..." over the default; checks names, domains and constraints. */
moec_status moec_config_parse(moec_gen *gen, const moec_request *request, const char *text,
                              moec_config *config, moec_error *err);
/* "Does not apply" is not an error: false and a reason into why[bytes]. */
bool moec_config_legal(moec_gen *gen, const moec_request *request, const moec_config *config,
                       char *why, size_t bytes);
/* Visits every legal config until visit returns false. Rejected ones arrive with `why` set. */
moec_status moec_space_each(moec_gen *gen, const moec_request *request,
                            bool (*visit)(void *user, const moec_config *config, const char *why),
                            void *user, moec_error *err);

enum { MOEC_MAX_TMAPS = 6, MOEC_EXPR_BYTES = 160 };

/* A tensor map that the CUDA launcher makes on the host and appends after the op's arguments. */
typedef struct moec_tmap {
    char arg[16];                       /* base address: the op's argument of this name */
    int rank;                           /* 1..5 */
    char dim[5][MOEC_EXPR_BYTES];       /* elements, innermost first */
    char stride[5][MOEC_EXPR_BYTES];    /* bytes, [0] unused */
    int box[5];                         /* elements */
    int swizzle;                        /* bytes: 0, 32, 64, 128 */
    int l2;                             /* bytes that a load brings into L2 around those it asks for: 0, 64, 128, 256 */
    char offset[MOEC_EXPR_BYTES];       /* bytes added to the base, "" for 0 */
} moec_tmap;

/* How to launch: what the runtime must know besides the op's arguments. Expressions over sizes. */
typedef struct moec_launch {
    char scratch[MOEC_EXPR_BYTES];  /* bytes of scratch passed as the last pointer, "0" for none */
    int phases;                     /* calls of the entry, each after the one before is complete;
                                     * above 1 it takes the phase (from 0): CPU as a fourth argument,
                                     * GPU after scratch */
    char grid[MOEC_EXPR_BYTES];     /* GPU: blocks; one expression, or one a phase between ';' */
    int block;                      /* GPU: threads of a block */
    int cluster;                    /* GPU: blocks of a cluster, 1 without */
    int shared_bytes;               /* GPU: dynamic shared memory */
    int pdl;                        /* CUDA: 1 allows programmatic dependent launch */
    int tmap_count;
    moec_tmap tmap[MOEC_MAX_TMAPS];
} moec_launch;

/* Blocks of one phase: the phase-th expression of launch->grid, the last one when there are fewer. */
moec_status moec_launch_grid(const moec_launch *launch, int phase, const moec_sizes *sizes,
                             int64_t *blocks, moec_error *err);

/* What a template counts on in the machine code that a compiler makes of its text (HIP): level 0 holds the
 * binary to it. 0 or "": nothing is promised. */
typedef struct moec_promise {
    int lds_bytes;          /* static shared memory of a block */
    int waves;              /* of a SIMD that registers and LDS must leave room for */
    char matrix[16];        /* the only matrix instruction, "32x32x8" of bf16 */
    int matrix_count;       /* of them in a turn of the main loop */
} moec_promise;

/* An emitted kernel. Strings are owned by the kernel: moec_kernel_free. */
typedef struct moec_kernel {
    const moec_op *op;
    const moec_target *target;
    moec_spec spec;
    moec_config config;
    char *symbol;         /* the extern "C" entry, names op, dtype, target, tile and hash */
    char *source;         /* full text with header, NUL-ended */
    size_t source_bytes;
    char hash[33];        /* 128-bit content hash of the source, hex */
    char flops[MOEC_EXPR_BYTES], bytes[MOEC_EXPR_BYTES]; /* static cost, expressions */
    moec_launch launch;
    moec_promise promise;
} moec_kernel;

/* Writes one kernel. Fails with E_UNSUPPORTED when no template serves op on target, E_SPEC when the
 * config is not legal (with the reason), E_TEMPLATE with template file and line otherwise. */
moec_status moec_emit(moec_gen *gen, const moec_request *request, moec_kernel *kernel,
                      moec_error *err);
void moec_kernel_free(moec_kernel *kernel);

/* Checks emitted text against the house rules (lint.c). OK, or E_TEMPLATE naming the line. */
moec_status moec_lint(const char *source, moec_error *err);

/* Renders a template text against a Lua environment: for tests of the engine itself. `out` is
 * malloc'ed. `env` is Lua source that returns the table of names the template sees. */
moec_status moec_render(moec_gen *gen, const char *name, const char *text, const char *env,
                        char **out, moec_error *err);

/* 128-bit hash (XXH3) of bytes as 32 hex digits and NUL. */
void moec_hash_hex(const void *data, size_t bytes, char hex[33]);
const char *moec_version(void); /* "0.1.0" */

/* One embedded template file (templates/NAME), made at build time by embed.c. */
typedef struct moec_template_file { const char *name; const char *text; size_t bytes; } moec_template_file;
extern const moec_template_file moec_template_files[];
extern const int moec_template_file_count;

#endif
