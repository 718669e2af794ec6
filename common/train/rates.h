/* rates.h - what a rank's device and its links do in a second: of a table of GPUs, as a site says, or measured. For plans alone.
 *
 *	lwm_rates_of(&s->rates, gpu)                what the site or the user said, and for what was left 0 the GPU's figures
 *	lwm_rates_measure(&r, dev, world, e)        --calibrate: the same of the ranks that are here
 */
#ifndef LWM_TRAIN_RATES_H
#define LWM_TRAIN_RATES_H

#include "common/comm/comm.h"
#include "kernels/kernels.h"

/* Of one rank; 0: not known. */
struct lwm_rates {
	double products;     /* TFLOP/s of matrix products as a step has them */
	double attention;    /* TFLOP/s of attention: for each pair of tokens that see each other and each number of a head 4
			      * forward, 10 backward */
	double memory;       /* GB/s that arithmetic without products reads and writes */
	double node, net;    /* GB/s that a rank sends to others of its node, and to other nodes */
	double host;         /* GB/s between a GPU and its host's memory, one way */
	double disk;         /* GB/s that all ranks together write */
	double latency;      /* microseconds that an exchange takes whatever its size */
	int64_t node_ranks;  /* of a node; 0: all ranks are on one */
};

/* GPUs that plans know, for an option: the first is none of them. */
extern const char *const lwm_gpu_names[];
/* Pure. GiB of memory that a program finds free on it; 0 for none. */
int64_t lwm_gpu_gib(int gpu);
/* Pure. What is 0 in `said` is that of the GPU, if it is one. */
struct lwm_rates lwm_rates_of(const struct lwm_rates *said, int gpu);
/* Pure. Enough to tell the time of a step? */
bool lwm_rates_known(const struct lwm_rates *r);

/* COLLECTIVE over world; about a second. Fills what is 0 in *r by measuring on all ranks at once: products, attention forward and
 * backward, sums of vectors, each over and over for a quarter of a second, since ranks of a host share its cores (of a GPU's
 * products the fastest); an all-gather and a scattered sum of 8 MiB a rank, the smallest all-gather. All get those of the slowest
 * rank. Links of one node alone are measured (node; net where ranks are on several), host and disk are not. */
int lwm_rates_measure(struct lwm_rates *r, struct lk_dev *dev, struct lwm_comm *world, struct lwm_err *e);

#endif
