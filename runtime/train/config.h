/* config: what a training run is, read from a Lua file (config.c) and k=v overrides. */
#ifndef MOEC_TRAIN_CONFIG_H
#define MOEC_TRAIN_CONFIG_H

#include "../../gen/gen.h"

/* One field per row of train.def, and the model's sizes as a spec. Plain data. */
typedef struct train_config {
    char file[512];         /* where it was read from */
    moec_spec spec;         /* E K H F act dtype router ... heads kv dim V */
#define INT(group, field, ...)         int64_t field;
#define REAL(group, field, ...)        double field;
#define FLAG(group, field, ...)        int64_t field;
#define TEXT(group, field, bytes, ...) char field[bytes];
#include "train.def"
#undef INT
#undef REAL
#undef FLAG
#undef TEXT
} train_config;

/* Reads a config file: a Lua table {model = {...} or "file.lua", data = {...}, train = {...}}.
 * overrides: "key=value" or "group.key=value", applied on top. The Lua runs in a sandbox without
 * files, clock or randomness, under an instruction and a memory limit. */
moec_status config_load(const char *path, const char *const *overrides, int count,
                        train_config *config, moec_error *err);
/* Reads a model file alone: a Lua table of the keys of group "model". */
moec_status config_load_model(const char *path, train_config *config, moec_error *err);
/* Is this argument of the command line a Lua file rather than a spec text? */
bool config_is_file(const char *argument);

/* The spec of one MoE layer as moec_layer_create takes it. */
void config_layer_spec(const train_config *config, char text[MOEC_SPEC_BYTES]);
/* All settings, one "group.key = value" a line, in table order; keys at their default are dimmed
 * by the caller when `is_default` is set. */
void config_each(const train_config *config,
                 void (*visit)(void *user, const char *group, const char *key, const char *value,
                               bool is_default),
                 void *user);
/* Every key of train.def with its default and meaning, in table order. */
void config_keys(void (*visit)(void *user, const char *group, const char *key, const char *dflt,
                               const char *doc),
                 void *user);
/* The model group as a line of KEY=VALUE: the sizes as a spec, other keys where they are not at their
 * default. Twice MOEC_SPEC_BYTES hold all of it. */
void config_model_settings(const train_config *config, char *text, size_t bytes);

/* Parameters of the whole model, and those one token passes through. */
typedef struct model_size {
    int64_t total, active;  /* elements */
    int64_t layer_experts;  /* of the experts of one layer */
    double flops_token;     /* multiply-adds x2 of forward for one token at sequence length seq */
} model_size;
void config_model_size(const train_config *config, int64_t seq, model_size *size);

#endif
