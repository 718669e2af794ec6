/* range.c - cutting tensors over ranks.
 *
 * Split along dimension d, a tensor is `rows` rows (the dimensions before d) of `width` elements (d and those after it), and a rank
 * holds width / n of each row: its part is rows runs, width apart. Not split it is one row that everyone has. Of a tensor with
 * fewer `parts` than ranks n is that number, and rank r holds part r / (ranks / parts).
 */
#include "common/tensor/range.h"

bool lwm_tensor_overlap(const struct lwm_tensor *t, int64_t first, int64_t count, int64_t *from, int64_t *n)
{
	int64_t a = t->offset > first ? t->offset : first, b = t->offset + t->count;

	if (b > first + count)
		b = first + count;
	*from = a;
	*n = b - a;
	return a < b;
}

struct cut {
	int64_t rows, width, own; /* own: of each row, on one rank */
};

/* Into how many parts n ranks cut a tensor that is split. */
static int parts_of(const struct lwm_tensor *t, int n)
{
	return t->parts && t->parts < n ? t->parts : n;
}

static struct cut cut_of(const struct lwm_tensor *t, int n)
{
	struct cut c = { 1, t->count, t->count };

	if (t->split == LWM_SPLIT_NONE)
		return c;
	for (int d = 0; d < t->split; d++)
		c.rows *= t->shape[d];
	c.width = t->count / c.rows;
	c.own = c.width / parts_of(t, n);
	return c;
}

bool lwm_part_fits(const struct lwm_tensor *t, int n)
{
	int m = parts_of(t, n);

	if (t->split == LWM_SPLIT_NONE)
		return true;
	return n % m == 0 && (!t->parts || t->parts % m == 0) && t->shape[t->split] % m == 0 &&
	       (!t->rope_heads || t->split != 0 || t->rope_heads % m == 0);
}

int lwm_part_copies(const struct lwm_tensor *t, int n)
{
	return t->split == LWM_SPLIT_NONE ? n : n / parts_of(t, n);
}

int64_t lwm_part_size(const struct lwm_tensor *t, int n)
{
	struct cut c = cut_of(t, n);

	return c.rows * c.own;
}

int lwm_part_runs(const struct lwm_tensor *t, int r, int n, int64_t from, int64_t count, struct lwm_run run[LWM_RUNS])
{
	struct cut c = cut_of(t, n);
	int64_t base = c.own < c.width ? r / lwm_part_copies(t, n) * c.own : 0, end = from + count;
	int k = 0;

	while (from < end) {
		int64_t row = from / c.own, in = from % c.own, whole = (end - from) / c.own;

		if (in || !whole) { /* the end of a row, or what does not reach one */
			int64_t left = c.own - in < end - from ? c.own - in : end - from;

			run[k++] = (struct lwm_run){ row * c.width + base + in, left, 1, left };
			from += left;
		} else if (c.own == c.width) { /* rows that touch each other are one run */
			run[k++] = (struct lwm_run){ row * c.width, whole * c.own, 1, whole * c.own };
			from += whole * c.own;
		} else {
			run[k++] = (struct lwm_run){ row * c.width + base, c.own, whole, whole > 1 ? c.width : c.own };
			from += whole * c.own;
		}
	}
	return k;
}

int lwm_part_of(const struct lwm_tensor *t, int n, int64_t i, int64_t *at)
{
	struct cut c = cut_of(t, n);
	int64_t row = i / c.width, in = i % c.width, rank = c.own < c.width ? in / c.own : 0;

	*at = row * c.own + in - rank * c.own;
	return (int)rank * (c.own < c.width ? lwm_part_copies(t, n) : 1);
}

int lwm_tensors_local(struct lwm_tensors *out, const struct lwm_tensors *p, int n, struct lwm_err *e)
{
	int rc = 0;

	*out = (struct lwm_tensors){ .align = p->align };
	for (int64_t i = 0; rc == 0 && i < p->n; i++) {
		struct lwm_tensor t = p->list[i];

		if (!lwm_part_fits(&t, n)) {
			rc = lwm_fail(e, LWM_ECONFIG, "tensor '%s' cannot be cut over %d ranks", t.name, n);
			break;
		}
		if (t.split != LWM_SPLIT_NONE) {
			int m = parts_of(&t, n);

			t.shape[t.split] /= m;
			t.rope_heads /= t.rope_heads && t.split == 0 ? m : 1;
			t.parts /= t.parts ? m : 1;
		}
		rc = lwm_tensors_add(out, &t, e);
	}
	if (rc < 0)
		lwm_tensors_release(out);
	return rc;
}
