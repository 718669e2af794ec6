/* mpi_train.c - a stage on several meshes gives the losses of one rank, over MPI. Run under mpirun; rank 0 speaks. */
#include <unistd.h>

#include "common/base/log.h"
#include "common/comm/mesh.h"
#include "tests/unit/train_fixture.h"

enum { STEPS = 8 };

static const struct {
	const char *mesh;
	int layout;
} meshes[] = { { "-1,1,1,1", 1 }, { "1,-1,1,1", 1 }, { "1,1,1,-1", 0 }, { "1,1,1,-1", 1 }, { "1,1,1,-1", 2 }, { "2,-1,1,1", 1 },
	       { "-1,1,1,2", 1 }, { "1,1,1,-1", 3 }, { "1,-1,1,2", 3 } };
enum { N = sizeof meshes / sizeof *meshes };

/* The stage in two parts: stopped half way, gone on with from its checkpoint. */
static int train(struct lwm_comm *c, const char *rows, const char *out, const char *mesh, int layout, struct lwm_err *e)
{
	struct lwm_stage s;
	int rc = fx_stage(&s, rows, out, e);
	s.steps = STEPS;
	s.mesh_dim = mesh;
	lwm_next_token_of(&s)->ring_layout = layout;
	s.stop_after = STEPS / 2;
	if (rc == 0)
		rc = lwm_stage_run(&s, c, e);
	if (rc == -LWM_ESAVED) {
		lwm_err_clear(e);
		s.stop_after = 0;
		rc = lwm_stage_run(&s, c, e);
	}
	lwm_stage_release(&s);
	return rc;
}

static int check_mesh(struct lwm_comm *c, const char *root, int i, const double *want, struct lwm_err *e)
{
	char rows[256], out[256];
	double loss[STEPS];
	int rc = 0;
	snprintf(rows, sizeof rows, "%s/rows.h5", root);
	snprintf(out, sizeof out, "%s/mesh%d", root, i);
	LWM_TRY(train(c, rows, out, meshes[i].mesh, meshes[i].layout, e));
	if (lwm_comm_rank(c) == 0) {
		if (fx_losses(out, loss, STEPS) != STEPS)
			rc = lwm_fail(e, LWM_ENO, "%s: not %d steps", out, STEPS);
		for (int k = 0; rc == 0 && k < STEPS; k++)
			if (!(fabs(loss[k] - want[k]) <= 2e-4 * fabs(want[k]))) /* fp32 sums in another order */
				rc = lwm_fail(e, LWM_ENO, "step %d: loss %.9g, on one rank %.9g", k, loss[k], want[k]);
	}
	return lwm_agree(c, rc, e);
}

/* Rows, and the losses of one rank. Rank 0 alone. */
static int reference(const char *root, double *want, struct lwm_err *e)
{
	struct lwm_comm *self;
	char rows[256], out[256];
	snprintf(rows, sizeof rows, "%s/rows.h5", root);
	snprintf(out, sizeof out, "%s/alone", root);
	LWM_TRY(lwm_mkdirs(root, e));
	LWM_TRY(fx_rows(rows, e));
	LWM_TRY(lwm_comm_self(&self, e));
	int rc = train(self, rows, out, "1,1,1,1", 1, e);
	lwm_comm_free(self);
	if (rc == 0 && fx_losses(out, want, STEPS) != STEPS)
		rc = lwm_fail(e, LWM_ENO, "%s: not %d steps", out, STEPS);
	return rc;
}

int main(int argc, char **argv)
{
	struct lwm_err e = { 0 };
	struct lwm_comm *world;
	char root[128] = { 0 };
	double want[STEPS] = { 0 };
	int passed = 0, failed = 0;
	lwm_log_init("mpi_train", LWM_ERROR);
	if (lwm_comm_mpi(&world, &argc, &argv, &e) < 0) {
		fprintf(stderr, "mpi_train: %s\n", e.msg);
		return -e.code;
	}
	snprintf(root, sizeof root, "/tmp/lwm-mpi-train-%ld", (long)getpid());
	bool first = lwm_comm_rank(world) == 0;
	int rc = lwm_comm_bcast(world, root, sizeof root, 0, &e);
	if (rc == 0)
		rc = lwm_agree(world, first ? reference(root, want, &e) : 0, &e);
	for (int i = 0; rc == 0 && i < N; i++) {
		int dim[LWM_AXES];
		struct lwm_err no = { 0 };
		if (lwm_mesh_parse(meshes[i].mesh, lwm_comm_size(world), dim, &no) < 0)
			continue;
		int bad = check_mesh(world, root, i, want, &e) < 0;
		if (bad && first)
			printf("FAILED mesh %s, layout %d: %s\n", meshes[i].mesh, meshes[i].layout, e.msg);
		bad ? failed++ : passed++;
		lwm_err_clear(&e);
	}
	if (rc < 0 && first)
		printf("FAILED: %s\n", e.msg);
	if (first) {
		printf("%d passed, %d failed, 0 skipped\n", passed, failed + (rc < 0));
		lwm_err_clear(&e);
		if (lwm_remove_tree(root, &e) < 0)
			fprintf(stderr, "mpi_train: %s\n", e.msg);
	}
	lwm_comm_free(world);
	return failed || rc < 0 ? 1 : 0;
}
