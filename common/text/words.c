/* Where a text may be cut without changing its ids (struct lwm_cuts), and the cache of ids of the parts. */
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/text/text_int.h"

static bool is_break(uint8_t c)
{
	return c == ' ' || c == '\n';
}

void lwm_cuts_init(struct lwm_cuts *c, const struct lwm_sp_model *m)
{
	memset(c, 0, sizeof *c);
	if (m->model_type != 2 || !m->byte_fallback || m->suffix || m->charsmap || m->remove_spaces ||
	    !m->escape_spaces)
		return;
	c->on = true;
	for (int64_t i = 0; i < m->n; i++) {
		const struct lwm_piece *x = &m->piece[i];
		if (x->type != LWM_PIECE_NORMAL && x->type != LWM_PIECE_USER && x->type != LWM_PIECE_UNUSED)
			continue;
		for (size_t k = 1; k < x->nbytes; k++) {
			uint8_t before = (uint8_t)x->bytes[k - 1];
			if (!is_break((uint8_t)x->bytes[k]) || is_break(before))
				continue;
			if (k + 1 < x->nbytes)
				c->over[before][(uint8_t)x->bytes[k + 1]] = 1;
			else
				memset(c->over[before], 1, sizeof c->over[before]);
		}
	}
	/* U+2581 in a text is a space to the model; its last byte is 0x81. */
	memset(c->over[0x81], 1, sizeof c->over[0x81]);
}

size_t lwm_cuts_next(const struct lwm_cuts *c, const char *text, size_t a, size_t n)
{
	size_t i = a;
	if (!c->on)
		return n;
	while (i < n && is_break((uint8_t)text[i]))
		i++;
	for (i++; i < n; i++)
		if (is_break((uint8_t)text[i]) && !is_break((uint8_t)text[i - 1]) &&
		    !c->over[(uint8_t)text[i - 1]][i + 1 < n ? (uint8_t)text[i + 1] : 0])
			return i;
	return n;
}

enum { SLOTS = 1 << 15, MAX_PART = 48, MAX_IDS = 48, KEY_BYTES = 1 << 20, ID_CELLS = 1 << 19 };

struct slot {
	uint32_t hash; /* upper half; with nkey 0 the slot is free */
	uint16_t nkey, nids;
	uint32_t key, ids;
};
struct lwm_words {
	struct slot slot[SLOTS];
	char keys[KEY_BYTES];
	int32_t ids[ID_CELLS];
	size_t nslots, nkeys, nids;
};

struct lwm_words *lwm_words_new(void)
{
	return calloc(1, sizeof(struct lwm_words));
}

void lwm_words_free(struct lwm_words *w)
{
	free(w);
}

/* The slot of the part, or the free one where it belongs. */
static struct slot *slot_of(struct lwm_words *w, const char *s, size_t n, uint64_t hash)
{
	for (uint32_t i = (uint32_t)hash;; i++) {
		struct slot *x = &w->slot[i & (SLOTS - 1)];
		if (!x->nkey || (x->hash == hash >> 32 && x->nkey == n && !memcmp(w->keys + x->key, s, n)))
			return x;
	}
}

const int32_t *lwm_words_find(struct lwm_words *w, const char *s, size_t n, uint64_t *hash, int64_t *nids)
{
	if (n > MAX_PART)
		return NULL;
	*hash = lwm_hash64(s, n, 0);
	struct slot *x = slot_of(w, s, n, *hash);
	if (!x->nkey)
		return NULL;
	*nids = x->nids;
	return w->ids + x->ids;
}

void lwm_words_put(struct lwm_words *w, const char *s, size_t n, uint64_t hash, const int32_t *ids, int64_t nids)
{
	if (n > MAX_PART || n == 0 || nids > MAX_IDS)
		return;
	if (w->nslots >= SLOTS / 4 * 3 || w->nkeys + n > KEY_BYTES || w->nids + (size_t)nids > ID_CELLS) {
		memset(w->slot, 0, sizeof w->slot);
		w->nslots = w->nkeys = w->nids = 0;
	}
	struct slot *x = slot_of(w, s, n, hash);
	*x = (struct slot){ .hash = (uint32_t)(hash >> 32), .nkey = (uint16_t)n, .nids = (uint16_t)nids,
			    .key = (uint32_t)w->nkeys, .ids = (uint32_t)w->nids };
	memcpy(w->keys + w->nkeys, s, n);
	memcpy(w->ids + w->nids, ids, (size_t)nids * sizeof *ids);
	w->nslots++;
	w->nkeys += n;
	w->nids += (size_t)nids;
}
