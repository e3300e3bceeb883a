/* The template engine: what a template can say, what its errors say, what it cannot do. */
#include <stdlib.h>

#include "gen.h"
#include "prune.h"
#include "t.h"

static moec_gen *gen;
static moec_error err;

/* Renders `text` under the names that the Lua text `env` returns; "" on failure, err says why. */
static const char *render(const char *text, const char *env) {
    static char buf[4096];
    char *out = NULL;
    if (!gen && moec_gen_new(&gen, &err)) return "no generator";
    buf[0] = 0;
    if (!moec_render(gen, "t.tmpl", text, env, &out, &err)) snprintf(buf, sizeof buf, "%s", out);
    free(out);
    return buf;
}

T_CASE(text_passes_through) {
    T_STR(render("a {b} $c %d\n  d\n\n", "return {}"), "a {b} $c %d\n  d\n\n");
}

T_CASE(expressions_insert_values) {
    T_STR(render("int x = ${n * 2};\n", "return { n = 21 }"), "int x = 42;\n");
    T_STR(render("${t.a}${({ 'p', 'q' })[2]}\n", "return { t = { a = 1 } }"), "1q\n");
    T_STR(render("${n / 2}\n", "return { n = 8 }"), "4\n");
}

T_CASE(percent_lines_are_lua) {
    T_STR(render("% for i = 1, 2 do\nrow ${i}\n% end\n%-- a comment\n%% literal\n", "return {}"),
          "row 1\nrow 2\n% literal\n");
}

T_CASE(trailing_blanks_are_cut) { T_STR(render("a${''}  \n", "return {}"), "a\n"); }

T_CASE(errors_name_template_and_line) {
    render("ok\n\n${nope}\n", "return {}");
    T_HAS(err.text, "templates/t.tmpl:3: ${nope} is nil");
    render("% local x = nil + 1\n", "return {}");
    T_HAS(err.text, "templates/t.tmpl:1:");
    render("a\n% if then\n", "return {}");
    T_HAS(err.text, "templates/t.tmpl:2:");
    render("${open\n", "return {}");
    T_HAS(err.text, "unclosed ${");
}

T_CASE(a_missing_part_is_named) {
    render("% include('nothing')\n", "return {}");
    T_HAS(err.text, "no template part/nothing.tmpl");
}

T_CASE(the_sandbox_has_no_world) {
    static const char *const names[] = {"os", "io", "debug", "load", "dofile", "require", "package",
                                        "collectgarbage", "rawset", "getmetatable"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[64];
        snprintf(text, sizeof text, "${tostring(%s)}\n", names[i]);
        T_STR(render(text, "return {}"), "nil\n");
    }
    T_STR(render("${tostring(math.random)}\n", "return {}"), "nil\n");
}

T_CASE(an_endless_loop_ends) {
    render("x\n% while true do end\n", "return {}");
    T_HAS(err.text, "templates/t.tmpl:2: ");
    T_HAS(err.text, "instruction limit");
}

T_CASE(a_memory_hog_ends) {
    render("% local t = {}\n% for i = 1, 1e9 do t[i] = ('x'):rep(1000000) .. i end\n", "return {}");
    T_HAS(err.text, "not enough memory");
    T_STR(render("still ${1}\n", "return {}"), "still 1\n");
}

T_CASE(lint_names_line_and_rule) {
    T_EQ(moec_lint("a\n\tb\n", &err), MOEC_E_TEMPLATE);
    T_HAS(err.text, "line 2 holds a tab");
    T_EQ(moec_lint("${x}\n", &err), MOEC_E_TEMPLATE);
    T_EQ(moec_lint("a \n", &err), MOEC_E_TEMPLATE);
    T_EQ(moec_lint("#include <stdio.h>\n", &err), MOEC_E_TEMPLATE);
    T_EQ(moec_lint("int a;\n", &err), MOEC_E_TEMPLATE);
    T_HAS(err.text, "header lacks");
}

/* ---- helpers that a kernel does not use ---- */

T_CASE(what_nothing_names_goes) {
    static const struct { const char *all, *left; } rows[] = {
        {"DEVICE int a() { return 1; }\nKERNEL k() { a(); }\n", "DEVICE int a() { return 1; }\nKERNEL k() { a(); }\n"},
        {"DEVICE int a() { return 1; }\nKERNEL k() {}\n", "KERNEL k() {}\n"},
        {"DEVICE int b() { return 1; }\nDEVICE int a() { return b(); }\nKERNEL k() {}\n", "KERNEL k() {}\n"},
        /* strings and comments name nothing */
        {"DEVICE int a() {\n    asm(\"{ b }\"); // b }\n}\nDEVICE int b() { return 1; }\nKERNEL k() { a(); }\n",
         "DEVICE int a() {\n    asm(\"{ b }\"); // b }\n}\nKERNEL k() { a(); }\n"},
        {"DEVICE int a(int x) { return x; }\nDEVICE int a(int x, int (&y)[2]) { return x; }\nKERNEL k() { a(1, (2, 3)); }\n",
         "DEVICE int a(int x, int (&y)[2]) { return x; }\nKERNEL k() { a(1, (2, 3)); }\n"}, /* by arguments */
        {"DEVICE int a(int x) { return x; }\nDEVICE int a(int x, int y = 2, int z = 3) { return x; }\nKERNEL k() { a(1, 2); }\n",
         "DEVICE int a(int x) { return x; }\nDEVICE int a(int x, int y = 2, int z = 3) { return x; }\nKERNEL k() { a(1, 2); }\n"},
        {"// of a\n// and more\nDEVICE int a() {\n}\nDEVICE int b() {\n}\nKERNEL k() { b(); }\n",
         "DEVICE int b() {\n}\nKERNEL k() { b(); }\n"},
        {"// ---- one ----\nDEVICE int a() { return 1; }\n\n// ---- two ----\n\nKERNEL k() {}\n",
         "// ---- two ----\n\nKERNEL k() {}\n"},
        {"#define A(x) \\\n    x\n#define B 1\ntypedef int t; // u\ntypedef int u;\nKERNEL k() { u v = B; }\n",
         "#define B 1\ntypedef int u;\nKERNEL k() { u v = B; }\n"},
        {"const int A = 1; // one\nconst int B = 2, C = 3;\nenum { D = 4 };\nKERNEL k() {}\n",
         "const int B = 2, C = 3;\nKERNEL k() {}\n"},
        {"template <int N> struct s { int x[N]; };\nstruct __align__(16) r { int x; };\nKERNEL k(r) {}\n",
         "struct __align__(16) r { int x; };\nKERNEL k(r) {}\n"},
        {"template <int N>\nDEVICE void a(int x,\n              int y) {\n}\nKERNEL k(\n    int x\n) {\n    a<1>(x);\n}\n",
         "template <int N>\nDEVICE void a(int x,\n              int y) {\n}\nKERNEL k(\n    int x\n) {\n    a<1>(x);\n}\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[512];
        snprintf(text, sizeof text, "%s", rows[i].all);
        T_EQ(moec_prune(text), strlen(rows[i].left));
        T_STR(text, rows[i].left);
    }
}

T_MAIN
