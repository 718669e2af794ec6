/* clipdoc.h - clips as documents: their codes, the text that lies beside them, and the shard they go into.
 *
 *	lwm_clip_shard_done(shard, config, &in, max_bad, &replace, e)      1: nothing to do
 *	for each clip, encoded:
 *		lwm_clip_document(f, path, &codes, number, &d, e)          then lwm_docs_append
 *		lwm_clip_inputs(w, path, number, &key, e)                  its files go into the manifest; key names it as a unit
 *
 *	lwm_clip_codes(tokens, n, ...)                                     the way back, for a decoder
 *
 * The text of clip.mp4 is clip.txt and clip.json beside it, that of a folder of images is FOLDER.txt and FOLDER.json. Local calls.
 * Errors beside those named: -LWM_EIO, -LWM_EMEMORY.
 */
#ifndef LWM_DATA_INGEST_CLIPDOC_H
#define LWM_DATA_INGEST_CLIPDOC_H

#include "common/base/path.h"
#include "common/data/ingest/fields.h"
#include "common/io/docshard.h"

/* Adds the folders at and below `path` (a folder or @LIST) that hold images, sorted by name. None: -LWM_ENOINPUT. */
int lwm_clip_folders(struct lwm_paths *out, const char *path, struct lwm_err *e);
/* The document of a clip: codes for names with "vision" in them; "caption" is STEM.txt without space around it; any other
 * name, or caption where there is no STEM.txt, is that key of the object in STEM.json. `number` picks the alternative.
 * -LWM_EDATA: text is missing or malformed; d->fault may name the reason. */
int lwm_clip_document(const struct lwm_fields *f, const char *path, const struct lwm_ids *codes, int64_t number,
		      struct lwm_docbuf *d, struct lwm_err *e);
/* The other way: codes of all frames in a document's tokens, appended to *codes. vision_codes: size of the codebook, C; the
 * end of a frame is id vocab_text + C. per: codes of a frame. -LWM_EDATA: a frame of another length, or an id in between that
 * is no code. Documents without vision give none. */
int lwm_clip_codes(const int32_t *tokens, int64_t n, int64_t vocab_text, int64_t vision_codes, int64_t per,
		   struct lwm_ids *codes, struct lwm_err *e);
/* What names a clip as a unit of a shard (docshard.h), into *key: its number; name, size and content of its files (a folder has
 * several). */
int lwm_clip_key(const char *path, int64_t number, struct lwm_str *key, struct lwm_err *e);
/* The same, and the files go into the manifest. */
int lwm_clip_inputs(struct lwm_docs_writer *w, const char *path, int64_t number, struct lwm_str *key, struct lwm_err *e);
/* 1: the shard is there, every byte of it verified, and made from the content of these inputs and this configuration; 0: it is to
 * be made (*replace: in the place of a damaged one). -LWM_ECANTCREATE: it is another one; -LWM_EDATA: made without more than
 * max_bad inputs (negative: any number). */
int lwm_clip_shard_done(const char *shard, const char *config, const struct lwm_paths *in, int64_t max_bad, bool *replace,
			struct lwm_err *e);

#endif
