/* err.h - how failures travel: a negative exit code and one finished sentence.
 *
 *	int read_thing(struct thing **out, const char *path, struct lwm_err *e)
 *	{
 *		LWM_TRY(lwm_path_want(path, e));                              returns its code at once
 *		if (...)
 *			return lwm_fail(e, LWM_EDATA, "%s: no such thing", path);
 *
 * A function that can fail returns 0 or -LWM_E...; it fills *e, prints nothing and frees what it owns. The first failure
 * is kept; callers add where they were with lwm_context. Only tools/ print and exit, with the code's positive value.
 * A sentence begins with whose fault it is (a file, an option), and says what is wrong and, where it can, what to do.
 */
#ifndef LWM_BASE_ERR_H
#define LWM_BASE_ERR_H

enum lwm_code {
	LWM_OK = 0,
	LWM_ENO = 1,           /* a comparison or check says no */
	LWM_EUSAGE = 64,       /* options or pipeline file */
	LWM_EDATA = 65,        /* input is corrupt, truncated or of the wrong kind */
	LWM_ENOINPUT = 66,     /* input does not exist or cannot be read */
	LWM_EUNAVAIL = 69,     /* device, MPI or library not usable here */
	LWM_EINTERNAL = 70,    /* a broken promise of our own */
	LWM_EMEMORY = 71,      /* out of memory or over a limit of the system */
	LWM_ECANTCREATE = 73,  /* output exists (no --force) or cannot be created */
	LWM_EIO = 74,          /* read or write failed, disk full, quota */
	LWM_ESAVED = 75,       /* stopped on request after a clean save: run me again */
	LWM_ERANK = 76,        /* a rank was lost or is stuck */
	LWM_ECONFIG = 78,      /* values contradict the data, the checkpoint or each other */
	LWM_ENUMERIC = 79      /* NaN, Inf or a loss that ran away */
};

/* Who knows of a failure when several ranks work together; set by lwm_agree (common/comm/comm.h). */
enum lwm_err_who {
	LWM_ERR_MINE = 0, /* this rank alone */
	LWM_ERR_SHARED,   /* every rank; it happened here, so this rank says it */
	LWM_ERR_HEARD,    /* every rank; it happened on another one, which says it */
	LWM_ERR_ALONE     /* this rank alone, while the others wait in a collective: nothing can be agreed on any more */
};

struct lwm_err {
	int code; /* 0 or the negative code that was returned */
	char msg[1024];
	enum lwm_err_who who;
	int said; /* the tool has printed it */
};

/* Sets *e unless it holds an earlier failure; returns -code. e may be NULL. */
int lwm_fail(struct lwm_err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* As lwm_fail, with ": " and strerror(errno_value) after it. The code follows errno: ENOENT -> LWM_ENOINPUT, ENOSPC and
 * EDQUOT -> LWM_EIO, ENOMEM, EMFILE and ENFILE -> LWM_EMEMORY, otherwise `code`. */
int lwm_fail_errno(struct lwm_err *e, int code, int errno_value, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* -LWM_EMEMORY: "WHAT: out of memory", or "out of memory" where what is NULL. */
int lwm_fail_memory(struct lwm_err *e, const char *what);
/* Puts "place: " before the sentence; returns e->code. */
int lwm_context(struct lwm_err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Forgets a failure that was dealt with. */
void lwm_err_clear(struct lwm_err *e);
const char *lwm_code_name(int code); /* "data", "usage", ... for either sign */

/* Return at once: only while the function owns nothing. */
#define LWM_TRY(call)                        \
	do {                                 \
		int lwm_rc_ = (call);        \
		if (lwm_rc_ < 0)             \
			return lwm_rc_;      \
	} while (0)
/* Sets rc and goes to out: once something is owned. */
#define LWM_GO(call)                         \
	do {                                 \
		rc = (call);                 \
		if (rc < 0)                  \
			goto out;            \
	} while (0)
/* A broken invariant of our own code; never for files, options, peers. */
#define LWM_BUG_ON(cond)                                       \
	do {                                                   \
		if (cond)                                      \
			lwm_bug(__FILE__, __LINE__, #cond);    \
	} while (0)
void lwm_bug(const char *file, int line, const char *what) __attribute__((noreturn));

#endif
