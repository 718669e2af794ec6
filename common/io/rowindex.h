/* rowindex.h - what a loader must know of the row shards of a folder, in one file: rows.index.json (lwm-rows-index-1, sealed).
 *
 *	lwm_rowindex_update(dir, e)                               by the packer, when the shards of the folder stand
 *
 *	lwm_rowindex_read(&x, dir, e)                             by a loader; 0: the folder has none
 *	lwm_rowindex_facts(&x, path, &facts, &indexed, e)         of each shard
 *	lwm_rows_open_as(&r, path, &facts, e)                     rowshard.h; when a row of it is wanted
 *	lwm_rowindex_release(&x)
 *
 * Ten thousand shards cannot be opened before training starts. The index says of each what its manifest says: size, rows, what the
 * rows are, content id and hash. It is a shortcut, never the truth: an entry counts while the shard has the size of the entry and
 * was neither written nor renamed after the index; of any other shard the manifest is read. So a folder without an index, with one
 * of fewer shards, or one that was copied, is read slower and not otherwise. Whoever opens a shard compares its content id.
 * The index of the same shards has the same bytes. Local calls.
 */
#ifndef LWM_IO_ROWINDEX_H
#define LWM_IO_ROWINDEX_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "common/base/err.h"
#include "common/io/rowshard.h"

#define LWM_ROWINDEX_NAME "rows.index.json"

struct lwm_rowindex_entry {
	char *name;
	struct lwm_rows_facts facts;
};
struct lwm_rowindex {
	struct lwm_rowindex_entry *v; /* ascending by name */
	int64_t n;
	struct timespec at; /* since when it stands under its name */
};

/* The index of a folder: 1, 0 there is none (*x is empty), -LWM_EDATA damaged. */
int lwm_rowindex_read(struct lwm_rowindex *x, const char *dir, struct lwm_err *e);
void lwm_rowindex_release(struct lwm_rowindex *x);
/* Facts of one shard: from the index of its folder (NULL: none) where that counts, else from its manifest; the file has the size
 * that they say. *indexed (may be NULL): from the index. */
int lwm_rowindex_facts(const struct lwm_rowindex *x, const char *path, struct lwm_rows_facts *out, bool *indexed,
		       struct lwm_err *e);
/* Makes the index of all row shards (*.h5) of the folder, unless the one that stands there is what would be made. Shards without
 * manifest, and of another kind, have no place in it. */
int lwm_rowindex_update(const char *dir, struct lwm_err *e);
/* Is the record whole, and does every entry say what the shard's manifest says? -LWM_EDATA when not. `path` is the index's. */
int lwm_rowindex_check(const char *path, struct lwm_err *e);

#endif
