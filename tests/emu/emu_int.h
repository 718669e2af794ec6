/* emu_int.h - between emu.cc, emu_mem.cc and emu_api.cc. */
#ifndef EMU_EMU_INT_H
#define EMU_EMU_INT_H

#include "emu.h"

/* Of emu_stack.cc: leaves this stack, whose place goes to *save, for another one; the stack of a fiber that has not run. */
extern "C" void emu_switch(void **save, void *to);
void *emu_fresh_stack(char *top, void (*entry)());

namespace emu
{

enum { MAX_GPUS = 8 };

/* Of emu.cc: of this host thread. They lie outside of thread_local variables, which each block spoils. */
struct host_state {
	int gpu;        /* the current one */
	int last_error; /* as cudaGetLastError hands it out */
};
host_state &state_of_host();
void run_kernel(const launch &l, const std::function<void()> &body);
const launch *running(); /* NULL: no kernel runs on this host thread */
int order();

/* Of emu_mem.cc */
void *device_alloc(int gpu, size_t bytes); /* NULL: full */
bool device_free(void *p);
void device_memory(int gpu, size_t *free_bytes, size_t *total);
int device_of(const void *p);                      /* GPU, -1: no device memory */
bool device_holds(const void *p, size_t bytes);    /* within one allocation; else says so on standard error */
void open_memory(int gpu);                         /* may be touched until close_memory, which looks for overruns */
void close_memory(int gpu, const launch *l);
void *host_alloc(size_t bytes);
bool host_free(void *p);
bool host_pinned(const void *p);

} // namespace emu
#endif
