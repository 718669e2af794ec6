/* emu_copy.cc - cp.async: what is copied arrives when it is waited for. */
#include "emu_int.h"

#include <cstring>
#include <vector>

namespace emu
{

void copy_later(void *dst, const void *src, int bytes, int valid, place at)
{
	thread *t = self();

	want_shared(dst, static_cast<size_t>(bytes), static_cast<size_t>(bytes), at);
	if (reinterpret_cast<uintptr_t>(src) % static_cast<uintptr_t>(bytes))
		die(at, "the source %p is not aligned to %d bytes", src, bytes);
	if (valid < 0 || valid > bytes)
		die(at, "%d of %d bytes are to be copied", valid, bytes);
	if (!t->copies)
		t->copies = new std::vector<async_copy>();
	memset(dst, 0xff, static_cast<size_t>(bytes)); // until it is waited for
	t->copies->push_back({ dst, src, bytes, valid, t->group });
}

void copies_commit()
{
	self()->group++;
}

void copies_wait(int64_t may_stay)
{
	thread *t = self();
	size_t n = 0;

	if (!t->copies)
		return;
	for (; n < t->copies->size() && (*t->copies)[n].group < t->group - may_stay; n++) {
		const async_copy &c = (*t->copies)[n];

		if (c.valid)
			memcpy(c.dst, c.src, static_cast<size_t>(c.valid));
		memset(static_cast<char *>(c.dst) + c.valid, 0, static_cast<size_t>(c.bytes - c.valid));
	}
	t->copies->erase(t->copies->begin(), t->copies->begin() + static_cast<ptrdiff_t>(n));
}

} // namespace emu
