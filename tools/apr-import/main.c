/* apr-import: models in, .apr out. */
#include "verbs.h"

static const struct apr_verb *const verbs[] = {&verb_import, &verb_convert, &verb_quantize, &verb_merge,
                                               &verb_edit};

static const struct apr_tool tool = {
    .name = "apr-import", .verbs = verbs, .n_verbs = sizeof verbs / sizeof verbs[0]};

int main(int argc, char **argv)
{
    return apr_tool_main(&tool, argc, argv);
}
