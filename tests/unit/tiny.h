/* Tiny model files in memory, and ways to open bytes as a file or as a pipe. For the tests of lib/fmt.
 *
 *     struct apr_buf b; tiny_apr(&b); struct apr_model *m; enum apr_code code = tiny_open(&b, false, &m, &e);
 */
#ifndef APR_TINY_H
#define APR_TINY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fmt/apr_meta.h"
#include "fmt/fmt.h"
#include "load.h"

static struct apr_err tiny_err; /* of the last call that may not fail */

#define OK(call)                                                                                             \
    do {                                                                                                     \
        if ((call) != APR_OK) fail_msg("%s: %s", #call, tiny_err.text);                                      \
    } while (0)

static inline void tiny_put(struct apr_buf *b, const void *p, size_t n)
{
    OK(apr_buf_append(b, p, n, &tiny_err));
}

static inline void tiny_uint(struct apr_buf *b, uint64_t v, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) tiny_put(b, &(uint8_t){(uint8_t)(v >> 8 * i)}, 1);
}

/* Opens the bytes through a path; as a pipe they must fit its buffer (64 KiB). */
static inline enum apr_code tiny_open(const void *p, size_t n, bool as_pipe, struct apr_model **m,
                                      struct apr_err *e)
{
    int fd[2] = {-1, -1};
    char path[32];
    if (as_pipe) {
        assert_int_equal(pipe(fd), 0);
        assert_true(n <= 65536);
    } else {
        fd[0] = fd[1] = memfd_create("tiny", MFD_CLOEXEC);
    }
    assert_true(fd[1] >= 0);
    assert_int_equal(write(fd[1], p, n), n);
    if (as_pipe) close(fd[1]);
    (void)snprintf(path, sizeof path, "/dev/fd/%d", fd[0]);
    e->text[0] = '\0';
    enum apr_code code = apr_load_model(path, as_pipe ? APR_LOAD_STREAM : APR_LOAD_RANDOM, m, e);
    close(fd[0]);
    return code;
}

/* A plan of three tensors: BF16 [2, 32], F32 [4], Q8_0 [2, 32] unless is_plain. Data is ascending bytes. */
struct tiny_plan {
    struct apr_plan p;
    struct apr_plan_tensor t[3];
};

static inline void tiny_plan(struct tiny_plan *t, const struct apr_fmt *f, bool is_plain)
{
    static const struct apr_plan_tensor rows[] = {
        {.name = "a.weight", .type = APR_BF16, .n_dims = 2, .dims = {2, 32}},
        {.name = "b.bias", .type = APR_F32, .n_dims = 1, .dims = {4}},
        {.name = "c.weight", .type = APR_Q8_0, .n_dims = 2, .dims = {2, 32}},
    };
    memset(t, 0, sizeof *t);
    memcpy(t->t, rows, sizeof rows);
    if (is_plain) t->t[2].type = APR_F16;
    t->p.tensors = t->t;
    t->p.n_tensors = 3;
    for (int i = 0; i < 3; i++)
        OK(apr_tensor_bytes(t->t[i].type, t->t[i].n_dims, t->t[i].dims, &t->t[i].n_bytes, &tiny_err));
    OK(apr_plan_layout(&t->p, f->alignment, &tiny_err));
}

static inline void tiny_write(const struct apr_fmt *f, const struct apr_plan *p, const json_t *trailer,
                              struct apr_buf *b)
{
    struct apr_sink *s;
    struct apr_writer *w;
    uint8_t byte = 0;
    apr_buf_init(b, 64u << 20);
    apr_sink_mem(&s, b);
    OK(f->begin(p, s, &w, &tiny_err));
    for (uint64_t i = 0; i < p->n_tensors; i++)
        for (uint64_t k = 0; k < p->tensors[i].n_bytes; k++, byte++) OK(f->data(w, &byte, 1, &tiny_err));
    OK(f->end(w, trailer, &tiny_err));
    OK(apr_sink_finish(s, &tiny_err));
}

/* A vocabulary with the awkward characters of JSON in it. */
static struct apr_str tiny_toks[] = {{"a", 1},
                                     {"\"", 1},
                                     {"\\", 1},
                                     {"\n", 1},
                                     {"\xc4\xa0"
                                      "b",
                                      3},
                                     {"<|im_end|>", 10}};
static struct apr_str tiny_merges[] = {{"a b", 3}, {"\" \\", 3}};
static int32_t tiny_types[] = {1, 1, 1, 1, 1, 3};

static inline void tiny_vocab(struct apr_vocab *v)
{
    *v = (struct apr_vocab){.kind = APR_VOCAB_BPE,
                            .n_toks = 6,
                            .toks = tiny_toks,
                            .types = tiny_types,
                            .n_merges = 2,
                            .merges = tiny_merges,
                            .pre = "qwen2"};
    v->bos_id = v->unk_id = v->sep_id = v->pad_id = v->cls_id = v->mask_id = v->eot_id = APR_ID_NONE;
    v->eos_id = 5;
    v->add_bos = 0;
    v->add_eos = v->add_sep = v->add_space_prefix = -1;
    v->chat_template = "{{ 'x' }}\n";
    v->special_order[0] = "eos";
    v->n_special_order = 1;
}

static inline void tiny_st(struct apr_buf *b)
{
    struct tiny_plan t;
    json_t *meta = json_pack("{s:s}", "format", "pt");
    tiny_plan(&t, apr_fmt_named("st"), true);
    t.p.meta = meta;
    tiny_write(apr_fmt_named("st"), &t.p, NULL, b);
    json_decref(meta);
}

static inline void tiny_apr(struct apr_buf *b)
{
    struct tiny_plan t;
    struct apr_vocab v;
    struct apr_model *m = apr_model_new("tiny");
    json_t *meta, *trailer = json_pack("{s:{}}", "tensors");
    tiny_vocab(&v);
    m->vocab = v;
    OK(apr_meta_build(m, &meta, &tiny_err));
    tiny_plan(&t, apr_fmt_named("apr"), false);
    t.p.meta = meta;
    t.p.vocab = &v;
    tiny_write(apr_fmt_named("apr"), &t.p, trailer, b);
    json_decref(meta);
    json_decref(trailer);
    apr_model_close(m);
}

static inline void tiny_gguf(struct apr_buf *b)
{
    struct tiny_plan t;
    struct apr_arena a;
    struct apr_kvs kvs;
    apr_arena_init(&a);
    apr_kvs_init(&kvs, &a);
    apr_kvs_str(&kvs, "general.architecture", "tiny");
    apr_kvs_f32(&kvs, "tiny.scale", 0.5F);
    apr_kvs_str(&kvs, "tokenizer.ggml.model", "gpt2");
    apr_kvs_array(&kvs, "tokenizer.ggml.tokens", APR_KV_STR, 6, tiny_toks);
    apr_kvs_array(&kvs, "tokenizer.ggml.token_type", APR_KV_I32, 6, tiny_types);
    apr_kvs_array(&kvs, "tokenizer.ggml.merges", APR_KV_STR, 2, tiny_merges);
    apr_kvs_u32(&kvs, "tokenizer.ggml.eos_token_id", 5);
    apr_kvs_bool(&kvs, "tokenizer.ggml.add_bos_token", false);
    tiny_plan(&t, apr_fmt_named("gguf"), false);
    t.p.kvs = &kvs;
    tiny_write(apr_fmt_named("gguf"), &t.p, NULL, b);
    apr_arena_free(&a);
}

#endif
