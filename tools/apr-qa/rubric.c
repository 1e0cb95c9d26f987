#include "rubric.h"

#include <stdio.h>
#include <string.h>

#include "points.h"

#define SUITE  "a property of the tools, shown by their test suite"
#define AUDIO  "audio models only"
#define RUNS   "needs a forward pass: apr check, apr eval"
#define ROUTE  "a property of a conversion, shown by apr rosetta and the test suite"
#define NO_ROW "needs statistics of every row, which this verb does not take"

/* Order and subjects are the published list's; number = index + 1. */
static const struct point points[N_POINTS] = {
    /* A Structure */
    {"magic", point_magic, NULL},
    {"header complete", point_header, NULL},
    {"version known", point_version, NULL},
    {"checksums", point_checksum, NULL},
    {"metadata well-formed", point_metadata, NULL},
    {"tensors aligned", point_alignment, NULL},
    {"index sorted", point_sorted, NULL},
    {"compression known", point_compression, NULL},
    {"shard manifest", point_shards, NULL},
    {"endianness", point_endianness, NULL},
    {"flags known", point_flags, NULL},
    {"footer", point_footer, NULL},
    {"file size", point_size, NULL},
    {"offsets in bounds", point_bounds, NULL},
    {"empty model", NULL, "this model has tensors"},
    {"metadata size", point_meta_size, NULL},
    {"names are text", point_names_text, NULL},
    {"names unique", point_names_unique, NULL},
    {"at most 8 dimensions", point_dims, NULL},
    {"scalars", point_scalars, NULL},
    {"types known", point_types, NULL},
    {"padding is zero", point_padding, NULL},
    {"signature", NULL, "signatures are not checked"},
    {"encryption", NULL, "encrypted files are refused when they are opened (status 9)"},
    {"loads in a browser", NULL, "not a target of these tools"},
    /* B Physics */
    {"no NaN", point_nan, NULL},
    {"no infinity", point_inf, NULL},
    {"norm weights near one", point_norm_mean, NULL},
    {"norm biases near zero", point_norm_bias, NULL},
    {"embedding spread", point_embed_std, NULL},
    {"no zero tensor", point_zero, NULL},
    {"shapes as configured", point_shapes, NULL},
    {"vocabulary matches", point_vocab, NULL},
    {"quantization scales", point_quant, NULL},
    {"matrices centred", point_linear_mean, NULL},
    {"softmax sums to one", NULL, RUNS},
    {"mel filters not negative", NULL, AUDIO},
    {"position embedding shape", NULL, "no family here has learnt positions"},
    {"token ids in range", point_token_ids, NULL},
    {"audio range", NULL, AUDIO},
    {"F16 range", point_f16_range, NULL},
    {"sparsity", point_sparsity, NULL},
    {"dead neurons", NULL, NO_ROW},
    {"no value above 1e6", point_large, NULL},
    {"no repetition", NULL, RUNS},
    {"silence stays silent", NULL, AUDIO},
    {"noise stays noise", NULL, AUDIO},
    {"mel shape", NULL, AUDIO},
    {"text context", NULL, AUDIO},
    {"distance to a reference", NULL, "needs a reference: apr diff, apr rosetta verify"},
    /* C Tooling */
    {"inspect under 100 ms", NULL, SUITE},
    {"lint defaults", NULL, SUITE},
    {"output without a terminal", NULL, SUITE},
    {"graph view", NULL, SUITE},
    {"statistics view", NULL, SUITE},
    {"diff of equals is empty", NULL, SUITE},
    {"diff finds a change", NULL, SUITE},
    {"merge by average", NULL, SUITE},
    {"merge by TIES", NULL, SUITE},
    {"ONNX export", NULL, "not a format of these tools"},
    {"GGUF export", NULL, SUITE},
    {"int8 size", NULL, SUITE},
    {"prune", NULL, "not a verb of these tools"},
    {"trace as JSON", NULL, SUITE},
    {"explain an error", NULL, SUITE},
    {"explain a tensor", NULL, SUITE},
    {"analyse a source", NULL, SUITE},
    {"validation inside import", NULL, SUITE},
    {"force", NULL, SUITE},
    {"cache directory", NULL, SUITE},
    {"configuration file", NULL, SUITE},
    {"canary", NULL, SUITE},
    {"JSON output", NULL, SUITE},
    {"trace payload", NULL, SUITE},
    {"trace difference", NULL, SUITE},
    /* D Conversion */
    {"SafeTensors import", NULL, ROUTE},
    {"PyTorch import", NULL, "refused by design: pickles execute code"},
    {"GGUF import", NULL, ROUTE},
    {"round trip", NULL, ROUTE},
    {"names mapped", point_names_family, NULL},
    {"quantization kept", NULL, ROUTE},
    {"F32 to BF16", NULL, ROUTE},
    {"BF16 to F32", NULL, ROUTE},
    {"vocabulary kept", NULL, ROUTE},
    {"special tokens known", point_special, NULL},
    {"metadata kept", NULL, ROUTE},
    {"names normalised", NULL, ROUTE},
    {"orientation", point_orientation, NULL},
    {"scale kept", NULL, ROUTE},
    {"sharded import", NULL, ROUTE},
    {"remote import", NULL, SUITE},
    {"cache hit", NULL, SUITE},
    {"SHA-256 of the sources", point_sources, NULL},
    {"license named", point_license, NULL},
    {"architecture detected", point_family, NULL},
    {"output path", NULL, SUITE},
    {"refuses to overwrite", NULL, SUITE},
    {"disk full", NULL, SUITE},
    {"memory limit", NULL, SUITE},
    {"golden trace", NULL, RUNS},
};

const struct point *rubric_at(unsigned number)
{
    return &points[number - 1];
}

const char *rubric_category(unsigned number)
{
    static const char *const names[] = {"A Structure", "B Physics", "C Tooling", "D Conversion"};
    return names[(number - 1) / 25];
}

const char *rubric_status(enum point_status status)
{
    static const char *const names[] = {
        [POINT_SKIP] = "skip", [POINT_PASS] = "pass", [POINT_WARN] = "warn", [POINT_FAIL] = "fail"};
    return names[status];
}

void rubric_run(const struct facts *f, struct point_result r[N_POINTS])
{
    for (size_t i = 0; i < N_POINTS; i++) {
        r[i] = (struct point_result){.status = POINT_SKIP};
        if (points[i].check)
            r[i].status = points[i].check(f, r[i].detail, sizeof r[i].detail);
        else
            (void)snprintf(r[i].detail, sizeof r[i].detail, "%s", points[i].reason);
    }
}

void rubric_score(const struct point_result r[N_POINTS], unsigned first, unsigned last, struct score *s)
{
    static const struct {
        double pct;
        const char *grade;
    } grades[] = {{95, "A+"}, {90, "A"}, {85, "B+"}, {80, "B"}, {75, "C+"}, {70, "C"}, {60, "D"}, {0, "F"}};
    size_t i = 0;
    *s = (struct score){0};
    for (unsigned k = first; k <= last; k++) {
        s->n_passed += r[k - 1].status == POINT_PASS;
        s->n_warned += r[k - 1].status == POINT_WARN;
        s->n_failed += r[k - 1].status == POINT_FAIL;
    }
    s->n_applicable = s->n_passed + s->n_warned + s->n_failed;
    s->pct = s->n_applicable ? 100.0 * s->n_passed / s->n_applicable : 0;
    while (s->pct < grades[i].pct) i++;
    s->grade = s->n_applicable ? grades[i].grade : "-";
}
