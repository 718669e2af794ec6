// sp_shim.cc - libsentencepiece behind extern "C", and the reserve of memory that is given up when `new` fails, so that the call
// ends as it should.
#include "common/text/sp_shim.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <unordered_map>

using sentencepiece::SentencePieceProcessor;
using sentencepiece::util::Status;

struct lwm_sp {
	SentencePieceProcessor p;
};

namespace {

// Memory that is given up when `new` fails, so that the call at hand ends as it should: the library (protobuf in it) ends the
// program when an exception passes through it in the wrong place. That memory was short is then known, and told.
class reserve {
public:
	// Before a call that may take about so much. False: there is none. Costs a load where it is there already.
	bool hold(std::size_t n)
	{
		if (size_ >= n)
			return true;
		std::lock_guard<std::mutex> guard(lock_);
		std::set_new_handler(give_up);
		drop();
		block_ = std::malloc(n);
		size_ = block_ ? n : 0;
		return block_ != nullptr;
	}
	bool release()
	{
		std::lock_guard<std::mutex> guard(lock_);
		return drop();
	}
	// After a call: a large one is not kept.
	void shrink()
	{
		if (size_ > 2 << 20)
			release();
	}

private:
	static void give_up();
	bool drop()
	{
		bool any = block_ != nullptr;
		std::free(block_);
		block_ = nullptr;
		size_ = 0;
		return any;
	}
	std::mutex lock_;
	void *block_ = nullptr;
	std::atomic<std::size_t> size_{ 0 };
};

reserve spare;
thread_local bool starved; // plain: what needs a destructor on each thread may find no memory for its registration

void reserve::give_up()
{
	starved = true;
	if (!spare.release())
		throw std::bad_alloc();
}

void say(char *msg, size_t size, const char *what)
{
	std::snprintf(msg, size, "%s", what);
}

// Runs one call of the library: 0 or a failure.
template <class call> int guarded(std::size_t room, char *msg, size_t msg_size, call f)
{
	int rc = LWM_SP_NO_MEMORY;
	msg[0] = 0;
	if (!spare.hold(room))
		return rc;
	starved = false;
	try {
		Status s = f();
		rc = s.ok() ? 0 : LWM_SP_FAILED;
		if (rc < 0)
			say(msg, msg_size, s.error_message());
	} catch (const std::bad_alloc &) {
	} catch (const std::exception &x) {
		say(msg, msg_size, x.what());
		rc = LWM_SP_FAILED;
	}
	if (starved)
		rc = LWM_SP_NO_MEMORY;
	spare.shrink();
	return rc;
}

template <class from> void *copied(const from *p, std::size_t n)
{
	void *out = std::malloc(n ? n * sizeof *p : 1);
	if (out && n)
		std::memcpy(out, p, n * sizeof *p);
	return out;
}

} // namespace

int lwm_sp_open(struct lwm_sp **out, const char *model, size_t n, char *msg, size_t msg_size)
{
	lwm_sp *sp = nullptr;
	int rc = guarded(32 * n + (1 << 20), msg, msg_size, [&] {
		sp = new lwm_sp;
		return sp->p.LoadFromSerializedProto(absl::string_view(model, n));
	});
	if (rc < 0) {
		delete sp;
		sp = nullptr;
	}
	*out = sp;
	return rc;
}

void lwm_sp_close(struct lwm_sp *sp)
{
	delete sp;
}

int64_t lwm_sp_encode(const struct lwm_sp *sp, const char *text, size_t n, int32_t **ids, char *msg, size_t msg_size)
{
	static_assert(sizeof(int) == sizeof(int32_t), "ids are 32 bits");
	std::vector<int> out;
	int rc = guarded(256 * n + (1 << 20), msg, msg_size, [&] { return sp->p.Encode(absl::string_view(text, n), &out); });
	*ids = rc < 0 ? nullptr : static_cast<int32_t *>(copied(out.data(), out.size()));
	if (rc == 0 && !*ids)
		rc = LWM_SP_NO_MEMORY;
	return rc < 0 ? rc : static_cast<int64_t>(out.size());
}

int32_t lwm_sp_bos(const struct lwm_sp *sp) { return sp->p.bos_id(); }
int32_t lwm_sp_eos(const struct lwm_sp *sp) { return sp->p.eos_id(); }
int32_t lwm_sp_unk(const struct lwm_sp *sp) { return sp->p.unk_id(); }

namespace {
class lines : public sentencepiece::SentenceIterator {
public:
	lines(lwm_sp_line *next, void *user) : next_(next), user_(user) { Next(); }
	bool done() const override { return done_; }
	const std::string &value() const override { return value_; }
	Status status() const override { return Status(); }
	void Next() override
	{
		size_t n;
		const char *s = next_(user_, &n);
		done_ = s == nullptr;
		value_.assign(s ? s : "", s ? n : 0);
	}

private:
	lwm_sp_line *next_;
	void *user_;
	bool done_ = false;
	std::string value_;
};
} // namespace

int lwm_sp_train(const char *const *args, lwm_sp_line *next, void *user, char **model, size_t *n, char *msg,
		 size_t msg_size)
{
	std::string out;
	int rc = guarded(16 << 20, msg, msg_size, [&] {
		std::unordered_map<std::string, std::string> kw;
		for (; args[0]; args += 2)
			kw[args[0]] = args[1];
		lines it(next, user);
		return sentencepiece::SentencePieceTrainer::Train(kw, &it, &out);
	});
	*model = rc < 0 ? nullptr : static_cast<char *>(copied(out.data(), out.size()));
	*n = out.size();
	return rc == 0 && !*model ? LWM_SP_NO_MEMORY : rc;
}
