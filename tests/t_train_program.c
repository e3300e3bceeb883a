/* t_train_program: `moec train` as a user meets it: kills, limits, bad data, what a resumed run may change, its page. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "train/train.h"
#include "train_trial.h"

static moec_error err;

static void setup(void) {
    if (!*dir) write_corpus();
}

/* Runs the built program; returns its exit code, or -signal. kill_ms > 0: SIGKILL after that time. */
static int program(const char *shell, int kill_ms, char *output, size_t bytes) {
    pid_t child = fork();
    int status = 0;
    if (child == 0) {
        int fd = open(at("output"), O_WRONLY | O_CREAT | O_TRUNC, 0666);
        dup2(fd, 1);
        dup2(fd, 2);
        execl("/bin/sh", "sh", "-c", shell, (char *)NULL);
        _exit(127);
    }
    if (kill_ms) {
        usleep((useconds_t)kill_ms * 1000);
        kill(child, SIGKILL);
    }
    waitpid(child, &status, 0);
    size_t n;
    char *text = slurp(at("output"), &n);
    if (output) snprintf(output, bytes, "%s", text ? text : "");
    free(text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void write_program_config(const char *run, const char *data) {
    char text[1500];
    snprintf(text, sizeof text,
             "return {model={%s,dtype='bf16'}, data={path='%s', held_out=0.1}, train={run='%s', seq=16, "
             "batch=4, steps=40, warmup=2, lr=3e-3, save_every=1, keep=2}}", base_model, data, run);
    put_file("program.lua", text, strlen(text));
}

T_CASE(kills_do_not_change_the_result) {
    char command[1500], output[4000], a[600], b[600], end_a[1024], end_b[1024];
    setup();
    snprintf(a, sizeof a, "%s", at("unkilled"));
    snprintf(b, sizeof b, "%s", at("killed"));
    write_program_config(a, at("corpus.txt"));
    snprintf(command, sizeof command, "exec build/moec train %s --threads 1", at("program.lua"));
    if (program(command, 0, output, sizeof output)) T_FAIL("%s", output);
    int kills = 0, code = 1;
    for (int i = 0; i < 12 && code; i++) {
        snprintf(command, sizeof command, "exec build/moec train %s run=%s --threads 1 --resume", at("program.lua"), b);
        int wait = i < 5 ? 150 + (int)(mix64((uint64_t)i) % 500) : 0; /* in the end it may finish */
        code = program(command, wait, output, sizeof output);
        kills += code == -SIGKILL;
    }
    printf("# %d kills\n", kills);
    T_EQ(code, 0);
    ckpt_path(a, 40, end_a);
    ckpt_path(b, 40, end_b);
    T_OK(same_files(end_a, end_b, "model.safetensors"));
    T_OK(same_files(end_a, end_b, "optimizer.safetensors"));
}

static void write_data(const char *name, size_t bytes, char last) {
    size_t n;
    char *text = slurp(at("corpus.txt"), &n);
    if (!text || n < bytes) abort();
    text[bytes - 1] = last;
    put_file(name, text, bytes);
    free(text);
}

/* Runs the program on data NAME; the exit code. */
static int program_on(const char *name, const char *words, char output[8000]) {
    char command[2500], data[600];
    snprintf(data, sizeof data, "%s", at(name));
    snprintf(command, sizeof command, "exec build/moec train %s path=%s --threads 1 %s", at("program.lua"), data,
             words);
    return program(command, 0, output, 8000);
}

/* Renames a key of a checkpoint's state.json, so that it is as older versions wrote it. */
static void forget(const char *path, const char *key) {
    char file[1200], hex[34], quoted[40];
    size_t n;
    snprintf(file, sizeof file, "%s/state.json", path);
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    char *text = slurp(file, &n), *at = text ? strstr(text, quoted) : NULL;
    T_NEED(at);
    at[1] = '_';
    FILE *f = fopen(file, "w");
    T_NEED(f && fputs(text, f) >= 0 && !fclose(f));
    moec_hash_hex(text, strlen(text), hex);
    snprintf(file, sizeof file, "%s/COMPLETE", path);
    f = fopen(file, "w");
    T_NEED(f && fputs(hex, f) >= 0 && !fclose(f));
    free(text);
}

T_CASE(other_data_is_refused) {
    char output[8000], words[2000], step2[1024], other[600];
    setup();
    snprintf(other, sizeof other, "%s", at("on-other"));
    write_program_config(at("on"), at("corpus.txt"));
    ckpt_path(at("on"), 2, step2);
    write_data("one.txt", 20000, '.');
    write_data("copy.txt", 20000, '.');
    write_data("flipped.txt", 20000, '!');
    if (program_on("one.txt", "steps=2 --fresh", output)) T_FAIL("%s", output);
    T_EQ(program_on("flipped.txt", "steps=3 --resume", output), 2);
    T_HAS(output, "other data");
    T_HAS(output, at("one.txt"));
    T_HAS(output, at("flipped.txt"));
    T_HAS(output, "--from ");
    write_data("one.txt", 20010, '.'); /* the same path, appended to */
    T_EQ(program_on("one.txt", "steps=3 --resume", output), 2);
    T_HAS(output, "20000 bytes");
    T_HAS(output, "20010 bytes");
    snprintf(words, sizeof words, "steps=3 --from %s", step2);
    T_EQ(program_on("one.txt", words, output), 2);
    snprintf(words, sizeof words, "steps=3 run=%s --from %s", other, step2); /* the remedy */
    if (program_on("one.txt", words, output)) T_FAIL("%s", output);
    T_HAS(output, "another run's checkpoint, which was trained on other data");
    snprintf(words, sizeof words, "steps=4 run=%s --resume", other);
    if (program_on("one.txt", words, output)) T_FAIL("%s", output);
    if (program_on("copy.txt", "steps=3 --resume", output)) T_FAIL("%s", output); /* moved, not changed */
    ckpt_path(at("on"), 3, step2);
    forget(step2, "data");
    if (program_on("flipped.txt", "steps=4 --resume", output)) T_FAIL("%s", output);
    T_EQ(program_on("copy.txt", "steps=5 --resume", output), 2); /* recorded again */
}

/* A run of two steps to go on from; step2 receives its checkpoint. Data: 20000 tokens, 2000 of them held out. */
static void begin_run(const char *run, char step2[1024]) {
    char output[8000];
    setup();
    write_program_config(at(run), at("corpus.txt"));
    write_data("cut.txt", 20000, '.');
    ckpt_path(at(run), 2, step2);
    if (program_on("cut.txt", "steps=2 --fresh", output)) T_FAIL("%s", output);
}

/* Tensors have the same shapes in all of these. */
T_CASE(other_windows_and_models_are_refused) {
    static const struct { const char *words, *was, *now; } rows[] = {
        {"seq=32", "train.seq=16 in the first 18000 tokens", "now train.seq=32"},
        {"held_out=0.2", "in the first 18000 tokens", "data.held_out leave 16000"},
        {"K=1", "of another model: model.K=2, now 1\n", ""},
        {"router=topk_softmax", "model.router=softmax_topk", "now topk_softmax\n"},
        {"norm=0 act=geglu", "model.act=swiglu, now geglu", "model.norm=1, now 0\n"},
        {"capacity=1 theta=500000", "model.capacity=0, now 1", "model.theta at its default, now 500000\n"},
        {"seq=8 K=1", "train.seq=16", ", and it is of another model: model.K=2, now 1"},
    };
    char output[8000], words[200], step2[1024];
    begin_run("cut", step2);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(words, sizeof words, "steps=3 %s --resume", rows[i].words);
        T_EQ(program_on("cut.txt", words, output), 2);
        T_HAS(output, step2);
        T_HAS(output, rows[i].was);
        T_HAS(output, rows[i].now);
        T_HAS(output, "--from ");
    }
    if (program_on("cut.txt", "steps=3 --resume", output)) T_FAIL("%s", output);
    T_OK(!strstr(output, "another"));
}

static const char free_words[] = "batch=2 accumulate=2 lr=1e-3 min_lr=1e-5 warmup=1 beta2=0.9 clip=0.5 aux=0 z=0 "
                                 "seed=9 eval_every=1 eval_batches=2 recompute=true dtype=f32 init_std=0.3 names=olmoe";

T_CASE(what_does_not_change_the_meaning_may_change) {
    char output[8000], words[1000], step2[1024];
    begin_run("free", step2);
    snprintf(words, sizeof words, "steps=3 %s --resume", free_words);
    if (program_on("cut.txt", words, output)) T_FAIL("%s", output);
    T_OK(!strstr(output, "another"));
    if (program_on("cut.txt", "steps=4 --resume", output)) T_FAIL("%s", output); /* and back */
}

/* The remedy that the message names; afterwards the new run's own settings are the ones that hold. */
T_CASE(a_new_run_may_have_other_windows_and_another_model) {
    char output[8000], words[2500], step2[1024], other[600];
    begin_run("old", step2);
    snprintf(other, sizeof other, "%s", at("new"));
    snprintf(words, sizeof words, "steps=3 seq=32 K=1 --from %s", step2);
    T_EQ(program_on("cut.txt", words, output), 2);
    snprintf(words, sizeof words, "steps=3 seq=32 K=1 run=%s --from %s", other, step2);
    if (program_on("cut.txt", words, output)) T_FAIL("%s", output);
    T_HAS(output, "another run's checkpoint, which was trained in other windows");
    T_HAS(output, "another model: model.K=2, now 1");
    snprintf(words, sizeof words, "steps=4 seq=32 K=1 run=%s --resume", other);
    if (program_on("cut.txt", words, output)) T_FAIL("%s", output);
    snprintf(words, sizeof words, "steps=5 run=%s --resume", other);
    T_EQ(program_on("cut.txt", words, output), 2);
    T_HAS(output, "model.K=1, now 2");
}

/* Checkpoints on another disk are the run's own too: all of them, and a single one. */
T_CASE(linked_checkpoints_are_the_runs_own) {
    char output[8000], words[1200], step2[1024], away[600], archive[600];
    begin_run("linked", step2);
    snprintf(away, sizeof away, "%s", at("away"));
    T_NEED(!rename(at("linked/checkpoints"), away) && !symlink(away, at("linked/checkpoints")));
    T_EQ(program_on("cut.txt", "steps=3 K=1 --resume", output), 2);
    snprintf(words, sizeof words, "steps=3 K=1 --from %s/step-000000002", away);
    T_EQ(program_on("cut.txt", words, output), 2);
    snprintf(archive, sizeof archive, "%s", at("archive"));
    T_NEED(!rename(step2, archive) && !symlink(archive, step2));
    T_EQ(program_on("cut.txt", "steps=3 K=1 --resume", output), 2);
    T_HAS(output, "model.K=2, now 1");
}

T_CASE(checkpoints_without_the_records_resume) {
    char output[8000], step2[1024], step3[1024];
    begin_run("older", step2);
    ckpt_path(at("older"), 3, step3);
    forget(step2, "settings");
    if (program_on("cut.txt", "steps=3 K=1 --resume", output)) T_FAIL("%s", output);
    T_EQ(program_on("cut.txt", "steps=4 --resume", output), 2); /* recorded again */
    T_HAS(output, "model.K=1, now 2");
    forget(step3, "seq");
    if (program_on("cut.txt", "steps=4 K=1 seq=32 --resume", output)) T_FAIL("%s", output);
    T_EQ(program_on("cut.txt", "steps=5 K=1 --resume", output), 2);
    T_HAS(output, "train.seq=32");
}

/* A second process in the same run is refused while the first lives; SIGTERM saves and ends in order. */
T_CASE(a_run_has_one_trainer_which_ends_in_order) {
    char command[3000], output[8000], path[1024];
    int found = 0;
    setup();
    write_program_config(at("shared"), at("corpus.txt"));
    snprintf(command, sizeof command,
             "build/moec train %s steps=100000 save_every=0 --threads 1 > %s 2>&1 & first=$!; "
             "for i in $(seq 100); do grep -q loss %s && break; sleep 0.1; done; "
             "build/moec train %s steps=3 --threads 1 --fresh; echo second $?; kill -TERM $first; wait $first; "
             "echo first $?; tail -n 4 %s",
             at("program.lua"), at("first.txt"), at("first.txt"), at("program.lua"), at("first.txt"));
    T_EQ(program(command, 0, output, sizeof output), 0);
    T_HAS(output, "is being trained by another process: process ");
    T_HAS(output, "second 1");
    T_HAS(output, "first 0");
    T_HAS(output, "stopped after ");
    T_NEED(!ckpt_newest(at("shared"), path, &found, &err) && found);
    ckpt_summary s;
    T_EQ(ckpt_verify(path, &s, &err), MOEC_OK);
    T_OK(s.state.step > 0);
}

T_CASE(a_full_disk_is_reported_and_survived) {
    char command[1500], output[8000], path[1024];
    int found = 0;
    setup();
    write_program_config(at("full"), at("corpus.txt"));
    snprintf(command, sizeof command, "exec build/moec train %s steps=2 --threads 1", at("program.lua"));
    T_EQ(program(command, 0, output, sizeof output), 0);
    snprintf(command, sizeof command,
             "ulimit -f 64; exec build/moec train %s steps=6 --threads 1 --resume", at("program.lua"));
    T_EQ(program(command, 0, output, sizeof output), 1); /* blocks of 512 or 1024 bytes */
    T_HAS(output, "earlier ones are intact");
    T_HAS(output, "hint: no room");
    T_NEED(!ckpt_newest(at("full"), path, &found, &err) && found);
    ckpt_summary s;
    T_EQ(ckpt_verify(path, &s, &err), MOEC_OK);
    T_EQ(s.state.step, 2);
}

T_CASE(bad_input_has_its_exit_code) {
    static const struct { const char *args; int code; const char *part; } rows[] = {
        {"E=4 K=9", 2, "K=9"},
        {"H=31", 2, "multiple of 8"},
        {"nokey=1", 2, "unknown key 'nokey'"},
        {"path=/nonexistent.txt", 1, "/nonexistent.txt"},
        {"format=megatron path=/nonexistent", 1, "/nonexistent.idx"},
        {"--from /nonexistent/step-1", 1, "not a complete checkpoint"},
        {"run=", 2, "train.run is empty"},
        {"run=/proc/nowhere", 1, "/proc/nowhere"},
    };
    char command[1500], output[4000];
    setup();
    write_program_config(at("bad"), at("corpus.txt"));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(command, sizeof command, "exec build/moec train %s %s --threads 1", at("program.lua"), rows[i].args);
        T_EQ(program(command, 0, output, sizeof output), rows[i].code);
        T_HAS(output, rows[i].part);
    }
}

T_CASE(a_report_is_one_page) {
    char command[1500], output[4000];
    struct stat st;
    size_t n;
    setup();
    write_program_config(at("drawn"), at("corpus.txt"));
    snprintf(command, sizeof command, "build/moec train %s steps=5 sample=10 --threads 1 && build/moec report %s",
             at("program.lua"), at("drawn"));
    T_EQ(program(command, 0, output, sizeof output), 0);
    char *page = slurp(at("drawn/report.html"), &n);
    T_NEED(page);
    T_HAS(page, "</html>");
    T_HAS(page, "unigram entropy");
    T_HAS(page, "layer 1");
    T_OK(!strstr(page, "http")); /* nothing is fetched */
    free(page);
    snprintf(command, sizeof command, "exec build/moec report %s", at("nowhere"));
    T_EQ(program(command, 0, output, sizeof output), 1);
    T_NEED(!mkfifo(at("drawn/pipe"), 0600)); /* as /dev/stdout would be */
    snprintf(command, sizeof command, "exec build/moec report %s -o %s/drawn/pipe", at("drawn"), dir);
    T_EQ(program(command, 0, output, sizeof output), 1);
    T_HAS(output, "is no file");
    T_OK(!lstat(at("drawn/pipe"), &st) && S_ISFIFO(st.st_mode));
    snprintf(command, sizeof command, "exec build/moec ckpt %s", at("drawn"));
    T_EQ(program(command, 0, output, sizeof output), 0);
    T_HAS(output, "sound");
}

T_MAIN
