/* lwm-denoise - draws clips with a denoiser that lwm-train-stage trained: from noise, or going on from given frames. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/path.h"
#include "common/base/progress.h"
#include "common/cli/opt.h"
#include "common/comm/device.h"
#include "common/infer/load_denoiser.h"
#include "common/media/frames.h"
#include "common/media/picture.h"
#include "common/model/euler.h"

static struct {
	const char *output, *model, *vqgan, *device;
	struct lwm_rollout how;
	int64_t given, sample, max_pixels, columns, zoom;
	double clip_fps, fps;
	bool older_ok, snap;
} a = { .device = "auto", .how = { .steps = 50, .sigma_max = 700, .sigma_min = 0.002, .rho = 7, .guide = 1, .rounds = 1, .overlap = 3 },
	.given = 1, .max_pixels = LWM_MEDIA_MAX_PIXELS, .columns = 16, .zoom = 1, .fps = 4 };

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('o', "output", &a.output, "FILE", "clip: .mp4 .mkv; sheet of its frames: .png .jpg .ppm", LWM_OPT_REQUIRED),
	LWM_OPT_STR('m', "model", &a.model, "DIR", "the denoiser: model folder or checkpoint; ema:DIR: its average", LWM_OPT_REQUIRED),
	LWM_OPT_STR(0, "vqgan", &a.vqgan, "DIR", "the VQGAN whose latents it was trained on; none: it draws pixels", 0),
	LWM_OPT_OLDER(&a.older_ok),
	LWM_OPT_DEVICE(&a.device),
	LWM_OPT_HEAD("What is drawn"),
	LWM_OPT_INT(0, "given", &a.given, 1, 1 << 16, "N", "first frames of CLIP that the drawn clip begins with", 0),
	LWM_OPT_DOUBLE(0, "clip-fps", &a.clip_fps, 0, 1000, "X", "at which CLIP is taken; 0: every frame", 0),
	LWM_OPT_MAX_PIXELS(&a.max_pixels),
	LWM_OPT_INT(0, "rounds", &a.how.rounds, 1, 1 << 20, "N", "each goes on from the last frames of the one before", 0),
	LWM_OPT_INT(0, "overlap", &a.how.overlap, 0, 1 << 16, "N", "so many of them", 0),
	LWM_OPT_INT(0, "sample", &a.sample, 0, 1e15, "N", "number of the drawing: another one begins with other noise", 0),
	LWM_OPT_HEAD("How it is drawn"),
	LWM_OPT_INT(0, "steps", &a.how.steps, 1, 1 << 20, "N", "of a round", 0),
	LWM_OPT_DOUBLE(0, "guide", &a.how.guide, -100, 100, "X",
		       "classifier-free guidance by the given frames; 1: none. Of several rounds up to X in the middle of each", 0),
	LWM_OPT_DOUBLE(0, "sigma-max", &a.how.sigma_max, 1e-6, 1e9, "X", "noise that a round begins with", 0),
	LWM_OPT_DOUBLE(0, "sigma-min", &a.how.sigma_min, 1e-9, 1e6, "X", "of the last step but one", 0),
	LWM_OPT_DOUBLE(0, "rho", &a.how.rho, 0.1, 100, "X", "larger: more of the steps at little noise", 0),
	LWM_OPT_FLAG(0, "snap", &a.snap, "latents become codes of the VQGAN before they are decoded"),
	LWM_OPT_HEAD("How it is shown"),
	LWM_OPT_DOUBLE(0, "fps", &a.fps, 0.01, 240, "X", "of a clip", 0),
	LWM_OPT_INT(0, "columns", &a.columns, 1, 1000, "N", "of a sheet", 0),
	LWM_OPT_INT(0, "zoom", &a.zoom, 1, 64, "N", "pixels are repeated N times", 0),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-denoise",
	.summary = "clips from noise, or going on from given frames, with a denoiser",
	.operands = "[CLIP]",
	.max_operands = 1,
	.opts = opts,
	.details =
		"The model is one that lwm-train-stage --objective diffusion has trained. It draws as\n"
		"many frames at a time as its clips had; N rounds of T frames that overlap by K make\n"
		"N (T - K) + K. Without CLIP nothing is given. Where CLIP goes on after the frames that\n"
		"are given, each drawn frame is compared with it: PSNR, and beside it that of the last\n"
		"given frame, had it stood still; on a sheet CLIP stands above what was drawn.\n",
	.examples = "lwm-denoise -m models/denoiser --vqgan models/vqgan clip.mp4 --given 2 -o drawn.mp4\n"
		    "lwm-denoise -m models/pixels clip.mp4 --given 3 --rounds 4 --zoom 4 -o sheet.png --json\n",
};

struct job {
	struct lk_dev *dev;
	struct lwm_drawer d;
	uint8_t *truth, *rgb; /* frames of CLIP; frames that were drawn */
	float *known, *z;
	int64_t have, given, times, one; /* frames of CLIP; of them given; drawn, those among them; bytes of a frame */
	int64_t calls;
	struct lwm_progress progress;
};

/* ---- before ---- */

static int check_frames(const struct job *j, struct lwm_err *e)
{
	const struct lwm_denoiser *m = &j->d.made;

	if (j->given > m->clean)
		return lwm_fail(e, LWM_ECONFIG, "%s: was trained to be given %" PRId64 " frames at most, not --given %" PRId64, a.model, m->clean,
				j->given);
	if (a.how.rounds > 1 && a.how.overlap > m->clean)
		return lwm_fail(e, LWM_ECONFIG, "%s: was trained to be given %" PRId64 " frames at most, not --overlap %" PRId64, a.model, m->clean,
				a.how.overlap);
	return 0;
}

static int read_clip(struct job *j, const char *path, struct lwm_err *e)
{
	struct lwm_frames_opts o = { .fps = a.clip_fps, .width = (int)j->d.made.space.side, .height = (int)j->d.made.space.side,
				     .max_frames = j->times, .max_pixels = a.max_pixels };

	LWM_TRY(lwm_frames_read(path, &o, 8LL << 30, &j->truth, &j->have, NULL, e));
	if (j->have < j->given)
		return lwm_fail(e, LWM_ECONFIG, "%s: has %" PRId64 " frames, --given %" PRId64, path, j->have, j->given);
	return lwm_drawer_encode(&j->d, j->truth, j->given, j->known, e);
}

static int allocate(struct job *j, struct lwm_err *e)
{
	const struct lwm_latent_shape *s = &j->d.made.net.shape;
	size_t time = (size_t)(s->rows * s->columns * s->channels) * sizeof(float);

	j->one = j->d.made.space.side * j->d.made.space.side * 3;
	j->rgb = malloc((size_t)(j->times * j->one));
	j->z = malloc((size_t)j->times * time);
	j->known = malloc((size_t)(j->given + 1) * time);
	return j->rgb && j->z && j->known ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " frames", j->times);
}

/* ---- drawing ---- */

static int denoise_some(void *ctx, const float *x, double sigma, int64_t clean, float *denoised, struct lwm_err *e)
{
	struct job *j = ctx;

	lwm_progress_at(&j->progress, ++j->calls);
	return lwm_drawer_denoise(&j->d, x, sigma, clean, denoised, e);
}

static int draw(struct job *j, uint64_t seed, struct lwm_err *e)
{
	int rc;

	lwm_progress_begin(&j->progress, "denoising", "passes", 0);
	rc = lwm_rollout_draw(&a.how, &j->d.made.net.shape, denoise_some, j, seed, (uint64_t)a.sample, j->known, j->given, j->z, e);
	lwm_progress_end(&j->progress);
	LWM_TRY(rc);
	for (int64_t i = 0; i < j->times * (lwm_latent_count(&j->d.made.net.shape) / j->d.made.net.shape.times); i++)
		if (!isfinite(j->z[i]))
			return lwm_fail(e, LWM_ENUMERIC, "%s: number %" PRId64 " of what was drawn is not finite", a.model, i);
	return lwm_drawer_decode(&j->d, j->z, j->times, a.snap, j->rgb, e);
}

/* ---- what came ---- */

/* With what CLIP has of them above the drawn ones. */
static int write_sheet(const struct job *j, bool force, struct lwm_err *e)
{
	int64_t columns = j->times < a.columns ? j->times : a.columns, rows = (j->times + columns - 1) / columns;
	int64_t per = j->truth ? 2 : 1;
	int side = (int)(j->d.made.space.side * a.zoom);
	struct lwm_sheet s;
	int rc;

	LWM_TRY(lwm_sheet_init(&s, (int)columns, (int)(rows * per), side, side, 2, e));
	for (int64_t i = 0; i < j->times; i++) {
		int column = (int)(i % columns), row = (int)(i / columns * per);

		if (i < j->have)
			lwm_sheet_put(&s, column, row, j->truth + i * j->one, (int)a.zoom);
		lwm_sheet_put(&s, column, row + (int)per - 1, j->rgb + i * j->one, (int)a.zoom);
	}
	rc = lwm_picture_write(a.output, s.rgb, s.width, s.height, 0, force, e);
	lwm_sheet_release(&s);
	return rc;
}

static int write_clip(const struct job *j, bool force, struct lwm_err *e)
{
	int side = (int)(j->d.made.space.side * a.zoom);
	struct lwm_video *v;
	struct lwm_sheet s;
	int rc;

	LWM_TRY(lwm_sheet_init(&s, 1, 1, side, side, 0, e));
	rc = lwm_video_open(&v, a.output, s.width, s.height, a.fps, force, e);
	for (int64_t i = 0; i < j->times && rc == 0; i++) {
		lwm_sheet_put(&s, 0, 0, j->rgb + i * j->one, (int)a.zoom);
		rc = lwm_video_add(v, s.rgb, e);
	}
	if (rc == 0)
		rc = lwm_video_commit(v, e);
	else
		lwm_video_discard(v);
	lwm_sheet_release(&s);
	return rc;
}

/* PSNR of 8-bit frames. */
static double compare(const struct job *j, const uint8_t *x, const uint8_t *y)
{
	double sum = 0;

	for (int64_t i = 0; i < j->one; i++)
		sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
	return lwm_psnr(sum / (double)j->one / (127.5 * 127.5));
}

static json_t *number_of(double v)
{
	return v < 1e9 ? json_real(v) : json_null(); /* of equal frames there is none */
}

static int report(const struct job *j, bool json, struct lwm_err *e)
{
	json_t *drawn = json_array(), *still = json_array(), *o;
	bool lost = false;

	for (int64_t i = j->given; i < j->have && j->given; i++) {
		double was = compare(j, j->truth + (j->given - 1) * j->one, j->truth + i * j->one);
		double is = compare(j, j->rgb + i * j->one, j->truth + i * j->one);

		if (i == j->given)
			lwm_log(LWM_INFO, "PSNR of the first drawn frame: %.2f dB; had the last one stood still: %.2f", is, was);
		lost |= json_array_append_new(drawn, number_of(is)) < 0;
		lost |= json_array_append_new(still, number_of(was)) < 0;
	}
	lwm_log(LWM_INFO, "%s: %" PRId64 " frames, %" PRId64 " of them given; %" PRId64 " passes", a.output, j->times, j->given, j->calls);
	o = json_pack("{s:I,s:I,s:I,s:o,s:o}", "frames", (json_int_t)j->times, "given", (json_int_t)j->given, "passes",
		      (json_int_t)j->calls, "psnr", drawn, "psnr_still", still);
	if (!json) {
		json_decref(o);
		return 0;
	}
	if (lost) {
		json_decref(o);
		o = NULL;
	}
	return lwm_tool_json(o, e);
}

static int draw_clip(const struct lwm_args *args, struct lwm_err *e)
{
	struct job j = { .given = args->noperand ? a.given : 0 };
	bool clip = lwm_path_has_suffix(a.output, ".mp4") || lwm_path_has_suffix(a.output, ".mkv"), force = args->common.force;
	int rc;

	if (args->common.plan) {
		LWM_TRY(lwm_drawer_check_files(a.model, a.vqgan, a.older_ok, e));
		if (args->noperand)
			LWM_TRY(lwm_path_want(args->operand[0], e));
		printf("%s -> %s\n", args->noperand ? args->operand[0] : "noise", a.output);
		return 0;
	}
	LWM_GO(lwm_device_open(&j.dev, a.device, args->common.threads, e));
	LWM_GO(lwm_drawer_open(&j.d, a.model, a.vqgan, a.older_ok, j.dev, e));
	LWM_GO(check_frames(&j, e));
	j.times = lwm_rollout_times(&a.how, j.d.made.net.shape.times);
	LWM_GO(allocate(&j, e));
	if (args->noperand)
		LWM_GO(read_clip(&j, args->operand[0], e));
	LWM_GO(draw(&j, (uint64_t)args->common.seed, e));
	LWM_GO(clip ? write_clip(&j, force, e) : write_sheet(&j, force, e));
	rc = report(&j, args->common.json, e);
out:
	free(j.truth);
	free(j.rgb);
	free(j.known);
	free(j.z);
	lwm_drawer_close(&j.d);
	lk_dev_close(j.dev);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, draw_clip);
}
