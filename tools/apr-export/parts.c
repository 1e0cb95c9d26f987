#include "parts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool is_full(const struct apr_plan *part, const struct apr_plan_tensor *next, struct parts_limit limit)
{
    if (part->n_tensors == 0) return false;
    if (limit.n_tensors && part->n_tensors >= limit.n_tensors) return true;
    return limit.n_bytes &&
           (part->n_data_bytes > limit.n_bytes || next->n_bytes > limit.n_bytes - part->n_data_bytes);
}

/* Counts the parts, and fills them when there is a table. */
static uint64_t cut(const struct apr_plan *whole, struct parts_limit limit, struct apr_plan *parts)
{
    struct apr_plan part = *whole;
    uint64_t n = 0;
    part.n_tensors = part.n_data_bytes = 0;
    for (uint64_t i = 0; i < whole->n_tensors; i++) {
        if (is_full(&part, &whole->tensors[i], limit)) {
            if (parts) parts[n] = part;
            n++;
            part.tensors = &whole->tensors[i];
            part.n_tensors = part.n_data_bytes = 0;
        }
        part.n_tensors++;
        part.n_data_bytes += whole->tensors[i].n_bytes;
    }
    if (parts) parts[n] = part;
    return n + 1;
}

enum apr_code parts_make(const struct apr_plan *whole, struct parts_limit limit, struct apr_arena *a,
                         struct apr_plan **parts, uint32_t *n_parts, struct apr_err *e)
{
    uint64_t n = cut(whole, limit, NULL);
    if (n > MAX_PARTS)
        return apr_fail(e, APR_EUSAGE, "%" PRIu64 " parts, expected at most %u; choose larger parts", n,
                        MAX_PARTS);
    TRY(apr_arena_try(a, parts, (size_t)n, sizeof **parts, "the parts of the output", e));
    cut(whole, limit, *parts);
    for (uint64_t i = 0; i < n; i++) {
        struct apr_plan *p = &(*parts)[i];
        struct apr_plan_tensor *own;
        TRY(apr_arena_try(a, &own, (size_t)p->n_tensors + 1, sizeof *own, "the parts of the output", e));
        if (p->n_tensors) memcpy(own, p->tensors, p->n_tensors * sizeof *own);
        p->tensors = own;
        TRY(apr_plan_layout(p, whole->alignment, e));
    }
    *n_parts = (uint32_t)n;
    return APR_OK;
}

enum apr_code parts_size(const char *option, const char *text, uint64_t *n_bytes, struct apr_err *e)
{
    static const char units[] = "KMGT";
    char *end;
    double v = strtod(text, &end);
    bool ok = *text >= '0' && *text <= '9' && end != text && strpbrk(text, "xXnNeEpP") == NULL;
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit) {
        bool binary = end[1] == 'i';
        for (long i = 0; i <= unit - units; i++) v *= binary ? 1024 : 1000;
        end += binary ? 2 : 1;
    }
    if (*end == 'B') end++;
    if (!ok || *end || v < 1 || v >= 0x1p62)
        return apr_fail(e, APR_EUSAGE, "%s %s: expected a size such as 5GB, 500M or 2GiB", option, text);
    *n_bytes = (uint64_t)v;
    return APR_OK;
}
