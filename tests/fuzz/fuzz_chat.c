/* Turn lists in JSON files: every layout, clips with codes of their own, words of the model.
 *
 * The first byte chooses the settings, the rest is the file. Every record is refused for a reason or becomes a document; in a
 * document the words of the frame stand as often as there are turns, whatever the texts say, and answers have loss. */
#include <sys/mman.h>
#include <unistd.h>

#include "common/data/chatframe.h"
#include "common/data/ingest/ingest_int.h"
#include "tests/fuzz/replay.h"

enum { FRAME = 2, CODES = 16 };
static struct lwm_tokenizer *bytes;

static void must_at(bool ok, int line)
{
	if (ok)
		return;
	fprintf(stderr, "fuzz_chat.c:%d does not hold\n", line);
	abort();
}
#define must(cond) must_at(cond, __LINE__)

static int64_t count_word(const struct lwm_str *text, const char *word)
{
	int64_t n = 0;
	for (const char *s = lwm_str_get(text); (s = memmem(s, text->len - (size_t)(s - text->s), word, strlen(word))); s++)
		n++;
	return n;
}

/* Bytes as text; codes as nothing. */
static void check_document(const struct lwm_docbuf *d, bool vision)
{
	struct lwm_str text = { 0 };
	int64_t codes = 0, vocab = lwm_tokenizer_vocab(bytes);
	for (int64_t i = 0; i < d->ids.n; i++) {
		codes += d->ids.v[i] >= vocab;
		if (d->ids.v[i] >= 3 && d->ids.v[i] < vocab)
			lwm_str_putc(&text, (char)(d->ids.v[i] - 3));
	}
	int64_t questions = count_word(&text, LWM_CHAT_USER), clips = count_word(&text, "<vision>");
	must(questions > 0 && questions == count_word(&text, "ASSISTANT:"));
	must(clips == count_word(&text, "</vision>") && (clips > 0) == (codes > 0) && (vision || !clips));
	must(codes == d->frames * (FRAME + 1) && d->frames >= clips);
	must(count_word(&text, "<s>") + count_word(&text, "</s>") + count_word(&text, "<|") == 0);
	must(lwm_docbuf_loss_tokens(d) > questions); /* an answer and its </s> each */
	lwm_str_release(&text);
}

static void read_records(const struct lwm_ingest_cfg *c, const char *path, bool vision)
{
	struct lwm_reader r;
	struct lwm_record rec = { 0 };
	struct lwm_err e = { 0 };
	int64_t line = 0;
	int more;
	if (lwm_reader_open(&r, c, path, &e) < 0) {
		must(e.code && *e.msg);
		return;
	}
	while ((more = lwm_reader_next(&r, &rec, &e)) > 0) {
		must(rec.line >= line && (rec.line > line || rec.nth > 0));
		line = rec.line;
		must(rec.text.len <= (size_t)c->max_bytes);
		must(lwm_record_encode(&rec, c, path, &e) == 0);
		must(!rec.malformed || *rec.why.msg);
		if (!rec.fault)
			check_document(&rec.doc, vision);
	}
	must(more == 0 || (e.code && *e.msg));
	lwm_reader_close(&r);
	lwm_str_release(&rec.text);
	lwm_docbuf_release(&rec.doc);
}

static void fuzz_one(const uint8_t *p, size_t n)
{
	static const char *const text[] = { "<|chat|>" };
	struct lwm_ingest_cfg c = { .max_bad = -1, .threads = 1, .tool = "fuzz", .config = "{}", .policy = "bos,eos" };
	struct lwm_fields *fields;
	char path[64];
	if (n < 1 || n > 1 << 20)
		return;
	if (!bytes)
		must(lwm_tokenizer_open(&bytes, "bytes", NULL) == 0);
	const struct lwm_fields_cfg cfg = { .fields = text, .nfields = 1, .frame_codes = FRAME, .vision_codes = CODES,
					    .chat = { .layout = (enum lwm_chat_layout)(p[0] % 7), .escape = p[0] & 64,
						      .vision = p[0] & 128 } };
	must(lwm_fields_open(&fields, &cfg, bytes, NULL) == 0);
	c.tokenizer = bytes;
	c.fields = fields;
	c.format = LWM_FORMAT_JSON;
	c.max_bytes = p[0] & 32 ? 200 : 1 << 20;
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	must(fd >= 0 && write(fd, p + 1, n - 1) == (ssize_t)(n - 1));
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	read_records(&c, path, cfg.chat.vision);
	close(fd);
	lwm_fields_free(fields);
}
