/* sources.h - what --data says of one source of rows: where they are, their share of the rows, and what their labels weigh.
 *
 *	PATH                          as many rows as there are, if no other source has a share
 *	PATH=84                       a share, on the scale of the others'
 *	PATH=0:100,10000:60           shares at steps; between two steps in proportion, before the first and after the last as there
 *	PATH=84*0.5, PATH=*2          labels of this source weigh 0.5, or 2 (loader.h: v); else 1
 *
 * Local calls.
 */
#ifndef LWM_TRAIN_SOURCES_H
#define LWM_TRAIN_SOURCES_H

#include "common/data/loader/loader.h"

/* Appends the sources to *out, which is malloc'ed, one for each text. A text is the name of its source. -LWM_EUSAGE. */
int lwm_sources_parse(const struct lwm_paths *texts, struct lwm_loader_source **out, struct lwm_err *e);
void lwm_sources_free(struct lwm_loader_source *s, int64_t n); /* NULL is fine */
/* The share of source i at a step as a part of 1; -1: no source has a share. */
double lwm_sources_part(const struct lwm_loader_source *s, int64_t n, int64_t i, int64_t step);
/* Has some source a share at every step, where shares change? -LWM_ECONFIG. */
int lwm_sources_check(const struct lwm_loader_source *s, int64_t n, struct lwm_err *e);
/* Does any share change? */
bool lwm_sources_change(const struct lwm_loader_source *s, int64_t n);

#endif
