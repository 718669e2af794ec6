/* The kinds of models that a folder may hold. To add one: its line at the end of the table; how its tensors change between memory
 * and disk is model_layout.c's. */
#include <string.h>

#include "common/io/model_int.h"

/* The first one is what a configuration that names no class is of, and what a kind that is not known here is written as. */
static const struct lwm_model_kind kinds[] = {
	{ .name = "lwm", .stem = "model", .dtype = LWM_ST_BF16, .reads_text = true, .rotary_rows = true },
	{ .name = "vqgan", .stem = "diffusion_pytorch_model", .class_name = "VQModel", .dtype = LWM_ST_F32, .convolutions = true },
	{ .name = "trunk", .stem = "model", .class_name = "LwmTrunk", .dtype = LWM_ST_BF16, .rotary_rows = true },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

const struct lwm_model_kind *lwm_model_kind_at(int i)
{
	return i < KINDS ? &kinds[i] : NULL;
}

const struct lwm_model_kind *lwm_model_kind_named(const char *name)
{
	for (int i = 0; i < KINDS; i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return &kinds[0];
}

const struct lwm_model_kind *lwm_model_kind_of(const json_t *config)
{
	const char *name = json_string_value(json_object_get(config, "_class_name"));
	for (int i = 0; name && i < KINDS; i++)
		if (kinds[i].class_name && !strcmp(kinds[i].class_name, name))
			return &kinds[i];
	return &kinds[0];
}
