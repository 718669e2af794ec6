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
	if (f["op"] == "train") { train[f["threads"]] = f["of_sgemm"] ""; tok[f["threads"]] = f["tok_s"] "" }
	if (f["op"] ~ /^attn_both|^attn_fwd_bwd|^both$/ && f["T"] == 16384) { attn[f["threads"]] = f["of_sgemm"] ""; ams[f["threads"]] = f["ms"] "" }
	if (f["op"] == "vqgan_encode") { enc[f["threads"]] = f["of_sgemm"] ""; fps[f["threads"]] = f["frames_s"] "" }
	if (f["op"] == "vqgan_decode") dec[f["threads"]] = f["of_sgemm"] ""
	if (f["op"] == "ring_zigzag" && f["ranks"] == 2) ring = f["efficiency"] ""
	if (f["op"] == "overlap_exchange") { waited = f["waited"] ""; left = f["left"] "" }
	if (f["op"] == "tokenize_ratio") tokenize = f["of_spm_encode"] ""
	if (f["op"] == "tokenize") tsec[f["threads"]] = f["ms"] ""
	if (f["op"] == "pack") pack = f["Mtoks"] ""
	if (f["op"] == "merge_fp32") merge = f["of_cat_percent"] / 100 ""
	if (f["op"] == "save_behind") blocked = f["percent"] / 100 ""
	if (f["op"] == "rows_random") random = f["us_each"] ""
}
function factor(a, b) { return a == "" || b == "" || b == 0 ? "" : sprintf("%.2f", a / b) }
END {
	add("train 124M, B=4 T=1024, 2 threads", train[2], "of sgemm", 0.60, 0.80)
	add("attention fwd+bwd, 8x64, T=16384, 2 threads", attn[2], "of sgemm", 0.60, 0.80)
	add("VQGAN encode 256x256, 2 threads", enc[2], "of sgemm", 0.75, 1.00)
	add("VQGAN decode 256x256, 2 threads", dec[2], "of sgemm", "", "")
	add("second thread: train", factor(tok[2], tok[1]), "x", 1.8, 1.95)
	add("second thread: attention", factor(ams[1], ams[2]), "x", 1.8, 1.95)
	add("second thread: VQGAN encode", factor(fps[2], fps[1]), "x", 1.8, 1.95)
	add("second thread: tokenize", factor(tsec[1], tsec[2]), "x", 1.8, 1.95)
	add("ring of 2 ranks, zigzag", ring, "of one process", 0.90, 0.97)
	add("training waits for a save behind it, of one that it waits for", blocked, "of its time", "", 0.05)
	add("256 MiB exchanged beside 4 times its time computed: waited for", waited, "of its time", "", "")
	add("same, and slower arithmetic where the core copies", left, "of its time", "", "")
	add("tokenize, 1 thread", tokenize, "of spm_encode", 0.9, "")
	add("pack", pack, "Mtokens/s", 50, 200)
	add("merge to fp32", merge, "of cat", 0.8, 0.95)
	add("random row of a large shard", random, "us", "", "")
	printf "\n%-46s %10s %-15s %6s %6s\n", "work", "measured", "", "must", "goal"
	for (i = 1; i <= n; i++) printf "%-46s %10.3f %-15s %6s %6s\n", row[i], val[i], un[i], mu[i], go[i]
	printf "\n["
	for (i = 1; i <= n; i++)
		printf "%s\n {\"work\":\"%s\",\"value\":%.4f,\"unit\":\"%s\",\"must\":%s,\"goal\":%s}", (i == 1 ? "" : ","), row[i], val[i], un[i],
			mu[i] == "" ? "null" : mu[i], go[i] == "" ? "null" : go[i]
	printf "\n]\n"
}
