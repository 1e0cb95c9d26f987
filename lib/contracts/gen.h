/* gen-contracts, in three files: yaml.c reads typed values strictly, gen.c knows the schema, emit.c writes C.
 *
 * The program runs on the build machine and is no part of the library: it may print and exit.
 */
#ifndef APR_CONTRACTS_GEN_H
#define APR_CONTRACTS_GEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <yaml.h>

#define MAX_SIZES   32
#define MAX_ROWS    128
#define MAX_EXCUSED 16
#define MAX_TEXT    512
#define THETA_SCALE 1000          /* theta in thousandths */
#define EPS_SCALE   1000000000000 /* epsilon in 1e-12 */

struct str {
    char at[MAX_TEXT];
};

/* The numbers of a size, in the order of gen_int_keys. The first N_NEEDED must be given; 0: the size has no
 * such part. */
enum {
    HIDDEN,
    LAYERS,
    HEADS,
    KV,
    INTER,
    VOCAB,
    HEAD_DIM,
    MAX_POS,
    N_MELS,
    SRC_POS,
    TGT_POS,
    EXPERTS, /* mixture of experts: routed ones, taken by a token, width of one, of the shared ones together
              */
    EXPERTS_USED,
    EXPERT_DIM,
    SHARED_DIM,
    DENSE_LAYERS, /* the first ones, without experts */
    KV_RANK,      /* latent attention */
    Q_RANK,       /* 0: q is one projection */
    NOPE_DIM,
    ROPE_DIM,
    V_DIM,
    WINDOW,
    N_INTS,
    N_NEEDED = N_MELS
};

struct size {
    struct str name, id, parameters, category;
    uint64_t ints[N_INTS];
    uint64_t theta_milli, eps_pico;
    struct str theta, eps; /* as written */
    struct str attention, activation, norm, mlp;
    bool has_bias, tied;
    long line;
};

struct row {
    struct str role, hf, gguf, shape, sizes;
    struct str layers; /* "dense", "moe", or "" = all */
    bool critical, unless_tied;
};

/* A rule that published checkpoints break: the number is given, not derived. */
struct excused {
    struct str rule, sizes, cite; /* sizes: comma-separated */
};

struct family {
    struct str name, id, display_name, vendor, hf_pattern, architectures, quantizations;
    struct str position, chat_format, bos, eos, special;
    struct size defaults; /* the constraints block */
    struct size sizes[MAX_SIZES];
    size_t n_sizes;
    struct row rows[MAX_ROWS];
    size_t n_rows;
    struct excused excused[MAX_EXCUSED];
    size_t n_excused;
    bool extension; /* not among the first eight, whose proofs are counted apart */
};

/* ---- yaml.c */

/* Ends the program with "file:line: ...". */
__attribute__((noreturn, format(printf, 2, 3))) void gen_fail_line(long line, const char *format, ...);
#define line_of(n)   ((long)(n)->start_mark.line + 1)
#define fail(n, ...) gen_fail_line(line_of(n), __VA_ARGS__)

/* Opens a file of one document; the root's values are read with the functions below. */
const yaml_node_t *gen_open(const char *path);
void gen_close(void);
/* Each node may be asked for once: an alias would come twice. Tags are refused. */
const yaml_node_t *gen_node(int i);
const char *gen_scalar(const yaml_node_t *n, const char *what);
void gen_str(const yaml_node_t *n, const char *what, struct str *out);
void gen_word(const yaml_node_t *n, const char *what, struct str *out); /* not empty */
void gen_u64(const yaml_node_t *n, const char *what, uint64_t *out);
void gen_bool(const yaml_node_t *n, const char *what, bool *out);
/* v * scale, which must be whole; rule cites where the bound comes from. */
void gen_scaled(const yaml_node_t *n, const char *what, uint64_t scale, const char *rule, uint64_t *out,
                struct str *text);
void gen_list(const yaml_node_t *n, const char *what, struct str *out); /* joined with commas */
void gen_one_of(const yaml_node_t *n, const char *what, const char *const *choices, struct str *out);
/* Values of a mapping by the position of their key in keys, NULL-terminated ("?name": may be absent). */
void gen_map(const yaml_node_t *n, const char *what, const char *const *keys, const yaml_node_t **values);

/* ---- emit.c */

extern const char *const gen_int_keys[N_INTS];
/* May a family be excused from the rule? NULL-terminated. */
extern const char *const gen_excusable[];
void gen_identifier(const char *s, struct str *out); /* "0.5b" -> "0_5B" */
void gen_emit(const struct family *families, size_t n);

#endif
