/* dense_hot.c - the inner loops of the dense ops, one table for each instruction set.
 *
 * A table is filled when the first device that needs it is opened: filling it is code of that instruction set already. */
#include <pthread.h>

#include "kernels/cpu/dense_int.h"

static pthread_mutex_t hot_lock = PTHREAD_MUTEX_INITIALIZER;
static struct lk_dense_hot hot_tables[LK_ISA_COUNT];

void lk_dense_hot_fill(enum lk_isa isa)
{
	pthread_mutex_lock(&hot_lock);
	if (!hot_tables[isa].axpy) {
		LK_PICK(lk_vector_hot, isa)(&hot_tables[isa]);
		LK_PICK(lk_norm_hot, isa)(&hot_tables[isa]);
		LK_PICK(lk_loss_hot, isa)(&hot_tables[isa]);
		LK_PICK(lk_gemv_hot, isa)(&hot_tables[isa]);
	}
	pthread_mutex_unlock(&hot_lock);
}

const struct lk_dense_hot *lk_dense_hot_of(const struct lk_dev *dev)
{
	return &hot_tables[((const struct lk_cpu *)dev->impl)->isa];
}
