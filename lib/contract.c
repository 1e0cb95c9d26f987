/* Verdicts, and the gate that makes a checked model. */
#include "contract.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "contract_stamp.h"
#include "log.h"

#define MAX_KEPT 4096u /* violations; the rest are counted */
#define N_SHOWN  3u
#define TEXT_MAX 320

void apr_verdict_init(struct apr_verdict *v, struct apr_arena *arena)
{
    *v = (struct apr_verdict){.arena = arena};
}

static bool seen(const struct apr_verdict *v, const char *tensor)
{
    for (size_t i = v->n; i-- > 0;)
        if (v->at[i].tensor && strcmp(v->at[i].tensor, tensor) == 0) return true;
    return false;
}

static void grow(struct apr_verdict *v)
{
    size_t cap = v->cap ? 2 * v->cap : 16;
    struct apr_violation *at = apr_arena_get(v->arena, cap * sizeof *at);
    if (v->n) memcpy(at, v->at, v->n * sizeof *at);
    v->at = at;
    v->cap = cap;
}

void apr_verdict_add(struct apr_verdict *v, const char *rule, const char *tensor, bool unsafe,
                     const char *format, ...)
{
    char text[TEXT_MAX];
    va_list ap;
    v->n_unsafe += unsafe;
    if (tensor && (v->n == MAX_KEPT || !seen(v, tensor))) v->n_tensors_failed++;
    if (v->n == MAX_KEPT) {
        v->n_dropped++;
        return;
    }
    if (v->n == v->cap) grow(v);
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    v->at[v->n++] = (struct apr_violation){
        .rule = rule, .tensor = tensor, .text = apr_arena_strdup(v->arena, text), .unsafe = unsafe};
}

/* The first violations, one after another; only the unsafe ones where those alone count. */
static void list(const struct apr_verdict *v, bool unsafe_only, char *out, size_t n_out)
{
    size_t n = 0, n_shown = 0;
    out[0] = '\0';
    for (size_t i = 0; i < v->n && n_shown < N_SHOWN && n < n_out; i++) {
        const struct apr_violation *x = &v->at[i];
        if (unsafe_only && !x->unsafe) continue;
        int k = snprintf(out + n, n_out - n, "%s%s%s%s: %s", n_shown ? "; " : "", x->rule,
                         x->tensor ? " " : "", x->tensor ? x->tensor : "", x->text);
        if (k > 0) n += (size_t)k;
        n_shown++;
    }
}

static enum apr_code refuse(const struct apr_verdict *v, uint64_t n, bool unsafe_only, const char *file,
                            struct apr_err *e)
{
    char what[900];
    list(v, unsafe_only, what, sizeof what);
    return apr_fail(e, APR_ECONTRACT, "%s: %" PRIu64 " violation%s in %" PRIu64 " tensor%s: %s%s%s", file, n,
                    n == 1 ? "" : "s", v->n_tensors_failed, v->n_tensors_failed == 1 ? "" : "s", what,
                    n > N_SHOWN ? "; ..." : "",
                    unsafe_only ? " (not even --skip-contract can run this)" : "");
}

enum apr_code apr_verdict_error(const struct apr_verdict *v, const char *file, struct apr_err *e)
{
    return v->n ? refuse(v, v->n + v->n_dropped, false, file, e) : APR_OK;
}

/* Data: a stamp vouches for it, or it is scanned and gets one. */
static enum apr_code check_data(const struct apr_model *m, const struct apr_kern *k, struct apr_pool *pool,
                                struct apr_verdict *v, struct apr_checked_model *out, struct apr_err *e)
{
    int64_t ns_start = apr_now_ns();
    out->stamped = apr_stamp_holds(m);
    if (!out->stamped) {
        TRY(apr_contract_scan_data(m, k, pool, v, e));
        TRY(apr_verdict_error(v, m->path, e));
    }
    out->scan_s = (double)(apr_now_ns() - ns_start) * 1e-9;
    if (!out->stamped) apr_stamp_write(m);
    return APR_OK;
}

enum apr_code apr_contract_check(struct apr_model *m, const struct apr_kern *k, struct apr_pool *pool,
                                 bool skip, struct apr_checked_model *out, struct apr_err *e)
{
    struct apr_arena arena;
    struct apr_verdict v;
    enum apr_code code = APR_OK;
    *out = (struct apr_checked_model){.model = m, .skipped = skip};
    if (m->vocab_only || m->n_tensors == 0)
        return apr_fail(e, APR_ELOAD, "%s: no weights: only a tokenizer is here", m->path);
    apr_arena_init(&arena);
    apr_verdict_init(&v, &arena);
    apr_contract_structure(m, &v);
    if (skip && v.n_unsafe)
        code = refuse(&v, v.n_unsafe, true, m->path, e);
    else if (!skip)
        code = apr_verdict_error(&v, m->path, e);
    if (code == APR_OK) code = apr_model_map(m, e);
    if (code == APR_OK && !skip) code = check_data(m, k, pool, &v, out, e);
    apr_arena_free(&arena);
    if (code != APR_OK) out->model = NULL;
    return code;
}
