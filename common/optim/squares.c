/* squares.c - exact sums of squares, by exponent. */
#include "common/optim/squares.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SPECIAL = 255, HALF = 24 };

void lwm_squares_add(struct lwm_squares *s, const float *x, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		uint32_t bits, exponent;
		uint64_t m, square;

		memcpy(&bits, &x[i], sizeof bits);
		exponent = bits >> 23 & 0xff;
		m = bits & 0x7fffff;
		if (exponent == SPECIAL) {
			m ? s->low[SPECIAL]++ : s->high[SPECIAL]++;
			continue;
		}
		m |= (uint64_t)(exponent > 0) << 23;
		square = m * m;
		exponent += !exponent; /* without the hidden bit, of the smallest exponent */
		s->high[exponent] += square >> HALF;
		s->low[exponent] += square & ((1 << HALF) - 1);
	}
}

int lwm_squares_gather(struct lwm_squares *s, struct lwm_comm *c, struct lwm_err *e)
{
	int size = lwm_comm_size(c);
	struct lwm_squares *all = size > 1 ? malloc((size_t)size * sizeof *all) : NULL;
	int rc = 0;

	if (size == 1)
		return 0;
	rc = lwm_agree(c, all ? 0 : lwm_fail_memory(e, NULL), e);
	if (rc == 0)
		rc = lwm_comm_allgather(c, s, sizeof *s, all, e);
	for (int r = 0; r < size && rc == 0; r++)
		for (int i = 0; i <= SPECIAL; i++) {
			s->high[i] = all[r].high[i] + (r ? s->high[i] : 0);
			s->low[i] = all[r].low[i] + (r ? s->low[i] : 0);
		}
	free(all);
	return rc;
}

double lwm_squares_total(const struct lwm_squares *s)
{
	double sum = 0;

	if (s->low[SPECIAL])
		return NAN;
	if (s->high[SPECIAL])
		return INFINITY;
	for (int i = 1; i < SPECIAL; i++)
		sum += ldexp(ldexp((double)s->high[i], HALF) + (double)s->low[i], 2 * i - 300);
	return sum;
}
