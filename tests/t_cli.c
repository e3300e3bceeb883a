/* The command line as a user meets it: exit codes, messages, help, JSON, and files that gen leaves. */
#include "user.h"

#include <dirent.h>
#include <jansson.h>
#include <sys/stat.h>

/* ---- tune ---- */

T_CASE(a_tuned_plan_is_taken) {
    T_EQ(moec("tune E=4 K=2 H=64 F=64 --tokens 64 --threads 1 --sets 1 --repeat 3 --candidates 2 --op down,dw1 -o @/plan"), 0);
    T_HAS(output, "the defaults reach");
    T_EQ(moec("bench E=4 K=2 H=64 F=64 --tokens 64 --threads 1 --sets 1 --repeat 1 --no-peers --plan @/plan"), 0);
    T_EQ(moec("bench E=4 K=2 H=64 F=72 --tokens 64 --threads 1 --sets 1 --repeat 1 --no-peers --plan @/plan"), 2);
    T_HAS(output, "it is for spec");
    T_EQ(moec("tune E=4 K=2 H=64 F=64 --tokens 64 --op combine -t cpu"), 1);
    T_HAS(output, "none of these kernels has more than one legal config");
}

static bool plan_has(const char *text) {
    char *data;
    size_t bytes;
    if (moec_file_read(in_dir("stopped.plan"), &data, &bytes, NULL)) return false;
    bool has = strstr(data, text) != NULL;
    free(data);
    return has;
}

/* Stopped while it searches the second of three kernels: that one is decided, the plan is whole, the program
 * ends by the signal. */
T_CASE(a_search_that_is_stopped_keeps_what_it_found) {
    char command[512];
    make_dir();
    snprintf(command, sizeof command,
             "build/moec tune E=4 K=2 H=64 F=64 --tokens 64 --threads 1 --sets 1 --repeat 3 --op up,down,dw1 "
             "--candidates 5000 --seconds 2 -o %s/stopped.plan & p=$!; "
             "until [ -s %s/stopped.plan ]; do sleep 0.1; done; kill -TERM $p; wait $p", dir, dir);
    T_EQ(run_shell(command), 128 + 15);
    T_HAS(output, "(time ran out)");
    T_OK(plan_has("\nup : ") && !plan_has("\ndw1 : "));
    T_EQ(moec("bench E=4 K=2 H=64 F=64 --tokens 64 --threads 1 --repeat 1 --op up --no-peers --plan @/stopped.plan"), 0);
}

T_CASE(a_damaged_plan_is_refused) {
#define HEAD "moec plan 1\ntarget : cpu-scalar\nspec : E=4 K=2 H=64 F=64 act=swiglu dtype=bf16 router=softmax_topk " \
             "norm=1 layout=concat shared=0 capacity=0\n"
    static const struct { const char *text, *says; } plans[] = {
        {"moec plan 1\n", "it names no target"},
        {"moec plan 1\ntarget : cpu-scalar\n", "it names no spec"},
        {"", "it does not start with \"moec plan 1\""},
        {HEAD "down : mr=4", "line 4 is not \"name : value\": down : mr=4"},
        {HEAD "down mr=4\n", "line 4 is not \"name : value\": down mr=4"},
        {HEAD "down : mr=77\n", "mr=77 is not one of"},
        {HEAD "down : qq=7\n", "no such tunable"},
    };
    make_dir();
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        T_NEED(!moec_file_write(in_dir("bad.plan"), plans[i].text, strlen(plans[i].text), false, NULL));
        int code = moec("bench E=4 K=2 H=64 F=64 -t cpu-scalar --tokens 8 --repeat 1 --op down --plan @/bad.plan");
        if (code != 1 && code != 2) T_FAIL("plan %zu: exit code %d", i, code);
        T_HAS(output, plans[i].says);
        T_HAS(output, "hint: ");
    }
}

/* ---- wrong use ---- */

static const struct { const char *words; int code; const char *says; } wrong[] = {
    {"frobnicate",                         2, "unknown verb \"frobnicate\""},
    {"spec",                               2, "a SPEC is needed"},
    {"spec E=64 K=6 Q=1",                  2, "unknown key\n  E=64 K=6 Q=1\n           ^"},
    {"spec E=64 K=6 K=7",                  2, "given before"},
    {"spec E=8 K=9",                       2, "K=9 is larger than E=8"},
    {"spec E=0",                           2, "E is a whole number from 1 to 4096"},
    {"spec E=99999999999999999999",        2, "E is a whole number"},
    {"spec H=1048584",                     2, "H is a whole number from 8 to 1048576 ("},
    {"spec H=100",                         2, "H=100 is not a multiple of 8"},
    {"spec F=12",                          2, "F=12 is not a multiple of 8"},
    {"spec act=swishglu",                  2, "act is one of"},
    {"spec E",                             2, "expected key=value"},
    {"spec E=10 K=2 router=sigmoid_bias groups=4/2", 2, "groups=4 does not divide E=10"},
    {"spec E=8 K=2 groups=4/2",            2, "router=sigmoid_bias only"},
    {"spec E=8 --ranks 3",                 2, "--ranks 3 does not divide E=8"},
    {"spec E=8 --tokens -5",               2, "expected a whole number"},
    {"spec E=8 --tokens 99999999999999999", 2, "expected a whole number"},
    {"spec E=8 --tokens 12x",              2, "expected a whole number"},
    {"spec E=8 --tokens",                  2, "--tokens needs a value"},
    {"spec E=8 --nonsense",                2, "unknown option --nonsense"},
    {"spec E=8 --json=1",                  2, "--json takes no value"},
    {"doctor E=8",                         2, "unexpected operand E=8"},
    {"gen E=8",                            2, "-o DIR is needed"},
    {"gen E=8 -o @/x -t cpu-avx9",         2, "unknown target \"cpu-avx9\""},
    {"verify E=8 -t sm_90a:x",             2, "unknown target \"sm_90a:x\""},
    {"gen E=8 -o @/x --op nop",            2, "--op nop: no such op\nhint: ops: route up"},
    {"gen E=8 -o ",                        2, "--output needs a value"},
    {"gen E=8 --output=",                  2, "--output is empty"},
    {"gen E=8 -o @/x --op=",               2, "--op is empty"},
    {"spec README.md",                     2, "hint: a spec is words such as"},
    {"spec examples/demo.lua H=64",        2, "a model file stands alone"},
    {"help frobnicate",                    2, "unknown verb \"frobnicate\""},
    {"verify E=8 K=2 --op up,down",        2, "--op up,down: no such op"},
    {"verify --random 0",                  2, "at least one spec"},
    {"verify E=8 K=2 --against /nowhere",  1, "--against /nowhere: there is no such folder"},
    {"bench E=8 K=2 --repeat 4294967297",  2, "expected a whole number from 0 to 2147483647"},
    {"bench E=8 K=2 --op=",                2, "--op is empty"},
    {"bench E=8 --model -t gfx942 --plan x", 2, "it takes no --plan"},
    {"bench E=8 --model -t gfx942 --op up", 2, "no --op"},
    {"spec E=8 --tokens x --json",         2, "\"status\": \"E_SPEC\""},
    {"gen E=8 -o @/x --config a=1",        2, "--config goes with one --op"},
    {"gen E=8 -o @/x -t cpu-avx2 --op add --config zz=1", 2, "zz"},
    {"gen E=8 -o /proc/nowhere/x --op add", 1, "/proc/nowhere"},
    {"gen E=8 -o @/x -t sm_100",           4, "sm_80 serves every NVIDIA GPU from Ampere on"},
    {"gen E=8 -o @/x -t sm_90a:1",         2, "-t sm_90a:1: kernels are for all GPUs of a target"},
    {"verify E=8 K=2 --routing file:/no",  1, "one number for each expert"},
    {"train README.md",                    2, "hint: a config is a Lua file"},
    {"train examples/demo.lua steps",      2, "hint: moec train --keys"},
    {"gen E=8 -t sm_90a --op attention -o @/x", 2, "op attention needs heads, kv and dim in the spec\nhint: "},
    {"bench E=8 --op embed",               2, "op embed needs V in the spec"},
    {"tune E=8 K=2 --op nop",              2, "--op nop: no such row of the layer"},
    {"tune E=8 K=2 --op down --seconds -1", 2, "seconds must be more than 0"},
    {"tune E=8 K=2 --op down -o /proc/x",  1, "the plan /proc/x cannot be written"},
    {"tune E=8 K=2 --op down -o /tmp",     1, "it is there and is no file"},
    {"tune E=8 K=2 --op down -o README.md", 1, "it is there and is no plan"},
};

T_CASE(wrong_use_is_explained) {
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int code = moec(wrong[i].words);
        if (code != wrong[i].code) T_FAIL("moec %s: exit code %d", wrong[i].words, code);
        if (!strstr(output, wrong[i].says))
            T_FAIL("moec %s: \"%s\" is not in\n%s", wrong[i].words, wrong[i].says, output);
    }
}

/* All keys have defaults, but nobody means them by a variable that is not set. */
T_CASE(an_empty_spec_is_refused) {
    T_EQ(run_shell("build/moec spec ''"), 2);
    T_HAS(output, "the SPEC is empty");
    T_EQ(run_shell("build/moec spec - </dev/null"), 2);
    T_HAS(output, "the SPEC is empty");
}

T_CASE(too_many_tokens_have_a_remedy) {
    static const char *const verbs[] = {"bench", "tune", "verify"};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        char command[128];
        snprintf(command, sizeof command, "ulimit -v 4000000; build/moec %s E=8 --op up --tokens 1000000000", verbs[i]);
        T_EQ(run_shell(command), 1);
        T_HAS(output, "out of memory");
        T_HAS(output, "hint: fewer tokens");
    }
}

/* No cache, and nowhere to put one in its place: the device is opened, then given up once. */
T_CASE(no_place_for_kernels_is_explained) {
    setenv("MOEC_CACHE", "/proc/nowhere", 1);
    setenv("TMPDIR", "/proc/nowhere", 1);
    int code = moec("verify E=4 --op add --tokens 7");
    unsetenv("TMPDIR");
    unsetenv("MOEC_CACHE");
    T_EQ(code, 1);
    T_HAS(output, "hint: set MOEC_CACHE to a directory that you may write");
}

T_CASE(a_silly_number_of_threads_is_no_crash) {
    setenv("OMP_NUM_THREADS", "99999999", 1);
    int code = moec("verify E=4 --op add --tokens 0");
    unsetenv("OMP_NUM_THREADS");
    T_EQ(code, 0);
}

T_CASE(output_that_is_lost_is_an_error) {
    static const char *const words[] = {"--version", "--help", "gen --help", "spec E=8", "doctor --json"};
    struct stat st;
    if (stat("/dev/full", &st) || !S_ISCHR(st.st_mode)) T_SKIP("there is no /dev/full");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        char command[128];
        snprintf(command, sizeof command, "build/moec %s >/dev/full", words[i]);
        T_EQ(run_shell(command), 1);
        T_HAS(output, "cannot write the output");
    }
}

T_CASE(errors_are_json_too) {
    json_error_t why;
    T_EQ(moec("spec E=8 K=9 --json"), 2);
    const char *at = strchr(output, '{'); /* the text for people goes to stderr */
    T_NEED(at);
    json_t *value = json_loads(at, JSON_DISABLE_EOF_CHECK, &why);
    T_NEED(value);
    T_STR(json_string_value(json_object_get(value, "status")), "E_SPEC");
    json_decref(value);
}

/* A path is bytes; JSON is text. Neither the message nor the value is lost over it. */
T_CASE(json_of_a_path_that_is_no_text) {
    json_error_t why;
    T_EQ(moec("spec no\xffwhere.lua --json"), 1);
    T_HAS(output, "\"error\": \"config no?where.lua: ");
    T_EQ(moec("gen E=8 K=2 -t cpu-avx2 --op add -o @/\xff --json"), 0);
    json_t *value = json_loads(output, 0, &why);
    T_NEED(value);
    const char *out = json_string_value(json_object_get(json_object_get(value, "settings"), "output"));
    T_OK(out && !strcmp(out + strlen(out) - 2, "/?"));
    json_decref(value);
}

/* ---- right use ---- */

T_CASE(every_verb_has_help_with_examples) {
    static char verbs[8192];
    T_EQ(moec("--help"), 0);
    snprintf(verbs, sizeof verbs, "%.8000s", output);
    int count = 0;
    for (char *line = strtok(verbs, "\n"); line; line = strtok(NULL, "\n")) {
        char words[128], name[64];
        if (strncmp(line, "  ", 2) || sscanf(line, "%63s", name) != 1) continue;
        snprintf(words, sizeof words, "%s --help", name);
        T_EQ(moec(words), 0);
        char *examples = strstr(output, "examples:\n");
        if (!examples || !strstr(examples, name)) T_FAIL("moec %s: no examples", words);
        T_HAS(output, "--json");
        count++;
    }
    T_OK(count >= 3);
}

T_CASE(spec_prints_canonical_text) {
    T_EQ(moec("spec K=6 E=64 F=1408 H=2048"), 0);
    T_HAS(output, "# E=64 K=6 H=2048 F=1408 act=swiglu dtype=bf16 router=softmax_topk");
    json_error_t why;
    T_EQ(moec("spec E=64 K=6 H=2048 F=1408 --json"), 0);
    json_t *value = json_loads(output, 0, &why);
    T_NEED(value);
    json_t *facts = json_object_get(value, "facts");
    T_NEAR(json_number_value(json_object_get(facts, "per expert")), 3.0 * 2048 * 1408, 0);
    T_NEAR(json_number_value(json_object_get(facts, "forward")), 2.0 * 1024 * 6 * 3 * 2048 * 1408, 0);
    json_decref(value);
}

T_CASE(spec_reads_models) {
    T_EQ(moec("spec examples/demo.lua"), 0);
    T_HAS(output, "E=8 K=2 H=256 F=256");
    T_HAS(output, "active per token");
    T_EQ(moec("spec no-such-model.lua"), 1);
    T_HAS(output, "no-such-model.lua");
}

T_CASE(doctor_runs_anywhere) {
    json_error_t why;
    T_EQ(moec("doctor --json"), 0);
    json_t *value = json_loads(output, 0, &why);
    T_NEED(value);
    T_OK(json_array_size(json_object_get(value, "findings")) > 8);
    json_decref(value);
}

/* ---- gen ---- */

static char *slurp(const char *name) {
    char *data;
    size_t bytes;
    return moec_file_read(in_dir(name), &data, &bytes, NULL) ? NULL : data;
}

T_CASE(gen_writes_the_same_bytes_twice) {
    T_EQ(moec("gen E=8 K=2 H=64 F=64 -t cpu-avx2 --op add,combine -o @/one"), 0);
    T_EQ(moec("gen E=8 K=2 H=64 F=64 -t cpu-avx2 --op add,combine -o @/deep/er/two"), 0);
    char *one = slurp("one/manifest.json"), *two = slurp("deep/er/two/manifest.json");
    T_NEED(one && two);
    T_STR(one, two);
    T_OK(!strstr(one, dir));
    json_error_t why;
    json_t *value = json_loads(one, 0, &why);
    T_NEED(value);
    json_t *list = json_object_get(value, "kernels");
    T_EQ(json_array_size(list), 2);
    for (size_t i = 0; i < json_array_size(list); i++) {
        char name[512];
        const char *file = json_string_value(json_object_get(json_array_get(list, i), "file"));
        snprintf(name, sizeof name, "one/%s", file);
        char *a = slurp(name);
        snprintf(name, sizeof name, "deep/er/two/%s", file);
        char *b = slurp(name);
        T_NEED(a && b);
        T_STR(a, b);
        free(a), free(b);
    }
    json_decref(value);
    free(one), free(two);
}

/* All that a program of one's own needs to launch a Hopper kernel. */
T_CASE(gen_says_how_to_launch) {
    json_error_t why;
    T_EQ(moec("gen E=8 K=2 H=512 F=256 -t sm_90a --op down -o @/launch"), 0);
    char *text = slurp("launch/manifest.json");
    T_NEED(text);
    json_t *value = json_loads(text, 0, &why);
    json_t *kernel = json_array_get(json_object_get(value, "kernels"), 0), *launch = json_object_get(kernel, "launch");
    json_t *maps = json_object_get(launch, "tensor_maps"), *map = json_array_get(maps, 0);
    T_NEED(map);
    T_OK(json_integer_value(json_object_get(launch, "block")) >= 128);
    T_OK(json_array_size(maps) >= 2);
    T_STR(json_string_value(json_object_get(map, "arg")), "a");
    T_EQ(json_array_size(json_object_get(map, "stride")) + 1, json_array_size(json_object_get(map, "dim")));
    json_decref(value);
    free(text);
}

/* ---- the manifest and its page ---- */

static char manifest_page[8192], keys_seen[4096] = " "; /* "name op launch " */

/* Every key below `value`: the page has it as `key` or as `.key`, with [] behind it or not. */
static void keys_are_documented(json_t *value) {
    size_t i;
    const char *key;
    json_t *part;
    json_array_foreach(value, i, part) keys_are_documented(part);
    json_object_foreach(value, key, part) {
        static const char *const forms[] = {"`%s`", ".%s`", "`%s[]`", ".%s[]`"};
        char text[64];
        bool found = false;
        keys_are_documented(part);
        snprintf(text, sizeof text, " %s ", key);
        if (strstr(keys_seen, text)) continue;
        strcat(strcat(keys_seen, key), " ");
        for (size_t f = 0; f < 4; f++) {
            snprintf(text, sizeof text, forms[f], key);
            found |= strstr(manifest_page, text) != NULL;
        }
        if (!found) T_FAIL("docs/manifest.md does not have the key %s", key);
    }
}

/* Each word in the first column of the table is a key that was seen: "kernels[].op", ".target". */
static void page_is_not_longer(void) {
    for (char *line = strtok(manifest_page, "\n"); line; line = strtok(NULL, "\n")) {
        char *end = strncmp(line, "| `", 3) ? NULL : strchr(line + 1, '|'), *at = line;
        while (end && (at = strchr(at + 1, '`')) && at < end) {
            char text[66], *from = at + 1, *close = strchr(from, '`');
            T_NEED(close && close < end);
            for (char *c = from; c < close; c++) if (*c == '.') from = c + 1;
            snprintf(text, sizeof text, " %.*s ", (int)(strcspn(from, "[`")), from);
            if (!strstr(keys_seen, text)) T_FAIL("docs/manifest.md has%sand no manifest does", text);
            at = close;
        }
    }
}

T_CASE(every_key_of_a_manifest_is_documented) {
    static const char *const calls[] = {
        "gen E=8 K=2 H=512 F=256 bias=1 -t sm_90a -o @/keys", "gen E=8 K=2 H=512 F=256 shared=64 -t gfx942 -o @/keys",
        "gen E=8 K=2 H=64 F=64 -t cpu-avx2 --op route,add --compile -o @/keys",
    };
    char *page;
    size_t bytes;
    json_error_t why;
    T_NEED(!moec_file_read("docs/manifest.md", &page, &bytes, NULL) && bytes < sizeof manifest_page);
    memcpy(manifest_page, page, bytes + 1);
    free(page);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        T_EQ(moec(calls[i]), 0);
        json_t *manifest = json_load_file(in_dir("keys/manifest.json"), 0, &why);
        T_NEED(manifest);
        keys_are_documented(manifest);
        if (i == 2) { /* a CPU kernel has no grid: the page says so */
            json_t *kernel = json_array_get(json_object_get(manifest, "kernels"), 0);
            T_OK(!json_object_get(json_object_get(kernel, "launch"), "grid"));
        }
        json_decref(manifest);
    }
    page_is_not_longer();
}

T_CASE(gen_replaces_its_own_and_spares_others) {
    char path[MOEC_PATH_BYTES];
    struct stat st;
    T_EQ(moec("gen E=8 K=2 -t cpu-avx2 --op add -o @/again"), 0);
    T_EQ(moec("gen E=8 K=2 -t cpu-avx2 --op combine -o @/again/"), 0);
    char link[MOEC_PATH_BYTES];
    snprintf(link, sizeof link, "%s/link", dir);
    T_NEED(!symlink("again", link));
    T_EQ(moec("gen E=8 K=2 -t cpu-avx2 --op combine -o @/link"), 0);
    T_NEED(!lstat(link, &st) && S_ISLNK(st.st_mode));
    char *manifest = slurp("again/manifest.json");
    T_NEED(manifest);
    T_OK(strstr(manifest, "\"op\": \"combine\"") && !strstr(manifest, "\"op\": \"add\""));
    free(manifest);
    snprintf(path, sizeof path, "%s/mine", dir);
    T_NEED(!mkdir(path, 0700));
    snprintf(path, sizeof path, "%s/mine/thesis.txt", dir);
    T_NEED(!moec_file_write(path, "x", 1, false, NULL));
    T_EQ(moec("gen E=8 K=2 -t cpu-avx2 --op add -o @/mine"), 1);
    T_HAS(output, "was not written by moec gen");
    T_OK(!stat(path, &st));
    snprintf(path, sizeof path, "%s/again/notes.txt", dir); /* one file of the user among gen's */
    T_NEED(!moec_file_write(path, "x", 1, false, NULL));
    T_EQ(moec("gen E=8 K=2 -t cpu-avx2 --op add -o @/again"), 1);
    T_HAS(output, "it holds notes.txt");
    T_OK(!stat(path, &st));
}

T_CASE(gen_leaves_nothing_behind_when_it_fails) {
    T_EQ(moec("gen E=8 -t cpu-avx2 --op add --config zz=1 -o @/none"), 2);
    DIR *d = opendir(dir);
    T_NEED(d);
    for (struct dirent *e; (e = readdir(d));) T_OK(strcmp(e->d_name, "none") && !strstr(e->d_name, "gen"));
    closedir(d);
}

/* Stopped between two kernels: nothing is there, and what an earlier gen wrote stays. */
T_CASE(gen_that_is_stopped_leaves_what_was_there) {
    char out[64];
    make_dir();
    snprintf(out, sizeof out, "%s/stop", dir);
    T_EQ(moec("gen E=8 K=2 -t cpu-avx2 --op add -o @/stop"), 0);
    char *before = slurp("stop/manifest.json");
    T_NEED(before);
    setenv("MOEC_CC", in_dir("slow"), 1); /* a compiler that gives the signal time to come */
    static const char slow[] = "#!/bin/sh\nsleep 0.3\nexec cc \"$@\"\n";
    T_NEED(!moec_file_write(in_dir("slow"), slow, sizeof slow - 1, false, NULL) && !chmod(in_dir("slow"), 0755));
    char command[512];
    snprintf(command, sizeof command,
             "build/moec gen E=8 K=2 -t cpu-avx2 --compile -o %s & p=$!; "
             "until ls -d %s/.moec-gen.* >/dev/null 2>&1; do sleep 0.05; done; kill -TERM $p; wait $p", out, dir);
    int code = run_shell(command);
    unsetenv("MOEC_CC");
    T_EQ(code, 128 + 15);
    T_HAS(output, "stopped by a signal");
    char *after = slurp("stop/manifest.json");
    T_NEED(after);
    T_STR(before, after);
    free(before), free(after);
    DIR *d = opendir(dir);
    T_NEED(d);
    for (struct dirent *e; (e = readdir(d));) T_OK(!strstr(e->d_name, "gen"));
    closedir(d);
}

T_CASE(gen_compiles_for_machines_that_are_not_here) {
    T_EQ(moec("gen E=8 K=2 H=64 F=64 -t cpu-amx --op add,combine -o @/amx --compile"), 0);
    char *manifest = slurp("amx/manifest.json");
    T_NEED(manifest);
    T_HAS(manifest, "\"binary_hash\"");
    T_HAS(manifest, ".so\"");
    free(manifest);
    T_EQ(moec("gen E=1 H=64 F=64 shared=64 -t cpu-scalar -o @/shared --compile"), 0); /* shared.up is up's kernel */
    json_error_t why;
    size_t i;
    json_t *value = json_load_file(in_dir("shared/manifest.json"), 0, &why), *entry;
    T_NEED(value);
    json_array_foreach(json_object_get(value, "kernels"), i, entry) T_OK(json_object_get(entry, "binary_hash"));
    T_OK(i > 9);
    json_decref(value);
    setenv("MOEC_CC", "/nonexistent/cc", 1);
    T_EQ(moec("gen E=8 K=2 -t cpu-avx2 --op add -o @/nocc --compile"), 4);
    T_HAS(output, "MOEC_CC");
    unsetenv("MOEC_CC");
}

T_MAIN
