/* apr-qa: judges models. Reads only; computes no forward pass itself. */
#include "verbs.h"

static const struct apr_verb *const verbs[] = {&verb_validate, &verb_oracle, &verb_validate_stats,
                                               &verb_compare_inference};

static const struct apr_tool tool = {
    .name = "apr-qa", .verbs = verbs, .n_verbs = sizeof verbs / sizeof verbs[0]};

int main(int argc, char **argv)
{
    return apr_tool_main(&tool, argc, argv);
}
