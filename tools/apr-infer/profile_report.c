/* The numbers of a profile. */
#include "profile_report.h"

#include "fmt/fmt.h"

#define NAIVE_SHARE 0.05

static double phase_s(const struct apr_profile_phase *p)
{
    double s = 0;
    for (size_t i = 0; i < APR_N_OPS; i++) s += p->ops[i].s;
    return s;
}

static const char *bound_of(double read_s, double compute_s)
{
    return compute_s > read_s ? "compute" : "memory";
}

static double per(double x, double y)
{
    return y > 0 ? x / y : 0;
}

static void out_op(struct apr_out *o, const struct apr_profile_phase *p, enum apr_op op)
{
    const struct apr_profile_op *x = &p->ops[op];
    double n = (double)p->n_passes;
    if (!(x->s > 0)) return;
    apr_out_obj(o, NULL);
    apr_out_str(o, "operation", apr_op_name(op));
    apr_out_f64(o, "share_pct", 100 * per(x->s, phase_s(p)));
    apr_out_f64(o, "pass_us", x->s / n * 1e6);
    apr_out_f64(o, "best_us", x->best_s * 1e6);
    apr_out_f64(o, "pass_bytes", x->n_bytes / n);
    apr_out_f64(o, "pass_flops", x->flops / n);
    apr_out_f64(o, "gb_per_s", per(x->n_bytes, x->s) * 1e-9);
    apr_out_f64(o, "gflops_per_s", per(x->flops, x->s) * 1e-9);
    apr_out_f64(o, "flops_per_byte", per(x->flops, x->n_bytes));
    apr_out_str(o, "bound", bound_of(x->read_s, x->compute_s));
    apr_out_f64(o, "efficiency_pct", 100 * per(x->roof_s, x->s));
    apr_out_end(o);
}

static void out_layers(struct apr_out *o, const struct apr_profile *p, const struct apr_profile_phase *phase)
{
    apr_out_arr(o, "layers");
    for (uint32_t i = 0; i < p->session->model->config.n_layers; i++) {
        const double *at = phase->layer_s + (size_t)i * APR_N_OPS;
        double us = 1e6 / (double)phase->n_passes, attention = 0, ffn = 0;
        for (size_t k = APR_OP_ATTN_NORM; k <= APR_OP_ATTN_ADD; k++) attention += at[k] * us;
        for (size_t k = APR_OP_FFN_NORM; k <= APR_OP_FFN_ADD; k++) ffn += at[k] * us;
        apr_out_obj(o, NULL);
        apr_out_u64(o, "layer", i);
        apr_out_f64(o, "pass_us", attention + ffn);
        apr_out_f64(o, "attention_us", attention);
        apr_out_f64(o, "ffn_us", ffn);
        apr_out_f64(o, "qkv_us", at[APR_OP_QKV] * us);
        apr_out_end(o);
    }
    apr_out_end(o);
}

static void out_phase(struct apr_out *o, const struct apr_profile *p, enum apr_phase which,
                      const struct apr_profile_view *v)
{
    const struct apr_profile_phase *phase = &p->phases[which];
    double read_s = 0, compute_s = 0, n_bytes = 0, flops = 0, s = phase_s(phase);
    if (!phase->n_passes) return;
    for (size_t i = 0; i < APR_N_OPS; i++) {
        read_s += phase->ops[i].read_s;
        compute_s += phase->ops[i].compute_s;
        n_bytes += phase->ops[i].n_bytes;
        flops += phase->ops[i].flops;
    }
    apr_out_obj(o, apr_phase_name(which));
    apr_out_u64(o, "n_passes", phase->n_passes);
    apr_out_u64(o, "n_toks", phase->n_toks);
    apr_out_f64(o, "toks_per_s", phase->toks_per_s);
    apr_summary_out(o, "latency_ms", &phase->latency_ms);
    apr_out_f64(o, "gb_per_s", per(n_bytes, s) * 1e-9);
    apr_out_f64(o, "bandwidth_pct", 100 * per(n_bytes, s) / p->roof->read_bytes_per_s);
    apr_out_f64(o, "gflops_per_s", per(flops, s) * 1e-9);
    apr_out_f64(o, "flops_per_byte", per(flops, n_bytes));
    apr_out_str(o, "bound", bound_of(read_s, compute_s));
    apr_out_f64(o, "efficiency_pct", apr_profile_efficiency(phase));
    if (!v->grade_alone) {
        apr_out_arr(o, "operations");
        for (size_t i = 0; i < APR_N_OPS; i++) out_op(o, phase, (enum apr_op)i);
        apr_out_end(o);
    }
    if (v->granular) out_layers(o, p, phase);
    apr_out_end(o);
}

static void out_roof(struct apr_out *o, const struct apr_roof *r)
{
    apr_out_obj(o, "roofline");
    apr_out_f64(o, "memory_gb_per_s", r->memory_bytes_per_s * 1e-9);
    apr_out_bytes(o, "memory_set_bytes", r->n_memory_bytes);
    apr_out_f64(o, "read_gb_per_s", r->read_bytes_per_s * 1e-9);
    apr_out_bytes(o, "read_set_bytes", r->n_set_bytes);
    apr_out_str(o, "kernels", r->kernels);
    apr_out_arr(o, "compute");
    for (size_t i = 0; i < APR_N_TYPES; i++) {
        if (!(r->flops_per_s[i] > 0)) continue;
        apr_out_obj(o, NULL);
        apr_out_str(o, "type", apr_type_name((uint32_t)i));
        apr_out_f64(o, "gflops_per_s", r->flops_per_s[i] * 1e-9);
        apr_out_f64(o, "ridge_flops_per_byte", r->flops_per_s[i] / r->memory_bytes_per_s);
        apr_out_end(o);
    }
    apr_out_end(o);
    apr_out_end(o);
}

void apr_profile_out(struct apr_out *o, const struct apr_profile *p, const struct apr_profile_view *v)
{
    const struct apr_session *s = p->session;
    double efficiency = apr_profile_efficiency(&p->phases[APR_PHASE_DECODE]);
    apr_out_str(o, "model", s->model->name);
    apr_out_str(o, "format", s->model->fmt->name);
    apr_out_str(o, "kernels", s->kern->name);
    apr_out_str(o, "mode", s->fwd.c.exact ? "exact" : "default");
    apr_out_u64(o, "n_threads", apr_pool_threads(s->pool));
    apr_out_u64(o, "n_layers", s->model->config.n_layers);
    apr_out_bytes(o, "bytes_per_token", s->fwd.w.n_bytes);
    out_roof(o, p->roof);
    for (size_t i = 0; i < APR_N_PHASES; i++) out_phase(o, p, (enum apr_phase)i, v);
    apr_out_f64(o, "efficiency_pct", efficiency);
    apr_out_str(o, "grade", apr_profile_grade(efficiency));
}

size_t apr_profile_naive(struct apr_out *o, const struct apr_profile *p, double threshold_pct)
{
    bool is_slow_table = p->session->kern != apr_kern_best();
    size_t n = 0;
    apr_out_arr(o, "naive");
    for (size_t k = 0; k < APR_N_PHASES; k++) {
        const struct apr_profile_phase *phase = &p->phases[k];
        for (size_t i = 0; i < APR_N_OPS; i++) {
            const struct apr_profile_op *x = &phase->ops[i];
            if (!(x->flops > 0) || x->s < NAIVE_SHARE * phase_s(phase)) continue;
            double best_pct = 100 * per(x->roof_s / (double)phase->n_passes, x->best_s);
            if (!is_slow_table && best_pct >= threshold_pct) continue;
            apr_out_obj(o, NULL);
            apr_out_str(o, "phase", apr_phase_name((enum apr_phase)k));
            apr_out_str(o, "operation", apr_op_name((enum apr_op)i));
            apr_out_str(o, "kernels", p->session->kern->name);
            apr_out_f64(o, "best_efficiency_pct", best_pct);
            apr_out_end(o);
            n++;
        }
    }
    apr_out_end(o);
    return n;
}
