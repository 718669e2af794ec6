# Reads the key=value lines of the benchmark programs; prints the rows that the README speaks of as one table, then as JSON.
# A row is a ratio of two numbers of one run; MUST and GOAL are what it is held against. A row that was not measured is left out.
function add(name, value, unit, must, goal) {
	if (value == "") return
	n++; row[n] = name; val[n] = value; un[n] = unit; mu[n] = must; go[n] = goal
}
/^op=/ {
	delete f
	for (i = 1; i <= NF; i++) {
		k = index($i, "=")
		if (k) f[substr($i, 1, k - 1)] = substr($i, k + 1)
	}
	key = f["op"] "/" f["threads"]
	if (f["op"] == "train" && !(f["threads"] in train)) { train[f["threads"]] = f["of_sgemm"] ""; tok[f["threads"]] = f["tok_s"] "" }
	if (f["op"] == "tool_train") { tool = f["of_sgemm"] ""; toolbench = f["of_bench"] "" }
	if (f["op"] ~ /^attn_both|^attn_fwd_bwd|^both$/ && f["T"] == 16384) { attn[f["threads"]] = f["of_sgemm"] ""; ams[f["threads"]] = f["ms"] "" }
	if (f["op"] == "vqgan_encode") { enc[f["threads"]] = f["of_sgemm"] ""; fps[f["threads"]] = f["frames_s"] "" }
	if (f["op"] == "vqgan_decode") dec[f["threads"]] = f["of_sgemm"] ""
	if (f["op"] == "ring_zigzag" && f["ranks"] == 2) ring = f["efficiency"] ""
	if (f["op"] == "overlap_exchange") { waited = f["waited"] ""; left = f["left"] "" }
	if (f["op"] ~ /^overlap_(exchange|allgather|reduce_scatter|sum)$/) {
		n_hidden++
		if (1 - f["waited"] < hidden || n_hidden == 1) hidden = 1 - f["waited"]
	}
	if (f["op"] == "mesh") mesh[f["way"]] = f["of_one"] ""
	if (f["op"] == "ring") { over[f["way"]] = f["of_one"] ""; row_s[f["way"]] = f["median_ms"] "" }
	if (f["op"] == "restart") { again[f["way"]] = f["ms"] / 1000 ""; read_s[f["way"]] = f["read_ms"] / 1000 "" }
	if (f["op"] == "ckpt_save") saved = f["MBs"] / 1000 ""
	if (f["op"] == "save_of_cp_sync") of_cp = f["percent"] / 100 ""
	if (f["op"] == "save_of_cp_sync_read") of_cp_read = f["percent"] / 100 ""
	if (f["op"] == "tokenize_ratio") tokenize = f["of_spm_encode"] ""
	if (f["op"] == "tokenize") tsec[f["threads"]] = f["ms"] ""
	if (f["op"] == "pack") pack = f["Mtoks"] ""
	if (f["op"] == "merge_fp32") merge = f["of_cat_percent"] / 100 ""
	if (f["op"] == "save_behind") blocked = f["percent"] / 100 ""
	if (f["op"] == "rows_random") random = f["us_each"] ""
}
function factor(a, b) { return a == "" || b == "" || b == 0 ? "" : sprintf("%.2f", a / b) }
function saving(short, one) { return row_s[short] == "" || row_s[one] == "" ? "" : sprintf("%.3f", 1 - row_s[short] / row_s[one]) }
END {
	add("train 124M, B=4 T=1024, 2 threads", train[2], "of sgemm", 0.60, 0.80)
	add("lwm-train-stage 124M, B=4 T=1024, --no-recompute", tool, "of sgemm", 0.60, 0.80)
	add("same", toolbench, "of bench_train", "", 0.97)
	add("attention fwd+bwd, 8x64, T=16384, 2 threads", attn[2], "of sgemm", 0.60, 0.80)
	add("VQGAN encode 256x256, 2 threads", enc[2], "of sgemm", 0.75, 1.00)
	add("VQGAN decode 256x256, 2 threads", dec[2], "of sgemm", "", "")
	add("second thread: train", factor(tok[2], tok[1]), "x", 1.8, 1.95)
	add("second thread: attention", factor(ams[1], ams[2]), "x", 1.8, 1.95)
	add("second thread: VQGAN encode", factor(fps[2], fps[1]), "x", 1.8, 1.95)
	add("second thread: tokenize", factor(tsec[1], tsec[2]), "x", 1.8, 1.95)
	add("ring of 2 ranks, zigzag", ring, "of one process", 0.90, 0.97)
	add("ring of 2 ranks, training a row of 8192", over[2], "of one process", 0.90, 0.97)
	add("ring of 4 ranks on the same 2 cores", over[4], "of one process", "", "")
	add("ring of 8 ranks on the same 2 cores", over[8], "of one process", "", "")
	add("row of 8192 in documents of 1000, 1 process: saved", saving("packed", 1), "of the step", "", "")
	add("same, ring of 2 ranks", saving("packed_2", 2), "of the step", "", "")
	add("fsdp, 2 ranks of a core, 1 process of 2", mesh["fsdp"], "of one process", "", 0.90)
	add("tp, likewise", mesh["tp"], "of one process", "", 0.90)
	add("fsdp, recomputed", mesh["fsdp_again"], "of one process", "", 0.90)
	add("tp, recomputed", mesh["tp_again"], "of one process", "", 0.90)
	add("begun communication hidden, the worst of 4 kinds", hidden, "of its time", "", "")
	add("checkpoint of 512 MiB saved", saved, "GB/s", "", "")
	add("same, beside cp and sync", of_cp, "of cp's rate", "", "")
	add("same, beside cp, sync and reading back", of_cp_read, "of cp's rate", "", "")
	add("restart with a checkpoint of 340 MB, 1 process", again["one"], "s", "", "")
	add("same, 2 ranks, fsdp", again["fsdp"], "s", "", "")
	add("reading its bytes by cat", read_s["one"], "s", "", "")
	add("training waits for a save behind it, of one that it waits for", blocked, "of its time", "", 0.05)
	add("256 MiB exchanged beside 4 times its time computed: waited for", waited, "of its time", "", "")
	add("same, and slower arithmetic where the core copies", left, "of its time", "", "")
	add("tokenize, 1 thread", tokenize, "of spm_encode", 0.9, "")
	add("pack", pack, "Mtokens/s", 50, 200)
	add("merge to fp32", merge, "of cat", 0.8, 0.95)
	add("random row of a large shard", random, "us", "", "")
	printf "\n%-62s %10s %-15s %6s %6s\n", "work", "measured", "", "must", "goal"
	for (i = 1; i <= n; i++) printf "%-62s %10.3f %-15s %6s %6s\n", row[i], val[i], un[i], mu[i], go[i]
	printf "\n["
	for (i = 1; i <= n; i++)
		printf "%s\n {\"work\":\"%s\",\"value\":%.4f,\"unit\":\"%s\",\"must\":%s,\"goal\":%s}", (i == 1 ? "" : ","), row[i], val[i], un[i],
			mu[i] == "" ? "null" : mu[i], go[i] == "" ? "null" : go[i]
	printf "\n]\n"
}
