/* safetensors files, from a file as readers see them. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/io/safetensors.h"
#include "tests/fuzz/replay.h"

static void read_all(struct lwm_st *s)
{
	struct lwm_err e = { 0 };
	float v[64];
	for (int64_t i = 0; i < lwm_st_count(s); i++) {
		const struct lwm_st_tensor *t = lwm_st_get_tensor(s, i);
		for (int64_t at = 0; at < t->size; at += 64) {
			if (lwm_st_read(s, i, at, t->size - at < 64 ? t->size - at : 64, v, &e) < 0)
				break;
		}
	}
	lwm_st_check(s, NULL);
}

static void fuzz_one(const uint8_t *p, size_t n)
{
	struct lwm_st *s;
	struct lwm_err e = { 0 };
	char name[64];
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd < 0 || write(fd, p, n) != (ssize_t)n)
		abort();
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	if (lwm_st_open(&s, name, &e) == 0) {
		read_all(s);
		lwm_st_close(s);
	} else if (!e.code || !*e.msg) {
		abort();
	}
	close(fd);
}
