/* The value of --device. See devices.h. */
#include "devices.h"

#include <inttypes.h>
#include <string.h>

#define MAX_NUMBER 63u

static enum apr_code bad(const char *text, struct apr_err *e)
{
    return apr_fail(e, APR_EUSAGE,
                    "--device: found \"%.40s\", expected auto, cpu, cuda, cuda:N, cuda:N,M,... or cuda:all",
                    text);
}

/* "0,1": each number once */
static enum apr_code parse_list(const char *text, const char *list, struct apr_devices *d, struct apr_err *e)
{
    const char *p = list;
    do {
        uint32_t v = 0;
        const char *first = p;
        for (; *p >= '0' && *p <= '9' && v <= MAX_NUMBER; p++) v = 10 * v + (uint32_t)(*p - '0');
        if (p == first || v > MAX_NUMBER || (*p && *p != ',')) return bad(text, e);
        if (d->n == APR_GPU_DEVICES)
            return apr_fail(e, APR_EUSAGE, "--device: \"%.40s\" names more than %u devices", text,
                            APR_GPU_DEVICES);
        for (uint32_t k = 0; k < d->n; k++)
            if (d->i[k] == v)
                return apr_fail(e, APR_EUSAGE, "--device: \"%.40s\" names device %" PRIu32 " twice", text, v);
        d->i[d->n++] = v;
    } while (*p++ == ',');
    return APR_OK;
}

enum apr_code apr_devices_parse(const char *text, struct apr_devices *d, struct apr_err *e)
{
    static const struct {
        const char *text;
        struct apr_devices is;
    } words[] = {{"auto", {.kind = APR_DEVICES_AUTO, .n = 1}},
                 {"cpu", {.kind = APR_DEVICES_CPU}},
                 {"cuda", {.kind = APR_DEVICES_CUDA, .n = 1}},
                 {"cuda:all", {.kind = APR_DEVICES_CUDA_ALL}}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(text ? text : "auto", words[i].text)) return *d = words[i].is, APR_OK;
    *d = (struct apr_devices){.kind = APR_DEVICES_CUDA};
    return strncmp(text, "cuda:", 5) ? bad(text, e) : parse_list(text, text + 5, d, e);
}
