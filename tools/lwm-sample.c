/* lwm-sample - lets a model speak: text, chat, pictures and clips, answers about them; and act: clips that go on under actions.
 *
 * What is open is a session: device, model, tokenizer, engine, and for frames a VQGAN. A mode turns the prompt into tokens,
 * prefills a cache with them, and decodes: text by common/infer/compose.h to standard output, frames by the same to codes, which
 * the VQGAN turns into pictures. A world takes frames and actions instead of a prompt (common/eval/world.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/progress.h"
#include "common/base/stop.h"
#include "common/cli/opt.h"
#include "common/data/chatframe.h"
#include "common/eval/dialogue.h"
#include "common/eval/drawn.h"
#include "common/eval/reward.h"
#include "common/eval/world_batch.h"
#include "common/infer/compose.h"
#include "common/infer/session.h"
#include "common/media/frames.h"

enum mode { MODE_TEXT, MODE_CHAT, MODE_IMAGE, MODE_VIDEO, MODE_ASK, MODE_WORLD };
static const char *const modes[] = { "text", "chat", "image", "video", "ask", "world", NULL };

static struct {
	const char *model, *tokenizer, *vqgan, *device, *prompt, *prompt_file, *output, *out_dir, *size;
	struct lwm_paths input, action;
	int mode, cache, guide_over;
	int64_t samples, max_tokens, context, chunk, frames, max_frames, max_pixels, zoom, rounds, overlap, given;
	struct lwm_sampler text, image, video;
	double guide_image, guide_video, fps;
	bool raw, older_ok, reward;
} o = { .device = "auto", .samples = 1, .max_tokens = 128, .chunk = 1024, .frames = 8, .max_frames = 8, .fps = 4, .zoom = 1,
	.rounds = 1, .overlap = 3, .given = 1, .max_pixels = LWM_MEDIA_MAX_PIXELS,
	.text = { .temperature = 0.7, .top_k = 50, .top_p = 1 }, .image = { .temperature = 1, .top_p = 1 },
	.video = { .temperature = 1, .top_k = 1000, .top_p = 1 }, .guide_image = 1, .guide_video = 1 };

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('m', "model", &o.model, "DIR", "merged model, or a checkpoint folder", LWM_OPT_REQUIRED),
	LWM_OPT_OLDER(&o.older_ok),
	LWM_OPT_CHOICE(0, "mode", &o.mode, modes, "text goes on, image and video draw, ask looks at --input, world goes on from it", 0),
	LWM_OPT_STR('p', "prompt", &o.prompt, "TEXT", "prompt, question or description; default: standard input", 0),
	LWM_OPT_STR(0, "prompt-file", &o.prompt_file, "FILE", "the same from a file", 0),
	LWM_OPT_LIST('i', "input", &o.input, "FILE", "ask: image or video; world: clips, images to begin with, folders of them", 0),
	LWM_OPT_STR('o', "output", &o.output, "FILE", "a clip: .mp4 .mkv; a picture or, of a clip, a strip: .png .jpg", 0),
	LWM_OPT_STR('d', "out-dir", &o.out_dir, "DIR", "world: or a folder, for a clip DIR/NAME.mp4 of each input", 0),
	LWM_OPT_MODEL_TOKENIZER(0, &o.tokenizer),
	LWM_OPT_STR(0, "vqgan", &o.vqgan, "DIR", "frame tokenizer; needed for frames", 0),
	LWM_OPT_DEVICE(&o.device),
	LWM_OPT_CHOICE(0, "cache", &o.cache, lwm_cache_kinds, "how keys and values are kept; int8 takes half of bf16's memory", 0),
	LWM_OPT_FLAG(0, "raw", &o.raw, "the prompt as it is, without the assistant's frame around it"),
	LWM_OPT_INT(0, "samples", &o.samples, 1, 100000, "N", "different results for the same prompt", 0),
	LWM_OPT_HEAD("Text"),
	LWM_OPT_INT(0, "max-tokens", &o.max_tokens, 1, 1 << 24, "N", "most tokens of an answer", 0),
	LWM_OPT_DOUBLE(0, "temperature", &o.text.temperature, 0, 100, "X", "0 takes the likeliest token", 0),
	LWM_OPT_INT(0, "top-k", &o.text.top_k, 0, 1 << 24, "K", "only the K likeliest; 0 = all", 0),
	LWM_OPT_DOUBLE(0, "top-p", &o.text.top_p, 0.0001, 1, "P", "only the likeliest that make up P", 0),
	LWM_OPT_INT(0, "context", &o.context, 0, 1 << 30, "N", "most tokens in the cache; default: the model's", 0),
	LWM_OPT_PREFILL(&o.chunk),
	LWM_OPT_HEAD("Frames"),
	LWM_OPT_INT(0, "frames", &o.frames, 1, 1 << 20, "N", "video: frames to draw; world: of a round", 0),
	LWM_OPT_DOUBLE(0, "fps", &o.fps, 0.01, 240, "X", "of clips, frames a second", 0),
	LWM_OPT_STR(0, "size", &o.size, "WxH", "of frames, or N for N x N; default: the frame tokenizer's", 0),
	LWM_OPT_INT(0, "max-frames", &o.max_frames, 1, 1 << 20, "N", "ask: frames of a video, evenly spread", 0),
	LWM_OPT_MAX_PIXELS(&o.max_pixels),
	LWM_OPT_DOUBLE(0, "temperature-image", &o.image.temperature, 0, 100, "X", "of the first frame", 0),
	LWM_OPT_DOUBLE(0, "temperature-video", &o.video.temperature, 0, 100, "X", "of the frames behind it", 0),
	LWM_OPT_INT(0, "top-k-image", &o.image.top_k, 0, 1 << 24, "K", "0 = all codes", 0),
	LWM_OPT_INT(0, "top-k-video", &o.video.top_k, 0, 1 << 24, "K", "0 = all codes", 0),
	LWM_OPT_DOUBLE(0, "guidance-image", &o.guide_image, 0, 100, "S", "classifier-free guidance; 1 = none", 0),
	LWM_OPT_DOUBLE(0, "guidance-video", &o.guide_video, 0, 100, "S", "the same for the frames behind it", 0),
	LWM_OPT_INT(0, "zoom", &o.zoom, 1, 64, "N", "pixels of pictures are repeated N times", 0),
	LWM_OPT_HEAD("World"),
	LWM_OPT_LIST('a', "action", &o.action, "ACTION", "left, 'speed=30; steer=0.1', ...: one, one a round, or one a step", 0),
	LWM_OPT_INT(0, "rounds", &o.rounds, 1, 1 << 20, "N", "of --frames, those shared with the round before among them", 0),
	LWM_OPT_INT(0, "overlap", &o.overlap, 1, 1 << 20, "N", "frames that a round begins with, from the one before", 0),
	LWM_OPT_INT(0, "given", &o.given, 1, 1 << 20, "N", "first frames of the input that the first round begins with", 0),
	LWM_OPT_CHOICE(0, "guidance-over", &o.guide_over, lwm_guide_overs, "--guidance-video for all frames, or for the middle of a round", 0),
	LWM_OPT_FLAG(0, "reward", &o.reward, "no files: how far --samples agree, exp(-variance), for each input"),
	LWM_OPT_END,
};

static const struct lwm_tool tool = {
	.name = "lwm-sample",
	.summary = "Text, chat, pictures and clips from a model, answers about them, and clips that obey actions.",
	.operands = "",
	.opts = opts,
	.details = "Text and answers go to standard output, frames to --output. Equal model, prompt, options and seed\n"
		   "give equal results. In chat without --prompt each line of standard input is a turn.",
	.examples = "  lwm-sample -m model -p 'It was a dark' --max-tokens 64\n"
		    "  lwm-sample -m model --mode chat\n"
		    "  lwm-sample -m model --vqgan vqgan --mode image -p 'a red ball' --guidance-image 5 -o ball.png\n"
		    "  lwm-sample -m model --vqgan vqgan --mode ask -i clip.mp4 -p 'What happens here?'\n"
		    "  lwm-sample -m model --vqgan vqgan --mode world -i clip.mp4 -a left --rounds 4 -o left.mp4",
};

#define SYSTEM LWM_CHAT_SYSTEM " "

/* ---- what is open ---- */

struct session {
	const struct lwm_common *common;
	struct lwm_session on;
};

static int open_all(struct session *s, struct lwm_err *e)
{
	const struct lwm_session_how how = { .model = o.model, .tokenizer = o.tokenizer,
		.vqgan = o.mode >= MODE_IMAGE ? o.vqgan : NULL, .device = o.device, .older_ok = o.older_ok,
		.cache = (enum lwm_cache_kind)o.cache, .threads = s->common->threads, .prefill_chunk = o.chunk, .streams = 2,
		.context = o.context, .size = o.size, .frames_per_pass = 1 };

	return lwm_session_open(&s->on, &how, e);
}

/* ---- prompts ---- */

static int add_text(const struct session *s, struct lwm_ids *ids, const char *text, struct lwm_err *e)
{
	return *text ? lwm_tokenizer_encode(s->on.tok, text, strlen(text), ids, e) : 0;
}

static int add_id(struct lwm_ids *ids, int64_t id, struct lwm_err *e)
{
	int32_t v = (int32_t)id;

	return lwm_ids_add(ids, &v, 1, e);
}

/* before, prompt and after as one text; the prompt alone with --raw. */
static int add_framed(const struct session *s, struct lwm_ids *ids, const char *before, const char *prompt,
		      const char *after, struct lwm_err *e)
{
	struct lwm_str b = { 0 };
	int rc;

	lwm_str_printf(&b, "%s%s%s", o.raw ? "" : before, prompt, o.raw ? "" : after);
	rc = lwm_str_ok(&b, e);
	if (rc == 0)
		rc = add_text(s, ids, lwm_str_get(&b), e);
	lwm_str_release(&b);
	return rc;
}

/* ---- text ---- */

struct answer {
	const struct session *s;
	struct lwm_str text;
	struct lwm_ids ids;
	double logprob;
	bool trim; /* the blank before the first word */
};

static int hear_token(void *arg, int32_t id, double logprob, struct lwm_err *e)
{
	struct answer *a = arg;
	size_t n;
	const char *p = lwm_tokenizer_bytes(a->s->on.tok, id, &n);

	a->logprob += logprob;
	LWM_TRY(lwm_ids_add(&a->ids, &id, 1, e));
	if (a->trim && !a->text.len && n && *p == ' ') {
		p++;
		n--;
	}
	lwm_str_add(&a->text, p, n);
	if (!a->s->common->json && (fwrite(p, 1, n, stdout) < n || fflush(stdout)))
		return lwm_fail(e, LWM_EIO, "cannot write to standard output");
	return 0;
}

static int print_json(const struct answer *a, int64_t sample, const char *prompt, struct lwm_err *e)
{
	struct lwm_str b = { 0 };
	int rc;

	lwm_str_printf(&b, "{\"sample\":%" PRId64 ",\"prompt\":", sample);
	lwm_str_json(&b, prompt, strlen(prompt));
	lwm_str_puts(&b, ",\"text\":");
	lwm_str_json(&b, lwm_str_get(&a->text), a->text.len);
	lwm_str_printf(&b, ",\"tokens\":%" PRId64 ",\"logprob\":%.6f}", a->ids.n, a->logprob);
	rc = lwm_str_ok(&b, e);
	if (rc == 0 && puts(b.s) < 0)
		rc = lwm_fail(e, LWM_EIO, "cannot write to standard output");
	lwm_str_release(&b);
	return rc;
}

/* What stands behind the last token of an answer. */
static int end_answer(struct answer *a, int64_t sample, const char *said, struct lwm_err *e)
{
	LWM_TRY(lwm_str_ok(&a->text, e));
	if (a->s->common->json)
		return print_json(a, sample, said, e);
	return putchar('\n') < 0 ? lwm_fail(e, LWM_EIO, "cannot write to standard output") : 0;
}

static void forget_answer(struct answer *a)
{
	lwm_str_release(&a->text);
	lwm_ids_release(&a->ids);
}

/* Feeds the prompt and writes one answer. */
static int write_answer(const struct session *s, struct lwm_cache *c, const struct lwm_ids *prompt, const char *said,
			int64_t sample, struct lwm_err *e)
{
	struct lwm_text_run how = { o.text, (uint64_t)sample, o.max_tokens, lwm_tokenizer_eos(s->on.tok) };
	struct answer a = { .s = s, .trim = o.mode != MODE_TEXT };
	int rc = lwm_prefill(s->on.g, c, prompt->v, prompt->n, e);

	if (rc == 0)
		rc = lwm_compose_text(s->on.g, c, &how, hear_token, &a, NULL, e);
	if (rc == 0)
		rc = end_answer(&a, sample, said, e);
	forget_answer(&a);
	return rc;
}

/* Several answers to one prompt. */
static int write_answers(const struct session *s, const struct lwm_ids *prompt, const char *said, struct lwm_err *e)
{
	struct lwm_cache *c = NULL;
	int64_t need = prompt->n + o.max_tokens;
	int rc = 0;

	if (need > s->on.context && prompt->n < s->on.context)
		need = s->on.context; // a shorter answer
	LWM_GO(lwm_session_check(&s->on, need, e));
	LWM_GO(lwm_engine_new_cache(&c, s->on.g, need, e));
	for (int64_t i = 0; i < o.samples; i++) {
		struct lwm_ids rest = { .v = prompt->v, .n = prompt->n };

		if (i) { // the prompt is there but for its last token, whose logits are wanted
			lwm_cache_rewind(c, prompt->n - 1);
			rest.v += prompt->n - 1;
			rest.n = 1;
		}
		LWM_GO(write_answer(s, c, &rest, said, i, e));
	}
out:
	lwm_cache_free(c);
	return rc;
}

static int run_text(const struct session *s, const char *prompt, struct lwm_err *e)
{
	struct lwm_ids ids = { 0 };
	int rc;

	rc = add_id(&ids, lwm_tokenizer_bos(s->on.tok), e);
	if (rc == 0 && o.mode == MODE_CHAT)
		rc = add_framed(s, &ids, SYSTEM LWM_CHAT_USER, prompt, LWM_CHAT_ASSISTANT, e);
	else if (rc == 0)
		rc = add_text(s, &ids, prompt, e);
	if (rc == 0)
		rc = write_answers(s, &ids, prompt, e);
	lwm_ids_release(&ids);
	return rc;
}

/* Each line is a turn; the context keeps the turns before. */
static int run_turns(const struct session *s, struct lwm_err *e)
{
	struct lwm_generate w = { s->on.g, s->on.tok, o.text, o.max_tokens };
	struct lwm_dialogue *d;
	char *line = NULL;
	size_t cap = 0;
	int rc = lwm_dialogue_new(&d, &w, s->on.context, o.raw, e);

	for (int64_t turn = 0; rc == 0 && getline(&line, &cap, stdin) > 0; turn++) {
		struct answer a = { .s = s, .trim = true };

		line[strcspn(line, "\r\n")] = 0;
		rc = lwm_dialogue_ask(d, line, (uint64_t)turn, hear_token, &a, NULL, e);
		lwm_lm_warn_length(&s->on.m, lwm_dialogue_length(d), "--context");
		if (rc == 0)
			rc = end_answer(&a, turn, line, e);
		forget_answer(&a);
	}
	free(line);
	lwm_dialogue_free(d);
	return rc;
}

/* ---- frames ---- */

static int show_progress(void *arg, int64_t done, struct lwm_err *e)
{
	(void)e;
	lwm_progress_at(arg, done);
	return 0;
}

/* <s> [framed description] <vision>. */
static int draw_prompt(const struct session *s, struct lwm_ids *ids, const char *what, const char *prompt,
		       struct lwm_err *e)
{
	char before[80];

	snprintf(before, sizeof before, SYSTEM LWM_CHAT_USER "Generate %s of ", what);
	LWM_TRY(add_id(ids, lwm_tokenizer_bos(s->on.tok), e));
	if (prompt)
		LWM_TRY(add_framed(s, ids, before, prompt, LWM_CHAT_ASSISTANT, e));
	return add_text(s, ids, "<vision>", e);
}

/* Draws frames that follow a prompt (and the frames `have` of the same clip). */
static int draw_frames(const struct session *s, const char *what, const char *prompt, const int32_t *have, int64_t nhave,
		       int64_t frames, int64_t sample, int32_t *codes, struct lwm_err *e)
{
	bool guided = o.guide_image != 1 || o.guide_video != 1;
	const struct lwm_frames_plan how = { o.image, o.video, o.guide_image, o.guide_video, (uint64_t)sample, s->on.frame_codes,
					     s->on.vq.cfg.num_embeddings, frames, nhave };
	struct lwm_ids ids[2] = { { 0 }, { 0 } };
	struct lwm_progress p;
	int rc = 0;

	lwm_progress_begin(&p, "drawing", "codes", frames * s->on.frame_codes);
	for (int i = 0; i < 1 + guided; i++) {
		LWM_GO(draw_prompt(s, &ids[i], what, i ? NULL : prompt, e));
		LWM_GO(lwm_frames_ids(&ids[i], &s->on.m.cfg, have, nhave, s->on.frame_codes, true, e));
		LWM_GO(lwm_session_check(&s->on, lwm_frames_context(&ids[i], &how), e));
	}
	LWM_GO(lwm_draw_frames(s->on.g, ids, 1 + guided, &how, codes, show_progress, &p, e));
out:
	lwm_progress_end(&p);
	lwm_ids_release(&ids[0]);
	lwm_ids_release(&ids[1]);
	return rc;
}

static int print_made(const char *name, int64_t frames, int64_t sample, struct lwm_err *e)
{
	struct lwm_str b = { 0 };
	int rc;

	lwm_str_printf(&b, "{\"sample\":%" PRId64 ",\"output\":", sample);
	lwm_str_json(&b, name, strlen(name));
	lwm_str_printf(&b, ",\"frames\":%" PRId64 "}", frames);
	rc = lwm_str_ok(&b, e);
	if (rc == 0)
		puts(b.s);
	lwm_str_release(&b);
	return rc;
}

static struct lwm_drawn way_to_draw(const struct session *s)
{
	return (struct lwm_drawn){ s->on.vq.net, s->on.width, s->on.height, o.fps, o.zoom, s->common->force };
}

static int tell_made(void *arg, const char *name, int64_t frames, int64_t sample, struct lwm_err *e)
{
	const struct session *s = arg;

	if (s->common->json)
		return print_made(name, frames, sample, e);
	lwm_log(LWM_INFO, "%s: %" PRId64 " frame%s of %" PRId64 "x%" PRId64, name, frames, frames == 1 ? "" : "s", s->on.width,
		s->on.height);
	return 0;
}

static int save_frames(const struct session *s, const int32_t *codes, int64_t frames, int64_t sample, struct lwm_err *e)
{
	const struct lwm_drawn how = way_to_draw(s);
	char *name;
	int rc = lwm_drawn_name(&name, o.output, sample, o.samples, e);

	if (rc == 0)
		rc = lwm_drawn_write(&how, name, codes, frames, e);
	if (rc == 0)
		rc = tell_made((void *)s, name, frames, sample, e);
	free(name);
	return rc;
}

/* The published way to a clip: its first frame is drawn as an image, the others after it under the clip's prompt. */
static int run_draw(const struct session *s, const char *prompt, struct lwm_err *e)
{
	int64_t frames = o.mode == MODE_IMAGE ? 1 : o.frames, first = o.raw ? frames : 1;
	int32_t *codes = malloc((size_t)(frames * s->on.frame_codes) * sizeof *codes);
	int rc = 0;

	if (!codes)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %" PRId64 " frames", frames);
	for (int64_t i = 0; i < o.samples; i++) {
		LWM_GO(draw_frames(s, "an image", prompt, NULL, 0, first, i, codes, e));
		if (frames > first)
			LWM_GO(draw_frames(s, "a video", prompt, codes, first, frames - first, i,
					   codes + first * s->on.frame_codes, e));
		LWM_GO(save_frames(s, codes, frames, i, e));
	}
out:
	free(codes);
	return rc;
}

static int run_ask(const struct session *s, const char *question, struct lwm_err *e)
{
	struct lwm_frames_opts how = { .sample_frames = o.max_frames, .width = (int)s->on.width, .height = (int)s->on.height,
				       .max_pixels = o.max_pixels };
	struct lwm_ids ids = { 0 };
	uint8_t *rgb = NULL;
	int32_t *codes = NULL;
	int64_t frames = 0;
	int rc = 0;

	LWM_GO(lwm_frames_read(o.input.v[0], &how, (int64_t)1 << 32, &rgb, &frames, NULL, e));
	codes = malloc((size_t)(frames * s->on.frame_codes) * sizeof *codes);
	if (!codes)
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "no memory for the codes of %" PRId64 " frames", frames));
	LWM_GO(lwm_vqgan_encode(s->on.vq.net, rgb, frames, s->on.height, s->on.width, codes, e));
	LWM_GO(add_id(&ids, lwm_tokenizer_bos(s->on.tok), e));
	if (!o.raw)
		LWM_GO(add_framed(s, &ids, SYSTEM LWM_CHAT_USER, question, "\n", e));
	LWM_GO(add_text(s, &ids, "<vision>", e));
	LWM_GO(lwm_frames_ids(&ids, &s->on.m.cfg, codes, frames, s->on.frame_codes, false, e));
	LWM_GO(add_text(s, &ids, "</vision>", e));
	LWM_GO(add_text(s, &ids, o.raw ? question : LWM_CHAT_ASSISTANT, e));
	LWM_GO(write_answers(s, &ids, question, e));
out:
	lwm_ids_release(&ids);
	free(codes);
	free(rgb);
	return rc;
}

/* ---- a world ---- */

static int open_world(const struct session *s, struct lwm_world_batch *b, struct lwm_err *e)
{
	*b = (struct lwm_world_batch){ .samples = o.samples, .how = way_to_draw(s), .made = tell_made, .arg = (void *)s,
		.w = { .g = s->on.g, .net = s->on.vq.net,
		       .frames = { .fps = o.fps, .width = (int)s->on.width, .height = (int)s->on.height, .max_frames = o.given,
				   .max_pixels = o.max_pixels },
		       .roll = { .sampler = o.video, .guide = o.guide_video, .over = (enum lwm_guide_over)o.guide_over,
				 .frame_codes = s->on.frame_codes, .codes = s->on.vq.cfg.num_embeddings, .rounds = o.rounds,
				 .frames = o.frames, .overlap = o.overlap } } };
	LWM_TRY(lwm_world_set(&b->w, s->on.tok, &o.action, e));
	LWM_TRY(lwm_session_check(&s->on, lwm_world_context(&b->w), e));
	return lwm_world_list(b, &o.input, o.output, o.out_dir, e);
}

static int plan_world(const struct session *s, const struct lwm_world_batch *b)
{
	int64_t context = lwm_world_context(&b->w), bytes = lwm_cache_bytes(&s->on.m.cfg, context, lwm_engine_cache_dtype(s->on.g));

	printf("{\"weights\":%" PRId64 ",\"clips\":%" PRId64 ",\"rounds\":%" PRId64 ",\"frames\":%" PRId64 ",\"context\":%" PRId64
	       ",\"cache_bytes\":%" PRId64 "}\n", lwm_llama_count(&s->on.m.cfg), b->out.n, o.rounds, lwm_roll_frames(&b->w.roll),
	       context, bytes * (o.guide_video != 1 ? 2 : 1));
	return 0;
}

/* One line of JSON for each input. */
static int rate_world(const struct lwm_world_batch *b, struct lwm_err *e)
{
	int rc = 0;

	for (int64_t i = 0; i < b->in.n && rc == 0; i++) {
		struct lwm_reward r;

		if (lwm_stop_wanted() >= LWM_STOP_END)
			return lwm_fail(e, LWM_ESAVED, "stopped (%s) after %" PRId64 " of %" PRId64 " inputs", lwm_stop_reason(), i, b->in.n);
		rc = lwm_world_rate(&b->w, b->in.v[i], (uint64_t)(i * o.samples), o.samples, &r, e);
		if (rc == 0)
			rc = lwm_tool_json(json_pack("{s:s,s:I,s:f,s:f}", "input", b->in.v[i], "samples", (json_int_t)o.samples, "variance",
						     lwm_reward_variance(&r), "reward", lwm_reward_value(&r)), e);
		lwm_reward_release(&r);
	}
	return rc;
}

static int run_world(struct session *s, struct lwm_err *e)
{
	struct lwm_world_batch b;
	char vqgan[33];
	int rc = open_world(s, &b, e);

	if (rc < 0 || s->common->plan) {
		rc = rc < 0 ? rc : plan_world(s, &b);
		goto out;
	}
	lwm_stop_install(LWM_STOP_GRACE, NULL);
	LWM_GO(lwm_vqgan_hash(s->on.dev, &s->on.vq.cfg, &s->on.vq.weights.base, vqgan, e));
	if (o.out_dir)
		LWM_GO(lwm_world_claim(&b, o.out_dir, json_pack("{s:s,s:s,s:o,s:I}", "model", s->on.m.hash, "vqgan", vqgan, "actions",
				       lwm_json_strings(o.action.v, o.action.n), "seed", (json_int_t)s->common->seed), e));
	rc = o.reward ? rate_world(&b, e) : lwm_world_draw_all(&b, e);
out:
	lwm_world_release(&b);
	return rc;
}

/* ---- */

static int check_options(struct lwm_err *e)
{
	bool world = o.mode == MODE_WORLD, draws = o.mode == MODE_IMAGE || o.mode == MODE_VIDEO || world;

	if (o.prompt && o.prompt_file)
		return lwm_fail(e, LWM_EUSAGE, "--prompt and --prompt-file exclude each other");
	if (world && (o.prompt || o.prompt_file))
		return lwm_fail(e, LWM_EUSAGE, "--mode world takes no prompt: it goes on from --input under --action");
	if (!world && (o.action.n || o.out_dir))
		return lwm_fail(e, LWM_EUSAGE, "%s is for --mode world", o.action.n ? "--action" : "--out-dir");
	if (o.reward && (!world || o.output || o.out_dir || o.samples < 2))
		return lwm_fail(e, LWM_EUSAGE, "--reward is for --mode world, with two --samples or more, and writes no files");
	if (world && !o.reward && (o.output != NULL) == (o.out_dir != NULL))
		return lwm_fail(e, LWM_EUSAGE, "--mode world needs --output or --out-dir, one of them");
	if (draws && !o.out_dir && !o.reward && (!o.output || !strrchr(lwm_path_base(o.output), '.')))
		return lwm_fail(e, LWM_EUSAGE, "--mode %s needs --output with a suffix", modes[o.mode]);
	if (!draws && o.output)
		return lwm_fail(e, LWM_EUSAGE, "--output is for frames; text goes to standard output");
	if ((o.mode == MODE_ASK || world) != (o.input.n > 0))
		return lwm_fail(e, LWM_EUSAGE, o.input.n ? "--input is for --mode ask and world" : "--mode %s needs --input", modes[o.mode]);
	if (o.mode == MODE_ASK && o.input.n > 1)
		return lwm_fail(e, LWM_EUSAGE, "--mode ask looks at one --input, not at %" PRId64, o.input.n);
	if (o.mode >= MODE_IMAGE && !o.vqgan)
		return lwm_fail(e, LWM_EUSAGE, "--mode %s needs --vqgan", modes[o.mode]);
	return 0;
}

static int show_plan(const struct session *s)
{
	int64_t n = s->on.context, bytes = lwm_cache_bytes(&s->on.m.cfg, n, lwm_engine_cache_dtype(s->on.g));

	printf("{\"weights\":%" PRId64 ",\"context\":%" PRId64 ",\"cache_bytes\":%" PRId64 "}\n",
	       lwm_llama_count(&s->on.m.cfg), n, bytes);
	return 0;
}

static int run_mode(struct session *s, struct lwm_err *e)
{
	char *text = NULL;
	size_t n;
	int rc = 0;

	if (o.mode == MODE_WORLD)
		return run_world(s, e);
	if (s->common->plan)
		return show_plan(s);
	if (o.mode == MODE_CHAT && !o.prompt && !o.prompt_file)
		return run_turns(s, e);
	if (!o.prompt) {
		LWM_TRY(lwm_read_file(o.prompt_file ? o.prompt_file : "-", (int64_t)1 << 30, &text, &n, e));
		if (o.mode != MODE_TEXT && n && text[n - 1] == '\n')
			text[n - 1] = 0;
	}
	if (o.mode <= MODE_CHAT)
		rc = run_text(s, text ? text : o.prompt, e);
	else if (o.mode == MODE_ASK)
		rc = run_ask(s, text ? text : o.prompt, e);
	else
		rc = run_draw(s, text ? text : o.prompt, e);
	free(text);
	return rc;
}

static int sample_model(const struct lwm_args *a, struct lwm_err *e)
{
	struct session s = { .common = &a->common };
	int rc;

	LWM_TRY(check_options(e));
	if (o.output && !a->common.force) /* before hours go into it */
		LWM_TRY(lwm_drawn_check(o.output, o.samples, e));
	if (o.prompt_file && strcmp(o.prompt_file, "-")) /* before the model is read */
		LWM_TRY(lwm_path_want(o.prompt_file, e));
	for (int64_t i = 0; i < o.input.n; i++)
		LWM_TRY(lwm_path_want(o.input.v[i] + (o.input.v[i][0] == '@'), e));
	o.text.seed = o.image.seed = o.video.seed = (uint64_t)a->common.seed;
	rc = open_all(&s, e);
	if (rc == 0)
		rc = run_mode(&s, e);
	lwm_session_close(&s.on);
	lwm_paths_release(&o.input);
	lwm_paths_release(&o.action);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, sample_model);
}
