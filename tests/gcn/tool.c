// Test helper: clang as a subprocess in a scratch folder, and the frame of an assembly file.
#include "tool.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void text_add(struct text *t, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    size_t need = (size_t)vsnprintf(NULL, 0, fmt, ap) + 1;
    va_end(ap);
    if (t->n + need > t->room) {
        t->room = 2 * (t->n + need);
        if (!(t->s = realloc(t->s, t->room)))
            abort();
    }
    vsnprintf(t->s + t->n, need, fmt, again);
    va_end(again);
    t->n += need - 1;
}
void text_free(struct text *t)
{
    free(t->s);
    memset(t, 0, sizeof *t);
}

bool tool_missing(void)
{
    return system("command -v \"$(clang-19 -print-prog-name=ld.lld)\" >/dev/null 2>&1") != 0;
}

static void *slurp(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    void *p = malloc(n > 0 ? (size_t)n : 1);
    if (p && fread(p, 1, (size_t)n, f) != (size_t)n) {
        free(p);
        p = NULL;
    }
    fclose(f);
    *bytes = (size_t)n;
    return p;
}

static bool write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    if (!f)
        return false;
    bool good = fputs(text, f) >= 0;
    return fclose(f) == 0 && good;
}

void *tool_compile(const char *text, bool hip, const char *arch, size_t *bytes, char *why,
                   size_t room)
{
    const char *tmp = getenv("TMPDIR");
    char dir[256], in[300], out[300], log[300], cmd[1600];
    snprintf(dir, sizeof dir, "%s/gcn-XXXXXX", tmp ? tmp : "/tmp");
    snprintf(why, room, "no scratch folder");
    if (!mkdtemp(dir))
        return NULL;
    snprintf(in, sizeof in, "%s/k.%s", dir, hip ? "hip" : "s");
    snprintf(out, sizeof out, "%s/k.co", dir);
    snprintf(log, sizeof log, "%s/log", dir);
    if (hip)
        snprintf(cmd, sizeof cmd,
                 "clang-19 -x hip --cuda-device-only --offload-arch=%s --no-gpu-bundle-output "
                 "-nogpuinc -nogpulib -O3 -fno-math-errno -Wno-everything -c %s -o %s >%s 2>&1",
                 arch, in, out, log);
    else
        snprintf(cmd, sizeof cmd, "clang-19 --target=amdgcn-amd-amdhsa -mcpu=%s %s -o %s >%s 2>&1",
                 arch, in, out, log);
    void *p = NULL;
    if (write_file(in, text) && system(cmd) == 0)
        p = slurp(out, bytes);
    if (!p) {
        size_t n = 0;
        char *said = slurp(log, &n);
        snprintf(why, room, "clang-19 for %s: %.*s", arch, said ? (int)n : 0, said ? said : "");
        free(said);
    }
    remove(in), remove(out), remove(log), rmdir(dir);
    return p;
}

void asm_begin(struct text *t, const char *arch)
{
    text_add(t, ".amdgcn_target \"amdgcn-amd-amdhsa--%s\"\n.text\n", arch);
}
void asm_kernel(struct text *t, const char *name)
{
    text_add(t, ".p2align 8\n.globl %s\n.type %s,@function\n%s:\n", name, name, name);
}
void asm_kernel_end(struct text *t, const char *name)
{
    text_add(t, "  s_endpgm\n.L%s_end:\n.size %s, .L%s_end-%s\n", name, name, name, name);
}
void asm_finish(struct text *t, const char *const *names, size_t n, unsigned lds)
{
    text_add(t, ".rodata\n.p2align 6\n");
    for (size_t i = 0; i < n; i++)
        text_add(t, ".amdhsa_kernel %s\n .amdhsa_user_sgpr_kernarg_segment_ptr 1\n"
                    " .amdhsa_next_free_vgpr 256\n .amdhsa_next_free_sgpr 96\n"
                    " .amdhsa_accum_offset 128\n .amdhsa_group_segment_fixed_size %u\n"
                    " .amdhsa_kernarg_size 24\n .amdhsa_system_sgpr_workgroup_id_x 1\n"
                    ".end_amdhsa_kernel\n", names[i], lds);
    text_add(t, ".amdgpu_metadata\n---\namdhsa.version: [1, 2]\namdhsa.kernels:\n");
    for (size_t i = 0; i < n; i++)
        text_add(t, "  - .name: %s\n    .symbol: %s.kd\n    .kernarg_segment_size: 24\n"
                    "    .group_segment_fixed_size: %u\n    .private_segment_fixed_size: 0\n"
                    "    .kernarg_segment_align: 8\n    .wavefront_size: 64\n"
                    "    .sgpr_count: 96\n    .vgpr_count: 256\n    .agpr_count: 128\n"
                    "    .max_flat_workgroup_size: 1024\n", names[i], names[i], lds);
    text_add(t, "...\n.end_amdgpu_metadata\n");
}
