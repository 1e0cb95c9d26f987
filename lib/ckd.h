/* Checked integer arithmetic for every number that a file or a request supplied.
 *
 * ckd_add(&r, a, b), ckd_sub and ckd_mul store the wrapped result in *r and are true when the
 * mathematical result does not fit the type of *r:  if (ckd_mul(&n_bytes, rows, row_bytes)) refuse();
 */
#ifndef APR_CKD_H
#define APR_CKD_H

#define ckd_add(r, a, b) __builtin_add_overflow((a), (b), (r))
#define ckd_sub(r, a, b) __builtin_sub_overflow((a), (b), (r))
#define ckd_mul(r, a, b) __builtin_mul_overflow((a), (b), (r))

#endif
