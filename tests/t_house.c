/* House rules that a machine can check: which way includes point, who may touch vendors' headers and
 * dlopen, that the library neither prints nor exits, and that files stay readable in size. */
#include "t.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdlib.h>

static const char *const folders[] = {"gen", "runtime", "runtime/train", "runtime/comm", "tuner"};

/* Calls visit for each .c and .h of the folders; a folder that does not exist yet has none. */
static int each_file(void (*visit)(const char *path, const char *text)) {
    int count = 0;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        DIR *dir = opendir(folders[i]);
        for (struct dirent *e; dir && (e = readdir(dir));) {
            char path[512];
            const char *dot = strrchr(e->d_name, '.');
            if (!dot || (strcmp(dot, ".c") && strcmp(dot, ".h"))) continue;
            snprintf(path, sizeof path, "%s/%s", folders[i], e->d_name);
            FILE *f = fopen(path, "r");
            if (!f) continue;
            static char text[1 << 20];
            text[fread(text, 1, sizeof text - 1, f)] = 0;
            fclose(f);
            visit(path, text);
            count++;
        }
        if (dir) closedir(dir);
    }
    return count;
}

static bool starts(const char *text, const char *with) { return !strncmp(text, with, strlen(with)); }

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool is_cli(const char *path) { return starts(base_name(path), "cli"); }

/* ---- includes point one way ---- */

static const char *owner_of(const char *header) {
    static char path[512];
    static const char *const places[] = {"gen", "runtime", "runtime/train", "runtime/comm", "tuner"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s/%s", places[i], base_name(header));
        FILE *f = fopen(path, "r");
        if (!f) continue;
        fclose(f);
        return path;
    }
    return "";
}

/* Why `from` may not include `to`; NULL when it may. */
static const char *forbidden(const char *from, const char *to) {
    bool from_gen = starts(from, "gen/"), to_gen = starts(to, "gen/");
    const char *header = base_name(to);
    if (from_gen) return to_gen ? NULL : "gen knows nothing but itself, libc and Lua";
    if (to_gen)
        return !strcmp(header, "gen.h") || !strcmp(header, "status.h") || strstr(header, ".def")
                   ? NULL : "gen.h is gen's whole interface";
    if (is_cli(to) && !is_cli(from)) return "the command line sits on top";
    if (starts(to, "tuner/") && !starts(from, "tuner/") && !is_cli(from)) return "tuner sits on runtime";
    if (starts(to, "runtime/train/") && !starts(from, "runtime/train/") && !is_cli(from))
        return "the trainer sits on the library";
    return NULL;
}

static void check_includes(const char *path, const char *text) {
    for (const char *at = text; (at = strstr(at, "#include \"")); at++) {
        char header[256];
        if (at != text && at[-1] != '\n') continue;
        const char *name = at + strlen("#include \"");
        snprintf(header, sizeof header, "%.*s", (int)strcspn(name, "\""), name);
        const char *why = forbidden(path, owner_of(header));
        if (why) T_FAIL("%s includes %s: %s", path, header, why);
    }
}

T_CASE(includes_point_one_way) {
    T_OK(each_file(check_includes) > 20);
    T_OK(forbidden("gen/emit.c", "runtime/device.h") != NULL); /* the check itself can fail */
    T_OK(forbidden("runtime/jit.c", "gen/lhost.h") != NULL);
    T_OK(forbidden("runtime/layer.c", "tuner/db.h") != NULL);
    T_OK(forbidden("tuner/search.c", "runtime/device.h") == NULL);
}

/* ---- vendors live in one file each ---- */

static void check_vendors(const char *path, const char *text) {
    static const char *const headers[] = {"<cuda", "<nvrtc", "<hip", "<nccl", "<rccl", "<mpi"};
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        char include[64];
        snprintf(include, sizeof include, "#include %s", headers[i]);
        if (strstr(text, include)) T_FAIL("%s includes %s...>", path, headers[i]);
    }
    bool may_open = starts(base_name(path), "dl_") || !strcmp(base_name(path), "device_cpu.c");
    if (!may_open && strstr(text, "dlopen(")) T_FAIL("%s calls dlopen", path);
}

T_CASE(vendors_live_in_dl_files) { T_OK(each_file(check_vendors) > 20); }

/* ---- the library is silent ---- */

static bool calls(const char *text, const char *function) {
    for (const char *at = text; (at = strstr(at, function)); at++)
        if (at == text || !strchr("abcdefghijklmnopqrstuvwxyz_\"", at[-1])) return true;
    return false;
}

/* Overwrites comments with spaces. */
static void blank_comments(char *text) {
    for (char *at = text; (at = strstr(at, "/*"));) {
        char *end = strstr(at + 2, "*/");
        if (!end) return;
        memset(at, ' ', (size_t)(end + 2 - at));
    }
}

static void check_silence(const char *path, const char *source) {
    static const char *const words[] = {"printf(", "puts(", "putchar(", "perror(", "exit(", "_exit(",
                                        "stderr", "stdout"};
    const char *name = base_name(path);
    if (is_cli(path) || !strcmp(name, "embed.c") || !strcmp(name, "lua_streams.c")) return;
    if (!strcmp(name, "dl_hiprtc.c")) return; /* a program of its own, whose answers go to a pipe */
    static char text[1 << 20];
    snprintf(text, sizeof text, "%s", source);
    blank_comments(text);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (calls(text, words[i])) T_FAIL("%s uses %s: only cli files print or exit", path, words[i]);
}

T_CASE(only_the_command_line_prints) {
    T_OK(each_file(check_silence) > 20);
    T_OK(calls("x = 1;\nprintf(\"\")", "printf(")); /* the check itself can fail */
    T_OK(!calls("snprintf(\"\")", "printf("));
}

/* ---- files stay readable ---- */

static void check_size(const char *path, const char *text) {
    int lines = 0;
    for (const char *at = text; *at; at++) lines += *at == '\n';
    if (lines > 800) T_FAIL("%s has %d lines, at most 800", path, lines);
    if (strchr(text, '\t')) T_FAIL("%s contains a tab", path);
    if (!starts(text, "/*")) T_FAIL("%s does not open with a comment that says what it is for", path);
}

T_CASE(files_stay_readable) { T_OK(each_file(check_size) > 20); }

T_MAIN
