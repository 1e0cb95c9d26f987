/* Rubric A: the container. What the reader itself refuses is a pass here, because the file was read. */
#include "points.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PASS(...) return (void)snprintf(detail, n, __VA_ARGS__), POINT_PASS
#define FAIL(...) return (void)snprintf(detail, n, __VA_ARGS__), POINT_FAIL
#define WARN(...) return (void)snprintf(detail, n, __VA_ARGS__), POINT_WARN
#define SKIP(...) return (void)snprintf(detail, n, __VA_ARGS__), POINT_SKIP

#define KNOWN_FLAGS 0x07ffu /* of the .apr v2 format; column-major (0x0800) is refused by the reader */

static bool is(const struct facts *f, const char *format)
{
    return f->model->fmt == apr_fmt_named(format);
}

enum point_status point_magic(const struct facts *f, char *detail, size_t n)
{
    PASS("%s, told by its first bytes", f->model->fmt->title);
}

enum point_status point_header(const struct facts *f, char *detail, size_t n)
{
    PASS("%" PRIu64 " bytes in front of the data, all read", f->model->header.n_head_bytes);
}

enum point_status point_version(const struct facts *f, char *detail, size_t n)
{
    const struct apr_header *h = &f->model->header;
    if (h->version == 0) SKIP("%s has no version", f->model->fmt->title);
    PASS("%" PRIu32 ".%" PRIu32, h->version, h->version_minor);
}

enum point_status point_checksum(const struct facts *f, char *detail, size_t n)
{
    if (f->integrity == INTEGRITY_NONE) SKIP("%s carries no checksum", f->model->fmt->title);
    if (f->integrity == INTEGRITY_BAD) FAIL("%.180s", f->integrity_error.text);
    PASS("header CRC-32 %08" PRIx32 "%s", f->model->header.checksum,
         f->model->trailer ? ", footer CRC-32, hash of every tensor" : ", footer CRC-32");
}

enum point_status point_metadata(const struct facts *f, char *detail, size_t n)
{
    PASS("%s", is(f, "gguf") ? "every key has a known type" : "strict JSON, no key twice");
}

enum point_status point_alignment(const struct facts *f, char *detail, size_t n)
{
    const uint32_t align = f->model->header.alignment;
    if (align <= 1) SKIP("%s does not align tensors", f->model->fmt->title);
    for (uint64_t i = 0; i < f->model->n_tensors; i++)
        if (f->model->tensors[i].off_file % align != 0)
            FAIL("%.100s begins at byte %" PRIu64 ", expected a multiple of %" PRIu32,
                 f->model->tensors[i].name, f->model->tensors[i].off_file, align);
    PASS("every tensor begins at a multiple of %" PRIu32, align);
}

enum point_status point_sorted(const struct facts *f, char *detail, size_t n)
{
    const struct apr_model *m = f->model;
    if (!is(f, "apr")) SKIP("%s has no order", m->fmt->title);
    for (uint64_t i = 1; i < m->n_tensors; i++) /* the model's tensors are sorted by name */
        if (m->tensors[i].off_file < m->tensors[i - 1].off_file)
            WARN("%.150s lies before its predecessor: cannot be read as a stream", m->tensors[i].name);
    PASS("data in index order");
}

enum point_status point_compression(const struct facts *f, char *detail, size_t n)
{
    if (!is(f, "apr")) SKIP("%s is not compressed", f->model->fmt->title);
    PASS("%s", f->model->header.flags & 3u ? "compressed, and read" : "none");
}

enum point_status point_shards(const struct facts *f, char *detail, size_t n)
{
    if (f->model->n_files < 2) SKIP("one file");
    PASS("%" PRIu32 " shards hold exactly what the index names", f->model->n_files);
}

enum point_status point_endianness(const struct facts *f, char *detail, size_t n)
{
    if (f->model->header.version == 0) SKIP("%s is little-endian by definition", f->model->fmt->title);
    PASS("little-endian, told by the version field");
}

enum point_status point_flags(const struct facts *f, char *detail, size_t n)
{
    if (!is(f, "apr")) SKIP("%s has no flags", f->model->fmt->title);
    if (f->model->header.flags & ~KNOWN_FLAGS) WARN("unknown bits in 0x%04" PRIx32, f->model->header.flags);
    PASS("0x%04" PRIx32, f->model->header.flags);
}

enum point_status point_footer(const struct facts *f, char *detail, size_t n)
{
    if (!is(f, "apr")) SKIP("%s has no footer", f->model->fmt->title);
    if (!f->model->header.has_footer) WARN("missing: a file of the original, or cut behind the data");
    PASS("present");
}

static uint64_t end_of(const struct apr_tensor *t)
{
    return t->off_file > UINT64_MAX - t->n_bytes ? UINT64_MAX : t->off_file + t->n_bytes;
}

enum point_status point_bounds(const struct facts *f, char *detail, size_t n)
{
    const struct apr_model *m = f->model;
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        const struct apr_tensor *t = &m->tensors[i];
        if (t->i_file >= m->n_files || end_of(t) > apr_src_size(m->files[t->i_file].src))
            FAIL("%.100s ends at byte %" PRIu64, t->name, end_of(t));
    }
    PASS("every tensor ends inside its file");
}

enum point_status point_size(const struct facts *f, char *detail, size_t n)
{
    uint64_t n_tensors = 0, n_files = 0;
    for (uint64_t i = 0; i < f->model->n_tensors; i++) n_tensors += f->model->tensors[i].n_bytes;
    for (uint32_t i = 0; i < f->model->n_files; i++) n_files += apr_src_size(f->model->files[i].src);
    if (n_tensors > n_files)
        FAIL("%" PRIu64 " bytes of tensors in %" PRIu64 " bytes of files", n_tensors, n_files);
    PASS("%" PRIu64 " bytes, %" PRIu64 " of them tensors", n_files, n_tensors);
}

enum point_status point_meta_size(const struct facts *f, char *detail, size_t n)
{
    PASS("%" PRIu64 " bytes, within the reader's ceiling", f->model->header.n_head_bytes);
}

enum point_status point_names_text(const struct facts *f, char *detail, size_t n)
{
    for (uint64_t i = 0; i < f->model->n_tensors; i++) {
        const char *name = f->model->tensors[i].name;
        char safe[4 * APR_MAX_NAME_BYTES + 8];
        if (strcmp(apr_escape(safe, sizeof safe, name, strlen(name)), name) != 0)
            FAIL("control or invalid characters in %.150s", safe);
    }
    PASS("valid UTF-8 without control characters");
}

enum point_status point_names_unique(const struct facts *f, char *detail, size_t n)
{
    for (uint64_t i = 0; i < f->model->n_tensors; i++)
        if (apr_model_find(f->model, f->model->tensors[i].name) != &f->model->tensors[i])
            FAIL("%.150s stands twice", f->model->tensors[i].name);
    PASS("no name twice");
}

enum point_status point_dims(const struct facts *f, char *detail, size_t n)
{
    uint32_t most = 0;
    for (uint64_t i = 0; i < f->model->n_tensors; i++)
        if (f->model->tensors[i].n_dims > most) most = f->model->tensors[i].n_dims;
    if (most > APR_MAX_DIMS) FAIL("%" PRIu32 ", expected at most %d", most, APR_MAX_DIMS);
    PASS("at most %" PRIu32, most);
}

enum point_status point_scalars(const struct facts *f, char *detail, size_t n)
{
    uint64_t n_scalars = 0;
    for (uint64_t i = 0; i < f->model->n_tensors; i++) n_scalars += f->model->tensors[i].n_dims == 0;
    if (n_scalars == 0) SKIP("no scalar in this model");
    PASS("%" PRIu64 " scalars read", n_scalars);
}

enum point_status point_types(const struct facts *f, char *detail, size_t n)
{
    const struct apr_violation *x = facts_violation(f, "F-TENSOR-003");
    if (x) FAIL("%.60s: %.110s", x->tensor, x->text);
    PASS("every type is known");
}

enum point_status point_padding(const struct facts *f, char *detail, size_t n)
{
    if (f->integrity == INTEGRITY_NONE)
        SKIP("%s",
             f->model->header.alignment > 1 ? "not covered by a checksum in this format" : "there is none");
    if (f->integrity == INTEGRITY_BAD) FAIL("%.180s", f->integrity_error.text);
    PASS("zeros between tensors");
}
