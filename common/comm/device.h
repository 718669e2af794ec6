/* device.h - the device a tool computes on, by its --device option; kernel results as our errors; sizes of buffers. */
#ifndef LWM_COMM_DEVICE_H
#define LWM_COMM_DEVICE_H

#include <stdint.h>

#include "common/base/err.h"
#include "kernels/kernels.h"

/* All calls are local. spec: "cpu", "ref", "cuda:N", "cuda": the GPU of lwm_device_gpu, or "auto": the same where there is a GPU,
 * else the CPU. Closed with lk_dev_close. Where the scheduler gave GPUs (common/base/launch.h) and none can be used, auto is
 * refused, with the reason: whoever wants the CPU there says so. Logs what was chosen and any warning (a BLAS that does not know
 * this CPU). threads 0: all the process may use. -LWM_EUNAVAIL with the reason. */
int lwm_device_open(struct lk_dev **out, const char *spec, int64_t threads, struct lwm_err *e);

/* Of weights and activations in the device's memory. auto: the device's own, fp32 on CPUs and bf16 on GPUs. */
enum lwm_dtype { LWM_DTYPE_AUTO, LWM_DTYPE_FP32, LWM_DTYPE_BF16, LWM_DTYPE_FP16 };
extern const char *const lwm_dtype_names[]; /* auto fp32 bf16 fp16, for option tables */
/* The same of a device that computes in that. -LWM_ECONFIG: it does not; with auto never. */
int lwm_device_open_as(struct lk_dev **out, const char *spec, enum lwm_dtype dtype, int64_t threads, struct lwm_err *e);

/* One rank, one GPU: which of the `gpus` that this process sees is its own, by its number among the processes of its node, as
 * mpirun, srun and others tell it (OMPI_COMM_WORLD_LOCAL_RANK, MPI_LOCALRANKID, PMI_LOCAL_RANK, MV2_COMM_WORLD_LOCAL_RANK,
 * PALS_LOCAL_RANKID, SLURM_LOCALID). Where the scheduler lets each process see GPUs of its own (CUDA_VISIBLE_DEVICES names one,
 * or SLURM_GPUS_PER_TASK is set), one of those. -LWM_EUNAVAIL when there are more ranks than GPUs. */
int lwm_device_gpu(int gpus, int *index, struct lwm_err *e);

/* 0, or the failure of the last kernel call as a sentence. */
int lwm_dev_check(struct lk_dev *dev, int status, struct lwm_err *e);

/* Every buffer starts at a multiple of 64 bytes. */
static inline int64_t lwm_round64(int64_t bytes)
{
	return (bytes + 63) / 64 * 64;
}

#endif
