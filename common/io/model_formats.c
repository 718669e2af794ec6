/* The formats that a model's weights may lie in, and which of them a path is of. */
#include <string.h>

#include "common/base/path.h"
#include "common/io/model_int.h"

/* In the order in which a folder that has several is read. The first one is written, and what is of no format that is known is
 * opened as it, to say what is missing. */
static const struct lwm_model_format *const formats[] = {
	&lwm_model_safetensors,
	&lwm_model_torch,
	&lwm_model_vqpickle,
	&lwm_model_stream,
};
enum { FORMATS = sizeof formats / sizeof *formats };

bool lwm_model_is_file(const struct lwm_model_format *f, const char *path)
{
	return f->is_file ? f->is_file(path) : f->suffix && lwm_path_has_suffix(path, f->suffix);
}

const struct lwm_model_format *lwm_model_format_of(const char *path)
{
	for (int i = 0; i < FORMATS; i++)
		if (lwm_model_is_file(formats[i], path) || formats[i]->lies_in(path))
			return formats[i];
	return formats[0];
}

const struct lwm_model_format *lwm_model_format_to_write(const char *name, struct lwm_err *e)
{
	for (int i = 0; i < FORMATS; i++)
		if ((!name || !strcmp(formats[i]->name, name)) && formats[i]->create)
			return formats[i];
	lwm_fail(e, LWM_ECONFIG, "models cannot be written as '%s'", name);
	return NULL;
}

bool lwm_model_is_weights(const char *name)
{
	for (int i = 0; i < FORMATS; i++)
		if (formats[i]->suffix && lwm_path_has_suffix(name, formats[i]->suffix))
			return true;
	return false;
}

bool lwm_model_lies_in(const char *dir)
{
	for (int i = 0; i < FORMATS; i++)
		if (formats[i]->lies_in(dir) || (formats[i]->is_file && formats[i]->is_file(dir)))
			return true;
	return false;
}
