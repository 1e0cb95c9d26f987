/* hazards [NUMBER|NAME...]: the GPU plugin against what is known to go wrong on GPUs, each test once as it is
 * and once with a planted fault that it must notice. One line a test; exit 1 when one fails, 9 without a GPU.
 * hazards planted NAME...: only with the planted fault; exit 1 says that it was noticed.
 * hazards alone: those that want the device for themselves; hazards beside [I N]: the others, each N-th from
 * I. hazards small [TYPE]: two layers in every way, for sanitizers. hazards hold: keeps the device busy for
 * three seconds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/load.h"
#include "rig.h"

struct hazard {
    const char *number, *name;
    hazard_fn *run;
    bool alone; /* takes all memory, waits for an answer by the clock, or loses the device */
};
static const struct hazard hazards[] = {
    {"1", "k-bias", hazard_k_bias, false},
    {"2", "k-type", hazard_k_type, false},
    {"3", "spikes", hazard_spikes, false},
    {"4", "splits", hazard_splits, false},
    {"5", "blocks", hazard_blocks, false},
    {"5", "nan", hazard_nan, false},
    {"6", "contexts", hazard_contexts, false},
    {"7", "windows", hazard_windows, false},
    {"8", "replay", hazard_replay, false},
    {"9", "overlap", hazard_overlap, false},
    {"10", "counters", hazard_counters, false},
    {"11", "hang", hazard_hang, true},
    {"11", "neighbour", hazard_neighbour, true},
    {"13", "same", hazard_same, false},
    {"14", "ties", hazard_ties, false},
    {"14", "sample", hazard_sample, false},
    {"14", "ahead", hazard_ahead, false},
    {"14", "ahead-rows", hazard_ahead_rows, false},
    {"15", "unpack", hazard_unpack, false},
    {"15", "types", hazard_types, false},
    {"16", "kl", hazard_kl, false},
    {"-", "memory", hazard_memory, true},
    {"-", "eviction", hazard_eviction, false},
    {"-", "lost", hazard_lost, true}, /* the last one: it resets the device */
};
#define N_HAZARDS (sizeof hazards / sizeof *hazards)

static bool is_wanted(const struct hazard *h, int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "alone")) return h->alone;
    if (argc == 2 && !strcmp(argv[1], "beside")) return !h->alone;
    if (argc == 4 && !strcmp(argv[1], "beside")) {
        const size_t n = strtoul(argv[3], NULL, 10);
        return !h->alone && n && (size_t)(h - hazards) % n == strtoul(argv[2], NULL, 10);
    }
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], h->name) || !strcmp(argv[i], h->number)) return true;
    return argc < 2;
}

static bool run_planted(struct rig *r, const struct hazard *h)
{
    toy_seed(1);
    bool passes = h->run(r, true);
    printf("hazard %-2s %-10s planted fault %s: %s\n", h->number, h->name, passes ? "NOT NOTICED" : "noticed",
           r->note);
    return passes;
}

/* The planted fault first: the last test leaves the process without a device where the driver gives it none.
 */
static bool run(struct rig *r, const struct hazard *h)
{
    char planted_note[sizeof r->note];
    toy_seed(1);
    bool bad = h->run(r, true);
    memcpy(planted_note, r->note, sizeof planted_note);
    toy_seed(1);
    double t0 = rig_now();
    bool good = h->run(r, false);
    printf("hazard %-2s %-10s %s: %s [%.1f s]\n", h->number, h->name,
           !good ? "FAILED"
           : bad ? "PASSES ALSO WITH A PLANTED FAULT"
                 : "ok",
           r->note, rig_now() - t0);
    if (good && bad) printf("                     planted: %s\n", planted_note);
    fflush(stdout);
    return good && !bad;
}

int main(int argc, char **argv)
{
    struct rig r = {.g = NULL};
    struct apr_err err;
    int status = 0;
    size_t n_run = 0;
    if (apr_gpu_load(&r.g, &err) != APR_OK) return fprintf(stderr, "hazards: %s\n", err.text), 9;
    if (r.g->device_open(0, &r.dev, &r.e) != APR_GPU_OK) return fprintf(stderr, "hazards: %s\n", r.e.text), 9;
    if (argc == 2 && !strcmp(argv[1], "hold")) return rig_hold(&r);
    if (argc == 2 && !strcmp(argv[1], "alive")) return toy_seed(1), rig_alive(&r);
    if (argc > 1 && !strcmp(argv[1], "small")) return rig_small(&r, argc > 2 ? argv[2] : NULL);
    const bool planted = argc > 2 && !strcmp(argv[1], "planted");
    for (size_t i = 0; i < N_HAZARDS; i++) {
        if (!is_wanted(&hazards[i], argc, argv)) continue;
        n_run++;
        if (!(planted ? run_planted : run)(&r, &hazards[i])) status = 1;
    }
    if (r.dev) r.g->device_close(r.dev);
    if (n_run == 0) return fprintf(stderr, "hazards: no such test\n"), 2;
    printf("hazards: %s\n", status ? "FAILED" : "ok");
    return status;
}
