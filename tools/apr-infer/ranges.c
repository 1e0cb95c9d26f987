/* Lists and ranges of numbers. */
#include "ranges.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

struct item {
    uint64_t first, last, step, factor; /* step or factor, the other is 0 */
};

static const char *number(const char *p, uint64_t *v)
{
    char *end;
    if (*p < '0' || *p > '9') return NULL;
    errno = 0;
    *v = strtoull(p, &end, 10);
    return errno ? NULL : end;
}

/* One item; what follows it, or NULL. */
static const char *item_parse(const char *p, struct item *it)
{
    *it = (struct item){.step = 1};
    p = number(p, &it->first);
    if (!p) return NULL;
    it->last = it->first;
    if (*p != '-') return p;
    p = number(p + 1, &it->last);
    if (!p || it->last < it->first) return NULL;
    if (*p == '+') {
        p = number(p + 1, &it->step);
        if (!it->step) return NULL;
    } else if (*p == '*') {
        it->step = 0;
        p = number(p + 1, &it->factor);
        if (it->factor < 2 || !it->first) return NULL;
    }
    return p;
}

enum apr_code apr_ranges_parse(const char *option, const char *s, uint64_t min, uint64_t max,
                               struct apr_ranges *r, struct apr_err *e)
{
    for (const char *p = s;; p++) {
        struct item it;
        const char *end = item_parse(p, &it);
        if (!end || (*end && *end != ',') || it.first < min || it.last > max)
            return apr_fail(e, APR_EUSAGE,
                            "%s: expected numbers from %" PRIu64 " to %" PRIu64
                            " such as 128,512 or 64-256+64 or 1-16*2, found \"%.40s\"",
                            option, min, max, p);
        for (uint64_t v = it.first; v <= it.last; v = it.step ? v + it.step : v * it.factor) {
            if (r->n == APR_MAX_RANGE)
                return apr_fail(e, APR_EUSAGE, "%s: more than %u values", option, APR_MAX_RANGE);
            r->at[r->n++] = v;
            if (it.step > it.last - v || (it.factor && v > it.last / it.factor)) break;
        }
        p = end;
        if (!*p) return APR_OK;
    }
}
