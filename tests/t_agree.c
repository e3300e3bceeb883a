/* Level L3: the same layer, routing and seed on several targets. The CPU's answers are written down, those of
 * another CPU target, of HIP on the host shim (L1) and of HIP's machine code under the interpreter (L2) are held
 * against them, element by element; tests/device/sm90.sh does the same on a real NVIDIA GPU. A changed answer
 * and a missing one are noticed. */
#include "user.h"

#include <dirent.h>

/* "moec verify SPEC of the test WORDS"; the exit code. */
static int verify(const char *words) {
    char all[512];
    snprintf(all, sizeof all, "verify E=5 K=2 H=72 F=40 bias=1 shared=24 --tokens 70 --routing zipf:1 --variant 0 %s",
             words);
    limit_s = 300;
    return moec(all);
}

static bool ready(void) {
    if (*dir) return true;
    unsetenv("MOEC_GCN");
    make_dir();
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
