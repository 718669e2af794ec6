/* world_batch.c - names, the record of a folder, the loop over clips. */
#include "common/eval/world_batch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/outfile.h"
#include "common/base/progress.h"
#include "common/base/stop.h"
#include "common/base/str.h"

enum { LONGEST_RECORD = 1 << 28 };

/* ---- names ---- */

/* DIR/STEM.mp4, or of several samples DIR/STEM-k.mp4. */
static int name_in_folder(char **out, const char *dir, const char *input, int64_t k, int64_t samples, struct lwm_err *e)
{
	const char *base = lwm_path_base(input), *dot = strrchr(base, '.');
	struct lwm_str s = { 0 };

	lwm_str_printf(&s, "%s/", dir);
	lwm_str_add(&s, base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
	if (samples > 1)
		lwm_str_printf(&s, "-%" PRId64, k);
	lwm_str_puts(&s, ".mp4");
	*out = s.s;
	return lwm_str_ok(&s, e);
}

static int add_output(struct lwm_world_batch *b, const char *name, struct lwm_err *e)
{
	for (int64_t i = 0; i < b->out.n; i++)
		if (!strcmp(b->out.v[i], name))
			return lwm_fail(e, LWM_EUSAGE, "%s: would be drawn from %s and from %s", name, b->in.v[i / b->samples],
					b->in.v[b->out.n / b->samples]);
	return lwm_paths_add(&b->out, name, e);
}

int lwm_world_list(struct lwm_world_batch *b, const struct lwm_paths *inputs, const char *output, const char *out_dir,
		   struct lwm_err *e)
{
	for (int64_t i = 0; i < inputs->n; i++)
		LWM_TRY(lwm_paths_expand(&b->in, inputs->v[i], lwm_media_suffixes, e));
	if (output && b->in.n > 1)
		return lwm_fail(e, LWM_EUSAGE, "%" PRId64 " inputs and one --output: --out-dir takes several", b->in.n);
	for (int64_t i = 0; i < b->in.n * b->samples && (output || out_dir); i++) {
		char *name = NULL;
		int rc = output ? lwm_drawn_name(&name, output, i, b->samples, e)
				: name_in_folder(&name, out_dir, b->in.v[i / b->samples], i % b->samples, b->samples, e);

		if (rc == 0)
			rc = add_output(b, name, e);
		free(name);
		LWM_TRY(rc);
	}
	return 0;
}

void lwm_world_release(struct lwm_world_batch *b)
{
	lwm_world_unset(&b->w);
	lwm_paths_release(&b->in);
	lwm_paths_release(&b->out);
}

/* ---- the record of a folder ---- */

static int compare_record(const char *record, const char *want, const char *dir, struct lwm_err *e)
{
	char *have;
	size_t n;

	LWM_TRY(lwm_read_file(record, LONGEST_RECORD, &have, &n, e));
	bool same = !strcmp(have, want);
	free(have);
	return same ? 0 : lwm_fail(e, LWM_ECANTCREATE, "%s: holds clips that were drawn with other settings or from other inputs (use --force "
				   "to replace them)", dir);
}

static int add_settings(const struct lwm_world_batch *b, json_t *o, struct lwm_err *e)
{
	const struct lwm_roll *r = &b->w.roll;
	json_t *mine = json_pack("{s:o,s:I,s:I,s:I,s:I,s:s,s:f,s:f,s:I,s:f,s:f,s:I,s:I,s:I}", "inputs", lwm_json_strings(b->in.v, b->in.n),
				 "rounds", (json_int_t)r->rounds, "frames", (json_int_t)r->frames, "overlap", (json_int_t)r->overlap,
				 "given", (json_int_t)b->w.frames.max_frames, "guidance_over", lwm_guide_overs[r->over], "guidance",
				 r->guide, "temperature", r->sampler.temperature, "top_k", (json_int_t)r->sampler.top_k, "top_p",
				 r->sampler.top_p, "fps", b->how.fps, "width", (json_int_t)b->how.width, "height", (json_int_t)b->how.height, "samples",
				 (json_int_t)b->samples);
	int rc = o && mine && json_object_update(o, mine) == 0 ? 0 : lwm_fail_memory(e, NULL);

	json_decref(mine);
	return rc;
}

int lwm_world_claim(struct lwm_world_batch *b, const char *dir, json_t *settings, struct lwm_err *e)
{
	char *record = lwm_path_join(dir, "world.json");
	struct lwm_str want = { 0 };
	int rc = record ? 0 : lwm_fail_memory(e, NULL);

	LWM_GO(rc);
	LWM_GO(add_settings(b, settings, e));
	LWM_GO(lwm_json_text(settings, &want, e));
	LWM_GO(lwm_mkdirs(dir, e));
	rc = b->how.force ? 0 : lwm_path_there(record, e);
	b->resumed = rc == 1;
	if (rc == 1)
		rc = compare_record(record, lwm_str_get(&want), dir, e);
	else if (rc == 0)
		rc = lwm_write_file(record, lwm_str_get(&want), want.len, b->how.force, e);
out:
	json_decref(settings);
	lwm_str_release(&want);
	free(record);
	return rc;
}

/* ---- clips ---- */

static int draw_one(struct lwm_world_batch *b, int64_t i, int32_t *codes, struct lwm_err *e)
{
	int64_t frames = lwm_roll_frames(&b->w.roll);

	if (lwm_stop_wanted() >= LWM_STOP_END)
		return lwm_fail(e, LWM_ESAVED, "stopped (%s) after %" PRId64 " of %" PRId64 " clips, which are kept: run me again",
				lwm_stop_reason(), i, b->out.n);
	if (b->resumed && lwm_path_exists(b->out.v[i]))
		return 0;
	LWM_TRY(lwm_world_draw(&b->w, b->in.v[i / b->samples], (uint64_t)i, codes, NULL, NULL, NULL, e));
	LWM_TRY(lwm_drawn_write(&b->how, b->out.v[i], codes, frames, e));
	return b->made ? b->made(b->arg, b->out.v[i], frames, i, e) : 0;
}

int lwm_world_draw_all(struct lwm_world_batch *b, struct lwm_err *e)
{
	int64_t frames = lwm_roll_frames(&b->w.roll);
	int32_t *codes = malloc((size_t)(frames * b->w.roll.frame_codes) * sizeof *codes);
	struct lwm_progress p;
	int rc = codes ? 0 : lwm_fail(e, LWM_EMEMORY, "no memory for %" PRId64 " frames", frames);

	lwm_progress_begin(&p, "drawing", "clips", b->out.n);
	for (int64_t i = 0; i < b->out.n && rc == 0; i++) {
		rc = draw_one(b, i, codes, e);
		lwm_progress_at(&p, i + 1);
	}
	lwm_progress_end(&p);
	free(codes);
	return rc;
}
