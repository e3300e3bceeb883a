/* Level L3: the same layer, routing and seed on several targets. The CPU's answers are written down, those of
 * another CPU target, of HIP on the host shim (L1) and of HIP's machine code under the interpreter (L2) are held
 * against them, element by element; tests/device/sm90.sh does the same on a real NVIDIA GPU. A changed answer
 * and a missing one are noticed. */
#include "t.h"

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs.h"
#include "subprocess.h"

static char dir[64], output[1 << 16];

static void clean(void) { moec_dir_remove(dir); }

/* "moec verify SPEC of the test WORDS", '@' standing for the scratch directory. */
static int verify(const char *words) {
    static char store[4096];
    static const char fixed[] = "verify E=5 K=2 H=72 F=40 bias=1 shared=24 --tokens 70 --routing zipf:1 --variant 0 ";
    const char *argv[64] = {"build/moec"};
    int count = 1;
    size_t n = (size_t)snprintf(store, sizeof store, "%s", fixed);
    for (; *words && n < sizeof store - 80; words++)
        n += (size_t)(*words == '@' ? snprintf(store + n, 72, "%s", dir) : snprintf(store + n, 2, "%c", *words));
    for (char *word = strtok(store, " "); word; word = strtok(NULL, " ")) argv[count++] = word;
    argv[count] = NULL;
    moec_error err = {0};
    moec_process p = {.argv = argv, .limit_s = 300, .output = output, .output_bytes = sizeof output};
    if (moec_process_run(&p, &err)) T_FAIL("%s", err.text);
    return p.exit_code;
}

static bool ready(void) {
    if (*dir) return true;
    strcpy(dir, "/tmp/moec-t-agree.XXXXXX");
    unsetenv("MOEC_GCN");
    if (!mkdtemp(dir)) return false;
    atexit(clean);
    return verify("-t cpu --dump @/cpu") == 0;
}

static void agrees(const char *words) {
    T_NEED(ready());
    int rc = verify(words);
    if (rc == 4) T_SKIP("%.*s", (int)strcspn(output, "\n"), output);
    if (rc) T_FAIL("verify %s: exit code %d\n%s", words, rc, output);
    const char *says = strstr(output, "against ");
    T_NEED(says);
    printf("# %s: %.*s\n", words, (int)strcspn(says, "\n"), says);
}

T_CASE(cpu_targets) { agrees("-t cpu-scalar --against @/cpu"); }
T_CASE(gfx942_interpreted) { agrees("-t gfx942 --level L2 --against @/cpu"); }
T_CASE(gfx90a_interpreted) { agrees("-t gfx90a --level L2 --against @/cpu"); }
T_CASE(gfx942_on_the_host_shim) { agrees("-t gfx942 --level L1 --against @/cpu"); }
T_CASE(gfx90a_on_the_host_shim) { agrees("-t gfx90a --level L1 --against @/cpu"); }

/* The path of a file of `op` in DIR/cpu. */
static bool file_of(const char *op, char path[512]) {
    char folder[128];
    snprintf(folder, sizeof folder, "%s/cpu", dir);
    DIR *d = opendir(folder);
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));)
        if ((found = !strncmp(e->d_name, op, strlen(op)) && e->d_name[strlen(op)] == '-'))
            snprintf(path, 512, "%s/%s", folder, e->d_name);
    if (d) closedir(d);
    return found;
}

T_CASE(differences_are_noticed) {
    char path[512], *image;
    size_t bytes;
    T_NEED(ready());
    T_EQ(verify("-t cpu --op down --against @/cpu"), 0);
    T_HAS(output, "apart by at most 0.000");
    T_NEED(file_of("down", path) && !moec_file_read(path, &image, &bytes, NULL));
    double *got = (double *)(void *)(image + 32 + 32); /* behind the head: an element's name, then its value */
    *got += 1;
    T_EQ(moec_file_write(path, image, bytes, false, NULL), 0);
    T_EQ(verify("-t cpu --op down --against @/cpu"), 3);
    T_HAS(output, "further apart than both bounds");
    T_EQ(moec_file_write(path, image, bytes - 8, false, NULL), 0);
    T_EQ(verify("-t cpu --op down --against @/cpu"), 3);
    T_HAS(output, "holds other arrays than this case has");
    free(image);
    T_EQ(verify("-t cpu --op up --seed 2 --against @/cpu"), 3);
    T_HAS(output, "has no answer to this case");
}

T_MAIN
