/* embed: a host tool that turns files into one C table, so that the binary carries its templates.
 *
 * usage: embed OUT FILE...; a file is named by its path without the first folder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long emit_bytes(FILE *in, FILE *out) {
    long n = 0;
    for (int c; (c = getc(in)) != EOF; n++) fprintf(out, "%d,%s", c, n % 24 == 23 ? "\n" : "");
    return n;
}

static void one_file(const char *path, int index, long *size, FILE *out) {
    FILE *in = fopen(path, "rb");
    if (!in) {
        perror(path);
        exit(1);
    }
    fprintf(out, "static const char f%d[] = {\n", index);
    *size = emit_bytes(in, out);
    fprintf(out, "0};\n");
    fclose(in);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: embed OUT FILE...\n");
        return 2;
    }
    FILE *out = fopen(argv[1], "w");
    long *size = calloc((size_t)argc, sizeof *size);
    if (!out || !size) {
        perror(argv[1]);
        return 1;
    }
    fprintf(out, "#include \"gen.h\"\n");
    for (int i = 2; i < argc; i++) one_file(argv[i], i, &size[i], out);
    fprintf(out, "const moec_template_file moec_template_files[] = {\n");
    for (int i = 2; i < argc; i++)
        fprintf(out, "{\"%s\", f%d, %ld},\n", strchr(argv[i], '/') + 1, i, size[i]);
    fprintf(out, "};\nconst int moec_template_file_count = %d;\n", argc - 2);
    free(size);
    return fclose(out) ? 1 : 0;
}
