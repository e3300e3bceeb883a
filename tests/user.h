/* The program as a user meets it: runs build/moec, keeps what it printed, with the test's folder for its files. */
#ifndef MOEC_TESTS_USER_H
#define MOEC_TESTS_USER_H

#include "folder.h"

#include <stdarg.h>

#include "subprocess.h"

static char output[1 << 17];  /* of the last run, both streams */
static int limit_s = 120;     /* of a run; slow tests raise it */

/* The cache is in the folder: the same one from call to call. */
static inline void own_cache(void) {
    setenv("MOEC_CACHE", in_dir("cache"), 1);
}

/* `settings` are not set, and the cache is empty. */
static inline void fresh_cache(const char *const *settings, size_t count) {
    for (size_t i = 0; i < count; i++) unsetenv(settings[i]);
    own_cache();
    moec_dir_remove(getenv("MOEC_CACHE"));
}

/* Runs a program, its output in `output`; the exit code. */
static inline int run_program(const char *const *argv) {
    moec_error err = {0};
    moec_process p = {.argv = argv, .limit_s = limit_s, .output = output, .output_bytes = sizeof output};
    if (moec_process_run(&p, &err)) T_FAIL("%s", err.text);
    return p.exit_code;
}
static inline int run_shell(const char *command) {
    return run_program((const char *const[]){"sh", "-c", command, NULL});
}

/* Runs "build/moec WORDS", words split at spaces, '@' standing for the folder and '~' for a space; the exit code. */
static inline int moec(const char *words) {
    static char store[4096];
    const char *argv[64] = {"build/moec"};
    char *out = store;
    int count = 1;
    make_dir();
    for (const char *at = words + strspn(words, " "); *at; at += strspn(at, " ")) {
        argv[count++] = out;
        for (; *at && *at != ' '; at++) {
            if (*at == '@') out += sprintf(out, "%s", dir);
            else *out++ = *at == '~' ? ' ' : *at;
        }
        *out++ = 0;
    }
    argv[count] = NULL;
    return run_program(argv);
}

/* The verb ends with `code`; its message has every text of the list, and a remedy. */
static inline void refused(const char *words, int code, ...) {
    va_list texts;
    int got = moec(words);
    if (got != code) T_FAIL("%s: exit code %d, expected %d\n%s", words, got, code, output);
    T_HAS(output, "hint: ");
    va_start(texts, code);
    for (const char *text; (text = va_arg(texts, const char *));) T_HAS(output, text);
    va_end(texts);
}
#define REFUSED(words, code, ...) refused(words, code, __VA_ARGS__, (const char *)NULL)

#endif
