#include <math.h>
#include <string.h>

#include "common/media/frames.h"
#include "common/train/stage.h"

const char *const lwm_schedule_names[] = { "constant", "cosine", "linear", NULL };
const char *const lwm_warmup_names[] = { "one", "zero", NULL };
const char *const lwm_offload_names[] = { "auto", "true", "false", NULL };
const char *const lwm_weighting_names[] = { "per_example", "per_token", "published", NULL };

void lwm_stage_defaults(struct lwm_stage *s)
{
	memset(s, 0, sizeof *s);
	s->device = "auto";
	s->start_from = "random";
	s->model = "nano";
	s->theta = 10000;
	s->tokens_per_batch = 8192;
	s->steps = 1000;
	s->lr = 3e-4;
	s->warmup_steps = 20;
	s->weight_decay = 0.1;
	s->beta1 = 0.9;
	s->beta2 = 0.95;
	s->eps = 1e-8;
	s->clip = 1;
	s->mesh_dim = "-1,1,1,1";
	s->ring_layout = 1;
	s->checkpoint_every = 200;
	s->keep = 2;
	s->log_every = 10;
	s->peak_after = 5;
	s->eval_rows = 64;
	s->grace = 120;
	s->watchdog = 1800;
	s->batch_frames = 16;
	s->frames_per_pass = 16;
	s->holdout = 10;
	s->cache_mib = 1024;
	s->max_pixels = LWM_MEDIA_MAX_PIXELS;
	s->revive_every = 50;
	s->revive_until = 1000;
	s->probe_frames = 128;
	s->l1 = 0.1;
	s->l2 = 1;
	s->codebook_weight = 0.2;
	s->commit_weight = 0.02;
}

double lwm_stage_lr(const struct lwm_stage *s, int64_t n)
{
	double span = (double)((s->decay_steps ? s->decay_steps : s->steps) - s->warmup_steps), x;
	if (n < s->warmup_steps)
		return s->init_lr + (s->lr - s->init_lr) * (double)(n + (s->warmup_from == LWM_FROM_ONE)) / (double)s->warmup_steps;
	x = span > 0 ? (double)(n - s->warmup_steps) / span : 1;
	if (x > 1)
		x = 1;
	switch (s->schedule) {
	case LWM_COSINE:
		return s->min_lr + (s->lr - s->min_lr) * 0.5 * (1 + cos(3.141592653589793 * x));
	case LWM_LINEAR:
		return s->lr + (s->min_lr - s->lr) * x;
	default:
		return s->lr;
	}
}
