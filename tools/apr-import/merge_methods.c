/* The table of merge methods. */
#include <string.h>

#include "merge.h"

static const struct merge_method methods[] = {
    {.name = "average",
     .aliases = "mean uniform",
     .does = "the mean of all models (model soup)",
     .weights = MERGE_EQUAL,
     .n_min = 2,
     .n_max = MERGE_MAX_INPUTS,
     .mix = merge_linear_mix},
    {.name = "weighted",
     .aliases = "",
     .does = "sum of w x, --weights divided by their sum",
     .takes = MERGE_WEIGHTS,
     .weights = MERGE_NORMALISED,
     .needs_weights = true,
     .n_min = 2,
     .n_max = MERGE_MAX_INPUTS,
     .mix = merge_linear_mix},
    {.name = "linear",
     .aliases = "",
     .does = "sum of w x, --weights as they stand (default 1/n)",
     .takes = MERGE_WEIGHTS,
     .weights = MERGE_AS_GIVEN,
     .n_min = 2,
     .n_max = MERGE_MAX_INPUTS,
     .mix = merge_linear_mix},
    {.name = "slerp",
     .aliases = "",
     .does = "two models along the arc between them, --t of the way, each tensor as one vector",
     .takes = MERGE_T,
     .weights = MERGE_EQUAL,
     .n_min = 2,
     .n_max = 2,
     .prepare = merge_slerp_prepare,
     .prepare_bytes = merge_slerp_bytes,
     .mix = merge_slerp_mix},
    {.name = "ties",
     .aliases = "",
     .does = "base + lambda * disjoint mean of the deltas, each trimmed to its --density largest values, "
             "signs elected by sum",
     .takes = MERGE_WEIGHTS | MERGE_LAMBDA | MERGE_DENSITY,
     .weights = MERGE_POSITIVE,
     .needs_base = true,
     .n_min = 1,
     .n_max = MERGE_MAX_INPUTS,
     .prepare = merge_ties_prepare,
     .prepare_bytes = merge_ties_bytes,
     .mix = merge_ties_mix},
    {.name = "dare-linear",
     .aliases = "dare dare_linear",
     .does = "base + lambda * weighted mean of the deltas, each value dropped with --drop-rate and the rest "
             "scaled "
             "by 1 / (1 - rate)",
     .takes = MERGE_WEIGHTS | MERGE_LAMBDA | MERGE_DROP,
     .weights = MERGE_NORMALISED,
     .needs_base = true,
     .n_min = 1,
     .n_max = MERGE_MAX_INPUTS,
     .prepare = merge_dare_prepare,
     .mix = merge_dare_mix},
    {.name = "dare-ties",
     .aliases = "dare_ties",
     .does = "base + lambda * disjoint mean of the dropped and scaled deltas, signs elected by sum",
     .takes = MERGE_WEIGHTS | MERGE_LAMBDA | MERGE_DROP,
     .weights = MERGE_POSITIVE,
     .needs_base = true,
     .n_min = 1,
     .n_max = MERGE_MAX_INPUTS,
     .prepare = merge_dare_prepare,
     .mix = merge_dare_ties_mix},
    {.name = "task-arithmetic",
     .aliases = "task task_arithmetic",
     .does = "base + lambda * sum of w (x - base), --weights as they stand (default 1)",
     .takes = MERGE_WEIGHTS | MERGE_LAMBDA,
     .weights = MERGE_ONES,
     .needs_base = true,
     .n_min = 1,
     .n_max = MERGE_MAX_INPUTS,
     .mix = merge_task_mix},
};

const struct merge_method *merge_method_at(size_t i)
{
    return i < sizeof methods / sizeof *methods ? &methods[i] : NULL;
}

static bool is_word_of(const char *name, const char *words)
{
    size_t n = strlen(name);
    for (const char *at = words; n > 0 && (at = strstr(at, name)) != NULL; at++)
        if ((at == words || at[-1] == ' ') && (at[n] == '\0' || at[n] == ' ')) return true;
    return false;
}

const struct merge_method *merge_method_named(const char *name)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(methods[i].name, name) == 0 ||
            (!strchr(name, ' ') && is_word_of(name, methods[i].aliases)))
            return &methods[i];
    return NULL;
}
