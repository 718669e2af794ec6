/* Document shards, row shards and checkpoint parts: HDF5 files whose hash was not looked at, as large ones are
 * opened. */
#include <fcntl.h>
#include <unistd.h>

#include "common/io/vecfile.h"
#include "tests/fuzz/replay.h"

static const struct lwm_vec docs[] = {
	{ "tokens", LWM_V_TOKENS, 0 }, { "doc_offset", LWM_V_I64, 0 },  { "doc_run_offset", LWM_V_I64, 0 },
	{ "run_start", LWM_V_I64, 0 }, { "run_loss", LWM_V_U8, 0 },     { "id_bytes", LWM_V_U8, 0 },
	{ "id_offset", LWM_V_I64, 0 }, { "source_bytes", LWM_V_U8, 0 }, { "source_offset", LWM_V_I64, 0 },
	{ "meta", LWM_V_TEXT, 0 },
};
static const struct lwm_vec rows[] = {
	{ "tokens", LWM_V_TOKENS, 0 }, { "row_seg", LWM_V_I64, 0 },  { "seg_len", LWM_V_UINT, 0 }, { "seg_doc", LWM_V_UINT, 0 },
	{ "row_flip", LWM_V_I64, 0 },  { "flip_at", LWM_V_UINT, 0 }, { "meta", LWM_V_TEXT, 0 },
};
static const struct lwm_vec part[] = {
	{ "params", LWM_V_F32, 0 }, { "adam_m", LWM_V_F32, 0 }, { "adam_v", LWM_V_F32, 0 },
	{ "slices", LWM_V_I64, 0 }, { "names", LWM_V_U8, 0 },   { "state", LWM_V_U8, 0 },
};

static void read_all(const char *path, const char *schema, const struct lwm_vec *want, int nv)
{
	struct lwm_vfr *r;
	struct lwm_err e = { 0 };
	char buf[512];
	if (lwm_vfr_open(&r, path, schema, want, nv, &e) < 0) {
		if (!e.code || !*e.msg)
			abort();
		return;
	}
	for (int v = 0; v < nv; v++)
		for (int64_t i = 0, n = lwm_vfr_vec(r, v)->n; i < n; i += 64)
			if (lwm_vfr_read(r, v, i, n - i < 64 ? n - i : 64, buf, NULL) < 0)
				break;
	lwm_vfr_close(r);
}

static void fuzz_one(const uint8_t *p, size_t n)
{
	char name[40], *schema = NULL;
	snprintf(name, sizeof name, "%s/lwm_fuzz_XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	int fd = mkstemp(name);
	if (fd < 0 || write(fd, p, n) != (ssize_t)n)
		abort();
	close(fd);
	lwm_vf_schema(name, &schema, NULL);
	free(schema);
	read_all(name, "lwm-docs-1", docs, 10);
	read_all(name, "lwm-docs-2", docs, 10);
	read_all(name, "lwm-rows-2", rows, 7);
	read_all(name, "lwm-checkpoint-part-1", part, 6);
	unlink(name);
}
