/* resume: what a run keeps from its first step to its last.
 *
 * The cursor counts windows of one length in one text, the held-out loss is of that text's end, and
 * the weights mean something only to the model that they were trained in. Tensor shapes do not tell:
 * another K, router or activation has the same ones. Everything in group train but seq may change. */
#include "resume.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static void add(char text[RESUME_BYTES], const char *format, ...) {
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, RESUME_BYTES - used, format, args);
    va_end(args);
}

/* ---- data ---- */

static bool same_data(const ckpt_data *was, const ckpt_data *now) {
    return !was->hash[0] || !strcmp(was->hash, now->hash);
}

static void add_data(char *text, const ckpt_data *was, const ckpt_data *now) {
    if (same_data(was, now)) return;
    add(text, "was trained on other data: %s, %" PRId64 " bytes, hash %s; now data.path is %s, %" PRId64
              " bytes, hash %s", was->path, was->bytes, was->hash, now->path, now->bytes, now->hash);
}

/* Data of another length has another training part: only seq tells then. */
static void add_windows(char *text, const ckpt_data *was, const ckpt_data *now) {
    bool same_part = was->train_tokens == now->train_tokens || !same_data(was, now);
    if (!was->seq || (was->seq == now->seq && same_part)) return;
    add(text, "%swas trained in other windows: train.seq=%" PRId64 " in the first %" PRId64
              " tokens; now train.seq=%" PRId64 " and data.held_out leave %" PRId64, *text ? ", and it " : "",
        was->seq, was->train_tokens, now->seq, now->train_tokens);
}

/* ---- model ---- */

/* Those that do not change what the weights mean: the arithmetic's type (the weights are float32 in any
 * case), the draw before the first step, and the tensors' names, which are compared when they are read. */
static const char *const free_settings[] = {"dtype", "init_std", "names"};

typedef struct setting { const char *key, *value; int key_bytes, value_bytes; } setting;

/* The next KEY=VALUE of a list; words that are none are passed over. */
static bool next_setting(const char **at, setting *s) {
    for (*at += strspn(*at, " "); **at; *at += strspn(*at, " ")) {
        size_t key = strcspn(*at, "= "), word = strcspn(*at, " ");
        *s = (setting){*at, *at + key + 1, (int)key, (int)(word - key) - 1};
        *at += word;
        if (key < word) return true;
    }
    return false;
}

static bool same_text(const char *a, int a_bytes, const char *b, int b_bytes) {
    return a_bytes == b_bytes && !memcmp(a, b, (size_t)a_bytes);
}

static bool find_setting(const char *list, const setting *like, setting *found) {
    while (next_setting(&list, found))
        if (same_text(found->key, found->key_bytes, like->key, like->key_bytes)) return true;
    return false;
}

static bool is_free(const setting *s) {
    for (size_t i = 0; i < sizeof free_settings / sizeof *free_settings; i++)
        if (same_text(s->key, s->key_bytes, free_settings[i], (int)strlen(free_settings[i]))) return true;
    return false;
}

/* A list leaves out what is at its default, so a key of one list alone is a difference too. */
static void add_model(char *text, const char *was, const char *now) {
    const char *lead = *text ? ", and it is of another model: " : "is of another model: ", *at = was;
    setting a, b;
    if (!*was) return;
    while (next_setting(&at, &a)) {
        bool both = find_setting(now, &a, &b);
        if (is_free(&a) || (both && same_text(a.value, a.value_bytes, b.value, b.value_bytes))) continue;
        add(text, "%smodel.%.*s=%.*s, now %.*s", lead, a.key_bytes, a.key, a.value_bytes, a.value,
            both ? b.value_bytes : 11, both ? b.value : "the default");
        lead = "; ";
    }
    for (at = now; next_setting(&at, &b);) {
        if (is_free(&b) || find_setting(was, &b, &a)) continue;
        add(text, "%smodel.%.*s at its default, now %.*s", lead, b.key_bytes, b.key, b.value_bytes, b.value);
        lead = "; ";
    }
}

void resume_difference(const ckpt_state *was, const ckpt_state *now, char text[RESUME_BYTES]) {
    text[0] = 0;
    add_data(text, &was->data, &now->data);
    add_windows(text, &was->data, &now->data);
    add_model(text, was->settings, now->settings);
}
