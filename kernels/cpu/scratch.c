/* scratch.c - the one block of working memory of a cpu device: all its ops share it, it grows to the largest request and stays.
 *
 * While a size is being asked for (lk_cpu_sizing), requests are only recorded: an op that asks for its scratch before it does
 * anything else then says how much it would take, and computes nothing. */
#include <stdlib.h>

#include "kernels/cpu/cpu_int.h"

void *lk_cpu_scratch(struct lk_dev *dev, size_t bytes)
{
	struct lk_cpu *cpu = dev->impl;
	size_t whole = (bytes + 4095) / 4096 * 4096;

	if (whole < bytes)
		return NULL;
	if (cpu->sizing) {
		*cpu->sizing = whole > *cpu->sizing ? whole : *cpu->sizing;
		return NULL;
	}
	if (whole > cpu->scratch_bytes) {
		free(cpu->scratch);
		cpu->scratch = aligned_alloc(4096, whole);
		cpu->scratch_bytes = cpu->scratch ? whole : 0;
	}
	return cpu->scratch;
}

void lk_cpu_sizing(struct lk_dev *dev, size_t *most)
{
	*most = 0;
	lk_cpu_of(dev)->sizing = most;
}

void lk_cpu_sized(struct lk_dev *dev)
{
	lk_cpu_of(dev)->sizing = NULL;
	dev->err[0] = 0; // that there was no scratch is no failure here
}
