/* model_int.h - inside common/io: how tensors change between memory and disk. */
#ifndef LWM_IO_MODEL_INT_H
#define LWM_IO_MODEL_INT_H

#include "common/io/model.h"

#define LWM_MODEL_MANIFEST "manifest.json"
#define LWM_MODEL_SCHEMA "lwm-model-1"

enum lwm_change { LWM_SAME, LWM_QK /* rows of each head */, LWM_CONV /* OIHW on disk, (kh,kw,cin,cout) in memory */ };

/* What happens to a tensor of this name and shape (either layout); *head gets the rows per head. vqgan: kind is
 * "vqgan". */
int lwm_change_of(const char *name, int ndim, const int64_t *shape, bool vqgan, const json_t *config,
		  enum lwm_change *how, int64_t *head, const char *where, struct lwm_err *e);
/* conv: shape[4] of the memory layout (kh, kw, cin, cout) */
void lwm_conv_to_disk(const float *mem, const int64_t shape[4], float *disk);
void lwm_conv_to_memory(const float *disk, const int64_t shape[4], float *mem);
bool lwm_model_is_vqgan(const json_t *config);
/* "model" or "diffusion_pytorch_model" */
const char *lwm_model_stem(bool vqgan);

#endif
