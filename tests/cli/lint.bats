#!/usr/bin/env bats
# Every check of scripts/lint is able to fail: each is given a planted violation. And the count of run-tests is honest.

setup() {
    bats_require_minimum_version 1.5.0
    cd "$BATS_TEST_DIRNAME/../.." || return 1
    ROOT=$PWD
    T=$BATS_TEST_TMPDIR/tree
    mkdir -p "$T/lib" "$T/tools/apr-a" "$T/tools/apr-b" "$T/scripts" "$T/tests/unit" "$T/tests/cli" "$T/bin"
    printf '/* low */\n#ifndef APR_ERR_H\n#define APR_ERR_H\n#endif\n' >"$T/lib/err.h"
    printf '/* high */\n#ifndef APR_TOOL_H\n#define APR_TOOL_H\n#endif\n' >"$T/lib/tool.h"
    printf '/* of a */\n#ifndef APR_A_H\n#define APR_A_H\n#endif\n' >"$T/tools/apr-a/a.h"
    printf '#include "err.h"\n#include "tool.h"\n#include "a.h"\n' >"$T/tools/apr-a/main.c"
    echo '#!/bin/sh' >"$T/scripts/x"
}

refused() { # script, pattern
    run "$ROOT/scripts/$1" "$T"
    [ "$status" -eq 1 ] || { echo "status $status: $output"; return 1; }
    [[ "$output" == *$2* ]] || { echo "$output"; return 1; }
}

@test "layers: a good tree passes" {
    run scripts/check-layers "$T"
    [ "$status" -eq 0 ] || { echo "$output"; false; }
}

@test "layers: each violation is seen" {
    printf '#include "tool.h"\n' >"$T/lib/err.c"
    refused check-layers '"err" includes "tool" of a higher layer'
    printf '#include "../tools/apr-a/a.h"\n' >"$T/lib/err.c"
    refused check-layers 'of a tool'
    rm "$T/lib/err.c"
    printf '#include "../apr-a/a.h"\n' >"$T/tools/apr-b/main.c"
    refused check-layers 'tool "apr-b" includes "../apr-a/a.h" of "apr-a"'
    rm "$T/tools/apr-b/main.c"
    printf '#include "err.h"\n' >"$T/lib/unheard.c"
    refused check-layers 'module "unheard" has no layer'
}

@test "style: a good tree passes" {
    run scripts/check-style "$T"
    [ "$status" -eq 0 ] || { echo "$output"; false; }
}

@test "style: each violation is seen, and only in code" {
    printf '/* atoi(x); malloc(1) */\nstatic const char s[] = "sprintf(a)";\n' >"$T/lib/err.c"
    run scripts/check-style "$T"
    [ "$status" -eq 0 ] || { echo "$output"; false; }
    local line
    while IFS='|' read -r line want; do
        printf '%b\n' "$line" >"$T/lib/err.c"
        refused check-style "$want"
    done <<'EOT'
int f(char *s) { return atoi(s); }|banned function atoi
void f(char *s) { sprintf(s, "x"); }|banned function sprintf
void f(char *s) { strcpy(s, "x"); }|banned function strcpy
void f(char *s) { strcat(s, "x"); }|banned function strcat
void f(char *s) { strtok(s, "x"); }|banned function strtok
void f(char *s) { gets(s); }|banned function gets
typedef struct x { int a; } x;|typedef of a struct
void *f(void) { return malloc(1); }|malloc outside
#include <pthread.h>|threads outside
void f(void) { exit(1); }|exit in lib/
void f(void) { printf("x"); }|printf in lib/
void f(void) { fprintf(stderr, "x"); }|stderr in lib/
/* TO\x44O: later */|debt marker
int a; /* FIX\x4dE */|debt marker
EOT
    rm "$T/lib/err.c"
    echo 'int x;' >"$T/lib/buf.h"
    echo '#endif' >>"$T/lib/buf.h"
    refused check-style 'without guard'
    rm "$T/lib/buf.h"
    yes 'int x;' | head -n 601 >"$T/lib/err.c"
    refused check-style 'more than 600 lines'
    { printf 'void f(void)\n{\n'; yes '    g();' | head -n 80; echo '}'; } >"$T/lib/err.c"
    refused check-style 'function of 81 lines'
    rm "$T/lib/err.c"
    printf '#!/bin/sh\n# FIX%s later\n' ME >"$T/scripts/x"
    refused check-style 'debt marker'
}

# A small repository with the project's own lint and configuration.
lint_tree() {
    rm -rf "$T"
    mkdir -p "$T/lib" "$T/bin" "$T/scripts" "$T/tests" "$T/.ci"
    cp "$ROOT"/.gitignore "$ROOT"/.clang-format "$ROOT"/.clang-tidy "$ROOT"/.shellcheckrc "$T"
    cp "$ROOT"/scripts/{lint,check-layers,check-style,gen-verbs} "$T/scripts"
    cp "$ROOT/Makefile" "$T"
    cp "$ROOT/bin/verbs" "$T/bin"
    printf 'int apr_ckd_test(int x);\nint apr_ckd_test(int x)\n{\n    return x + 1;\n}\n' >"$T/lib/ckd.c"
    git -C "$T" init -q
}

lint() { (cd "$T" && unset O && scripts/lint "$@"); }

@test "lint: a good tree is clean, twice" {
    lint_tree
    run lint
    [ "$status" -eq 0 ] || { echo "$output"; false; }
    [ "${lines[-1]}" = 'lint: clean' ]
    run lint
    [ "$status" -eq 0 ]
}

@test "lint: format, clang, cppcheck, tidy and shell see what is planted" {
    lint_tree
    printf 'int apr_ckd_test(int x);\nint apr_ckd_test(int x) {\n  return x+1;\n}\n' >"$T/lib/ckd.c"
    run lint format
    [ "$status" -eq 1 ]
    printf 'long apr_ckd_test(long x);\nlong apr_ckd_test(long x)\n{\n    int y = x;\n    return y;\n}\n' >"$T/lib/ckd.c"
    run lint clang
    [ "$status" -eq 1 ]
    printf 'int apr_ckd_test(int x);\nint apr_ckd_test(int x)\n{\n    int a[2] = {0, 1};\n    return x ? a[2] : 0;\n}\n' >"$T/lib/ckd.c"
    run lint cppcheck
    [ "$status" -eq 1 ]
    [[ "$output" == *arrayIndexOutOfBounds* ]]
    printf '#include <string.h>\nint apr_ckd_test(const char *x);\nint apr_ckd_test(const char *x)\n{\n    if (strcmp(x, "a")) return 1;\n    if (x[0]);\n    return 0;\n}\n' >"$T/lib/ckd.c"
    run lint tidy
    [ "$status" -eq 1 ]
    [[ "$output" == *bugprone-* ]]
    # shellcheck disable=SC2016 # the text is the planted script
    printf '#!/bin/sh\nrm $1\n' >"$T/scripts/bad"
    run lint shell
    [ "$status" -eq 1 ]
    run lint no-such-check
    [ "$status" -eq 2 ]
}

@test "run-tests: counts passes, failures, skips and crashes" {
    mkdir -p "$T/build/unit"
    cp "$ROOT/scripts/run-tests" "$T/scripts"
    run_there() { (cd "$T" && BINDIR=bin O=build run "scripts/run-tests" "$@" && echo "$output" && return "$status"); }
    run run_there unit
    [ "$status" -eq 1 ] # nothing ran
    [ "${lines[-1]}" = '0 passed, 0 failed, 0 skipped' ]
    printf '@test "a" { true; }\n@test "b" { skip "reason"; }\n' >"$T/tests/cli/a.bats"
    touch "$T/tests/unit/test_a.c"
    printf '#!/bin/sh\necho 1..3; echo ok 1 - a; echo ok 2 - b; echo "ok 3 - c # SKIP no"\n' >"$T/build/unit/test_a"
    chmod +x "$T/build/unit/test_a"
    run run_there unit cli
    [ "$status" -eq 0 ] || { echo "$output"; false; }
    [ "${lines[-1]}" = '3 passed, 0 failed, 2 skipped' ]
    printf '#!/bin/sh\necho 1..3; echo ok 1 - a; kill -SEGV $$\n' >"$T/build/unit/test_a"
    run run_there unit
    [ "$status" -eq 1 ]
    [ "${lines[-1]}" = '1 passed, 2 failed, 0 skipped' ]
    printf '@test "a" { false; }\n' >"$T/tests/cli/a.bats"
    run run_there cli
    [ "$status" -eq 1 ]
    [ "${lines[-1]}" = '0 passed, 1 failed, 0 skipped' ]
}
