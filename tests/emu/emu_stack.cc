/* emu_stack.cc - from one stack to another, by hand: some ten times faster than swapcontext, which asks the kernel. */
#include "emu_int.h"

#include <cstring>

#if defined(__x86_64__)
asm(".text\n.hidden emu_switch\n.globl emu_switch\n.type emu_switch,@function\n"
    "emu_switch:\n"
    "	push %rbp\n	push %rbx\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
    "	mov %rsp,(%rdi)\n	mov %rsi,%rsp\n"
    "	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbx\n	pop %rbp\n	ret\n"
    ".size emu_switch,.-emu_switch\n");

/* emu_switch pops six registers and returns into `entry` */
void *emu_fresh_stack(char *top, void (*entry)())
{
	void **sp = reinterpret_cast<void **>(top) - 8;

	memset(sp, 0, 64);
	sp[6] = reinterpret_cast<void *>(entry);
	return sp;
}
#elif defined(__aarch64__)
asm(".text\n.hidden emu_switch\n.globl emu_switch\n.type emu_switch,%function\n"
    "emu_switch:\n"
    "	sub sp,sp,#160\n"
    "	stp x19,x20,[sp,#0]\n	stp x21,x22,[sp,#16]\n	stp x23,x24,[sp,#32]\n	stp x25,x26,[sp,#48]\n"
    "	stp x27,x28,[sp,#64]\n	stp x29,x30,[sp,#80]\n"
    "	stp d8,d9,[sp,#96]\n	stp d10,d11,[sp,#112]\n	stp d12,d13,[sp,#128]\n	stp d14,d15,[sp,#144]\n"
    "	mov x9,sp\n	str x9,[x0]\n	mov sp,x1\n"
    "	ldp x19,x20,[sp,#0]\n	ldp x21,x22,[sp,#16]\n	ldp x23,x24,[sp,#32]\n	ldp x25,x26,[sp,#48]\n"
    "	ldp x27,x28,[sp,#64]\n	ldp x29,x30,[sp,#80]\n"
    "	ldp d8,d9,[sp,#96]\n	ldp d10,d11,[sp,#112]\n	ldp d12,d13,[sp,#128]\n	ldp d14,d15,[sp,#144]\n"
    "	add sp,sp,#160\n	ret\n"
    ".size emu_switch,.-emu_switch\n");

void *emu_fresh_stack(char *top, void (*entry)())
{
	void **sp = reinterpret_cast<void **>(top) - 20;

	memset(sp, 0, 160);
	sp[11] = reinterpret_cast<void *>(entry);
	return sp;
}
#else
#error "tests/emu has no way to switch stacks on this processor: see emu_switch"
#endif
