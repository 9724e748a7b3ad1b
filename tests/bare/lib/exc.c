/* SPDX-License-Identifier: Apache-2.0 */
/* Exceptions: recording and recovery. vectors.S has the entries. */
#include "lib/bare.h"

volatile struct exc exc = { .vector = -1 };
volatile word exc_resume;
word user_flags, user_cs, user_ss, user_sp;
volatile word attempt_sp; /* where attempt() left off; 0: not in one */
static void (*handlers[256])(struct frame *);
void attempt_leave(int vector) __attribute__((noreturn));
int attempt_enter(void (*fn)(void *), void *arg);
void user_enter(void *args);
void exc_entry(struct frame *f);

void exc_clear(void)
{
	exc.vector = -1;
	exc.count = 0;
	exc.error = exc.cr2 = 0;
}

void on_vector(unsigned vector, void (*handler)(struct frame *))
{
	handlers[vector] = handler;
}

void exc_entry(struct frame *f)
{
	if (handlers[f->vector]) {
		handlers[f->vector](f);
		return;
	}
	exc.vector = (int)f->vector;
	exc.error = f->error;
	exc.cr2 = read_cr2();
	exc.ip = f->ip;
	exc.cs = f->cs;
	exc.flags = f->flags;
#ifdef __x86_64__
	exc.sp = f->sp;
	exc.ss = f->ss;
	exc.regs = *f;
#else
	/* Without a change of privilege there is no SS:ESP, and above it may be anything. */
	bool other = (f->cs & 3) != 0 || f->flags & 1u << 17;

	exc.sp = other ? f->sp : (word)&f->sp;
	exc.ss = other ? f->ss : SEL_KDATA;
	memcpy((void *)&exc.regs, f, f->flags & 1u << 17 ? sizeof(*f) : offsetof(struct frame, v86_es) - (other ? 0 : 8));
#endif
	exc.dr6 = read_dr6();
	exc.handler_flags = read_flags();
	exc.handler_sp = (word)f;
	exc.count++;
	if (exc_resume) {
		f->ip = exc_resume;
		f->flags &= ~(word)(1 << 8 | 1 << 16);
		exc_resume = 0;
		return;
	}
	if (attempt_sp)
		attempt_leave(exc.vector);
	bail("unexpected exception %d, error 0x%lx, at 0x%lx (CS 0x%lx), flags 0x%lx, CR2 0x%lx", exc.vector, exc.error,
	     exc.ip, exc.cs, exc.flags, exc.cr2);
}

int attempt(void (*fn)(void *), void *arg)
{
	exc_clear();
	return attempt_enter(fn, arg);
}

void attempt_return(void)
{
	attempt_leave(-1);
}

int user_run(word ip, word a, word b)
{
	word args[3] = { ip, a, b };

	return attempt(user_enter, args);
}
