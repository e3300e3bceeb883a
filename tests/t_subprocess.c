/* Running tools: output and exit codes arrive, time limits hold, nothing is left running. */
#include "t.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "subprocess.h"

static char output[256];

static moec_process shell(const char *const *argv, double limit_s) {
    memset(output, 0, sizeof output);
    return (moec_process){.argv = argv, .limit_s = limit_s, .output = output,
                          .output_bytes = sizeof output};
}

#define SH(text) ((const char *const[]){"/bin/sh", "-c", text, NULL})

T_CASE(output_and_exit_code) {
    moec_error err = {0};
    moec_process p = shell(SH("echo out; echo err >&2; exit 7"), 10);
    T_EQ(moec_process_run(&p, &err), MOEC_OK);
    T_EQ(p.exit_code, 7);
    T_STR(output, "out\nerr\n");
}

T_CASE(long_output_is_cut_not_stuck) {
    moec_error err = {0};
    moec_process p = shell(SH("i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done"), 30);
    T_EQ(moec_process_run(&p, &err), MOEC_OK);
    T_EQ(p.exit_code, 0);
    T_EQ(strlen(output), sizeof output - 1);
}

T_CASE(a_missing_program_is_named) {
    moec_error err = {0};
    moec_process p = shell((const char *const[]){"no-such-program-xyz", NULL}, 1);
    T_EQ(moec_process_run(&p, &err), MOEC_E_TOOL);
    T_HAS(err.text, "no-such-program-xyz");
}

T_CASE(a_crash_is_an_exit_code) {
    moec_error err = {0};
    moec_process p = shell(SH("kill -SEGV $$"), 10);
    T_EQ(moec_process_run(&p, &err), MOEC_OK);
    T_EQ(p.exit_code, 128 + SIGSEGV);
}

/* The shell and its child ignore SIGTERM and hold the pipe: both must be gone at the limit. */
T_CASE(a_hanging_group_is_killed) {
    moec_error err = {0};
    char mark[64], command[256];
    snprintf(mark, sizeof mark, "86%ld", (long)getpid());
    snprintf(command, sizeof command, "trap '' TERM; sleep %s & sleep %s; wait", mark, mark);
    moec_process p = shell(SH(command), 0.3);
    T_EQ(moec_process_run(&p, &err), MOEC_E_TIMEOUT);
    T_HAS(err.text, "0.3 s");
    T_OK(p.seconds < 5);
    usleep(50000);
    snprintf(command, sizeof command, "for p in /proc/[0-9]*; do [ \"$(tr '\\0' ' ' <$p/cmdline)\" = "
             "'sleep %s ' ] && exit 1; done 2>/dev/null; exit 0", mark);
    T_EQ(system(command), 0);
}

/* A grandchild in the background keeps the pipe open after the leader ended. */
T_CASE(a_background_grandchild_does_not_block) {
    moec_error err = {0};
    moec_process p = shell(SH("sleep 30 & echo done"), 20);
    T_EQ(moec_process_run(&p, &err), MOEC_OK);
    T_STR(output, "done\n");
    T_OK(p.seconds < 5);
}

/* A host program that ignores SIGCHLD loses exit codes; the run must still end. */
T_CASE(works_under_ignored_sigchld) {
    moec_error err = {0};
    signal(SIGCHLD, SIG_IGN);
    moec_process p = shell(SH("echo fine"), 10);
    T_EQ(moec_process_run(&p, &err), MOEC_OK);
    signal(SIGCHLD, SIG_DFL);
    T_STR(output, "fine\n");
}

T_CASE(arguments_meet_no_shell) {
    moec_error err = {0};
    moec_process p = shell((const char *const[]){"printf", "%s", "$(exit 3); `x` *", NULL}, 10);
    T_EQ(moec_process_run(&p, &err), MOEC_OK);
    T_STR(output, "$(exit 3); `x` *");
}

T_MAIN
