/* params_names: the tensors of a checkpoint under the names of Hugging Face's models.
 *
 * One table maps each kind of tensor to its pieces: a pattern, a shape, and where the piece begins
 * in the tensor. Gate and up projections are two halves of W1; experts are slices of W1 and W2, one
 * name each. The words that differ between families are columns of a second table.
 * Sources: transformers, models/{mixtral,qwen3_moe,olmoe,deepseek_v3}/modeling_*.py. */
#include "params.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Words of a family. {moe} the block of experts, {gate} {up} {down} an expert's matrices. */
typedef struct family {
    const char *name, *architecture, *model_type;
    const char *moe, *gate, *up, *down, *shared;
} family;

static const family families[] = {
    {"qwen3_moe", "Qwen3MoeForCausalLM", "qwen3_moe", "mlp", "gate_proj", "up_proj", "down_proj",
     "shared_expert"},
    {"mixtral", "MixtralForCausalLM", "mixtral", "block_sparse_moe", "w1", "w3", "w2", "shared_expert"},
    {"olmoe", "OlmoeForCausalLM", "olmoe", "mlp", "gate_proj", "up_proj", "down_proj", "shared_expert"},
    {"deepseek", "DeepseekV3ForCausalLM", "deepseek_v3", "mlp", "gate_proj", "up_proj", "down_proj",
     "shared_experts"},
};

static const family *find_family(const char *name) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i].name, name)) return &families[i];
    return &families[0];
}

/* When a piece exists: always, only in gated models, or only in models without a gate. */
typedef enum { ANY, GATED, PLAIN } when;

/* kind, when, name within the model or layer, rows, columns ("" for a vector), first element of the
 * piece within an expert (or the tensor), elements of an expert ("" when there are no experts).
 * W is the width of the tensor's feed-forward, G twice that when gated. */
static const struct piece {
    int kind;
    when when;
    const char *name, *rows, *columns, *from, *stride;
} pieces[] = {
    {P_EMBED, ANY, "model.embed_tokens.weight", "V", "H", "0", ""},
    {P_HEAD, ANY, "lm_head.weight", "V", "H", "0", ""},
    {P_NORM_OUT, ANY, "model.norm.weight", "H", "", "0", ""},
    {P_NORM1, ANY, "input_layernorm.weight", "H", "", "0", ""},
    {P_Q, ANY, "self_attn.q_proj.weight", "heads*dim", "H", "0", ""},
    {P_K, ANY, "self_attn.k_proj.weight", "kv*dim", "H", "0", ""},
    {P_V, ANY, "self_attn.v_proj.weight", "kv*dim", "H", "0", ""},
    {P_QNORM, ANY, "self_attn.q_norm.weight", "N", "", "0", ""},
    {P_KNORM, ANY, "self_attn.k_norm.weight", "N", "", "0", ""},
    {P_O, ANY, "self_attn.o_proj.weight", "H", "heads*dim", "0", ""},
    {P_NORM2, ANY, "post_attention_layernorm.weight", "H", "", "0", ""},
    {P_ROUTER, ANY, "{moe}.gate.weight", "E", "H", "0", ""},
    {P_W1, GATED, "{moe}.experts.{e}.{gate}.weight", "F", "H", "0", "U*H"},
    {P_W1, GATED, "{moe}.experts.{e}.{up}.weight", "F", "H", "F*H", "U*H"},
    {P_W1, PLAIN, "{moe}.experts.{e}.{up}.weight", "F", "H", "0", "U*H"},
    {P_B1, GATED, "{moe}.experts.{e}.{gate}.bias", "F", "", "0", "U"},
    {P_B1, GATED, "{moe}.experts.{e}.{up}.bias", "F", "", "F", "U"},
    {P_B1, PLAIN, "{moe}.experts.{e}.{up}.bias", "F", "", "0", "U"},
    {P_W2, ANY, "{moe}.experts.{e}.{down}.weight", "H", "F", "0", "H*F"},
    {P_B2, ANY, "{moe}.experts.{e}.{down}.bias", "H", "", "0", "H"},
    {P_SHARED1, GATED, "{moe}.{shared}.{gate}.weight", "F", "H", "0", ""},
    {P_SHARED1, GATED, "{moe}.{shared}.{up}.weight", "F", "H", "F*H", ""},
    {P_SHARED1, PLAIN, "{moe}.{shared}.{up}.weight", "F", "H", "0", ""},
    {P_SHARED2, ANY, "{moe}.{shared}.{down}.weight", "H", "F", "0", ""},
    {P_DENSE1, GATED, "mlp.{gate}.weight", "F", "H", "0", ""},
    {P_DENSE1, GATED, "mlp.{up}.weight", "F", "H", "F*H", ""},
    {P_DENSE1, PLAIN, "mlp.{up}.weight", "F", "H", "0", ""},
    {P_DENSE2, ANY, "mlp.{down}.weight", "H", "F", "0", ""},
};
enum { PIECES = sizeof pieces / sizeof *pieces };

/* Fills the pattern's words in; a layer's names begin with "model.layers.N.". */
static void expand(char out[ST_NAME_BYTES], const char *pattern, const family *f, int layer, int64_t e) {
    const struct { const char *key, *word; } words[] = {
        {"{moe}", f->moe}, {"{gate}", f->gate}, {"{up}", f->up}, {"{down}", f->down},
        {"{shared}", f->shared},
    };
    int n = layer < 0 ? 0 : snprintf(out, ST_NAME_BYTES, "model.layers.%d.", layer);
    while (*pattern && n < ST_NAME_BYTES - 40) {
        size_t i = 0, count = sizeof words / sizeof *words;
        while (i < count && strncmp(pattern, words[i].key, strlen(words[i].key))) i++;
        if (i < count) {
            n += snprintf(out + n, (size_t)(ST_NAME_BYTES - n), "%s", words[i].word);
            pattern += strlen(words[i].key);
        } else if (!strncmp(pattern, "{e}", 3)) {
            n += snprintf(out + n, (size_t)(ST_NAME_BYTES - n), "%" PRId64, e);
            pattern += 3;
        } else out[n++] = *pattern++;
    }
    out[n] = 0;
}

typedef struct namer {
    params *p;
    const train_config *config;
    const family *family;
    int64_t room;
    moec_error *err;
} namer;

static moec_status grow(namer *n) {
    params *p = n->p;
    if (p->name_count < n->room) return MOEC_OK;
    n->room = n->room ? 2 * n->room : 256;
    st_tensor *names = realloc(p->names, (size_t)n->room * sizeof *names);
    if (names) p->names = names;
    int64_t *at = realloc(p->at, (size_t)n->room * sizeof *at);
    if (at) p->at = at;
    return names && at ? MOEC_OK : moec_fail(n->err, MOEC_E_NOMEM, "names of parameters");
}

/* The piece of every expert (or of the tensor): one entry each. */
static moec_status name_piece(namer *n, const param *t, const struct piece *piece) {
    moec_spec spec = n->config->spec;
    moec_sizes sizes = {.spec = &spec, .N = t->columns};
    int64_t rows, columns = 0, from, stride = 0;
    if (t->kind == P_SHARED1 || t->kind == P_SHARED2) spec.F = spec.shared;
    if (t->kind == P_DENSE1 || t->kind == P_DENSE2) spec.F = n->config->dense_F;
    MOEC_TRY(moec_expr(piece->rows, &sizes, &rows, n->err));
    if (*piece->columns) MOEC_TRY(moec_expr(piece->columns, &sizes, &columns, n->err));
    MOEC_TRY(moec_expr(piece->from, &sizes, &from, n->err));
    if (*piece->stride) MOEC_TRY(moec_expr(piece->stride, &sizes, &stride, n->err));
    for (int64_t e = 0; e < (*piece->stride ? spec.E : 1); e++) {
        MOEC_TRY(grow(n));
        params *p = n->p;
        st_tensor *s = &p->names[p->name_count];
        memset(s, 0, sizeof *s);
        expand(s->name, piece->name, n->family, t->layer, e);
        s->rank = columns ? 2 : 1;
        s->shape[0] = rows;
        s->shape[1] = columns;
        s->count = rows * (columns ? columns : 1);
        p->at[p->name_count++] = t->offset + e * stride + from;
    }
    return MOEC_OK;
}

/* The selection bias of each layer with experts: saved, but not trained by gradients. */
static moec_status name_bias(namer *n) {
    params *p = n->p;
    for (int layer = (int)n->config->dense; p->sel_bias && layer < p->layers; layer++) {
        MOEC_TRY(grow(n));
        st_tensor *s = &p->names[p->name_count];
        memset(s, 0, sizeof *s);
        expand(s->name, "{moe}.gate.e_score_correction_bias", n->family, layer, 0);
        s->rank = 1;
        s->shape[0] = s->count = p->experts;
        p->at[p->name_count++] = layer * p->experts;
    }
    return MOEC_OK;
}

moec_status params_name_all(params *p, const train_config *config, moec_error *err) {
    namer n = {p, config, find_family(config->names), 0, err};
    when skip = moec_spec_gated(&config->spec) ? PLAIN : GATED;
    for (int i = 0; i < p->count; i++)
        for (int k = 0; k < PIECES; k++)
            if (pieces[k].kind == p->list[i].kind && pieces[k].when != skip)
                MOEC_TRY(name_piece(&n, &p->list[i], &pieces[k]));
    p->trained = p->name_count;
    return name_bias(&n);
}

char *params_config_json(const train_config *c) {
    const family *f = find_family(c->names);
    const moec_spec *s = &c->spec;
    json_t *root = json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:f, s:f, s:b, s:b, s:s}",
        "architectures", f->architecture, "model_type", f->model_type, "vocab_size", (json_int_t)s->V,
        "hidden_size", (json_int_t)s->H, "num_hidden_layers", (json_int_t)c->layers,
        "num_attention_heads", (json_int_t)s->heads, "num_key_value_heads", (json_int_t)s->kv,
        "head_dim", (json_int_t)s->dim, "num_local_experts", (json_int_t)s->E, "num_experts",
        (json_int_t)s->E, "num_experts_per_tok", (json_int_t)s->K, "moe_intermediate_size",
        (json_int_t)s->F, "intermediate_size", (json_int_t)(c->dense ? c->dense_F : s->F), "hidden_act",
        s->act == MOEC_ACT_SWIGLU ? "silu" : moec_spec_enum("act", s->act), "rope_theta", c->theta,
        "rms_norm_eps", c->norm_eps, "tie_word_embeddings", (int)c->tied, "norm_topk_prob", (int)s->norm,
        "torch_dtype", "float32");
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(root);
    return text;
}
