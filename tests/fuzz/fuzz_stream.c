/* Streams of arrays as LWM releases models, in a folder with a configuration. */
#include <fcntl.h>
#include <unistd.h>

#include "common/io/model.h"
#include "tests/fuzz/replay.h"

static char dir[64];

static void put(const char *name, const void *p, size_t n)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	if (fd < 0 || write(fd, p, n) != (ssize_t)n)
		abort();
	close(fd);
}

static void remove_dir(void)
{
	lwm_remove_tree(dir, NULL);
}

static void fuzz_one(const uint8_t *p, size_t n)
{
	static const char config[] = "{\"hidden_size\": 4, \"num_attention_heads\": 2}";
	struct lwm_model *m;
	struct lwm_err e = { 0 };
	float v[64];
	if (!*dir) {
		snprintf(dir, sizeof dir, "%s/lwm_fuzz_XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
		if (!mkdtemp(dir) || atexit(remove_dir))
			abort();
		put("config.json", config, sizeof config - 1);
	}
	put("params", p, n);
	if (lwm_model_open(&m, dir, &e) == 0) {
		for (int64_t i = 0; i < lwm_model_count(m); i++) {
			int64_t all = lwm_model_tensor(m, i)->count;
			lwm_model_read(m, i, 0, all < 64 ? all : 64, v, NULL);
		}
		lwm_model_close(m);
	} else if (!e.code || !*e.msg) {
		abort();
	}
}
