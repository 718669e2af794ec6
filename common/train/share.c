/* One checkpoint before many ranks. Rank 0 leads: it looks at folders until it has what it wants, and calls the others to each
 * look; the others serve until it dismisses them. A call is two broadcasts, its header and the record of the checkpoint. */
#include "common/train/share.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/path.h"
#include "common/io/source.h"

enum { OVER = -1 };

struct call { /* from rank 0: the next folder and the length of its record */
	int64_t bytes; /* of the record; OVER: the search is over */
	int64_t how;   /* enum lwm_ckpt_check */
	char dir[4096];
};

struct share {
	struct lwm_comm *comm;
	enum lwm_ckpt_check how;
	struct lwm_ckpt *c; /* the folder looked at last; NULL: it cannot be opened */
};

/* The verdict of all ranks: a part that could not be read outweighs a damaged one. */
static int settle_damage(struct lwm_comm *c, int rc, struct lwm_err *e)
{
	int64_t unknown = rc < 0 && rc != -LWM_EDATA;
	LWM_TRY(lwm_comm_max_i64(c, &unknown, 1, e));
	if (unknown && rc == -LWM_EDATA) {
		lwm_err_clear(e);
		rc = 0;
	}
	return lwm_agree(c, rc, e);
}

/* This rank's share of the parts. */
static int check_share(const struct share *s, struct lwm_err *e)
{
	int64_t n = lwm_comm_size(s->comm), r = lwm_comm_rank(s->comm), m = lwm_ckpt_parts(s->c);
	for (int64_t k = 0; k < m; k++)
		if (k * n / m == r)
			LWM_TRY(lwm_ckpt_check_part(s->c, (int)k, s->how, e));
	return 0;
}

/* All ranks: the record comes from rank 0, then each checks its parts. text: the record on rank 0, else NULL. */
static int look_together(struct share *s, const struct call *call, char *text, struct lwm_err *e)
{
	struct lwm_comm *c = s->comm;
	char *mine = text ? text : malloc((size_t)call->bytes + 1);
	int rc = lwm_agree(c, mine ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory for its record", call->dir), e);
	if (rc == 0)
		rc = lwm_comm_bcast(c, mine, (size_t)call->bytes, 0, e);
	if (rc == 0) {
		if (!text)
			rc = lwm_ckpt_unpack(&s->c, call->dir, mine, (size_t)call->bytes, e);
		if (rc == 0)
			rc = check_share(s, e);
		rc = settle_damage(c, rc, e);
	}
	if (!text)
		free(mine);
	return rc;
}

static void close_folder(struct share *s)
{
	lwm_ckpt_close(s->c);
	s->c = NULL;
}

/* Rank 0: a lwm_ckpt_look_fn, which looks at one folder together with all ranks. */
static int look_at_folder(void *ctx, const char *dir, struct lwm_err *e)
{
	struct share *s = ctx;
	struct call call = { .how = s->how };
	char *text = NULL;
	close_folder(s);
	int rc = lwm_ckpt_open_record(&s->c, dir, s->how, e);
	if (rc == 0 && lwm_comm_size(s->comm) == 1)
		return check_share(s, e);
	if (rc == 0)
		rc = lwm_ckpt_pack(s->c, &text, e);
	if (rc == 0 && strlen(dir) >= sizeof call.dir)
		rc = lwm_fail(e, LWM_EUSAGE, "%s: name too long", dir);
	if (rc == 0) {
		call.bytes = (int64_t)strlen(text);
		memcpy(call.dir, dir, strlen(dir) + 1);
		rc = lwm_comm_bcast(s->comm, &call, sizeof call, 0, e);
		if (rc == 0)
			rc = look_together(s, &call, text, e);
		if (rc < 0 && e->who != LWM_ERR_ALONE)
			e->who = LWM_ERR_MINE; /* rank 0 speaks of it when the search is over */
	}
	free(text);
	return rc;
}

/* The other ranks: they look at whatever rank 0 looks at, until it is done. */
static int serve_looks(struct share *s, struct lwm_err *e)
{
	struct call call;
	for (;;) {
		LWM_TRY(lwm_comm_bcast(s->comm, &call, sizeof call, 0, e));
		if (call.bytes == OVER)
			return 0;
		s->how = (enum lwm_ckpt_check)call.how;
		close_folder(s);
		int rc = look_together(s, &call, NULL, e);
		if (rc == -LWM_ERANK || (rc < 0 && e->who == LWM_ERR_ALONE))
			return rc;
		if (rc < 0)
			lwm_err_clear(e);
	}
}

/* Rank 0 is done: the others stop serving. Ranks that are lost are not waited for. */
static int dismiss_ranks(const struct share *s, int rc, struct lwm_err *e)
{
	struct call call = { .bytes = OVER };
	if (lwm_comm_size(s->comm) == 1 || rc == -LWM_ERANK || (rc < 0 && e->who == LWM_ERR_ALONE))
		return rc;
	LWM_TRY(lwm_comm_bcast(s->comm, &call, sizeof call, 0, e));
	return rc;
}

/* Rank 0: 0 with s->c NULL when there is none. */
static int find_newest(struct share *s, const char *root, bool older_ok, struct lwm_err *e)
{
	char *dir = NULL;
	s->how = LWM_CKPT_FULL;
	int rc = lwm_ckpt_search(&dir, root, older_ok, look_at_folder, lwm_source_passed_over, s, e);
	if (rc == 0 && !dir)
		close_folder(s);
	free(dir);
	return rc;
}

/* Rank 0: a step folder, or a root. */
static int find_either(struct share *s, const char *path, bool older_ok, struct lwm_err *e)
{
	char *record = lwm_path_join(path, "COMMIT.json");
	int is_step = record ? lwm_path_there(record, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	free(record);
	LWM_TRY(is_step);
	s->how = LWM_CKPT_QUICK;
	int rc = is_step ? look_at_folder(s, path, e) : find_newest(s, path, older_ok, e);
	if (rc < 0 || s->c)
		return rc;
	return lwm_fail(e, LWM_ENOINPUT, lwm_path_exists(path) ? "%s: no checkpoint in it" : "%s: is not there", path);
}

static int end_search(struct share *s, struct lwm_ckpt **out, int rc, struct lwm_err *e)
{
	int64_t found = lwm_comm_rank(s->comm) == 0 && s->c != NULL;
	rc = lwm_agree(s->comm, rc, e);
	if (rc == 0)
		rc = lwm_comm_max_i64(s->comm, &found, 1, e);
	if (rc < 0 || !found)
		close_folder(s);
	*out = s->c;
	return rc;
}

int lwm_share_newest(struct lwm_ckpt **out, struct lwm_comm *c, const char *root, bool older_ok, struct lwm_err *e)
{
	struct share s = { .comm = c };
	int rc = lwm_comm_rank(c) ? serve_looks(&s, e) : dismiss_ranks(&s, find_newest(&s, root, older_ok, e), e);
	return end_search(&s, out, rc, e);
}

int lwm_share_open(struct lwm_ckpt **out, struct lwm_comm *c, const char *path, bool older_ok, struct lwm_err *e)
{
	struct share s = { .comm = c };
	int rc = lwm_comm_rank(c) ? serve_looks(&s, e) : dismiss_ranks(&s, find_either(&s, path, older_ok, e), e);
	return end_search(&s, out, rc, e);
}

int lwm_share_retire(struct lwm_comm *c, struct lwm_ckpt_keeper *keeper, int64_t step, struct lwm_err *e)
{
	struct share s = { .comm = c, .how = LWM_CKPT_FULL };
	struct lwm_err why = { 0 };
	int rc;
	if (lwm_comm_rank(c)) {
		rc = serve_looks(&s, e);
		close_folder(&s);
		return rc;
	}
	lwm_ckpt_keeper_look(keeper, look_at_folder, &s);
	rc = lwm_ckpt_keeper_saved(keeper, step, &why);
	lwm_ckpt_keeper_look(keeper, NULL, NULL);
	close_folder(&s);
	if (rc == -LWM_ERANK || (rc < 0 && why.who == LWM_ERR_ALONE)) {
		*e = why;
		return rc;
	}
	if (rc < 0)
		lwm_log(LWM_WARN, "old checkpoints stay: %s", why.msg);
	return dismiss_ranks(&s, 0, e);
}
