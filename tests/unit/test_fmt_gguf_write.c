/* GGUF as it is written, and its keys through JSON. */
#include "tiny.h"

#include <math.h>

#include "log.h"

static void round_trip(void **state)
{
    struct apr_buf b;
    struct apr_model *m;
    (void)state;
    tiny_gguf(&b);
    assert_memory_equal(b.data, "GGUF\3\0\0\0\3\0\0\0\0\0\0\0\10\0\0\0\0\0\0\0", 24);
    assert_int_equal(b.n_bytes % 32, 0); /* the last tensor is padded too */
    OK(tiny_open(b.data, b.n_bytes, false, &m, &tiny_err));
    assert_int_equal(m->n_tensors, 3);
    assert_int_equal(m->tensors[2].type, APR_Q8_0);
    assert_int_equal(m->tensors[2].dims[0], 2);
    assert_int_equal(m->tensors[2].data[0], (128 + 16) % 256); /* bytes ascend through the tensors */
    assert_int_equal(m->vocab.n_toks, 6);
    assert_memory_equal(m->vocab.toks[5].p, "<|im_end|>", 10);
    assert_int_equal(m->vocab.n_merges, 2);
    assert_int_equal(m->vocab.eos_id, 5);
    assert_int_equal(m->vocab.add_bos, 0);
    const struct apr_kv *kv = apr_kvs_find(&m->kvs, "tiny.scale");
    assert_true(kv && kv->type == APR_KV_F32 && kv->v.f == 0.5);
    assert_null(apr_kvs_find(&m->kvs, "tokenizer.ggml.tokens")); /* in the vocabulary instead */
    apr_model_close(m);
    apr_buf_free(&b);
}

/* Keys with every type go through JSON unchanged. */
static void keys_through_json(void **state)
{
    static const float floats[] = {0.1F, -3.0F, 1e30F};
    static const int16_t shorts[] = {-1, 7};
    struct apr_arena a;
    struct apr_kvs in, out;
    struct apr_kv kv = {.key = {"u8", 2}, .type = APR_KV_U8, .v.u = 255};
    (void)state;
    apr_arena_init(&a);
    apr_kvs_init(&in, &a);
    apr_kvs_init(&out, &a);
    apr_kvs_u64(&in, "big", UINT64_MAX);
    apr_kvs_u32(&in, "u32", 7);
    apr_kvs_i32(&in, "i32", -7);
    apr_kvs_f32(&in, "inf", -INFINITY);
    apr_kvs_f32(&in, "f", 0.1F);
    apr_kvs_bool(&in, "yes", true);
    apr_kvs_str(&in, "bytes", "\xff\xfe");
    apr_kvs_str(&in, "text", "h\xc3\xa9\"\n");
    apr_kvs_array(&in, "floats", APR_KV_F32, 3, floats);
    apr_kvs_array(&in, "shorts", APR_KV_I16, 2, shorts);
    apr_kvs_array(&in, "strings", APR_KV_STR, 6, tiny_toks);
    apr_kvs_array(&in, "none", APR_KV_STR, 0, NULL);
    apr_kvs_add(&in, &kv);
    json_t *packed = apr_meta_kvs_pack(&in), *again;
    OK(apr_meta_kvs_unpack(packed, &out, "test", &tiny_err));
    again = apr_meta_kvs_pack(&out);
    assert_true(json_equal(packed, again));
    assert_true(apr_kvs_find(&out, "big")->v.u == UINT64_MAX);
    assert_true(apr_kvs_find(&out, "inf")->v.f == apr_kvs_find(&in, "inf")->v.f);
    assert_memory_equal(apr_kvs_find(&out, "floats")->v.a.items, floats, sizeof floats);
    assert_memory_equal(apr_kvs_find(&out, "shorts")->v.a.items, shorts, sizeof shorts);
    assert_memory_equal(apr_kvs_find(&out, "bytes")->v.s.p, "\xff\xfe", 2);
    json_decref(packed);
    json_decref(again);
    apr_arena_free(&a);
}

int main(void)
{
    apr_log_set(APR_LOG_QUIET, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(keys_through_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
