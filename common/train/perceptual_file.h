/* perceptual_file.h - the frozen network of a perceptual loss, from one safetensors file.
 *
 * Convolutions are called as torchvision does, features.N.weight (out, in, 3, 3) and features.N.bias; the next one is N + 2 in the
 * same block, N + 3 behind a pooling. Heads are called as LPIPS does, linK.model.1.weight (1, channels, 1, 1), one for each block.
 * So VGG16 is a file of 26 + 5 tensors, and any other stack of that kind is one too: blocks and widths are what the file has.
 * Tensors of other names (classifier., scaling_layer.) are nobody's business. */
#ifndef LWM_TRAIN_PERCEPTUAL_FILE_H
#define LWM_TRAIN_PERCEPTUAL_FILE_H

#include "common/model/perceptual.h"

struct lwm_perceptual_file {
	struct lwm_perceptual_cfg cfg;
	float *values; /* as lwm_perceptual_tensors lays them out; owned */
	char hash[33]; /* of the file's bytes */
};
/* Local. values: they are wanted, and the hash; else the header alone is read. -LWM_ENOINPUT, -LWM_EDATA with what is wrong in the
 * file, -LWM_EMEMORY. Released after a failure, too. */
int lwm_perceptual_read(struct lwm_perceptual_file *f, const char *path, bool values, struct lwm_err *e);
void lwm_perceptual_release(struct lwm_perceptual_file *f);

#endif
