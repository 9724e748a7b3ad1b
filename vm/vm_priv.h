/* SPDX-License-Identifier: Apache-2.0 */
/* Between vm.c (life), create.c (making and ending) and gdb_target.c. */
#ifndef VM_VM_PRIV_H
#define VM_VM_PRIV_H

#include "vm/vm.h"

#define VM_QUIT_NS (10 * NS_PER_SEC)

void vm_init_gate(struct vm *vm);
struct error *vm_start_threads(struct vm *vm) MUST_CHECK;
void vm_join_threads(struct vm *vm);
/* The gdb stub, if the configuration wants one. */
struct error *vm_create_gdb(struct vm *vm) MUST_CHECK;

#endif
