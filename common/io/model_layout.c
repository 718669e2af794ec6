/* model_layout.c - how tensors change between memory and disk: rows of q and k in rotary order, axes of convolutions. */
#include <inttypes.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/path.h"
#include "common/io/model_int.h"

static int head_rows(const json_t *config, int64_t *head, const char *where, struct lwm_err *e)
{
	int64_t hidden, heads;
	if (json_is_integer(json_object_get(config, "head_dim"))) {
		*head = json_integer_value(json_object_get(config, "head_dim"));
	} else {
		LWM_TRY(lwm_json_int(config, "hidden_size", &hidden, where, e));
		LWM_TRY(lwm_json_int(config, "num_attention_heads", &heads, where, e));
		*head = heads > 0 ? hidden / heads : 0;
	}
	if (*head < 2 || *head % 2)
		return lwm_fail(e, LWM_EDATA, "%s: heads of %" PRId64 " rows have no rotary pairs", where, *head);
	return 0;
}

int lwm_change_of(const char *name, int ndim, const int64_t *shape, const struct lwm_model_kind *kind, const json_t *config,
		  enum lwm_change *how, int64_t *head, const char *where, struct lwm_err *e)
{
	*how = LWM_SAME;
	*head = 0;
	if (kind->convolutions && ndim == 4)
		*how = LWM_CONV;
	if (!kind->rotary_rows || *how == LWM_CONV)
		return 0;
	if (!lwm_path_has_suffix(name, ".self_attn.q_proj.weight") &&
	    !lwm_path_has_suffix(name, ".self_attn.k_proj.weight"))
		return 0;
	LWM_TRY(head_rows(config, head, where, e));
	if (ndim != 2 || shape[0] % *head)
		return lwm_fail(e, LWM_EDATA,
				"%s: the rows of '%s' are no multiple of the %" PRId64 " rows of a head", where, name,
				*head);
	*how = LWM_QK;
	return 0;
}

void lwm_conv_to_disk(const float *mem, const int64_t shape[4], float *disk)
{
	int64_t area = shape[0] * shape[1], in = shape[2], out = shape[3];
	for (int64_t o = 0; o < out; o++)
		for (int64_t c = 0; c < in; c++)
			for (int64_t k = 0; k < area; k++)
				disk[(o * in + c) * area + k] = mem[(k * in + c) * out + o];
}

void lwm_conv_to_memory(const float *disk, const int64_t shape[4], float *mem)
{
	int64_t area = shape[0] * shape[1], in = shape[2], out = shape[3];
	for (int64_t o = 0; o < out; o++)
		for (int64_t c = 0; c < in; c++)
			for (int64_t k = 0; k < area; k++)
				mem[(k * in + c) * out + o] = disk[(o * in + c) * area + k];
}
