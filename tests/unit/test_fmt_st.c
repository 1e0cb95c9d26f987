/* SafeTensors: every rule of the format with a file that breaks it, and the folder with its index. */
#include "tiny.h"

#include <ftw.h>
#include <sys/stat.h>

#include "fmt/hf_folder.h"
#include "log.h"

/* u64 length, header, n_data bytes. */
static void st_file(struct apr_buf *b, const char *header, size_t n_data)
{
    apr_buf_init(b, 1 << 20);
    tiny_uint(b, strlen(header), 8);
    tiny_put(b, header, strlen(header));
    for (size_t i = 0; i < n_data; i++) tiny_put(b, &(uint8_t){(uint8_t)i}, 1);
}

#define T(name, dtype, shape, begin, end)                                                                    \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

struct row {
    const char *what, *header;
    size_t n_data;
    enum apr_code code;
    const char *says; /* in the message */
};

static const struct row rows[] = {
    {"two tensors", "{" T("a", "F32", "[2]", 0, 8) "," T("b", "U8", "[3]", 8, 11) "}", 11, APR_OK, NULL},
    {"order of keys is free", "{" T("b", "U8", "[3]", 8, 11) "," T("a", "F32", "[2]", 0, 8) "}", 11, APR_OK,
     NULL},
    {"scalar", "{" T("a", "F64", "[]", 0, 8) "}", 8, APR_OK, NULL},
    {"empty tensor", "{" T("a", "F32", "[0, 5]", 0, 0) "," T("b", "U8", "[1]", 0, 1) "}", 1, APR_OK, NULL},
    {"no tensors", "{}", 0, APR_OK, NULL},
    {"spaces behind", "{" T("a", "U8", "[1]", 0, 1) "}    ", 1, APR_OK, NULL},
    {"metadata", "{\"__metadata__\":{\"format\":\"pt\"}," T("a", "U8", "[1]", 0, 1) "}", 1, APR_OK, NULL},
    {"BOOL", "{" T("a", "BOOL", "[1]", 0, 1) "}", 1, APR_OK, NULL},
    {"unknown member", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":[{}]}}", 1,
     APR_OK, NULL},
    {"F8", "{" T("a", "F8_E4M3", "[1]", 0, 1) "}", 1, APR_ELOAD, "F8_E4M3"},
    {"U16", "{" T("a", "U16", "[1]", 0, 2) "}", 2, APR_ELOAD, "U16"},
    {"no dtype", "{" T("a", "F33", "[1]", 0, 4) "}", 4, APR_EFORMAT, "F33"},
    {"overlap", "{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[2]", 1, 3) "}", 3, APR_EFORMAT, "overlap"},
    {"same range twice", "{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[2]", 0, 2) "}", 2, APR_EFORMAT,
     "overlap"},
    {"gap", "{" T("a", "U8", "[1]", 0, 1) "," T("b", "U8", "[1]", 2, 3) "}", 3, APR_EFORMAT, "gap"},
    {"first not at 0", "{" T("a", "U8", "[1]", 1, 2) "}", 2, APR_EFORMAT, "gap"},
    {"trailing bytes", "{" T("a", "U8", "[1]", 0, 1) "}", 2, APR_EFORMAT, "belong to no tensor"},
    {"one byte short", "{" T("a", "U8", "[2]", 0, 2) "}", 1, APR_EFORMAT, "outside"},
    {"reversed", "{" T("a", "U8", "[1]", 1, 0) "}", 1, APR_EFORMAT, "outside"},
    {"negative offset", "{" T("a", "U8", "[1]", -1, 0) "}", 1, APR_EFORMAT, "negative"},
    {"negative zero", "{" T("a", "U8", "[1]", -0, 1) "}", 1, APR_EFORMAT, "negative"},
    {"size differs", "{" T("a", "F32", "[2]", 0, 4) "}", 4, APR_EFORMAT, "need 8"},
    {"product wraps to 0", "{" T("a", "U8", "[4294967296, 4294967296]", 0, 0) "}", 0, APR_EFORMAT,
     "overflow"},
    {"product wraps, with a zero", "{" T("a", "U8", "[0, 4294967296, 4294967296]", 0, 0) "}", 0, APR_EFORMAT,
     "overflow"},
    {"bytes wrap", "{" T("a", "F64", "[2305843009213693954]", 0, 16) "}", 16, APR_EFORMAT, "overflow"},
    {"negative shape", "{" T("a", "U8", "[-1]", 0, 1) "}", 1, APR_EFORMAT, "negative"},
    {"fraction", "{" T("a", "U8", "[1.0]", 0, 1) "}", 1, APR_EFORMAT, "integer"},
    {"exponent", "{" T("a", "U8", "[1e0]", 0, 1) "}", 1, APR_EFORMAT, "integer"},
    {"string in a shape", "{" T("a", "U8", "[\"1\"]", 0, 1) "}", 1, APR_EFORMAT, "integer"},
    {"leading zero", "{" T("a", "U8", "[01]", 0, 1) "}", 1, APR_EFORMAT, NULL},
    {"2^64", "{" T("a", "U8", "[18446744073709551616]", 0, 1) "}", 1, APR_EFORMAT, "integer"},
    {"nine dimensions", "{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1, APR_ELOAD, "dimensions"},
    {"duplicate", "{" T("a", "U8", "[1]", 0, 1) "," T("a", "U8", "[1]", 1, 2) "}", 2, APR_EFORMAT, NULL},
    {"duplicate, escaped", "{" T("a", "U8", "[1]", 0, 1) "," T("\\u0061", "U8", "[1]", 1, 2) "}", 2,
     APR_EFORMAT, NULL},
    {"two __metadata__", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, APR_EFORMAT, NULL},
    {"dtype twice", "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     APR_EFORMAT, NULL},
    {"metadata number", "{\"__metadata__\":{\"a\":1}}", 0, APR_EFORMAT, "string"},
    {"metadata null", "{\"__metadata__\":null}", 0, APR_EFORMAT, "object"},
    {"metadata array", "{\"__metadata__\":{\"a\":[]}}", 0, APR_EFORMAT, "string"},
    {"empty name", "{" T("", "U8", "[1]", 0, 1) "}", 1, APR_EFORMAT, "name"},
    {"NUL in a name", "{" T("a\\u0000b", "U8", "[1]", 0, 1) "}", 1, APR_EFORMAT, NULL},
    {"not closed", "{" T("a", "U8", "[1]", 0, 1), 1, APR_EFORMAT, NULL},
    {"comma", "{" T("a", "U8", "[1]", 0, 1) ",}", 1, APR_EFORMAT, NULL},
    {"comment", "{/**/" T("a", "U8", "[1]", 0, 1) "}", 1, APR_EFORMAT, NULL},
    {"two documents", "{}{}", 0, APR_EFORMAT, NULL},
    {"array", "[{}]", 0, APR_EFORMAT, NULL},
    {"raw control byte", "{" T("a\nb", "U8", "[1]", 0, 1) "}", 1, APR_EFORMAT, NULL},
    {"lone surrogate", "{" T("\\ud800", "U8", "[1]", 0, 1) "}", 1, APR_EFORMAT, NULL},
    {"not UTF-8", "{" T("\xff", "U8", "[1]", 0, 1) "}", 1, APR_EFORMAT, NULL},
    {"overlong", "{" T("\xc0\xaf", "U8", "[1]", 0, 1) "}", 1, APR_EFORMAT, NULL},
    {"info no object", "{\"a\":3}", 0, APR_EFORMAT, "object"},
    {"three offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1, APR_EFORMAT,
     "data_offsets"},
    {"no shape", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, APR_EFORMAT, "shape"},
};

/* As a file and as a pipe; trailing bytes of a pipe are seen at its end. */
static enum apr_code load(const struct apr_buf *b, bool as_pipe, struct apr_err *e)
{
    struct apr_model *m;
    enum apr_code code = tiny_open(b->data, b->n_bytes, as_pipe, &m, e);
    if (code != APR_OK) return code;
    code = apr_model_end(m, e);
    apr_model_close(m);
    return code;
}

static void header_rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct apr_buf b;
        struct apr_err e = {0};
        st_file(&b, rows[i].header, rows[i].n_data);
        enum apr_code code = load(&b, false, &e);
        if (code != rows[i].code)
            fail_msg("%s: status %d, expected %d: %s", rows[i].what, code, rows[i].code, e.text);
        if (rows[i].says && !strstr(e.text, rows[i].says)) fail_msg("%s: %s", rows[i].what, e.text);
        code = load(&b, true, &e);
        if (code != rows[i].code) fail_msg("%s as a pipe: status %d: %s", rows[i].what, code, e.text);
        apr_buf_free(&b);
    }
}

static void length_prefix(void **state)
{
    static const uint64_t lengths[] = {
        0, 1, 3, 100u << 20, (100u << 20) + 1, INT64_MAX, (uint64_t)1 << 63, UINT64_MAX, UINT64_MAX - 7};
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct apr_buf b;
        struct apr_err e;
        apr_buf_init(&b, 4096);
        tiny_uint(&b, lengths[i], 8);
        tiny_put(&b, "{}", 2);
        assert_int_equal(load(&b, false, &e), APR_EFORMAT);
        assert_int_equal(load(&b, true, &e), APR_EFORMAT);
        apr_buf_free(&b);
    }
}

static void depth(void **state)
{
    struct apr_buf b, text;
    struct apr_err e;
    (void)state;
    apr_buf_init(&text, 1 << 20);
    tiny_put(&text, "{\"a\":{\"x\":", 10);
    for (int i = 0; i < 30000; i++) tiny_put(&text, "[", 1);
    st_file(&b, (const char *)text.data, 0);
    assert_int_equal(load(&b, false, &e), APR_EFORMAT);
    assert_int_equal(load(&b, true, &e), APR_EFORMAT);
    apr_buf_free(&b);
    apr_buf_free(&text);
}

static void foreign_content(void **state)
{
    static const struct {
        const char *text, *says;
        enum apr_code code;
    } cases[] = {
        {"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs", APR_EFORMAT},
        {"<!DOCTYPE html><html>", "HTML", APR_EFORMAT},
        {"<html><body>404</body></html>", "HTML", APR_EFORMAT},
        {"PK\3\4 archive/data.pkl", "PyTorch", APR_ELOAD},
        {"hello, world", "unknown format", APR_EFORMAT},
        {"", "expected", APR_EFORMAT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct apr_model *m;
        struct apr_err e;
        assert_int_equal(tiny_open(cases[i].text, strlen(cases[i].text), false, &m, &e), cases[i].code);
        assert_non_null(strstr(e.text, cases[i].says));
        assert_int_equal(tiny_open(cases[i].text, strlen(cases[i].text), true, &m, &e), cases[i].code);
    }
}

/* ---- folders ------------------------------------------------------------------------------------------ */

struct folder {
    char dir[64];
};

static int make_folder(void **state)
{
    static struct folder f;
    (void)snprintf(f.dir, sizeof f.dir, "/tmp/apr-test-st-XXXXXX");
    *state = &f;
    return mkdtemp(f.dir) ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static int remove_folder(void **state)
{
    const struct folder *f = *state;
    return nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_dir(const struct folder *f, const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", f->dir, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void put_file(const struct folder *f, const char *name, const void *p, size_t n)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", f->dir, name);
    FILE *to = fopen(path, "wb");
    assert_non_null(to);
    assert_int_equal(fwrite(p, 1, n, to), n);
    assert_int_equal(fclose(to), 0);
}

static void put_shard(const struct folder *f, const char *name, const char *header, size_t n_data)
{
    struct apr_buf b;
    st_file(&b, header, n_data);
    put_file(f, name, b.data, b.n_bytes);
    apr_buf_free(&b);
}

static void put_index(const struct folder *f, const char *map)
{
    char text[1024];
    int n = snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":2},\"weight_map\":%s}", map);
    put_file(f, "model.safetensors.index.json", text, (size_t)n);
}

static enum apr_code load_folder(const struct folder *f, struct apr_err *e)
{
    struct apr_model *m;
    e->text[0] = '\0';
    enum apr_code code = apr_load_model(f->dir, APR_LOAD_RANDOM, &m, e);
    if (code == APR_OK) {
        assert_int_equal(m->n_tensors, 2);
        assert_string_equal(m->tensors[0].name, "a"); /* sorted by name, whatever the shards */
        assert_int_equal(m->tensors[1].data[0], 0);
        assert_null(m->family);
        apr_model_close(m);
    }
    return code;
}

static void indexes(void **state)
{
    static const struct {
        const char *map, *says;
        enum apr_code code;
    } cases[] = {
        {"{\"a\":\"y.safetensors\",\"b\":\"x.safetensors\"}", NULL, APR_OK},
        {"{\"a\":\"x.safetensors\",\"b\":\"x.safetensors\"}", "is missing from", APR_EFORMAT},
        {"{\"a\":\"x.safetensors\",\"b\":\"y.safetensors\"}", "the index names", APR_EFORMAT},
        {"{\"a\":\"y.safetensors\",\"b\":\"x.safetensors\",\"c\":\"x.safetensors\"}", "is missing",
         APR_EFORMAT},
        {"{\"a\":\"y.safetensors\",\"b\":\"z.safetensors\"}", "z.safetensors", APR_ENOTFOUND},
        {"{\"a\":\"../y.safetensors\",\"b\":\"x.safetensors\"}", "same folder", APR_EFORMAT},
        {"{\"a\":\"/etc/passwd\",\"b\":\"x.safetensors\"}", "same folder", APR_EFORMAT},
        {"{\"a\":\"..\",\"b\":\"x.safetensors\"}", "same folder", APR_EFORMAT},
        {"{\"a\":\"\",\"b\":\"x.safetensors\"}", "same folder", APR_EFORMAT},
        {"{\"a\":\"y\\\\z\",\"b\":\"x.safetensors\"}", "same folder", APR_EFORMAT},
        {"{\"a\":\"y\\nz\",\"b\":\"x.safetensors\"}", "same folder", APR_EFORMAT},
        {"{\"a\":7,\"b\":\"x.safetensors\"}", "same folder", APR_EFORMAT},
        {"{}", "weight_map", APR_EFORMAT},
        {"[]", "weight_map", APR_EFORMAT},
    };
    const struct folder *f = *state;
    put_shard(f, "y.safetensors", "{" T("a", "U8", "[1]", 0, 1) "}", 1);
    put_shard(f, "x.safetensors", "{" T("b", "U8", "[1]", 0, 1) "}", 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct apr_err e;
        put_index(f, cases[i].map);
        enum apr_code code = load_folder(f, &e);
        if (code != cases[i].code) fail_msg("%s: status %d: %s", cases[i].map, code, e.text);
        if (cases[i].says && !strstr(e.text, cases[i].says)) fail_msg("%s: %s", cases[i].map, e.text);
    }
}

/* As in the Hugging Face cache: shards are links to blobs named by their SHA-256. */
static void hub_cache(void **state)
{
    static const char sha[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const struct folder *f = *state;
    struct apr_model *m;
    char path[512], blob[512];
    make_dir(f, "models--Org--Some-Model");
    make_dir(f, "models--Org--Some-Model/blobs");
    make_dir(f, "models--Org--Some-Model/snapshots");
    make_dir(f, "models--Org--Some-Model/snapshots/abc");
    (void)snprintf(blob, sizeof blob, "models--Org--Some-Model/blobs/%s", sha);
    put_shard(f, blob, "{" T("a", "U8", "[1]", 0, 1) "}", 1);
    (void)snprintf(blob, sizeof blob, "../../blobs/%s", sha);
    (void)snprintf(path, sizeof path, "%s/models--Org--Some-Model/snapshots/abc/model.safetensors", f->dir);
    assert_int_equal(symlink(blob, path), 0);
    *strrchr(path, '/') = '\0';
    OK(apr_load_model(path, APR_LOAD_RANDOM, &m, &tiny_err));
    assert_string_equal(m->name, "Some-Model");
    assert_string_equal(m->files[0].sha256, sha);
    assert_string_equal(m->files[0].name, "model.safetensors");
    apr_model_close(m);
}

/* As Hugging Face's client leaves a local folder: a record with the hash beside the file, as long as it is
 * not older than the file. */
static void local_folder_record(void **state)
{
    static const char sha[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const struct folder *f = *state;
    const char *times[] = {"4102444800.5", "0.0"}; /* in 2100, in 1970 */
    char text[256];
    make_dir(f, ".cache");
    make_dir(f, ".cache/huggingface");
    make_dir(f, ".cache/huggingface/download");
    put_shard(f, "model.safetensors", "{" T("a", "U8", "[1]", 0, 1) "}", 1);
    for (int i = 0; i < 2; i++) {
        struct apr_model *m;
        int n = snprintf(text, sizeof text, "0123abc\n%s\n%s\n", sha, times[i]);
        put_file(f, ".cache/huggingface/download/model.safetensors.metadata", text, (size_t)n);
        OK(apr_load_model(f->dir, APR_LOAD_RANDOM, &m, &tiny_err));
        if (i == 0)
            assert_string_equal(m->files[0].sha256, sha);
        else
            assert_null(m->files[0].sha256);
        apr_model_close(m);
    }
}

static void shards_that_are_no_shards(void **state)
{
    const struct folder *f = *state;
    struct apr_err e;
    char path[512];
    put_shard(f, "x.safetensors", "{" T("b", "U8", "[1]", 0, 1) "}", 1);
    put_index(f, "{\"a\":\"l.safetensors\",\"b\":\"x.safetensors\"}");
    put_file(f, "l.safetensors", "version https://git-lfs.github.com/spec/v1\n", 43);
    assert_int_equal(load_folder(f, &e), APR_EFORMAT);
    assert_non_null(strstr(e.text, "l.safetensors: this is a git-lfs pointer"));
    put_file(f, "l.safetensors", "", 0);
    assert_int_equal(load_folder(f, &e), APR_EFORMAT);
    (void)snprintf(path, sizeof path, "%s/l.safetensors", f->dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not hang */
    assert_int_not_equal(load_folder(f, &e), APR_OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("l.safetensors", path), 0);
    assert_int_not_equal(load_folder(f, &e), APR_OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(load_folder(f, &e), APR_EFORMAT);
    (void)snprintf(path, sizeof path, "%s/model.safetensors", f->dir); /* an interrupted download */
    assert_int_equal(symlink("blobs/0", path), 0);
    put_file(f, "tokenizer.json", "{}", 2);
    assert_int_equal(load_folder(f, &e), APR_ENOTFOUND);
}

/* ---- model card --------------------------------------------------------------------------------------- */

static void model_cards(void **state)
{
    static const struct {
        const char *text, *json; /* NULL: ignored */
    } cases[] = {
        {"---\nlicense: mit\nlanguage:\n- en\n- no\ntags: [a, 1, 2.5, true, ~]\n---\ntext\n",
         "{\"license\":\"mit\",\"language\":[\"en\",\"no\"],\"tags\":[\"a\",1,2.5,true,null]}"},
        {"---\r\na: \"1\"\r\n---\r\n", "{\"a\":\"1\"}"},
        {"---\nm:\n  k: {x: y}\n---\n", "{\"m\":{\"k\":{\"x\":\"y\"}}}"},
        {"# no front matter\n", NULL},
        {"---\nnever: closed\n", NULL},
        {"---\na: &x 1\nb: *x\n---\n", NULL},
        {"---\na: !!python/object:os.system x\n---\n", NULL},
        {"---\na: [\n---\n", NULL},
        {"---\n- a\n---\n", NULL},
        {"---\n? {a: b}\n: c\n---\n", NULL},
        {"---\n[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n---\n", NULL},
    };
    const struct folder *f = *state;
    char path[512];
    (void)snprintf(path, sizeof path, "%s/README.md", f->dir);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_file(f, "README.md", cases[i].text, strlen(cases[i].text));
        json_t *card = apr_hf_card_read(path);
        json_t *want = cases[i].json ? json_loads(cases[i].json, 0, NULL) : NULL;
        if (want ? !card || !json_equal(card, want) : card != NULL) fail_msg("card %zu", i);
        json_decref(card);
        json_decref(want);
    }
}

/* ---- writer ------------------------------------------------------------------------------------------- */

static void writer(void **state)
{
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"}," T("a.weight", "BF16", "[2,32]", 0, 128) "," T(
            "b.bias", "F32", "[4]", 128, 144) "," T("c.weight", "F16", "[2,32]", 144, 272) "}";
    struct apr_buf b;
    (void)state;
    tiny_st(&b);
    size_t n = (sizeof header - 1 + 7) / 8 * 8;
    assert_int_equal(b.data[0] | b.data[1] << 8, n);
    assert_memory_equal(b.data + 8, header, sizeof header - 1);
    for (size_t i = sizeof header - 1; i < n; i++) assert_int_equal(b.data[8 + i], ' ');
    assert_int_equal(b.n_bytes, 8 + n + 272);
    apr_buf_free(&b);
}

int main(void)
{
    apr_log_set(APR_LOG_QUIET, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_rules),
        cmocka_unit_test(length_prefix),
        cmocka_unit_test(depth),
        cmocka_unit_test(foreign_content),
        cmocka_unit_test_setup_teardown(indexes, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(hub_cache, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(local_folder_record, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(shards_that_are_no_shards, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(model_cards, make_folder, remove_folder),
        cmocka_unit_test(writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
