/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest guest: its first instruction says that it runs (port 0xe9), its last ends the VM (port 0xf4).
 */
	.section .multiboot, "a"
	.balign 4
	.long	0x1badb002, 3, -(0x1badb002 + 3)

	.text
	.globl start
start:
	mov	$'!', %al
	out	%al, $0xe9
	xor	%eax, %eax
	out	%eax, $0xf4
	hlt
