/* lwm-synth - writes the made-up world of common/synth to disk.
 *
 * Books, clips and images fill a folder, whose record synth.json is written last and says what is in it; chats, dialogues, needles
 * and symbols are one file of lines. Both are complete or not there. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/num.h"
#include "common/base/outfile.h"
#include "common/base/progress.h"
#include "common/cli/opt.h"
#include "common/eval/needle_eval.h"
#include "common/io/model.h"
#include "common/media/picture.h"
#include "common/synth/synth.h"
#include "common/text/tokenizer.h"

enum kind { BOOKS, CHATS, DIALOGUES, NEEDLES, CLIPS, IMAGES, DRIVES, SYMBOLS };
static const char *const kinds[] = { "books", "chats", "dialogues", "needles", "clips", "images", "drives", "symbols", NULL };
static const char *const answers[] = { "numbers", "sentences", NULL }, *const stores[] = { "video", "png", NULL };

static struct {
	const char *output, *tokenizer;
	int kind, answer, store;
	int64_t count, first, sentences, facts, ask, tokens, size, frames;
	double fps;
	struct lwm_paths haystack;
} a = { .count = 100, .sentences = 600, .facts = 2, .ask = 1, .tokens = 256, .size = 64, .frames = 8 };

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('o', "output", &a.output, "PATH", "a folder (books, clips, images, drives) or a file", LWM_OPT_REQUIRED),
	LWM_OPT_INT('n', "count", &a.count, 1, 1e9, "N", "how many", 0),
	LWM_OPT_INT(0, "first", &a.first, 0, 1e12, "I", "number of the first one", 0),
	LWM_OPT_HEAD("Books and needles"),
	LWM_OPT_INT(0, "sentences", &a.sentences, 1, 1e9, "N", "of a book", 0),
	LWM_OPT_INT(0, "facts", &a.facts, 0, 64, "N", "planted in a document", 0),
	LWM_OPT_INT(0, "ask", &a.ask, 0, 64, "N", "needles: how many are asked for; 0: 1 to all, drawn", 0),
	LWM_OPT_INT(0, "tokens", &a.tokens, 16, 1 << 30, "N", "needles: of a document at most; drawn from half of it up", 0),
	LWM_OPT_STR('t', "tokenizer", &a.tokenizer, "SPEC", "needles: what counts the tokens", 0),
	LWM_OPT_LIST(0, "haystack", &a.haystack, "FILE",
		     "needles: real text to hide them in, .txt or .jsonl with key \"text\"; default: made-up sentences", 0),
	LWM_OPT_CHOICE(0, "answer", &a.answer, answers, "needles: what the answer is", 0),
	LWM_OPT_HEAD("Clips, images and drives"),
	LWM_OPT_INT(0, "size", &a.size, 16, 1024, "N", "pixels of a side", 0),
	LWM_OPT_INT(0, "frames", &a.frames, 1, 100000, "N", "frames of a clip", 0),
	LWM_OPT_DOUBLE(0, "fps", &a.fps, 0, 1000, "X", "frames a second; 0: 4, of drives 2, which is what theirs are", 0),
	LWM_OPT_CHOICE(0, "store", &a.store, stores, "a clip is an .mp4, or a folder of .png (lossless)", 0),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-synth",
	.summary = "a small made-up world: books, chats, moving shapes, drives, needle documents",
	.operands = "books|chats|dialogues|needles|clips|images|drives|symbols",
	.min_operands = 1,
	.max_operands = 1,
	.opts = opts,
	.details =
		"books    DIR/book-NNNNN.txt and DIR/questions.jsonl about the facts in them\n"
		"chats    FILE.jsonl with prompt and answer\n"
		"dialogues FILE.jsonl with messages: two turns, the second about what the first one told\n"
		"needles  FILE.jsonl with prompt and answer, in the words of the needle evaluation\n"
		"clips    DIR/clip-NNNNN.mp4; beside each .txt (caption) and .json (all strings)\n"
		"images   DIR/image-NNNNN.png, likewise\n"
		"drives   DIR/drive-NNNNN.mp4, a car on a road; beside each .txt (caption) and .json\n"
		"         (caption, actions, truth)\n"
		"symbols  FILE.txt for lwm-tokenizer-train: strings worth a piece of their own\n"
		"\n"
		"Item I is a function of --seed and I: another seed or --first gives held-out data.\n",
	.examples = "lwm-synth books -n 40 -o books/\n"
		    "lwm-synth needles -n 20000 --tokens 64 --facts 2 --ask 2 -t tokenizer.model -o needles.jsonl\n"
		    "lwm-synth clips -n 500 --size 64 --frames 8 --seed 7 -o clips/\n",
};

/* A text file of the folder. The folder's record synth.json is written last, so what is there without it is
 * unfinished. */
static int write_text(const char *name, const struct lwm_str *text, struct lwm_err *e)
{
	char *path = lwm_path_join(a.output, name);
	int rc = path ? lwm_str_ok(text, e) : lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
	if (rc == 0)
		rc = lwm_write_file(path, lwm_str_get(text), text->len, true, e);
	free(path);
	return rc;
}

static int make_books(uint64_t seed, struct lwm_progress *p, struct lwm_err *e)
{
	struct lwm_str text = { 0 }, questions = { 0 };
	int rc = 0;
	for (int64_t i = 0; i < a.count && rc == 0; i++) {
		char name[48];
		lwm_str_reset(&text);
		lwm_synth_write_book(seed, a.first + i, a.sentences, a.facts, &text, &questions);
		snprintf(name, sizeof name, "book-%05" PRId64 ".txt", a.first + i);
		rc = write_text(name, &text, e);
		lwm_progress_at(p, i + 1);
	}
	if (rc == 0)
		rc = write_text("questions.jsonl", &questions, e);
	lwm_str_release(&text);
	lwm_str_release(&questions);
	return rc;
}

static int write_clip(const struct lwm_synth_clip *c, const struct lwm_synth_drive *d, const char *stem, uint8_t *rgb,
		      struct lwm_err *e)
{
	int64_t frames = a.kind == IMAGES ? 1 : a.frames;
	int size = (int)a.size, rc = 0;
	size_t bytes = (size_t)size * (size_t)size * 3;
	char path[4096];
	for (int64_t t = 0; t < frames; t++)
		if (a.kind == DRIVES)
			lwm_synth_render_drive(d, t, size, rgb + (size_t)t * bytes);
		else
			lwm_synth_render_frame(c, t, frames, size, rgb + (size_t)t * bytes);
	if (a.kind == IMAGES) {
		snprintf(path, sizeof path, "%s.png", stem);
		return lwm_picture_write(path, rgb, size, size, 0, true, e);
	}
	if (a.store == 0) {
		snprintf(path, sizeof path, "%s.mp4", stem);
		return lwm_video_write(path, rgb, frames, size, size, a.fps, true, e);
	}
	LWM_TRY(lwm_mkdirs(stem, e));
	for (int64_t t = 0; t < frames && rc == 0; t++) {
		snprintf(path, sizeof path, "%s/%05" PRId64 ".png", stem, t);
		rc = lwm_picture_write(path, rgb + (size_t)t * bytes, size, size, 0, true, e);
	}
	return rc;
}

static int make_clips(uint64_t seed, struct lwm_progress *p, struct lwm_err *e)
{
	bool still = a.kind == IMAGES;
	int64_t frames = still ? 1 : a.frames;
	uint8_t *rgb = malloc((size_t)frames * (size_t)a.size * (size_t)a.size * 3);
	struct lwm_str text = { 0 };
	int rc = rgb ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " frames", frames);
	for (int64_t i = 0; i < a.count && rc == 0; i++) {
		struct lwm_synth_clip c = lwm_synth_draw_clip(seed, a.first + i);
		struct lwm_synth_drive d = lwm_synth_draw_drive(seed, a.first + i);
		char name[64], stem[4000];
		int n = snprintf(name, sizeof name, "%s-%05" PRId64, still ? "image" : a.kind == DRIVES ? "drive" : "clip", a.first + i);
		if (snprintf(stem, sizeof stem, "%s/%s", a.output, name) >= (int)sizeof stem)
			rc = lwm_fail(e, LWM_EUSAGE, "%s: the path is too long", a.output);
		if (rc == 0)
			rc = write_clip(&c, &d, stem, rgb, e);
		lwm_str_reset(&text);
		if (a.kind == DRIVES)
			lwm_synth_write_drive_caption(&d, frames, &text);
		else
			lwm_synth_write_caption(&c, still, &text);
		lwm_str_putc(&text, '\n');
		snprintf(name + n, sizeof name - (size_t)n, ".txt");
		if (rc == 0)
			rc = write_text(name, &text, e);
		lwm_str_reset(&text);
		if (a.kind == DRIVES)
			lwm_synth_write_drive(&d, frames, &text);
		else
			lwm_synth_write_record(&c, still, a.first + i, &text);
		snprintf(name + n, sizeof name - (size_t)n, ".json");
		if (rc == 0)
			rc = write_text(name, &text, e);
		lwm_progress_at(p, i + 1);
	}
	lwm_str_release(&text);
	free(rgb);
	return rc;
}

static int settings_text(int64_t seed, char **out, struct lwm_err *e)
{
	json_t *o = json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:s}", "kind", kinds[a.kind],
			      "seed", (json_int_t)seed,
			      "count", (json_int_t)a.count, "first", (json_int_t)a.first, "sentences",
			      (json_int_t)a.sentences, "facts", (json_int_t)a.facts, "size", (json_int_t)a.size,
			      "frames", (json_int_t)a.frames, "fps", a.fps, "store", stores[a.store]);
	int rc = lwm_json_dump(o, JSON_SORT_KEYS | JSON_COMPACT, "the settings", out, e);
	json_decref(o);
	return rc;
}

/* A folder is complete when its synth.json says so. 1: nothing to do. */
static int folder_done(const char *record, const char *want, bool force, struct lwm_err *e)
{
	char *have;
	size_t n;
	if (force || !lwm_path_exists(record))
		return 0;
	LWM_TRY(lwm_read_file(record, 1 << 16, &have, &n, e));
	bool same = !strcmp(have, want);
	free(have);
	if (same)
		return 1;
	return lwm_fail(e, LWM_ECANTCREATE, "%s: holds other data already (use --force to add to and replace it)",
			a.output);
}

static int make_folder(const struct lwm_common *c, struct lwm_err *e)
{
	struct lwm_progress p;
	char *want, *record = lwm_path_join(a.output, "synth.json");
	int rc = settings_text(c->seed, &want, e);
	if (rc == 0)
		rc = record ? folder_done(record, want, c->force, e) : lwm_fail_memory(e, NULL);
	if (rc == 1)
		lwm_log(LWM_INFO, "%s: complete, nothing to do", a.output);
	if (rc == 0) {
		lwm_progress_begin(&p, "made", kinds[a.kind], a.count);
		LWM_GO(lwm_mkdirs(a.output, e));
		lwm_outfile_batch_begin();
		LWM_GO(a.kind == BOOKS ? make_books((uint64_t)c->seed, &p, e) : make_clips((uint64_t)c->seed, &p, e));
		LWM_GO(lwm_outfile_batch_end(a.output, e));
		LWM_GO(lwm_write_file(record, want, strlen(want), true, e));
		lwm_progress_end(&p);
	}
out:
	free(want);
	free(record);
	return rc < 0 ? rc : 0;
}

static int add_needle(const struct lwm_synth_needle *how, int64_t i, struct lwm_str s[2], struct lwm_str *out,
		      struct lwm_err *e)
{
	LWM_TRY(lwm_synth_write_needle(how, i, &s[0], &s[1], e));
	lwm_str_puts(out, "{\"prompt\": ");
	lwm_str_json(out, lwm_str_get(&s[0]), s[0].len);
	lwm_str_puts(out, ", \"answer\": ");
	lwm_str_json(out, lwm_str_get(&s[1]), s[1].len);
	lwm_str_puts(out, "}\n");
	return 0;
}

static int write_needles(const struct lwm_common *c, struct lwm_outfile *o, struct lwm_err *e)
{
	struct lwm_str s[2] = { { 0 } }, out = { 0 };
	struct lwm_progress p;
	struct lwm_tokenizer *t = NULL;
	struct lwm_haystack h = { 0 };
	int rc = 0;
	if (!a.tokenizer)
		return lwm_fail(e, LWM_EUSAGE, "needles need --tokenizer: it counts the tokens");
	LWM_TRY(lwm_tokenizer_open_as(&t, a.tokenizer, lwm_model_check_file, NULL, NULL, e));
	if (a.haystack.n)
		LWM_GO(lwm_haystack_read(&h, &a.haystack, t, e));
	const struct lwm_synth_needle how = { .seed = (uint64_t)c->seed, .facts = a.facts, .ask = a.ask,
					      .tokens = a.tokens, .sentences = a.answer == 1, .tokenizer = t,
					      .text = h.text.s, .start = h.start, .text_sentences = h.n };
	lwm_progress_begin(&p, "made", kinds[a.kind], a.count);
	for (int64_t i = 0; i < a.count; i++) {
		lwm_str_reset(&out);
		LWM_GO(add_needle(&how, a.first + i, s, &out, e));
		LWM_GO(lwm_str_ok(&out, e));
		LWM_GO(lwm_outfile_write(o, out.s, out.len, e));
		lwm_progress_at(&p, i + 1);
	}
	lwm_progress_end(&p);
out:
	lwm_haystack_release(&h);
	lwm_str_release(&s[0]);
	lwm_str_release(&s[1]);
	lwm_str_release(&out);
	lwm_tokenizer_free(t);
	return rc;
}

static int write_lines(const struct lwm_common *c, struct lwm_outfile *o, struct lwm_err *e)
{
	struct lwm_str out = { 0 };
	const char *const *symbols;
	int64_t n = a.kind == SYMBOLS ? lwm_synth_list_symbols(&symbols) : a.count;
	int rc = 0;
	for (int64_t i = 0; i < n && rc == 0; i++) {
		lwm_str_reset(&out);
		if (a.kind == CHATS)
			lwm_synth_write_chat((uint64_t)c->seed, a.first + i, &out);
		else if (a.kind == DIALOGUES)
			lwm_synth_write_dialogue((uint64_t)c->seed, a.first + i, &out);
		else
			lwm_str_printf(&out, "%s\n", symbols[i]);
		rc = lwm_str_ok(&out, e);
		if (rc == 0)
			rc = lwm_outfile_write(o, out.s, out.len, e);
	}
	lwm_str_release(&out);
	return rc;
}

static int make_file(const struct lwm_common *c, struct lwm_err *e)
{
	struct lwm_outfile *o;
	LWM_TRY(lwm_outfile_open(&o, a.output, c->force, e));
	int rc = a.kind == NEEDLES ? write_needles(c, o, e) : write_lines(c, o, e);
	if (rc == 0)
		return lwm_outfile_commit(o, e);
	lwm_outfile_discard(o);
	return rc;
}

static int make_items(const struct lwm_args *args, struct lwm_err *e)
{
	while (kinds[a.kind] && strcmp(kinds[a.kind], args->operand[0]))
		a.kind++;
	if (!kinds[a.kind])
		return lwm_fail(e, LWM_EUSAGE, "'%s' is none of books, chats, dialogues, needles, clips, images, drives, symbols",
				args->operand[0]);
	if (a.fps == 0)
		a.fps = a.kind == DRIVES ? 2 : 4;
	if (a.kind == DRIVES && a.frames > LWM_SYNTH_DRIVE_MOST)
		return lwm_fail(e, LWM_EUSAGE, "--frames: a drive has at most %d", LWM_SYNTH_DRIVE_MOST);
	if (args->common.plan) {
		printf("%" PRId64 " %s -> %s\n", a.count, kinds[a.kind], a.output);
		return 0;
	}
	bool dir = a.kind == BOOKS || a.kind == CLIPS || a.kind == IMAGES || a.kind == DRIVES;
	return dir ? make_folder(&args->common, e) : make_file(&args->common, e);
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, make_items);
}
