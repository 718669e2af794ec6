/* compare.c - the two judgements: a backend against ref, and a gradient against finite differences. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/ops_int.h"

void ops_start(struct ops_run *r, struct lk_dev *dev, uint64_t seed, int bf16)
{
	memset(r, 0, sizeof *r);
	r->dev = dev;
	r->seed = seed;
	r->bf16 = bf16;
	r->scale = 1.0;
	r->bump_var = -1;
}

/* ---- against ref ---- */

/* Guards and gaps of t must still hold the guard byte, and inputs their numbers. 0 good. */
static int check_surroundings(struct ops_run *r, struct ops_tensor *t, char *why, size_t n)
{
	size_t size = lk_dtype_size(t->v.dtype), total = t->bytes + 2 * OPS_GUARD;
	unsigned char *was = malloc(total), *mine;
	int bad = 0;

	if (!was) {
		snprintf(why, n, "out of memory");
		return 1;
	}
	memcpy(was, t->host, total);
	if (ops_fetch(r, t)) {
		snprintf(why, n, "%s", lk_dev_error(r->dev));
		free(was);
		return 1;
	}
	mine = t->host;
	if (t->role == OPS_INPUT || t->role == OPS_VAR) {
		bad = memcmp(was, mine, total) != 0;
		if (bad)
			snprintf(why, n, "an input was changed");
	} else {
		for (int64_t i = 0; i < ops_count(&t->v); i++) // what may change: put aside
			memset(was + OPS_GUARD + (size_t)ops_offset(&t->v, i) * size, 0, size);
		for (size_t i = 0; i < total && !bad; i++)
			bad = was[i] == OPS_GUARD_BYTE && mine[i] != OPS_GUARD_BYTE;
		if (bad)
			snprintf(why, n, "%s: memory outside of it was written", t->name);
	}
	free(was);
	return bad;
}

static int compare_exact(const struct ops_tensor *a, const struct ops_tensor *b, char *why, size_t n)
{
	for (int64_t i = 0; i < ops_count(&a->v); i++) {
		double x = ops_element(ops_host(a), a->v.dtype, ops_offset(&a->v, i));
		double y = ops_element(ops_host(b), b->v.dtype, ops_offset(&b->v, i));

		if (x != y) {
			snprintf(why, n, "%s[%" PRId64 "] is %.0f, ref has %.0f", a->name, i, y, x);
			return 1;
		}
	}
	return 0;
}

/* Same kind of number: NaN with NaN, +Inf with +Inf ... */
static int same_kind(double x, double y)
{
	if (isfinite(x) && isfinite(y))
		return 1;
	return isnan(x) ? isnan(y) : x == y;
}

static int compare_floats(const struct ops_tensor *a, const struct ops_tensor *b, double tol, double *worst, char *why,
			  size_t n)
{
	double num = 0, den = 0, err;

	for (int64_t i = 0; i < ops_count(&a->v); i++) {
		double x = ops_element(ops_host(a), a->v.dtype, ops_offset(&a->v, i));
		double y = ops_element(ops_host(b), b->v.dtype, ops_offset(&b->v, i));

		if (!same_kind(x, y)) {
			snprintf(why, n, "%s[%" PRId64 "] is %g, ref has %g", a->name, i, y, x);
			return 1;
		}
		if (!isfinite(x))
			continue;
		num += (x - y) * (x - y);
		den += x * x;
	}
	err = num == 0 ? 0 : sqrt(num / (den > 0 ? den : 1e-30));
	*worst = err > *worst ? err : *worst;
	if (!(err <= tol)) {
		snprintf(why, n, "%s: relative error %.3g, allowed %.3g", a->name, err, tol);
		return 1;
	}
	return 0;
}

static int compare_values(const struct ops_tensor *a, const struct ops_tensor *b, double tol, char *why, size_t n)
{
	double err = a->value == b->value ? 0 : fabs(a->value - b->value) / fabs(a->value);

	if (same_kind(a->value, b->value) && (!isfinite(a->value) || err <= tol))
		return 0;
	snprintf(why, n, "%s is %.17g, ref has %.17g, allowed relative error %.3g", a->name, b->value, a->value, tol);
	return 1;
}

int ops_compare(struct ops_run *ref, struct ops_run *got, const struct ops_case *c, double *worst, char *why, size_t n)
{
	if (ref->nt != got->nt) {
		snprintf(why, n, "the case made %d tensors on ref and %d here", ref->nt, got->nt);
		return 1;
	}
	for (int i = 0; i < ref->nt; i++) {
		struct ops_tensor *a = &ref->t[i], *b = &got->t[i];
		double tol = got->bf16 || b->v.dtype != LK_F32 ? c->tol16 : c->tol32;
		int bad;

		if (a->role == OPS_VALUE) {
			if (compare_values(a, b, tol, why, n))
				return 1;
			continue;
		}
		if (check_surroundings(ref, a, why, n) || check_surroundings(got, b, why, n))
			return 1;
		if (a->role != OPS_OUTPUT)
			continue;
		if (a->v.dtype != LK_F32 && a->v.dtype != LK_BF16 && a->v.dtype != LK_F16)
			bad = compare_exact(a, b, why, n);
		else
			bad = compare_floats(a, b, tol, worst, why, n);
		if (bad)
			return 1;
	}
	return 0;
}

/* ---- against finite differences ---- */

struct probe {
	struct lk_dev *dev;
	const struct ops_case *c;
	uint64_t seed;
	int var;
	int64_t n;
	float *dir;         /* direction, n */
	const double *grad; /* n */
	double norm;        /* of grad */
	char *why;
	size_t whyn;
};

/* The loss with variable `var` moved by step along dir. */
static int loss_at(const struct probe *p, double step, double *loss)
{
	struct ops_run r;
	int rc;

	ops_start(&r, p->dev, p->seed, 0);
	r.bump_var = p->var;
	r.bump_step = step;
	r.bump_dir = p->dir;
	rc = p->c->run(&r, p->c->arg);
	if (rc || r.why[0])
		snprintf(p->why, p->whyn, "forward: %s", r.why[0] ? r.why : lk_dev_error(p->dev));
	*loss = r.loss;
	rc = rc || r.why[0];
	ops_release(&r);
	return rc;
}

/* Derivative along dir by the five-point rule, held against <grad, dir>. The scale of the error is |grad| |dir|: an
 * error of 1e-3 of it is 0.1 % of the steepest slope. */
static int check_direction(const struct probe *p, const char *what, double *worst)
{
	const double h = 0.02;
	double a, b, c, d, slope, want = 0, len = 0, err;

	for (int64_t i = 0; i < p->n; i++) {
		want += p->grad[i] * p->dir[i];
		len += (double)p->dir[i] * p->dir[i];
	}
	if (loss_at(p, h, &a) || loss_at(p, -h, &b) || loss_at(p, 2 * h, &c) || loss_at(p, -2 * h, &d))
		return 1;
	slope = (8 * (a - b) - (c - d)) / (12 * h);
	err = fabs(slope - want) / (p->norm * sqrt(len) + 1e-12);
	*worst = err > *worst ? err : *worst;
	if (err <= p->c->tol32)
		return 0;
	snprintf(p->why, p->whyn, "gradient along %s: %.6g, by differences %.6g (error %.2g, allowed %.2g)", what, want,
		 slope, err, p->c->tol32);
	return 1;
}

static int check_directions(struct probe *p, const char *name, double *worst)
{
	struct ops_run rng;
	char what[64];

	ops_start(&rng, p->dev, p->seed ^ 0xd1ec7101u, 0);
	for (int64_t i = 0; i < p->n; i++)
		p->dir[i] = (float)(p->norm > 0 ? p->grad[i] / p->norm : 1.0);
	snprintf(what, sizeof what, "itself, of %s", name);
	if (check_direction(p, what, worst))
		return 1;
	for (int k = 0; k < 3; k++) {
		for (int64_t i = 0; i < p->n; i++)
			p->dir[i] = (float)((2 * ops_uniform(&rng) - 1) / sqrt((double)p->n));
		snprintf(what, sizeof what, "random direction %d of %s", k, name);
		if (check_direction(p, what, worst))
			return 1;
	}
	for (int k = 0; k < 6; k++) {
		int64_t at = (int64_t)(ops_u32(&rng) % (uint64_t)p->n);

		for (int64_t i = 0; i < p->n; i++)
			p->dir[i] = i == at ? 1.0f : 0.0f;
		snprintf(what, sizeof what, "%s[%" PRId64 "]", name, at);
		if (check_direction(p, what, worst))
			return 1;
	}
	return 0;
}

static int check_variable(struct ops_run *r, const struct ops_case *c, int var, double *worst, char *why, size_t n)
{
	const struct ops_tensor *v = &r->t[var];
	struct probe p = { r->dev, c, r->seed, var, ops_count(&v->v), NULL, NULL, 0, why, n };
	double *grad;
	int rc = 1;

	if (!v->grad || ops_count(&v->grad->v) != p.n) {
		snprintf(why, n, "%s has no gradient of its shape", v->name);
		return 1;
	}
	grad = malloc((size_t)p.n * sizeof *grad);
	p.dir = malloc((size_t)p.n * sizeof *p.dir);
	p.grad = grad;
	if (!grad || !p.dir) {
		snprintf(why, n, "out of memory");
		goto out;
	}
	for (int64_t i = 0; i < p.n; i++) {
		grad[i] = ops_element(ops_host(v->grad), v->grad->v.dtype, ops_offset(&v->grad->v, i));
		p.norm += grad[i] * grad[i];
	}
	p.norm = sqrt(p.norm);
	if (!isfinite(p.norm)) {
		snprintf(why, n, "the gradient of %s is not finite", v->name);
		goto out;
	}
	rc = check_directions(&p, v->name, worst);
out:
	free(grad);
	free(p.dir);
	return rc;
}

int ops_check_grad(struct lk_dev *ref, const struct ops_case *c, uint64_t seed, double *worst, char *why, size_t n)
{
	struct ops_run *r = malloc(sizeof *r);
	int rc, vars = 0;

	if (!r) {
		snprintf(why, n, "out of memory");
		return 1;
	}
	ops_start(r, ref, seed, 0);
	r->want_grad = 1;
	rc = c->run(r, c->arg);
	if (rc || r->why[0]) {
		snprintf(why, n, "%s", r->why[0] ? r->why : lk_dev_error(ref));
		rc = 1;
	}
	for (int i = 0; i < r->nt && !rc; i++) {
		if (r->t[i].role == OPS_VAR) {
			vars++;
			rc = check_variable(r, c, i, worst, why, n);
		}
	}
	if (!rc && !vars) {
		snprintf(why, n, "the case has no variable");
		rc = 1;
	}
	ops_release(r);
	free(r);
	return rc;
}
