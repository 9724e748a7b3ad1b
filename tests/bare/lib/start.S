/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multiboot entry, and the way of the other processors from their start-up IPI into long mode (their code is copied
 * to 0x8000; smp.c fills in the stack).
 */
	.section .multiboot, "a"
	.balign 4
	.long	0x1badb002, 3, -(0x1badb002 + 3)

	.text
	.code32
	.globl start
start:
	cli
	mov	$stack_top, %esp
	mov	%ebx, boot_info
#ifdef __x86_64__
	mov	$pml4, %eax
	movl	$pdpt + 7, (%eax)
	movl	$pdpt_user + 7, 8(%eax)
	movl	$pd + 7, pdpt
	movl	$pd + 0x1007, pdpt + 8
	movl	$pd + 0x2007, pdpt + 16
	movl	$pd + 0x3007, pdpt + 24
	movl	$pd_user + 7, pdpt_user
	mov	$0x83, %eax
	xor	%ecx, %ecx
1:	mov	%eax, pd(, %ecx, 8)
	add	$0x200000, %eax
	inc	%ecx
	cmp	$2048, %ecx
	jne	1b
	mov	$0x87, %eax
	xor	%ecx, %ecx
1:	mov	%eax, pd_user(, %ecx, 8)
	add	$0x200000, %eax
	inc	%ecx
	cmp	$512, %ecx
	jne	1b
	call	enter_long
	lgdt	boot_gdt_reg
	ljmp	$8, $start64

/* Paging, NX, SYSCALL, SSE. */
enter_long:
	mov	$pml4, %eax
	mov	%eax, %cr3
	mov	$0x620, %eax
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x901, %eax
	wrmsr
	mov	$0x80010033, %eax
	mov	%eax, %cr0
	ret

	.code64
start64:
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$stack_top, %rsp
	call	desc_init
	call	start_c
	ud2

/* ---- Other processors ---- */
	.code16
	.balign 16
	.globl ap_code, ap_code_end, ap_stack
ap_code:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	lgdtl	0x8000 + ap_gdt_reg - ap_code
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$0x18, $ap_code32
	.balign 4
ap_gdt_reg:
	.word	boot_gdt_end - boot_gdt - 1
	.long	boot_gdt
ap_code_end:
	.code32
ap_code32:
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	ap_stack, %esp
	call	enter_long
	ljmp	$8, $ap_code64
	.code64
ap_code64:
	mov	ap_stack, %rsp
	mov	%rsp, %rsp
	xor	%ebp, %ebp
	call	ap_start_c
	ud2

	.section .rodata
	.balign 8
boot_gdt:
	.quad	0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
boot_gdt_end:
boot_gdt_reg:
	.word	boot_gdt_end - boot_gdt - 1
	.quad	boot_gdt
	.bss
	.balign 4096
	.globl pml4
pml4:	.skip	4096
pdpt:	.skip	4096
pdpt_user: .skip 4096
pd:	.skip	4096 * 4
pd_user: .skip	4096
ap_stack: .skip	8
#else
	call	desc_init
	ljmp	$8, $1f
1:	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	%cr4, %eax
	or	$0x600, %eax
	mov	%eax, %cr4
	mov	$0x33, %eax
	mov	%eax, %cr0
	call	start_c
	ud2
	.bss
#endif
	.balign 16
	.skip	32768
stack_top:
	.globl boot_info
boot_info: .long 0
	.section .note.GNU-stack, "", @progbits
