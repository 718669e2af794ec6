/* shelf.h - codes of clips that were encoded before, found by the names that chat data sets call the clips.
 *
 *	lwm_shelf_open(&s, shards, nshards, tokenizer, vision_codes, frame_codes, e)      document shards of lwm-vqgan-encode
 *	lwm_shelf_codes(s, "coco/train2017/000000033471.jpg", &ids, e) ...
 *	lwm_shelf_close(s)
 *
 * A name means the clip whose path, as it was given to the encoder, ends in it, folder by folder: "train2017/1.jpg" is
 * data/coco/train2017/1.jpg. Suffixes of media are no part of names: "v_1" and "v_1.mp4" are the same. Two clips of one name are
 * refused when it is asked for. So a clip is encoded once, whatever is said of it, and with as many frames as any stage wants.
 *
 * Memory: the paths, and 40 bytes for each clip; codes are read when they are asked for. Opening and closing are local; codes may
 * be asked for by any number of threads, which take turns.
 */
#ifndef LWM_DATA_INGEST_SHELF_H
#define LWM_DATA_INGEST_SHELF_H

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/path.h"
#include "common/text/tokenizer.h"

struct lwm_shelf;
/* shards: files, folders, @LISTs. -LWM_ENOINPUT; -LWM_EDATA: damaged; -LWM_ECONFIG: made with another tokenizer than t, or with
 * another codebook. */
int lwm_shelf_open(struct lwm_shelf **out, const struct lwm_paths *shards, const struct lwm_tokenizer *t, int64_t vision_codes,
		   int64_t frame_codes, struct lwm_err *e);
void lwm_shelf_close(struct lwm_shelf *s); /* NULL is fine */
/* Appends all codes of the clip, frame by frame. -LWM_EDATA: there is none of that name, or several, or it is no clip. */
int lwm_shelf_codes(void *shelf, const char *name, struct lwm_ids *out, struct lwm_err *e);
int64_t lwm_shelf_clips(const struct lwm_shelf *s);
struct lwm_hash lwm_shelf_hash(const struct lwm_shelf *s); /* of the content of the shards, in their order */

#endif
