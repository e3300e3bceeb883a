/* moec verify as a user meets it: wrong use, a wrong kernel end to end, and its command.
 *
 * The wrong kernel comes from a compiler (MOEC_CC) that edits the text before it compiles it: exit
 * code 3, the op and element named, and a command that finds the same fault again. */
#include "user.h"

#include <sys/stat.h>

static void write_file(const char *name, const char *text, int mode) {
    if (put_file(name, text, strlen(text))) chmod(in_dir(name), (mode_t)mode);
}

T_CASE(wrong_use_is_explained) {
    static const struct { const char *words; int code; const char *says; } wrong[] = {
        {"verify", 2, "a SPEC is needed"},
        {"verify E=8 K=9", 2, "K=9 is larger than E=8"},
        {"verify E=8 --op nothing", 2, "--op nothing: no such op"},
        {"verify E=8 -t nowhere", 2, "unknown target"},
        {"verify E=8 --routing sideways", 2, "unknown pattern"},
        {"verify E=8 --routing zipf", 2, "a value follows"},
        {"verify E=8 --routing hot:1.5", 2, "out of range"},
        {"verify E=8 --routing hot:x", 2, "out of range"},
        {"verify E=8 --routing uniform:1", 2, "takes no value"},
        {"verify E=8 --op up --routing file:/nonexistent/loads", 1, "cannot open /nonexistent/loads"},
        {"verify E=8 --tokens -1", 2, "expected a whole number"},
        {"verify E=8 --config mr=4", 2, "--config belongs to one --op"},
        {"verify E=8 --op up --config mr=77", 2, "mr"},
        {"verify E=8 --random 3", 2, "makes its own specs"},
    };
    own_cache();
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        int code = moec(wrong[i].words);
        if (code != wrong[i].code) T_FAIL("%s: exit code %d\n%s", wrong[i].words, code, output);
        T_HAS(output, wrong[i].says);
    }
}

T_CASE(routing_file) {
    static const char words[] = "verify E=8 K=2 H=16 F=8 --op route --tokens 30 --routing file:@/loads";
    own_cache();
    write_file("loads", "10 0 0 1.5\n0 0 3 4\n", 0644);
    T_EQ(moec(words), 0);
    T_HAS(output, "0 wrong");
    write_file("loads", "10 0 zero 1.5", 0644);
    T_EQ(moec(words), 1);
    T_HAS(output, "holds 2 good numbers");
    T_HAS(output, "E=8 numbers");
}

T_CASE(json_is_one_value) {
    own_cache();
    T_EQ(moec("verify E=4 K=2 H=16 F=8 --op add --tokens 9 --json"), 0);
    T_EQ(output[0], '{');
    T_HAS(output, "\"wrong\": 0");
}

/* A shell script in the compiler's place; the edit makes a dot product start at its second term. */
static const char bad_compiler[] =
    "#!/bin/sh\n"
    "for word; do case $word in *.c)\n"
    "    sed 's/for (long k = 0; k < depth; k++/for (long k = 1; k < depth; k++/' \"$word\" >\"$word.new\" &&\n"
    "        mv \"$word.new\" \"$word\" ;;\n"
    "esac; done\n"
    "for c in clang-19 clang gcc cc; do command -v $c >/dev/null && exec $c \"$@\"; done\n"
    "exit 1\n";

T_CASE(a_wrong_kernel_is_reported) {
    static const char words[] = "verify E=4 K=2 H=16 F=24 dtype=f32 -t cpu-scalar --op down --tokens 9";
    char compiler[128], command[1024];
    own_cache();
    write_file("bad-cc", bad_compiler, 0755);
    snprintf(compiler, sizeof compiler, "%s/bad-cc", dir);
    T_EQ(moec(words), 0);
    setenv("MOEC_CC", compiler, 1);
    T_EQ(moec(words), 3);
    T_HAS(output, "WRONG down: y[");
    const char *printed = strstr(output, "\n  moec verify ");
    T_NEED(printed != NULL);
    snprintf(command, sizeof command, "%.*s", (int)strcspn(printed + 8, "\n"), printed + 8);
    T_EQ(moec(command), 3); /* the command alone finds it again ... */
    unsetenv("MOEC_CC");
    T_EQ(moec(command), 0); /* ... and passes with a sound compiler */
}

/* Answers that are not there: the command says against what, and so finds the same. */
T_CASE(the_command_keeps_against) {
    char command[1024];
    own_cache();
    T_NEED(!mkdir(in_dir("empty"), 0700));
    T_EQ(moec("verify E=4 K=2 H=16 F=8 --op add --tokens 9 --against @/empty"), 3);
    const char *printed = strstr(output, "\n  moec verify ");
    T_NEED(printed != NULL);
    snprintf(command, sizeof command, "%.*s", (int)strcspn(printed + 8, "\n"), printed + 8);
    T_EQ(moec(command), 3);
}

T_MAIN
