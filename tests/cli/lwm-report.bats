# lwm-report: the page, the checks, what it refuses.
load ../lib

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	mkdir stage
	echo '{"event":"start","step":0,"unit":"tok"}
{"event":"step","step":1,"loss":3.5,"seconds":1,"seen":64}
{"event":"step","step":2,"loss":2.5,"seconds":1,"seen":128}' >stage/metrics.jsonl
	echo '{"eval": {"psnr": 25.5, "list": [1, 2]}}' >s.json
	echo '<svg width="1"></svg>' >p.svg
	echo 'a < b' >t.txt
	echo '{"stage":"say","seconds":1.5,"max_rss_bytes":1048576}' >timing.jsonl
}

teardown() {
	umount "$BATS_TEST_TMPDIR/small" 2>/dev/null || true
}

@test "a page of everything, twice the same" {
	ok lwm-report -o r.html --title 'A & B' --check 'PSNR: s.json#eval.psnr >= 24' --check 'two: s.json#eval.list.1 <= 2 * s.json#eval.list.0' \
		--stage first=stage --picture 'drawn=p.svg' --text 'said=t.txt' --timing timing.jsonl
	[ -z "$output" ]
	grep -q 'A &amp; B' r.html
	grep -q 'a &lt; b' r.html
	[ "$(sed -nE 's|.*"drawn" src="data:image/svg\+xml;base64,([^"]*)".*|\1|p' r.html | base64 -d)" = "$(cat p.svg)" ]
	grep -q '<td>1.5</td><td>1.0 MiB</td>' r.html
	[ "$(grep -o '>holds<' r.html | wc -l)" = 2 ]
	run grep -cE '(src|href)="(https?:|//)|<script' r.html
	[ "$output" = 0 ]
	ok lwm-report -o again.html --title 'A & B' --check 'PSNR: s.json#eval.psnr >= 24' --check 'two: s.json#eval.list.1 <= 2 * s.json#eval.list.0' \
		--stage first=stage --picture 'drawn=p.svg' --text 'said=t.txt' --timing timing.jsonl
	same r.html again.html
}

@test "nothing from outside is markup or runs; a picture is what its suffix says" {
	echo '<svg xmlns="http://www.w3.org/2000/svg" onload="document.title=1"><script>document.title=2</script></svg>' >evil.svg
	printf 'said\0<script>document.title=3</script>\xff\x1b[2J' >t.txt
	sed -i 's/"unit":"tok"/"unit":"<b onclick=x>"/' stage/metrics.jsonl
	ok lwm-report -o r.html --title '</title><script>document.title=4</script>' --picture '"><script>x</script>=evil.svg' \
		--text $'<i>\xff=t.txt' --stage '<script>=stage'
	[ -z "$(grep -oiE '<(script|svg|i|b)[ >]|onload' r.html)" ]
	grep -q "^<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">" r.html
	grep -q 'said␀&lt;script&gt;document.title=3&lt;/script&gt;�␛\[2J' r.html
	cp evil.svg fake.png
	cp r.html fake.svg
	code 65 lwm-report -o other.html --picture 'p=fake.png'
	err_has 'fake.png: is not what its suffix says'
	code 65 lwm-report -o other.html --picture 'p=fake.svg'
	cp evil.svg evil.html
	code 64 lwm-report -o other.html --picture 'p=evil.html'
	gone other.html
}

@test "a strip has a row for each clip, with its label and its frames" {
	lwm-synth -q drives -n 2 --frames 3 --size 16 -o drives
	ok lwm-report -o r.html --strip 'Drawn: one <b> road: left=drives/drive-00000.mp4; right & on=drives/drive-00001.mp4' --strip 'other: a=drives/drive-00000.mp4'
	tr '\n' ' ' <r.html | grep -q '<h2>Pictures</h2> <figure><table> <tr><td>left</td><td><img .*<tr><td>right &amp; on</td><td><img .*</table><figcaption>Drawn: one &lt;b&gt; road</figcaption></figure> <figure><table> <tr><td>a</td>.*<figcaption>other</figcaption>'
	# three frames of 16 pixels, each three times as wide, with two pixels around them; and of other clips other pictures
	sed -nE 's|.*src="data:image/png;base64,([^"]*)".*|\1|p' r.html >pictures
	[ "$(wc -l <pictures)" = 3 ]
	[ "$(sed -n 1p pictures | base64 -d | head -c 24 | tail -c 8 | od -An -tu1 | tr -s ' ')" = ' 0 0 0 152 0 0 0 52' ]
	[ "$(sed -n 1p pictures)" != "$(sed -n 2p pictures)" ]
	[ "$(sed -n 1p pictures)" = "$(sed -n 3p pictures)" ]
	ok lwm-report -o plan.html --plan --strip 'c: left=drives/drive-00000.mp4; right=absent.mp4'
	has 'strip    c: left=drives/drive-00000.mp4'
	has 'strip    c: right=absent.mp4 (missing)'
	lacks 'drive-00000.mp4 (missing)'
	code 66 lwm-report -o plan.html --strip 'c: left=drives/drive-00000.mp4; right=absent.mp4'
	err_has absent.mp4
	code 64 lwm-report -o plan.html --strip 'left=drives/drive-00000.mp4'
	err_has "expected 'CAPTION: LABEL=FILE"
	code 64 lwm-report -o plan.html --plan --strip 'c: left=drives/drive-00000.mp4; right'
	err_has "'right': expected LABEL=FILE"
	code 64 lwm-report -o plan.html --strip 'c: left=p.svg'
	err_has 'p.svg: rows of a strip are clips'
	code 64 lwm-report -o plan.html --strip "c: $(printf 'a=a.mp4; %.0s' 1 2 3 4 5 6 7 8)b=b.mp4"
	err_has 'at most 8 rows'
	gone plan.html
}

@test "samples of a stage: the first, the middle and the last, texts escaped, pictures in the page, nothing from elsewhere" {
	mkdir stage/samples
	lwm-synth images -q -n 1 --size 16 -o made
	cp made/*.png stage/samples/step-00000005.png
	printf 'given <b>\0 &\xff' >stage/samples/step-00000001.txt
	local i other
	for i in 1 2 3 4; do
		[ "$i" = 1 ] || echo "text of step $i" >"stage/samples/step-0000000$i.txt"
		echo '{"event":"sample","step":'"$i"',"file":"samples/step-0000000'"$i"'.txt","what":"<i>texts","time":1}'
	done >>stage/metrics.jsonl
	echo '{"event":"sample","step":5,"file":"samples/step-00000005.png","what":"frames","time":1}' >>stage/metrics.jsonl
	ok lwm-report -o r.html --stage '<u>=stage'
	[ "$(grep -c '<pre>' r.html)" = 2 ]
	grep -qF '<p>&lt;u&gt;, step 1: &lt;i&gt;texts</p>' r.html
	grep -qF '<pre>given &lt;b&gt;␀ &amp;�</pre>' r.html
	grep -qF 'text of step 3' r.html
	[ -z "$(grep -oE 'text of step (2|4)' r.html)" ]
	sed -nE 's|.*, step 5: frames" src="data:image/png;base64,([^"]*)".*|\1|p' r.html | base64 -d >seen.png
	same seen.png made/*.png
	[ -z "$(grep -oiE '<(u|i|b)>' r.html)" ]
	# what was removed is said
	rm stage/samples/step-00000003.txt
	ok lwm-report -o r.html --stage s=stage
	grep -qF 's, step 3: &lt;i&gt;texts (the file is missing)' r.html
	# a long one is cut
	head -c 70000 /dev/zero | tr '\0' x >stage/samples/step-00000003.txt
	ok lwm-report -o r.html --stage s=stage
	[ "$(sed -n 's/^<pre>\(xx*\)$/\1/p' r.html | tr -d '\n' | wc -c)" = 65536 ]
	ok lwm-status stage
	has 'samples   5, the last of step 5: samples/step-00000005.png'
	ok lwm-status --json stage
	has '"sample":"samples/step-00000005.png"'
	# a name in the records does not bring other files into the page
	cp stage/metrics.jsonl before
	echo secret >stage/secret.txt
	for other in samples/../secret.txt secret.txt /etc/passwd samples/; do
		cp before stage/metrics.jsonl
		echo '{"event":"sample","step":6,"file":"'"$other"'","what":"x","time":1}' >>stage/metrics.jsonl
		code 65 lwm-report -o other.html --stage s=stage
		err_has "stage/metrics.jsonl: '$other' is no .png or .txt in samples/"
	done
	cp before stage/metrics.jsonl
	cp stage/samples/step-00000001.txt stage/samples/step-00000005.png
	code 65 lwm-report -o other.html --stage s=stage
	err_has 'is not what its suffix says'
	gone other.html
}

@test "a check that does not hold is 1, named, with the page there" {
	code 1 lwm-report -o r.html --check 'PSNR: s.json#eval.psnr >= 26' --check 'fine: s.json#eval.psnr >= 1'
	has 'PSNR: 25.5, wanted >= 26'
	lacks fine
	err_has '1 of 2 checks'
	grep -q MISSED r.html
}

@test "a plan, help" {
	ok lwm-report -o r.html --plan --check 'PSNR: s.json#eval.psnr >= 26' --picture a=absent.png --stage s=stage
	has 'absent.png (missing)'
	has 's=stage'
	[ ! -e r.html ]
	ok lwm-report --help
	has '--check'
}

@test "usage 64, data 65, input 66, output 73 and 74; no page is left" {
	code 64 lwm-report
	code 64 lwm-report -o r.html --check 'nonsense'
	err_has nonsense
	code 64 lwm-report -o r.html --check 'A: s.json#eval.psnr >='
	code 64 lwm-report -o r.html --picture absent.png
	code 65 lwm-report -o r.html --check 'A: s.json#eval.other >= 1'
	err_has other
	echo '{' >bad.json
	code 65 lwm-report -o r.html --check 'A: bad.json#a >= 1'
	err_has bad.json
	code 66 lwm-report -o r.html --check 'A: absent.json#a >= 1'
	err_has absent.json
	code 66 lwm-report -o r.html --picture 'p=absent.png'
	code 66 lwm-report -o r.html --stage 's=absent'
	err_has absent/metrics.jsonl
	gone r.html
	code 73 lwm-report -o absent/r.html
	err_has absent/r.html
	code 74 bash -c "lwm-report -o r.html --check 'A: s.json#eval.psnr >= 99' >/dev/full"
}

@test "a full disk is 74 and leaves the page that was there" {
	mkdir small
	mount -t tmpfs -o size=64k tmpfs small 2>/dev/null || skip 'mounting a small file system is not permitted here'
	echo old >small/r.html
	head -c 100000 /dev/zero >small/fill 2>/dev/null || true
	run --separate-stderr lwm-report -o small/r.html --text said=t.txt
	local rc=$status kept
	kept=$(cat small/r.html)
	[ "$rc" = 74 ]
	[ "$kept" = old ]
}
