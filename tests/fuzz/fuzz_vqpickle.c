/* The pickle of a frame tokenizer, from a file as readers see it. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/io/model.h"
#include "tests/fuzz/replay.h"

static void fuzz_one(const uint8_t *p, size_t n)
{
	struct lwm_model *m;
	struct lwm_err e = { 0 };
	char name[64];
	float v[64];
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (n < 2 || p[0] != 0x80 || p[1] < 2 || p[1] > 5) { /* what begins otherwise is opened as something else */
		close(fd);
		return;
	}
	if (fd < 0 || write(fd, p, n) != (ssize_t)n)
		abort();
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	if (lwm_model_open(&m, name, &e) == 0) {
		for (int64_t i = 0; i < lwm_model_count(m); i++) {
			int64_t all = lwm_model_tensor(m, i)->count;
			lwm_model_read(m, i, 0, all < 64 ? all : 64, v, NULL);
		}
		lwm_model_close(m);
	} else if (!e.code || !*e.msg) {
		abort();
	}
	close(fd);
}
