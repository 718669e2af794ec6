/* hash.c - XXH3 by libxxhash: digests in hex are the canonical big-endian form that `xxh128sum` prints. */
#include "common/base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

struct lwm_hasher {
	XXH3_state_t *st;
};

static struct lwm_hash hex_digest(XXH128_hash_t h)
{
	struct lwm_hash out;
	snprintf(out.hex, sizeof out.hex, "%016" PRIx64 "%016" PRIx64, h.high64, h.low64);
	return out;
}

struct lwm_hasher *lwm_hasher_new(void)
{
	struct lwm_hasher *h = malloc(sizeof *h);
	if (!h)
		return NULL;
	h->st = XXH3_createState();
	if (!h->st) {
		free(h);
		return NULL;
	}
	XXH3_128bits_reset(h->st);
	return h;
}

void lwm_hasher_add(struct lwm_hasher *h, const void *p, size_t n)
{
	if (n)
		XXH3_128bits_update(h->st, p, n);
}

struct lwm_hash lwm_hasher_end(struct lwm_hasher *h)
{
	struct lwm_hash out = hex_digest(XXH3_128bits_digest(h->st));
	XXH3_freeState(h->st);
	free(h);
	return out;
}

struct lwm_hash lwm_hash_bytes(const void *p, size_t n)
{
	return hex_digest(XXH3_128bits(p, n));
}

uint64_t lwm_hash64(const void *p, size_t n, uint64_t seed)
{
	return XXH3_64bits_withSeed(p, n, seed);
}

int lwm_hash_file(const char *path, struct lwm_hash *out, int64_t *bytes, struct lwm_err *e)
{
	enum { CHUNK = 128 << 10 }; /* stays in the second-level cache between read and hash */
	int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
	int64_t total = 0;
	if (fd < 0)
		return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot open", path);
	char *buf = malloc(CHUNK);
	struct lwm_hasher *h = lwm_hasher_new();
	if (!buf || !h) {
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory for hashing", path);
		goto out;
	}
	for (;;) {
		ssize_t n = read(fd, buf, CHUNK);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: read failed at byte %" PRId64, path, total);
			goto out;
		}
		if (n == 0)
			break;
		lwm_hasher_add(h, buf, (size_t)n);
		total += n;
	}
	if (bytes)
		*bytes = total;
out:
	if (h) {
		struct lwm_hash digest = lwm_hasher_end(h);
		if (rc == 0)
			*out = digest;
	}
	free(buf);
	close(fd);
	return rc;
}
