/* Strings of the template language: UTF-8 steps, Python's idea of white space, building, slicing.
 *
 *     struct apr_jj_sb b; apr_jj_sb_init(&b, r); TRY(apr_jj_sb_str(&b, s)); TRY(apr_jj_sb_text(&b, ", "));
 *     TRY(apr_jj_sb_done(&b, &out));
 */
#ifndef APR_JINJA_STR_H
#define APR_JINJA_STR_H

#include <sys/types.h>

#include "val.h"

/* A string under construction; grows in the run's arena up to the run's longest string. */
struct apr_jj_sb {
    struct apr_jj_run *r;
    char *p;
    uint8_t *mark;
    size_t n, n_cap;
    bool any_data, any_text;
};
void apr_jj_sb_init(struct apr_jj_sb *b, struct apr_jj_run *r);
/* One that lives in the run's arena: for an output that outlasts its function's frame when rendering fails.
 */
APR_MUST_USE enum apr_code apr_jj_sb_new(struct apr_jj_run *r, struct apr_jj_sb **out);
APR_MUST_USE enum apr_code apr_jj_sb_bytes(struct apr_jj_sb *b, const char *p, size_t n, bool data);
APR_MUST_USE enum apr_code apr_jj_sb_text(struct apr_jj_sb *b, const char *text);
APR_MUST_USE enum apr_code apr_jj_sb_str(struct apr_jj_sb *b, const struct apr_jj_str *s);
APR_MUST_USE enum apr_code apr_jj_sb_part(struct apr_jj_sb *b, const struct apr_jj_str *s, size_t off,
                                          size_t n);
APR_MUST_USE enum apr_code apr_jj_sb_cp(struct apr_jj_sb *b, int32_t cp, bool data);
APR_MUST_USE enum apr_code apr_jj_sb_fill(struct apr_jj_sb *b, const struct apr_jj_str *s, size_t n_times);
APR_MUST_USE enum apr_code apr_jj_sb_done(struct apr_jj_sb *b, struct apr_jj_val *out);

APR_MUST_USE enum apr_code apr_jj_str_new(struct apr_jj_run *r, const char *p, size_t n, bool data,
                                          struct apr_jj_val *out); /* copies */
APR_MUST_USE enum apr_code apr_jj_text(struct apr_jj_run *r, const char *static_text, struct apr_jj_val *out);
/* Bytes off .. off+n of s, without copying. */
APR_MUST_USE enum apr_code apr_jj_str_part(struct apr_jj_run *r, const struct apr_jj_str *s, size_t off,
                                           size_t n, struct apr_jj_val *out);
APR_MUST_USE enum apr_code apr_jj_str_concat(struct apr_jj_run *r, const struct apr_jj_str *a,
                                             const struct apr_jj_str *b, struct apr_jj_val *out);

bool apr_jj_str_any_data(const struct apr_jj_str *s);
bool apr_jj_str_is_data(const struct apr_jj_str *s, size_t off); /* of the byte at off */
bool apr_jj_str_eq(const struct apr_jj_str *s, const char *text);
int apr_jj_str_cmp(const struct apr_jj_str *a, const struct apr_jj_str *b); /* by code points */
size_t apr_jj_str_len(const struct apr_jj_str *s);                          /* code points */
size_t apr_jj_cp_off(const struct apr_jj_str *s, size_t i_cp);              /* byte offset of a code point */
/* Offset of needle in s at or after off, or -1. */
ssize_t apr_jj_str_find(const struct apr_jj_str *s, const struct apr_jj_str *needle, size_t off);
/* The last one that ends at or before end, or -1. Linear time, which is charged. */
APR_MUST_USE enum apr_code apr_jj_str_rfind(struct apr_jj_run *r, const struct apr_jj_str *s,
                                            const struct apr_jj_str *needle, size_t end, ssize_t *at);

/* The code point at p (p < end, valid UTF-8) and the bytes it takes. */
int32_t apr_jj_cp_at(const char *p, const char *end, size_t *n_bytes);
size_t apr_jj_cp_back(const char *p, size_t off); /* bytes of the code point that ends at off > 0 */
bool apr_jj_is_space(int32_t cp);                 /* as Python's str.isspace and \s */
bool apr_jj_utf8_valid(const char *p, size_t n);
/* White space cut from both ends (chars NULL) or any of chars. */
APR_MUST_USE enum apr_code apr_jj_str_strip(struct apr_jj_run *r, const struct apr_jj_str *s,
                                            const struct apr_jj_str *chars, bool left, bool right,
                                            struct apr_jj_val *out);

#endif
