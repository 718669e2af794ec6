/* events.c - records of TensorFlow, by hand: a handful of fields of one message. */
#include "common/train/events.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/inplace.h"
#include "common/base/log.h"
#include "common/base/path.h"
#include "common/base/str.h"

struct lwm_events {
	int fd;
	struct lwm_str wait; /* what is not on disk yet */
	bool told;
};

/* ---- protocol buffers: a key is field << 3 | type; types 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes ---- */

static void put_varint(struct lwm_str *s, uint64_t v)
{
	for (; v > 127; v >>= 7)
		lwm_str_putc(s, (char)(v | 128));
	lwm_str_putc(s, (char)v);
}

static void put_little(struct lwm_str *s, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		lwm_str_putc(s, (char)(v >> 8 * i));
}

static void put_bytes(struct lwm_str *s, int field, const struct lwm_str *b)
{
	put_varint(s, (uint64_t)field << 3 | 2);
	put_varint(s, b->len);
	lwm_str_add(s, lwm_str_get(b), b->len);
}

/* wall_time 1, step 2. */
static void begin_event(struct lwm_str *s, double time, int64_t step)
{
	uint64_t bits;

	memcpy(&bits, &time, sizeof bits);
	put_varint(s, 1 << 3 | 1);
	put_little(s, bits, 8);
	if (step) {
		put_varint(s, 2 << 3);
		put_varint(s, (uint64_t)step);
	}
}

/* ---- records ---- */

/* CRC-32C (Castagnoli), rotated by 15 and added to, as the format wants it. */
static uint32_t masked_crc(const char *p, size_t n)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < n; i++) {
		crc ^= (unsigned char)p[i];
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (0x82f63b78u & -(crc & 1));
	}
	crc = ~crc;
	return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

/* What is waiting goes to the disk as far as it takes it. */
static void flush_events(struct lwm_events *v)
{
	size_t done = 0;

	while (done < v->wait.len) {
		ssize_t n = write(v->fd, v->wait.s + done, v->wait.len - done);
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	if (done < v->wait.len && !v->told)
		lwm_log(LWM_WARN, "curves for TensorBoard wait in memory: the file cannot be written");
	v->told = v->told || done < v->wait.len;
	if (done)
		memmove(v->wait.s, v->wait.s + done, v->wait.len - done);
	v->wait.len -= done;
}

static void add_record(struct lwm_events *v, const struct lwm_str *event)
{
	struct lwm_str head = { 0 };

	put_little(&head, event->len, 8);
	lwm_str_add(&v->wait, lwm_str_get(&head), head.len);
	put_little(&v->wait, masked_crc(lwm_str_get(&head), head.len), 4);
	lwm_str_add(&v->wait, lwm_str_get(event), event->len);
	put_little(&v->wait, masked_crc(lwm_str_get(event), event->len), 4);
	lwm_str_release(&head);
	flush_events(v);
}

/* file_version 3; session_log 7 with status 1 = START. */
static void put_beginning(struct lwm_events *v, double time, int64_t step)
{
	struct lwm_str event = { 0 }, part = { 0 };

	begin_event(&event, time, 0);
	lwm_str_puts(&part, "brain.Event:2");
	put_bytes(&event, 3, &part);
	add_record(v, &event);
	lwm_str_reset(&event);
	lwm_str_reset(&part);
	begin_event(&event, time, step);
	put_varint(&part, 1 << 3);
	put_varint(&part, 1);
	put_bytes(&event, 7, &part);
	add_record(v, &event);
	lwm_str_release(&event);
	lwm_str_release(&part);
}

/* TIME.HOST.PID. */
static char *name_file(const char *dir, double time)
{
	char host[65] = "", name[160];

	if (gethostname(host, sizeof host - 1))
		snprintf(host, sizeof host, "localhost");
	snprintf(name, sizeof name, "events.out.tfevents.%010.0f.%s.%ld", time, host, (long)getpid());
	return lwm_path_join(dir, name);
}

int lwm_events_open(struct lwm_events **out, const char *dir, double time, int64_t step, struct lwm_err *e)
{
	struct lwm_events *v = calloc(1, sizeof *v);
	char *path = name_file(dir, time);
	int rc = v && path ? lwm_mkdirs(dir, e) : lwm_fail_memory(e, dir);

	*out = NULL;
	if (rc == 0)
		rc = lwm_inplace_open(&v->fd, path, O_WRONLY | O_CREAT | O_APPEND, e);
	free(path);
	if (rc < 0) {
		free(v);
		return rc;
	}
	put_beginning(v, time, step);
	*out = v;
	return 0;
}

/* summary 5 with value 1: tag 1, simple_value 2. */
void lwm_events_scalar(struct lwm_events *v, double time, int64_t step, const char *tag, double value)
{
	struct lwm_str event = { 0 }, summary = { 0 }, one = { 0 }, name = { 0 };
	float x = (float)value;
	uint32_t bits;

	memcpy(&bits, &x, sizeof bits);
	lwm_str_puts(&name, tag);
	put_bytes(&one, 1, &name);
	put_varint(&one, 2 << 3 | 5);
	put_little(&one, bits, 4);
	put_bytes(&summary, 1, &one);
	begin_event(&event, time, step);
	put_bytes(&event, 5, &summary);
	add_record(v, &event);
	lwm_str_release(&event);
	lwm_str_release(&summary);
	lwm_str_release(&one);
	lwm_str_release(&name);
}

void lwm_events_more(struct lwm_events *v, double time, int64_t step, const char *prefix, const char *more)
{
	struct lwm_str text = { 0 }, tag = { 0 };
	const char *key;
	json_t *value;

	lwm_str_printf(&text, "{%s}", *more ? more + 1 : "");
	json_t *o = json_loads(lwm_str_get(&text), 0, NULL);
	json_object_foreach(o, key, value) {
		const char *inner;
		json_t *part;
		lwm_str_reset(&tag);
		lwm_str_printf(&tag, "%s%s", prefix, key);
		if (json_is_number(value))
			lwm_events_scalar(v, time, step, lwm_str_get(&tag), json_number_value(value));
		json_object_foreach(value, inner, part) {
			lwm_str_reset(&tag);
			lwm_str_printf(&tag, "%s%s/%s", prefix, key, inner);
			if (json_is_number(part))
				lwm_events_scalar(v, time, step, lwm_str_get(&tag), json_number_value(part));
		}
	}
	json_decref(o);
	lwm_str_release(&text);
	lwm_str_release(&tag);
}

void lwm_events_close(struct lwm_events *v)
{
	if (!v)
		return;
	flush_events(v);
	if (v->wait.len)
		lwm_log(LWM_WARN, "%zu bytes of curves for TensorBoard are lost: metrics.jsonl has them", v->wait.len);
	close(v->fd);
	lwm_str_release(&v->wait);
	free(v);
}
