/* Files of torch.save, from a file as readers see them. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/io/torchfile.h"
#include "tests/fuzz/replay.h"

static void read_all(struct lwm_torch *t)
{
	float v[64];
	for (int64_t i = 0; i < lwm_torch_count(t); i++) {
		int64_t n = lwm_torch_tensor(t, i)->size;
		for (int64_t at = 0; at < n && at < 4096; at += 64)
			if (lwm_torch_read(t, i, at, n - at < 64 ? n - at : 64, v, NULL) < 0)
				break;
	}
	lwm_torch_check(t, NULL);
}

static void fuzz_one(const uint8_t *p, size_t n)
{
	struct lwm_torch *t;
	struct lwm_err e = { 0 };
	char name[64];
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd < 0 || write(fd, p, n) != (ssize_t)n)
		abort();
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	if (lwm_torch_open(&t, name, &e) == 0) {
		read_all(t);
		lwm_torch_close(t);
	} else if (!e.code || !*e.msg) {
		abort();
	}
	close(fd);
}
