/* Merging: several models of one shape become one, value by value.
 *
 * A merge is a model without files: its tensors have the names and shapes of the inputs, and its values are
 * computed when the conversion loop asks for them (apr_model.compute), in chunks of MERGE_CHUNK on the pool.
 * A method is one row of the table in merge_methods.c and one file. Every value depends on the inputs, the
 * parameters and its own place alone, and sums over a whole tensor are added in the order of the chunks: the
 * bytes are the same for any number of threads and any size of piece.
 *
 *     struct merge g = {.method = merge_method_named("ties"), .params = p, .kern = kern, .pool = pool};
 *     TRY(merge_open(&g, inputs, n_inputs, base, e)); ... apr_model_read(g.model, ...) ... merge_close(&g);
 *
 * The inputs are borrowed and must be seekable.
 */
#ifndef APR_IMPORT_MERGE_H
#define APR_IMPORT_MERGE_H

#include "kern/kern.h"
#include "model.h"
#include "pool.h"

#define MERGE_MAX_INPUTS 64u
#define MERGE_CHUNK      ((size_t)16 << 10) /* values of a task; a multiple of every block */

struct merge_params {
    const double *weights; /* [n_inputs], as the method wants them (see weights below) */
    double t;              /* slerp: 0 is the first model, 1 the second */
    double lambda;         /* scale of what is added to the base */
    double density;        /* TIES: fraction of each task vector that is kept */
    double drop_rate;      /* DARE: probability of dropping a value */
    uint64_t seed;         /* DARE */
};

enum { /* what a method takes, for the options and for the record of the merge */
       MERGE_WEIGHTS = 1,
       MERGE_T = 2,
       MERGE_LAMBDA = 4,
       MERGE_DENSITY = 8,
       MERGE_DROP = 16, /* drop rate and seed */
};

enum merge_weights {
    MERGE_EQUAL,      /* 1 / n; a method that takes none */
    MERGE_NORMALISED, /* equal by default; divided by their sum, which must be above 0 */
    MERGE_AS_GIVEN,   /* 1 / n by default, used as they stand */
    MERGE_ONES,       /* 1 by default, used as they stand */
    MERGE_POSITIVE,   /* 1 by default; negative ones are refused: they vote */
};

struct merge;
/* One chunk of one tensor: x[k][i] is value first + i of input k. */
struct merge_chunk {
    const struct merge *g;
    const float *x[MERGE_MAX_INPUTS]; /* NULL where the pass did not ask for the input */
    const float *base;                /* NULL for methods without one */
    uint64_t first;
    size_t n;
    size_t i_chunk; /* of the pass */
    unsigned i_thread;
    double *sum; /* [MERGE_CHUNK], for the method's use */
    float *out;  /* [n], NULL in a pass that only measures */
    void *ctx;   /* the pass's own */
};
typedef void merge_chunk_fn(struct merge_chunk *c);

struct merge_method {
    const char *name, *aliases; /* aliases: separated by spaces */
    const char *does;           /* for help: the formula in words */
    unsigned takes;
    enum merge_weights weights;
    bool needs_weights, needs_base;
    size_t n_min, n_max;
    /* Before the first value of a tensor: fills g->now. NULL: nothing to find out. */
    enum apr_code (*prepare)(struct merge *g, struct apr_err *e);
    /* Memory that prepare takes for a tensor of n_elems. */
    uint64_t (*prepare_bytes)(uint64_t n_elems, unsigned n_threads);
    merge_chunk_fn *mix;
};
const struct merge_method *merge_method_at(size_t i); /* NULL past the end; the first is the default */
const struct merge_method *merge_method_named(const char *name);

/* What prepare found out about the tensor at hand. */
struct merge_tensor {
    const struct apr_tensor *t; /* of the merge; NULL before the first */
    const struct apr_tensor *in[MERGE_MAX_INPUTS], *base;
    uint64_t n_elems;
    double coef[2];                        /* slerp */
    uint32_t least_bits[MERGE_MAX_INPUTS]; /* TIES: bits of the smallest magnitude that is kept */
    uint64_t key[MERGE_MAX_INPUTS];        /* DARE: where each input's random numbers begin */
};

struct merge {
    const struct merge_method *method;
    struct merge_params params;
    const struct apr_kern *kern;
    struct apr_pool *pool;
    struct apr_model *inputs[MERGE_MAX_INPUTS]; /* borrowed */
    size_t n_inputs;
    struct apr_model *base;        /* borrowed; NULL for methods without one */
    bool is_serial;                /* a compressed input takes one reader at a time */
    struct apr_model *model;       /* owned: the merge as a model of F32 values */
    struct merge_scratch *scratch; /* [threads] */
    struct merge_tensor now;
};

/* Refuses (5) inputs that differ in names, shapes, tokenizer or architecture, naming the differences. */
APR_MUST_USE enum apr_code merge_open(struct merge *g, struct apr_model *const *inputs, size_t n_inputs,
                                      struct apr_model *base, struct apr_err *e);
void merge_close(struct merge *g);
/* Memory that computing holds at most, besides the conversion's own. */
uint64_t merge_held_bytes(const struct merge *g);
/* Compares b with a, the first input. In merge_check.c. */
APR_MUST_USE enum apr_code merge_compatible(const struct apr_model *a, const struct apr_model *b,
                                            struct apr_err *e);
/* Are values of this type averaged? Whole numbers are not: they must be equal and are passed on. */
bool merge_is_mixed(const struct apr_kern *k, enum apr_type type);

/* Runs fn over values [first, first + n) of the tensor at hand, chunk by chunk on the pool. i_only: load this
 * input and the base only; SIZE_MAX: all. Refuses NaN and infinities in the inputs (5). */
#define MERGE_ALL SIZE_MAX
APR_MUST_USE enum apr_code merge_pass(struct merge *g, uint64_t first, uint64_t n, size_t i_only, float *out,
                                      merge_chunk_fn *fn, void *ctx, struct apr_err *e);

/* The methods. */
merge_chunk_fn merge_linear_mix, merge_task_mix, merge_slerp_mix, merge_ties_mix, merge_dare_mix,
    merge_dare_ties_mix;
enum apr_code merge_slerp_prepare(struct merge *g, struct apr_err *e);
enum apr_code merge_ties_prepare(struct merge *g, struct apr_err *e);
enum apr_code merge_dare_prepare(struct merge *g, struct apr_err *e);
uint64_t merge_slerp_bytes(uint64_t n_elems, unsigned n_threads);
uint64_t merge_ties_bytes(uint64_t n_elems, unsigned n_threads);
/* Elected sign and disjoint mean of n deltas; d: [n]. Used by TIES and DARE-TIES. */
double merge_elect(const double *d, const double *weights, size_t n);
/* DARE: the delta after the lottery, for value i of input k. */
double merge_drop(const struct merge *g, size_t k, uint64_t i, double delta);

#endif
