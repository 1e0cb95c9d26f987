/* Matrices times one token: y = W x, with what comes before (RMSNorm, quantization) and after (bias,
 * residual, SwiGLU) in the same kernel.
 *
 * Bytes moved are the tiles, once; the bound is the memory's read bandwidth. One block of 12 warps an SM, and
 * room for the next kernel's beside it. A block owns the groups of 16 rows i_block, i_block + n_blocks, ...;
 * their tiles, laid end to end, are cut into 16 equal runs, one a warp. Each warp streams its run through a
 * ring of its own in shared memory (cp.async), so that about 100 KB are in flight on every SM; the ring is
 * filled before the kernel waits for its predecessor, because weights depend on nothing. Partial sums of
 * (group, warp) meet in shared memory and are added in the order of the warps.
 */
#include "async.cuh"
#include "plugin.cuh"

#define N_WARPS   12
#define N_THREADS (32 * N_WARPS)

struct seg {
    const uint8_t *tiles;
    const float *bias;
    uint32_t n_rows, n_groups, n_chunks, i_row; /* i_row: of y */
    int kind;
};
struct gemv_args {
    struct seg seg[3];
    uint32_t n_seg, n_cols, n_blocks, n_groups; /* n_groups: of all segments; of a pair for SwiGLU */
    const float *x, *norm;
    const struct act_block *xq;
    float eps;
    float *y;
    struct act out;
};

/* The i-th group of this block: which segment, which of its groups. For SwiGLU gate and up alternate. */
template <int HOW>
static __device__ __forceinline__ void locate(const gemv_args &a, uint32_t i, uint32_t *i_seg,
                                              uint32_t *i_group)
{
    if (HOW == GEMV_SWIGLU) {
        *i_seg = i % 2;
        *i_group = blockIdx.x + i / 2 * a.n_blocks;
        return;
    }
    uint32_t g = blockIdx.x + i * a.n_blocks, s = 0;
    while (s + 1 < a.n_seg && g >= a.seg[s].n_groups) g -= a.seg[s++].n_groups;
    *i_seg = s;
    *i_group = g;
}

/* A place in the block's tiles: chunk i_chunk of its i-th group. */
template <int HOW> struct cursor {
    uint32_t i, i_chunk, n_chunks, bytes;
    int kind;
    const uint8_t *tile;
    __device__ void open(const gemv_args &a)
    {
        uint32_t s, g;
        locate<HOW>(a, i, &s, &g);
        n_chunks = a.seg[s].n_chunks;
        kind = a.seg[s].kind;
        bytes = tile_bytes(kind);
        tile = a.seg[s].tiles + ((uint64_t)g * n_chunks + i_chunk) * bytes;
    }
    __device__ void seek(const gemv_args &a, uint32_t i_unit)
    {
        for (i = 0;; i++) {
            uint32_t s, g;
            locate<HOW>(a, i, &s, &g);
            if (i_unit < a.seg[s].n_chunks) break;
            i_unit -= a.seg[s].n_chunks;
        }
        i_chunk = i_unit;
        open(a);
    }
    /* true: the next tile begins another group */
    __device__ bool next(const gemv_args &a, bool more)
    {
        tile += bytes;
        if (++i_chunk < n_chunks) return false;
        i++, i_chunk = 0;
        if (more) open(a);
        return true;
    }
};

/* ---- input ------------------------------------------------------------------------------------------------
 */

static __device__ __noinline__ float block_sum(float v, float *room)
{
#pragma unroll
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int i = 0; i < N_WARPS; i++) sum += room[i];
    return sum;
}

static __device__ __forceinline__ float4 load4(const float *p)
{
    return __ldcg((const float4 *)p);
}

/* What is known before the predecessor has finished: the norm's weights, for inputs of up to N_HELD columns.
 */
#define N_HELD4 3
#define N_HELD  (4 * N_HELD4 * N_THREADS)
struct held {
    float4 w[N_HELD4];
};
static __device__ __forceinline__ void hold_norm(const gemv_args &a, held *h)
{
    if (!a.norm || a.n_cols > N_HELD) return;
#pragma unroll
    for (uint32_t k = 0; k < N_HELD4; k++) {
        uint32_t i = 4 * (threadIdx.x + k * N_THREADS);
        if (i < a.n_cols) h->w[k] = *(const float4 *)(a.norm + i);
    }
}

static __device__ float norm_factor(const gemv_args &a, float *room)
{
    float sum = 0;
    for (uint32_t i = 4 * threadIdx.x; i < a.n_cols; i += 4 * N_THREADS) {
        float4 v = load4(a.x + i);
        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    return 1.0f / sqrtf(block_sum(sum, room) / (float)a.n_cols + a.eps);
}

/* Four values of a lane, 16 of four lanes: to integers with their scale. v is zero beyond the last column.
 * Not inlined: a short kernel pays for every line of code that it runs through once. */
static __device__ __noinline__ void quantize4(float4 v, uint32_t i, act_block *to)
{
    float top = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    act_scale s = act_scale_of(top);
    int q0 = __float2int_rn(v.x * s.inv), q1 = __float2int_rn(v.y * s.inv), q2 = __float2int_rn(v.z * s.inv),
        q3 = __float2int_rn(v.w * s.inv);
    int sum = q0 + q1 + q2 + q3;
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    *(int2 *)&to[i / 256].x[i % 32 / 8][i % 256 / 32][i % 8] =
        make_int2((q0 & 65535) | q1 << 16, (q2 & 65535) | q3 << 16);
    if (i % 16 == 0) act_put_scale(to, i, s.d, sum);
}

static __device__ __forceinline__ float4 normed4(const gemv_args &a, uint32_t i, float factor)
{
    if (i >= a.n_cols) return make_float4(0, 0, 0, 0);
    float4 v = load4(a.x + i);
    if (!a.norm) return v;
    float4 w = *(const float4 *)(a.norm + i);
    return make_float4(v.x * factor * w.x, v.y * factor * w.y, v.z * factor * w.z, v.w * factor * w.w);
}

/* RMSNorm of an input that fits the registers: read once. */
template <bool QUANT>
static __device__ __forceinline__ void take_held(const gemv_args &a, const held &h, uint8_t *act, float *room)
{
    float4 v[N_HELD4];
    float sum = 0;
#pragma unroll
    for (uint32_t k = 0; k < N_HELD4; k++) {
        uint32_t i = 4 * (threadIdx.x + k * N_THREADS);
        v[k] = i < a.n_cols ? load4(a.x + i) : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (uint32_t k = 0; k < N_HELD4; k++)
        sum += v[k].x * v[k].x + v[k].y * v[k].y + v[k].z * v[k].z + v[k].w * v[k].w;
    float factor = rsqrtf(__fdividef(block_sum(sum, room), (float)a.n_cols) + a.eps);
    uint32_t n_padded = (a.n_cols + 255) / 256 * 256;
#pragma unroll
    for (uint32_t k = 0; k < N_HELD4; k++) {
        uint32_t i = 4 * (threadIdx.x + k * N_THREADS);
        if (i >= n_padded) break; /* the same for a whole warp */
        bool in = i < a.n_cols;
        float4 y = make_float4(in ? v[k].x * factor * h.w[k].x : 0, in ? v[k].y * factor * h.w[k].y : 0,
                               in ? v[k].z * factor * h.w[k].z : 0, in ? v[k].w * factor * h.w[k].w : 0);
        if (QUANT)
            quantize4(y, i, (act_block *)act);
        else
            *(float4 *)((float *)act + i) = y;
    }
}

template <bool QUANT>
static __device__ void take_input(const gemv_args &a, const held &h, uint8_t *act, float *room)
{
    if (a.norm && a.n_cols <= N_HELD) {
        take_held<QUANT>(a, h, act, room);
        __syncthreads();
        return;
    }
    if (QUANT && a.xq) {
        uint32_t n = (a.n_cols + 255) / 256 * (uint32_t)(sizeof(act_block) / 16);
        for (uint32_t i = threadIdx.x; i < n; i += N_THREADS)
            ((uint4 *)act)[i] = __ldcg((const uint4 *)a.xq + i);
    } else {
        float factor = a.norm ? norm_factor(a, room) : 1.0f;
        uint32_t n_padded = (a.n_cols + 255) / 256 * 256;
        for (uint32_t i = 4 * threadIdx.x; i < n_padded; i += 4 * N_THREADS) {
            float4 v = normed4(a, i, factor);
            if (QUANT)
                quantize4(v, i, (act_block *)act);
            else
                *(float4 *)((float *)act + i) = v;
        }
    }
    __syncthreads();
}

/* ---- output -----------------------------------------------------------------------------------------------
 */

/* part: [group + warp][16]. Row r of group i: its warps' sums in order. */
template <int HOW>
static __device__ float group_sum(const gemv_args &a, const float *part, uint32_t i, uint32_t r,
                                  uint32_t n_units, uint32_t *i_seg, uint32_t *i_group, uint32_t *i_unit)
{
    locate<HOW>(a, i, i_seg, i_group);
    uint32_t u0 = *i_unit, u1 = u0 + a.seg[*i_seg].n_chunks;
    *i_unit = u1;
    /* warp w has units n_units * w / N_WARPS up to those of w + 1 */
    float sum = 0;
    for (uint32_t w = 0; w < N_WARPS; w++) {
        uint32_t w0 = n_units * w / N_WARPS, w1 = n_units * (w + 1) / N_WARPS;
        if (w1 > u0 && w0 < u1 && w1 > w0) sum += part[(i + w) * TILE_ROWS + r];
    }
    return sum;
}

static __device__ __forceinline__ uint32_t units_before(const gemv_args &a, uint32_t i)
{
    uint32_t n = 0, s, g;
    for (uint32_t k = 0; k < i; k++) {
        locate<GEMV_ROWS>(a, k, &s, &g);
        n += a.seg[s].n_chunks;
    }
    return n;
}

template <int HOW>
static __device__ void put_rows(const gemv_args &a, const float *part, uint32_t n_local, uint32_t n_units)
{
    bool one_size = a.n_seg == 1;
    for (uint32_t t = threadIdx.x; t < n_local * TILE_ROWS; t += N_THREADS) {
        uint32_t i = t / TILE_ROWS, r = t % TILE_ROWS, s, g;
        uint32_t u = one_size ? i * a.seg[0].n_chunks : units_before(a, i);
        float v = group_sum<HOW>(a, part, i, r, n_units, &s, &g, &u);
        uint32_t row = g * TILE_ROWS + r;
        if (row >= a.seg[s].n_rows) continue;
        if (a.seg[s].bias) v += a.seg[s].bias[row];
        float *y = a.y + a.seg[s].i_row + row;
        *y = HOW == GEMV_ADD ? __ldcg(y) + v : v;
    }
}

/* silu(gate) * up, 16 rows a half-warp: as float, or as integers with one scale. */
static __device__ void put_swiglu(const gemv_args &a, const float *part, uint32_t n_local, uint32_t n_units)
{
    uint32_t n_pairs = n_local / 2, c = a.seg[0].n_chunks,
             n_rounds = (n_pairs * TILE_ROWS + N_THREADS - 1) / N_THREADS;
    for (uint32_t k = 0; k < n_rounds; k++) {
        uint32_t t = k * N_THREADS + threadIdx.x, i = t / TILE_ROWS, r = t % TILE_ROWS, s, g = 0, row = ~0u;
        float h = 0;
        if (i < n_pairs) {
            uint32_t u = 2 * i * c;
            float gate = group_sum<GEMV_SWIGLU>(a, part, 2 * i, r, n_units, &s, &g, &u);
            float up = group_sum<GEMV_SWIGLU>(a, part, 2 * i + 1, r, n_units, &s, &g, &u);
            row = g * TILE_ROWS + r;
            if (row < a.seg[0].n_rows) {
                if (a.seg[0].bias) gate += a.seg[0].bias[row];
                if (a.seg[1].bias) up += a.seg[1].bias[row];
                h = gate / (1.0f + __expf(-gate)) * up;
            }
        }
        if (a.out.f && i < n_pairs && row < a.seg[0].n_rows) a.out.f[row] = h;
        if (!a.out.q) continue;
        float top = fabsf(h);
#pragma unroll
        for (int o = 8; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
        act_scale sc = act_scale_of(top);
        int q = __float2int_rn(h * sc.inv), sum = q;
#pragma unroll
        for (int o = 8; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
        if (i >= n_pairs) continue;
        act_put(a.out.q, row, (int16_t)q);
        if (r == 0) act_put_scale(a.out.q, row, sc.d, sum);
    }
}

/* ---- the kernel -------------------------------------------------------------------------------------------
 */

static __device__ __forceinline__ void mac(int kind, const uint8_t *tile, const uint8_t *act,
                                           uint32_t i_chunk, int lane, float acc[4], bool quant)
{
    if (quant) {
        const act_block *a = (const act_block *)act;
        if (kind == TILE_Q4_K)
            tile_mac_q4_k((const tile_q4_k *)tile, a + i_chunk, lane, acc);
        else if (kind == TILE_Q6_K)
            tile_mac_q6_k((const tile_q6_k *)tile, a + i_chunk, lane, acc);
        else if (kind == TILE_Q5_K)
            tile_mac_q5_k((const tile_q5_k *)tile, a + i_chunk, lane, acc);
        else
            tile_mac_q8_0((const tile_q8_0 *)tile, a + i_chunk / 2, (int)(i_chunk % 2), lane, acc);
    } else {
        const float *x = (const float *)act + i_chunk * tile_cols(kind);
        if (kind == TILE_BF16)
            tile_mac_16<true>((const tile_16 *)tile, x, lane, acc);
        else if (kind == TILE_F16)
            tile_mac_16<false>((const tile_16 *)tile, x, lane, acc);
        else
            tile_mac_f32((const tile_f32 *)tile, x, lane, acc);
    }
}

/* sums over the eight lanes of a quarter; the first writes row 4 p + quarter */
static __device__ __forceinline__ void flush(float acc[4], float *to, int lane)
{
#pragma unroll
    for (int p = 0; p < 4; p++) {
        float v = acc[p];
        v += __shfl_xor_sync(~0u, v, 4);
        v += __shfl_xor_sync(~0u, v, 2);
        v += __shfl_xor_sync(~0u, v, 1);
        if (lane % 8 == 0) to[4 * p + lane / 8] = v;
        acc[p] = 0;
    }
}

template <bool QUANT, int HOW, int DEPTH, int SLOT>
static __global__ void __launch_bounds__(N_THREADS, 2)
    gemv_kernel(const __grid_constant__ gemv_args a, uint32_t act_bytes, uint32_t part_bytes)
{
    extern __shared__ __align__(128) uint8_t room[];
    __shared__ float sums[N_WARPS];
    uint8_t *act = room, *ring = room + act_bytes + part_bytes + threadIdx.x / 32 * (DEPTH * SLOT);
    float *part = (float *)(room + act_bytes);
    const int lane = (int)threadIdx.x % 32;
    const uint32_t w = threadIdx.x / 32;
    const uint32_t n_mine =
        blockIdx.x < a.n_groups ? (a.n_groups - blockIdx.x + a.n_blocks - 1) / a.n_blocks : 0;
    const uint32_t n_local = HOW == GEMV_SWIGLU ? 2 * n_mine : n_mine;
    uint32_t n_units =
        a.n_seg == 1 || HOW == GEMV_SWIGLU ? n_local * a.seg[0].n_chunks : units_before(a, n_local);
    const uint32_t u0 = n_units * w / N_WARPS, u1 = n_units * (w + 1) / N_WARPS;

    let_next_start();
    cursor<HOW> in, at;
    if (u0 < u1) in.seek(a, u0), at = in;
    uint32_t n_in = u0;
    auto issue = [&](uint32_t slot) {
        if (n_in < u1) {
            uint8_t *to = ring + slot * SLOT;
            for (uint32_t o = 16 * (uint32_t)lane; o < in.bytes; o += 512) copy16(to + o, in.tile + o, true);
            n_in++;
            in.next(a, n_in < u1);
        }
        copies_commit();
    };
#pragma unroll
    for (uint32_t i = 0; i < DEPTH; i++) issue(i);
    held h;
    hold_norm(a, &h);
    wait_for_input();
    take_input<QUANT>(a, h, act, sums);

    float acc[4] = {0, 0, 0, 0};
    uint32_t slot = 0;
    for (uint32_t u = u0; u < u1; u++) {
        copies_wait<DEPTH - 1>();
        __syncwarp();
        mac(at.kind, ring + slot * SLOT, act, at.i_chunk, lane, acc, QUANT);
        __syncwarp();
        issue(slot);
        slot = slot + 1 == DEPTH ? 0 : slot + 1;
        uint32_t i = at.i;
        if (at.next(a, u + 1 < u1) || u + 1 == u1) flush(acc, part + (i + w) * TILE_ROWS, lane);
    }
    __syncthreads();
    if (HOW == GEMV_SWIGLU)
        put_swiglu(a, part, n_local, n_units);
    else
        put_rows<HOW>(a, part, n_local, n_units);
}

template <bool QUANT, int HOW> static const void *kernel_of(uint32_t slot, uint32_t *ring)
{
    if (slot <= 2304) return *ring = N_WARPS * 3 * 2304, (const void *)gemv_kernel<QUANT, HOW, 3, 2304>;
    return *ring = N_WARPS * 2 * 3360, (const void *)gemv_kernel<QUANT, HOW, 2, 3360>;
}

enum apr_gpu_status gemv_run(const struct apr_gpu_device *d, const struct gemv *g, cudaStream_t s,
                             struct apr_gpu_err *e)
{
    struct gemv_args a = {};
    bool quant = tile_is_quantized(g->m[0]->kind);
    uint32_t slot = 0, i_row = 0;
    a.n_seg = (uint32_t)g->n_m;
    a.n_cols = g->m[0]->n_cols;
    for (int i = 0; i < g->n_m; i++) {
        const struct mat *m = g->m[i];
        gpu_mark_bytes(d, mat_bytes(m));
        a.seg[i] = {m->tiles, m->bias, m->n_rows, m->n_groups, m->n_chunks, i_row, m->kind};
        i_row += m->n_rows;
        a.n_groups += m->n_groups;
        if (tile_bytes(m->kind) > slot) slot = tile_bytes(m->kind);
    }
    if (g->how == GEMV_SWIGLU) a.n_groups = g->m[0]->n_groups;
    a.n_blocks = a.n_groups < (uint32_t)d->n_sm ? a.n_groups : (uint32_t)d->n_sm;
    a.x = g->in.f, a.xq = quant && !g->norm ? g->in.q : NULL;
    a.norm = g->norm, a.eps = g->eps, a.y = g->y, a.out = g->out;

    uint32_t ring, n_padded = (a.n_cols + 255) / 256 * 256;
    uint32_t act_bytes = quant ? n_padded / 256 * (uint32_t)sizeof(act_block) : n_padded * 4;
    uint32_t n_local = (a.n_groups + a.n_blocks - 1) / a.n_blocks * (g->how == GEMV_SWIGLU ? 2 : 1);
    uint32_t part_bytes = ((n_local + N_WARPS) * TILE_ROWS * 4 + 127) / 128 * 128;
    const void *k;
    if (quant)
        k = g->how == GEMV_ROWS  ? kernel_of<true, GEMV_ROWS>(slot, &ring)
            : g->how == GEMV_ADD ? kernel_of<true, GEMV_ADD>(slot, &ring)
                                 : kernel_of<true, GEMV_SWIGLU>(slot, &ring);
    else
        k = g->how == GEMV_ROWS  ? kernel_of<false, GEMV_ROWS>(slot, &ring)
            : g->how == GEMV_ADD ? kernel_of<false, GEMV_ADD>(slot, &ring)
                                 : kernel_of<false, GEMV_SWIGLU>(slot, &ring);
    void *args[] = {&a, &act_bytes, &part_bytes};
    if (act_bytes + part_bytes + ring > (uint32_t)d->max_smem)
        return gpu_fail(e, APR_GPU_UNSUPPORTED,
                        "a matrix of %u columns needs %u bytes of shared memory, the device has %d", a.n_cols,
                        act_bytes + part_bytes + ring, d->max_smem);
    return gpu_launch(d, k, dim3(a.n_blocks), N_THREADS, act_bytes + part_bytes + ring, args, s, g->what, e);
}
