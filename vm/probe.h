/* SPDX-License-Identifier: Apache-2.0 */
/* What the engines of this host can do, measured: for `maru run --engine auto` and `maru doctor`. */
#ifndef VM_PROBE_H
#define VM_PROBE_H

/*
 * Writes one JSON object to @out_fd: {"kvm": {"ran", "exact", "good", "ns_per_iteration", "reason"}, and with @all also "bt":
 * {"usable", "ns_per_iteration", "reason"}, "native": {"ns_per_iteration"}, "memory": {"available", "total"}} (bytes). @kvm_fd: /dev/kvm, or -1. Returns an exit status.
 */
int vm_probe(int out_fd, int kvm_fd, int all);

#endif
