/* zip.h - inside common/io: where the entries of a ZIP archive lie that are stored as they are, as torch.save leaves them.
 *
 *	lwm_zip_open(&z, fd, bytes, path, e)
 *	lwm_zip_find(z, "archive/data.pkl")         where it lies, how long it is
 *	lwm_zip_check(z, entry, e)                  every byte of it against its CRC-32
 *	lwm_zip_close(z)
 *
 * Sizes are the central directory's (ZIP64 too), places follow from local headers. Entries that are compressed, encrypted, reach
 * beyond the file or overlap are refused: -LWM_EDATA. Format: PKWARE APPNOTE 6.3.9. Local calls; the descriptor is the caller's.
 */
#ifndef LWM_IO_ZIP_H
#define LWM_IO_ZIP_H

#include <stdint.h>

#include "common/base/err.h"

struct lwm_zip_entry {
	const char *name; /* 0-terminated */
	int64_t at, bytes; /* of its data in the file */
	uint32_t crc;
};

struct lwm_zip;
int lwm_zip_open(struct lwm_zip **out, int fd, int64_t bytes, const char *path, struct lwm_err *e);
void lwm_zip_close(struct lwm_zip *z); /* NULL is fine */
int64_t lwm_zip_count(const struct lwm_zip *z);
const struct lwm_zip_entry *lwm_zip_at(const struct lwm_zip *z, int64_t i); /* in the order in which they lie. Borrowed */
const struct lwm_zip_entry *lwm_zip_find(const struct lwm_zip *z, const char *name); /* NULL: none */
/* -LWM_EDATA: damaged; -LWM_ENO: the archive was written without such sums. */
int lwm_zip_check(const struct lwm_zip *z, const struct lwm_zip_entry *x, struct lwm_err *e);

#endif
