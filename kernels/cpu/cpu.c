/* cpu.c - opens the cpu device: instruction set, threads, BLAS. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/cpu/dense_int.h"

static const char *const isa_names[LK_ISA_COUNT] = { "base", "avx2", "avx512" };

static enum lk_isa best_isa(void)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
		return LK_ISA_AVX512;
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
		return LK_ISA_AVX2;
#endif
	return LK_ISA_BASE;
}

/* LWM_ISA asks for less than the processor has: for tests, and to compare results across machines. */
static int choose_isa(enum lk_isa *out, char *why, size_t n)
{
	const char *wish = getenv("LWM_ISA");

	*out = best_isa();
	if (!wish || !*wish)
		return 0;
	for (int i = 0; i <= (int)*out; i++) {
		if (strcmp(wish, isa_names[i]) == 0) {
			*out = (enum lk_isa)i;
			return 0;
		}
	}
	snprintf(why, n, "LWM_ISA is \"%s\", but this processor and build offer base up to %s", wish, isa_names[*out]);
	return LK_EUNSUP;
}

/* The sentence for a BLAS whose kernels are far below the processor. */
static void warn_slow_blas(struct lk_dev *dev, const char *core)
{
	static const char *const slow[] = { "Prescott", "Core2", "Katmai", "Coppermine", "Northwood", "Banias", "Atom",
					    "Dunnington", "Penryn", "Nehalem", "Athlon", "Opteron", "Barcelona",
					    "Bobcat", "Nano", "generic", "Generic" };
	static const char *const avx2[] = { "Haswell", "Zen", "Excavator", "Sandybridge", "Bulldozer", "Piledriver",
					    "Steamroller" };
	const char *better = NULL;

	for (size_t i = 0; i < sizeof slow / sizeof *slow; i++)
		if (best_isa() >= LK_ISA_AVX2 && strncmp(core, slow[i], strlen(slow[i])) == 0)
			better = best_isa() == LK_ISA_AVX512 ? "SkylakeX" : "Haswell";
	for (size_t i = 0; i < sizeof avx2 / sizeof *avx2; i++)
		if (best_isa() == LK_ISA_AVX512 && strncmp(core, avx2[i], strlen(avx2[i])) == 0)
			better = "SkylakeX";
	if (better)
		snprintf(dev->warning, sizeof dev->warning,
			 "OpenBLAS uses its %s kernels although this processor has %s: set OPENBLAS_CORETYPE=%s or "
			 "unset it, matrix products are several times slower",
			 core, best_isa() == LK_ISA_AVX512 ? "AVX-512" : "AVX2", better);
	else if (!*core)
		snprintf(dev->warning, sizeof dev->warning,
			 "the BLAS is not OpenBLAS: matrix products may be slow; libopenblas-openmp is the one to install");
}

static void cpu_close(struct lk_dev *dev)
{
	struct lk_cpu *cpu = dev->impl;

	free(cpu->scratch);
	lk_rope_free(cpu->rope);
	free(cpu);
}

static struct lk_cpu *cpu_impl(struct lk_dev *dev, enum lk_isa isa, lk_sgemm_fn *sgemm)
{
	struct lk_cpu *cpu = calloc(1, sizeof *cpu);

	if (!cpu)
		return NULL;
	cpu->isa = isa;
	cpu->threads = dev->threads;
	cpu->sgemm = sgemm;
	dev->impl = cpu;
	return cpu;
}

/* The child shares nothing that a call writes to: scratch and the angles of rope are its own. */
static int cpu_fork(struct lk_dev *child, struct lk_dev *parent)
{
	const struct lk_cpu *from = parent->impl;

	if (!cpu_impl(child, from->isa, from->sgemm))
		return lk_fail(child, LK_ENOMEM, "fork: out of memory");
	return 0;
}

static int default_threads(void)
{
	int wish = omp_get_max_threads(), cores = omp_get_num_procs(); // OMP_NUM_THREADS; the affinity mask

	return wish < cores ? wish : cores;
}

static void fill_ops(struct lk_ops *o)
{
	lk_ref_fill(o);
	o->device.close = cpu_close;
	o->device.fork = cpu_fork;
	lk_cpu_fill_matmul(o);
	lk_cpu_fill_vector(o);
	lk_cpu_fill_norm(o);
	lk_cpu_fill_rope(o);
	lk_cpu_fill_embed(o);
	lk_cpu_fill_loss(o);
	lk_cpu_fill_attn(o);
	lk_cpu_fill_conv(o);
	lk_cpu_fill_groupnorm(o);
	lk_cpu_fill_code(o);
	lk_cpu_fill_feature(o);
}

int lk_cpu_open(struct lk_dev *dev, int index, int threads, char *why, size_t n)
{
	lk_sgemm_fn *sgemm;
	const char *core;
	enum lk_isa isa;
	int rc = choose_isa(&isa, why, n);

	(void)index;
	if (!rc)
		rc = lk_blas_open(&sgemm, &core, why, n);
	if (rc)
		return rc;
	dev->dtype = LK_F32;
	dev->threads = threads ? threads : default_threads();
	dev->is_host = 1;
	if (!cpu_impl(dev, isa, sgemm)) {
		snprintf(why, n, "out of memory");
		return LK_ENOMEM;
	}
	snprintf(dev->name, sizeof dev->name, "cpu (%s, %s%s, %d thread%s)", isa_names[isa],
		 *core ? "OpenBLAS " : "BLAS", core, dev->threads, dev->threads == 1 ? "" : "s");
	warn_slow_blas(dev, core);
	lk_dense_hot_fill(isa);
	fill_ops(&dev->ops);
	return 0;
}
