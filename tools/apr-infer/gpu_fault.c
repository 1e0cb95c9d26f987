/* See gpu_fault.h. */
#include "gpu_fault.h"

#include <stdlib.h>
#include <string.h>

static bool parse_calls(const char *s, struct apr_gpu_fault_plan *p)
{
    char *end;
    if (strspn(s, "0123456789-") != strlen(s) || *s == '-' || !*s) return false;
    p->i_first = p->i_last = strtoull(s, &end, 10);
    if (*end == '-') {
        p->i_last = UINT64_MAX;
        if (end[1] && end[1] != '-')
            p->i_last = strtoull(end + 1, &end, 10);
        else
            end++;
    }
    return !*end && p->i_first >= 1 && p->i_last >= p->i_first;
}

enum apr_code apr_gpu_fault_parse(struct apr_gpu_fault_plan *p, struct apr_err *e)
{
    static const struct {
        const char *name;
        enum apr_gpu_fault what;
    } kinds[] = {
        {"memory@", APR_GPU_FAULT_MEMORY}, {"trap@", APR_GPU_FAULT_TRAP}, {"spin@", APR_GPU_FAULT_SPIN}};
    const char *s = getenv("APR_GPU_FAULT");
    *p = (struct apr_gpu_fault_plan){.what = APR_GPU_FAULT_NONE};
    if (!s || !*s) return APR_OK;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strncmp(s, kinds[i].name, strlen(kinds[i].name)) && parse_calls(s + strlen(kinds[i].name), p))
            return p->what = kinds[i].what, APR_OK;
    return apr_fail(
        e, APR_EUSAGE,
        "APR_GPU_FAULT: found \"%.40s\", expected memory, trap or spin, @ and calls: trap@3, trap@3-5", s);
}

enum apr_gpu_status apr_gpu_fault_due(struct apr_gpu_fault_plan *p, const struct apr_gpu *gpu,
                                      struct apr_gpu_device *d, struct apr_gpu_err *ge)
{
    p->i_call++;
    if (p->what == APR_GPU_FAULT_NONE) return APR_GPU_OK;
    if (p->i_call >= p->i_first && p->i_call <= p->i_last) return gpu->fault(d, p->what, ge);
    return p->i_call - 1 == p->i_last ? gpu->fault(d, APR_GPU_FAULT_NONE, ge) : APR_GPU_OK;
}

enum apr_code apr_gpu_timeout(double *s, struct apr_err *e)
{
    const char *text = getenv("APR_GPU_TIMEOUT");
    char *end = NULL;
    *s = 0;
    if (!text || !*text) return APR_OK;
    *s = strtod(text, &end);
    if (!*end && *s > 0 && *s <= 86400) return APR_OK;
    return apr_fail(e, APR_EUSAGE, "APR_GPU_TIMEOUT: found \"%.40s\", expected seconds", text);
}
