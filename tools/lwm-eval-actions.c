/* lwm-eval-actions - do drawn clips obey? A head learns from real clips which command leads from one frame to the next
 * (common/eval/inverse.h), and names the commands of clips it has not seen: real ones, to say how good it is, and drawn ones. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/cli/opt.h"
#include "common/comm/device.h"
#include "common/eval/inverse.h"
#include "common/infer/load.h"
#include "common/media/frames.h"

enum { LIMIT = 1 << 28, PER_PASS = 8 };

static struct {
	const char *vqgan, *device, *output, *action;
	struct lwm_paths train, heldout;
	double ridge, fps;
	bool older_ok;
} o = { .device = "auto", .ridge = 1e-3 };

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('m', "vqgan", &o.vqgan, "DIR", "frame tokenizer whose latents the head looks at", LWM_OPT_REQUIRED),
	LWM_OPT_OLDER(&o.older_ok),
	LWM_OPT_LIST(0, "train", &o.train, "CLIP", "real clips with records to learn from, folders of them", LWM_OPT_REQUIRED),
	LWM_OPT_LIST(0, "heldout", &o.heldout, "CLIP", "other real clips: how often the head itself is wrong", 0),
	LWM_OPT_STR('a', "action", &o.action, "ACTION", "of every step of the drawn clips; default: what their records say", 0),
	LWM_OPT_DOUBLE(0, "ridge", &o.ridge, 1e-12, 1e6, "X", "weight decay of the head, in mean squares of its inputs", 0),
	LWM_OPT_DOUBLE(0, "fps", &o.fps, 0, 1000, "X", "frames a second; 0: every frame", 0),
	LWM_OPT_DEVICE(&o.device),
	LWM_OPT_STR('o', "output", &o.output, "FILE", "the result as JSON; default: standard output", 0),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-eval-actions",
	.summary = "Learns from real clips to name the command of a step, and tells how often drawn clips show another one.",
	.operands = "CLIP...",
	.min_operands = 1,
	.max_operands = -1,
	.opts = opts,
	.details = "Beside a real clip NAME.mp4 lies NAME.json with its \"actions\", or its \"action\", as for lwm-vqgan-encode; steps without\n"
		   "a command are passed over. The error on --heldout is that of the head: an error on drawn clips which is not larger\n"
		   "says that they obey as well as real ones do. Exit code 0 whatever is found.",
	.examples = "  lwm-eval-actions -m vqgan --train drives --heldout heldout -a left drawn/left",
};

struct job {
	struct lk_dev *dev;
	struct lwm_vq vq;
	struct lwm_inverse head;
	float *z, *pooled, *x; /* latents of PER_PASS frames; pooled frames of a clip; a step */
	int64_t size;          /* numbers of a pooled frame */
	int32_t side;          /* of a frame, pixels */
};
struct tally {
	int64_t clips, steps, wrong;
	int64_t named[LWM_CMDS];
};

/* ---- actions ---- */

/* The object of NAME.json beside NAME.mp4. */
static int read_record(const char *path, json_t **out, struct lwm_err *e)
{
	const char *dot = strrchr(lwm_path_base(path), '.');
	struct lwm_str name = { 0 };
	lwm_str_add(&name, path, dot ? (size_t)(dot - path) : strlen(path));
	lwm_str_puts(&name, ".json");
	int rc = lwm_str_ok(&name, e);
	if (rc == 0)
		rc = lwm_json_read(out, name.s, LIMIT, e);
	lwm_str_release(&name);
	return rc;
}

/* What leads to frame t. record NULL: --action. */
static int action_of(const json_t *record, const char *path, int64_t t, int64_t frames, struct lwm_action *a, struct lwm_err *e)
{
	const json_t *list = json_object_get(record, "actions");
	if (!record)
		return lwm_action_parse(a, o.action, e);
	if (list && json_array_size(list) != (size_t)frames)
		return lwm_fail(e, LWM_EDATA, "%s: %" PRId64 " frames, and %zu actions beside it", path, frames, json_array_size(list));
	if (!list && !json_object_get(record, "action"))
		return lwm_fail(e, LWM_EDATA, "%s: no actions in the record beside it", path);
	int rc = lwm_action_read(a, list ? json_array_get(list, (size_t)t) : json_object_get(record, "action"), e);
	if (rc < 0)
		lwm_context(e, "%s: beside it, of frame %" PRId64, path, t);
	return rc;
}

/* ---- clips ---- */

/* Frames of a clip as pooled latents, in j->pooled, which grows. */
static int look_at(struct job *j, const char *path, int64_t *frames, struct lwm_err *e)
{
	const struct lwm_frames_opts how = { .fps = o.fps, .width = j->side, .height = j->side };
	int32_t factor = lwm_vqgan_factor(&j->vq.cfg), places = j->side / factor;
	uint8_t *rgb;
	float *more;
	int rc = 0;
	LWM_TRY(lwm_frames_read(path, &how, (int64_t)1 << 32, &rgb, frames, NULL, e));
	more = realloc(j->pooled, (size_t)(*frames * j->size) * sizeof *more);
	if (!more)
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "no memory for %" PRId64 " frames", *frames));
	j->pooled = more;
	for (int64_t at = 0; at < *frames; at += PER_PASS) {
		int64_t n = *frames - at < PER_PASS ? *frames - at : PER_PASS;
		LWM_GO(lwm_vqgan_latents(j->vq.net, rgb + at * j->side * j->side * 3, n, j->side, j->side, NULL, j->z, e));
		lwm_inverse_pool(j->z, n, places, places, j->vq.cfg.embed_dim, j->pooled + at * j->size);
	}
out:
	free(rgb);
	return rc;
}

/* Every step with a command goes into the head, or is named by it. */
static int take_clip(struct job *j, const char *path, bool real, bool learn, struct tally *t, struct lwm_err *e)
{
	json_t *record = NULL;
	int64_t frames;
	int rc = 0;
	if (real || !o.action)
		LWM_GO(read_record(path, &record, e));
	LWM_GO(look_at(j, path, &frames, e));
	t->clips++;
	for (int64_t i = 1; i < frames; i++) {
		struct lwm_action a = { 0 };
		LWM_GO(action_of(record, path, i, frames, &a, e));
		if (!(a.has & LWM_ACTION_BIT(LWM_ACTION_CMD)))
			continue;
		lwm_inverse_step(j->pooled + (i - 1) * j->size, j->pooled + i * j->size, j->size, j->x);
		t->steps++;
		if (learn) {
			lwm_inverse_add(&j->head, j->x, a.cmd);
			continue;
		}
		enum lwm_action_cmd said = lwm_inverse_name(&j->head, j->x);
		t->named[said]++;
		t->wrong += said != a.cmd;
	}
out:
	json_decref(record);
	return rc;
}

static int take_clips(struct job *j, const struct lwm_paths *clips, bool real, bool learn, struct tally *t, struct lwm_err *e)
{
	struct lwm_paths all = { 0 };
	int rc = 0;
	for (int64_t i = 0; i < clips->n && rc == 0; i++)
		rc = lwm_paths_expand(&all, clips->v[i], lwm_media_suffixes, e);
	for (int64_t i = 0; i < all.n && rc == 0; i++)
		rc = take_clip(j, all.v[i], real, learn, t, e);
	lwm_paths_release(&all);
	return rc;
}

/* ---- results ---- */

static json_t *tell(const struct tally *t)
{
	json_t *named = json_object();
	for (int c = 0; c < LWM_CMDS; c++)
		json_object_set_new(named, lwm_action_cmds[c], json_integer(t->named[c]));
	return json_pack("{s:I,s:I,s:I,s:f,s:o}", "clips", (json_int_t)t->clips, "steps", (json_int_t)t->steps, "wrong",
			 (json_int_t)t->wrong, "error", t->steps ? (double)t->wrong / (double)t->steps : 0.0, "named", named);
}

static int write_result(const struct tally *learnt, const struct tally *held, const struct tally *drawn, bool force,
			struct lwm_err *e)
{
	json_t *v = json_pack("{s:{s:I,s:I},s:o,s:o}", "train", "clips", (json_int_t)learnt->clips, "steps", (json_int_t)learnt->steps,
			      "heldout", tell(held), "drawn", tell(drawn));
	if (o.output && v) {
		int rc = lwm_json_write(v, o.output, force, e);
		json_decref(v);
		return rc;
	}
	return lwm_tool_json(v, e);
}

static int open_all(struct job *j, int64_t threads, struct lwm_err *e)
{
	LWM_TRY(lwm_device_open(&j->dev, o.device, threads, e));
	LWM_TRY(lwm_vq_open(&j->vq, o.vqgan, o.older_ok, PER_PASS, j->dev, e));
	int64_t features = lwm_inverse_features(&j->vq.cfg);
	j->side = j->vq.cfg.resolution;
	j->size = (features - 1) / 2;
	j->z = malloc((size_t)(PER_PASS * lwm_vqgan_codes(&j->vq.cfg, j->side, j->side) * j->vq.cfg.embed_dim) * sizeof *j->z);
	j->x = malloc((size_t)features * sizeof *j->x);
	if (!j->z || !j->x)
		return lwm_fail(e, LWM_EMEMORY, "no memory for latents");
	return lwm_inverse_init(&j->head, features, e);
}

static void close_all(struct job *j)
{
	lwm_inverse_release(&j->head);
	free(j->z);
	free(j->x);
	free(j->pooled);
	lwm_vq_close(&j->vq);
	lk_dev_close(j->dev);
	lwm_paths_release(&o.train);
	lwm_paths_release(&o.heldout);
}

static int want_all(const struct lwm_paths *p, struct lwm_err *e)
{
	for (int64_t i = 0; i < p->n; i++)
		LWM_TRY(lwm_path_want(p->v[i] + (p->v[i][0] == '@'), e));
	return 0;
}

static int judge_actions(const struct lwm_args *a, struct lwm_err *e)
{
	const struct lwm_paths drawn = { .v = a->operand, .n = a->noperand };
	struct tally learnt = { 0 }, held = { 0 }, said = { 0 };
	struct lwm_action action;
	struct job j = { 0 };
	int rc = 0;
	if (o.action)
		LWM_GO(lwm_action_parse(&action, o.action, e));
	if (o.action && !(action.has & LWM_ACTION_BIT(LWM_ACTION_CMD)))
		LWM_GO(lwm_fail(e, LWM_EUSAGE, "--action %s: holds no command, which is what the head names", o.action));
	LWM_GO(want_all(&drawn, e));
	LWM_GO(want_all(&o.train, e));
	LWM_GO(want_all(&o.heldout, e));
	if (a->common.plan) {
		LWM_GO(lwm_vqgan_check_files(o.vqgan, o.older_ok, e));
		printf("{\"vqgan\":\"%s\"}\n", o.vqgan);
		goto out;
	}
	LWM_GO(open_all(&j, a->common.threads, e));
	LWM_GO(take_clips(&j, &o.train, true, true, &learnt, e));
	LWM_GO(lwm_inverse_fit(&j.head, o.ridge, e));
	LWM_GO(take_clips(&j, &o.heldout, true, false, &held, e));
	LWM_GO(take_clips(&j, &drawn, false, false, &said, e));
	rc = write_result(&learnt, &held, &said, a->common.force, e);
out:
	close_all(&j);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, judge_actions);
}
