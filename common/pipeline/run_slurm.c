/* run_slurm.c - a pipeline as a chain of batch jobs.
 *
 * A stage becomes one job, or an array of up to WINDOW tasks (several arrays for more). A script stands alone: the functions of
 * slurm/job.sh are copied into it. A stage whose items are files that do not exist yet becomes a job that starts lwm-run --only
 * STAGE.
 *
 * Links depend with afterany: after a job that ended by its time limit and was requeued, afterok would wait for ever. So
 * each script looks for what it needs itself and ends at once when that does not exist.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/outfile.h"
#include "common/base/show.h"
#include "common/pipeline/command.h"

enum { WINDOW = 1000, MAX_IDS = 64, MAX_CWD = 4096 }; /* tasks of one array: Slurm's usual MaxArraySize is 1001 */

struct link { /* the jobs of one stage */
	bool submitted;
	char id[MAX_IDS][24]; /* as sbatch says them */
	int n;
};

struct chain {
	struct lwm_pipeline *p;
	const struct lwm_run_cfg *c;
	const struct lwm_run_slurm_cfg *s;
	struct lwm_str *out;
	struct link *link;
	char *functions, cwd[MAX_CWD];
};

static int read_cwd(char cwd[MAX_CWD], struct lwm_err *e)
{
	return getcwd(cwd, MAX_CWD) ? 0 : lwm_fail_errno(e, LWM_ENOINPUT, errno, "the working folder");
}

/* Values after #SBATCH are not read by a shell and cannot be quoted: only harmless bytes. */
static int check_plain(const char *value, const char *what, struct lwm_err *e)
{
	static const char ok[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.,:=@+/-";
	if (*value && *value != '-' && strspn(value, ok) == strlen(value))
		return 0;
	return lwm_fail(e, LWM_EUSAGE, "%s '%s': batch jobs take only letters, digits and _.,:=@+/- here, and no - in front",
			what, value);
}

int lwm_run_check_slurm(const struct lwm_pipeline *p, const struct lwm_run_slurm_cfg *s, struct lwm_err *e)
{
	char cwd[MAX_CWD];
	LWM_TRY(read_cwd(cwd, e));
	/* what comes from neither the pipeline file nor the command line; the rest was looked at when that was read */
	LWM_TRY(lwm_show_check(cwd, "the working folder", e));
	LWM_TRY(lwm_show_check(s->job_sh, "the file of the batch functions", e));
	if (s->site)
		LWM_TRY(lwm_show_check(s->site, "the site's settings", e));
	if (strchr(p->bin, ':')) /* PATH has no way to quote it */
		return lwm_fail(e, LWM_EUSAGE, "%s: a folder with ':' in its name cannot be in the PATH of a job", p->bin);
	if (!strcmp(p->file, "-"))
		return lwm_fail(e, LWM_EUSAGE, "a pipeline from standard input cannot be submitted: its jobs read it again");
	LWM_TRY(check_plain(p->out, "the output folder", e));
	for (int i = 0; i < p->nstage; i++) {
		const struct lwm_pipe_stage *st = &p->stage[p->order[i]];
		if (st->selected && st->mem)
			LWM_TRY(check_plain(st->mem, "resources: mem", e));
		if (st->selected && st->partition)
			LWM_TRY(check_plain(st->partition, "resources: partition", e));
	}
	return 0;
}

/* The lines that Slurm reads. Every value was found to be plain. */
static void add_header(struct chain *ch, const struct lwm_pipe_stage *st, int64_t n, struct lwm_str *b)
{
	int64_t ranks = lwm_run_ranks(st, ch->c);
	lwm_str_puts(b, "#!/bin/bash\n");
	lwm_str_printf(b, "#SBATCH --job-name=lwm-%s-%s\n", ch->p->name, st->name);
	lwm_str_printf(b, "#SBATCH --output=%s/logs/%%x-%s.log\n", ch->p->out, n > 1 ? "%A_%a" : "%j");
	lwm_str_puts(b, "#SBATCH --open-mode=append\n#SBATCH --requeue\n#SBATCH --signal=USR1@120\n");
	lwm_str_printf(b, "#SBATCH --ntasks=%" PRId64 "\n", ranks ? ranks : (int64_t)1);
	if (n > 1)
		lwm_str_printf(b, "#SBATCH --array=0-%" PRId64 "\n", n - 1);
	if (st->nodes)
		lwm_str_printf(b, "#SBATCH --nodes=%" PRId64 "\n", st->nodes);
	if (st->cpus)
		lwm_str_printf(b, "#SBATCH --cpus-per-task=%" PRId64 "\n", st->cpus);
	if (st->gpus)
		lwm_str_printf(b, "#SBATCH --gpus-per-node=%" PRId64 "\n", st->gpus);
	if (st->seconds > 0) {
		int64_t minutes = (int64_t)(st->seconds / 60 + 0.999);
		lwm_str_printf(b, "#SBATCH --time=%" PRId64 ":%02d:00\n", minutes / 60, (int)(minutes % 60));
	}
	if (st->mem)
		lwm_str_printf(b, "#SBATCH --mem=%s\n", st->mem);
	if (st->partition)
		lwm_str_printf(b, "#SBATCH --partition=%s\n", st->partition);
	lwm_str_printf(b, "# Stage %s of ", st->name);
	lwm_str_shell(b, ch->p->file);
	lwm_str_puts(b, ". Its log folder must exist before it is submitted.\n"
		     "# shellcheck disable=SC1003,SC1112,SC2016 # quoted words are meant as they stand\n");
}

static void add_words(struct lwm_str *b, const struct lwm_paths *w)
{
	for (int64_t i = 0; i < w->n; i++) {
		lwm_str_putc(b, ' ');
		lwm_str_shell(b, w->v[i]);
	}
}

/* What every script begins with: where, which programs, the functions of job.sh, the site's settings. */
static void add_prologue(struct chain *ch, struct lwm_str *b)
{
	lwm_str_puts(b, "set -uo pipefail\ncd -- ");
	lwm_str_shell(b, ch->cwd);
	lwm_str_puts(b, " || exit 74\nPATH=");
	lwm_str_shell(b, ch->p->bin);
	lwm_str_puts(b, ":$PATH\n");
	if (ch->s->site) {
		lwm_str_puts(b, "# shellcheck disable=SC1090,SC1091\n[ ! -r ");
		lwm_str_shell(b, ch->s->site);
		lwm_str_puts(b, " ] || . ");
		lwm_str_shell(b, ch->s->site);
		lwm_str_putc(b, '\n');
	}
	lwm_str_puts(b, ch->functions);
}

/* The parts of job.sh that a script needs: everything after its head comment. */
static int load_functions(struct chain *ch, struct lwm_err *e)
{
	size_t n;
	char *text, *cut;
	LWM_TRY(lwm_read_file(ch->s->job_sh, 1 << 16, &text, &n, e));
	cut = strstr(text, "\n# ---- functions ----\n");
	if (!cut) {
		free(text);
		return lwm_fail(e, LWM_EDATA, "%s: has no line '# ---- functions ----'", ch->s->job_sh);
	}
	ch->functions = strdup(cut + 1);
	free(text);
	return ch->functions ? 0 : lwm_fail_memory(e, NULL);
}

static int add_task(struct chain *ch, const struct lwm_pipe_task *t, const struct lwm_run_verdict *v, struct lwm_str *b,
		    struct lwm_err *e)
{
	struct lwm_paths argv = { 0 };
	int64_t ranks = lwm_run_ranks(&ch->p->stage[t->stage], ch->c);
	int rc = lwm_run_program_line(ch->p, t, v, &argv, e); /* the script's own launcher stands in front */
	if (rc == 0) {
		if (t->to) {
			lwm_str_puts(b, "\tlwm_target ");
			lwm_str_shell(b, t->to);
			lwm_str_putc(b, '\n');
		}
		lwm_str_printf(b, "\tlwm_job %" PRId64, ranks ? ranks : (int64_t)1);
		add_words(b, &argv);
		if (t->to) {
			lwm_str_puts(b, " >");
			lwm_str_shell(b, t->to);
		}
		lwm_str_puts(b, " || exit\n");
		if (t->outputs.n) {
			lwm_str_puts(b, "\tlwm_wrote");
			add_words(b, &t->outputs);
			lwm_str_putc(b, '\n');
		}
	}
	lwm_paths_release(&argv);
	return rc;
}

static void add_needs(struct chain *ch, const struct lwm_pipe_stage *st, struct lwm_str *b)
{
	for (int i = 0; i < st->nneed; i++) {
		const struct lwm_pipe_stage *n = &ch->p->stage[st->need[i]];
		for (int64_t k = 0; k < n->ntask; k++)
			if (n->task[k].outputs.n) {
				lwm_str_puts(b, "lwm_need");
				add_words(b, &n->task[k].outputs);
				lwm_str_putc(b, '\n');
			}
	}
}

static void add_folders(const struct lwm_pipe_task *const *t, int64_t n, struct lwm_str *b)
{
	char *last = NULL;
	for (int64_t i = 0; i < n; i++)
		for (int64_t k = 0; k < t[i]->outputs.n; k++) {
			char *dir = lwm_path_dir(t[i]->outputs.v[k]);
			if (dir && (!last || strcmp(dir, last))) {
				lwm_str_puts(b, "mkdir -p -- ");
				lwm_str_shell(b, dir);
				lwm_str_puts(b, " || exit 73\n");
			}
			free(last);
			last = dir;
		}
	free(last);
}

static int make_script(struct chain *ch, struct lwm_pipe_stage *st, const struct lwm_pipe_task *const *t,
		  const struct lwm_run_verdict *v, int64_t n, struct lwm_str *b, struct lwm_err *e)
{
	add_header(ch, st, n, b);
	add_prologue(ch, b);
	add_needs(ch, st, b);
	add_folders(t, n, b);
	if (n == 1) {
		lwm_str_puts(b, "{\n");
		LWM_TRY(add_task(ch, t[0], &v[0], b, e));
		lwm_str_puts(b, "}\n");
		return lwm_str_ok(b, e);
	}
	lwm_str_puts(b, "task() {\n\tcase $1 in\n");
	for (int64_t i = 0; i < n; i++) {
		lwm_str_printf(b, "\t%" PRId64 ")\n", i);
		LWM_TRY(add_task(ch, t[i], &v[i], b, e));
		lwm_str_puts(b, "\t;;\n");
	}
	lwm_str_printf(b, "\tesac\n}\n"
		       "for i in ${SLURM_ARRAY_TASK_ID:-$(seq 0 %" PRId64 ")}; do\n\ttask \"$i\"\ndone\n", n - 1);
	return lwm_str_ok(b, e);
}

/* A stage whose tasks depend on files that do not exist yet: the job itself looks for them when it starts. */
static int make_late_script(struct chain *ch, const struct lwm_pipe_stage *st, struct lwm_str *b, struct lwm_err *e)
{
	add_header(ch, st, 1, b);
	add_prologue(ch, b);
	lwm_str_puts(b, "lwm_direct lwm-run ");
	if (*ch->p->file == '-') /* else an option */
		lwm_str_puts(b, "./");
	lwm_str_shell(b, ch->p->file);
	lwm_str_printf(b, " --only %s --jobs \"${SLURM_CPUS_PER_TASK:-1}\"", st->name);
	for (int64_t i = 0; i < ch->s->sets->n; i++) {
		lwm_str_puts(b, " --set ");
		lwm_str_shell(b, ch->s->sets->v[i]);
	}
	lwm_str_putc(b, '\n');
	return lwm_str_ok(b, e);
}

static int add_dependency(struct chain *ch, const struct lwm_pipe_stage *st, struct lwm_str *b)
{
	int n = 0;
	for (int i = 0; i < st->nneed; i++)
		for (int k = 0; k < ch->link[st->need[i]].n; k++)
			lwm_str_printf(b, "%s%s", n++ ? ":" : "--dependency=afterany:", ch->link[st->need[i]].id[k]);
	return n;
}

static int submit_script(struct chain *ch, struct lwm_pipe_stage *st, const char *path, struct lwm_err *e)
{
	struct link *l = &ch->link[st - ch->p->stage];
	struct lwm_paths argv = { 0 };
	struct lwm_str dep = { 0 };
	char text[256];
	int rc, status;
	LWM_GO(lwm_paths_add(&argv, "sbatch", e));
	LWM_GO(lwm_paths_add(&argv, "--parsable", e));
	if (add_dependency(ch, st, &dep))
		LWM_GO(lwm_paths_add(&argv, lwm_str_get(&dep), e));
	LWM_GO(lwm_paths_add(&argv, path, e));
	LWM_GO(lwm_spawn_wait(&argv, 1, &status, text, sizeof text, e));
	text[strcspn(text, ";\n")] = 0; /* "123;cluster" */
	if (status || !*text || strspn(text, "0123456789_") != strlen(text)) {
		rc = lwm_fail(e, LWM_EUNAVAIL, "sbatch refused %s (exit %d)%s%s", path, status, *text ? " and said " : "",
			      text);
		goto out;
	}
	if (l->n == MAX_IDS) {
		rc = lwm_fail(e, LWM_EUSAGE, "stage %s has more than %d tasks", st->name, MAX_IDS * WINDOW);
		goto out;
	}
	snprintf(l->id[l->n++], sizeof l->id[0], "%.23s", text);
	lwm_str_printf(ch->out, "%s lwm-%s-%s\n", text, ch->p->name, st->name);
out:
	lwm_str_release(&dep);
	lwm_paths_release(&argv);
	return rc;
}

static int emit_script(struct chain *ch, struct lwm_pipe_stage *st, int64_t window, const struct lwm_str *b,
		struct lwm_err *e)
{
	char *path = NULL, *dir = NULL;
	int rc = 0;
	if (ch->s->print) {
		lwm_str_add(ch->out, b->s, b->len);
		return 0;
	}
	if (asprintf(&dir, "%s/.lwm-run/slurm", ch->p->out) < 0 ||
	    asprintf(&path, "%s/%s-%" PRId64 ".sh", dir, st->name, window) < 0)
		rc = lwm_fail_memory(e, NULL);
	if (rc == 0)
		rc = lwm_mkdirs(dir, e);
	if (rc == 0)
		rc = lwm_write_file(path, b->s, b->len, true, e);
	if (rc == 0)
		rc = submit_script(ch, st, path, e);
	free(path);
	free(dir);
	return rc;
}

static int emit_windows(struct chain *ch, struct lwm_pipe_stage *st, const struct lwm_pipe_task *const *t,
		   const struct lwm_run_verdict *v, int64_t n, struct lwm_err *e)
{
	int rc = 0;
	for (int64_t i = 0; i < n && rc == 0; i += WINDOW) {
		struct lwm_str b = { 0 };
		rc = make_script(ch, st, t + i, v + i, n - i < WINDOW ? n - i : WINDOW, &b, e);
		if (rc == 0)
			rc = emit_script(ch, st, i / WINDOW, &b, e);
		lwm_str_release(&b);
	}
	return rc;
}

static int chain_stage(struct chain *ch, struct lwm_pipe_stage *st, bool after, struct lwm_err *e)
{
	const struct lwm_pipe_task **t = calloc((size_t)st->ntask, sizeof(struct lwm_pipe_task *));
	struct lwm_run_verdict *v = calloc((size_t)st->ntask, sizeof *v);
	int64_t n = 0;
	int rc = 0;
	if (!t || !v)
		rc = lwm_fail_memory(e, NULL);
	if (rc == 0)
		rc = lwm_run_judge_stage(ch->p, st, ch->c, v, e);
	for (int64_t k = 0; k < st->ntask && rc == 0; k++)
		if (!v[k].complete || after) {
			v[n] = v[k];
			t[n++] = &st->task[k];
		}
	if (rc == 0 && n) {
		ch->link[st - ch->p->stage].submitted = true;
		rc = emit_windows(ch, st, t, v, n, e);
	}
	free(t);
	free(v);
	return rc;
}

static int chain_late_stage(struct chain *ch, struct lwm_pipe_stage *st, struct lwm_err *e)
{
	struct lwm_str b = { 0 };
	int rc = make_late_script(ch, st, &b, e);
	ch->link[st - ch->p->stage].submitted = true;
	if (rc == 0)
		rc = emit_script(ch, st, 0, &b, e);
	lwm_str_release(&b);
	return rc;
}

static int chain_stages(struct chain *ch, struct lwm_err *e)
{
	for (int o = 0; o < ch->p->nstage; o++) {
		struct lwm_pipe_stage *st = &ch->p->stage[ch->p->order[o]];
		struct lwm_err local = { 0 };
		bool after = false;
		int rc;
		for (int k = 0; k < st->nneed; k++)
			after = after || ch->link[st->need[k]].submitted;
		if (!st->selected)
			continue;
		rc = lwm_pipeline_make_tasks(ch->p, ch->p->order[o], &local);
		if (rc == -LWM_ENOINPUT && after) {
			LWM_TRY(chain_late_stage(ch, st, e));
			continue;
		}
		if (rc < 0)
			return lwm_fail(e, -rc, "%s", local.msg);
		LWM_TRY(chain_stage(ch, st, after, e));
	}
	return 0;
}

int lwm_run_on_slurm(struct lwm_pipeline *p, const struct lwm_run_cfg *c, const struct lwm_run_slurm_cfg *s, struct lwm_str *out,
		  struct lwm_err *e)
{
	struct chain ch = { .p = p, .c = c, .s = s, .out = out };
	char *logs = lwm_path_join(p->out, "logs");
	int rc = 0;
	ch.link = calloc((size_t)p->nstage, sizeof *ch.link);
	if (!ch.link || !logs)
		rc = lwm_fail_memory(e, NULL);
	if (rc == 0)
		rc = lwm_run_check_slurm(p, s, e);
	if (rc == 0)
		rc = read_cwd(ch.cwd, e);
	if (rc == 0)
		rc = load_functions(&ch, e);
	if (rc == 0 && !s->print) /* without it Slurm would start nothing and leave no log */
		rc = lwm_mkdirs(logs, e);
	if (rc == 0)
		rc = chain_stages(&ch, e);
	if (rc == 0)
		rc = lwm_str_ok(out, e);
	free(ch.functions);
	free(ch.link);
	free(logs);
	return rc;
}
