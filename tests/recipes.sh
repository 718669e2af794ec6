#!/usr/bin/env bash
# Does what the READMEs say under "To add a ...", in a copy of the tree, with a trivial example of each; builds it, and looks whether
# the example works and whether exactly the files that the README lists were touched. Prints what is wrong, nothing else.
#
#	tests/recipes.sh [-v] [NAME...]		all of them, or those named: tool mesh_axis ...; -v says what is done
#
# A README lists the files of a recipe so:
#
#	## To add a mesh axis			"To add a", then the name of the thing; a heading or a sentence
#
#	- `common/comm/mesh.h`: its line ...	each item starts with a file: from the root, or from the README's folder; NAME in it
#						stands for the example's name; a folder stands for all files in it
#
# or as a table, whose first column names the files.
#
# shellcheck disable=SC2016  # code in quotes
# To test one more, write two functions: add_THING makes the example, in the copy's root; try_THING runs it and prints what does not
# work. Between them everything in `goals` is built. The examples are made one after the other in one copy, and built together.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 70
export LC_ALL=C

# thing, README, what "To add a" is followed by there, NAME of the example. After `alone`: once the others are built and tried, for an op
# changes a header that everything includes; only the kernels are built with it, without optimization.
recipes='tool tools/README.md tool greet
mesh_axis common/comm/README.md mesh_axis ep
objective common/train/README.md objective pull
attention_body common/infer/README.md attention_body single
model_format common/io/README.md model_format nst
checkpoint_group common/io/README.md checkpoint_group lora_a
reader common/data/ingest/README.md dataset_reader words
device kernels/README.md device echo
alone
op kernels/README.md op negate'

# ---- what is used to write a recipe ----

verbose=
[ "${1:-}" != -v ] || { verbose=1; shift; }
wanted=("$@")
goals=()

say() { [ -z "$verbose" ] || echo "$*"; }

insert_after() { # FILE TEXT LINES: after the only line with TEXT
	local n
	n=$(grep -cF -- "$2" "$1")
	[ "$n" = 1 ] || { echo "$1: '$2' stands there $n times"; return 1; }
	TEXT=$2 LINES_=$3 awk '{ print } index($0, ENVIRON["TEXT"]) { print ENVIRON["LINES_"] }' "$1" >"$1.new" && mv "$1.new" "$1"
}

insert_before() { # FILE TEXT LINES: before the only line with TEXT
	local n
	n=$(grep -cF -- "$2" "$1")
	[ "$n" = 1 ] || { echo "$1: '$2' stands there $n times"; return 1; }
	TEXT=$2 LINES_=$3 awk 'index($0, ENVIRON["TEXT"]) { print ENVIRON["LINES_"] } { print }' "$1" >"$1.new" && mv "$1.new" "$1"
}

replace() { # FILE TEXT OTHER: in the only line with TEXT
	local n
	n=$(grep -cF -- "$2" "$1")
	[ "$n" = 1 ] || { echo "$1: '$2' stands there $n times"; return 1; }
	TEXT=$2 OTHER=$3 awk '(i = index($0, ENVIRON["TEXT"])) {
		$0 = substr($0, 1, i - 1) ENVIRON["OTHER"] substr($0, i + length(ENVIRON["TEXT"])) } { print }' "$1" >"$1.new" && mv "$1.new" "$1"
}

expect() { # STATUS TEXT COMMAND...: it ends with this status and says this
	local status=$1 text=$2 out rc
	shift 2
	out=$("$@" 2>&1 </dev/null)
	rc=$?
	[ "$rc" = "$status" ] || echo "$*: exit $rc, expected $status: $(tail -n 3 <<<"$out")"
	grep -qF -- "$text" <<<"$out" || echo "$*: does not say '$text': $(tail -n 3 <<<"$out")"
}

suite() { # NAME: of tests/run.sh; one test at least, all pass
	local last
	last=$(B=build/rel BIN=$PWD/bin tests/run.sh "$1\$" 2>&1 | tail -n 1)
	[[ $last =~ ^[1-9][0-9]*\ passed,\ 0\ failed ]] || echo "tests/run.sh '$1\$': $last"
}

# ---- the recipes ----

add_tool() {
	cat >tools/lwm-greet.c <<'END'
/* Greets everybody that is named. */
#include <stdio.h>

#include "common/cli/opt.h"

static struct {
	const char *word;
} a = { .word = "hello" };

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('w', "word", &a.word, "WORD", "what is said first", 0),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-greet",
	.summary = "greets",
	.operands = "NAME...",
	.min_operands = 1,
	.max_operands = -1,
	.opts = opts,
	.examples = "lwm-greet --word hello world\n",
};

static int greet_all(const struct lwm_args *args, struct lwm_err *e)
{
	(void)e;
	for (int i = 0; i < args->noperand; i++)
		printf("%s %s\n", a.word, args->operand[i]);
	return 0;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, greet_all);
}
END
	replace tools/README.md '| `lwm-run` |' '| `lwm-greet` | greets everybody that is named |
| `lwm-run` |'
	goals+=(bin/lwm-greet)
}

try_tool() {
	cat >tests/cli/lwm-greet.bats <<'END'
# lwm-greet: who is greeted.
load ../lib

@test "everybody is greeted" {
	ok lwm-greet world moon
	[ "$output" = 'hello world
hello moon' ]
}
END
	expect 0 'Examples:' bin/lwm-greet --help
	expect 0 'lwm-greet 0' bin/lwm-greet --version
	expect 0 'good morning world' bin/lwm-greet --set 'word=good morning' world
	expect 64 'lwm-greet' bin/lwm-greet --no-such-option
	suite cli/lwm-greet
}

add_mesh_axis() {
	replace common/comm/mesh.h '"sp",   0,   1,  NULL)' '"sp",   0,   1,  NULL) axis(LWM_EP, "ep", 0, 1, "expert parallelism")'
	goals+=(bin/lwm-train-stage build/rel/tests/unit/test_comm)
}

try_mesh_axis() {
	local stage=(bin/lwm-train-stage --data none --output none --seq-length 64 --check-options --plan-ranks 2 --mesh-dim)
	expect 78 'expert parallelism (ep > 1) is not available' "${stage[@]}" 1,1,1,1,2
	expect 78 'expert parallelism (ep > 1) is not available' "${stage[@]}" ep:2,dp:1,fsdp:1,tp:1,sp:1
	expect 0 '' "${stage[@]}" 1,1,1,2
	expect 64 'expected four numbers' "${stage[@]}" 1,1,1,1,1,2
	suite unit/test_comm
}

# The whole objective that tests/unit/test_objective.c has, in a file of its own.
add_objective() {
	{
		printf '/* Weights are drawn to a target. */\n#include "common/train/objective.h"\n\n#include <stdlib.h>\n#include <string.h>\n\n'
		sed -n '/^\/\* ---- the objective/,/^\/\* ---- its line/p' tests/unit/test_objective.c | sed '1,2d; $d
			s/^static const struct lwm_objective_type pulling/const struct lwm_objective_type lwm_objective_pull/'
	} >common/train/pull.c
	replace common/train/objectives.c 'X("reconstruction", lwm_objective_reconstruction)' \
		'X("reconstruction", lwm_objective_reconstruction) X("pull", lwm_objective_pull)'
	goals+=(bin/lwm-train-stage)
}

try_objective() {
	local stage=(bin/lwm-train-stage --objective pull --data anything --output pulled --device cpu --threads 1)
	expect 0 '' "${stage[@]}" --check-options
	expect 78 'is even' "${stage[@]}" --check-options --weights 4
	expect 0 '--target' "${stage[@]}" --help-all
	expect 0 'verdict' "${stage[@]}" --plan
	expect 0 '"event":"step"' bash -c '"$@" --steps 3 --warmup-steps 0 && cat pulled/metrics.jsonl' - "${stage[@]}"
}

# Safetensors under another name; it is read only.
add_model_format() {
	cat >common/io/model_nst.c <<'END'
/* Weights in one file model.nst, which is safetensors. */
#include "common/base/path.h"
#include "common/io/model_int.h"

static bool lies_in(const char *dir)
{
	return lwm_folder_has(dir, LWM_MODEL_CONFIG) && lwm_folder_has(dir, "model.nst");
}

static int open_weights(void **out, const struct lwm_model_place *from, struct lwm_err *e)
{
	char *path = lwm_path_join(from->dir, "model.nst");
	int rc = path ? lwm_st_open((struct lwm_st **)out, path, e) : lwm_fail_memory(e, NULL);
	free(path);
	return rc;
}

static void close_weights(void *w)
{
	lwm_st_close(w);
}

static int64_t count_tensors(const void *w)
{
	return lwm_st_count(w);
}

static const struct lwm_st_tensor *stored_tensor(const void *w, int64_t i)
{
	return lwm_st_get_tensor(w, i);
}

static int read_values(void *w, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	return lwm_st_read(w, i, offset, n, out, e);
}

static int check_data(void *w, struct lwm_err *e)
{
	return lwm_st_check(w, e);
}

const struct lwm_model_format lwm_model_nst = {
	.name = "nst", .suffix = ".nst", .lies_in = lies_in, .open = open_weights, .close = close_weights,
	.count = count_tensors, .tensor = stored_tensor, .read = read_values, .check = check_data,
};
END
	insert_after common/io/model_formats.c '	&lwm_model_safetensors,' '	&lwm_model_nst,'
	insert_before common/io/model_formats.c 'static const struct lwm_model_format *const formats[] = {' 'extern const struct lwm_model_format lwm_model_nst;'
	goals+=(bin/lwm-inspect)
}

try_model_format() {
	local head='{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
	mkdir build/model
	echo '{"model_type":"llama"}' >build/model/config.json
	printf '%b' "\\x$(printf %02x ${#head})\\0\\0\\0\\0\\0\\0\\0$head\\0\\0\\x80\\x3f\\0\\0\\0\\x40" >build/model/model.nst
	expect 0 'values           2' bin/lwm-inspect build/model
	expect 1 'model.nst: carries no checksums' bin/lwm-inspect --check build/model
}

# The tests of checkpoints go through the whole table of groups, and compare the files of those that are saved today.
add_checkpoint_group() {
	replace common/io/ckpt.h 'group(LWM_CKPT_ADAM_V, "adam_v")' 'group(LWM_CKPT_ADAM_V, "adam_v") group(LWM_CKPT_LORA_A, "lora_a")'
	goals+=(build/rel/tests/unit/test_io_ckpt build/rel/tests/unit/test_io_golden build/rel/tests/unit/test_objective)
}

try_checkpoint_group() {
	grep -qa lora_a build/rel/tests/unit/test_io_ckpt || echo "no group 'lora_a' in the test of checkpoints"
	suite unit/test_io_ckpt
	suite unit/test_io_golden
	suite unit/test_objective
}

# Each line is a document.
add_reader() {
	cat >common/data/ingest/format_words.c <<'END'
/* Each line is a document. */
#include "common/data/ingest/ingest_int.h"

static int next_line(struct lwm_reader *r, struct lwm_record *rec, struct lwm_err *e)
{
	const char *s;
	size_t n;
	bool long_line;
	int k = lwm_lines_next(r->l, &s, &n, &long_line, e);
	if (k <= 0)
		return k;
	rec->line = ++r->line;
	lwm_str_add(&rec->text, s, n);
	return 1;
}

static int build_line(struct lwm_record *rec, const struct lwm_ingest_cfg *c, int64_t number, struct lwm_err *e)
{
	return lwm_fields_text(c->fields, lwm_str_get(&rec->text), rec->text.len, number, &rec->doc, e);
}

static const char *const suffixes[] = { ".words", NULL };
const struct lwm_record_format lwm_format_words = { .suffixes = suffixes, .is_text = true, .next = next_line, .build = build_line };
END
	replace common/data/ingest/formats.c 'X("jsonl", lwm_format_jsonl)' 'X("jsonl", lwm_format_jsonl) X("words", lwm_format_words)'
	goals+=(bin/lwm-tokenize)
}

try_reader() {
	mkdir build/words
	printf 'one\ntwo\nthree\n' | gzip >build/words/a.words.gz
	expect 0 '3 documents = 3 written' bin/lwm-tokenize -t bytes -o build/words.docs.h5 build/words
	expect 0 '3 documents = 3 written' bin/lwm-tokenize -t bytes --format words -d build/named build/words/a.words.gz
	expect 64 '--format' bin/lwm-tokenize -t bytes --format word -d build/named build/words
}

add_op() {
	local abi
	abi=$(sed -nE 's/^#define LK_ABI ([0-9]+).*/\1/p' kernels/kernels_int.h)
	insert_after kernels/dense.h 'int lk_scale(struct lk_dev *dev,' 'int lk_negate(struct lk_dev *dev, const struct lk_view *y); /* y = -y */'
	insert_after kernels/kernels_int.h 'int (*scale)(struct lk_dev *dev,' '	int (*negate)(struct lk_dev *dev, const struct lk_view *y);'
	replace kernels/kernels_int.h "#define LK_ABI $abi" "#define LK_ABI $((abi + 1))"
	cat >>kernels/dispatch_dense.c <<'END'

int lk_negate(struct lk_dev *dev, const struct lk_view *y)
{
	struct lk_check k = { dev, "negate", 0 };

	lk_check_view(&k, "y", y, LK_ANY, LK_FLOATS, LK_DENSE);
	if (k.rc || !lk_count(y))
		return k.rc;
	return LK_CALL(dev, dense, negate, dev, y);
}
END
	insert_before kernels/ref/dense.c 'void lk_ref_fill_dense(' 'static int negate(struct lk_dev *dev, const struct lk_view *y)
{
	return dev->ops.dense.scale(dev, y, -1);
}
'
	insert_after kernels/ref/dense.c 'o->dense.fill =' '	o->dense.negate = negate;'
	insert_before tests/kernels/cases_dense.c 'static const struct ops_case cases[]' 'static int negate(struct ops_run *r, const void *arg)
{
	struct lk_view y = ops_inout(r, "y", OPS_ACT, 1, 77);

	(void)arg;
	return lk_negate(r->dev, &y);
}
'
	insert_before tests/kernels/cases_dense.c 'CMP("zero and fill"' '	CMP("negate", negate, NULL, 0, 0, "exact"),'
	goals+=(bin/lwm-kernel-ops)
}

try_op() {
	expect 0 ' passed, 0 failed, 0 skipped' bin/lwm-kernel-ops cpu --case negate
	expect 0 'dense/negate' bin/lwm-kernel-ops cpu --case negate -v
}

# A device that begins with what ref does, in a folder of its own.
add_device() {
	mkdir kernels/echo
	echo '# kernels/echo: ref under another name' >kernels/echo/README.md
	cat >kernels/echo/echo.c <<'END'
/* echo.c - the echo device: everything as ref does it. */
#include <stdio.h>

#include "kernels/backend.h"

int lk_echo_open(struct lk_dev *dev, int index, int threads, char *why, size_t n)
{
	(void)index, (void)threads, (void)why, (void)n;
	lk_ref_fill(&dev->ops);
	dev->dtype = LK_F32;
	dev->threads = 1;
	dev->is_host = 1;
	snprintf(dev->name, sizeof dev->name, "echo");
	return 0;
}
END
	insert_after kernels/backends.c '.kind = "cpu",' '	{ .kind = "echo", .open = lk_echo_open },'
	insert_after kernels/backend.h 'lk_open_fn lk_cpu_open;' 'lk_open_fn lk_echo_open; /* echo/echo.c */'
	replace tests/kernels/ops.c 'static const char *const devices[] = { "cpu",' 'static const char *const devices[] = { "cpu", "echo",'
	goals+=(bin/lwm-kernel-ops)
}

try_device() {
	expect 0 '[echo]' bin/lwm-kernel-ops echo --case sumsq -v
	expect 0 '[echo]' bin/lwm-kernel-ops --case 'axpy and scale' -v
	expect 1 'there are ref, cpu, echo' bin/lwm-kernel-ops nothing
}

# Generation in which every token is a step of its own and every stream waits for its turn: the same logits, by another body.
add_attention_body() {
	cat >common/infer/attn_single.h <<'END'
/* attn_single.h - attention over caches, prompts token by token. */
#ifndef LWM_INFER_ATTN_SINGLE_H
#define LWM_INFER_ATTN_SINGLE_H

#include "common/infer/kv.h"

int lwm_attn_single_new(struct lwm_kv **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, int64_t max_chunk,
			int64_t max_streams, struct lwm_err *e);

#endif
END
	cat >common/infer/attn_single.c <<'END'
#include "common/infer/attn_single.h"

static int take_prompt(struct lwm_kv *kv, struct lwm_cache *const *c, const int32_t *ids, int64_t n, struct lwm_err *e)
{
	(void)n;
	(void)e;
	lwm_kv_take(kv, c, 1, ids, 1);
	return 0;
}

static int attend_step(struct lwm_attn *a, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o, float *lse,
		       int failed, struct lwm_err *e)
{
	struct lwm_kv *kv = (struct lwm_kv *)a;

	for (int64_t s = 0; s < kv->step.streams && !failed; s++) {
		struct lwm_attn_qkv own = { lwm_view_rows(&x->q, s, 1), lwm_view_rows(&x->k, s, 1), lwm_view_rows(&x->v, s, 1) };
		struct lk_view y = lwm_view_rows(o, s, 1);

		failed = lwm_cache_store(kv->step.caches[s], &kv->work, layer, &own, e);
		if (!failed)
			failed = lwm_cache_attend(kv->step.caches[s], &kv->work, kv->query[s], layer, &own.q, &y,
						  lse + s * kv->cfg.heads, e);
	}
	return failed;
}

static const struct lwm_attn_ops attn_ops = { lwm_kv_begin, lwm_kv_positions, attend_step, NULL, lwm_kv_free };
static const struct lwm_kv_ops kv_ops = { take_prompt, NULL, lwm_kv_grow };

int lwm_attn_single_new(struct lwm_kv **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, int64_t max_chunk,
			int64_t max_streams, struct lwm_err *e)
{
	return lwm_kv_create(out, sizeof **out, &attn_ops, &kv_ops, dev, cfg, max_chunk, max_streams, e);
}
END
	replace common/infer/kv.c 'return lwm_attn_cache_new(' 'return lwm_attn_single_new('
	replace common/infer/kv.c '#include "common/infer/attn_cache.h"' '#include "common/infer/attn_single.h"'
	goals+=(build/rel/tests/unit/test_sample build/rel/tests/unit/test_compose)
}

try_attention_body() {
	suite unit/test_sample
	suite unit/test_compose
}

# ---- how they are followed ----

# The files that a README lists for a thing, NAME replaced by the example's.
listed() { # README THING NAME
	THING=${2//_/ } NAME=$3 awk '
		!found { found = index(tolower($0), "to add a " ENVIRON["THING"]) || index(tolower($0), "to add an " ENVIRON["THING"]); next }
		/^ *([-*]|[0-9]+\.) `/ { split($0, part, "`"); print part[2]; inside = 1; next }
		/^\|/ { split($0, cell, "|"); if (split(cell[2], part, "`") > 1) print part[2]; inside = 1; next }
		/^#/ || (inside && !/^$/ && !/^ /) { exit }' "$1" | sed "s/NAME/$3/g" | while IFS= read -r f; do
		[ -d "${f%%/*}" ] && [[ $f == */* ]] && echo "$f" || echo "$(dirname "$1")/$f"
	done | sort -u
}

# Files that were touched, as they are listed: those of a listed folder by its name.
as_listed() { # LIST
	local f folder
	while IFS= read -r f; do
		while IFS= read -r folder; do
			[[ $folder != */ || $f != "$folder"* ]] || f=$folder
		done <<<"$1"
		echo "$f"
	done | sort -u
}

sums() { find . -type f ! -path './build/*' ! -path './bin/*' -exec cksum {} + | sort; }

files() {
	git ls-files --cached --others --exclude-standard 2>/dev/null ||
		find . \( -path ./build -o -path ./bin -o -path ./lib -o -path ./runs -o -path ./.git \) -prune -o -type f -printf '%P\n'
}

copy_tree() {
	files | while IFS= read -r f; do [ ! -e "$f" ] || printf '%s\n' "$f"; done | tar -cf - -T - | tar -xf - -C "$copy"
	# what was built before and does not change need not be built again; tests are not copied
	[ ! -d build/rel ] || tar -cf - --exclude='build/rel/tests' build/rel | tar -xf - -C "$copy"
}

follow() { # THING README NAME: makes the example; compares what was touched with what is listed
	local thing=$1 want touched
	want=$(listed "$2" "$3" "$4")
	[ -n "$want" ] || { echo "$2 does not list the files to add a ${3//_/ }"; return; }
	sums >"$work/before"
	"add_$thing"
	sums >"$work/after"
	touched=$(comm -3 "$work/before" "$work/after" | awk '{ sub(/^\.\//, "", $3); print $3 }' | as_listed "$want")
	say "$thing: $(tr '\n' ' ' <<<"$touched")"
	comm -3 <(echo "$want") <(echo "$touched") | sed "s|^\t|$2, to add a ${3//_/ }: touched and not listed: |; t
		s|^|$2, to add a ${3//_/ }: listed and not touched: |"
	todo+=("$thing")
}

work=$(mktemp -d) copy=$work/tree
trap 'rm -rf "$work"' EXIT
mkdir "$copy"
copy_tree
cd "$copy" || exit 70
known=
[ ! -e build/rel/deps.mk ] || known=DEPS_KNOWN=1

build_and_try() { # more for make
	local thing
	[ ${#todo[@]} -gt 0 ] || return
	if ! make --no-print-directory -j"$(nproc)" CUDA=0 $known "$@" "${goals[@]}" >"$work/log" 2>&1; then
		echo "the examples (${todo[*]}) cannot be built:"
		grep -E 'error|Error|undefined' "$work/log" | head -10
		exit 1
	fi
	say "built after $SECONDS s: ${goals[*]}"
	for thing in "${todo[@]}"; do
		say "$thing: is tried"
		"try_$thing"
	done
	todo=() goals=()
}

todo=() fast=()
while read -r thing readme words name; do
	[ "$thing" != alone ] || { build_and_try; fast=(OPT=-O0 KFLAGS=); continue; }
	[ ${#wanted[@]} = 0 ] || [[ " ${wanted[*]} " == *" $thing "* ]] || continue
	follow "$thing" "$readme" "$words" "$name"
done <<<"$recipes"
build_and_try "${fast[@]}"
