/* Rank 0 leads: it looks at folders until it has what it wants, and calls the others to each look. */
#include "common/train/share.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/path.h"
#include "common/io/source.h"

enum { OVER = -1 };

struct call { /* from rank 0: the next folder and the length of its record */
	int64_t bytes; /* OVER: there is no other one */
	int64_t how;
	char dir[4096];
};

struct share {
	struct lwm_comm *comm;
	enum lwm_ckpt_check how;
	struct lwm_ckpt *c; /* the folder looked at last; NULL: it cannot be opened */
};

/* Not to know weighs more than damage. */
static int settle(struct lwm_comm *c, int rc, struct lwm_err *e)
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

/* All ranks: the record from rank 0, then the parts. text: on rank 0, else NULL. */
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
		rc = settle(c, rc, e);
	}
	if (!text)
		free(mine);
	return rc;
}

static void forget(struct share *s)
{
	lwm_ckpt_close(s->c);
	s->c = NULL;
}

/* Rank 0: lwm_ckpt_look_fn. */
static int look(void *ctx, const char *dir, struct lwm_err *e)
{
	struct share *s = ctx;
	struct call call = { .how = s->how };
	char *text = NULL;
	forget(s);
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

/* The other ranks: whatever rank 0 looks at. */
static int serve(struct share *s, struct lwm_err *e)
{
	struct call call;
	for (;;) {
		LWM_TRY(lwm_comm_bcast(s->comm, &call, sizeof call, 0, e));
		if (call.bytes == OVER)
			return 0;
		s->how = (enum lwm_ckpt_check)call.how;
		forget(s);
		int rc = look_together(s, &call, NULL, e);
		if (rc == -LWM_ERANK || (rc < 0 && e->who == LWM_ERR_ALONE))
			return rc;
		if (rc < 0)
			lwm_err_clear(e);
	}
}

/* Rank 0 has seen enough. */
static int dismiss(const struct share *s, int rc, struct lwm_err *e)
{
	struct call call = { .bytes = OVER };
	if (lwm_comm_size(s->comm) == 1 || rc == -LWM_ERANK || (rc < 0 && e->who == LWM_ERR_ALONE))
		return rc;
	LWM_TRY(lwm_comm_bcast(s->comm, &call, sizeof call, 0, e));
	return rc;
}

/* Rank 0: 0 with s->c NULL when there is none. */
static int find(struct share *s, const char *root, bool older_ok, struct lwm_err *e)
{
	char *dir = NULL;
	s->how = LWM_CKPT_FULL;
	int rc = lwm_ckpt_search(&dir, root, older_ok, look, lwm_source_passed_over, s, e);
	if (rc == 0 && !dir)
		forget(s);
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
	int rc = is_step ? look(s, path, e) : find(s, path, older_ok, e);
	if (rc < 0 || s->c)
		return rc;
	return lwm_fail(e, LWM_ENOINPUT, lwm_path_exists(path) ? "%s: no checkpoint in it" : "%s: is not there", path);
}

static int end(struct share *s, struct lwm_ckpt **out, int rc, struct lwm_err *e)
{
	int64_t found = lwm_comm_rank(s->comm) == 0 && s->c != NULL;
	rc = lwm_agree(s->comm, rc, e);
	if (rc == 0)
		rc = lwm_comm_max_i64(s->comm, &found, 1, e);
	if (rc < 0 || !found)
		forget(s);
	*out = s->c;
	return rc;
}

int lwm_share_newest(struct lwm_ckpt **out, struct lwm_comm *c, const char *root, bool older_ok, struct lwm_err *e)
{
	struct share s = { .comm = c };
	int rc = lwm_comm_rank(c) ? serve(&s, e) : dismiss(&s, find(&s, root, older_ok, e), e);
	return end(&s, out, rc, e);
}

int lwm_share_open(struct lwm_ckpt **out, struct lwm_comm *c, const char *path, bool older_ok, struct lwm_err *e)
{
	struct share s = { .comm = c };
	int rc = lwm_comm_rank(c) ? serve(&s, e) : dismiss(&s, find_either(&s, path, older_ok, e), e);
	return end(&s, out, rc, e);
}

int lwm_share_retire(struct lwm_comm *c, struct lwm_ckpt_keeper *keeper, int64_t step, struct lwm_err *e)
{
	struct share s = { .comm = c, .how = LWM_CKPT_FULL };
	struct lwm_err why = { 0 };
	int rc;
	if (lwm_comm_rank(c)) {
		rc = serve(&s, e);
		forget(&s);
		return rc;
	}
	lwm_ckpt_keeper_look(keeper, look, &s);
	rc = lwm_ckpt_keeper_saved(keeper, step, &why);
	lwm_ckpt_keeper_look(keeper, NULL, NULL);
	forget(&s);
	if (rc == -LWM_ERANK || (rc < 0 && why.who == LWM_ERR_ALONE)) {
		*e = why;
		return rc;
	}
	if (rc < 0)
		lwm_log(LWM_WARN, "old checkpoints stay: %s", why.msg);
	return dismiss(&s, 0, e);
}
