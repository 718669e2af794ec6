#include "common/text/sp_shim.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <unordered_map>

using sentencepiece::SentencePieceProcessor;
using sentencepiece::util::Status;

struct lwm_sp {
	SentencePieceProcessor p;
};

static void say(char *msg, size_t size, const char *what)
{
	std::snprintf(msg, size, "%s", what);
}

struct lwm_sp *lwm_sp_open(const char *model, size_t n, char *msg, size_t msg_size)
{
	lwm_sp *sp = nullptr;
	try {
		sp = new lwm_sp;
		Status s = sp->p.LoadFromSerializedProto(absl::string_view(model, n));
		if (s.ok())
			return sp;
		say(msg, msg_size, s.error_message());
	} catch (const std::exception &x) {
		say(msg, msg_size, x.what());
	}
	delete sp;
	return nullptr;
}

void lwm_sp_close(struct lwm_sp *sp)
{
	delete sp;
}

int64_t lwm_sp_encode(const struct lwm_sp *sp, const char *text, size_t n, const int32_t **ids, char *msg,
		      size_t msg_size)
{
	static thread_local std::vector<int> out;
	static_assert(sizeof(int) == sizeof(int32_t), "ids are 32 bits");
	try {
		Status s = sp->p.Encode(absl::string_view(text, n), &out);
		if (s.ok()) {
			*ids = out.data();
			return static_cast<int64_t>(out.size());
		}
		say(msg, msg_size, s.error_message());
	} catch (const std::exception &x) {
		say(msg, msg_size, x.what());
	}
	return -1;
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
	try {
		std::unordered_map<std::string, std::string> kw;
		for (; args[0]; args += 2)
			kw[args[0]] = args[1];
		lines it(next, user);
		std::string out;
		Status s = sentencepiece::SentencePieceTrainer::Train(kw, &it, &out);
		if (!s.ok()) {
			say(msg, msg_size, s.error_message());
			return -1;
		}
		*model = static_cast<char *>(std::malloc(out.size() ? out.size() : 1));
		if (!*model)
			throw std::bad_alloc();
		out.copy(*model, out.size());
		*n = out.size();
		return 0;
	} catch (const std::exception &x) {
		say(msg, msg_size, x.what());
	}
	return -1;
}
