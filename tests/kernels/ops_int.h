/* ops_int.h - between the files of the harness; cases include ops.h alone. */
#ifndef TESTS_KERNELS_OPS_INT_H
#define TESTS_KERNELS_OPS_INT_H

#include <stddef.h>

#include "tests/kernels/ops.h"

enum { OPS_GUARD = 64, OPS_GUARD_BYTE = 0xC3 };
enum ops_role { OPS_INPUT, OPS_OUTPUT, OPS_VAR, OPS_VALUE };

static inline char *ops_host(const struct ops_tensor *t)
{
	return (char *)t->host + OPS_GUARD;
}

/* ---- tensors.c ---- */
float ops_bf16_get(uint16_t b);
uint16_t ops_bf16_put(float f);
double ops_f16_get(uint16_t b); /* IEEE 754 binary16 */
uint16_t ops_f16_put(double x);
int64_t ops_offset(const struct lk_view *v, int64_t i); /* of the i-th element, in elements */
int64_t ops_count(const struct lk_view *v);
double ops_element(const void *data, int dtype, int64_t off);
int ops_fetch(struct ops_run *r, struct ops_tensor *t); /* host copy = device memory, with guards */
struct ops_tensor *ops_find(struct ops_run *r, const struct lk_view *v);
void ops_release(struct ops_run *r);

/* ---- compare.c: 0 good, 1 failed with a sentence in why (n bytes) ---- */
int ops_compare(struct ops_run *ref, struct ops_run *got, const struct ops_case *c, double *worst, char *why, size_t n);
int ops_check_grad(struct lk_dev *ref, const struct ops_case *c, uint64_t seed, double *worst, char *why, size_t n);
void ops_start(struct ops_run *r, struct lk_dev *dev, uint64_t seed, int bf16);

/* ---- group.c: several devices at once ---- */
struct ops_tally {
	int passed, failed, skipped;
};
void ops_groups(struct ops_tally *tally, int verbose); /* adds */

#endif
