/* Runs a compiler or another tool: posix_spawn in its own process group, stdin from /dev/null,
 * stdout and stderr into one pipe, a deadline after which the group is killed.
 *
 * Invariants: no shell sees the arguments; no child outlives the call (the group is killed and the
 * leader reaped on every path); a grandchild that keeps the pipe open cannot block the caller; a
 * program that ignores SIGCHLD, so that the exit code is lost, still works (the caller looks at
 * the output file). */
#include "subprocess.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs.h"

extern char **environ;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool runnable(const char *path) {
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK);
}

int moec_program_find(const char *name, char *path) {
    if (strchr(name, '/')) return !moec_path(path, NULL, "%s", name) && runnable(path);
    const char *at = getenv("PATH");
    if (!at) at = "/usr/local/bin:/usr/bin:/bin";
    while (*at) {
        int n = (int)strcspn(at, ":");
        if (n && !moec_path(path, NULL, "%.*s/%s", n, at, name) && runnable(path)) return 1;
        at += n + (at[n] == ':');
    }
    return 0;
}

static int spawn(const moec_process *p, const char *program, int out, pid_t *pid) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out, 1);
    posix_spawn_file_actions_adddup2(&actions, out, 2);
    if (p->directory) posix_spawn_file_actions_addchdir_np(&actions, p->directory);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                        POSIX_SPAWN_SETSIGDEF);
    int code = posix_spawn(pid, program, &actions, &attr, (char **)(uintptr_t)p->argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return code;
}

/* Takes what is in the pipe; keeps the beginning, which holds a compiler's first error. */
static bool drain(moec_process *p, int fd, size_t *used) {
    char sink[4096];
    for (;;) {
        ssize_t n = read(fd, sink, sizeof sink);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN;
        if (n == 0) return false;
        size_t room = p->output_bytes ? p->output_bytes - 1 - *used : 0;
        size_t take = (size_t)n < room ? (size_t)n : room;
        if (take) memcpy(p->output + *used, sink, take);
        *used += take;
    }
}

/* Has the leader ended? It stays a zombie, so that its group's number is not given to others. */
static bool has_ended(pid_t pid, bool *lost) {
    siginfo_t info = {.si_pid = 0};
    int rc = waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT);
    *lost = rc < 0 && errno == ECHILD;
    return *lost || (rc == 0 && info.si_pid == pid);
}

/* Ends what is left of the group and reaps the leader. */
static int finish(pid_t pid) {
    int status = 0;
    kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Waits for the end or the deadline. The pipe's end is the wake-up; the exit is what counts. */
static bool wait_for(moec_process *p, pid_t pid, int fd, double deadline) {
    size_t used = 0;
    bool open = true, ended = false, lost = false;
    for (int ms = 1; !ended && now_s() < deadline; ms = ms < 20 ? ms * 2 : 20) {
        struct pollfd wake = {.fd = open ? fd : -1, .events = POLLIN};
        poll(&wake, 1, open ? 20 : ms);
        if (open) open = drain(p, fd, &used);
        ended = has_ended(pid, &lost);
    }
    if (open) drain(p, fd, &used);
    if (p->output_bytes) p->output[used] = 0;
    p->exit_code = lost ? 0 : finish(pid);
    return ended;
}

moec_status moec_process_run(moec_process *p, moec_error *err) {
    char program[MOEC_PATH_BYTES];
    int pipes[2];
    pid_t pid;
    if (!moec_program_find(p->argv[0], program))
        return moec_fail(err, MOEC_E_TOOL, "program %s was not found", p->argv[0]);
    if (pipe2(pipes, O_CLOEXEC))
        return moec_fail(err, MOEC_E_IO, "cannot make a pipe: %s", strerror(errno));
    double start = now_s();
    int code = spawn(p, program, pipes[1], &pid);
    close(pipes[1]);
    if (code) {
        close(pipes[0]);
        return moec_fail(err, MOEC_E_TOOL, "cannot start %s: %s", program, strerror(code));
    }
    fcntl(pipes[0], F_SETFL, O_NONBLOCK);
    bool ended = wait_for(p, pid, pipes[0], start + p->limit_s);
    close(pipes[0]);
    p->seconds = now_s() - start;
    if (ended) return MOEC_OK;
    return moec_fail(err, MOEC_E_TIMEOUT, "%s did not end within %g s and was killed", p->argv[0],
                     p->limit_s);
}
