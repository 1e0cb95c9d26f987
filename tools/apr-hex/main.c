/* apr-hex: looks into models. Reads only, is never gated. */
#include "verbs.h"

static const struct apr_verb *const verbs[] = {&verb_inspect, &verb_tensors, &verb_fingerprint,
                                               &verb_diff_tensors};

static const struct apr_tool tool = {
    .name = "apr-hex", .verbs = verbs, .n_verbs = sizeof verbs / sizeof verbs[0]};

int main(int argc, char **argv)
{
    return apr_tool_main(&tool, argc, argv);
}
