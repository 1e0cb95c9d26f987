/* apr-export: models in, the formats of other programs out. */
#include "verbs.h"

static const struct apr_verb *const verbs[] = {&verb_export};

static const struct apr_tool tool = {
    .name = "apr-export", .verbs = verbs, .n_verbs = sizeof verbs / sizeof verbs[0]};

int main(int argc, char **argv)
{
    return apr_tool_main(&tool, argc, argv);
}
