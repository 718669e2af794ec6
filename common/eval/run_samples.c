/* run_samples.c - what run_samples.h says. */
#include "common/eval/run_samples.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/path.h"
#include "common/eval/html.h"

enum { MAX_SHOWN = 1 << 16, MAX_FILE = 1 << 24 };

static void add_text(struct lwm_str *page, const char *data, size_t n, const char *caption)
{
	lwm_html_add_paragraph(page, caption);
	lwm_str_puts(page, "<pre>");
	lwm_html_add_bytes(page, data, n < MAX_SHOWN ? n : MAX_SHOWN);
	lwm_str_puts(page, n < MAX_SHOWN ? "</pre>\n" : "\n...</pre>\n");
}

static int add_file(struct lwm_str *page, const char *path, const char *caption, struct lwm_err *e)
{
	char *data;
	size_t n;
	int rc = 0;

	LWM_TRY(lwm_read_file(path, MAX_FILE, &data, &n, e));
	if (lwm_path_has_suffix(path, ".txt"))
		add_text(page, data, n, caption);
	else
		rc = lwm_html_add_picture(page, path, data, n, caption, e);
	free(data);
	return rc;
}

/* Names come from a file that anybody may have written: nothing else of the disk gets into a page. */
static bool is_sample(const char *file)
{
	return !strncmp(file, "samples/", 8) && lwm_name_is_plain(file + 8) &&
	       (lwm_path_has_suffix(file, ".txt") || lwm_path_has_suffix(file, ".png"));
}

static int add_sample(struct lwm_str *page, const char *name, const char *dir, const struct lwm_run_sample *s, struct lwm_err *e)
{
	char *path = lwm_path_join(dir, s->file);
	struct lwm_str caption = { 0 };
	int rc = path ? 0 : lwm_fail_memory(e, NULL);

	lwm_str_printf(&caption, "%s, step %.0f: %s", name, s->step, s->what);
	if (rc == 0 && !is_sample(s->file))
		rc = lwm_fail(e, LWM_EDATA, "%s/metrics.jsonl: '%s' is no .png or .txt in samples/", dir, s->file);
	if (rc == 0 && !lwm_path_exists(path)) {
		lwm_str_puts(&caption, " (the file is missing)");
		lwm_html_add_paragraph(page, lwm_str_get(&caption));
	} else if (rc == 0) {
		rc = add_file(page, path, lwm_str_get(&caption), e);
	}
	lwm_str_release(&caption);
	free(path);
	return rc;
}

int lwm_run_samples_add(struct lwm_str *page, const char *name, const char *dir, const struct lwm_run_series *s, struct lwm_err *e)
{
	const int64_t at[] = { 0, (s->nsamples - 1) / 2, s->nsamples - 1 };

	for (int i = 0; i < 3 && s->nsamples; i++)
		if (i == 0 || at[i] != at[i - 1])
			LWM_TRY(add_sample(page, name, dir, &s->sample[at[i]], e));
	return 0;
}
