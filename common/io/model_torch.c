/* Weights in files of torch.save (pytorch_model.bin): they are read, never written. */
#include "common/io/model_int.h"
#include "common/io/torchfile.h"

static const char suffix[] = ".bin";

static int open_one(void **out, const char *path, struct lwm_err *e)
{
	struct lwm_torch *t = NULL;
	int rc = lwm_torch_open(&t, path, e);
	*out = t;
	return rc;
}

static void close_one(void *p)
{
	lwm_torch_close(p);
}

static int64_t count_one(const void *p)
{
	return lwm_torch_count(p);
}

static const struct lwm_st_tensor *tensor_of_one(const void *p, int64_t i)
{
	return lwm_torch_tensor(p, i);
}

static int read_one(void *p, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	return lwm_torch_read(p, i, offset, n, out, e);
}

static int check_one(void *p, struct lwm_err *e)
{
	return lwm_torch_check(p, e);
}

static const struct lwm_weight_file files = {
	.suffix = suffix,
	.names = { "pytorch_model.bin", "diffusion_pytorch_model.bin" },
	.open = open_one,
	.close = close_one,
	.count = count_one,
	.tensor = tensor_of_one,
	.read = read_one,
	.check = check_one,
};

static bool lies_in(const char *dir)
{
	return lwm_folder_lies_in(dir, &files);
}

static int open_weights(void **out, const struct lwm_model_place *from, struct lwm_err *e)
{
	return lwm_folder_open(out, &files, from, e);
}

const struct lwm_model_format lwm_model_torch = {
	.name = "pytorch",
	.suffix = suffix,
	.lies_in = lies_in,
	.open = open_weights,
	.close = lwm_folder_close,
	.count = lwm_folder_count,
	.tensor = lwm_folder_tensor,
	.read = lwm_folder_read,
	.check = lwm_folder_check,
};
