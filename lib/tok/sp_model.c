/* See sp_model.h. */
#include "sp_model.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "../rd.h"
#include "../vocab.h"
#include "utf8.h"

enum wire { WIRE_VARINT = 0, WIRE_8 = 1, WIRE_BYTES = 2, WIRE_4 = 5 };

enum { PIECES = 1, TRAINER = 2, NORMALIZER = 3 }; /* fields of the model */

struct field {
    uint64_t number;
    enum wire wire;
    uint64_t v;         /* of a number */
    struct apr_rd part; /* of bytes */
};

/* Seven bits a byte, the lowest first. */
static enum apr_code varint(struct apr_rd *rd, uint64_t *v, struct apr_err *e)
{
    *v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t b;
        TRY(apr_rd_u8(rd, &b, "a number", e));
        *v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) return APR_OK;
    }
    return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": a number of more than 64 bits", rd->file,
                    apr_rd_off(rd));
}

static enum apr_code part(struct apr_rd *rd, struct apr_rd *out, struct apr_err *e)
{
    uint64_t n, off;
    const uint8_t *p;
    TRY(varint(rd, &n, e));
    off = apr_rd_off(rd);
    TRY(apr_rd_bytes(rd, n, &p, "a field", e));
    apr_rd_mem(out, p, n, off, rd->file);
    return APR_OK;
}

static enum apr_code next(struct apr_rd *rd, struct field *f, struct apr_err *e)
{
    uint64_t tag, off = apr_rd_off(rd);
    uint32_t four;
    *f = (struct field){0};
    TRY(varint(rd, &tag, e));
    f->number = tag >> 3;
    f->wire = (enum wire)(tag & 7);
    if (f->number == 0) return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": field 0", rd->file, off);
    switch (f->wire) {
    case WIRE_VARINT:
        return varint(rd, &f->v, e);
    case WIRE_8:
        return apr_rd_u64(rd, &f->v, "a field", e);
    case WIRE_4:
        TRY(apr_rd_u32(rd, &four, "a field", e));
        f->v = four;
        return APR_OK;
    case WIRE_BYTES:
        return part(rd, &f->part, e);
    }
    return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": wire type %d, expected 0, 1, 2 or 5", rd->file,
                    off, (int)f->wire);
}

static enum apr_code want(const struct apr_rd *rd, const struct field *f, enum wire wire, const char *what,
                          struct apr_err *e)
{
    if (f->wire == wire) return APR_OK;
    return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": %s has wire type %d, expected %d", rd->file,
                    apr_rd_off(rd), what, (int)f->wire, (int)wire);
}

/* A field's bytes and a NUL. Its tag and length took two bytes at least, so what is copied fits into as many
 * bytes as the file has. */
static enum apr_code copy(struct apr_rd *rd, char **room, struct apr_str *out, struct apr_err *e)
{
    const uint8_t *p;
    size_t n = (size_t)apr_rd_left(rd);
    TRY(apr_rd_bytes(rd, n, &p, "text", e));
    if (n > 0) memcpy(*room, p, n);
    *out = (struct apr_str){*room, n};
    *room += n + 1;
    return APR_OK;
}

static enum apr_code read_piece(struct apr_sp_model *sp, uint32_t i, struct apr_rd *rd, char **room,
                                struct apr_err *e)
{
    enum { TEXT = 1, SCORE = 2, TYPE = 3 };
    struct apr_str *s = &sp->pieces[i];
    sp->types[i] = APR_TOK_NORMAL;
    while (apr_rd_left(rd) > 0) {
        struct field f;
        TRY(next(rd, &f, e));
        if (f.number == TEXT) {
            TRY(want(rd, &f, WIRE_BYTES, "a piece's text", e));
            TRY(copy(&f.part, room, s, e));
        } else if (f.number == SCORE) {
            TRY(want(rd, &f, WIRE_4, "a piece's score", e));
            uint32_t bits = (uint32_t)f.v;
            memcpy(&sp->scores[i], &bits, sizeof bits);
        } else if (f.number == TYPE) {
            TRY(want(rd, &f, WIRE_VARINT, "a piece's type", e));
            if (f.v < APR_TOK_NORMAL || f.v > APR_TOK_BYTE)
                return apr_fail(e, APR_EFORMAT, "%s: piece %" PRIu32 ": type %" PRIu64 ", expected 1 to 6",
                                rd->file, i, f.v);
            sp->types[i] = (int32_t)f.v;
        }
    }
    if (s->n_bytes == 0) return apr_fail(e, APR_EFORMAT, "%s: piece %" PRIu32 " has no text", rd->file, i);
    if (apr_utf8_valid((const uint8_t *)s->p, s->n_bytes) != s->n_bytes || memchr(s->p, '\0', s->n_bytes))
        return apr_fail(e, APR_EFORMAT, "%s: piece %" PRIu32 " is not UTF-8", rd->file, i);
    if (!isfinite(sp->scores[i]))
        return apr_fail(e, APR_EFORMAT, "%s: piece %" PRIu32 ": its score is no finite number", rd->file, i);
    return APR_OK;
}

/* Rows of numbers: which field of which message goes where. */
struct number_row {
    uint64_t field;
    size_t off;
    bool is_id; /* int32, as int64_t here; else a bool */
};

static const struct number_row trainer_rows[] = {
    {22, offsetof(struct apr_sp_model, split_by_space), false},
    {24, offsetof(struct apr_sp_model, space_as_suffix), false},
    {35, offsetof(struct apr_sp_model, byte_fallback), false},
    {40, offsetof(struct apr_sp_model, unk_id), true},
    {41, offsetof(struct apr_sp_model, bos_id), true},
    {42, offsetof(struct apr_sp_model, eos_id), true},
    {43, offsetof(struct apr_sp_model, pad_id), true},
};
static const struct number_row normalizer_rows[] = {
    {3, offsetof(struct apr_sp_model, dummy_prefix), false},
    {4, offsetof(struct apr_sp_model, remove_extra_spaces), false},
    {5, offsetof(struct apr_sp_model, escape_spaces), false},
};

static enum apr_code read_number(struct apr_sp_model *sp, const struct apr_rd *rd, const struct field *f,
                                 const struct number_row *rows, size_t n_rows, struct apr_err *e)
{
    for (size_t i = 0; i < n_rows; i++) {
        if (rows[i].field != f->number) continue;
        TRY(want(rd, f, WIRE_VARINT, "a setting", e));
        char *at = (char *)sp + rows[i].off;
        if (!rows[i].is_id) *(bool *)at = f->v != 0;
        if (rows[i].is_id) *(int64_t *)(void *)at = (int64_t)f->v < 0 ? -1 : (int64_t)f->v;
    }
    return APR_OK;
}

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

static enum apr_code read_trainer(struct apr_sp_model *sp, struct apr_rd *rd, struct apr_err *e)
{
    enum { MODEL_TYPE = 3 };
    while (apr_rd_left(rd) > 0) {
        struct field f;
        TRY(next(rd, &f, e));
        TRY(read_number(sp, rd, &f, trainer_rows, N_OF(trainer_rows), e));
        if (f.number != MODEL_TYPE) continue;
        TRY(want(rd, &f, WIRE_VARINT, "the model's type", e));
        if (f.v < APR_SP_UNIGRAM || f.v > APR_SP_CHAR)
            return apr_fail(e, APR_EFORMAT, "%s: model type %" PRIu64 ", expected 1 to 4", rd->file, f.v);
        sp->type = (enum apr_sp_type)f.v;
    }
    return APR_OK;
}

static enum apr_code read_normalizer(struct apr_sp_model *sp, struct apr_rd *rd, char **room,
                                     struct apr_err *e)
{
    enum { CHARSMAP = 2 };
    while (apr_rd_left(rd) > 0) {
        struct field f;
        struct apr_str map;
        TRY(next(rd, &f, e));
        TRY(read_number(sp, rd, &f, normalizer_rows, N_OF(normalizer_rows), e));
        if (f.number != CHARSMAP) continue;
        TRY(want(rd, &f, WIRE_BYTES, "the character map", e));
        TRY(copy(&f.part, room, &map, e));
        sp->charsmap = (const uint8_t *)map.p;
        sp->n_charsmap_bytes = map.n_bytes;
    }
    return APR_OK;
}

static enum apr_code count(struct apr_rd rd, uint32_t *n_pieces, struct apr_err *e)
{
    *n_pieces = 0;
    while (apr_rd_left(&rd) > 0) {
        struct field f;
        TRY(next(&rd, &f, e));
        if (f.number == PIECES) TRY(want(&rd, &f, WIRE_BYTES, "a piece", e));
        if (f.number == PIECES) ++*n_pieces;
    }
    return APR_OK;
}

static enum apr_code read_all(struct apr_sp_model *sp, struct apr_rd *rd, char *room, struct apr_err *e)
{
    uint32_t i = 0;
    while (apr_rd_left(rd) > 0) {
        struct field f;
        TRY(next(rd, &f, e));
        if (f.number != PIECES && f.number != TRAINER && f.number != NORMALIZER) continue;
        TRY(want(rd, &f, WIRE_BYTES, "a part of the model", e));
        if (f.number == PIECES) TRY(read_piece(sp, i++, &f.part, &room, e));
        if (f.number == TRAINER) TRY(read_trainer(sp, &f.part, e));
        if (f.number == NORMALIZER) TRY(read_normalizer(sp, &f.part, &room, e));
    }
    return APR_OK;
}

static enum apr_code check_id(const struct apr_sp_model *sp, int64_t id, const char *name, const char *file,
                              struct apr_err *e)
{
    if (id < (int64_t)sp->n_pieces) return APR_OK;
    return apr_fail(e, APR_EFORMAT, "%s: %s_id %" PRId64 " of %" PRIu32 " pieces", file, name, id,
                    sp->n_pieces);
}

enum apr_code apr_sp_read(struct apr_sp_model *sp, const uint8_t *p, size_t n, struct apr_arena *arena,
                          const char *file, struct apr_err *e)
{
    struct apr_rd rd;
    /* What the definition says of fields that are left out. */
    *sp = (struct apr_sp_model){.type = APR_SP_UNIGRAM,
                                .split_by_space = true,
                                .bos_id = 1,
                                .eos_id = 2,
                                .pad_id = -1,
                                .dummy_prefix = true,
                                .remove_extra_spaces = true,
                                .escape_spaces = true};
    apr_rd_mem(&rd, p, n, 0, file);
    TRY(count(rd, &sp->n_pieces, e));
    if (sp->n_pieces == 0) return apr_fail(e, APR_EFORMAT, "%s: no pieces in it", file);
    TRY(apr_arena_try(arena, &sp->pieces, sp->n_pieces, sizeof *sp->pieces, "pieces", e));
    TRY(apr_arena_try(arena, &sp->scores, sp->n_pieces, sizeof *sp->scores, "scores", e));
    TRY(apr_arena_try(arena, &sp->types, sp->n_pieces, sizeof *sp->types, "types", e));
    char *room;
    TRY(apr_arena_try(arena, &room, n, 1, "pieces", e));
    TRY(read_all(sp, &rd, room, e));
    TRY(check_id(sp, sp->unk_id, "unk", file, e));
    TRY(check_id(sp, sp->bos_id, "bos", file, e));
    TRY(check_id(sp, sp->eos_id, "eos", file, e));
    return check_id(sp, sp->pad_id, "pad", file, e);
}
