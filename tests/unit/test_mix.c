/* Recipes against the types that llama-quantize chose (tests/data/mix: one model a file, the names in random
 * order, one letter per recipe), and the table itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mix.h"

enum { MAX_TENSORS = 1024, MAX_RECIPES = 40 };

static enum apr_type type_of_letter(char letter)
{
    static const char letters[] = "FHBabcde23456nx";
    static const enum apr_type types[] = {APR_F32,  APR_F16,  APR_BF16, APR_Q4_0,   APR_Q4_1,
                                          APR_Q5_0, APR_Q5_1, APR_Q8_0, APR_Q2_K,   APR_Q3_K,
                                          APR_Q4_K, APR_Q5_K, APR_Q6_K, APR_IQ4_NL, APR_IQ4_XS};
    const char *p = strchr(letters, letter);
    assert_non_null(p);
    return types[p - letters];
}

struct sheet {
    struct apr_mix_model model;
    char arch[32];
    size_t n_recipes, n;
    char recipes[MAX_RECIPES][24];
    struct apr_mix_tensor t[MAX_TENSORS];
    char names[MAX_TENSORS][64];
    char want[MAX_TENSORS][MAX_RECIPES + 1];
};

/* Cuts the next word off a line; "" at its end. */
static char *next_word(char **line)
{
    char *word = *line + strspn(*line, " \n");
    *line = word + strcspn(word, " \n");
    if (**line) *(*line)++ = '\0';
    return word;
}

static uint32_t next_number(char **line)
{
    char *end, *word = next_word(line);
    unsigned long n = strtoul(word, &end, 10);
    assert_true(end > word && *end == '\0');
    return (uint32_t)n;
}

static void sheet_read(struct sheet *s, const char *name)
{
    char path[256], line[512], *at = line;
    snprintf(path, sizeof path, "tests/data/mix/%s.txt", name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    memset(s, 0, sizeof *s);
    assert_non_null(fgets(line, sizeof line, f));
    assert_string_equal(next_word(&at), "model");
    snprintf(s->arch, sizeof s->arch, "%s", next_word(&at));
    s->model = (struct apr_mix_model){.gguf_arch = s->arch};
    s->model.n_layers = next_number(&at);
    s->model.n_heads = next_number(&at);
    s->model.n_heads_kv = next_number(&at);
    s->model.n_experts = next_number(&at);
    at = fgets(line, sizeof line, f);
    assert_non_null(at);
    assert_string_equal(next_word(&at), "recipes");
    for (char *w; *(w = next_word(&at));) snprintf(s->recipes[s->n_recipes++], sizeof s->recipes[0], "%s", w);
    for (; (at = fgets(line, sizeof line, f)) != NULL; s->n++) {
        struct apr_mix_tensor *t = &s->t[s->n];
        snprintf(s->names[s->n], sizeof s->names[0], "%s", next_word(&at));
        t->gguf_name = s->names[s->n];
        t->n_dims = next_number(&at);
        t->n_cols = next_number(&at);
        t->src = type_of_letter(*next_word(&at));
        snprintf(s->want[s->n], sizeof s->want[0], "%s", next_word(&at));
        assert_int_equal(strlen(s->want[s->n]), s->n_recipes);
        assert_int_equal(apr_mix_base_type(t->gguf_name, t->n_dims, APR_BF16), t->src);
    }
    fclose(f);
    assert_true(s->n > 10 && s->n_recipes > 20);
}

/* What the prefixes "pick-" and "out-" of a column stand for: the options that llama-quantize was given. */
static struct apr_mix_pick picks[4], out_pick;
static const struct apr_mix_overrides with_picks = {.picks = picks, .n_picks = 4};
static const struct apr_mix_overrides with_out = {
    .picks = &out_pick, .n_picks = 1, .has_output_type = true, .output_type = APR_Q8_0};

static int open_picks(void **state)
{
    (void)state;
    static const char *const texts[4] = {"blk\\.[02468]\\..*(attn_v|ffn_down)=q5_k", "ATTN_.*=q3_K",
                                         "ffn_down=q8_0", "output=q5_0"};
    struct apr_err e;
    for (size_t i = 0; i < 4; i++) assert_int_equal(apr_mix_pick_open(&picks[i], texts[i], &e), APR_OK);
    assert_int_equal(apr_mix_pick_open(&out_pick, "token=q5_0", &e), APR_OK);
    return 0;
}

static int close_picks(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++) apr_mix_pick_close(&picks[i]);
    apr_mix_pick_close(&out_pick);
    return 0;
}

/* Takes a prefix off a column's name. */
static bool prefixed(const char **recipe, const char *prefix)
{
    if (strncmp(*recipe, prefix, strlen(prefix)) != 0) return false;
    *recipe += strlen(prefix);
    return true;
}

static const struct apr_recipe *column_recipe(const char *column, struct apr_mix_model *m)
{
    m->has_imatrix = prefixed(&column, "imx-");
    m->overrides = prefixed(&column, "pick-") ? &with_picks : prefixed(&column, "out-") ? &with_out : NULL;
    m->pure = prefixed(&column, "pure-");
    return apr_recipe_named(column);
}

static void sheet_check(const char *name)
{
    static struct sheet s;
    sheet_read(&s, name);
    for (size_t r = 0; r < s.n_recipes; r++) {
        const struct apr_recipe *recipe = column_recipe(s.recipes[r], &s.model);
        assert_non_null(recipe);
        struct apr_err e;
        assert_int_equal(apr_mix_apply(recipe, &s.model, s.t, s.n, &e), APR_OK);
        for (size_t i = 0; i < s.n; i++) {
            enum apr_type want = type_of_letter(s.want[i][r]);
            if (s.t[i].type != want) {
                fail_msg("%s %s %s: %s, expected %s", name, s.recipes[r], s.t[i].gguf_name,
                         apr_type_name(s.t[i].type), apr_type_name(want));
            }
            assert_int_equal(s.t[i].fallback, s.t[i].type != s.t[i].wanted);
        }
    }
}

static void types_equal_llama_quantize(void **state)
{
    (void)state;
    static const char *const sheets[] = {"qwen2-24", "qwen2-28", "llama-32-mha", "qwen2-80", "llama-80",
                                         "one-3",    "odd-8",    "llama-80-mha", "moe-16",   "mixtral-32",
                                         "phi3-32",  "bert-12",  "deepseek2-27"};
    for (size_t i = 0; i < sizeof sheets / sizeof sheets[0]; i++) sheet_check(sheets[i]);
}

static void guard_needs_importance_weights(void **state)
{
    (void)state;
    struct apr_mix_tensor t[2] = {
        {.gguf_name = "blk.0.ffn_down.weight", .n_dims = 2, .n_cols = 512, .src = APR_BF16},
        {.gguf_name = "blk.1.ffn_down.weight", .n_dims = 2, .n_cols = 512, .src = APR_BF16}};
    struct apr_mix_model m = {.gguf_arch = "llama", .n_layers = 8, .n_heads = 8, .n_heads_kv = 8};
    struct apr_err e;
    assert_int_equal(apr_mix_apply(apr_recipe_named("q4_0"), &m, t, 2, &e), APR_OK);
    assert_int_equal(t[0].type, APR_Q4_0);
    m.has_imatrix = true;
    assert_int_equal(apr_mix_apply(apr_recipe_named("q4_0"), &m, t, 2, &e), APR_OK);
    assert_int_equal(t[0].type, APR_Q4_1);
    assert_int_equal(t[1].type, APR_Q4_0);
    assert_int_equal(apr_mix_apply(apr_recipe_named("q5_0"), &m, t, 2, &e), APR_OK);
    assert_int_equal(t[0].type, APR_Q5_1);
}

static void overrides(void **state)
{
    (void)state;
    struct apr_mix_tensor t[3] = {
        {.gguf_name = "output.weight", .n_dims = 2, .n_cols = 512, .src = APR_BF16},
        {.gguf_name = "token_embd.weight", .n_dims = 2, .n_cols = 512, .src = APR_BF16},
        {.gguf_name = "blk.0.ffn_down.weight", .n_dims = 2, .n_cols = 96, .src = APR_BF16}};
    struct apr_mix_pick pick;
    struct apr_err e;
    assert_int_equal(apr_mix_pick_open(&pick, "(weight|(?=x)=)=Q6_K", &e), APR_OK);
    struct apr_mix_overrides o = {
        .picks = &pick, .n_picks = 1, .has_embed_type = true, .embed_type = APR_F16, .leave_output = true};
    struct apr_mix_model m = {
        .gguf_arch = "llama", .n_layers = 8, .n_heads = 8, .n_heads_kv = 8, .overrides = &o};
    assert_int_equal(apr_mix_apply(apr_recipe_named("q4_0"), &m, t, 3, &e), APR_OK);
    assert_int_equal(t[0].type, APR_BF16);
    assert_int_equal(t[1].type, APR_F16);
    assert_int_equal(t[2].type, APR_Q8_0); /* what becomes of Q6_K at 96 columns */
    assert_true(t[2].fallback && t[2].overruled);
    o.embed_type = APR_Q4_K;
    assert_int_equal(apr_mix_apply(apr_recipe_named("f16"), &m, t, 3, &e), APR_OK);
    assert_int_equal(t[1].type, APR_Q4_K); /* also beside a float recipe, where picks do nothing */
    assert_int_equal(t[2].type, APR_F16);
    t[1].n_cols = 96;
    assert_int_equal(apr_mix_apply(apr_recipe_named("q4_0"), &m, t, 3, &e), APR_EUSAGE);
    assert_string_equal(
        e.text, "--embedding-type Q4_K: token_embd.weight has 96 columns; expected a multiple of 256");
    apr_mix_pick_close(&pick);
}

static void bad_picks_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",     "=q4_0", "x=",        "x",          "(=q4_0",
                                      "x=q9", "x=I32", "x=IQ2_XXS", "[z-a]=q8_0", "x=y=zz"};
    struct apr_mix_pick pick;
    struct apr_err e;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(apr_mix_pick_open(&pick, bad[i], &e), APR_EUSAGE);
        apr_mix_pick_close(&pick);
    }
    assert_int_equal(apr_mix_pick_open(&pick, "(a*)*(a*)*(a*)*b=q4_0", &e), APR_OK);
    const struct apr_mix_overrides o = {.picks = &pick, .n_picks = 1};
    const struct apr_mix_pick *found;
    char name[256];
    memset(name, 'a', sizeof name);
    name[sizeof name - 1] = '\0';
    enum apr_code code = apr_mix_pick_find(&o, name, &found, &e); /* bounded, whatever it says */
    assert_true(code == APR_EUSAGE || (code == APR_OK && !found));
    apr_mix_pick_close(&pick);
}

static void names_and_ids(void **state)
{
    (void)state;
    static const struct {
        const char *said, *means;
    } words[] = {{"q4k", "q4_k_m"}, {"Q4_K_M", "q4_k_m"}, {"q4_k", "q4_k_m"},   {"FP16", "f16"},
                 {"int8", "int8"},  {"q5k", "q5_k_m"},    {"Q3_K", "q3_k_m"},   {"q6k", "q6_k"},
                 {"q8", "q8_0"},    {"bf16", "bf16"},     {"q2_k_s", "q2_k_s"}, {"half", "f16"},
                 {"fp32", "f32"}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        const struct apr_recipe *r = apr_recipe_named(words[i].said);
        assert_non_null(r);
        assert_string_equal(r->name, words[i].means);
    }
    static const char *const unknown[] = {"", "q", "_", "q4", "q9_0", "fp16 half", "q4_k_mm", " "};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        assert_null(apr_recipe_named(unknown[i]));
    }
    size_t n = 0;
    for (const struct apr_recipe *r; (r = apr_recipe_at(n)) != NULL; n++) {
        assert_ptr_equal(apr_recipe_named(r->name), r);
        assert_non_null(apr_quant_of(r->type));
        assert_non_null(r->aliases);
        for (size_t j = 0; j < n; j++) {
            const struct apr_recipe *other = apr_recipe_at(j);
            assert_true(r->file_type == APR_NO_FILE_TYPE || other->file_type != r->file_type);
        }
    }
    assert_int_equal(n, 22);
}

static void native_types_take_every_matrix(void **state)
{
    (void)state;
    struct apr_mix_tensor t[3] = {
        {.gguf_name = "output.weight", .n_dims = 2, .n_cols = 100, .src = APR_BF16},
        {.gguf_name = "blk.0.attn_norm.weight", .n_dims = 1, .n_cols = 100, .src = APR_F32},
        {.gguf_name = "blk.0.ffn_up.weight", .n_dims = 2, .n_cols = 256, .src = APR_BF16}};
    struct apr_mix_model m = {.gguf_arch = "qwen2", .n_layers = 1, .n_heads = 1, .n_heads_kv = 1};
    struct apr_err e;
    assert_int_equal(apr_mix_apply(apr_recipe_named("int8"), &m, t, 3, &e), APR_OK);
    assert_int_equal(t[0].type, APR_NATIVE_Q8);
    assert_int_equal(t[1].type, APR_F32);
    assert_int_equal(t[2].type, APR_NATIVE_Q8);
    assert_false(t[0].fallback);
}

static void bad_layer_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"blk.4.ffn_down_exps.weight", "ffn_down.weight",
                                        "blk.x.ffn_down.weight", "blk.99999999999999999999.ffn_down.weight"};
    struct apr_mix_model m = {
        .gguf_arch = "llama", .n_layers = 4, .n_heads = 8, .n_heads_kv = 8, .n_experts = 8};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct apr_mix_tensor t = {.gguf_name = names[i], .n_dims = 2, .n_cols = 512, .src = APR_BF16};
        struct apr_err e;
        assert_int_equal(apr_mix_apply(apr_recipe_named("q4k"), &m, &t, 1, &e), APR_EFORMAT);
        assert_non_null(strstr(e.text, names[i]));
    }
}

static void order_is_llama_quantizes(void **state)
{
    (void)state;
    static const char *const sorted[] = {
        "output.weight",       "output_norm.weight",   "rope_freqs.weight",
        "token_embd.weight",   "blk.0.attn_k.weight",  "blk.0.ffn_up.weight",
        "blk.2.attn_k.weight", "blk.2.attn_k.weightx", "blk.10.attn_k.weight"};
    size_t n = sizeof sorted / sizeof sorted[0];
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            int order = apr_mix_order(sorted[i], sorted[j]);
            assert_true(i < j ? order < 0 : i > j ? order > 0 : order == 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(types_equal_llama_quantize, open_picks, close_picks),
        cmocka_unit_test(overrides),
        cmocka_unit_test(bad_picks_are_refused),
        cmocka_unit_test(guard_needs_importance_weights),
        cmocka_unit_test(names_and_ids),
        cmocka_unit_test(native_types_take_every_matrix),
        cmocka_unit_test(bad_layer_is_refused),
        cmocka_unit_test(order_is_llama_quantizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
