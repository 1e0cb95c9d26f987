/* When a matrix gets strips, what they are, and what becomes of the memory of its rows. */
#include "kern_data.h"

#include <unistd.h>

#include "../../tools/apr-infer/strips.h"

#define N_COLS 512

static uint8_t random_byte(void)
{
    return (uint8_t)(kern_data_u32() >> 13);
}
static float random_d(void)
{
    return kern_data_f32(0.5f);
}

struct fixture {
    struct apr_model model;
    struct apr_tensor tensor;
    struct apr_file file;
    struct apr_arena arena;
    struct apr_pool *pool;
    const struct apr_kern *kern;
    struct apr_strips strips;
    struct apr_mat w;
    char path[64];
};

/* A file that is one Q4_K matrix of n_rows rows, mapped; n_bytes: what the model says that it holds */
static void open_fixture(struct fixture *f, size_t n_rows, uint64_t n_bytes)
{
    static const struct kern_data_type type = {APR_Q4_K, offsetof(struct apr_block_q4_k, d),
                                               offsetof(struct apr_block_q4_k, dmin)};
    struct apr_err e = {0};
    size_t row_bytes = kern_data_row_bytes(APR_Q4_K, N_COLS);
    uint8_t *row = test_malloc(row_bytes);
    *f = (struct fixture){.path = "/tmp/apr-strips-XXXXXX"};
    int fd = mkstemp(f->path);
    assert_true(fd >= 0);
    for (size_t r = 0; r < n_rows; r++) {
        kern_data_row(&type, row, N_COLS, random_byte, random_d);
        assert_int_equal(write(fd, row, row_bytes), (ssize_t)row_bytes);
    }
    test_free(row);
    assert_int_equal(close(fd), 0);
    assert_int_equal(apr_src_open(&f->file.src, f->path, &e), APR_OK);
    assert_int_equal(unlink(f->path), 0);
    f->tensor.n_bytes = n_bytes;
    f->model = (struct apr_model){
        .name = "test", .files = &f->file, .n_files = 1, .tensors = &f->tensor, .n_tensors = 1};
    apr_arena_init(&f->arena);
    f->pool = apr_pool_open(3);
    assert_int_equal(apr_kern_pick(&f->kern, &e), APR_OK);
    apr_strips_init(&f->strips, &f->model, &f->arena);
    f->w = (struct apr_mat){.mm = &f->kern->matmul[APR_Q4_K],
                            .type = APR_Q4_K,
                            .n_rows = n_rows,
                            .n_cols = N_COLS,
                            .row_bytes = row_bytes};
    assert_int_equal(apr_src_map(f->file.src, &f->w.data, &e), APR_OK);
}

static void close_fixture(struct fixture *f)
{
    apr_strips_close(&f->strips);
    apr_arena_free(&f->arena);
    apr_pool_close(f->pool);
    apr_src_close(f->file.src);
}

static void after_enough_tokens(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 35, 35 * kern_data_row_bytes(APR_Q4_K, N_COLS));
    size_t n_bytes = 32 * f.w.row_bytes;
    uint8_t *want = apr_arena_get(&f.arena, n_bytes); /* aligned to 64, as strips are */
    f.w.mm->to_strips(f.w.data, f.w.row_bytes, 32, N_COLS, want);
    for (int i = 1; i < APR_STRIPS_AFTER_STEPS; i++) assert_null(apr_strips_of(&f.strips, f.pool, &f.w, 1));
    const uint8_t *at = apr_strips_of(&f.strips, f.pool, &f.w, 1);
    assert_non_null(at);
    assert_int_equal((uintptr_t)at % 64, 0);
    assert_memory_equal(at, want, n_bytes);
    for (int i = 0; i < 200; i++) assert_ptr_equal(apr_strips_of(&f.strips, f.pool, &f.w, 1), at);
    /* a view of some of its rows is a matrix of its own */
    struct apr_mat view = f.w;
    view.data += 3 * view.row_bytes;
    view.n_rows = 16;
    assert_null(apr_strips_of(&f.strips, f.pool, &view, APR_STRIPS_AFTER_TOKS - 1));
    const uint8_t *at_view = NULL;
    at_view = apr_strips_of(&f.strips, f.pool, &view, 1);
    view.mm->to_strips(view.data, view.row_bytes, 16, N_COLS, want);
    if (at_view) assert_memory_equal(at_view, want, 16 * view.row_bytes);
    close_fixture(&f);
}

static void rows_where_no_strips_can_be(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 16, UINT64_C(1) << 60); /* more than any machine's memory */
    for (int i = 0; i < 100; i++) assert_null(apr_strips_of(&f.strips, f.pool, &f.w, 16));
    assert_null(apr_strips_of(NULL, f.pool, &f.w, 16));
    close_fixture(&f);
    open_fixture(&f, 15, 1 << 20); /* no 16 rows */
    assert_null(apr_strips_of(&f.strips, f.pool, &f.w, 100));
    f.w.mm = &f.kern->matmul[APR_F16]; /* a type without strips */
    f.w.n_rows = 16;
    assert_null(apr_strips_of(&f.strips, f.pool, &f.w, 100));
    close_fixture(&f);
}

/* Experts of a mixture are many; the table grows. */
static void many_matrices(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 16 * 3000, 3000 * 16 * kern_data_row_bytes(APR_Q4_K, N_COLS));
    const uint8_t **at = test_malloc(3000 * sizeof *at);
    for (size_t pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < 3000; i++) {
            struct apr_mat w = f.w;
            w.data += i * 16 * w.row_bytes;
            w.n_rows = 16;
            const uint8_t *p = apr_strips_of(&f.strips, f.pool, &w, APR_STRIPS_AFTER_TOKS);
            assert_non_null(p);
            if (pass) assert_ptr_equal(p, at[i]);
            at[i] = p;
        }
    }
    test_free(at);
    close_fixture(&f);
}

/* Resident KiB of the mapping that begins at p. */
static unsigned long resident_kib(const void *p)
{
    char line[512], begin[32];
    unsigned long kib = 0;
    bool here = false;
    FILE *maps = fopen("/proc/self/smaps", "re");
    assert_non_null(maps);
    assert_true(snprintf(begin, sizeof begin, "%lx-", (unsigned long)(uintptr_t)p) > 0);
    while (fgets(line, sizeof line, maps)) {
        if (strncmp(line, begin, strlen(begin)) == 0) here = true;
        if (!here || strncmp(line, "Rss:", 4) != 0) continue;
        kib = strtoul(line + 4, NULL, 10);
        break;
    }
    assert_int_equal(fclose(maps), 0);
    assert_true(here);
    return kib;
}

static void rows_leave_memory(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, 16384, 16384 * kern_data_row_bytes(APR_Q4_K, N_COLS)); /* 4.5 MiB */
    unsigned sum = 0;
    for (size_t i = 0; i < 16384 * f.w.row_bytes; i += 512) sum += f.w.data[i];
    assert_true(sum > 0);
    unsigned long n_before = resident_kib(f.w.data);
    assert_true(n_before >= 4096);
    assert_non_null(apr_strips_of(&f.strips, f.pool, &f.w, APR_STRIPS_AFTER_TOKS));
    assert_true(resident_kib(f.w.data) <= 8);
    /* and come back when somebody reads them */
    unsigned again = 0;
    for (size_t i = 0; i < 16384 * f.w.row_bytes; i += 512) again += f.w.data[i];
    assert_int_equal(sum, again);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_enough_tokens),
        cmocka_unit_test(rows_where_no_strips_can_be),
        cmocka_unit_test(many_matrices),
        cmocka_unit_test(rows_leave_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
