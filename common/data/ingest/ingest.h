/* ingest.h - text files into document shards: .txt, .jsonl, each also as .gz or .zst.
 *
 *	lwm_ingest_find(&in, path, e) ...                      what to read
 *	lwm_ingest_names(&in, dir, &out, e)                    a shard for each input; or the same name for all of them
 *	lwm_ingest_run(&cfg, &in, &out, &stats, e)
 *
 * Records are read in order, tokenised by several threads, appended in order: threads change the speed, never a byte.
 * Every record is either written or rejected for a reason that the manifest counts:
 *   malformed: "bad json", "bad utf-8", "missing key", "wrong type", "bad codes", "bad fields", "line too long"
 *   filtered:  "empty", "too short", "too long"
 */
#ifndef LWM_DATA_INGEST_INGEST_H
#define LWM_DATA_INGEST_INGEST_H

#include "common/base/path.h"
#include "common/base/progress.h"
#include "common/data/ingest/fields.h"

/* auto: by the name. The others are those of formats.c in their order; only these are asked for by number. */
enum lwm_text_format { LWM_FORMAT_AUTO, LWM_FORMAT_TEXT, LWM_FORMAT_JSONL, LWM_FORMAT_JSON };
extern const char *const lwm_text_format_names[]; /* of all, then NULL */
/* Adds the file `path`, or those of an @LIST, or those of a folder (lwm_paths_expand) whose names say a format: every name that a
 * format goes by; usual: only the first of each (.txt, .jsonl). Packed files have such a name and the suffix of the packing. */
int lwm_ingest_find(struct lwm_paths *out, const char *path, bool usual, struct lwm_err *e);
/* What the name of a file says, by the same names; text when it says nothing. */
enum lwm_text_format lwm_ingest_format(const char *path, bool usual);

struct lwm_ingest_cfg {
	struct lwm_tokenizer *tokenizer; /* borrowed, like all that follows */
	const struct lwm_fields *fields; /* what of a record becomes tokens */
	enum lwm_text_format format;
	int64_t vision_table;       /* vocab_vision of the shards: codes and their two marks, or 0 */
	int64_t min_tokens, max_tokens; /* documents outside of this are filtered, marks counted; max 0: none is too long */
	int64_t split_lines;        /* text: so many lines are one document; 0: the whole file is */
	const char *separator;      /* text: a line equal to this ends a document; NULL: none does */
	int64_t max_bytes;          /* longer lines, or texts of one document, are malformed; 0: 256 MiB */
	int64_t max_bad;            /* an input with more malformed records than this fails; < 0: none does for that */
	bool replace_bad_utf8;      /* malformed bytes become U+FFFD instead of refusing the record */
	bool force;                 /* shards are written again whatever is there */
	int threads;                /* that tokenise */
	const char *tool, *config;  /* for provenance: config is the text that with the inputs decides every byte */
	const char *policy;         /* "bos,eos" */
	void (*say)(bool warning, const char *text); /* rejected records, complete shards; may be NULL */
	struct lwm_progress *progress; /* in bytes of input; may be NULL */
};

/* in = out + malformed + filtered, in records; skipped: shards that were complete. */
struct lwm_ingest_stats {
	int64_t in, out, malformed, filtered, tokens, loss_tokens, frames, bytes, shards, skipped;
	int64_t failed; /* inputs that could not be used */
};

/* in[i] goes to out[i]; neighbours with the same output go into one shard. A shard that is there, whole, and was made from the same
 * configuration and content is skipped, a damaged one is made again, one made from other things is -LWM_ECANTCREATE without force.
 * An input that cannot be read, has more than max_bad malformed records or nothing but malformed ones costs itself alone: the run
 * continues, a shard that lacks an input is not published but keeps the others aside, and the run ends with the first failure's
 * code and the number of them. -LWM_ESAVED after a stop that was asked for (common/base/stop.h): finished inputs are kept.
 * Memory is never an input's fault: its lack ends the run. */
int lwm_ingest_run(const struct lwm_ingest_cfg *cfg, const struct lwm_paths *in, const struct lwm_paths *out,
		   struct lwm_ingest_stats *stats, struct lwm_err *e);
/* DIR/NAME.docs.h5 for each input, NAME without .gz, .zst, .txt, .jsonl. Two inputs of one name: -LWM_EUSAGE. */
int lwm_ingest_names(const struct lwm_paths *in, const char *dir, struct lwm_paths *out, struct lwm_err *e);

#endif
