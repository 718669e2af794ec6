/* torchfile.h - inside common/io: tensors by name in a file of torch.save (.bin, .pt, .pth, .ckpt), without Python.
 *
 *	lwm_torch_open(&t, path, e)
 *	lwm_torch_tensor(t, i)                     name, type, shape
 *	lwm_torch_read(t, i, offset, n, out, e)    values as fp32, row-major, whatever strides they are stored with
 *	lwm_torch_check(t, e), lwm_torch_close(t)
 *
 * Both forms: the ZIP archive that is written since PyTorch 1.6, and the pickles one after the other from before. The object is a
 * dict of tensors by name, or has one under "state_dict", "module" or "model", as Lightning, DeepSpeed and training scripts leave it;
 * "module." and the like before all names are taken off. Other objects beside the tensors are ignored, and nothing is executed (pickle.h).
 * TorchScript, big-endian files and types that are no numbers of C are refused.
 *
 * Source: torch/serialization.py, torch/_utils.py of PyTorch 2.6. Errors: -LWM_ENOINPUT, -LWM_EDATA, -LWM_EMEMORY. Local calls; one
 * thread per handle; what is returned is borrowed.
 */
#ifndef LWM_IO_TORCHFILE_H
#define LWM_IO_TORCHFILE_H

#include "common/io/safetensors.h"

struct lwm_torch;
/* Reads names and places alone. */
int lwm_torch_open(struct lwm_torch **out, const char *path, struct lwm_err *e);
void lwm_torch_close(struct lwm_torch *t); /* NULL is fine */
const char *lwm_torch_path(const struct lwm_torch *t);
int64_t lwm_torch_count(const struct lwm_torch *t);
const struct lwm_st_tensor *lwm_torch_tensor(const struct lwm_torch *t, int64_t i);
/* Values offset .. offset+n-1 of the flattened tensor. Of one that does not lie row-major, all that it spans is held in memory
 * until another one is read. */
int lwm_torch_read(struct lwm_torch *t, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e);
/* Every byte against the archive's CRC-32. -LWM_ENO: the file carries none. */
int lwm_torch_check(struct lwm_torch *t, struct lwm_err *e);

#endif
