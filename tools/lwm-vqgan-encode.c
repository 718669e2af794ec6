/* lwm-vqgan-encode - videos and images become document shards of codes.
 *
 * A thread of common/media/feed.h decodes frames ahead; each batch of them is encoded here, and with the last batch of a clip its
 * document is written. A clip is a unit of the shard: finished ones are kept whatever ends the run, and taken over by the next, in
 * the order of the inputs. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/num.h"
#include "common/base/progress.h"
#include "common/base/stop.h"
#include "common/cli/opt.h"
#include "common/comm/device.h"
#include "common/data/ingest/clipdoc.h"
#include "common/data/ingest/fields.h"
#include "common/infer/load.h"
#include "common/io/model.h"
#include "common/media/feed.h"
#include "common/text/tokenizer.h"

static struct {
	const char *output, *out_dir, *model, *tokenizer, *device, *system;
	struct lwm_paths fields;
	struct lwm_frames_opts frames;
	int64_t width, height, per_pass, task, tasks, max_bad;
	bool older_ok, folders, no_bos, no_eos, escape;
	int layout, actions;
	double drop;
} a = { .drop = LWM_WORLD_DROP, .device = "auto", .per_pass = 8, .tasks = 1, .max_bad = 100, .frames.max_pixels = LWM_MEDIA_MAX_PIXELS };

static const struct lwm_opt opts[] = {
	LWM_OPT_HEAD("Input and output"),
	LWM_OPT_STR('o', "output", &a.output, "FILE", "the shard", 0),
	LWM_OPT_STR('d', "out-dir", &a.out_dir, "DIR", "or a folder: DIR/part-I-of-N.docs.h5 for task I of N", 0),
	LWM_OPT_STR('m', "model", &a.model, "DIR", "the VQGAN: model folder or checkpoint", LWM_OPT_REQUIRED),
	LWM_OPT_OLDER(&a.older_ok),
	LWM_OPT_STR('t', "tokenizer", &a.tokenizer, "SPEC", "bytes, a SentencePiece model, or a folder with one",
		    LWM_OPT_REQUIRED),
	LWM_OPT_DEVICE(&a.device),
	LWM_OPT_FLAG(0, "frame-folders", &a.folders, "a folder of images is one clip, in order of their names"),
	LWM_OPT_TASKS(&a.task, &a.tasks),
	LWM_OPT_INT(0, "max-bad", &a.max_bad, -1, 1e12, "N", "more inputs that cannot be used are a failure; -1: any number", 0),
	LWM_OPT_HEAD("Frames"),
	LWM_OPT_DOUBLE(0, "fps", &a.frames.fps, 0, 1000, "X", "frames a second; 0: every frame of the file", 0),
	LWM_OPT_INT(0, "width", &a.width, 0, 1 << 14, "N", "of a frame; default: the VQGAN's resolution", 0),
	LWM_OPT_INT(0, "height", &a.height, 0, 1 << 14, "N", "likewise", 0),
	LWM_OPT_INT(0, "max-frames", &a.frames.max_frames, 0, 1e9, "N", "only the first N of a clip; 0: all", 0),
	LWM_OPT_INT(0, "sample-frames", &a.frames.sample_frames, 0, 1e9, "N", "at most N, evenly over the clip; 0: all", 0),
	LWM_OPT_DOUBLE(0, "start", &a.frames.start, 0, 1e9, "SEC", "take each clip from here", 0),
	LWM_OPT_DOUBLE(0, "end", &a.frames.end, 0, 1e9, "SEC", "to here; 0: to its end", 0),
	LWM_OPT_MAX_PIXELS(&a.frames.max_pixels),
	LWM_OPT_FLAG(0, "damaged-ok", &a.frames.damaged_ok, "use what can be decoded of damaged clips"),
	LWM_OPT_INT(0, "frames-per-pass", &a.per_pass, 1, 1 << 16, "N", "frames in device memory at once", 0),
	LWM_OPT_HEAD("Documents"),
	LWM_OPT_LIST('f', "fields", &a.fields, "FIELDS", "parts of a document, [part] without loss (default: vision); "
		     "given several times, each clip gets one by seed", 0),
	LWM_OPT_MARKS(&a.no_bos, &a.no_eos),
	LWM_OPT_CHAT(&a.layout, lwm_chat_layout_names, &a.system, &a.escape),
	LWM_OPT_WORLD(&a.actions, lwm_world_actions_names, &a.drop),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-vqgan-encode",
	.summary = "videos and images to document shards of codes",
	.operands = "INPUT...",
	.min_operands = 1,
	.max_operands = -1,
	.opts = opts,
	.stops = true,
	.details =
		"Inputs are videos and images, folders of them, and @LIST files. Frames are resized\n"
		"(short side, bicubic), cropped around the centre and encoded. 'vision' in --fields\n"
		"stands for the codes of the clip; other names for text that lies beside clip.mp4:\n"
		"'caption' is clip.txt; the keys of the object in clip.json are taken by name, and\n"
		"<|chat|> is that object read as turns: several questions about one clip. <|world|>\n"
		"is a drive: each frame behind the action that leads to it, of its 'actions'.\n"
		"\n"
		"Clips in = documents out + rejected; damaged clips are rejected, and the reasons are\n"
		"counted in the manifest. A shard that is complete and was made from the same inputs\n"
		"and settings is left alone; one that was stopped (75) keeps its finished clips and\n"
		"resumes behind them. So a failed or stopped task is simply run again.\n",
	.examples = "lwm-vqgan-encode -m vqgan -t tokenizer.model --fps 4 -f '[vision],caption' \\\n"
		    "    -f '[caption],vision' clips/ -o clips.docs.h5\n"
		    "lwm-vqgan-encode -m vqgan -t tokenizer.model --sample-frames 8 -d shards/ --task 3 --tasks 100 "
		    "@videos.txt\n"
		    "lwm-vqgan-encode -m vqgan -t tokenizer.model -f '<|world|>' drives/ -o drives.docs.h5\n",
};

enum { SAVE_SECONDS = 600 /* between two times that finished clips are put aside */ };

struct tally {
	int64_t in, out, rejected, frames, tokens;
};

struct job {
	struct lk_dev *dev;
	struct lwm_vq vq;
	struct lwm_tokenizer *tok;
	struct lwm_fields *fields;
	struct lwm_paths in;
	int64_t *number; /* of in.v[i] among the inputs of all tasks */
	char **todo;     /* of in.v those that are to be encoded, borrowed */
	int64_t *which;  /* their indices in in.v */
	int64_t ntodo;
	bool *aside;     /* in.v[i] was finished by an earlier run */
	char *out, *config;
	struct lwm_docs_writer *w;
	int64_t at;           /* clips before it are in the shard, as documents or rejections */
	struct lwm_ids codes; /* of the clip at hand */
	struct lwm_docbuf doc;
	struct lwm_str key;
	struct tally t, before; /* before: without the clip at hand */
	double saved, began;    /* when clips were put aside last; when the clip at hand began */
	bool save_asked;        /* SIGUSR2 since then */
	struct lwm_progress progress;
};

/* ---- inputs, settings ---- */

static int list_inputs(const struct lwm_args *args, struct job *j, struct lwm_err *e)
{
	struct lwm_paths all = { 0 };
	int rc = 0;
	for (int i = 0; i < args->noperand && rc == 0; i++)
		rc = a.folders ? lwm_clip_folders(&all, args->operand[i], e)
			       : lwm_paths_expand(&all, args->operand[i], lwm_media_suffixes, e);
	j->number = calloc((size_t)all.n + 1, sizeof *j->number);
	if (rc == 0 && !j->number)
		rc = lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " names", all.n);
	for (int64_t i = a.task; i < all.n && rc == 0; i += a.tasks) {
		j->number[j->in.n] = i;
		rc = lwm_paths_add(&j->in, all.v[i], e);
	}
	lwm_paths_release(&all);
	return rc;
}

static int name_output(struct job *j, struct lwm_err *e)
{
	char name[64];
	LWM_TRY(lwm_tool_outputs(a.output, a.out_dir, a.task, a.tasks, e));
	snprintf(name, sizeof name, "part-%05" PRId64 "-of-%05" PRId64 ".docs.h5", a.task, a.tasks);
	j->out = a.output ? strdup(a.output) : lwm_path_join(a.out_dir, name);
	return j->out ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for a name");
}

static int frame_size(const struct lwm_vqgan_cfg *c, struct lwm_err *e)
{
	int32_t f = lwm_vqgan_factor(c);
	int64_t w = a.width ? a.width : a.height ? a.height : c->resolution, h = a.height ? a.height : w;
	if (w % f || h % f)
		return lwm_fail(e, LWM_EUSAGE, "frames of %" PRId64 " x %" PRId64 ": this VQGAN takes multiples of %d", w, h, f);
	a.frames.width = (int)w;
	a.frames.height = (int)h;
	return 0;
}

/* Everything but the inputs that decides a byte of the output. */
static int settings_text(struct job *j, int64_t seed, struct lwm_err *e)
{
	char hash[33];
	LWM_TRY(lwm_vqgan_hash(j->dev, &j->vq.cfg, &j->vq.weights.base, hash, e));
	json_t *fields = lwm_json_strings(a.fields.v, a.fields.n);
	json_t *o = json_pack("{s:s,s:s,s:s,s:o,s:i,s:i,s:i,s:f,s:f,s:f,s:I,s:I,s:b,s:b,s:b,s:I}", "vqgan", hash, "resize",
			      LWM_FRAMES_RESIZE, "tokenizer", lwm_tokenizer_hash(j->tok)->hex, "fields", fields, "width", a.frames.width, "height",
			      a.frames.height, "codes", j->vq.cfg.num_embeddings, "fps", a.frames.fps, "start",
			      a.frames.start, "end", a.frames.end, "max_frames", (json_int_t)a.frames.max_frames,
			      "sample_frames", (json_int_t)a.frames.sample_frames, "damaged_ok", a.frames.damaged_ok,
			      "no_bos", a.no_bos, "no_eos", a.no_eos, "seed", (json_int_t)seed);
	/* another limit may reject other clips; shards made before there was one were made under this one */
	bool lost = o && a.frames.max_pixels != LWM_MEDIA_MAX_PIXELS &&
		    json_object_set_new(o, "max_pixels", json_integer(a.frames.max_pixels)) < 0;
	/* chats likewise: only what is not the default */
	if (o && a.layout)
		lost |= json_object_set_new(o, "chat_layout", json_string(lwm_chat_layout_names[a.layout])) < 0;
	if (o && a.system)
		lost |= json_object_set_new(o, "system", json_string(a.system)) < 0;
	if (o && a.escape)
		lost |= json_object_set_new(o, "escape_special", json_true()) < 0;
	if (o && a.actions)
		lost |= json_object_set_new(o, "actions", json_string(lwm_world_actions_names[a.actions])) < 0;
	if (o && a.drop != LWM_WORLD_DROP)
		lost |= json_object_set_new(o, "action_drop", json_real(a.drop)) < 0;
	int rc = lwm_json_dump(lost ? NULL : o, JSON_SORT_KEYS | JSON_COMPACT, "the settings", &j->config, e);
	json_decref(o);
	return rc;
}

static int open_all(struct job *j, const struct lwm_args *args, struct lwm_err *e)
{
	LWM_TRY(lwm_tokenizer_open_as(&j->tok, a.tokenizer, lwm_model_check_file, NULL, NULL, e));
	LWM_TRY(lwm_device_open(&j->dev, a.device, args->common.threads, e));
	LWM_TRY(lwm_vq_open(&j->vq, a.model, a.older_ok, a.per_pass, j->dev, e));
	LWM_TRY(frame_size(&j->vq.cfg, e));
	const struct lwm_fields_cfg cfg = {
		.fields = (const char *const *)a.fields.v, .nfields = a.fields.n, .index = -1, .no_bos = a.no_bos,
		.no_eos = a.no_eos, .frame_codes = lwm_vqgan_codes(&j->vq.cfg, a.frames.height, a.frames.width),
		.vision_codes = j->vq.cfg.num_embeddings, .seed = (uint64_t)args->common.seed,
		.chat = { .layout = (enum lwm_chat_layout)a.layout, .system = a.system, .escape = a.escape, .vision = true },
		.world = { (enum lwm_world_actions)a.actions, a.drop }
	};
	LWM_TRY(lwm_fields_open(&j->fields, &cfg, j->tok, e));
	return settings_text(j, args->common.seed, e);
}

static void close_all(struct job *j)
{
	lwm_docs_discard(j->w);
	lwm_docbuf_release(&j->doc);
	lwm_ids_release(&j->codes);
	lwm_fields_free(j->fields);
	lwm_vq_close(&j->vq);
	lk_dev_close(j->dev);
	lwm_tokenizer_free(j->tok);
	lwm_paths_release(&j->in);
	lwm_paths_release(&a.fields);
	lwm_str_release(&j->key);
	free(j->todo);
	free(j->which);
	free(j->aside);
	free(j->number);
	free(j->out);
	free(j->config);
}

/* ---- work ---- */

static int reject_clip(struct job *j, const char *reason, const struct lwm_err *why, struct lwm_err *e)
{
	j->t.rejected++;
	lwm_log(LWM_WARN, "rejected: %s", why->msg);
	return lwm_docs_reject(j->w, reason, 1, e);
}

/* All codes of clip i are there: its document. */
static int write_clip(struct job *j, int64_t i, struct lwm_err *e)
{
	struct lwm_err mine = { 0 };
	const char *path = j->in.v[i];
	int rc = lwm_clip_document(j->fields, path, &j->codes, j->number[i], &j->doc, &mine);
	if (rc == -LWM_EDATA)
		return reject_clip(j, j->doc.fault ? j->doc.fault : "bad text beside it", &mine, e);
	if (rc < 0) {
		*e = mine;
		return rc;
	}
	LWM_TRY(lwm_docs_append(j->w, lwm_path_base(path), path, j->doc.ids.v, j->doc.ids.n, j->doc.run, j->doc.nruns, e));
	j->t.out++;
	j->t.tokens += j->doc.ids.n;
	j->t.frames += j->doc.frames;
	return 0;
}

static int take_batch(struct job *j, const struct lwm_feed_batch *b, struct lwm_err *e)
{
	if (b->first == 0)
		j->codes.n = 0;
	if (b->rc == -LWM_EDATA || b->rc == -LWM_ENOINPUT)
		return reject_clip(j, "not decodable", &b->err, e);
	if (b->rc < 0) {
		*e = b->err;
		return b->rc;
	}
	int64_t per = lwm_vqgan_codes(&j->vq.cfg, b->height, b->width);
	LWM_TRY(lwm_ids_reserve(&j->codes, b->n * per, e));
	LWM_TRY(lwm_vqgan_encode(j->vq.net, b->rgb, b->n, b->height, b->width, j->codes.v + j->codes.n, e));
	j->codes.n += b->n * per;
	if (b->damage[0])
		lwm_log(LWM_WARN, "used in spite of damage: %s", b->damage);
	return b->last ? write_clip(j, j->which[b->clip], e) : 0;
}

/* ---- clips as units of the shard ---- */

static int too_many_rejected(const struct job *j, struct lwm_err *e)
{
	if (a.max_bad < 0 || j->t.rejected <= a.max_bad)
		return 0;
	return lwm_fail(e, LWM_EDATA, "%s: %" PRId64 " inputs cannot be used, and no more than %" PRId64 " are allowed (--max-bad); the last one "
			"is %s", j->out, j->t.rejected, a.max_bad, j->in.v[j->at - 1]);
}

/* Clips up to (not including) number `end` that lie aside. What is damaged there is encoded by the next run. */
static int take_aside(struct job *j, int64_t end, struct lwm_err *e)
{
	for (; j->at < end && j->aside[j->at]; j->at++) {
		int64_t s[LWM_UNIT_STATS];
		LWM_TRY(lwm_clip_key(j->in.v[j->at], j->number[j->at], &j->key, e));
		int rc = lwm_docs_take(j->w, lwm_str_get(&j->key), s, e);
		LWM_TRY(rc);
		if (rc == 0)
			return lwm_fail(e, LWM_EDATA, "%s: what an earlier run made of it is damaged or it has changed: run me again",
					j->in.v[j->at]);
		j->t = (struct tally){ j->t.in + 1, j->t.out + s[0], j->t.rejected + s[1], j->t.frames + s[2], j->t.tokens + s[3] };
	}
	return 0;
}

static int begin_clip(struct job *j, int64_t i, struct lwm_err *e)
{
	LWM_TRY(take_aside(j, i, e));
	lwm_docs_unit_begin(j->w);
	j->before = j->t;
	j->began = lwm_now();
	return 0;
}

static int end_clip(struct job *j, int64_t i, struct lwm_err *e)
{
	const struct tally *t = &j->t, *b = &j->before;
	const int64_t s[LWM_UNIT_STATS] = { t->out - b->out, t->rejected - b->rejected, t->frames - b->frames,
					    t->tokens - b->tokens };
	LWM_TRY(lwm_clip_inputs(j->w, j->in.v[i], j->number[i], &j->key, e));
	LWM_TRY(lwm_docs_unit_end(j->w, lwm_str_get(&j->key), s, e));
	j->at = i + 1;
	j->t.in++;
	LWM_TRY(too_many_rejected(j, e));
	if (lwm_now() - j->saved < SAVE_SECONDS && !j->save_asked)
		return 0;
	j->saved = lwm_now();
	j->save_asked = false;
	return lwm_docs_save(j->w, e);
}

static int fail_stopped(const struct job *j, struct lwm_err *e)
{
	return lwm_fail(e, LWM_ESAVED, "%s: stopped (%s) after %" PRId64 " of %" PRId64 " clips, which are kept: run me again", j->out,
			lwm_stop_reason(), j->at, j->in.n);
}

static int encode_clips(struct job *j, struct lwm_err *e)
{
	struct lwm_feed *feed;
	struct lwm_feed_batch b;
	int64_t open = -1;
	int rc;
	LWM_TRY(lwm_feed_open(&feed, j->todo, j->ntodo, &a.frames, a.per_pass, e));
	for (;;) {
		enum lwm_stop wish = lwm_stop_wanted();
		if (wish >= LWM_STOP_END) {
			rc = fail_stopped(j, e);
			break;
		}
		j->save_asked |= wish == LWM_STOP_SAVE; /* reported once: kept until the clip at hand is whole */
		if ((rc = lwm_feed_next(feed, &b, e)) != 1)
			break;
		int64_t i = j->which[b.clip];
		if (open != i)
			LWM_GO(begin_clip(j, i, e));
		open = i;
		LWM_GO(take_batch(j, &b, e));
		if (b.last || b.rc < 0)
			LWM_GO(end_clip(j, i, e));
		lwm_stop_cost(lwm_now() - j->began, 0);
		lwm_progress_at(&j->progress, j->t.in);
	}
	if (rc == 0)
		rc = take_aside(j, j->in.n, e);
out:
	lwm_feed_close(feed);
	return rc;
}

/* Which clips an earlier run finished, by name and content; the others are to be encoded. */
static int look_aside(struct job *j, const struct lwm_docs_meta *meta, struct lwm_err *e)
{
	struct lwm_paths keys = { 0 };
	size_t n = (size_t)j->in.n + 1;
	int rc;
	j->todo = calloc(n, sizeof *j->todo);
	j->which = calloc(n, sizeof *j->which);
	j->aside = calloc(n, sizeof *j->aside);
	if (!j->todo || !j->which || !j->aside)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " names", j->in.n);
	LWM_GO(lwm_docs_aside_keys(j->out, meta, &keys, e));
	for (int64_t i = 0; i < j->in.n; i++) {
		if (keys.n)
			LWM_GO(lwm_clip_key(j->in.v[i], j->number[i], &j->key, e));
		for (int64_t k = 0; k < keys.n && !j->aside[i]; k++)
			j->aside[i] = !strcmp(keys.v[k], lwm_str_get(&j->key));
		if (j->aside[i])
			continue;
		j->which[j->ntodo] = i;
		j->todo[j->ntodo++] = j->in.v[i];
	}
	if (j->ntodo < j->in.n)
		lwm_log(LWM_INFO, "%s: an earlier run had finished %" PRId64 " of its clips", j->out, j->in.n - j->ntodo);
out:
	lwm_paths_release(&keys);
	return rc;
}

static int finish_shard(struct job *j, struct lwm_err *e)
{
	struct lwm_docs_writer *w = j->w;
	if (j->t.out == 0)
		return lwm_fail(e, LWM_EDATA, "none of %" PRId64 " inputs can be used", j->t.in);
	j->w = NULL;
	return lwm_docs_commit(w, e);
}

/* Whatever ends the work, finished clips are kept. That they cannot be is said, and the first failure stands. */
static int keep_finished(struct job *j)
{
	struct lwm_err why = { 0 };
	struct lwm_docs_writer *w = j->w;
	j->w = NULL;
	if (w && lwm_docs_suspend(w, NULL, &why) < 0)
		lwm_log(LWM_WARN, "finished clips could not be kept: %s", why.msg);
	return 0;
}

static int make_shard(struct job *j, bool force, bool replace, struct lwm_err *e)
{
	const struct lwm_docs_meta meta = {
		.vocab_text = lwm_tokenizer_vocab(j->tok), .vocab_vision = j->vq.cfg.num_embeddings + 2,
		.tokenizer = lwm_tokenizer_hash(j->tok)->hex, .tool = "lwm-vqgan-encode " LWM_VERSION,
		.config = j->config, .policy = a.no_bos ? a.no_eos ? "none" : "eos" : a.no_eos ? "bos" : "bos,eos"
	};
	if (a.out_dir)
		LWM_TRY(lwm_mkdirs(a.out_dir, e));
	LWM_TRY(lwm_docs_create(&j->w, j->out, &meta, force || replace, e));
	LWM_TRY(look_aside(j, &meta, e));
	lwm_progress_begin(&j->progress, "encoded", "clips", j->in.n);
	j->saved = lwm_now();
	int rc = encode_clips(j, e);
	lwm_progress_end(&j->progress);
	if (rc == 0)
		rc = finish_shard(j, e);
	keep_finished(j);
	return rc;
}

static int report_shard(const struct job *j, double seconds, bool json, bool skipped, struct lwm_err *e)
{
	char tokens[32];
	const struct tally *t = &j->t;
	if (skipped)
		lwm_log(LWM_INFO, "%s: complete, nothing to do", j->out);
	else
		lwm_log(LWM_INFO, "%s: %" PRId64 " clips = %" PRId64 " documents + %" PRId64 " rejected; %" PRId64 " frames of %"
			PRId64 " codes, %s tokens in %.1f s", j->out, t->in, t->out, t->rejected, t->frames,
			lwm_vqgan_codes(&j->vq.cfg, a.frames.height, a.frames.width),
			lwm_count_text(t->tokens, tokens, sizeof tokens), seconds);
	if (!json)
		return 0;
	json_t *o = json_pack("{s:I,s:I,s:I,s:I,s:I,s:f,s:b}", "clips", (json_int_t)t->in, "documents", (json_int_t)t->out,
			      "rejected", (json_int_t)t->rejected, "frames", (json_int_t)t->frames, "tokens",
			      (json_int_t)t->tokens, "seconds", seconds, "skipped", skipped);
	return lwm_tool_json(o, e);
}

static int encode_inputs(const struct lwm_args *args, struct lwm_err *e)
{
	struct job j = { 0 };
	double start = lwm_now();
	bool replace = false;
	int rc, done = 0;
	if (a.fields.n == 0)
		LWM_GO(lwm_paths_add(&a.fields, "vision", e));
	LWM_GO(name_output(&j, e));
	LWM_GO(list_inputs(args, &j, e));
	if (args->common.plan) {
		LWM_GO(lwm_tokenizer_open_as(&j.tok, a.tokenizer, lwm_model_check_file, NULL, NULL, e));
		LWM_GO(lwm_vqgan_check_files(a.model, a.older_ok, e));
		for (int64_t i = 0; i < j.in.n; i++)
			printf("%s -> %s\n", j.in.v[i], j.out);
		goto out;
	}
	if (j.in.n == 0) {
		lwm_log(LWM_INFO, "task %" PRId64 " of %" PRId64 " has no inputs: nothing to do", a.task, a.tasks);
		goto out;
	}
	lwm_stop_install(LWM_STOP_GRACE, NULL);
	LWM_GO(open_all(&j, args, e));
	if (!args->common.force)
		LWM_GO(done = lwm_clip_shard_done(j.out, j.config, &j.in, a.max_bad, &replace, e));
	if (!done)
		LWM_GO(make_shard(&j, args->common.force, replace, e));
	rc = report_shard(&j, lwm_now() - start, args->common.json, done, e);
out:
	close_all(&j);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, encode_inputs);
}
