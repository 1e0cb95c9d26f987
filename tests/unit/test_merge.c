/* Every merge method against its formula written here a second time, over tensors that cross chunks; the same
 * bits for any number of threads and any cut; known answers; inputs that must be refused. */
#include "tiny.h"

#include <math.h>

#include "../../tools/apr-import/merge.h"

#define N_ROWS   37u
#define N_COLS   1024u
#define N        ((size_t)N_ROWS * N_COLS) /* 2.3 chunks */
#define N_MODELS 3u
#define BASE     N_MODELS

/* values[k]: model k; the last is the base. Coarse, so that magnitudes tie as those of BF16 models do. */
static float values[N_MODELS + 1][N];
static struct apr_pool *pools[2];
static const struct apr_kern *kern;

static float coarse(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)((int)(*state >> 54) - 512) / 4096.0F;
}

/* A SafeTensors file: w [N_ROWS, N_COLS] F32 and, after it, ids [4] I32. */
static struct apr_model *open_values(const float *w, const int32_t ids[4], uint32_t n_rows)
{
    char head[256];
    struct apr_buf b;
    struct apr_model *m;
    struct apr_err e;
    size_t n = (size_t)n_rows * N_COLS * sizeof *w;
    (void)snprintf(head, sizeof head,
                   "{\"ids\":{\"dtype\":\"I32\",\"shape\":[4],\"data_offsets\":[0,16]},"
                   "\"w\":{\"dtype\":\"F32\",\"shape\":[%u,%u],\"data_offsets\":[16,%zu]}}",
                   n_rows, N_COLS, 16 + n);
    apr_buf_init(&b, 64u << 20);
    tiny_uint(&b, strlen(head), 8);
    tiny_put(&b, head, strlen(head));
    tiny_put(&b, ids, 16);
    tiny_put(&b, w, n);
    OK(tiny_open(b.data, b.n_bytes, false, &m, &e));
    apr_buf_free(&b);
    return m;
}

static const int32_t ids[4] = {1, -2, 3, 4};
static struct apr_model *models[N_MODELS + 1];

static int setup(void **state)
{
    uint64_t s = 7;
    (void)state;
    for (size_t k = 0; k <= N_MODELS; k++) {
        for (size_t i = 0; i < N; i++) values[k][i] = coarse(&s);
        models[k] = open_values(values[k], ids, N_ROWS);
    }
    pools[0] = apr_pool_open(1);
    pools[1] = apr_pool_open(3);
    return (int)apr_kern_pick(&kern, &tiny_err);
}

static int teardown(void **state)
{
    (void)state;
    for (size_t k = 0; k <= N_MODELS; k++) apr_model_close(models[k]);
    for (size_t i = 0; i < 2; i++) apr_pool_close(pools[i]);
    return 0;
}

/* Reads w of the merge in pieces of n_piece values. */
static enum apr_code merge_into(const char *method, const struct merge_params *p, struct apr_model **in,
                                size_t n_in, size_t i_pool, size_t n_piece, float *out, struct apr_err *e)
{
    struct merge g = {
        .method = merge_method_named(method), .params = *p, .kern = kern, .pool = pools[i_pool]};
    assert_non_null(g.method);
    enum apr_code code = merge_open(&g, in, n_in, g.method->needs_base ? models[BASE] : NULL, e);
    const struct apr_tensor *t = code == APR_OK ? apr_model_find(g.model, "w") : NULL;
    for (size_t at = 0; code == APR_OK && at < N; at += n_piece) {
        size_t n = N - at < n_piece ? N - at : n_piece;
        code = apr_model_read(g.model, t, at * sizeof *out, out + at, n * sizeof *out, e);
    }
    merge_close(&g);
    return code;
}

/* One way of running it, then others that must give the same bits. */
static void run(const char *method, const struct merge_params *p, size_t n_in, float *out)
{
    static float again[N];
    OK(merge_into(method, p, models, n_in, 0, N, out, &tiny_err));
    OK(merge_into(method, p, models, n_in, 1, N, again, &tiny_err));
    assert_memory_equal(out, again, sizeof again);
    OK(merge_into(method, p, models, n_in, 1, 3 * N_COLS, again, &tiny_err));
    assert_memory_equal(out, again, sizeof again);
}

/* Half a unit of F32 in the last place, and nothing for the sums in double. */
static void near(const char *what, const float *got, size_t i, double want)
{
    if (fabs((double)got[i] - want) > 1.2e-7 * fabs(want) + 1e-12)
        fail_msg("%s: value %zu is %.9g, expected %.9g", what, i, (double)got[i], want);
}

static double delta(size_t k, size_t i)
{
    return (double)values[k][i] - (double)values[BASE][i];
}

static float out[N], out2[N];

static void sums(void **state)
{
    const double equal[] = {1 / 3.0, 1 / 3.0, 1 / 3.0}, w[] = {0.7, -0.4, 1.3};
    struct merge_params p = {.weights = equal, .lambda = 0.6};
    (void)state;
    run("average", &p, 3, out);
    for (size_t i = 0; i < N; i++)
        near("average", out, i, ((double)values[0][i] + (double)values[1][i] + (double)values[2][i]) / 3);
    p.weights = w;
    run("linear", &p, 3, out);
    for (size_t i = 0; i < N; i++)
        near("linear", out, i,
             0.7 * (double)values[0][i] - 0.4 * (double)values[1][i] + 1.3 * (double)values[2][i]);
    run("task-arithmetic", &p, 3, out);
    for (size_t i = 0; i < N; i++)
        near("task-arithmetic", out, i,
             (double)values[BASE][i] + 0.6 * (0.7 * delta(0, i) - 0.4 * delta(1, i) + 1.3 * delta(2, i)));
}

static void slerp(void **state)
{
    double ab = 0, aa = 0, bb = 0;
    struct merge_params p = {.t = 0.3};
    (void)state;
    for (size_t i = 0; i < N; i++) {
        ab += (double)values[0][i] * (double)values[1][i];
        aa += (double)values[0][i] * (double)values[0][i];
        bb += (double)values[1][i] * (double)values[1][i];
    }
    double angle = acos(ab / sqrt(aa * bb));
    run("slerp", &p, 2, out);
    for (size_t i = 0; i < N; i++)
        near("slerp", out, i,
             (sin(0.7 * angle) * (double)values[0][i] + sin(0.3 * angle) * (double)values[1][i]) /
                 sin(angle));
    p.t = 0;
    run("slerp", &p, 2, out);
    assert_memory_equal(out, values[0], sizeof out);
    p.t = 1;
    run("slerp", &p, 2, out);
    assert_memory_equal(out, values[1], sizeof out);
}

static void slerp_without_an_arc(void **state)
{
    static float zero[N], opposite[N];
    struct merge_params p = {.t = 0.25};
    struct apr_model *pair[2];
    (void)state;
    for (size_t i = 0; i < N; i++) opposite[i] = -values[0][i];
    const float *others[] = {zero, values[0], opposite};
    for (size_t k = 0; k < 3; k++) {
        pair[0] = models[0];
        pair[1] = open_values(others[k], ids, N_ROWS);
        OK(merge_into("slerp", &p, pair, 2, 1, N, out, &tiny_err));
        for (size_t i = 0; i < N; i++)
            near("linear", out, i, 0.75 * (double)values[0][i] + 0.25 * (double)others[k][i]);
        apr_model_close(pair[1]);
    }
}

static int downwards(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The reference sorts. */
static float least_kept(size_t k, double density)
{
    static float sorted[N];
    for (size_t i = 0; i < N; i++) sorted[i] = (float)fabs(delta(k, i));
    qsort(sorted, N, sizeof *sorted, downwards);
    size_t n_keep = (size_t)(density * (double)N + 0.5);
    return sorted[(n_keep ? n_keep : 1) - 1];
}

static void ties(void **state)
{
    static const double densities[] = {0.2, 0.37, 0.9, 1e-9, 1};
    const double w[] = {1, 2, 0.5};
    (void)state;
    for (size_t d = 0; d < sizeof densities / sizeof *densities; d++) {
        struct merge_params p = {.weights = w, .lambda = 1.5, .density = densities[d]};
        float least[N_MODELS];
        for (size_t k = 0; k < N_MODELS; k++) least[k] = least_kept(k, densities[d]);
        run("ties", &p, N_MODELS, out);
        for (size_t i = 0; i < N; i++) {
            double total = 0, sum = 0, weight = 0, kept[N_MODELS];
            for (size_t k = 0; k < N_MODELS; k++) {
                kept[k] = (float)fabs(delta(k, i)) >= least[k] ? delta(k, i) : 0;
                total += w[k] * kept[k];
            }
            for (size_t k = 0; k < N_MODELS; k++)
                if (kept[k] * total > 0) {
                    sum += w[k] * kept[k];
                    weight += w[k];
                }
            near("ties", out, i, (double)values[BASE][i] + (weight > 0 ? 1.5 * sum / weight : 0));
        }
    }
}

static uint64_t mixed(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static bool is_dropped(uint64_t seed, size_t k, size_t i, double p)
{
    uint64_t key = mixed(mixed(seed + 0x9e3779b97f4a7c15u) + apr_xxh3_64("w", 1) + k * 0x9e3779b97f4a7c15u);
    return (double)(mixed(key + (i + 1) * 0x9e3779b97f4a7c15u) >> 11) / 9007199254740992.0 < p;
}

static void dare(void **state)
{
    const double w[] = {0.25, 0.25, 0.5}, ones[] = {1, 1, 1};
    struct merge_params p = {.weights = w, .lambda = 0.8, .drop_rate = 0.6, .seed = 11};
    size_t n_dropped = 0;
    (void)state;
    run("dare-linear", &p, 3, out);
    p.weights = ones;
    run("dare-ties", &p, 3, out2);
    for (size_t i = 0; i < N; i++) {
        double d[N_MODELS], sum = 0, total = 0, agreed = 0, n = 0;
        for (size_t k = 0; k < N_MODELS; k++) {
            d[k] = is_dropped(11, k, i, 0.6) ? 0 : delta(k, i) / 0.4;
            n_dropped += is_dropped(11, k, i, 0.6);
            sum += w[k] * d[k];
            total += d[k];
        }
        for (size_t k = 0; k < N_MODELS; k++)
            if (d[k] * total > 0) {
                agreed += d[k];
                n++;
            }
        near("dare-linear", out, i, (double)values[BASE][i] + 0.8 * sum);
        near("dare-ties", out2, i, (double)values[BASE][i] + (n > 0 ? 0.8 * agreed / n : 0));
    }
    /* 113664 draws: 5 standard deviations are 0.7 %. */
    assert_true(fabs((double)n_dropped / (N * N_MODELS) - 0.6) < 0.008);
    p.seed = 12;
    OK(merge_into("dare-linear", &p, models, 3, 1, N, out2, &tiny_err));
    assert_memory_not_equal(out, out2, sizeof out);
}

static void known_answers(void **state)
{
    const double half[] = {0.5, 0.5}, w[] = {0.25, 0.75}, one[] = {1};
    struct merge_params p = {.weights = half, .lambda = 1, .density = 1};
    struct apr_model *twice[2] = {models[0], models[0]};
    (void)state;
    OK(merge_into("average", &p, twice, 2, 1, N, out, &tiny_err));
    assert_memory_equal(out, values[0], sizeof out);
    p.weights = one; /* one model, nothing trimmed: task arithmetic */
    p.lambda = 0.7;
    run("ties", &p, 1, out);
    run("task-arithmetic", &p, 1, out2);
    assert_memory_equal(out, out2, sizeof out);
    p.weights = w; /* nothing dropped: a weighted mean */
    p.lambda = 1;
    run("dare-linear", &p, 2, out);
    for (size_t i = 0; i < N; i++)
        near("drop rate 0", out, i, 0.25 * (double)values[0][i] + 0.75 * (double)values[1][i]);
}

static void whole_numbers(void **state)
{
    const double half[] = {0.5, 0.5};
    const int32_t other[4] = {1, -2, 3, 5};
    struct merge g = {
        .method = merge_method_named("average"), .params = {.weights = half}, .kern = kern, .pool = pools[0]};
    struct apr_model *pair[2] = {models[0], models[1]};
    struct apr_err e;
    int32_t got[4];
    (void)state;
    OK(merge_open(&g, pair, 2, NULL, &tiny_err));
    OK(apr_model_read(g.model, apr_model_find(g.model, "ids"), 0, got, sizeof got, &tiny_err));
    assert_memory_equal(got, ids, sizeof got);
    merge_close(&g);
    pair[1] = open_values(values[1], other, N_ROWS);
    OK(merge_open(&g, pair, 2, NULL, &tiny_err));
    assert_int_equal(apr_model_read(g.model, apr_model_find(g.model, "ids"), 0, got, sizeof got, &e),
                     APR_ECONTRACT);
    assert_non_null(strstr(e.text, "ids"));
    merge_close(&g);
    apr_model_close(pair[1]);
}

static void refused(void **state)
{
    static float bad[N];
    const double half[] = {0.5, 0.5};
    struct merge_params p = {.weights = half, .lambda = 1, .density = 0.2};
    struct apr_model *pair[2] = {models[0], NULL};
    struct apr_err e;
    (void)state;
    pair[1] = open_values(values[1], ids, N_ROWS - 1);
    assert_int_equal(merge_into("average", &p, pair, 2, 0, N, out, &e), APR_ECONTRACT);
    assert_non_null(strstr(e.text, "tensor w: shape [36, 1024], expected [37, 1024]"));
    apr_model_close(pair[1]);
    memcpy(bad, values[1], sizeof bad);
    bad[20000] = NAN;
    bad[N - 1] = INFINITY;
    pair[1] = open_values(bad, ids, N_ROWS);
    static const char *const all[] = {"average", "slerp", "ties", "dare-ties"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (size_t i_pool = 0; i_pool < 2; i_pool++) {
            assert_int_equal(merge_into(all[i], &p, pair, 2, i_pool, N, out, &e), APR_ECONTRACT);
            assert_non_null(strstr(e.text, "F-DATA-QUALITY-002 w: value 20000 is NaN"));
        }
    apr_model_close(pair[1]);
}

static void names(void **state)
{
    (void)state;
    for (size_t i = 0; merge_method_at(i); i++)
        assert_ptr_equal(merge_method_named(merge_method_at(i)->name), merge_method_at(i));
    assert_string_equal(merge_method_named("dare")->name, "dare-linear");
    assert_string_equal(merge_method_named("task")->name, "task-arithmetic");
    static const char *const wrong[] = {"", "tie", "dare ", "dare dare_linear", "are", "linear2"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) assert_null(merge_method_named(wrong[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),         cmocka_unit_test(sums),
        cmocka_unit_test(slerp),         cmocka_unit_test(slerp_without_an_arc),
        cmocka_unit_test(ties),          cmocka_unit_test(dare),
        cmocka_unit_test(known_answers), cmocka_unit_test(whole_numbers),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
