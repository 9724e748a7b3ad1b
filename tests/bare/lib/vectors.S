/* SPDX-License-Identifier: Apache-2.0 */
/* Entries of all vectors, attempt() and the way to CPL 3. See bare.h. */

	.text
	.balign 16
	.globl exc_stubs
exc_stubs:
	.set	vector, 0
	.rept	256
	.balign 16
	/* #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP push an error code themselves. */
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
	push	$0
	.endif
	push	$vector
	jmp	common
	.set	vector, vector + 1
	.endr

#ifdef __x86_64__
common:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rbx
	push	%rbp
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	cld
	mov	%rsp, %rdi
	mov	%rsp, %rbp
	and	$-16, %rsp
	call	exc_entry
	mov	%rbp, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rbp
	pop	%rbx
	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$16, %rsp
	iretq

	.globl attempt_enter
attempt_enter:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	pushf
	mov	%rsp, attempt_sp
	mov	%rdi, %rax
	mov	%rsi, %rdi
	call	*%rax
	mov	$-1, %edi
	.globl attempt_leave
attempt_leave:
	mov	$0x10, %ecx
	mov	%ecx, %ds
	mov	%ecx, %es
	mov	%ecx, %ss
	mov	attempt_sp, %rsp
	movq	$0, attempt_sp
	mov	%edi, %eax
	popf
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

	.globl user_enter
user_enter:
	push	user_ss
	push	user_sp
	push	user_flags
	push	user_cs
	push	(%rdi)
	mov	16(%rdi), %rsi
	mov	8(%rdi), %rdi
	iretq
#else
common:
	pusha
	push	%ds
	push	%es
	push	%fs
	push	%gs
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	cld
	mov	%esp, %eax
	push	%eax
	call	exc_entry
	pop	%eax
	pop	%gs
	pop	%fs
	pop	%es
	pop	%ds
	popa
	add	$8, %esp
	iret

	.globl attempt_enter
attempt_enter:
	mov	4(%esp), %eax
	mov	8(%esp), %edx
	push	%ebx
	push	%ebp
	push	%esi
	push	%edi
	pushf
	mov	%esp, attempt_sp
	push	%edx
	call	*%eax
	push	$-1
	push	$0
	.globl attempt_leave
attempt_leave:
	mov	4(%esp), %eax
	mov	$0x10, %ecx
	mov	%ecx, %ds
	mov	%ecx, %es
	mov	%ecx, %ss
	mov	attempt_sp, %esp
	movl	$0, attempt_sp
	popf
	pop	%edi
	pop	%esi
	pop	%ebp
	pop	%ebx
	ret

	.globl user_enter
user_enter:
	mov	4(%esp), %ecx
	mov	4(%ecx), %eax
	mov	8(%ecx), %edx
	push	user_ss
	push	user_sp
	push	user_flags
	push	user_cs
	push	(%ecx)
	mov	user_ss, %ecx
	mov	%ecx, %ds
	mov	%ecx, %es
	iret
#endif
