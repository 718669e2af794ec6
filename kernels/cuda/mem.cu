/* mem.cu - memory of a GPU, transfers, events, sequences, scratch.
 *
 * Memory comes from cudaMalloc: it belongs to no queue, as the contract wants, and cudaFree waits for all of them. What
 * is needed again and again is kept instead: scratch, staging buffers, the blocks of sequences. */
#include <stdlib.h>

#include "kernels/cuda/cuda_int.h"

enum { SLOTS = 8, SPARES = 16 };
static const size_t SLOT_BYTES = static_cast<size_t>(2) << 20;

/* Uploads go through pinned buffers, one after the other, so that the caller's memory is free at once and the GPU fetches
 * while the CPU copies the next piece. done[i]: the GPU has read slot i. */
struct lk_cuda_mem {
	char *staging; /* SLOTS * SLOT_BYTES, pinned; NULL until the first upload */
	cudaEvent_t done[SLOTS];
	int next;
	struct {
		void *block;
		size_t bytes;
	} spare[SPARES]; /* of freed sequences */
};

/* The largest alignment that 16-byte accesses, TMA and cuBLASLt ask for, and what cudaMalloc gives anyway. */
static size_t round_256(size_t bytes)
{
	return (bytes + 255) / 256 * 256;
}

static struct lk_cuda_mem *mem_of(struct lk_dev *dev)
{
	struct lk_cuda *cu = lk_cu(dev);

	if (!cu->mem)
		cu->mem = static_cast<struct lk_cuda_mem *>(calloc(1, sizeof *cu->mem));
	if (!cu->mem)
		lk_cuda_fail(dev, LK_ENOMEM, "out of memory");
	return cu->mem;
}

static int device_malloc(struct lk_dev *dev, const char *op, size_t bytes, void **out)
{
	size_t free_bytes = 0, total = 0;
	cudaError_t rc;

	lk_stream(dev);
	rc = cudaMalloc(out, bytes);
	if (rc != cudaErrorMemoryAllocation)
		return lk_cuda_check(dev, op, rc);
	*out = nullptr;
	cudaGetLastError();
	cudaMemGetInfo(&free_bytes, &total);
	return lk_cuda_fail(dev, LK_ENOMEM, "%s: no memory for %zu bytes on GPU %d: %zu of %zu are free", op, bytes,
			    lk_cu(dev)->index, free_bytes, total);
}

static int mem_alloc(struct lk_dev *dev, size_t bytes, void **out)
{
	return device_malloc(dev, "mem_alloc", bytes, out);
}

static void mem_free(struct lk_dev *dev, void *p)
{
	lk_stream(dev);
	cudaFree(p);
}

static int host_alloc(struct lk_dev *dev, size_t bytes, void **out)
{
	cudaError_t rc;

	lk_stream(dev);
	rc = cudaHostAlloc(out, bytes, cudaHostAllocPortable);
	if (rc != cudaErrorMemoryAllocation)
		return lk_cuda_check(dev, "host_alloc", rc);
	*out = nullptr;
	cudaGetLastError();
	return lk_cuda_fail(dev, LK_ENOMEM, "host_alloc: no pinned host memory for %zu bytes", bytes);
}

static void host_free(struct lk_dev *dev, void *p)
{
	lk_stream(dev);
	cudaFreeHost(p);
}

/* ---- transfers ---- */

static int make_staging(struct lk_dev *dev, struct lk_cuda_mem *m)
{
	void *p = nullptr;
	cudaError_t rc;

	for (int i = 0; i < SLOTS; i++) {
		if (m->done[i])
			continue;
		rc = cudaEventCreateWithFlags(&m->done[i], cudaEventDisableTiming);
		if (rc != cudaSuccess)
			return lk_cuda_check(dev, "upload", rc);
	}
	rc = cudaHostAlloc(&p, SLOTS * SLOT_BYTES, cudaHostAllocDefault);
	m->staging = static_cast<char *>(p);
	return lk_cuda_check(dev, "upload", rc);
}

/* Pinned memory of the caller needs no second copy, but then has to be waited for. */
static bool is_pinned(const void *host)
{
	cudaPointerAttributes at;

	if (cudaPointerGetAttributes(&at, host) == cudaSuccess)
		return at.type == cudaMemoryTypeHost;
	cudaGetLastError();
	return false;
}

static cudaError_t upload_piece(struct lk_cuda_mem *m, void *dst, const void *src, size_t bytes, cudaStream_t stream)
{
	int i = m->next;
	char *slot = m->staging + static_cast<size_t>(i) * SLOT_BYTES;
	cudaError_t rc = cudaEventSynchronize(m->done[i]); // never recorded yet: done

	if (rc != cudaSuccess)
		return rc;
	memcpy(slot, src, bytes);
	rc = cudaMemcpyAsync(dst, slot, bytes, cudaMemcpyHostToDevice, stream);
	if (rc == cudaSuccess)
		rc = cudaEventRecord(m->done[i], stream);
	m->next = (i + 1) % SLOTS;
	return rc;
}

static int upload(struct lk_dev *dev, void *dst, const void *src, size_t bytes)
{
	cudaStream_t stream = lk_stream(dev);
	struct lk_cuda_mem *m = mem_of(dev);
	cudaError_t rc = cudaSuccess;
	int bad = m ? 0 : LK_ENOMEM;

	if (!bad && bytes > SLOT_BYTES && is_pinned(src)) {
		rc = cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, stream);
		if (rc == cudaSuccess)
			rc = cudaStreamSynchronize(stream);
		return lk_cuda_check(dev, "upload", rc);
	}
	if (!bad && !m->staging)
		bad = make_staging(dev, m);
	for (size_t at = 0; at < bytes && !bad && rc == cudaSuccess; at += SLOT_BYTES) {
		size_t n = bytes - at < SLOT_BYTES ? bytes - at : SLOT_BYTES;

		rc = upload_piece(m, static_cast<char *>(dst) + at, static_cast<const char *>(src) + at, n, stream);
	}
	return bad ? bad : lk_cuda_check(dev, "upload", rc);
}

static int download(struct lk_dev *dev, void *dst, const void *src, size_t bytes)
{
	cudaStream_t stream = lk_stream(dev);
	cudaError_t rc = cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, stream);

	if (rc == cudaSuccess)
		rc = cudaStreamSynchronize(stream);
	return lk_cuda_check(dev, "download", rc);
}

static int copy(struct lk_dev *dev, void *dst, const void *src, size_t bytes)
{
	cudaStream_t stream = lk_stream(dev);

	return lk_cuda_check(dev, "copy", cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, stream));
}

static int copy_out(struct lk_dev *dev, void *dst, const void *src, size_t bytes)
{
	cudaStream_t stream = lk_stream(dev);

	return lk_cuda_check(dev, "copy_out", cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, stream));
}

static int copy_in(struct lk_dev *dev, void *dst, const void *src, size_t bytes)
{
	cudaStream_t stream = lk_stream(dev);

	return lk_cuda_check(dev, "copy_in", cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, stream));
}

int lk_result(struct lk_dev *dev, const char *op, void *host_out, const void *src, size_t bytes)
{
	struct lk_cuda *cu = lk_cu(dev);
	cudaStream_t stream = lk_stream(dev);
	cudaError_t rc = cudaMemcpyAsync(cu->pinned, src, bytes, cudaMemcpyDeviceToHost, stream);

	if (rc == cudaSuccess)
		rc = cudaStreamSynchronize(stream);
	if (rc == cudaSuccess)
		memcpy(host_out, cu->pinned, bytes);
	return lk_cuda_check(dev, op, rc);
}

void *lk_scratch(struct lk_dev *dev, const char *op, size_t bytes)
{
	struct lk_cuda *cu = lk_cu(dev);
	const size_t unit = static_cast<size_t>(2) << 20;
	size_t whole = (bytes + unit - 1) / unit * unit;

	if (bytes <= cu->scratch_bytes && cu->scratch)
		return cu->scratch;
	lk_stream(dev);
	cudaFree(cu->scratch); // waits for what still uses it
	cu->scratch = nullptr;
	cu->scratch_bytes = 0;
	if (whole < bytes) {
		lk_cuda_fail(dev, LK_ENOMEM, "%s: no memory for %zu bytes of scratch", op, bytes);
		return nullptr;
	}
	if (device_malloc(dev, op, whole ? whole : unit, &cu->scratch))
		return nullptr;
	cu->scratch_bytes = whole ? whole : unit;
	return cu->scratch;
}

/* ---- queues ---- */

static int event_new(struct lk_dev *dev, struct lk_event **out)
{
	struct lk_event *ev = static_cast<struct lk_event *>(calloc(1, sizeof *ev));
	cudaEvent_t cuda = nullptr;
	int rc;

	if (!ev)
		return lk_cuda_fail(dev, LK_ENOMEM, "event_new: out of memory");
	lk_stream(dev);
	rc = lk_cuda_check(dev, "event_new", cudaEventCreateWithFlags(&cuda, cudaEventDisableTiming));
	if (rc) {
		free(ev);
		return rc;
	}
	ev->impl = cuda;
	*out = ev;
	return 0;
}

static void event_free(struct lk_event *ev)
{
	cudaEventDestroy(static_cast<cudaEvent_t>(ev->impl));
	free(ev);
}

static int record(struct lk_dev *dev, struct lk_event *ev)
{
	cudaStream_t stream = lk_stream(dev);

	return lk_cuda_check(dev, "record", cudaEventRecord(static_cast<cudaEvent_t>(ev->impl), stream));
}

static int wait(struct lk_dev *dev, const struct lk_event *ev)
{
	cudaStream_t stream = lk_stream(dev);

	return lk_cuda_check(dev, "wait", cudaStreamWaitEvent(stream, static_cast<cudaEvent_t>(ev->impl), 0));
}

static int sync(struct lk_dev *dev)
{
	return lk_cuda_check(dev, "sync", cudaStreamSynchronize(lk_stream(dev)));
}

static int memory(struct lk_dev *dev, size_t *free_bytes, size_t *total_bytes)
{
	lk_stream(dev);
	return lk_cuda_check(dev, "memory", cudaMemGetInfo(free_bytes, total_bytes));
}

/* ---- sequences ---- */

static uint64_t last_id; /* of all devices */

/* A block of at least `bytes`. Those of freed sequences are used again (decoding makes a sequence per token): the upload
 * into one waits in the queue for what read it. Sequences are freed when no other queue uses them. */
static int take_block(struct lk_dev *dev, struct lk_cuda_mem *m, size_t bytes, struct lk_cuda_seq *cs)
{
	int best = -1;

	for (int i = 0; i < SPARES; i++)
		if (m->spare[i].bytes >= bytes && (best < 0 || m->spare[i].bytes < m->spare[best].bytes))
			best = i;
	if (best < 0 || m->spare[best].bytes > 4 * bytes + 4096) {
		cs->block_bytes = bytes;
		return device_malloc(dev, "seq_new", bytes, &cs->block);
	}
	cs->block = m->spare[best].block;
	cs->block_bytes = m->spare[best].bytes;
	m->spare[best].block = nullptr;
	m->spare[best].bytes = 0;
	return 0;
}

static void give_block(struct lk_cuda_mem *m, struct lk_cuda_seq *cs)
{
	int least = 0;

	for (int i = 1; i < SPARES; i++)
		if (m->spare[i].bytes < m->spare[least].bytes)
			least = i;
	if (m->spare[least].bytes >= cs->block_bytes) {
		cudaFree(cs->block);
		return;
	}
	cudaFree(m->spare[least].block);
	m->spare[least].block = cs->block;
	m->spare[least].bytes = cs->block_bytes;
}

/* pos, seg and the tile summaries, each from a multiple of 256 bytes on. */
static int upload_sequence(struct lk_dev *dev, struct lk_seq *s, struct lk_cuda_seq *cs)
{
	size_t row = round_256(static_cast<size_t>(s->n) * sizeof *s->pos);
	char *at = static_cast<char *>(cs->block);
	int rc = 0;

	s->dev_pos = reinterpret_cast<int32_t *>(at);
	s->dev_seg = reinterpret_cast<int32_t *>(at + row);
	cs->tiles = reinterpret_cast<struct lk_seq_tile *>(at + 2 * row);
	if (s->n > 0)
		rc = upload(dev, s->dev_pos, s->pos, static_cast<size_t>(s->n) * sizeof *s->pos);
	if (s->n > 0 && !rc)
		rc = upload(dev, s->dev_seg, s->seg, static_cast<size_t>(s->n) * sizeof *s->seg);
	if (s->ntiles > 0 && !rc)
		rc = upload(dev, cs->tiles, s->tiles, static_cast<size_t>(s->ntiles) * sizeof *s->tiles);
	return rc;
}

static void seq_free(struct lk_seq *s)
{
	struct lk_cuda_seq *cs = lk_seq_cuda(s);

	if (!cs)
		return;
	lk_stream(s->dev);
	if (cs->plan)
		cs->plan_free(s->dev, cs->plan);
	if (cs->block)
		give_block(lk_cu(s->dev)->mem, cs);
	free(cs);
	s->impl = nullptr;
}

static int seq_new(struct lk_dev *dev, struct lk_seq *s)
{
	size_t bytes = 2 * round_256(static_cast<size_t>(s->n) * sizeof *s->pos) +
		       round_256(static_cast<size_t>(s->ntiles) * sizeof *s->tiles);
	struct lk_cuda_mem *m = mem_of(dev);
	struct lk_cuda_seq *cs = static_cast<struct lk_cuda_seq *>(calloc(1, sizeof *cs));
	int rc;

	if (!m || !cs) {
		free(cs);
		return lk_cuda_fail(dev, LK_ENOMEM, "seq_new: out of memory");
	}
	s->impl = cs;
	cs->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
	rc = take_block(dev, m, bytes ? bytes : 256, cs);
	if (!rc)
		rc = upload_sequence(dev, s, cs);
	if (rc)
		seq_free(s);
	return rc;
}

void lk_cuda_close_mem(struct lk_dev *dev)
{
	struct lk_cuda_mem *m = lk_cu(dev)->mem;

	if (!m)
		return;
	for (int i = 0; i < SPARES; i++)
		cudaFree(m->spare[i].block);
	for (int i = 0; i < SLOTS; i++)
		if (m->done[i])
			cudaEventDestroy(m->done[i]);
	if (m->staging)
		cudaFreeHost(m->staging);
	free(m);
	lk_cu(dev)->mem = nullptr;
}

void lk_cuda_fill_mem(struct lk_ops *o)
{
	o->memory.mem_alloc = mem_alloc;
	o->memory.mem_free = mem_free;
	o->memory.host_alloc = host_alloc;
	o->memory.host_free = host_free;
	o->memory.upload = upload;
	o->memory.download = download;
	o->memory.copy_out = copy_out;
	o->memory.copy_in = copy_in;
	o->memory.copy = copy;
	o->queue.event_new = event_new;
	o->queue.event_free = event_free;
	o->queue.record = record;
	o->queue.wait = wait;
	o->queue.sync = sync;
	o->device.memory = memory;
	o->attention.seq_new = seq_new;
	o->attention.seq_free = seq_free;
}
