/* samples.c - what samples.h says. */
#include "common/train/samples.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/outfile.h"
#include "common/media/picture.h"
#include "common/base/path.h"

enum { SMALL = 64 /* pixels of a side: pictures become at least so wide, by whole multiples */, GAP = 2 };

void lwm_samples_release(struct lwm_samples *m)
{
	lwm_str_release(&m->bytes);
	lwm_str_release(&m->what);
}

bool lwm_samples_due(const struct lwm_stage *s, int64_t step)
{
	return s->sample_every && step % s->sample_every == 0 && step < s->steps;
}

int lwm_samples_sheet(struct lwm_samples *m, const uint8_t *rgb, int64_t rows, int64_t columns, int64_t width, int64_t height,
		      struct lwm_err *e)
{
	int zoom = width < SMALL ? (int)((SMALL + width - 1) / width) : 1;
	struct lwm_sheet s;
	int rc;

	m->suffix = "png";
	LWM_TRY(lwm_sheet_init(&s, (int)columns, (int)rows, (int)width * zoom, (int)height * zoom, GAP, e));
	for (int64_t i = 0; i < rows * columns; i++)
		lwm_sheet_put(&s, (int)(i % columns), (int)(i / columns), rgb + i * width * height * 3, zoom);
	rc = lwm_png_encode(&m->bytes, s.rgb, s.width, s.height, e);
	lwm_sheet_release(&s);
	return rc;
}

int lwm_samples_write(const struct lwm_stage *s, int64_t step, const struct lwm_samples *m, char name[LWM_SAMPLES_NAME],
		      struct lwm_err *e)
{
	char *dir = lwm_path_join(s->out, "samples"), *path;
	int rc = lwm_str_ok(&m->bytes, e);

	snprintf(name, LWM_SAMPLES_NAME, "samples/step-%08" PRId64 ".%s", step, m->suffix);
	path = lwm_path_join(s->out, name);
	if (rc == 0 && (!dir || !path))
		rc = lwm_fail_memory(e, "the name of a sample");
	if (rc == 0)
		rc = lwm_mkdirs(dir, e);
	if (rc == 0)
		rc = lwm_write_file(path, m->bytes.s, m->bytes.len, true, e);
	free(dir);
	free(path);
	return rc;
}
