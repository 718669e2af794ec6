/* Commit records, manifests, indexes and lists of inputs: sealed JSON with everything that is read from it. The seal of a changed
 * record is made to fit, so that the changes reach the code behind it. */
#include <fcntl.h>
#include <unistd.h>

#include "common/base/json.h"
#include "common/io/ckpt.h"
#include "common/io/manifest.h"
#include "common/io/rowindex.h"
#include "common/io/seal.h"
#include "tests/fuzz/replay.h"

static void put(const char *path, const uint8_t *p, size_t n)
{
	struct lwm_err e = { 0 };
	json_t *o = NULL;
	if (lwm_json_parse(&o, (const char *)p, n, "fuzz", &e) == 0 && json_is_object(o)) {
		if (lwm_seal_write(o, path, &e) < 0)
			abort();
	} else {
		int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
		if (fd < 0 || write(fd, p, n) != (ssize_t)n)
			abort();
		close(fd);
	}
	json_decref(o);
}

/* What one rank took another one takes too. */
static void hand_over(struct lwm_ckpt *c, const char *dir)
{
	struct lwm_ckpt *other;
	char *text;
	if (lwm_ckpt_pack(c, &text, NULL) < 0 || lwm_ckpt_unpack(&other, dir, text, strlen(text), NULL) < 0)
		abort();
	lwm_ckpt_close(other);
	lwm_ckpt_close(c);
	free(text);
}

static void fuzz_one(const uint8_t *p, size_t n)
{
	char dir[40], record[64], shard[64], manifest[96], index[64];
	struct lwm_rowindex x;
	struct lwm_err e = { 0 };
	struct lwm_ckpt *c;
	struct lwm_manifest m;
	snprintf(dir, sizeof dir, "%s/lwm_fuzz_XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	if (!mkdtemp(dir))
		abort();
	snprintf(record, sizeof record, "%s/COMMIT.json", dir);
	snprintf(shard, sizeof shard, "%s/x.h5", dir);
	snprintf(index, sizeof index, "%s/" LWM_ROWINDEX_NAME, dir);
	snprintf(manifest, sizeof manifest, "%s.manifest.json", shard);
	put(record, p, n);
	put(shard, p, n);
	put(manifest, p, n);
	put(index, p, n);
	if (lwm_ckpt_open(&c, dir, &e) == 0)
		lwm_ckpt_close(c);
	else if (!e.code || !*e.msg)
		abort();
	lwm_err_clear(&e);
	if (lwm_ckpt_open_record(&c, dir, LWM_CKPT_QUICK, &e) == 0)
		hand_over(c, dir);
	else if (!e.code || !*e.msg)
		abort();
	if (lwm_manifest_read(&m, shard, NULL) == 0) {
		lwm_manifest_check(&m, shard, true, NULL);
		lwm_manifest_release(&m);
	}
	lwm_err_clear(&e);
	if (lwm_rowindex_read(&x, dir, &e) < 0 && (!e.code || !*e.msg))
		abort();
	lwm_rowindex_release(&x);
	lwm_rowindex_check(index, NULL);
	lwm_manifest_check_list(index, NULL, NULL);
	lwm_remove_tree(dir, NULL);
}
