/* Tensors in another form: rows, norms, halves, experts, generated tables. Run from the project root. */
#include "tiny.h"

#include "family/differ.h"
#include "family/rope.h"
#include "reform.h"
#include "view.h"

/* A model whose data is computed: floats 0, 1, 2 ...; bytes of other types ascend by 7. */
static enum apr_code ramp(struct apr_model *m, const struct apr_tensor *t, uint64_t off, void *dst, size_t n,
                          struct apr_err *e)
{
    (void)m;
    (void)e;
    for (size_t i = 0; i < n; i++) {
        uint64_t i_float = (off + i) / 4;
        float x = (float)i_float;
        ((uint8_t *)dst)[i] =
            t->type == APR_F32 ? ((const uint8_t *)&x)[(off + i) % 4] : (uint8_t)((off + i) * 7);
    }
    return APR_OK;
}

static struct apr_model *model_of(const char *family, const struct apr_config *c)
{
    struct apr_model *m = apr_model_new("test");
    m->family = apr_family_named(family);
    assert_non_null(m->family);
    m->config = *c;
    m->compute = ramp;
    return m;
}

static struct apr_tensor *add(struct apr_model *m, const char *name, enum apr_type type, uint32_t n_dims,
                              uint64_t a, uint64_t b, uint64_t c)
{
    struct apr_tensor *t;
    OK(apr_model_add_tensor(m, &t, &tiny_err));
    *t = (struct apr_tensor){.name = name, .type = type, .n_dims = n_dims, .dims = {a, b, c}};
    OK(apr_tensor_bytes(type, n_dims, t->dims, &t->n_bytes, &tiny_err));
    return t;
}

static const struct apr_tensor *named(const struct apr_tensors *list, const char *name)
{
    for (uint64_t i = 0; i < list->n; i++)
        if (strcmp(list->at[i]->name, name) == 0) return list->at[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

/* The same bytes in one read, and in reads of every odd length. */
static void read_all(struct apr_model *m, const struct apr_tensor *t, uint8_t *out)
{
    uint8_t piece[4096];
    OK(apr_model_read(m, t, 0, out, (size_t)t->n_bytes, &tiny_err));
    for (size_t step = 1; step < 64; step += 9)
        for (uint64_t off = 0; off < t->n_bytes; off += step) {
            size_t n = t->n_bytes - off < step ? (size_t)(t->n_bytes - off) : step;
            OK(apr_model_read(m, t, off, piece, n, &tiny_err));
            assert_memory_equal(piece, out + off, n);
        }
}

static const struct apr_config llama = {.n_layers = 1,
                                        .n_hidden = 32,
                                        .n_heads = 2,
                                        .n_heads_kv = 1,
                                        .head_dim = 8,
                                        .n_inter = 64,
                                        .n_vocab = 8,
                                        .rope = {.theta = 10000, .n_dims = 8}};

#define Q "model.layers.0.self_attn.q_proj.weight"
#define K "model.layers.0.self_attn.k_proj.weight"

/* gguf-export facts, 5.2: dst[h*hd + 2j + s] = src[h*hd + s*hd/2 + j], on plain rows and on blocks. */
static void test_pairs(void **state)
{
    (void)state;
    static const enum apr_type types[] = {APR_F32, APR_BF16, APR_Q8_0, APR_Q4_0};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct apr_model *m = model_of("llama", &llama);
        struct apr_tensors list;
        static uint8_t src[4096], dst[4096];
        add(m, Q, types[i], 2, 16, 32, 0);
        add(m, K, types[i], 2, 8, 32, 0);
        OK(apr_model_index(m, &tiny_err));
        OK(apr_reform(m, APR_TO_GGUF, &m->arena, &list, &tiny_err));
        assert_int_equal(list.n, 2);
        for (size_t k = 0; k < 2; k++) {
            const struct apr_tensor *from = apr_model_find(m, k ? K : Q), *to = named(&list, k ? K : Q);
            const size_t row = (size_t)(from->n_bytes / from->dims[0]);
            OK(apr_model_read(m, from, 0, src, (size_t)from->n_bytes, &tiny_err));
            read_all(m, to, dst);
            for (size_t h = 0; h < (k ? 1 : 2); h++)
                for (size_t s = 0; s < 2; s++)
                    for (size_t j = 0; j < 4; j++)
                        assert_memory_equal(dst + (h * 8 + 2 * j + s) * row, src + (h * 8 + s * 4 + j) * row,
                                            row);
        }
        apr_model_close(m);
    }
}

/* There and back is where it was; the form decides which way is needed. */
static void test_pairs_back(void **state)
{
    (void)state;
    struct apr_config c = llama;
    struct apr_model *m = model_of("llama", &c);
    struct apr_tensors list, back;
    static uint8_t src[4096], dst[4096];
    struct apr_tensor *t = add(m, Q, APR_BF16, 2, 16, 32, 0);
    OK(apr_model_index(m, &tiny_err));
    OK(apr_reform(m, APR_TO_GGUF, &m->arena, &list, &tiny_err));
    m->tensors[0] = *list.at[0]; /* as if it had been loaded in GGUF's form */
    m->config.form = APR_FORM_GGUF;
    struct apr_tensor plain = *t;
    plain.view = NULL;
    OK(apr_reform(m, APR_TO_GGUF, &m->arena, &back, &tiny_err));
    assert_ptr_equal(back.at[0], &m->tensors[0]); /* nothing to do */
    OK(apr_reform(m, APR_TO_CHECKPOINT, &m->arena, &back, &tiny_err));
    /* the view's source is the copy, which is a view of the first: point it at the data itself */
    ((struct apr_view *)(uintptr_t)list.at[0]->view)->src[0] = &plain;
    OK(apr_model_read(m, &plain, 0, src, (size_t)plain.n_bytes, &tiny_err));
    m->tensors[0].view = NULL;
    m->tensors[0].type = APR_BF16;
    read_all(m, back.at[0], dst);
    uint8_t once[4096];
    for (size_t h = 0; h < 2; h++)
        for (size_t s = 0; s < 2; s++)
            for (size_t j = 0; j < 4; j++)
                memcpy(once + (h * 8 + s * 4 + j) * 64, src + (h * 8 + 2 * j + s) * 64, 64);
    assert_memory_equal(dst, once, (size_t)plain.n_bytes);
    apr_model_close(m);
}

static void test_norms(void **state)
{
    (void)state;
    struct apr_config c = llama;
    struct apr_model *m = model_of("gemma", &c);
    struct apr_tensors list;
    float x[32];
    add(m, "model.norm.weight", APR_F32, 1, 32, 0, 0);
    add(m, "model.layers.0.input_layernorm.weight", APR_BF16, 1, 32, 0, 0);
    OK(apr_model_index(m, &tiny_err));
    OK(apr_reform(m, APR_TO_GGUF, &m->arena, &list, &tiny_err));
    read_all(m, named(&list, "model.norm.weight"), (uint8_t *)x);
    for (int i = 0; i < 32; i++) assert_true(x[i] == (float)i + 1);
    assert_int_equal(named(&list, "model.layers.0.input_layernorm.weight")->type, APR_F32);
    m->config.form = APR_FORM_GGUF;
    OK(apr_reform(m, APR_TO_CHECKPOINT, &m->arena, &list, &tiny_err));
    read_all(m, named(&list, "model.norm.weight"), (uint8_t *)x);
    for (int i = 0; i < 32; i++) assert_true(x[i] == (float)i - 1);
    apr_model_close(m);
}

#define A "model.layers.0.self_attn."
static const struct apr_config latent = {.n_layers = 1,
                                         .n_hidden = 32,
                                         .n_heads = 2,
                                         .n_heads_kv = 2,
                                         .head_dim = 5,
                                         .n_inter = 64,
                                         .n_vocab = 8,
                                         .rope = {.theta = 10000, .n_dims = 2},
                                         .mla = {.kv_rank = 4, .n_nope = 3, .n_rope = 2, .n_value = 2}};

/* kv_b [heads * (nope + value), rank] in halves: k_b transposed. */
static void test_latent(void **state)
{
    (void)state;
    struct apr_model *m = model_of("deepseek2", &latent);
    struct apr_tensors list;
    float k[2][4][3], v[2][2][4], back[2][5][4];
    add(m, A "kv_b_proj.weight", APR_F32, 2, 10, 4, 0);
    OK(apr_model_index(m, &tiny_err));
    OK(apr_reform(m, APR_TO_GGUF, &m->arena, &list, &tiny_err));
    assert_int_equal(list.n, 2);
    read_all(m, list.at[0], (uint8_t *)k);
    read_all(m, list.at[1], (uint8_t *)v);
    for (int h = 0; h < 2; h++)
        for (int r = 0; r < 5; r++)
            for (int i = 0; i < 4; i++) {
                float want = (float)((h * 5 + r) * 4 + i);
                assert_true((r < 3 ? k[h][i][r] : v[h][r - 3][i]) == want);
            }
    apr_model_close(m);

    m = model_of("deepseek2", &latent);
    m->config.form = APR_FORM_GGUF;
    m->config.mla.is_split = true;
    add(m, A "kv_b_proj.k.weight", APR_F32, 3, 2, 4, 3);
    add(m, A "kv_b_proj.v.weight", APR_F32, 3, 2, 2, 4);
    OK(apr_model_index(m, &tiny_err));
    OK(apr_reform(m, APR_TO_CHECKPOINT, &m->arena, &list, &tiny_err));
    assert_int_equal(list.n, 1);
    assert_string_equal(list.at[0]->name, A "kv_b_proj.weight");
    read_all(m, list.at[0], (uint8_t *)back);
    for (int h = 0; h < 2; h++)
        for (int r = 0; r < 5; r++)
            for (int i = 0; i < 4; i++)
                assert_true(back[h][r][i] == (float)(r < 3 ? h * 12 + i * 3 + r : h * 8 + (r - 3) * 4 + i));
    apr_model_close(m);
}

static void test_experts_and_turns(void **state)
{
    (void)state;
    struct apr_config c = llama;
    struct apr_tensors list;
    float x[24];
    c.moe = (struct apr_moe){.n_experts = 3, .n_used = 1, .n_inter = 4, .scale = 1};
    struct apr_model *m = model_of("mixtral", &c);
    add(m, "model.layers.0.block_sparse_moe.experts.w1.weight", APR_F32, 3, 3, 4, 2);
    OK(apr_model_index(m, &tiny_err));
    OK(apr_reform(m, APR_TO_CHECKPOINT, &m->arena, &list, &tiny_err));
    assert_int_equal(list.n, 3);
    assert_string_equal(list.at[2]->name, "model.layers.0.block_sparse_moe.experts.2.w1.weight");
    read_all(m, list.at[2], (uint8_t *)x);
    for (int i = 0; i < 8; i++) assert_true(x[i] == (float)(16 + i));
    OK(apr_reform(m, APR_TO_GGUF, &m->arena, &list, &tiny_err));
    assert_ptr_equal(list.at[0], &m->tensors[0]);
    apr_model_close(m);

    m = model_of("gpt2", &llama);
    add(m, "transformer.h.0.mlp.c_fc.weight", APR_F32, 2, 6, 4, 0);
    OK(apr_model_index(m, &tiny_err));
    OK(apr_reform(m, APR_TO_CHECKPOINT, &m->arena, &list, &tiny_err));
    assert_int_equal(list.at[0]->dims[0], 4);
    read_all(m, list.at[0], (uint8_t *)x);
    for (int r = 0; r < 4; r++)
        for (int i = 0; i < 6; i++) assert_true(x[r * 6 + i] == (float)(i * 4 + r));
    apr_model_close(m);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *family, *name;
        enum apr_type type;
        uint32_t n_dims;
        uint64_t dims[3];
        enum apr_form form;
        enum apr_target to;
        const char *says;
    } cases[] = {
        {"llama", Q, APR_F32, 2, {15, 32}, APR_FORM_HF, APR_TO_GGUF, "pairs a head"},
        {"llama", Q, APR_NATIVE_Q8, 2, {16, 32}, APR_FORM_HF, APR_TO_GGUF, "cannot change places"},
        {"llama", Q, APR_F32, 3, {16, 32, 1}, APR_FORM_HF, APR_TO_GGUF, "cannot change places"},
        {"deepseek2", A "kv_b_proj.weight", APR_F32, 2, {11, 4}, APR_FORM_HF, APR_TO_GGUF, "does not suit"},
        {"deepseek2",
         A "kv_b_proj.k.weight",
         APR_F32,
         3,
         {2, 4, 3},
         APR_FORM_GGUF,
         APR_TO_CHECKPOINT,
         "value half"},
        {"gpt2",
         "transformer.h.0.mlp.c_fc.weight",
         APR_Q8_0,
         2,
         {6, 32},
         APR_FORM_HF,
         APR_TO_CHECKPOINT,
         "transposed"},
        {"mixtral",
         "model.layers.0.block_sparse_moe.experts.w1.weight",
         APR_F32,
         2,
         {6, 32},
         APR_FORM_HF,
         APR_TO_CHECKPOINT,
         "told apart"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct apr_model *m = model_of(cases[i].family, cases[i].family[0] == 'd' ? &latent : &llama);
        struct apr_tensors list;
        struct apr_err e;
        m->config.form = cases[i].form;
        add(m, cases[i].name, cases[i].type, cases[i].n_dims, cases[i].dims[0], cases[i].dims[1],
            cases[i].dims[2]);
        OK(apr_model_index(m, &tiny_err));
        assert_int_equal(apr_reform(m, cases[i].to, &m->arena, &list, &e), APR_ECONTRACT);
        if (!strstr(e.text, cases[i].says) || !strstr(e.text, cases[i].name))
            fail_msg("case %zu: %s", i, e.text);
        apr_model_close(m);
    }
}

/* gguf-export facts, 5.3: head size 64, theta 5e5, factor 8: entries 15 to 17. */
static void test_rope_tables(void **state)
{
    (void)state;
    struct apr_config c = llama;
    struct apr_tensors list;
    float x[32];
    c.rope = (struct apr_rope){.theta = 5e5,
                               .n_dims = 64,
                               .scaling = APR_ROPE_LLAMA3,
                               .factor = 8,
                               .low_freq_factor = 1,
                               .high_freq_factor = 4,
                               .n_ctx_orig = 8192};
    struct apr_model *m = model_of("llama", &c);
    add(m, "model.norm.weight", APR_F32, 1, 32, 0, 0);
    OK(apr_model_index(m, &tiny_err));
    OK(apr_reform(m, APR_TO_GGUF, &m->arena, &list, &tiny_err));
    assert_int_equal(list.n, 2);
    assert_string_equal(apr_reform_gguf_name(m, list.at[0]->name, &m->arena), "rope_freqs.weight");
    read_all(m, list.at[0], (uint8_t *)x);
    assert_true(x[0] == 1 && x[31] == 8);
    assert_float_equal(x[15], 1.5534146F, 1e-6F);
    assert_float_equal(x[16], 2.69453F, 1e-5F);
    assert_float_equal(x[17], 5.257327F, 1e-5F);
    for (uint32_t i = 0; i < 32; i++) assert_true(x[i] == (float)apr_rope_divisor(&c.rope, i));
    apr_model_close(m);

    c.rope.scaling = APR_ROPE_LINEAR;
    assert_true(apr_rope_divisor(&c.rope, 7) == 8);
    c.rope.scaling = APR_ROPE_LONG; /* a place in phi3 alone */
    c.rope.n_factors = 4;
    m = model_of("llama", &c);
    struct apr_err e;
    assert_int_equal(apr_reform(m, APR_TO_GGUF, &m->arena, &list, &e), APR_ECONTRACT);
    assert_non_null(strstr(e.text, "rope scaling"));
    m->family = apr_family_named("phi3");
    for (int i = 0; i < 4; i++) m->config.rope.long_factor[i] = (float)i + 2;
    OK(apr_reform(m, APR_TO_GGUF, &m->arena, &list, &tiny_err));
    assert_int_equal(list.n, 2);
    read_all(m, named(&list, "generated.rope_factors_long.weight"), (uint8_t *)x);
    assert_true(x[0] == 2 && x[3] == 5);
    apr_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_pairs_back),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_latent),
        cmocka_unit_test(test_experts_and_turns),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_rope_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
