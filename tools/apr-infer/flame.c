/* The flame graph: rows are all, phase, layer, step; a box is as wide as its share of the time. */
#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "io.h"
#include "profile_report.h"

#define WIDTH     1200.0
#define ROW       20.0
#define TOP       40.0
#define LEAST     0.1 /* pixels: thinner boxes are left out */
#define CHAR      6.5 /* pixels of a letter */
#define MAX_BYTES (64u << 20)

struct picture {
    struct apr_buf b;
    double px_per_s, total_s;
};

struct box {
    double x, s; /* pixels, seconds */
    unsigned row;
    const char *name;
};

static enum apr_code put_escaped(struct apr_buf *b, const char *s, size_t n_most, struct apr_err *e)
{
    char safe[512];
    apr_escape(safe, sizeof safe, s, strlen(s));
    for (size_t i = 0; i < n_most && safe[i]; i++) {
        const char *as = safe[i] == '&' ? "&amp;" : safe[i] == '<' ? "&lt;" : safe[i] == '>' ? "&gt;" : NULL;
        TRY(apr_buf_append(b, as ? as : &safe[i], as ? strlen(as) : 1, e));
    }
    return APR_OK;
}

/* Warm colours, told apart by the letters of the name. */
static unsigned colour_of(const char *name)
{
    unsigned h = 7;
    for (; *name; name++) h = h * 31 + (unsigned char)*name;
    return (205 + h % 50) << 16 | (80 + h / 50 % 140) << 8 | (30 + h / 7000 % 50);
}

static enum apr_code put_box(struct picture *p, const struct box *x, struct apr_err *e)
{
    double width = x->s * p->px_per_s, y = TOP + ROW * x->row;
    size_t n_chars = width > 4 * CHAR ? (size_t)(width / CHAR) - 1 : 0;
    if (width < LEAST) return APR_OK;
    TRY(apr_buf_printf(&p->b, e, "<g><title>"));
    TRY(put_escaped(&p->b, x->name, SIZE_MAX, e));
    TRY(apr_buf_printf(
        &p->b, e,
        " (%.3f ms, %.2f %%)</title><rect x=\"%.2f\" y=\"%.0f\" width=\"%.2f\" height=\"%.0f\" "
        "fill=\"#%06x\" rx=\"1\"/>",
        x->s * 1e3, 100 * x->s / p->total_s, x->x, y, width, ROW - 1, colour_of(x->name)));
    if (n_chars) {
        TRY(apr_buf_printf(&p->b, e, "<text x=\"%.2f\" y=\"%.0f\">", x->x + 3, y + ROW - 6));
        TRY(put_escaped(&p->b, x->name, n_chars, e));
        TRY(apr_buf_printf(&p->b, e, "</text>"));
    }
    return apr_buf_printf(&p->b, e, "</g>\n");
}

static double sum(const double *at, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++) s += at[i];
    return s;
}

/* A layer and its steps; what lies outside the layers comes last and is named by its steps alone. */
static enum apr_code put_layer(struct picture *p, const struct apr_profile_phase *phase, uint32_t i_layer,
                               bool is_layer, double *x, struct apr_err *e)
{
    const double *at = phase->layer_s + (size_t)i_layer * APR_N_OPS;
    char name[32];
    (void)snprintf(name, sizeof name, "layer %u", (unsigned)i_layer);
    struct box layer = {*x, sum(at, APR_N_OPS), 2, name};
    if (is_layer) TRY(put_box(p, &layer, e));
    for (size_t i = 0; i < APR_N_OPS; i++) {
        struct box op = {*x, at[i], is_layer ? 3 : 2, apr_op_name((enum apr_op)i)};
        TRY(put_box(p, &op, e));
        *x += at[i] * p->px_per_s;
    }
    return APR_OK;
}

static enum apr_code draw(struct picture *p, const struct apr_profile *profile, struct apr_err *e)
{
    const uint32_t n_layers = profile->session->model->config.n_layers;
    const size_t n_cells = ((size_t)n_layers + 1) * APR_N_OPS;
    double x = 0;
    for (size_t k = 0; k < APR_N_PHASES; k++) p->total_s += sum(profile->phases[k].layer_s, n_cells);
    p->px_per_s = p->total_s > 0 ? WIDTH / p->total_s : 0;
    TRY(apr_buf_printf(&p->b, e,
                       "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                       "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
                       "viewBox=\"0 0 %.0f %.0f\" font-family=\"monospace\" font-size=\"11\">\n"
                       "<text x=\"3\" y=\"24\" font-size=\"16\">apr profile: ",
                       WIDTH, TOP + 4 * ROW + 10, WIDTH, TOP + 4 * ROW + 10));
    TRY(put_escaped(&p->b, profile->session->model->name, 100, e));
    TRY(apr_buf_printf(&p->b, e, "</text>\n"));
    TRY(put_box(p, &(struct box){0, p->total_s, 0, "all"}, e));
    for (size_t k = 0; k < APR_N_PHASES; k++) {
        const struct apr_profile_phase *phase = &profile->phases[k];
        struct box b = {x, sum(phase->layer_s, n_cells), 1, apr_phase_name((enum apr_phase)k)};
        TRY(put_box(p, &b, e));
        for (uint32_t i = 0; i <= n_layers; i++) TRY(put_layer(p, phase, i, i < n_layers, &x, e));
    }
    return apr_buf_printf(&p->b, e, "</svg>\n");
}

enum apr_code apr_profile_flame(const struct apr_profile *p, const char *path, bool force, struct apr_err *e)
{
    struct picture picture = {0};
    struct apr_sink *sink = NULL;
    apr_buf_init(&picture.b, MAX_BYTES);
    enum apr_code code = draw(&picture, p, e);
    if (code == APR_OK) code = apr_sink_open(&sink, path, force, e);
    if (code == APR_OK) {
        apr_sink_write(sink, picture.b.data, picture.b.n_bytes);
        code = apr_sink_finish(sink, e);
    }
    apr_buf_free(&picture.b);
    return code;
}
