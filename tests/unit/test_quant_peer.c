/* The demonstration model, quantized here and by llama.cpp (../shared/fixtures/gguf): Q8_0 has the same
 * bytes, and no tensor of another type has a larger squared error. Tensors are found through the manifests.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/quant.h"

struct file {
    json_t *manifest;
    FILE *data;
    uint64_t off_data;
};

static bool file_open(struct file *f, const char *name)
{
    const char *shared = getenv("APR_SHARED");
    char path[512];
    json_error_t error;
    shared = shared ? shared : "../shared";
    snprintf(path, sizeof path, "%s/fixtures/gguf/%s.json", shared, name);
    f->manifest = json_load_file(path, 0, &error);
    snprintf(path, sizeof path, "%s/fixtures/gguf/%s.gguf", shared, name);
    f->data = fopen(path, "rb");
    if (!f->manifest || !f->data) return false;
    f->off_data = (uint64_t)json_integer_value(json_object_get(f->manifest, "data_offset"));
    return true;
}

static void file_close(struct file *f)
{
    json_decref(f->manifest);
    if (f->data) fclose(f->data);
}

static json_t *tensor_named(const struct file *f, const char *name)
{
    const json_t *tensors = json_object_get(f->manifest, "tensors");
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        json_t *t = json_array_get(tensors, i);
        if (strcmp(json_string_value(json_object_get(t, "name")), name) == 0) return t;
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static uint64_t number(const json_t *t, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(t, key));
}

static uint8_t *tensor_bytes(const struct file *f, const json_t *t)
{
    size_t n = number(t, "nbytes");
    uint8_t *bytes = malloc(n);
    assert_non_null(bytes);
    assert_int_equal(fseek(f->data, (long)(f->off_data + number(t, "offset")), SEEK_SET), 0);
    assert_int_equal(fread(bytes, 1, n, f->data), n);
    return bytes;
}

static double squared_error(const float *x, const float *y, size_t n)
{
    double error = 0;
    for (size_t i = 0; i < n; i++) error += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    return error;
}

struct totals {
    size_t n_tensors;
    double ours, theirs, worst;
};

static void check_tensor(const struct file *source, const struct file *peer, const json_t *t,
                         struct totals *sum)
{
    const char *name = json_string_value(json_object_get(t, "name"));
    const struct apr_quant *q = apr_quant_named(json_string_value(json_object_get(t, "type")));
    assert_non_null(q);
    if (!q->is_quantized) return;
    const json_t *from = tensor_named(source, name);
    const json_t *shape = json_object_get(from, "shape");
    size_t n_cols = (size_t)json_integer_value(json_array_get(shape, 0));
    size_t n = n_cols * (size_t)json_integer_value(json_array_get(shape, 1)), n_bytes = number(t, "nbytes");
    uint8_t *bf16 = tensor_bytes(source, from), *theirs = tensor_bytes(peer, t), *ours = malloc(n_bytes);
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y), *z = malloc(n * sizeof *z);
    assert_true(ours && x && y && z);

    apr_quant_of(APR_BF16)->to_f32(bf16, x, n);
    q->from_f32(x, ours, n, NULL);
    if (q->type == APR_Q8_0 && memcmp(ours, theirs, n_bytes) != 0) fail_msg("%s: bytes differ", name);
    q->to_f32(ours, y, n);
    q->to_f32(theirs, z, n);
    double e_ours = squared_error(x, y, n), e_theirs = squared_error(x, z, n), ratio = e_ours / e_theirs;
    if (ratio > 1 + 1e-6)
        fail_msg("%s %s: squared error %.9g, llama.cpp %.9g", name, q->name, e_ours, e_theirs);
    sum->n_tensors++;
    sum->ours += e_ours;
    sum->theirs += e_theirs;
    sum->worst = ratio > sum->worst ? ratio : sum->worst;
    free(bf16);
    free(theirs);
    free(ours);
    free(x);
    free(y);
    free(z);
}

static void no_tensor_is_worse_than_llama_cpp(void **state)
{
    (void)state;
    static const char *const names[] = {"demo-Q8_0",   "demo-Q6_K", "demo-Q5_K_M", "demo-Q4_K_M",
                                        "demo-Q3_K_M", "demo-Q2_K", "demo-Q4_0"};
    struct file source;
    if (!file_open(&source, "demo-bf16")) {
        file_close(&source);
        print_message("SKIP: ../shared/fixtures/gguf is not here\n");
        skip();
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct file peer;
        struct totals sum = {0};
        assert_true(file_open(&peer, names[i]));
        const json_t *tensors = json_object_get(peer.manifest, "tensors");
        for (size_t k = 0; k < json_array_size(tensors); k++) {
            check_tensor(&source, &peer, json_array_get(tensors, k), &sum);
        }
        file_close(&peer);
        print_message("%s: %zu tensors, squared error %.4f of llama.cpp's, worst tensor %.4f\n", names[i],
                      sum.n_tensors, sum.ours / sum.theirs, sum.worst);
        assert_true(sum.n_tensors > 50);
    }
    file_close(&source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_tensor_is_worse_than_llama_cpp)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
