/* lwm-train-stage - trains one stage: a language model on packed rows, or the VQGAN on frames. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/log.h"
#include "common/cli/opt.h"
#include "common/comm/mesh.h"
#include "common/train/stage.h"

static struct lwm_stage s;
static int64_t plan_ranks = 1;

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('o', "output", &s.out, "DIR", "checkpoints, metrics.jsonl, summary.json; goes on from what is there",
		    LWM_OPT_REQUIRED),
	LWM_OPT_CHOICE(0, "objective", &s.objective, lwm_objective_names, "what is trained", 0),
	LWM_OPT_STR(0, "device", &s.device, "DEV", "auto, cpu, ref, cuda, cuda:N", 0),
	LWM_OPT_STR(0, "start-from", &s.start_from, "FROM",
		    "random, checkpoint:DIR, model:DIR, text-checkpoint:DIR, text-model:DIR (vision parts fresh)", 0),
	LWM_OPT_OLDER(&s.older_ok),
	LWM_OPT_STR(0, "tokenizer", &s.tokenizer, "FILE", "recorded for the merged model; must match the rows", 0),
	LWM_OPT_HEAD("Data"),
	LWM_OPT_LIST(0, "data", &s.data, "PATH[=W]", "row shards or a folder of them (media for reconstruction), with a weight", 0),
	LWM_OPT_LIST(0, "eval-data", &s.eval_data, "PATH", "held-out data", 0),
	LWM_OPT_INT(0, "seq-length", &s.seq_length, 2, 1 << 30, "N", "tokens in a row", 0),
	LWM_OPT_INT(0, "tokens-per-batch", &s.tokens_per_batch, 1, 1 << 30, "N", "tokens in a step, all ranks together", 0),
	LWM_OPT_INT(0, "micro-rows", &s.micro_rows, 0, 1 << 20, "N", "rows at a time on a rank; 0: about 16K tokens", 0),
	LWM_OPT_CHOICE(0, "loss-weighting", &s.weighting, lwm_weighting_names,
		       "every example weighs the same, every token, or every row", 0),
	LWM_OPT_DOUBLE(0, "text-weight", &s.text_weight, 0, 1e6, "X", "of the loss of text, beside --vision-weight; see below", 0),
	LWM_OPT_DOUBLE(0, "vision-weight", &s.vision_weight, 0, 1e6, "X",
		       "of the loss of vision; both 0: one loss (published: 0.5 each)", 0),
	LWM_OPT_HEAD("Model"),
	LWM_OPT_STR(0, "model", &s.model, "NAME", "preset: nano micro 124m debug 200m 1b 3b 7b ...; VQGAN: tiny small lwm", 0),
	LWM_OPT_INT(0, "dim", &s.dim, 0, 1 << 20, "N", "width, over the preset", 0),
	LWM_OPT_INT(0, "ffn", &s.ffn, 0, 1 << 22, "N", "MLP width, over the preset", 0),
	LWM_OPT_INT(0, "layers", &s.layers, 0, 1024, "N", "layers, over the preset", 0),
	LWM_OPT_INT(0, "heads", &s.heads, 0, 1024, "N", "query heads, over the preset", 0),
	LWM_OPT_INT(0, "kv-heads", &s.kv_heads, 0, 1024, "N", "key/value heads, over the preset", 0),
	LWM_OPT_INT(0, "vocab", &s.vocab, 0, 1 << 24, "N", "text vocabulary; 0: that of the rows", 0),
	LWM_OPT_INT(0, "vision-codes", &s.vision_codes, 0, 1 << 20, "N", "image codes; 0: what the rows say", 0),
	LWM_OPT_FLAG(0, "tie", &s.tie, "head and embedding share one table"),
	LWM_OPT_DOUBLE(0, "theta", &s.theta, 1, 1e15, "X", "base of the rotary angles", 0),
	LWM_OPT_DOUBLE(0, "norm-eps", &s.norm_eps, 0, 1, "X", "of RMSNorm; 0: what --start-from says, else the preset's", 0),
	LWM_OPT_DOUBLE(0, "init-std", &s.init_std, 0, 10, "X", "of first weights; 0: the preset's (0.02; small models: 1/sqrt(dim))", 0),
	LWM_OPT_HEAD("Schedule"),
	LWM_OPT_INT(0, "steps", &s.steps, 1, 1 << 30, "N", "updates of the whole stage", 0),
	LWM_OPT_CHOICE(0, "schedule", &s.schedule, lwm_schedule_names, "learning rate behind the warmup", 0),
	LWM_OPT_DOUBLE(0, "lr", &s.lr, 0, 100, "X", "highest learning rate", 0),
	LWM_OPT_DOUBLE(0, "min-lr", &s.min_lr, 0, 100, "X", "learning rate at the end (cosine, linear)", 0),
	LWM_OPT_INT(0, "decay-steps", &s.decay_steps, 0, 1 << 30, "N", "from step 0 to --min-lr; 0: --steps", 0),
	LWM_OPT_INT(0, "warmup-steps", &s.warmup_steps, 0, 1 << 30, "N", "linear warmup", 0),
	LWM_OPT_CHOICE(0, "warmup-from", &s.warmup_from, lwm_warmup_names,
		       "its update n = 0, 1, ... uses (n+1)/N of the way to --lr; or n/N, as the released code does", 0),
	LWM_OPT_DOUBLE(0, "init-lr", &s.init_lr, 0, 100, "X", "learning rate that the warmup starts from", 0),
	LWM_OPT_DOUBLE(0, "weight-decay", &s.weight_decay, 0, 100, "X", "of matrices; norms and biases are left alone", 0),
	LWM_OPT_FLAG(0, "decay-all", &s.decay_all, "norms and biases decay too, as in the released code"),
	LWM_OPT_DOUBLE(0, "beta1", &s.beta1, 0, 0.999999, "X", "AdamW", 0),
	LWM_OPT_DOUBLE(0, "beta2", &s.beta2, 0, 0.999999, "X", "AdamW", 0),
	LWM_OPT_DOUBLE(0, "eps", &s.eps, 0, 1, "X", "AdamW", 0),
	LWM_OPT_DOUBLE(0, "clip", &s.clip, 0, 1e9, "X", "largest gradient norm; 0: no clipping", 0),
	LWM_OPT_DOUBLE(0, "spike-factor", &s.spike_factor, 0, 1e9, "X", "skip updates whose gradient norm exceeds X medians; 0: never", 0),
	LWM_OPT_HEAD("Ranks and memory"),
	LWM_OPT_STR(0, "mesh-dim", &s.mesh_dim, "D,F,T,S", "dp,fsdp,tp,sp; one may be -1", 0),
	LWM_OPT_CHOICE(0, "ring-layout", &s.ring_layout, lwm_ring_layouts, "who holds which tokens of a row", 0),
	LWM_OPT_FLAG(0, "no-recompute", &s.no_recompute, "keep all activations of a layer instead of computing them again"),
	LWM_OPT_CHOICE(0, "offload", &s.offload, lwm_offload_names,
		       "what is kept of each layer waits in host memory; auto: where the GPU is too small", 0),
	LWM_OPT_INT(0, "scan-mlp-chunk-size", &s.mlp_chunk, 0, 1 << 24, "N", "tokens of the MLP at a time; 0: 4096", 0),
	LWM_OPT_INT(0, "loss-mib", &s.loss_mib, 0, 1 << 20, "N", "most MiB of logits at a time; 0: 128", 0),
	LWM_OPT_INT(0, "plan-ranks", &plan_ranks, 1, 1 << 20, "N", "ranks that --plan and --check-options are made for", 0),
	LWM_OPT_INT(0, "plan-memory", &s.plan_gib, 0, 1 << 20, "GIB", "of the GPU that --plan is made for; 0: the device at hand", 0),
	LWM_OPT_HEAD("Checkpoints and records"),
	LWM_OPT_INT(0, "checkpoint-every", &s.checkpoint_every, 0, 1 << 30, "N", "steps; 0: only at the end", 0),
	LWM_OPT_INT(0, "keep", &s.keep, 1, 1 << 20, "N", "newest checkpoints that stay", 0),
	LWM_OPT_INT(0, "keep-every", &s.keep_every, 0, 1 << 30, "N", "and every N steps for good; 0: none", 0),
	LWM_OPT_INT(0, "log-every", &s.log_every, 1, 1 << 30, "N", "steps a line on stderr", 0),
	LWM_OPT_DOUBLE(0, "peak-tflops", &s.peak_tflops, 0, 1e9, "X",
		       "of one rank's device, for MFU; 0: its matrix product is measured once steps have taken 5 s", 0),
	LWM_OPT_INT(0, "eval-every", &s.eval_every, 0, 1 << 30, "N", "steps; 0: only at the end", 0),
	LWM_OPT_INT(0, "eval-rows", &s.eval_rows, 0, 1 << 30, "N", "held-out rows (or frames) an evaluation takes, each once; all when there are fewer", 0),
	LWM_OPT_LIST(0, "allow-change", &s.allow_change, "NAME", "a resumed run may have another value of this option (data: other rows)", 0),
	LWM_OPT_FLAG(0, "start-over", &s.start_over, "begin at step 0 where no checkpoint is whole; what stands is set aside"),
	LWM_OPT_INT(0, "stop-after", &s.stop_after, 0, 1 << 30, "N", "save and stop (exit 75) after N steps of this run", 0),
	LWM_OPT_SECONDS(0, "grace", &s.grace, "TIME", "stop this long before the Slurm limit", 0),
	LWM_OPT_SECONDS(0, "watchdog", &s.watchdog, "TIME", "exit 76 when a rank among several gives no sign of life for so long; 0: never", 0),
	LWM_OPT_HEAD("VQGAN"),
	LWM_OPT_INT(0, "resolution", &s.resolution, 0, 8192, "N", "frame size, over the preset", 0),
	LWM_OPT_STR(0, "channel-mult", &s.channel_mult, "LIST", "channels of the levels in units of --hidden", 0),
	LWM_OPT_INT(0, "hidden", &s.hidden, 0, 4096, "N", "channels of the first level, over the preset", 0),
	LWM_OPT_INT(0, "res-blocks", &s.res_blocks, 0, 16, "N", "over the preset", 0),
	LWM_OPT_INT(0, "z-channels", &s.z_channels, 0, 4096, "N", "size of a code vector, over the preset", 0),
	LWM_OPT_INT(0, "codes", &s.codes, 0, 1 << 20, "N", "rows of the codebook, over the preset", 0),
	LWM_OPT_INT(0, "groups", &s.groups, 0, 1024, "N", "of the group norms, over the preset", 0),
	LWM_OPT_INT(0, "batch-frames", &s.batch_frames, 1, 1 << 20, "N", "frames in a step, all ranks together", 0),
	LWM_OPT_INT(0, "frames-per-pass", &s.frames_per_pass, 1, 1 << 20, "N", "frames in memory at once", 0),
	LWM_OPT_INT(0, "holdout", &s.holdout, 0, 1 << 30, "N", "every N-th clip is held out; 0: none", 0),
	LWM_OPT_INT(0, "cache-mib", &s.cache_mib, 1, 1 << 24, "N", "memory for decoded frames", 0),
	LWM_OPT_MAX_PIXELS(&s.max_pixels),
	LWM_OPT_DOUBLE(0, "fps", &s.fps, 0, 1000, "X", "frames a second that are taken; 0: all", 0),
	LWM_OPT_DOUBLE(0, "l1", &s.l1, 0, 1e6, "X", "weight of |x - t|", 0),
	LWM_OPT_DOUBLE(0, "l2", &s.l2, 0, 1e6, "X", "weight of (x - t)^2", 0),
	LWM_OPT_DOUBLE(0, "codebook-weight", &s.codebook_weight, 0, 1e6, "X", "pulls codes to latents", 0),
	LWM_OPT_DOUBLE(0, "commit-weight", &s.commit_weight, 0, 1e6, "X", "pulls latents to codes", 0),
	LWM_OPT_INT(0, "quantize-from", &s.quantize_from, 0, 1 << 30, "N", "before this step a plain autoencoder learns", 0),
	LWM_OPT_INT(0, "probe-frames", &s.probe_frames, 0, 1 << 20, "N",
		    "random frames that make the codebook at that step; 0: it stays as drawn", 0),
	LWM_OPT_INT(0, "revive-every", &s.revive_every, 0, 1 << 30, "N", "steps; codes that no probe frame uses are drawn anew; "
		    "0: never", 0),
	LWM_OPT_INT(0, "revive-until", &s.revive_until, 0, 1 << 30, "N", "last step that draws codes anew", 0),
	LWM_OPT_END,
};

/* A run and a plan ask the same with the ranks that they have. */
static int check(const struct lwm_args *a, struct lwm_err *e)
{
	return a->checking ? lwm_stage_check(&s, (int)plan_ranks, e) : 0;
}

static const struct lwm_tool tool = {
	.name = "lwm-train-stage",
	.summary = "Trains one stage of a language model, or the VQGAN; resumes where it was stopped.",
	.operands = "",
	.opts = opts,
	.ranks = true,
	.stops = true,
	.check = check,
	.details = "Started under mpirun or srun its ranks share the work as --mesh-dim says; with --device cuda or auto each takes the\n"
		   "GPU of its number on the node. SIGUSR1, SIGTERM and the time limit end it after a clean save with exit code 75: run\n"
		   "it again. A file STOP in the output folder ends it with 0, for good. A second run in the same folder is refused (73).\n"
		   "\n"
		   "--loss-weighting: the loss of an example (a segment of a row) is the mean over its labels, that of a step the mean over\n"
		   "its examples (per_example); or the mean over all labels (per_token); or, as in the released code, the mean over rows,\n"
		   "those without a label among them (published). With --text-weight T --vision-weight V, or as published, the loss of an\n"
		   "example or row is T times the mean over its text labels plus V times that over its vision labels; with per_token a\n"
		   "label weighs T or V. Rows of one example each, per_example and 0.5 each is the published loss too.\n",
	.examples = "  lwm-train-stage -o runs/32k --model nano --data rows/32k --seq-length 32K --theta 1e6\n"
		    "  mpirun -n 4 lwm-train-stage --config stage.yaml -o runs/1m --mesh-dim 1,1,1,-1",
};

static int plan(const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_str out = { 0 };
	int rc = lwm_stage_plan(&s, (int)plan_ranks, a->common.json, &out, e);
	fwrite(lwm_str_get(&out), 1, out.len, stdout);
	lwm_str_release(&out);
	return rc;
}

static int run(const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_comm *world;
	s.seed = a->common.seed;
	s.threads = a->common.threads;
	if (a->common.plan)
		return plan(a, e);
	LWM_TRY(lwm_comm_mpi(&world, NULL, NULL, e));
	lwm_log_rank(lwm_comm_rank(world), lwm_comm_size(world));
	int rc = lwm_stage_run(&s, world, e);
	lwm_tool_say(rc, e);
	return lwm_comm_end(world, rc, e);
}

int main(int argc, char **argv)
{
	lwm_stage_defaults(&s);
	return lwm_tool_main(&tool, argc, argv, run);
}
