/* lwm-vqgan-decode - codes become pictures and clips, so that people can look; beside the original, with PSNR, if asked. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/log.h"
#include "common/cli/opt.h"
#include "common/comm/device.h"
#include "common/data/ingest/clipdoc.h"
#include "common/infer/load.h"
#include "common/media/frames.h"
#include "common/media/picture.h"

static struct {
	const char *output, *model, *device, *beside;
	int64_t doc, width, height, first, count, max_pixels, columns, zoom, per_pass, quality;
	double fps, beside_fps;
	bool older_ok;
} a = { .device = "auto", .fps = 4, .max_pixels = LWM_MEDIA_MAX_PIXELS, .columns = 8, .zoom = 1, .per_pass = 8 };

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('o', "output", &a.output, "FILE", "clip: .mp4 .mkv; picture or contact sheet: .png .jpg .ppm",
		    LWM_OPT_REQUIRED),
	LWM_OPT_STR('m', "model", &a.model, "DIR", "the VQGAN: model folder or checkpoint", LWM_OPT_REQUIRED),
	LWM_OPT_OLDER(&a.older_ok),
	LWM_OPT_DEVICE(&a.device),
	LWM_OPT_HEAD("What is decoded"),
	LWM_OPT_INT('n', "doc", &a.doc, 0, 1e15, "N", "number of the document in the shard, from 0", 0),
	LWM_OPT_INT(0, "first", &a.first, 0, 1e15, "N", "frame to begin with", 0),
	LWM_OPT_INT(0, "frames", &a.count, 0, 1e9, "N", "so many frames; 0: all", 0),
	LWM_OPT_INT(0, "width", &a.width, 0, 1 << 14, "N", "of a frame; default: what the shard says, or the resolution", 0),
	LWM_OPT_INT(0, "height", &a.height, 0, 1 << 14, "N", "likewise", 0),
	LWM_OPT_INT(0, "frames-per-pass", &a.per_pass, 1, 1 << 16, "N", "frames in device memory at once", 0),
	LWM_OPT_HEAD("How it is shown"),
	LWM_OPT_DOUBLE(0, "fps", &a.fps, 0.01, 240, "X", "of a clip", 0),
	LWM_OPT_STR(0, "beside", &a.beside, "CLIP", "the original: its frames above the decoded ones, and PSNR", 0),
	LWM_OPT_DOUBLE(0, "beside-fps", &a.beside_fps, 0, 1000, "X", "at which the original is taken; 0: every frame", 0),
	LWM_OPT_MAX_PIXELS(&a.max_pixels),
	LWM_OPT_INT(0, "columns", &a.columns, 1, 1000, "N", "of a sheet", 0),
	LWM_OPT_INT(0, "zoom", &a.zoom, 1, 64, "N", "pixels of a sheet are repeated N times", 0),
	LWM_OPT_INT(0, "quality", &a.quality, 0, 100, "Q", "of a jpg; 0: 90", 0),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-vqgan-decode",
	.summary = "codes to pictures and clips, so that people can look",
	.operands = "SHARD|CODES.json",
	.min_operands = 1,
	.max_operands = 1,
	.opts = opts,
	.details =
		"The input is a document shard, or a JSON file with a flat list of codes (of whole\n"
		"frames), or an object with such a list as \"codes\". A single frame becomes a picture,\n"
		"several a clip or a sheet.\n",
	.examples = "lwm-vqgan-decode -m vqgan clips.docs.h5 --doc 3 -o 3.mp4\n"
		    "lwm-vqgan-decode -m vqgan clips.docs.h5 --doc 3 --beside clip-3.mp4 --zoom 2 -o 3.png\n",
};

struct job {
	struct lk_dev *dev;
	struct lwm_vq vq;
	struct lwm_ids codes;
	uint8_t *rgb, *original; /* frames */
	int64_t frames, w, h, per;
	double psnr; /* against the original, of 8-bit frames */
};

/* ---- codes ---- */

/* Size of the frames: options, else what made the shard, else the model. */
static int frame_size(struct job *j, const char *config, struct lwm_err *e)
{
	json_t *o = NULL;
	int32_t f = lwm_vqgan_factor(&j->vq.cfg);
	if (config && config[0] == '{')
		LWM_TRY(lwm_json_parse(&o, config, strlen(config), "configuration of the shard", e));
	int64_t w = json_integer_value(json_object_get(o, "width")), h = json_integer_value(json_object_get(o, "height"));
	json_decref(o);
	j->w = a.width ? a.width : a.height ? a.height : w > 0 ? w : j->vq.cfg.resolution;
	j->h = a.height ? a.height : a.width ? a.width : h > 0 ? h : j->vq.cfg.resolution;
	if (j->w % f || j->h % f || j->w > 1 << 14 || j->h > 1 << 14)
		return lwm_fail(e, LWM_EUSAGE, "frames of %" PRId64 " x %" PRId64 ": this VQGAN takes multiples of %d", j->w,
				j->h, f);
	j->per = lwm_vqgan_codes(&j->vq.cfg, j->h, j->w);
	return 0;
}

static int from_shard(struct job *j, const char *path, struct lwm_err *e)
{
	struct lwm_docs *d;
	struct lwm_doc doc;
	int32_t *tokens = NULL;
	int rc;
	LWM_TRY(lwm_docs_open(&d, path, e));
	const struct lwm_docs_meta *meta = lwm_docs_get_meta(d);
	LWM_GO(frame_size(j, meta->config, e));
	if (a.doc >= lwm_docs_count(d))
		LWM_GO(lwm_fail(e, LWM_EUSAGE, "%s: --doc %" PRId64 ", but it has %" PRId64 " documents", path, a.doc,
				lwm_docs_count(d)));
	if (meta->vocab_vision < j->vq.cfg.num_embeddings + 2)
		LWM_GO(lwm_fail(e, LWM_ECONFIG, "%s: has %" PRId64 " vision ids, this VQGAN %d codes and two marks", path,
				meta->vocab_vision, j->vq.cfg.num_embeddings));
	LWM_GO(lwm_docs_get(d, a.doc, &doc, e));
	tokens = malloc((size_t)doc.n * sizeof *tokens);
	if (!tokens)
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "%s: out of memory for %" PRId64 " tokens", path, doc.n));
	LWM_GO(lwm_docs_read(d, a.doc, 0, doc.n, tokens, e));
	rc = lwm_clip_codes(tokens, doc.n, meta->vocab_text, j->vq.cfg.num_embeddings, j->per, &j->codes, e);
	if (rc < 0)
		lwm_context(e, "%s: document %" PRId64, path, a.doc);
out:
	free(tokens);
	lwm_docs_close(d);
	return rc;
}

static int from_json(struct job *j, const char *path, struct lwm_err *e)
{
	json_t *o;
	int rc;
	LWM_TRY(frame_size(j, NULL, e));
	LWM_TRY(lwm_json_read(&o, path, 1LL << 30, e));
	const json_t *list = json_is_object(o) ? json_object_get(o, "codes") : o;
	int64_t n = (int64_t)json_array_size(list);
	if (n == 0)
		LWM_GO(lwm_fail(e, LWM_EDATA, "%s: holds no list of codes", path));
	LWM_GO(lwm_ids_reserve(&j->codes, n, e));
	for (int64_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, (size_t)i);
		json_int_t c = json_is_integer(v) ? json_integer_value(v) : -1;
		if (c < 0 || c >= j->vq.cfg.num_embeddings)
			LWM_GO(lwm_fail(e, LWM_EDATA, "%s: entry %" PRId64 " is no code in 0..%d", path, i,
					j->vq.cfg.num_embeddings - 1));
		j->codes.v[j->codes.n++] = (int32_t)c;
	}
out:
	json_decref(o);
	return rc;
}

static int load_codes(struct job *j, const char *path, struct lwm_err *e)
{
	LWM_TRY(lwm_path_has_suffix(path, ".json") ? from_json(j, path, e) : from_shard(j, path, e));
	if (j->codes.n == 0 || j->codes.n % j->per)
		return lwm_fail(e, LWM_EDATA, "%s: %" PRId64 " codes are no whole number of frames of %" PRId64, path,
				j->codes.n, j->per);
	int64_t all = j->codes.n / j->per;
	if (a.first >= all)
		return lwm_fail(e, LWM_EUSAGE, "--first %" PRId64 ", but there are %" PRId64 " frames", a.first, all);
	j->frames = a.count && a.count < all - a.first ? a.count : all - a.first;
	return 0;
}

/* ---- pictures ---- */

static int decode_frames(struct job *j, struct lwm_err *e)
{
	int64_t one = j->w * j->h * 3;
	j->rgb = malloc((size_t)(j->frames * one));
	if (!j->rgb)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " frames", j->frames);
	return lwm_vqgan_decode(j->vq.net, j->codes.v + a.first * j->per, j->frames, j->h, j->w, j->rgb, e);
}

static int load_original(struct job *j, struct lwm_err *e)
{
	struct lwm_frames_opts o = { .fps = a.beside_fps, .width = (int)j->w, .height = (int)j->h,
				     .max_frames = a.first + j->frames, .max_pixels = a.max_pixels };
	int64_t n, one = j->w * j->h * 3;
	uint8_t *all;
	double sum = 0;
	LWM_TRY(lwm_frames_read(a.beside, &o, 8LL << 30, &all, &n, NULL, e));
	if (n < a.first + j->frames) {
		free(all);
		return lwm_fail(e, LWM_ECONFIG, "%s: has %" PRId64 " frames, the document %" PRId64 ": was it taken at another "
				"rate?", a.beside, n, a.first + j->frames);
	}
	memmove(all, all + a.first * one, (size_t)(j->frames * one));
	j->original = all;
	for (int64_t i = 0; i < j->frames * one; i++) {
		double d = (double)j->rgb[i] - (double)all[i];
		sum += d * d;
	}
	/* 8-bit differences on the scale of [-1,1] */
	j->psnr = lwm_psnr(sum / (double)(j->frames * one) / (127.5 * 127.5));
	return 0;
}

/* Rows of frames; with an original, each row of it stands above the row of its decoded frames. */
static int write_sheet(struct job *j, bool force, struct lwm_err *e)
{
	struct lwm_sheet s;
	int64_t one = j->w * j->h * 3, columns = j->frames < a.columns ? j->frames : a.columns;
	int64_t rows = (j->frames + columns - 1) / columns, per_row = j->original ? 2 : 1;
	if (rows * per_row > 1 << 20)
		return lwm_fail(e, LWM_EUSAGE, "%" PRId64 " frames are too many for a sheet: use --frames", j->frames);
	LWM_TRY(lwm_sheet_init(&s, (int)columns, (int)(rows * per_row), (int)(j->w * a.zoom), (int)(j->h * a.zoom), 2, e));
	for (int64_t i = 0; i < j->frames; i++) {
		int column = (int)(i % columns), row = (int)(i / columns * per_row);
		if (j->original)
			lwm_sheet_put(&s, column, row, j->original + i * one, (int)a.zoom);
		lwm_sheet_put(&s, column, row + (int)per_row - 1, j->rgb + i * one, (int)a.zoom);
	}
	int rc = lwm_picture_write(a.output, s.rgb, s.width, s.height, (int)a.quality, force, e);
	lwm_sheet_release(&s);
	return rc;
}

/* A clip; with an original, the two halves of each frame are the original and what came of it. */
static int write_clip(struct job *j, bool force, struct lwm_err *e)
{
	struct lwm_sheet s;
	struct lwm_video *v;
	int64_t one = j->w * j->h * 3;
	int cells = j->original ? 2 : 1, rc = 0;
	LWM_TRY(lwm_sheet_init(&s, cells, 1, (int)(j->w * a.zoom), (int)(j->h * a.zoom), 0, e));
	rc = lwm_video_open(&v, a.output, s.width, s.height, a.fps, force, e);
	for (int64_t i = 0; i < j->frames && rc == 0; i++) {
		if (j->original)
			lwm_sheet_put(&s, 0, 0, j->original + i * one, (int)a.zoom);
		lwm_sheet_put(&s, cells - 1, 0, j->rgb + i * one, (int)a.zoom);
		rc = lwm_video_add(v, s.rgb, e);
	}
	if (rc == 0)
		rc = lwm_video_commit(v, e);
	else
		lwm_video_discard(v);
	lwm_sheet_release(&s);
	return rc;
}

static int report_frames(const struct job *j, bool json, struct lwm_err *e)
{
	lwm_log(LWM_INFO, "%s: %" PRId64 " frames of %" PRId64 " codes", a.output, j->frames, j->per);
	if (j->original)
		lwm_log(LWM_INFO, "PSNR against %s: %.2f dB", a.beside, j->psnr);
	if (!json)
		return 0;
	json_t *o = json_pack("{s:I,s:I,s:I,s:I}", "frames", (json_int_t)j->frames, "codes_per_frame", (json_int_t)j->per,
			      "width", (json_int_t)j->w, "height", (json_int_t)j->h);
	if (j->original) /* frames that are equal have no finite PSNR */
		json_object_set_new(o, "psnr", j->psnr < 1e9 ? json_real(j->psnr) : json_null());
	return lwm_tool_json(o, e);
}

static int show_codes(const struct lwm_args *args, struct lwm_err *e)
{
	struct job j = { 0 };
	bool clip = lwm_path_has_suffix(a.output, ".mp4") || lwm_path_has_suffix(a.output, ".mkv");
	bool force = args->common.force;
	int rc;
	if (args->common.plan) {
		LWM_TRY(lwm_vqgan_check_files(a.model, a.older_ok, e));
		LWM_TRY(lwm_path_want(args->operand[0], e));
		printf("%s -> %s\n", args->operand[0], a.output);
		return 0;
	}
	LWM_GO(lwm_device_open(&j.dev, a.device, args->common.threads, e));
	LWM_GO(lwm_vq_open(&j.vq, a.model, a.older_ok, a.per_pass, j.dev, e));
	LWM_GO(load_codes(&j, args->operand[0], e));
	LWM_GO(decode_frames(&j, e));
	if (a.beside)
		LWM_GO(load_original(&j, e));
	if (clip)
		LWM_GO(write_clip(&j, force, e));
	else if (j.frames == 1 && !j.original && a.zoom == 1)
		LWM_GO(lwm_picture_write(a.output, j.rgb, (int)j.w, (int)j.h, (int)a.quality, force, e));
	else
		LWM_GO(write_sheet(&j, force, e));
	rc = report_frames(&j, args->common.json, e);
out:
	free(j.rgb);
	free(j.original);
	lwm_ids_release(&j.codes);
	lwm_vq_close(&j.vq);
	lk_dev_close(j.dev);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, show_codes);
}
